import { randomBytes } from 'node:crypto'
import { createServer, ServerResponse, type IncomingMessage, type Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { badRequest, codeOf, HullError, messageOf, notFound } from '../base/errors.js'
import { log } from '../base/log.js'
import { requestAnswered } from './metrics.js'
import type { Engine } from '../engine/api-types.js'
import { Exchange, maxMinor, minMinor } from './exchange.js'
import type { Hijackable, HijackHandler } from './hijack.js'
import type { VersionInfo } from './mapping-system.js'
import { Router, type Route } from './router.js'
import { absentRoutes } from './routes-absent.js'
import { containerRoutes } from './routes-containers.js'
import { buildRoutes } from './routes-build.js'
import { imageRoutes } from './routes-images.js'
import { networkRoutes } from './routes-networks.js'
import { streamRoutes } from './routes-streams.js'
import { systemRoutes } from './routes-system.js'
import { createBody } from './schema-container.js'
import { hijackable, readUpgradeBody, takeFromParser, type HeadHeaders } from './takeover.js'

export type { VersionInfo } from './mapping-system.js'

/** What to send instead of the request's own error when the client's version is out of range. */
class VersionError extends HullError {
  constructor(readonly plain: boolean, message: string) {
    super(400, message)
  }
}

/** Every endpoint. */
export function createRouter(): Router {
  const router = new Router()
  for (const add of [systemRoutes, containerRoutes, streamRoutes, imageRoutes, buildRoutes, networkRoutes, absentRoutes]) add(router)
  return router
}

/** How long the rest of a body is read and dropped after the answer, milliseconds. */
const drainMs = 30_000

const connections = new WeakMap<Server, Set<Socket>>()

/**
 * The Docker Engine API over `engine`. The caller listens on a unix socket (the API has no authentication of its own: whoever can connect may do all).
 * Docker's words in and out; every decision is the engine's.
 */
export function createApiServer(engine: Engine, version: VersionInfo): Server {
  const api = new Api(engine, version, createRouter())
  // zod compiles a schema at its first use (14 ms for this one): not in somebody's first `run`.
  setImmediate(() => createBody.safeParse({ HostConfig: {}, NetworkingConfig: {} }))
  // Uploads may take hours, slow heads may not. Idle connections stay, as Docker's do: closing one races with the client's next request.
  const server = createServer({ requestTimeout: 0, headersTimeout: 30_000, keepAliveTimeout: 0, maxHeaderSize: 64 << 10 })
  const hijacked = new Set<Socket>()
  connections.set(server, hijacked)
  const keep = (socket: Socket): void => {
    hijacked.add(socket)
    socket.once('close', () => hijacked.delete(socket))
  }
  server.on('request', (request, response) => void api.plain(request, response, keep))
  server.on('upgrade', (request, socket, head) => void api.upgrade(request, socket as Socket, head, keep))
  server.on('clientError', (error, socket) => {
    // Bytes that are no HTTP: there is no request to answer, so the answer is written by hand.
    if (!socket.writable || hijacked.has(socket as Socket)) return
    const status = codeOf(error) === 'HPE_HEADER_OVERFLOW' ? '431 Request Header Fields Too Large' : codeOf(error) === 'ERR_HTTP_REQUEST_TIMEOUT' ? '408 Request Timeout' : '400 Bad Request'
    socket.end(`HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n${status}`)
  })
  return server
}

/** Stops listening and cuts every connection, hijacked ones too. Workloads are not touched: a cut attach detaches. */
export async function closeApiServer(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeAllConnections()
  for (const socket of connections.get(server) ?? []) socket.destroy()
  await closed
}

/** Takes requests apart, finds their endpoint, and answers for what it throws. */
class Api {
  readonly #headers: HeadHeaders

  constructor(readonly engine: Engine, readonly version: VersionInfo, readonly router: Router) {
    this.#headers = {
      'Api-Version': `1.${maxMinor}`,
      'Docker-Experimental': 'false',
      Ostype: 'linux',
      Server: `Hull/${version.version} (linux)`,
    }
  }

  /** A request that did not ask for an upgrade. */
  async plain(request: IncomingMessage, response: ServerResponse, keep: (socket: Socket) => void): Promise<void> {
    await this.#serve(request, response, request, async (route, exchange) => {
      if (route.kind === 'plain') return route.handler(exchange)
      const { socket } = request
      const length = Number(request.headers['content-length'] ?? 0)
      // A client that streams a chunked body into an attach without an upgrade means it as stdin; nobody does, and Go's server would hand on the chunk framing.
      if (length > 0 || request.headers['transfer-encoding'] !== undefined) await exchange.preload()
      keep(socket)
      takeFromParser(socket)
      response.shouldKeepAlive = false // no parser, no further request
      await hijack(route.handler, exchange, hijackable(socket, response, false, this.#headers, () => Buffer.alloc(0)), socket)
    })
  }

  /** A request with `Upgrade`. Node has taken its parser off: body and answer are ours. */
  async upgrade(request: IncomingMessage, socket: Socket, head: Buffer, keep: (socket: Socket) => void): Promise<void> {
    keep(socket)
    socket.on('error', () => {})
    const response = new ServerResponse(request)
    response.shouldKeepAlive = false
    response.assignSocket(socket)
    response.once('finish', () => socket.destroySoon())
    let read: { body: Readable; rest: Buffer }
    try {
      read = await readUpgradeBody(request, socket, head)
    } catch (error) {
      this.#prepare(response)
      return this.#fail(request, response, 'upgrade', error)
    }
    await this.#serve(request, response, read.body, (route, exchange) => {
      if (route.kind === 'plain') return route.handler(exchange)
      return hijack(route.handler, exchange, hijackable(socket, response, true, this.#headers, () => read.rest), socket)
    })
  }

  async #serve(
    request: IncomingMessage,
    response: ServerResponse,
    body: Readable,
    call: (route: Route, exchange: Exchange) => Promise<void> | void,
  ): Promise<void> {
    const requestId = randomBytes(6).toString('hex')
    const started = performance.now()
    this.#prepare(response)
    response.on('error', () => {}) // the client went; the handler learns it from the signal
    try {
      const { path, search, minor } = splitUrl(request.url ?? '/')
      const found = this.router.find(request.method ?? 'GET', path)
      if (!found) throw notFound('page not found')
      const exchange = new Exchange(this.engine, this.version, requestId, request, response, found.params, search, minor, body)
      await call(found.route, exchange)
    } catch (error) {
      this.#fail(request, response, requestId, error)
    }
    requestAnswered(request.method ?? '', response.statusCode, performance.now() - started)
    log.debug('request', { id: requestId, method: request.method, url: request.url?.slice(0, 500), status: response.statusCode, ms: Math.round(performance.now() - started) })
  }

  #prepare(response: ServerResponse): void {
    for (const [name, value] of Object.entries(this.#headers)) response.setHeader(name, value)
  }

  #fail(request: IncomingMessage, response: ServerResponse, requestId: string, error: unknown): void {
    const status = error instanceof HullError ? error.statusCode : 500
    // The message of a system call's error helps; that of a bug would only confuse, and may tell too much.
    const expected = error instanceof HullError || codeOf(error) !== undefined
    if (status >= 500 && status !== 501 && status !== 503) {
      log.error('request failed', { id: requestId, method: request.method, url: request.url?.slice(0, 500), status, error: messageOf(error), stack: expected || !(error instanceof Error) ? undefined : error.stack })
    }
    if (response.headersSent || response.destroyed) {
      response.destroy() // half an answer must not look whole
      return
    }
    const message = expected ? messageOf(error) : `internal error; the daemon's log has it under request id ${requestId}`
    if (!request.complete) {
      // The client is still sending. It is let finish, for a while: see Exchange.upload.
      const { socket } = response
      const timer = setTimeout(() => socket?.destroy(), drainMs)
      for (const event of ['end', 'close']) request.once(event, () => clearTimeout(timer))
    }
    const plain = error instanceof VersionError && error.plain
    const data = Buffer.from(plain ? `${message}\n` : JSON.stringify({ message }) + '\n')
    response.writeHead(status, { 'Content-Type': plain ? 'text/plain; charset=utf-8' : 'application/json', 'Content-Length': data.length })
    response.end(request.method === 'HEAD' ? undefined : data)
  }
}

/** '/v1.47/info?x' → its parts. 400 for a version out of range, in Docker's words (moby, middleware/version.go). */
function splitUrl(url: string): { path: string; search: string; minor: number } {
  const mark = url.indexOf('?')
  const whole = mark < 0 ? url : url.slice(0, mark)
  const search = mark < 0 ? '' : url.slice(mark + 1)
  const versioned = /^\/v([0-9.]{1,20})(\/.*)$/s.exec(whole)
  if (!versioned) return { path: whole, search, minor: maxMinor }
  const text = versioned[1]!
  const [major = NaN, minor = 0] = text.split('.').map(Number)
  if (!/^\d+(\.\d+){0,2}$/.test(text)) throw badRequest(`invalid API version: ${text}`)
  if (major < 1 || (major === 1 && minor < minMinor)) {
    // Clients that old expect plain text.
    throw new VersionError(true, `client version ${text} is too old. Minimum supported API version is 1.${minMinor}, please upgrade your client to a newer version`)
  }
  if (major > 1 || minor > maxMinor) throw new VersionError(false, `client version ${text} is too new. Maximum supported API version is 1.${maxMinor}`)
  return { path: versioned[2]!, search, minor }
}

/** Runs a hijacking handler. What it throws before it takes the connection is an HTTP error; afterwards the connection is all there is to end. */
async function hijack(handler: HijackHandler, exchange: Exchange, connection: Hijackable, socket: Socket): Promise<void> {
  let taken = false
  try {
    await handler(exchange, {
      upgrade: connection.upgrade,
      take(contentType) {
        taken = true
        return connection.take(contentType)
      },
    })
  } catch (error) {
    if (!taken) throw error
    log.error('stream failed', { id: exchange.requestId, error })
    socket.destroy()
  }
}
