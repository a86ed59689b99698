import { existsSync, readFileSync } from 'node:fs'
import http, { type IncomingMessage } from 'node:http'
import https from 'node:https'
import { isIP } from 'node:net'
import { rootCertificates } from 'node:tls'
import { messageOf } from '../../base/errors.js'

/** A request failed below HTTP: another try may succeed. The message is Docker's: 'Get "https://…": connect ECONNREFUSED …'. */
export class TransportError extends Error {
  constructor(method: string, url: URL, cause: unknown) {
    super(`${method[0]}${method.slice(1).toLowerCase()} "${url.origin}${url.pathname}": ${messageOf(cause)}`, { cause })
    this.name = 'TransportError'
  }
}

/** 'localhost', 127.0.0.0/8 and ::1: the registries that Docker takes for insecure without being told. */
export function isLoopback(hostname: string): boolean {
  const bare = hostname.replace(/^\[|\]$/g, '').toLowerCase()
  if (bare === 'localhost') return true
  return isIP(bare) === 4 ? bare.startsWith('127.') : isIP(bare) === 6 && bare === '::1'
}

/** The system's certificates besides Node's own: companies put theirs there, and Docker reads them. */
let authorities: string[] | undefined
function certificateAuthorities(): string[] {
  const system = '/etc/ssl/certs/ca-certificates.crt'
  authorities ??= existsSync(system) ? [...rootCertificates, readFileSync(system, 'utf8')] : [...rootCertificates]
  return authorities
}

const limits = { keepAlive: true, maxSockets: 8, maxFreeSockets: 4, timeout: 30_000 }
const plain = new http.Agent(limits)
/** Loopback registries have certificates of their own making; Docker does not verify them either. */
const loopback = new https.Agent({ ...limits, rejectUnauthorized: false })
let verified: https.Agent | undefined

export interface RequestOptions {
  method?: 'GET' | 'HEAD' | 'POST'
  headers?: Record<string, string>
  body?: string
  signal?: AbortSignal | undefined
  /** Without a byte for so long, the request fails (default 30 s). */
  idleTimeoutMs?: number
}

const userAgent = 'hull/0.1'

/** One request without following redirects. Resolves at the response's head; the caller reads or destroys it. */
export function request(url: URL, options: RequestOptions = {}): Promise<IncomingMessage> {
  const method = options.method ?? 'GET'
  return new Promise((resolve, reject) => {
    if (url.protocol !== 'http:' && url.protocol !== 'https:') {
      reject(new TransportError(method, url, `unsupported protocol scheme "${url.protocol.slice(0, -1)}"`))
      return
    }
    const secure = url.protocol === 'https:'
    const agent = !secure ? plain : isLoopback(url.hostname) ? loopback : (verified ??= new https.Agent({ ...limits, ca: certificateAuthorities() }))
    const idle = options.idleTimeoutMs ?? 30_000
    const outgoing = (secure ? https : http).request(url, {
      method, agent, timeout: idle, maxHeaderSize: 64 * 1024, ...(options.signal ? { signal: options.signal } : {}),
      headers: {
        'User-Agent': userAgent, ...options.headers,
        ...(options.body === undefined ? {} : { 'Content-Type': 'application/x-www-form-urlencoded', 'Content-Length': String(Buffer.byteLength(options.body)) }),
      },
    })
    outgoing.on('timeout', () => outgoing.destroy(new Error('i/o timeout')))
    outgoing.on('error', (error) => reject(options.signal?.aborted ? (options.signal.reason as Error) : new TransportError(method, url, error)))
    outgoing.on('response', resolve)
    outgoing.end(options.body)
  })
}

/** Reads a body of at most `limit` bytes; longer ones are an error, not cut off. */
export async function readBody(response: IncomingMessage, limit: number, what: string): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > limit) {
      response.destroy()
      throw new Error(`${what} is larger than ${limit} bytes`)
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

const redirects = new Set([301, 302, 303, 307, 308])

/**
 * A GET that follows redirects. The Authorization header stays at the host that it is for (storage back ends of
 * registries refuse it, and it is none of their business), and https never leads to http.
 */
export async function get(start: URL, options: RequestOptions): Promise<{ response: IncomingMessage; url: URL }> {
  let url = start
  let headers = { ...options.headers }
  for (let hops = 0; ; hops++) {
    const response = await request(url, { ...options, headers })
    const location = response.headers.location
    if (!redirects.has(response.statusCode ?? 0) || location === undefined) return { response, url }
    response.resume()
    if (hops >= 10) throw new Error(`Get "${start.href}": stopped after 10 redirects`)
    if (!URL.canParse(location, url.href)) throw new Error(`Get "${start.href}": the registry redirects to an invalid address`)
    const next = new URL(location, url)
    if (url.protocol === 'https:' && next.protocol !== 'https:') throw new Error(`Get "${start.href}": the registry redirects from https to ${next.protocol.slice(0, -1)}`)
    if (next.host !== url.host) {
      const { Authorization: _, ...rest } = headers
      headers = rest
    }
    next.username = next.password = ''
    url = next
  }
}
