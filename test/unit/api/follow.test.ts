import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { frame } from '../../../src/api/frames.js'
import { eventually, Harness } from './harness.js'

let h: Harness
beforeEach(async () => {
  h = await Harness.start()
})
afterEach(() => h.stop())

describe('logs', () => {
  it('framed or raw by tty and version; streams picked by the API', async () => {
    const id = await h.running()
    h.engine.find(id).log = Buffer.concat([frame(1, Buffer.from('o\n')), frame(2, Buffer.from('e\n'))])
    const both = await h.call('GET', `/containers/${id}/logs?stdout=1&stderr=1`)
    expect([both.headers['content-type'], both.text]).toEqual(['application/vnd.docker.multiplexed-stream', h.engine.find(id).log.toString()])
    const one = await h.call('GET', `/v1.41/containers/${id}/logs?stderr=1&tail=5&since=1.5&until=2&timestamps=1`)
    expect([one.headers['content-type'], one.text]).toEqual(['application/vnd.docker.raw-stream', frame(2, Buffer.from('e\n')).toString()])
    expect(h.engine.calls.at(-1)).toEqual(['logs', { follow: false, timestamps: true, details: false, since: 1_500_000_000n, until: 2_000_000_000n, tail: 5, signal: undefined }])
    const tty = await h.running({ Tty: true })
    h.engine.find(tty).log = Buffer.from('raw')
    const raw = await h.call('GET', `/containers/${tty}/logs?stdout=1`)
    expect([raw.headers['content-type'], raw.text]).toEqual(['application/vnd.docker.raw-stream', 'raw'])
    expect((await h.call('GET', `/containers/${tty}/logs?stderr=1`)).text).toBe('')
    expect((await h.call('GET', `/containers/${tty}/logs`)).status).toBe(400)
    expect((await h.call('GET', `/containers/${tty}/logs?stdout=1&since=yesterday`)).status).toBe(400)
    expect((await h.call('GET', '/containers/nosuch/logs?stdout=1')).status).toBe(404)
  })

  it('follow sends its headers before there is a line, and ends when the client goes', async () => {
    const id = await h.running()
    const client = await h.raw()
    client.send(`GET /containers/${id}/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n`)
    expect(await client.head()).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    client.socket.destroy()
  })
})

describe('wait', () => {
  it('sends its headers when the waiter is there, the code when it has ended', async () => {
    const id = await h.running()
    const client = await h.raw()
    client.send(`POST /v1.47/containers/${id}/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n`)
    expect(await client.head()).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect(h.engine.find(id).waiters).toHaveLength(1)
    h.engine.exit(h.engine.find(id), 7)
    await client.text('{"StatusCode":7}\n')
    client.socket.destroy()
    expect((await h.call('POST', `/containers/${id}/wait`)).json()).toEqual({ StatusCode: 7 })
    expect((await h.call('POST', `/v1.29/containers/${id}/wait?condition=ignored`)).json()).toEqual({ StatusCode: 7 })
    expect((await h.call('POST', `/containers/${id}/wait?condition=bogus`)).json()).toEqual({ message: 'invalid condition: "bogus"' })
  })

  it('forgets the waiter of a client that goes', async () => {
    const id = await h.running()
    const client = await h.raw()
    client.send(`POST /containers/${id}/wait HTTP/1.1\r\nHost: x\r\n\r\n`)
    await client.head()
    client.socket.destroy()
    await eventually(() => h.engine.find(id).waiters.length === 0)
  })
})

describe('stats', () => {
  it('one sample, two samples, or a stream', async () => {
    const id = await h.running()
    const once = (await h.call('GET', `/containers/${id}/stats?stream=0&one-shot=1`)).json()
    expect(once).toMatchObject({ preread: '0001-01-01T00:00:00Z', cpu_stats: { system_cpu_usage: 1e9, online_cpus: 2 }, precpu_stats: { cpu_usage: { total_usage: 0 } }, networks: { eth0: { rx_bytes: 1 } } })
    const twice = (await h.call('GET', `/containers/${id}/stats?stream=0`)).json()
    expect(twice).toMatchObject({ cpu_stats: { system_cpu_usage: 2e9 }, precpu_stats: { system_cpu_usage: 1e9 } })
    const client = await h.raw()
    client.send(`GET /containers/${id}/stats HTTP/1.1\r\nHost: x\r\n\r\n`)
    await client.until(() => client.received.toString().split('"preread"').length > 3)
    client.socket.destroy()
    await h.call('POST', `/containers/${id}/stop`)
    expect((await h.call('GET', `/containers/${id}/stats?stream=0`)).json()).toMatchObject({ read: '0001-01-01T00:00:00Z', memory_stats: {} })
    expect((await h.call('GET', '/containers/nosuch/stats')).status).toBe(404)
  })
})

describe('events', () => {
  it('stream line by line from the moment of the headers, and end with the client', async () => {
    const client = await h.raw()
    client.send('GET /events HTTP/1.1\r\nHost: x\r\n\r\n')
    expect(await client.head()).toMatch(/Content-Type: application\/json/i)
    const id = await h.running()
    await client.text('"Action":"start"')
    expect(client.received.toString()).toContain(`"Actor":{"ID":"${id}"`)
    client.socket.destroy()
    await eventually(() => h.engine.eventsEnded === 1)
  })

  it('since and until, and what is wrong with them', async () => {
    await h.running()
    const past = await h.call('GET', '/events?since=1&until=2')
    expect(past.text.trim().split('\n').map((line) => (JSON.parse(line) as { Action: string }).Action)).toEqual(['create', 'start'])
    expect((await h.call('GET', '/events?since=0&until=1')).text).toBe(past.text)
    expect((await h.call('GET', '/events?until=0')).text).toBe('')
    expect((await h.call('GET', '/events?since=3&until=2')).json()).toEqual({ message: '`since` time (3) cannot be after `until` time (2)' })
    // Docker lets a filter by that it does not know: here alone.
    expect((await h.call('GET', '/events?since=1&until=2&filters={"bogus":["x"]}')).text).toBe(past.text)
  })
})
