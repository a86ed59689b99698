import { request as httpRequest, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http'
import type { Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { codeOf, messageOf } from '../base/errors.js'
import { ApiError, CliError, ConnectError } from './errors.js'

/** The Engine API version that `hull` speaks (https://docs.docker.com/reference/api/engine/). */
export const API_VERSION = '1.47'

type Query = Record<string, string | number | boolean | undefined>

/** What a request carries. `body` is sent as JSON, `upload` as it is. */
export interface RequestOptions {
  query?: Query
  body?: unknown
  upload?: Readable
  headers?: OutgoingHttpHeaders
  signal?: AbortSignal
}

/** A container's or image's name for use in a path. Slashes of image names stay as they are: that is what the docker CLI sends. */
export const inPath = (reference: string): string => reference.split('/').map((part) => encodeURIComponent(part).replaceAll('%3A', ':').replaceAll('%40', '@')).join('/')

/** The path of the socket in `unix:///path`. TCP is refused: the daemon has none. */
export function socketPathOf(host: string): string {
  const match = /^unix:\/\/(\/.+)$/.exec(host)
  if (!match) throw new CliError(`unable to parse docker host "${host}": hull speaks over unix:///PATH only`, 125)
  return match[1]!
}

function pathOf(path: string, query: Query = {}): string {
  const parameters = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined || value === false || value === '') continue
    parameters.append(name, value === true ? '1' : String(value))
  }
  const text = parameters.toString()
  return `/v${API_VERSION}${path}${text ? `?${text}` : ''}`
}

/** The text of a response, at most `limit` bytes of it. */
async function textOf(response: IncomingMessage, limit = 64 << 20): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > limit) throw new CliError('the answer of the daemon is too long')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

async function apiErrorOf(response: IncomingMessage): Promise<ApiError> {
  const text = (await textOf(response, 1 << 20)).trim()
  let message = text
  try {
    const body: unknown = JSON.parse(text)
    if (typeof body === 'object' && body !== null && 'message' in body && typeof body.message === 'string') message = body.message
  } catch {
    // not JSON: a proxy, or a page of plain text; shown as it is
  }
  return new ApiError(response.statusCode ?? 500, message || `HTTP status ${response.statusCode}`)
}

/**
 * A thin Docker Engine API client over a unix socket. One connection a request: connecting to a unix socket costs less
 * than 0.1 ms, and nothing keeps the process alive when the command is done.
 */
export class Client {
  readonly socketPath: string

  /** `start` is called once when nobody listens on the socket; true means that the request is worth another try. */
  constructor(
    readonly host: string,
    private start?: () => Promise<boolean>,
  ) {
    this.socketPath = socketPathOf(host)
  }

  /** Sends a request and returns the response, whose status is 2xx, 304 or 101; others are thrown as {@link ApiError}. */
  async send(method: string, path: string, options: RequestOptions = {}): Promise<IncomingMessage> {
    const { response } = await this.open(method, path, options, false)
    return response
  }

  /** Sends a request and returns the JSON value of the answer; `undefined` for an empty one. */
  async json<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
    const text = await textOf(await this.send(method, path, options))
    return (text.trim() === '' ? undefined : JSON.parse(text)) as T
  }

  /** Sends a request and reads the answer to its end without keeping it. */
  async call(method: string, path: string, options: RequestOptions = {}): Promise<void> {
    const response = await this.send(method, path, options)
    response.resume()
    await new Promise<void>((resolve, reject) => response.on('end', resolve).on('error', reject))
  }

  /** The plain text of an answer. */
  async text(method: string, path: string, options: RequestOptions = {}): Promise<string> {
    return textOf(await this.send(method, path, options))
  }

  /**
   * Sends a request with `Upgrade: tcp` and returns the raw connection (Engine API, "Attach to a container": hijacking).
   * Ending its writable half is end of input; the readable half then still gives the rest of the output.
   */
  async hijack(method: string, path: string, options: RequestOptions = {}): Promise<{ stream: Duplex; contentType: string }> {
    const { response, socket } = await this.open(method, path, options, true)
    return { stream: socket ?? response.socket, contentType: response.headers['content-type'] ?? '' }
  }

  /** True when a daemon answers `GET /_ping`. */
  async ping(): Promise<boolean> {
    try {
      await this.call('GET', '/_ping')
      return true
    } catch (error) {
      if (error instanceof ConnectError) return false
      throw error
    }
  }

  private async open(method: string, path: string, options: RequestOptions, upgrade: boolean): Promise<{ response: IncomingMessage; socket?: Duplex }> {
    try {
      return await this.once(method, path, options, upgrade)
    } catch (error) {
      const absent = error instanceof ConnectError && (error.code === 'ENOENT' || error.code === 'ECONNREFUSED')
      if (!absent || !this.start) throw error
      const start = this.start
      delete this.start
      if (!(await start())) throw error
      return this.once(method, path, options, upgrade)
    }
  }

  private once(method: string, path: string, options: RequestOptions, upgrade: boolean): Promise<{ response: IncomingMessage; socket?: Duplex }> {
    return new Promise((resolve, reject) => {
      const body = options.body === undefined ? undefined : Buffer.from(JSON.stringify(options.body))
      const outgoing = httpRequest({
        socketPath: this.socketPath,
        method,
        path: pathOf(path, options.query),
        headers: {
          Host: 'hull',
          'User-Agent': 'hull-cli',
          ...(body ? { 'Content-Type': 'application/json', 'Content-Length': body.length } : {}),
          ...(!body && !options.upload && method === 'POST' ? { 'Content-Length': 0 } : {}),
          ...(upgrade ? { Connection: 'Upgrade', Upgrade: 'tcp' } : { Connection: 'close' }),
          ...options.headers,
        },
        ...(options.signal ? { signal: options.signal } : {}),
      })
      outgoing.on('error', (error) => reject(this.explain(error)))
      outgoing.on('upgrade', (response, socket, head) => {
        if (head.length > 0) socket.unshift(head)
        resolve({ response, socket })
      })
      outgoing.on('response', (response) => {
        const status = response.statusCode ?? 500
        // 304: it runs already, or does not run any more: what was asked for is so.
        if ((status < 200 || status > 299) && status !== 304) apiErrorOf(response).then(reject, reject)
        else resolve({ response })
      })
      if (options.upload) {
        outgoing.setHeader('Content-Type', 'application/x-tar')
        // The error of a daemon that refuses early comes as a response; that of the file we read comes from here.
        options.upload.on('error', reject)
        pipeline(options.upload, outgoing).catch((error: unknown) => {
          if (codeOf(error) !== 'EPIPE' && codeOf(error) !== 'ECONNRESET' && codeOf(error) !== 'ERR_STREAM_PREMATURE_CLOSE') reject(this.explain(error))
        })
      } else {
        outgoing.end(body)
      }
    })
  }

  private explain(error: unknown): Error {
    const code = codeOf(error) ?? ''
    if (code === 'ENOENT' || code === 'ECONNREFUSED') {
      return new ConnectError(code, `Cannot connect to the Hull daemon at ${this.host}. Is the hull daemon running?`)
    }
    if (code === 'EACCES') {
      return new ConnectError(
        code,
        `permission denied while trying to connect to the Hull daemon socket at ${this.host}: be root, or a member of the group hull`,
      )
    }
    if (code === 'ABORT_ERR') return error as Error
    return new CliError(`error during connect: ${messageOf(error)}`)
  }
}
