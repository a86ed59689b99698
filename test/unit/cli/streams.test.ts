import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable, Writable, type Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { Client } from '../../../src/cli/client.js'
import { ApiError, ConnectError } from '../../../src/cli/errors.js'
import { jsonValues, progressLine, ProgressRenderer, showProgress, type Screen } from '../../../src/cli/progress.js'
import { Demultiplexer } from '../../../src/cli/terminal/demultiplex.js'
import { DetachFilter, parseDetachKeys } from '../../../src/cli/terminal/detach-keys.js'
import { runSession } from '../../../src/cli/terminal/session.js'

class Sink extends Writable {
  chunks: Buffer[] = []
  constructor(private readonly slow = false) { super({ highWaterMark: 16 }) }
  override _write(chunk: Buffer, _e: BufferEncoding, done: () => void): void {
    this.chunks.push(Buffer.from(chunk))
    if (this.slow) setImmediate(done)
    else done()
  }
  get text(): string { return Buffer.concat(this.chunks).toString() }
}
const frame = (kind: number, payload: string | Buffer) => {
  const body = Buffer.from(payload)
  const header = Buffer.alloc(8)
  header[0] = kind
  header.writeUInt32BE(body.length, 4)
  return Buffer.concat([header, body])
}

describe('demultiplexer', () => {
  it('takes frames apart however they are cut', async () => {
    let seed = 7
    const random = (n: number) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n
    for (let round = 0; round < 60; round += 1) {
      const want = { 1: '', 2: '' }
      const all: Buffer[] = []
      for (let i = 0; i < 20; i += 1) {
        const kind = (1 + random(2)) as 1 | 2
        const text = String.fromCharCode(97 + random(26)).repeat(random(40) === 0 ? 0 : random(50))
        want[kind] += text
        all.push(frame(kind, text))
      }
      const bytes = Buffer.concat(all)
      const out = new Sink(round % 2 === 0)
      const err = new Sink(round % 3 === 0)
      const pieces: Buffer[] = []
      for (let at = 0; at < bytes.length;) {
        const n = 1 + random(30)
        pieces.push(bytes.subarray(at, at + n))
        at += n
      }
      await pipeline(Readable.from(pieces), new Demultiplexer(out, err))
      await new Promise((done) => { setImmediate(done) })
      out.end()
      err.end()
      await Promise.all([new Promise((done) => out.on('close', done)), new Promise((done) => err.on('close', done))])
      expect(out.text).toBe(want[1])
      expect(err.text).toBe(want[2])
    }
  })
  it('treats stream 0 as stdout and a closing error frame as an error', async () => {
    const out = new Sink()
    const bad = pipeline(Readable.from([frame(0, 'in'), frame(3, 'it broke')]), new Demultiplexer(out, new Sink()))
    await expect(bad).rejects.toThrow('error from daemon in stream: it broke')
    expect(out.text).toBe('in')
  })
  it('refuses unknown streams and a stream that stops inside a frame', async () => {
    await expect(pipeline(Readable.from([frame(9, 'x')]), new Demultiplexer(new Sink(), new Sink()))).rejects.toThrow('Unrecognized stream: 9')
    await expect(pipeline(Readable.from([frame(1, 'whole').subarray(0, 10)]), new Demultiplexer(new Sink(), new Sink()))).rejects.toThrow('in the middle of a frame')
    await expect(pipeline(Readable.from([Buffer.from([1, 0, 0])]), new Demultiplexer(new Sink(), new Sink()))).rejects.toThrow('in the middle of a frame')
  })
  it('does not wait for the length that a header claims', async () => {
    const out = new Sink()
    const demultiplexer = new Demultiplexer(out, new Sink())
    const huge = frame(1, 'first')
    huge.writeUInt32BE(0xffffffff, 4)
    await new Promise((done) => demultiplexer.write(huge, done))
    expect(out.text).toBe('first')
  })
})

describe('detach keys', () => {
  const typed = async (keys: string, ...chunks: string[]) => {
    let detached = false
    const filter = new DetachFilter(parseDetachKeys(keys), () => { detached = true })
    const out: Buffer[] = []
    filter.on('data', (chunk: Buffer) => out.push(chunk))
    for (const chunk of chunks) filter.write(chunk)
    await new Promise<void>((done) => { filter.end(done) })
    await new Promise((done) => { setImmediate(done) })
    return { text: Buffer.concat(out).toString('latin1'), detached }
  }
  it.each<[string, string[], string, boolean]>([
    ['ctrl-p,ctrl-q', ['ls\n\x10', '\x11rest'], 'ls\n', true],
    ['ctrl-p,ctrl-q', ['a\x10b\x10\x10\x11z'], 'a\x10b\x10', true],
    ['ctrl-p,ctrl-q', ['\x10'], '\x10', false],
    ['ctrl-p,ctrl-q', ['\x10\x10'], '\x10\x10', false],
    ['a,a,b', ['aaab'], 'a', true],
    ['a,b,a,c', ['ababac'], 'ab', true],
    ['ctrl-@', ['x\0y'], 'x', true],
    ['', ['\x10\x11'], '\x10\x11', false],
  ])('%s in %j', async (keys, chunks, text, detached) => { expect(await typed(keys, ...chunks)).toEqual({ text, detached }) })
  it('refuses what is no key', () => {
    for (const bad of ['ctrl-1', 'shift-a', 'ab', 'a,,b', 'ctrl-ä']) expect(() => parseDetachKeys(bad)).toThrow('invalid detach keys')
    expect(parseDetachKeys('ctrl-[,ctrl-_,DEL,x')).toEqual(Buffer.from([27, 31, 127, 120]))
  })
})

describe('progress', () => {
  const screen = (rows?: number): Screen & Sink => Object.assign(new Sink(), rows ? { isTTY: true, columns: 100, rows } : {})
  it('prints changes of state, one a line, where there is no terminal', async () => {
    const out = screen()
    const messages = [{ status: 'Pulling from library/busybox', id: 'latest' }, { status: 'Pulling fs layer', progressDetail: {}, id: 'a1' },
      { status: 'Downloading', progressDetail: { current: 5, total: 10 }, id: 'a1' }, { status: 'Pull complete', progressDetail: {}, id: 'a1' }, { status: 'Status: done' }]
    await showProgress(Readable.from([Buffer.from(messages.map((m) => JSON.stringify(m)).join('\r\n'))]), out)
    expect(out.text).toBe('latest: Pulling from library/busybox\na1: Pulling fs layer\na1: Pull complete\nStatus: done\n')
  })
  it('redraws its lines in place on a terminal', () => {
    const out = screen(24)
    const renderer = new ProgressRenderer(out)
    renderer.show({ id: 'a', status: 'Downloading', progressDetail: { current: 50, total: 100 } })
    renderer.show({ id: 'b', status: 'Waiting' })
    renderer.finish()
    expect(out.text).toBe(`\r\x1b[2Ka: Downloading [${'='.repeat(20)}>${' '.repeat(20)}]      50B/100B\n\r\x1b[2Kb: Waiting\n`)
  })
  it('draws only what changed', async () => {
    const out = screen(24)
    const renderer = new ProgressRenderer(out)
    renderer.show({ id: 'a', status: 'Waiting' })
    renderer.show({ id: 'b', status: 'Waiting' })
    await new Promise((done) => { setTimeout(done, 90) })
    out.chunks = []
    renderer.show({ id: 'b', status: 'Pull complete' })
    renderer.finish()
    expect(out.text).toBe('\x1b[2A\n\r\x1b[2Kb: Pull complete\n')
  })
  it('lets finished layers scroll away when there are more than rows', async () => {
    const out = screen(4)
    const renderer = new ProgressRenderer(out)
    for (const id of ['a', 'b', 'c', 'd', 'e']) renderer.show({ id, status: id < 'c' ? 'Pull complete' : 'Waiting' })
    await new Promise((done) => { setTimeout(done, 90) })
    expect(out.text.split('\n').length - 1).toBe(5)
    out.chunks = []
    renderer.show({ id: 'e', status: 'Pull complete' })
    renderer.finish()
    expect(out.text.startsWith('\x1b[3A')).toBe(true)
  })
  it('never makes a line wider than the screen', () => {
    for (const columns of [1, 10, 40, 79, 80, 200]) {
      expect([...progressLine('abcdefabcdef', { status: 'Extracting', progressDetail: { current: 123456789, total: 987654321 } }, columns)].length).toBeLessThan(Math.max(2, columns))
    }
  })
  it('turns an error message into an error', async () => {
    await expect(showProgress(Readable.from([Buffer.from('{"errorDetail":{"message":"no space left"},"error":"no space left"}\n')]), screen(), true)).rejects.toThrow('no space left')
  })
  it('reads JSON values however they are cut', async () => {
    const values = [{ a: '}{"\\' }, { b: [1, { c: '\n' }] }, { d: 1 }]
    for (const glue of ['', '\n', '\r\n', ' ']) {
      const bytes = Buffer.from(values.map((value) => JSON.stringify(value)).join(glue))
      for (let size = 1; size < 9; size += 1) {
        const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size))
        const got: unknown[] = []
        for await (const value of jsonValues(Readable.from(pieces, { objectMode: false }))) got.push(value)
        expect(got).toEqual(values)
      }
    }
    await expect(async () => { for await (const _ of jsonValues(Readable.from([Buffer.from('{"a":')]))); }).rejects.toThrow('in the middle of a message')
  })
})

describe('client', () => {
  let server: Server | undefined
  const directory = mkdtempSync(join(tmpdir(), 'hull-cli-client-'))
  const path = join(directory, 's')
  afterEach(async () => { await new Promise<void>((done) => { if (server) { server.closeAllConnections(); server.close(() => done()) } else done() }); server = undefined })
  const serve = async (handler: (request: IncomingMessage, response: ServerResponse) => void, upgrade?: (request: IncomingMessage, socket: Duplex) => void) => {
    server = createServer(handler)
    if (upgrade) server.on('upgrade', upgrade)
    await new Promise<void>((done) => { server!.listen(path, done) })
    return new Client(`unix://${path}`)
  }

  it('sends queries and bodies and reads JSON', async () => {
    const client = await serve((request, response) => {
      let text = ''
      request.on('data', (chunk: Buffer) => { text += chunk.toString() })
      request.on('end', () => response.end(JSON.stringify({ url: request.url, type: request.headers['content-type'], text })))
    })
    expect(await client.json('POST', '/x', { query: { a: 1, b: true, c: false, d: '', e: undefined, f: 'ü&' }, body: { k: 1 } })).toEqual({ url: '/v1.47/x?a=1&b=1&f=%C3%BC%26', type: 'application/json', text: '{"k":1}' })
  })
  it('carries errors of the daemon in its own words', async () => {
    const client = await serve((_request, response) => { response.statusCode = 409; response.end('{"message":"Conflict. The name is in use"}') })
    await expect(client.json('GET', '/x')).rejects.toThrow('Error response from daemon: Conflict. The name is in use')
    await expect(client.json('GET', '/x')).rejects.toBeInstanceOf(ApiError)
  })
  it('says that nobody listens, and starts a daemon once', async () => {
    let starts = 0
    const client = new Client(`unix://${directory}/none`, () => { starts += 1; return Promise.resolve(false) })
    await expect(client.json('GET', '/x')).rejects.toBeInstanceOf(ConnectError)
    await expect(client.json('GET', '/x')).rejects.toThrow(`Cannot connect to the Hull daemon at unix://${directory}/none. Is the hull daemon running?`)
    expect(starts).toBe(1)
    expect(await new Client(`unix://${directory}/none`).ping()).toBe(false)
    expect(() => new Client('tcp://x:1')).toThrow('unix:///PATH only')
  })
  it('hijacks a connection and half-closes it', async () => {
    const client = await serve(() => {}, (_request, socket) => {
      socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n')
      const got: Buffer[] = []
      socket.on('data', (chunk: Buffer) => got.push(chunk))
      socket.on('end', () => { socket.end(Buffer.concat([frame(1, `got ${Buffer.concat(got).toString()}`), frame(2, 'and err')])) })
    })
    const { stream } = await client.hijack('POST', '/containers/x/attach')
    const stdin = new PassThrough()
    stdin.end('input')
    const stdout = new Sink()
    const stderr = new Sink()
    expect(await runSession(stream, { stdin, stdout, stderr }, { tty: false, stdin: true, stdout: true, stderr: true, detachKeys: Buffer.alloc(0) })).toBe('ended')
    expect([stdout.text, stderr.text]).toEqual(['got input', 'and err'])
  })
  it('detaches from a terminal without sending the keys', async () => {
    const got: Buffer[] = []
    const client = await serve(() => {}, (_request, socket) => {
      socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nprompt$ ')
      socket.on('data', (chunk: Buffer) => got.push(chunk))
      socket.on('error', () => {})
      socket.on('end', () => socket.destroy())
    })
    const { stream } = await client.hijack('POST', '/containers/x/attach')
    const stdin = Object.assign(new PassThrough(), { isTTY: true })
    const stdout = new Sink()
    setTimeout(() => { stdin.write('ls\x10'); setTimeout(() => stdin.write('\x11'), 20) }, 50)
    expect(await runSession(stream, { stdin, stdout, stderr: new Sink() }, { tty: true, stdin: true, stdout: true, stderr: true, detachKeys: Buffer.from([16, 17]) })).toBe('detached')
    expect(stdout.text).toBe('prompt$ ')
    expect(Buffer.concat(got).toString()).toBe('ls')
  })
  it('uploads a body and hears an early refusal', async () => {
    const client = await serve((request, response) => {
      if (request.url?.includes('refuse')) {
        response.statusCode = 400
        response.end('{"message":"not a tar"}')
        setTimeout(() => request.destroy(), 20)
        return
      }
      let size = 0
      request.on('data', (chunk: Buffer) => { size += chunk.length })
      request.on('end', () => response.end(String(size)))
    })
    const big = () => Readable.from(Array.from({ length: 64 }, () => Buffer.alloc(65536)))
    expect(await client.text('POST', '/images/load', { upload: big() })).toBe(String(64 * 65536))
    await expect(client.text('POST', '/images/load?refuse', { upload: big() })).rejects.toThrow('not a tar')
  })
  it('removes its directory', () => { rmSync(directory, { recursive: true, force: true }) })
})
