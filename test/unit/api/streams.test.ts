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
