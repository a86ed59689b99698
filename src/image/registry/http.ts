import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import http, { type IncomingMessage } from 'node:http'
import https from 'node:https'
import type { Readable } from 'node:stream'
import { rootCertificates } from 'node:tls'
import { HullError, internal } from '../../base/errors.js'
import { defaultSettings, isInsecure, readCertificates, type RegistrySettings } from './settings.js'
import { networkWords } from './words.js'

/** A request failed below HTTP: another try may succeed. Docker's status and words: 'Get "https://…": dial tcp …: connect: connection refused'. */
export class TransportError extends HullError {
  /** `reason`: an error of Node's, or words of our own. */
  constructor(method: string, url: URL, reason: unknown) {
    super(500, `${method[0]}${method.slice(1).toLowerCase()} "${url.origin}${url.pathname}": ${networkWords(reason)}`, { cause: reason })
    this.name = 'TransportError'
  }
}

/** The system's certificates besides Node's own: companies put theirs there, and Docker reads them. */
let authorities: string[] | undefined
function certificateAuthorities(): string[] {
  const system = '/etc/ssl/certs/ca-certificates.crt'
  authorities ??= existsSync(system) ? [...rootCertificates, readFileSync(system, 'utf8')] : [...rootCertificates]
  return authorities
}

const limits = { keepAlive: true, maxSockets: 8, maxFreeSockets: 4, timeout: 30_000 }
const plainAgent = new http.Agent(limits)
/** By what they trust and show: connections are shared by pulls, and a changed certificate gets an agent of its own. */
const secureAgents = new Map<string, https.Agent>()

function secureAgent(options: { insecure: boolean; ca: string[]; cert: string[]; key: string[] }): https.Agent {
  const id = createHash('sha256').update(JSON.stringify(options)).digest('hex')
  const known = secureAgents.get(id)
  if (known !== undefined) return known
  const { insecure, ca, cert, key } = options
  const agent = new https.Agent({
    ...limits, ...(insecure ? { rejectUnauthorized: false } : { ca: [...certificateAuthorities(), ...ca] }), ...(cert.length > 0 ? { cert, key } : {}),
  })
  if (secureAgents.size >= 64) secureAgents.delete(secureAgents.keys().next().value!)
  secureAgents.set(id, agent)
  return agent
}

export interface RequestOptions {
  method?: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE'
  headers?: Record<string, string>
  /** A form's text, or bytes. */
  body?: string | Buffer
  /** A long body, with its length in the headers. */
  stream?: Readable
  signal?: AbortSignal | undefined
  /** Without a byte for so long, the request fails (default 30 s). */
  idleTimeoutMs?: number
}

const userAgent = 'hull/0.1'
const redirects = new Set([301, 302, 303, 307, 308])

/** How requests to registries and their token servers go out. */
export class Transport {
  private readonly agents = new Map<string, Promise<https.Agent>>()

  constructor(readonly settings: RegistrySettings = defaultSettings) {}

  /** No valid certificate is asked of this host ('host:port'), and plain HTTP will do. */
  insecure(host: string): Promise<boolean> {
    return isInsecure(host, this.settings)
  }

  private agent(url: URL): Promise<https.Agent> {
    let agent = this.agents.get(url.host)
    if (agent === undefined) {
      agent = (async () => secureAgent({ insecure: await this.insecure(url.host), ...(await readCertificates(url.host, this.settings)) }))()
      agent.catch(() => this.agents.delete(url.host))
      this.agents.set(url.host, agent)
    }
    return agent
  }

  /** One request without following redirects. Resolves at the response's head; the caller reads or destroys it. */
  async request(url: URL, options: RequestOptions = {}): Promise<IncomingMessage> {
    const method = options.method ?? 'GET'
    if (url.protocol !== 'http:' && url.protocol !== 'https:') throw new TransportError(method, url, `unsupported protocol scheme "${url.protocol.slice(0, -1)}"`)
    const secure = url.protocol === 'https:'
    const agent = secure ? await this.agent(url) : plainAgent
    options.signal?.throwIfAborted()
    return new Promise((resolve, reject) => {
      const idle = options.idleTimeoutMs ?? 30_000
      const form = typeof options.body === 'string' ? { 'Content-Type': 'application/x-www-form-urlencoded' } : {}
      let outgoing: http.ClientRequest
      try {
        outgoing = (secure ? https : http).request(url, {
          method, agent, timeout: idle, maxHeaderSize: 64 * 1024, ...(options.signal ? { signal: options.signal } : {}),
          headers: { 'User-Agent': userAgent, ...form, ...options.headers, ...(options.body === undefined ? {} : { 'Content-Length': String(Buffer.byteLength(options.body)) }) },
        })
      } catch (error) {
        reject(new TransportError(method, url, error)) // a bad client certificate, for one
        return
      }
      const fail = (error: unknown) => {
        options.stream?.destroy()
        reject(options.signal?.aborted ? (options.signal.reason as Error) : new TransportError(method, url, error))
      }
      outgoing.on('timeout', () => outgoing.destroy(new Error('i/o timeout')))
      outgoing.on('error', fail)
      outgoing.on('response', resolve)
      if (options.stream === undefined) outgoing.end(options.body)
      else {
        options.stream.on('error', (error) => outgoing.destroy(error))
        options.stream.pipe(outgoing)
      }
    })
  }

  /**
   * A request without a body that follows redirects. The Authorization header stays at the host that it is for (storage back
   * ends of registries refuse it, and it is none of their business), and https never leads to http.
   */
  async follow(start: URL, options: RequestOptions): Promise<{ response: IncomingMessage; url: URL }> {
    let url = start
    let headers = { ...options.headers }
    for (let hops = 0; ; hops++) {
      const response = await this.request(url, { ...options, headers })
      const location = response.headers.location
      if (!redirects.has(response.statusCode ?? 0) || location === undefined) return { response, url }
      response.resume()
      const refuse = (why: string) => internal(`Get "${start.origin}${start.pathname}": ${why}`)
      if (hops >= 10) throw refuse('stopped after 10 redirects')
      if (!URL.canParse(location, url.href)) throw refuse('the registry redirects to an invalid address')
      const next = new URL(location, url)
      if (url.protocol === 'https:' && next.protocol !== 'https:') throw refuse(`the registry redirects from https to ${next.protocol.slice(0, -1)}`)
      if (next.host !== url.host) {
        const { Authorization: _, ...rest } = headers
        headers = rest
      }
      next.username = next.password = ''
      url = next
    }
  }
}

/** Reads a body of at most `limit` bytes; longer ones are an error, not cut off. */
export async function readBody(response: IncomingMessage, limit: number, what: string): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      size += chunk.length
      if (size > limit) {
        response.destroy()
        throw internal(`${what} is larger than ${limit} bytes`)
      }
      chunks.push(chunk)
    }
  } catch (error) {
    throw error instanceof HullError ? error : internal(`${what} ended early: ${networkWords(error)}`, error)
  }
  return Buffer.concat(chunks)
}
