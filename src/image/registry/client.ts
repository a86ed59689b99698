import type { IncomingMessage } from 'node:http'
import { internal, messageOf } from '../../base/errors.js'
import { digestOf, isDigest, type Digest } from '../digest.js'
import { documentLimit, mediaTypes } from '../manifests.js'
import type { Reference } from '../references.js'
import type { RegistryAuth } from '../types.js'
import { Authorizer } from './auth.js'
import { parseChallenges } from './challenge.js'
import { errorFrom, RegistryError } from './errors.js'
import { get, isLoopback, readBody, TransportError } from './http.js'

/** Bytes of an error body that are read. */
const errorLimit = 64 << 10
const acceptManifests = [mediaTypes.ociIndex, mediaTypes.ociManifest, mediaTypes.dockerList, mediaTypes.dockerManifest].join(', ')

export interface FetchedManifest {
  bytes: Buffer
  mediaType: string
  digest: Digest
}

/** One repository of one registry, by the distribution v2 protocol (OCI distribution-spec, "Pull"). */
export class RegistryClient {
  private base: URL | undefined
  private readonly repository: string
  private readonly host: string
  private readonly authorizer: Authorizer
  private connecting: Promise<URL> | undefined

  constructor(reference: Pick<Reference, 'domain' | 'path'>, auth: RegistryAuth = {}) {
    this.repository = reference.path
    this.host = reference.domain === 'docker.io' ? 'registry-1.docker.io' : reference.domain
    this.authorizer = new Authorizer(auth, `repository:${this.repository}:pull`, () => this.base?.protocol === 'http:')
  }

  /**
   * Finds out how the registry is reached and what it wants to see: GET /v2/. Loopback registries may be without TLS: https
   * first, then http, as Docker does; all others by https alone.
   */
  private connect(signal?: AbortSignal): Promise<URL> {
    this.connecting ??= this.ping(signal).catch((error: unknown) => {
      this.connecting = undefined
      throw error
    })
    return this.connecting
  }

  private async ping(signal?: AbortSignal): Promise<URL> {
    if (!URL.canParse(`https://${this.host}`)) throw internal(`invalid registry address ${this.host}`)
    const insecure = isLoopback(new URL(`https://${this.host}`).hostname)
    let first: unknown
    for (const scheme of insecure ? ['https', 'http'] : ['https']) {
      const url = new URL(`${scheme}://${this.host}/v2/`)
      try {
        const { response } = await get(url, { signal })
        const body = await readBody(response, errorLimit, "the registry's answer").catch(() => Buffer.alloc(0))
        if (response.statusCode === 401) this.authorizer.challenge(parseChallenges(response.headers['www-authenticate'] ?? ''))
        else if (response.statusCode !== 200) throw errorFrom(response, body)
        this.base = new URL(`${scheme}://${this.host}`)
        return this.base
      } catch (error) {
        signal?.throwIfAborted()
        if (!(error instanceof TransportError)) throw error
        first ??= error
        if (scheme === 'http' || !insecure) throw insecure && first !== error && !isRefused(error) ? first : error
      }
    }
    throw first
  }

  /** GET below /v2/<repository>/, with the token that the registry asks for; a stale one is renewed once. */
  private async fetch(path: string, headers: Record<string, string>, signal?: AbortSignal): Promise<IncomingMessage> {
    const base = await this.connect(signal)
    const url = new URL(`/v2/${this.repository}/${path}`, base)
    for (let renewed = false; ; renewed = true) {
      const authorization = await this.authorizer.authorization(signal)
      const { response, url: final } = await get(url, { signal, headers: { ...headers, ...(authorization === undefined ? {} : { Authorization: authorization }) } })
      const status = response.statusCode ?? 0
      if (status === 200 || status === 206) return response
      const body = await readBody(response, errorLimit, 'the error').catch(() => Buffer.alloc(0))
      const challenges = status === 401 && final.host === base.host ? parseChallenges(response.headers['www-authenticate'] ?? '') : []
      if (renewed || challenges.length === 0) throw errorFrom(response, body)
      this.authorizer.challenge(challenges)
    }
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
}

const isRefused = (error: Error) => /ECONNREFUSED/.test(error.message)

/** True when trying again may help: the network failed, or the registry was busy or broken. */
export function isTransient(error: unknown): boolean {
  if (error instanceof RegistryError) return error.status >= 500 || error.status === 429 || error.status === 408
  return error instanceof TransportError
}
