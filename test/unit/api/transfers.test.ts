import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { HullError } from '../../../src/base/errors.js'
import { eventually, Harness } from './harness.js'

let h: Harness
beforeEach(async () => {
  h = await Harness.start()
})
afterEach(() => h.stop())

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
