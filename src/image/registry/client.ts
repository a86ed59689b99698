import type { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import { z } from 'zod'
import { internal, messageOf } from '../../base/errors.js'
import { digestOf, isDigest, type Digest } from '../digest.js'
import { documentLimit, mediaTypes } from '../manifests.js'
import type { Reference } from '../references.js'
import type { RegistryAuth } from '../types.js'
import { Authorizer } from './auth.js'
import { parseChallenges } from './challenge.js'
import { errorFrom, RegistryError } from './errors.js'
import { readBody, Transport, TransportError, type RequestOptions } from './http.js'

/** Bytes of an error body that are read. */
const errorLimit = 64 << 10
const acceptManifests = [mediaTypes.ociIndex, mediaTypes.ociManifest, mediaTypes.dockerList, mediaTypes.dockerManifest].join(', ')
/** Tags that one repository may list, and pages of them. */
const tagLimit = 100_000
const tagPattern = /^\w[\w.-]{0,127}$/
const tagList = z.object({ tags: z.array(z.string()).nullish() })

export interface FetchedManifest {
  bytes: Buffer
  mediaType: string
  digest: Digest
}

export interface ClientOptions {
  transport?: Transport
  /** What will be done there: the scope of the token. */
  push?: boolean
  /** Other repositories of this registry that blobs are mounted from. */
  mountFrom?: readonly string[]
}

interface Call extends Omit<RequestOptions, 'stream'> {
  /** Made anew for each try. */
  stream?: () => Readable
  /** Answers that are none of an error, beside 2xx. */
  expect?: readonly number[]
}

/** The address of a registry by the name that users write. */
export const registryHost = (domain: string) => (domain === 'docker.io' ? 'registry-1.docker.io' : domain)

/**
 * Finds out how a registry is reached and what it wants to see: GET /v2/. Insecure registries may be without TLS: https first, then
 * http, as Docker does; all others by https alone. 200 and 401 are answers, all else is an error.
 */
export async function pingRegistry(transport: Transport, host: string, signal?: AbortSignal): Promise<{ base: URL; response: IncomingMessage; body: Buffer }> {
  if (!URL.canParse(`https://${host}`)) throw internal(`invalid registry address ${host}`)
  const insecure = await transport.insecure(host)
  let first: unknown
  for (const scheme of insecure ? ['https', 'http'] : ['https']) {
    try {
      const { response } = await transport.follow(new URL(`${scheme}://${host}/v2/`), { signal })
      const body = await readBody(response, errorLimit, "the registry's answer").catch(() => Buffer.alloc(0))
      if (response.statusCode !== 200 && response.statusCode !== 401) throw errorFrom(response, body)
      return { base: new URL(`${scheme}://${host}`), response, body }
    } catch (error) {
      signal?.throwIfAborted()
      if (!(error instanceof TransportError)) throw error
      first ??= error
      if (scheme === 'http' || !insecure) throw insecure && first !== error && !isRefused(error) ? first : error
    }
  }
  throw first
}

/** One repository of one registry, by the distribution v2 protocol (OCI distribution-spec). */
export class RegistryClient {
  private base: URL | undefined
  readonly repository: string
  readonly host: string
  private readonly transport: Transport
  private readonly authorizer: Authorizer
  private connecting: Promise<URL> | undefined

  constructor(reference: Pick<Reference, 'domain' | 'path'>, auth: RegistryAuth = {}, options: ClientOptions = {}) {
    this.repository = reference.path
    this.host = registryHost(reference.domain)
    this.transport = options.transport ?? new Transport()
    const scopes = [`repository:${this.repository}:pull${options.push ? ',push' : ''}`, ...(options.mountFrom ?? []).map((repository) => `repository:${repository}:pull`)]
    this.authorizer = new Authorizer(auth, { transport: this.transport, scopes, allowPlain: () => this.base?.protocol === 'http:' })
  }

  private connect(signal?: AbortSignal): Promise<URL> {
    this.connecting ??= (async () => {
      const { base, response } = await pingRegistry(this.transport, this.host, signal)
      if (response.statusCode === 401) this.authorizer.challenge(parseChallenges(response.headers['www-authenticate'] ?? ''))
      return (this.base = base)
    })().catch((error: unknown) => {
      this.connecting = undefined
      throw error
    })
    return this.connecting
  }

  /** A request to `target` below the registry, with the token that it asks for; a stale one is renewed once. GET and HEAD follow redirects. */
  private async call(target: string, { stream, expect = [], ...options }: Call): Promise<IncomingMessage> {
    const base = await this.connect(options.signal)
    const url = new URL(target, base)
    // An upload's address may be elsewhere; our credentials are for the registry alone.
    const own = url.host === base.host && url.protocol === base.protocol
    for (let renewed = false; ; renewed = true) {
      const authorization = own ? await this.authorizer.authorization(options.signal) : undefined
      const sent = { ...options, headers: { ...options.headers, ...(authorization === undefined ? {} : { Authorization: authorization }) }, ...(stream === undefined ? {} : { stream: stream() }) }
      const bodiless = options.method === undefined || options.method === 'GET' || options.method === 'HEAD'
      const { response, url: final } = bodiless ? await this.transport.follow(url, sent) : { response: await this.transport.request(url, sent), url }
      const status = response.statusCode ?? 0
      if ((status >= 200 && status < 300) || expect.includes(status)) return response
      const body = await readBody(response, errorLimit, 'the error').catch(() => Buffer.alloc(0))
      const challenges = status === 401 && own && final.host === base.host ? parseChallenges(response.headers['www-authenticate'] ?? '') : []
      if (renewed || challenges.length === 0) throw errorFrom(response, body)
      this.authorizer.challenge(challenges)
    }
  }

  private fetch(path: string, headers: Record<string, string>, signal?: AbortSignal): Promise<IncomingMessage> {
    return this.call(`/v2/${this.repository}/${path}`, { headers, signal })
  }

  /** A manifest or index by tag or digest, its digest verified. */
  async manifest(reference: string, signal?: AbortSignal): Promise<FetchedManifest> {
    const response = await this.fetch(`manifests/${reference}`, { Accept: acceptManifests }, signal)
    const bytes = await this.read(response, 'the manifest', signal)
    const digest = digestOf(bytes)
    const wanted = isDigest(reference) ? reference : response.headers['docker-content-digest']
    if (isDigest(wanted) && wanted !== digest) throw internal(`manifest verification failed for digest ${wanted}: its content is ${digest}`)
    return { bytes, digest, mediaType: response.headers['content-type'] ?? '' }
  }

  /** A small blob (a config), its digest verified. */
  async document(digest: Digest, signal?: AbortSignal): Promise<Buffer> {
    const bytes = await this.read(await this.fetch(`blobs/${digest}`, {}, signal), 'the image config', signal)
    if (digestOf(bytes) !== digest) throw internal(`image config verification failed for digest ${digest}`)
    return bytes
  }

  private async read(response: IncomingMessage, what: string, signal?: AbortSignal): Promise<Buffer> {
    try {
      return await readBody(response, documentLimit, what)
    } catch (error) {
      signal?.throwIfAborted()
      throw internal(messageOf(error), error)
    }
  }

  /** Every tag of the repository, page by page (distribution-spec, "Listing Tags"). */
  async tags(signal?: AbortSignal): Promise<string[]> {
    const found = new Set<string>()
    let next: string | undefined = `/v2/${this.repository}/tags/list`
    for (let page = 0; next !== undefined && page < 1000; page++) {
      const response = await this.call(next, { signal })
      const parsed = tagList.safeParse(jsonOrNothing(await this.read(response, 'the list of tags', signal)))
      if (!parsed.success) throw internal('the list of tags is not valid')
      for (const tag of parsed.data.tags ?? []) if (tagPattern.test(tag)) found.add(tag)
      if (found.size > tagLimit) throw internal(`the repository has more than ${tagLimit} tags`)
      next = nextPage(response.headers.link, this.base!, `/v2/${this.repository}/tags/list`)
    }
    return [...found]
  }

  /** Where a blob is, for messages. */
  blobUrl(digest: Digest): URL {
    return new URL(`/v2/${this.repository}/blobs/${digest}`, this.base ?? `https://${this.host}`)
  }

  /**
   * A blob's bytes from `start` on. `offset` is where the answer really begins: 0 when the registry cannot resume.
   * The caller reads or destroys the response.
   */
  async blob(digest: Digest, start: number, signal?: AbortSignal): Promise<{ response: IncomingMessage; offset: number }> {
    // Bytes as they are stored: a proxy must not compress on the way.
    const headers = { 'Accept-Encoding': 'identity', ...(start > 0 ? { Range: `bytes=${start}-` } : {}) }
    const response = await this.fetch(`blobs/${digest}`, headers, signal)
    if (response.statusCode !== 206) return { response, offset: 0 }
    const offset = Number(/^bytes (\d+)-/.exec(response.headers['content-range'] ?? '')?.[1] ?? NaN)
    if (offset !== start) {
      response.destroy()
      throw new RegistryError(206, '', `the registry answered with other bytes of ${digest} than were asked for`)
    }
    return { response, offset }
  }

  // push (distribution-spec, "Push") -------------------------------------------------------------------------------

  private async exists(path: string, signal?: AbortSignal): Promise<boolean> {
    const response = await this.call(`/v2/${this.repository}/${path}`, { method: 'HEAD', headers: { Accept: acceptManifests }, expect: [404], signal })
    response.resume()
    return response.statusCode !== 404
  }

  hasBlob(digest: Digest, signal?: AbortSignal): Promise<boolean> {
    return this.exists(`blobs/${digest}`, signal)
  }

  hasManifest(digest: Digest, signal?: AbortSignal): Promise<boolean> {
    return this.exists(`manifests/${digest}`, signal)
  }

  /** Begins an upload. 'mounted': the registry took the blob over from repository `from`. Else where to send it. */
  async beginUpload(mount: { digest: Digest; from: string } | undefined, signal?: AbortSignal): Promise<'mounted' | URL> {
    const query = mount === undefined ? '' : `?${new URLSearchParams({ mount: mount.digest, from: mount.from }).toString()}`
    const response = await this.call(`/v2/${this.repository}/blobs/uploads/${query}`, { method: 'POST', body: Buffer.alloc(0), signal })
    response.resume()
    if (mount !== undefined && response.statusCode === 201) return 'mounted'
    const { location } = response.headers
    const base = this.base!
    if (location === undefined || !URL.canParse(location, base.href)) throw internal('the registry does not say where to upload to')
    const url = new URL(location, base)
    if (url.protocol !== 'https:' && url.protocol !== base.protocol) throw internal('the registry wants an upload without TLS')
    return url
  }

  /** Sends a blob to where {@link beginUpload} said, whole. */
  async upload(location: URL, blob: { digest: Digest; size: number; open: () => Readable }, signal?: AbortSignal): Promise<void> {
    const url = new URL(location)
    url.searchParams.set('digest', blob.digest)
    const headers = { 'Content-Type': 'application/octet-stream', 'Content-Length': String(blob.size) }
    const response = await this.call(url.href, { method: 'PUT', headers, stream: blob.open, signal, idleTimeoutMs: 300_000 })
    response.resume()
  }

  /** Stores a manifest or index under a tag or its digest. */
  async putManifest(reference: string, bytes: Buffer, mediaType: string, signal?: AbortSignal): Promise<void> {
    const response = await this.call(`/v2/${this.repository}/manifests/${reference}`, { method: 'PUT', headers: { 'Content-Type': mediaType }, body: bytes, signal })
    response.resume()
    const stored = response.headers['docker-content-digest']
    if (isDigest(stored) && stored !== digestOf(bytes)) throw internal(`the registry stored the manifest as ${stored}, and not as ${digestOf(bytes)}`)
  }
}

function jsonOrNothing(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    return undefined
  }
}

/** The next page of a list (RFC 5988), as a path of the same registry and list: a registry does not send us elsewhere. */
function nextPage(link: string | string[] | undefined, base: URL, path: string): string | undefined {
  const target = /<([^>]+)>\s*;\s*rel="?next"?/.exec(String(link ?? ''))?.[1]
  const here = new URL(path, base).href
  if (target === undefined || !URL.canParse(target, here)) return undefined
  const { pathname, search } = new URL(target, here)
  return pathname === path ? pathname + search : undefined
}

const isRefused = (error: Error) => /connection refused/.test(error.message)

/** True when trying again may help: the network failed, or the registry was busy or broken. */
export function isTransient(error: unknown): boolean {
  if (error instanceof RegistryError) return error.status >= 500 || error.status === 429 || error.status === 408
  return error instanceof TransportError
}
