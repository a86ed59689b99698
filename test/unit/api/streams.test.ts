import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { frame } from '../../../src/api/frames.js'
import { HullError } from '../../../src/base/errors.js'
import { collect, eventually, Harness, type RawClient, upgradeHeaders } from './harness.js'

let h: Harness
beforeEach(async () => {
  h = await Harness.start()
})
afterEach(() => h.stop())

const last = (id: string) => h.engine.find(id).attached.at(-1)!

async function attach(id: string, query = 'stream=1&stdin=1&stdout=1&stderr=1', headers = upgradeHeaders): Promise<{ client: RawClient; head: string }> {
  const client = await h.raw()
  client.send(`POST /v1.47/containers/${id}/attach?${query} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`)
  return { client, head: await client.head() }
}

describe('attach', () => {
  it('upgrades, carries both directions, and half-closes: end of input leaves output going, end of output closes', async () => {
    const id = await h.running({ OpenStdin: true })
    const { client, head } = await attach(id)
    expect(head).toMatch(/^HTTP\/1\.1 101 UPGRADED\r\nContent-Type: application\/vnd\.docker\.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n/)
    const { workload } = last(id)
    const stdin = collect(workload)
    client.send('hello ')
    client.socket.end('world')
    await eventually(() => stdin.ended())
    expect(stdin.text()).toBe('hello world')
    workload.write(frame(1, Buffer.from('out')))
    workload.write(frame(2, Buffer.from('err')))
    await client.until(() => client.received.length === 22)
    expect(client.ended).toBe(false)
    workload.end(frame(1, Buffer.from('bye')))
    await client.until(() => client.ended)
    expect(client.received).toEqual(Buffer.concat([frame(1, Buffer.from('out')), frame(2, Buffer.from('err')), frame(1, Buffer.from('bye'))]))
    expect(client.error).toBeUndefined()
  })

  it('without Upgrade the answer is 200 and the rest is the same, stdin too', async () => {
    const id = await h.running({ OpenStdin: true })
    const { client, head } = await attach(id, undefined, '')
    expect(head).toMatch(/^HTTP\/1\.1 200 OK\r\nContent-Type: application\/vnd\.docker\.raw-stream\r\n/)
    expect(head).not.toMatch(/content-length|transfer-encoding/i)
    const { workload } = last(id)
    const stdin = collect(workload)
    client.send('GET / HTTP/1.1\r\n\r\n') // bytes that look like HTTP are stdin by now
    client.socket.end()
    await eventually(() => stdin.ended())
    expect(stdin.text()).toBe('GET / HTTP/1.1\r\n\r\n')
    workload.end(frame(1, Buffer.from('out')))
    await client.until(() => client.ended)
    expect(client.received).toEqual(frame(1, Buffer.from('out')))
  })

  it('stdin bytes that come with the head are not lost', async () => {
    const id = await h.running({ OpenStdin: true })
    const client = await h.raw()
    client.send(`POST /containers/${id}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\n${upgradeHeaders}\r\nearly`)
    await client.head()
    client.send(' late')
    const stdin = collect(last(id).workload)
    await eventually(() => stdin.text() === 'early late')
    client.socket.destroy()
  })

  it.each([
    ['stream=1&stdout=1', 'out'],
    ['stream=1&stderr=1', 'err'],
    ['stream=1&stdin=1', ''],
  ])('%s sends only that', async (query, expected) => {
    const id = await h.running()
    const { client } = await attach(id, query)
    const { workload } = last(id)
    workload.write(frame(1, Buffer.from('out')))
    workload.end(frame(2, Buffer.from('err')))
    await client.until(() => client.ended)
    expect(client.received.toString('latin1').slice(8)).toBe(expected)
  })

  it('stdin is not read when it was not asked for, and its end does not end the output', async () => {
    const id = await h.running()
    const { client } = await attach(id, 'stream=1&stdout=1&stderr=1')
    const { workload } = last(id)
    const stdin = collect(workload)
    client.socket.end('ignored')
    await new Promise((resolve) => setTimeout(resolve, 30))
    workload.write(frame(1, Buffer.from('still here')))
    await client.text('still here')
    expect(stdin.text()).toBe('')
    workload.end()
    await client.until(() => client.ended)
  })

  it('a terminal is raw, its type says so, and the detach keys end the stream and nothing else', async () => {
    const id = await h.running({ Tty: true, OpenStdin: true })
    const { client, head } = await attach(id)
    expect(head).toMatch(/Content-Type: application\/vnd\.docker\.raw-stream\r\n/)
    const stdin = collect(last(id).workload)
    last(id).workload.write('$ ')
    await client.text('$ ')
    client.send('ls\n', '\x10')
    await eventually(() => stdin.text() === 'ls\n')
    client.send('\x11')
    await client.until(() => client.ended)
    expect(stdin.text()).toBe('ls\n')
    const container = h.engine.find(id)
    expect([container.detached, container.status]).toEqual([1, 'running'])
  })

  it('other detach keys are taken, bad ones are 400', async () => {
    const id = await h.running({ Tty: true, OpenStdin: true })
    const { client } = await attach(id, 'stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,b')
    client.send('\x10\x11\x01b')
    await client.until(() => client.ended)
    expect(h.engine.find(id).detached).toBe(1)
    const { head } = await attach(id, 'stream=1&stdin=1&detachKeys=bogus')
    expect(head).toMatch(/^HTTP\/1\.1 400 /)
  })

  it('without a terminal detach keys are plain bytes, as in Docker', async () => {
    const id = await h.running({ OpenStdin: true })
    const { client } = await attach(id)
    const stdin = collect(last(id).workload)
    client.send('\x10\x11')
    await eventually(() => stdin.text() === '\x10\x11')
    client.socket.destroy()
  })

  it('errors before the stream are HTTP errors, with and without Upgrade', async () => {
    for (const headers of ['', upgradeHeaders]) {
      const { client, head } = await attach('nosuch', undefined, headers)
      expect(head).toMatch(/^HTTP\/1\.1 404 Not Found\r\n/)
      await client.until(() => client.ended)
      expect(client.received.toString()).toBe('{"message":"No such container: nosuch"}\n')
    }
    const id = await h.running()
    h.engine.find(id).status = 'paused'
    expect((await attach(id)).head).toMatch(/^HTTP\/1\.1 409 /)
  })

  it('logs without stream ends after the log', async () => {
    const id = await h.running()
    h.engine.find(id).log = frame(1, Buffer.from('past'))
    const { client } = await attach(id, 'logs=1&stdout=1&stderr=1')
    await client.until(() => client.ended)
    expect(client.received).toEqual(frame(1, Buffer.from('past')))
  })

  it('a client that goes detaches; the workload is left alone', async () => {
    const id = await h.running({ OpenStdin: true })
    for (const [query, headers] of [[undefined, upgradeHeaders], [undefined, ''], ['stream=1&stdout=1', upgradeHeaders]] as const) {
      const { client } = await attach(id, query, headers)
      const { api } = last(id)
      client.socket.destroy()
      last(id).workload.write(frame(1, Buffer.from('x'))) // as with any pipe, a gone reader shows when one writes
      await eventually(() => {
        if (!api.destroyed) last(id).workload.write(frame(1, Buffer.from('x')))
        return api.destroyed
      })
    }
    expect(h.engine.find(id).status).toBe('running')
  })

  it('a client that goes while the workload is silent is noticed', async () => {
    const id = await h.running({ OpenStdin: true })
    const { client } = await attach(id)
    const { api } = last(id)
    client.socket.destroy()
    await eventually(() => api.destroyed, 12_000)
  }, 15_000)

  it('a slow client holds the workload back instead of filling memory', async () => {
    const id = await h.running()
    const { client } = await attach(id, 'stream=1&stdout=1')
    client.socket.pause()
    const { workload } = last(id)
    const chunk = frame(1, Buffer.alloc(65536))
    let written = 0
    while (workload.write(chunk)) {
      written += chunk.length
      await new Promise((resolve) => setImmediate(resolve))
      if (written > 64 << 20) throw new Error('no back-pressure')
    }
    expect(written).toBeLessThan(8 << 20)
    workload.end()
    const before = written + chunk.length
    await new Promise((resolve) => setTimeout(resolve, 2500)) // longer than a finished stream lingers: what is unread must not be lost
    client.socket.resume()
    await client.until(() => client.ended)
    expect(client.received.length).toBe(before)
  })
})

describe('exec', () => {
  const start = '{"Detach":false,"Tty":false}'
  async function session(body: object = {}, container = h.running()): Promise<string> {
    const answer = await h.call('POST', `/containers/${await container}/exec`, { Cmd: ['cat'], AttachStdin: true, AttachStdout: true, AttachStderr: true, ...body })
    expect(answer.status).toBe(201)
    return (answer.json() as { Id: string }).Id
  }
  const head = (id: string, length: number, headers = upgradeHeaders) =>
    `POST /v1.47/exec/${id}/start HTTP/1.1\r\nContent-Type: application/json\r\n${headers}Content-Length: ${length}\r\n\r\n`

  it('starts with a body that comes in pieces, with stdin right behind it', async () => {
    const id = await session()
    const client = await h.raw()
    const bytes = head(id, start.length) + start + 'in'
    for (let at = 0; at < bytes.length; at += 40) {
      client.send(bytes.slice(at, at + 40))
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    expect(await client.head()).toMatch(/^HTTP\/1\.1 101 UPGRADED\r\nContent-Type: application\/vnd\.docker\.multiplexed-stream\r\n/)
    await eventually(() => h.engine.execSession(id).stdio !== undefined)
    const { workload } = h.engine.execSession(id).stdio!
    const stdin = collect(workload)
    client.socket.end('put')
    await eventually(() => stdin.ended())
    expect(stdin.text()).toBe('input')
    workload.end(frame(1, Buffer.from('output')))
    await client.until(() => client.ended)
    expect(client.received).toEqual(frame(1, Buffer.from('output')))
  })

  it('takes a chunked body, and none', async () => {
    for (const [headers, body] of [['Transfer-Encoding: chunked\r\n', `5\r\n${start.slice(0, 5)}\r\n${(start.length - 5).toString(16)}\r\n${start.slice(5)}\r\n0\r\n\r\n`], ['', '']] as const) {
      const id = await session()
      const client = await h.raw()
      client.send(`POST /exec/${id}/start HTTP/1.1\r\nContent-Type: application/json\r\n${upgradeHeaders}${headers}\r\n${body}`)
      expect(await client.head()).toMatch(/^HTTP\/1\.1 101 /)
      client.socket.destroy()
    }
  })

  it('without Upgrade', async () => {
    const id = await session()
    const client = await h.raw()
    client.send(head(id, start.length, 'Host: x\r\n'), start)
    expect(await client.head()).toMatch(/^HTTP\/1\.1 200 OK\r\nContent-Type: application\/vnd\.docker\.raw-stream\r\n/)
    await eventually(() => h.engine.execSession(id).stdio !== undefined)
    const { workload } = h.engine.execSession(id).stdio!
    const stdin = collect(workload)
    client.send('raw bytes')
    await eventually(() => stdin.text() === 'raw bytes')
    workload.end(frame(2, Buffer.from('err')))
    await client.until(() => client.ended)
    expect(client.received).toEqual(frame(2, Buffer.from('err')))
  })

  it('detached: 200 and no stream', async () => {
    const id = await session()
    expect((await h.call('POST', `/exec/${id}/start`, { Detach: true })).status).toBe(200)
    expect((await h.call('GET', `/exec/${id}/json`)).json()).toMatchObject({ ID: id, Running: true, ExitCode: null, ProcessConfig: { entrypoint: 'cat', arguments: [] } })
    expect((await h.call('POST', `/exec/${id}/start`, { Detach: true })).status).toBe(409)
    const upgraded = await session()
    const client = await h.raw()
    client.send(head(upgraded, 15), '{"Detach":true}')
    expect(await client.head()).toMatch(/^HTTP\/1\.1 200 /)
    await client.until(() => client.ended)
    client.socket.destroy()
  })

  it('a command that cannot run is told in the stream, as output', async () => {
    const message = 'exec: "nope": executable file not found in $PATH'
    h.engine.execFailure = new HullError(400, message)
    for (const tty of [false, true]) {
      const id = await session({ Tty: tty })
      const client = await h.raw()
      client.send(head(id, start.length), start)
      expect(await client.head()).toMatch(/^HTTP\/1\.1 101 /)
      await client.until(() => client.ended)
      expect(client.received).toEqual(tty ? Buffer.from(`${message}\r\n`) : frame(1, Buffer.from(`${message}\r\n`)))
      expect((await h.call('GET', `/exec/${id}/json`)).json()).toMatchObject({ ExitCode: 127, Running: false })
    }
    const id = await session()
    expect((await h.call('POST', `/exec/${id}/start`, { Detach: true })).status).toBe(400)
  })

  it('a terminal: console size, detach keys of its own, resize', async () => {
    const id = await session({ Tty: true, DetachKeys: 'a,b' })
    const body = '{"Tty":true,"ConsoleSize":[24,80]}'
    const client = await h.raw()
    client.send(head(id, body.length), body)
    expect(await client.head()).toMatch(/raw-stream/)
    expect(h.engine.calls.at(-1)).toEqual(['execStart', { detach: false, consoleSize: [24, 80] }])
    expect((await h.call('POST', `/exec/${id}/resize?h=1&w=2`)).status).toBe(200)
    client.send('ab')
    await client.until(() => client.ended)
    expect(h.engine.execSession(id).detached).toBe(1)
  })

  it('errors', async () => {
    const id = await h.running()
    expect((await h.call('POST', `/containers/${id}/exec`, { Cmd: [] })).json()).toEqual({ message: 'No exec command specified' })
    expect((await h.call('POST', `/containers/${id}/exec`, { Cmd: ['a'], DetachKeys: 'bogus' })).status).toBe(400)
    expect((await h.call('POST', '/containers/nosuch/exec', { Cmd: ['a'] })).status).toBe(404)
    expect((await h.call('POST', '/exec/nosuch/start', {})).status).toBe(404)
    const client = await h.raw()
    client.send(`POST /exec/x/start HTTP/1.1\r\n${upgradeHeaders}Content-Length: 99999999\r\n\r\n`)
    expect(await client.head()).toMatch(/^HTTP\/1\.1 413 /)
    const cut = await h.raw()
    cut.send(`POST /exec/x/start HTTP/1.1\r\n${upgradeHeaders}Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{`)
    cut.socket.end()
    expect(await cut.head()).toMatch(/^HTTP\/1\.1 400 /)
  })
})

describe('Upgrade on other endpoints', () => {
  it('is ignored, as Go ignores it, and the answer is whole', async () => {
    const client = await h.raw()
    client.send(`GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n`)
    expect(await client.head()).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    await client.until(() => client.ended)
    expect(client.received.toString()).toBe('OK')
    const body = '{"Image":"busybox"}'
    const post = await h.raw()
    post.send(`POST /containers/create HTTP/1.1\r\n${upgradeHeaders}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    expect(await post.head()).toMatch(/^HTTP\/1\.1 201 /)
    post.socket.destroy()
    client.socket.destroy()
  })
})

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

describe('pull, load and import', () => {
  const auth = { 'X-Registry-Auth': Buffer.from('{"username":"u","password":"p"}').toString('base64url') }

  it('streams progress; the request is passed on', async () => {
    h.engine.pull = async (onProgress) => {
      onProgress({ status: 'Pulling from a', id: 'latest' })
      onProgress({ status: 'Downloading', id: 'l1', progressDetail: { current: 1, total: 2 } })
    }
    const answer = await h.call('POST', '/images/create?fromImage=localhost:5000/a&tag=latest&platform=linux/amd64', undefined, auth)
    expect(answer.headers['content-type']).toBe('application/json')
    expect(answer.text).toBe('{"status":"Pulling from a","id":"latest"}\r\n{"status":"Downloading","id":"l1","progressDetail":{"current":1,"total":2}}\r\n')
    expect(h.engine.calls.at(-1)).toEqual(['pull', 'localhost:5000/a:latest', { platform: 'linux/amd64', allTags: false, auth: { username: 'u', password: 'p' } }])
  })

  it('an error before the first message is an HTTP error, a later one is in the stream', async () => {
    h.engine.pull = () => Promise.reject(new HullError(404, 'pull access denied for a'))
    const early = await h.call('POST', '/images/create?fromImage=a')
    expect([early.status, early.json()]).toEqual([404, { message: 'pull access denied for a' }])
    h.engine.pull = (onProgress) => {
      onProgress({ status: 'x' })
      return Promise.reject(new HullError(500, 'digest mismatch'))
    }
    const late = await h.call('POST', '/images/create?fromImage=a')
    expect([late.status, late.text]).toEqual([200, '{"status":"x"}\r\n{"errorDetail":{"message":"digest mismatch"},"error":"digest mismatch"}\r\n'])
  })

  it('a client that goes aborts the pull', async () => {
    let aborted = false
    h.engine.pull = (onProgress, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          aborted = true
          reject(new Error('aborted'))
        })
        onProgress({ status: 'x' })
      })
    const client = await h.raw()
    client.send('POST /images/create?fromImage=a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n')
    await client.head()
    client.socket.destroy()
    await eventually(() => aborted)
  })

  it('progress for a client that does not read is folded, the last figure and every plain line come through', async () => {
    h.engine.pull = async (onProgress) => {
      const pad = 'x'.repeat(200)
      for (let n = 0; n < 20_000; n++) {
        onProgress({ status: 'Downloading', id: 'l1', progressDetail: { current: n, total: 20_000 }, progress: pad })
        if (n % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
      }
      onProgress({ status: 'done' })
    }
    const client = await h.raw()
    client.socket.pause()
    client.send('POST /images/create?fromImage=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
    await new Promise((resolve) => setTimeout(resolve, 300))
    client.socket.resume()
    await client.until(() => client.ended)
    const text = client.received.toString()
    expect(text).toContain('"current":19999')
    expect(text).toContain('{"status":"done"}')
    expect(text.length).toBeLessThan(20_000 * 200)
  })

  it('load and import stream their bodies; errors of an empty one are HTTP', async () => {
    const data = Buffer.alloc(3 << 20, 1)
    const quiet = await h.call('POST', '/images/load', data, { 'Content-Type': 'application/x-tar' })
    expect([quiet.status, quiet.text, h.engine.uploaded]).toEqual([200, '{"stream":"Loaded image: x\\n"}\r\n', 3 << 20])
    expect((await h.call('POST', '/images/load?quiet=0', data)).text).toContain('progressDetail')
    h.engine.uploaded = 0
    expect((await h.call('POST', '/images/load', '')).status).toBe(400)
    const imported = await h.call('POST', '/images/create?fromSrc=-&repo=r&tag=t&changes=CMD%20a&changes=ENV%20b', 'tar')
    expect(imported.text).toBe('{"status":"sha256:imported"}\r\n')
    expect(h.engine.calls.at(-1)).toEqual(['import', { repo: 'r', tag: 't', message: 'Imported from -', changes: ['CMD a', 'ENV b'], platform: '', signal: undefined }])
    expect((await h.call('POST', '/images/create?fromSrc=http://x/y')).status).toBe(501)
    expect((await h.call('POST', '/images/create')).status).toBe(400)
  })

  it('an upload that is refused half-way gets its answer, not a broken pipe', async () => {
    h.engine.images.load = async (tar) => {
      for await (const _chunk of tar) break
      throw new HullError(400, 'this tar is bad')
    }
    const answer = await h.call('POST', '/images/load', Buffer.alloc(30 << 20))
    expect([answer.status, answer.json()]).toEqual([400, { message: 'this tar is bad' }])
    h.engine.images.load = () => Promise.reject(new HullError(400, 'unread'))
    expect((await h.call('POST', '/images/load', Buffer.alloc(30 << 20))).json()).toEqual({ message: 'unread' })
  })

  it('an upload that is cut reaches the engine as an error', async () => {
    let seen: unknown
    h.engine.images.load = async (tar) => {
      try {
        for await (const _chunk of tar) continue
      } catch (error) {
        seen = error
        throw error
      }
    }
    const client = await h.raw()
    client.send('POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\npart')
    await new Promise((resolve) => setTimeout(resolve, 20))
    client.socket.destroy()
    await eventually(() => seen !== undefined)
  })

  it('login', async () => {
    const body = { username: 'u', password: 'right', serveraddress: 'localhost:5000' }
    expect((await h.call('POST', '/auth', body)).json()).toEqual({ Status: 'Login Succeeded', IdentityToken: '' })
    expect((await h.call('POST', '/auth', { ...body, password: 'wrong' })).status).toBe(401)
  })
})
