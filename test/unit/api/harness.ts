import { mkdtemp, rm } from 'node:fs/promises'
import { request, type IncomingHttpHeaders, type Server } from 'node:http'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { closeApiServer, createApiServer } from '../../../src/api/server.js'
import { MemoryEngine } from './memory-engine.js'

export const version = { version: '0.1.0', gitCommit: 'abc', buildTime: '2026-11-23T00:00:00Z', os: 'linux', arch: 'amd64', kernelVersion: '6.1.0' }

export interface Answer {
  status: number
  headers: IncomingHttpHeaders
  text: string
  json: () => unknown
}

/** A real server on a unix socket of its own, over an engine in memory. */
export class Harness {
  readonly engine = new MemoryEngine()
  readonly server: Server = createApiServer(this.engine, version)
  #directory = ''

  get path(): string {
    return join(this.#directory, 'api.sock')
  }

  static async start(): Promise<Harness> {
    const harness = new Harness()
    harness.#directory = await mkdtemp(join(tmpdir(), 'hull-api-'))
    await new Promise<void>((resolve) => harness.server.listen(harness.path, resolve))
    return harness
  }

  async stop(): Promise<void> {
    await closeApiServer(this.server)
    await rm(this.#directory, { recursive: true, force: true })
  }

  /** One request over HTTP; the body as JSON unless it is text or bytes. */
  call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const raw = typeof body === 'string' || Buffer.isBuffer(body)
      const data = body === undefined ? undefined : raw ? body : JSON.stringify(body)
      const outgoing = request({
        socketPath: this.path, method, path, agent: false,
        headers: { ...(data === undefined ? {} : { 'Content-Length': String(Buffer.byteLength(data)), ...(raw ? {} : { 'Content-Type': 'application/json' }) }), ...headers },
      })
      outgoing.on('error', reject)
      outgoing.on('response', (incoming) => {
        const chunks: Buffer[] = []
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
        incoming.on('error', reject)
        incoming.on('end', () => {
          const text = Buffer.concat(chunks).toString('utf8')
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text, json: () => JSON.parse(text) as unknown })
        })
      })
      outgoing.end(data)
    })
  }

  /** A container that runs. */
  async running(body: object = {}, query = ''): Promise<string> {
    const created = await this.call('POST', `/containers/create${query}`, { Image: 'busybox', Cmd: ['sh'], ...body })
    const { Id: id } = created.json() as { Id: string }
    await this.call('POST', `/containers/${id}/start`)
    return id
  }

  /** Connects. Client and server share an event loop here, and libuv accepts one connection a turn: a full backlog (EAGAIN) is waited for. */
  async raw(): Promise<RawClient> {
    for (;;) {
      const socket = connect({ path: this.path, allowHalfOpen: true })
      const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
        socket.once('error', resolve)
        socket.once('connect', () => resolve(undefined))
      })
      if (!error) return new RawClient(socket)
      if (error.code !== 'EAGAIN') throw error
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
}

/** A client that speaks bytes. */
export class RawClient {
  received = Buffer.alloc(0)
  ended = false
  error: Error | undefined
  #wake: () => void = () => {}

  constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.received = Buffer.concat([this.received, chunk])
      this.#wake()
    })
    socket.on('end', () => {
      this.ended = true
      this.#wake()
    })
    socket.on('error', (error) => {
      this.error = error
      this.#wake()
    })
    socket.on('close', () => this.#wake())
  }

  send(...parts: (string | Buffer)[]): void {
    for (const part of parts) this.socket.write(part)
  }

  /** Waits until `done`. */
  async until(done: () => boolean, ms = 5000): Promise<void> {
    const deadline = Date.now() + ms
    while (!done()) {
      if (Date.now() > deadline) throw new Error(`timed out; got ${JSON.stringify(this.received.toString('latin1'))}, ended ${this.ended}`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 20)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  /** The answer's head, taken off what was received. */
  async head(): Promise<string> {
    await this.until(() => this.received.includes('\r\n\r\n') || this.ended)
    const end = this.received.indexOf('\r\n\r\n') + 4
    const head = this.received.toString('latin1', 0, end)
    this.received = this.received.subarray(end)
    return head
  }

  async text(expected: string): Promise<void> {
    await this.until(() => this.received.toString('latin1').includes(expected))
  }
}

export const upgradeHeaders = 'Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n'

/** Everything that a stream's other end writes, as text. */
export function collect(stream: NodeJS.ReadableStream): { text: () => string; ended: () => boolean } {
  let text = ''
  let ended = false
  stream.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
  stream.on('end', () => (ended = true))
  return { text: () => text, ended: () => ended }
}

/** Polls until `check` holds. */
export async function eventually(check: () => boolean, ms = 5000): Promise<void> {
  const deadline = Date.now() + ms
  while (!check()) {
    if (Date.now() > deadline) throw new Error(`never became true: ${check.toString()}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
