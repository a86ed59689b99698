import type { IncomingMessage, ServerResponse } from 'node:http'
import { PassThrough, type Readable } from 'node:stream'
import type { z } from 'zod'
import { badRequest, HullError } from '../base/errors.js'
import type { Engine } from '../engine/api-types.js'
import { Query } from './query.js'
import type { VersionInfo } from './mapping-system.js'

/** An API version: 1.MINOR. */
export type Minor = number
/** The newest API that is spoken, and the oldest. */
export const maxMinor: Minor = 47
export const minMinor: Minor = 24

/** Largest JSON body, bytes. A create request of 4 MiB is already absurd. */
export const maxJson = 4 << 20

/** One request and its answer, as the handlers see it. */
export class Exchange {
  readonly query: Query
  #abort: AbortController | undefined

  constructor(
    readonly engine: Engine,
    readonly version: VersionInfo,
    /** Appears in the log and in answers to unexpected errors. */
    readonly requestId: string,
    readonly request: IncomingMessage,
    readonly response: ServerResponse,
    readonly params: Readonly<Record<string, string>>,
    search: string,
    /** API 1.minor as the client wrote it, or the newest. */
    readonly minor: Minor,
    /** The body. Not `request` when the client asked for an upgrade: Node's parser is gone by then. */
    readonly body: Readable,
  ) {
    this.query = new Query(search)
  }

  /** A path parameter. */
  param(name: string): string {
    return this.params[name] ?? ''
  }

  /** Fires when the client goes before it has its whole answer. */
  get signal(): AbortSignal {
    if (!this.#abort) {
      const abort = (this.#abort = new AbortController())
      if (this.response.destroyed || this.response.socket?.destroyed) abort.abort()
      this.response.once('close', () => {
        if (!this.response.writableFinished) abort.abort()
      })
    }
    return this.#abort.signal
  }

  /** Reads a JSON body by `schema`. An empty one is `{}`, as in Docker. 400 for bad JSON or wrong types, 413 when it is too long. */
  async json<Schema extends z.ZodType>(schema: Schema): Promise<z.output<Schema>> {
    const text = await this.#text()
    let value: unknown = {}
    if (text !== '') {
      try {
        value = JSON.parse(text)
      } catch (error) {
        throw badRequest(`invalid JSON: ${error instanceof Error ? error.message : 'syntax error'}`, error)
      }
    }
    const parsed = schema.safeParse(value ?? {})
    if (parsed.success) return parsed.data
    const issue = parsed.error.issues[0]!
    // What a schema's own check says is Docker's sentence already; what zod says needs the field's name.
    if (issue.code === 'custom' && issue.params?.sentence === true) throw badRequest(issue.message)
    throw badRequest(`invalid JSON: ${issue.path.length > 0 ? `${issue.path.map(String).join('.')}: ` : ''}${issue.message}`)
  }

  #loaded: string | undefined

  /** Reads the body now, for {@link json} to find: before the connection is taken from the HTTP parser. */
  async preload(): Promise<void> {
    this.#loaded = await this.#text()
  }

  async #text(): Promise<string> {
    if (this.#loaded !== undefined) return this.#loaded
    const type = this.request.headers['content-type']
    const empty = this.request.headers['transfer-encoding'] === undefined && Number(this.request.headers['content-length'] ?? 0) === 0
    if (type === undefined ? !empty : type.split(';')[0]!.trim().toLowerCase() !== 'application/json') {
      throw badRequest(`unsupported Content-Type header (${type ?? ''}): must be 'application/json'`)
    }
    return (await readAll(this.body)).toString('utf8')
  }

  /**
   * The body as a stream for the engine. When the engine gives it up half-way the rest is read and dropped, because a client that cannot go on
   * writing reports a broken pipe instead of the answer that tells it why.
   */
  upload(): Readable {
    const { body } = this
    const stream = new PassThrough()
    stream.on('error', () => {}) // the engine's own listener tells it
    body.pipe(stream)
    body.once('error', (error) => stream.destroy(error))
    body.once('close', () => {
      if (!body.readableEnded) stream.destroy(new Error('the connection ended in the middle of the request body'))
    })
    stream.once('close', () => {
      body.unpipe(stream)
      body.resume()
    })
    return stream
  }

  /** Answers with JSON. */
  send(status: number, body: unknown): void {
    this.sendText(status, JSON.stringify(body) + '\n', 'application/json')
  }

  sendText(status: number, text: string, type: string): void {
    const data = Buffer.from(text)
    this.response.writeHead(status, { 'Content-Type': type, 'Content-Length': data.length })
    this.response.end(this.request.method === 'HEAD' ? undefined : data)
  }

  /** Answers without a body. */
  empty(status: 200 | 201 | 204 | 304 = 204): void {
    this.response.writeHead(status, status === 200 || status === 201 ? { 'Content-Length': 0 } : {})
    this.response.end()
  }

  /** Sends status and headers now, before there is a body: clients such as `docker wait` and `docker events` wait for them. */
  begin(type: string): void {
    this.response.writeHead(200, { 'Content-Type': type })
    this.response.flushHeaders()
  }

  /** Writes a piece of a begun answer and waits while the client is slow. False: the client has gone. */
  async write(data: string | Buffer): Promise<boolean> {
    const { response } = this
    if (response.destroyed || response.writableEnded) return false
    if (response.write(data)) return true
    return new Promise((resolve) => {
      const done = (alive: boolean) => () => {
        response.off('drain', onDrain)
        response.off('close', onClose)
        resolve(alive)
      }
      const onDrain = done(true)
      const onClose = done(false)
      response.on('drain', onDrain)
      response.on('close', onClose)
    })
  }
}

/** A small body, whole. What is too long is read on and dropped, for the reason told at {@link Exchange.upload}. */
function readAll(body: Readable): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let size = 0
    const cut = (cause?: unknown) => reject(badRequest('the connection ended in the middle of the request body', cause))
    const onData = (chunk: Buffer): void => {
      size += chunk.length
      if (size <= maxJson) {
        chunks.push(chunk)
        return
      }
      body.off('data', onData)
      body.resume()
      reject(new HullError(413, `request body is larger than ${maxJson} bytes`))
    }
    body.on('data', onData)
    body.once('end', () => resolve(Buffer.concat(chunks)))
    body.once('error', cut)
    body.once('close', () => cut())
  })
}

/** A handler answers the exchange or throws. */
export type Handler = (exchange: Exchange) => Promise<void> | void
