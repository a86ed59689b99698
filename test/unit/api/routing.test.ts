import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Harness } from './harness.js'

let h: Harness
beforeEach(async () => {
  h = await Harness.start()
})
afterEach(() => h.stop())

const message = (text: string): string => (JSON.parse(text) as { message: string }).message

describe('versions and routing', () => {
  it('answers a ping with the headers that clients negotiate by', async () => {
    const get = await h.call('GET', '/_ping')
    expect(get.status).toBe(200)
    expect(get.text).toBe('OK')
    expect(get.headers).toMatchObject({ 'api-version': '1.47', 'docker-experimental': 'false', ostype: 'linux', server: 'Hull/0.1.0 (linux)', swarm: 'inactive' })
    const head = await h.call('HEAD', '/v1.30/_ping')
    expect(head.status).toBe(200)
    expect(head.text).toBe('')
    expect(head.headers['api-version']).toBe('1.47')
  })

  it('takes requests with and without a version', async () => {
    for (const path of ['/info', '/v1.24/info', '/v1.47/info']) expect((await h.call('GET', path)).status).toBe(200)
  })

  it.each([
    ['/v1.48/info', 'client version 1.48 is too new. Maximum supported API version is 1.47'],
    ['/v2.0/info', 'client version 2.0 is too new. Maximum supported API version is 1.47'],
    ['/v..../info', 'invalid API version: ....'],
  ])('refuses %s', async (path, expected) => {
    const answer = await h.call('GET', path)
    expect([answer.status, message(answer.text)]).toEqual([400, expected])
  })

  it('tells too old clients in plain text, which is what they print', async () => {
    const answer = await h.call('GET', '/v1.23/info')
    expect([answer.status, answer.headers['content-type'], answer.text]).toEqual([
      400, 'text/plain; charset=utf-8', 'client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n',
    ])
  })

  it.each([['GET', '/nothing'], ['PATCH', '/info'], ['GET', '/v1.47/nothing/here'], ['POST', '/images/a/b/json'], ['GET', '/v1.47']])('404 for %s %s', async (method, path) => {
    const answer = await h.call(method, path)
    expect([answer.status, answer.headers['content-type'], answer.text]).toEqual([404, 'application/json', '{"message":"page not found"}\n'])
  })

  it.each([
    ['/images/localhost:5000/a/b/json', 'localhost:5000/a/b'],
    ['/v1.47/images/localhost:5000%2Fa%2Fb:latest/json', 'localhost:5000/a/b:latest'],
    [`/images/localhost:5000/a/b@sha256:${'0'.repeat(64)}/json`, `localhost:5000/a/b@sha256:${'0'.repeat(64)}`],
    ['/images/busybox/json?manifests=1', 'busybox'],
  ])('finds the image name in %s', async (path, name) => {
    expect((await h.call('GET', path)).status).toBe(200)
    expect(h.engine.calls).toContainEqual(['imageInspect', name])
  })

  it('names with slashes work for every image endpoint', async () => {
    expect((await h.call('GET', '/images/a/b/history')).status).toBe(200)
    expect((await h.call('POST', '/images/a/b/tag?repo=c/d&tag=1')).status).toBe(201)
    expect(h.engine.calls).toContainEqual(['tag', 'a/b', 'c/d', '1'])
    expect((await h.call('DELETE', '/images/a/b:1?force=1')).json()).toEqual([{ Untagged: 'a/b:1' }])
    expect((await h.call('POST', '/images/a/b/push')).status).toBe(501)
    expect((await h.call('GET', '/images/a/b/get')).status).toBe(501)
    expect((await h.call('GET', '/images/get?names=a')).status).toBe(501)
    expect((await h.call('GET', '/images/get')).status).toBe(400)
    expect((await h.call('GET', '/distribution/a/b/json')).status).toBe(501)
  })

  it.each(['/containers/%zz/json', '/images/%/json', '/images/%ff/json'])('400 for broken escapes in %s', async (path) => {
    expect((await h.call('GET', path)).status).toBe(400)
  })

  it('refuses control characters in names', async () => {
    expect((await h.call('GET', '/containers/a%00b/json')).status).toBe(400)
    expect((await h.call('GET', '/images/a%0ab/json')).status).toBe(400)
  })

  it('speaks for swarm, plugins and build as an engine without them', async () => {
    for (const path of ['/swarm', '/nodes', '/services', '/tasks', '/secrets', '/configs', '/nodes/x']) {
      const answer = await h.call('GET', path)
      expect([path, answer.status, message(answer.text)]).toEqual([path, 503, expect.stringMatching(/^This node is not a swarm manager\./)])
    }
    expect((await h.call('GET', '/plugins')).json()).toEqual([])
    expect((await h.call('GET', '/plugins/a/b/json')).status).toBe(404)
    for (const path of ['/build?version=2', '/build?remote=http://x/y.git', '/build/cancel', '/session', '/grpc']) expect((await h.call('POST', path)).status, path).toBe(501)
    expect((await h.call('POST', '/build/prune')).json()).toEqual({ CachesDeleted: null, SpaceReclaimed: 0 })
  })
})

describe('errors', () => {
  it('never show a stack or a bug', async () => {
    h.engine.system.info = () => Promise.reject(new TypeError('Cannot read properties of undefined'))
    const answer = await h.call('GET', '/info')
    expect(answer.status).toBe(500)
    expect(message(answer.text)).toMatch(/^internal error; the daemon's log has it under request id [0-9a-f]{12}$/)
  })

  it('show what the system said', async () => {
    h.engine.system.info = () => Promise.reject(Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' }))
    const answer = await h.call('GET', '/info')
    expect([answer.status, message(answer.text)]).toEqual([500, 'ENOSPC: no space left on device, write'])
  })

  it('a body that is too long is 413, also when its length is not announced', async () => {
    const long = Buffer.alloc((4 << 20) + 1, 0x20)
    expect((await h.call('POST', '/containers/create', long, { 'Content-Type': 'application/json' })).status).toBe(413)
    const client = await h.raw()
    client.send('POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n')
    for (let sent = 0; sent <= 4 << 20; sent += 65536) client.send('10000\r\n', Buffer.alloc(65536, 0x20), '\r\n')
    client.send('0\r\n\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n')
    expect(await client.head()).toMatch(/^HTTP\/1\.1 413 /)
    await client.text('OK') // the connection is still good
    client.socket.destroy()
  })

  it('a body that is no JSON, or says to be something else, is 400', async () => {
    const json = { 'Content-Type': 'application/json' }
    expect(message((await h.call('POST', '/containers/create', '{', json)).text)).toMatch(/^invalid JSON: /)
    expect((await h.call('POST', '/containers/create', '[]', json)).status).toBe(400)
    expect((await h.call('POST', '/containers/create', '"x"', json)).status).toBe(400)
    expect(message((await h.call('POST', '/containers/create', 'x', { 'Content-Type': 'text/plain' })).text)).toBe(
      "unsupported Content-Type header (text/plain): must be 'application/json'",
    )
    expect((await h.call('POST', '/containers/create', '{"Image":"busybox"}', { 'Content-Type': 'application/json; charset=utf-8' })).status).toBe(201)
  })

  it('answers bytes that are no HTTP and goes on', async () => {
    const client = await h.raw()
    client.send('\x16\x03\x01 nonsense\r\n\r\n')
    await client.until(() => client.ended)
    expect(client.received.toString()).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
    client.socket.destroy()
    expect((await h.call('GET', '/_ping')).status).toBe(200)
  })

  it('tells a client that sent too long a head', async () => {
    const client = await h.raw()
    client.send(`GET /_ping HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(70_000)}\r\n\r\n`)
    await client.until(() => client.ended)
    expect(client.received.toString()).toMatch(/^HTTP\/1\.1 431 /)
    client.socket.destroy()
  })
})
