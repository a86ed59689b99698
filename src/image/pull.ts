import { HullError, notFound } from '../base/errors.js'
import type { Layer } from '../storage/types.js'
import { parseConfig, type ImageDocument } from './config.js'
import { shortOf, type Digest } from './digest.js'
import type { BlobFetcher, FetchProgress } from './fetch.js'
import { parseManifest, type Descriptor, type Manifest } from './manifests.js'
import { choosePlatform, formatPlatform, hostPlatform, normalisePlatform, parsePlatform, type Platform } from './platform.js'
import { barMessage, layerMessage, Throttle } from './progress.js'
import { familiarName, familiarString, parseReference, withDefaultTag, type Reference } from './references.js'
import type { PushMemory } from './push-memory.js'
import { RegistryClient, type FetchedManifest } from './registry/client.js'
import { translatePullError } from './registry/errors.js'
import type { Transport } from './registry/http.js'
import type { ImageStore } from './store.js'
import type { ProgressMessage, RegistryAuth } from './types.js'

export interface PullOptions {
  platform?: string
  auth?: RegistryAuth
  onProgress: (message: ProgressMessage) => void
  signal?: AbortSignal
  transport?: Transport
  /** Told where blobs are, for later pushes. */
  memory?: PushMemory
}

interface Resolved {
  manifest: Manifest
  bytes: Buffer
  /** The multi-architecture index that led to it. */
  index?: Buffer
  /** What the name means: the index's digest for a multi-architecture image. */
  digest: Digest
}

/** Pulls an image and names it; resolves with its ID. Errors are Docker's. */
export async function pull(store: ImageStore, fetcher: BlobFetcher, name: string, options: PullOptions): Promise<Digest> {
  const reference = withDefaultTag(parseReference(name))
  const platform = options.platform ? parsePlatform(options.platform) : undefined
  const client = clientFor(reference, options)
  try {
    return await pullReference(store, fetcher, client, reference, platform, options)
  } catch (error) {
    throw translatePullError(error, reference)
  }
}

const clientFor = (reference: Reference, { auth, transport }: PullOptions) => new RegistryClient(reference, auth, transport ? { transport } : {})

/** `docker pull -a`: every tag of a repository, one after the other; those before a failure stay. Resolves with the names and IDs. */
export async function pullAll(store: ImageStore, fetcher: BlobFetcher, repository: string, options: PullOptions): Promise<{ name: string; id: Digest }[]> {
  const reference = parseReference(repository)
  const platform = options.platform ? parsePlatform(options.platform) : undefined
  const client = clientFor(reference, options)
  try {
    const tags = await client.tags(options.signal)
    if (tags.length === 0) throw notFound(`repository ${familiarName(reference)} has no tags`)
    const pulled: { name: string; id: Digest }[] = []
    for (const tag of tags) {
      const tagged = { domain: reference.domain, path: reference.path, tag }
      pulled.push({ name: familiarString(tagged), id: await pullReference(store, fetcher, client, tagged, platform, options) })
    }
    return pulled
  } catch (error) {
    throw translatePullError(error, reference)
  }
}

async function pullReference(store: ImageStore, fetcher: BlobFetcher, client: RegistryClient, reference: Reference, platform: Platform | undefined, options: PullOptions): Promise<Digest> {
  const { onProgress, signal } = options
  const wanted = reference.digest ?? reference.tag!
  const resolved = await resolve(client, wanted, platform ?? hostPlatform(), () => onProgress({ status: `Pulling from ${reference.path}`, id: wanted }), signal)
  const id = resolved.manifest.config.digest
  const names = [reference, { domain: reference.domain, path: reference.path, digest: resolved.digest }]
  if (reference.digest !== undefined) names.shift()
  const isNew = store.repositories.get(names[0]!) !== id

  const known = await store.exclusively(async () => {
    if (!store.has(id)) return false
    await store.learnOrigin(id, { manifest: resolved.bytes, index: resolved.index })
    await store.repositories.set(names.map((entry) => [entry, id]))
    return true
  })
  if (!known) await pullLayers(store, fetcher, client, resolved, names, reference, platform, options)
  else checkPlatform(store.image(id)!, platform, reference)
  if (options.memory !== undefined) {
    for (const layer of resolved.manifest.layers) options.memory.rememberSeen(layer.digest, reference.domain, reference.path)
    await options.memory.save()
  }
  onProgress({ status: `Digest: ${resolved.digest}` })
  onProgress({ status: `Status: ${isNew ? 'Downloaded newer image' : 'Image is up to date'} for ${familiarString(reference)}` })
  return id
}

/** Follows an index to the manifest for `platform`. */
async function resolve(client: RegistryClient, wanted: string, platform: Platform, onFound: () => void, signal?: AbortSignal): Promise<Resolved> {
  let fetched: FetchedManifest = await client.manifest(wanted, signal)
  onFound()
  const { digest } = fetched
  const top = fetched.bytes
  let parsed = parseManifest(fetched.bytes, fetched.mediaType)
  const index = parsed.kind === 'index'
  for (let depth = 0; parsed.kind === 'index'; depth++) {
    if (depth > 2) throw new HullError(500, 'image indexes are nested too deeply')
    const chosen = choosePlatform(parsed.manifests, platform)
    if (chosen === undefined) throw notFound(`no matching manifest for ${formatPlatform(platform)} in the manifest list entries`)
    fetched = await client.manifest(chosen.digest, signal)
    parsed = parseManifest(fetched.bytes, chosen.mediaType)
  }
  return { manifest: parsed, bytes: fetched.bytes, digest, ...(index ? { index: top } : {}) }
}

/** What `--platform` asked for and what there is. An image that is for one platform alone is taken as it is when nothing was asked, as Docker does. */
function checkPlatform(image: Pick<ImageDocument, 'os' | 'architecture' | 'variant'>, platform: Platform | undefined, reference: Reference): void {
  if (image.os !== 'linux') throw new HullError(400, `image operating system "${image.os.slice(0, 100)}" cannot be used on this platform`)
  if (platform === undefined) return
  const actual = normalisePlatform(image)
  if (choosePlatform([{ platform: actual }], platform) === undefined) {
    throw notFound(`image with reference ${familiarString(reference)} was found but does not match the specified platform: wanted ${formatPlatform(platform)}, actual: ${formatPlatform(actual)}`)
  }
}

async function pullLayers(store: ImageStore, fetcher: BlobFetcher, client: RegistryClient, { manifest, bytes, index }: Resolved, names: Reference[], reference: Reference, platform: Platform | undefined, options: PullOptions): Promise<void> {
  const config = await client.document(manifest.config.digest, options.signal)
  const document = parseConfig(config)
  checkPlatform(document, platform, reference)
  if (document.diffIds.length !== manifest.layers.length) throw new HullError(500, "layers from manifest don't match image configuration")
  for (const diffId of document.diffIds) store.layers.retain(diffId)
  let committed = false
  try {
    const layers = await fetchAndUnpack(store, fetcher, client, manifest.layers, document.diffIds, options)
    await store.exclusively(() => store.commit(config, layers, names, { manifest: bytes, index }))
    committed = true
  } finally {
    // The image holds them now; after a failure nobody does, and they go.
    await store.exclusively(async () => {
      for (const diffId of document.diffIds) {
        if (committed) store.layers.dropReference(diffId)
        else await store.releaseLayer(diffId)
      }
    })
  }
}

/** Downloads run beside one another, unpacking follows in order behind them. The first failure stops all. */
async function fetchAndUnpack(store: ImageStore, fetcher: BlobFetcher, client: RegistryClient, blobs: Descriptor[], diffIds: Digest[], options: PullOptions): Promise<Layer[]> {
  const { onProgress } = options
  const stop = new AbortController()
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal
  let fail: (error: unknown) => void = () => {}
  const failure = new Promise<never>((_, reject) => (fail = reject))
  failure.catch(() => {})
  options.signal?.addEventListener('abort', () => fail(options.signal!.reason), { once: true })
  const seen = new Set<Digest>()
  const downloads: Promise<unknown>[] = []
  const work = blobs.map((blob, i): (() => Promise<Layer>) => {
    const id = shortOf(blob.digest)
    const present = store.layers.get(diffIds[i]!)
    if (present !== undefined || seen.has(diffIds[i]!)) {
      onProgress(layerMessage(id, 'Already exists'))
      return async () => store.layers.get(diffIds[i]!)!
    }
    seen.add(diffIds[i]!)
    onProgress(layerMessage(id, 'Pulling fs layer'))
    const download = obtain(store, fetcher, client, blob, signal, downloadProgress(id, onProgress))
    download.catch(fail)
    downloads.push(download)
    return async () => register(store, blob, diffIds[i]!, await Promise.race([download, failure]), signal, onProgress)
  })
  try {
    const layers: Layer[] = []
    for (const next of work) layers.push(await next())
    return layers
  } catch (error) {
    stop.abort(error)
    await Promise.allSettled(downloads) // their files are at rest when our caller hears of it
    throw error
  }
}

/** The blob's file: one that is kept from an earlier time, or a download. */
async function obtain(store: ImageStore, fetcher: BlobFetcher, client: RegistryClient, blob: Descriptor, signal: AbortSignal, onProgress: (progress: FetchProgress | 'waiting' | 'done') => void): Promise<{ path: string; kept: boolean }> {
  if (await store.content.has(blob.digest)) return { path: store.content.path(blob.digest), kept: true }
  if (fetcher.busy) onProgress('waiting')
  const path = await fetcher.fetch(client, blob, { signal, onProgress })
  onProgress('done')
  return { path, kept: false }
}

function downloadProgress(id: string, onProgress: (message: ProgressMessage) => void): (progress: FetchProgress | 'waiting' | 'done') => void {
  const throttle = new Throttle()
  return (progress) => {
    if (progress === 'waiting') onProgress(layerMessage(id, 'Waiting'))
    else if (progress === 'done') onProgress(layerMessage(id, 'Download complete'))
    else if (progress.phase === 'verifying') onProgress(layerMessage(id, 'Verifying Checksum'))
    else if (progress.phase === 'retrying') onProgress(layerMessage(id, `Retrying in ${progress.seconds} second${progress.seconds === 1 ? '' : 's'}`))
    else if (throttle.ready()) onProgress(barMessage(id, 'Downloading', progress.current, progress.total))
  }
}

async function register(store: ImageStore, blob: Descriptor, diffId: Digest, { path, kept }: { path: string; kept: boolean }, signal: AbortSignal, onProgress: (message: ProgressMessage) => void): Promise<Layer> {
  const id = shortOf(blob.digest)
  const throttle = new Throttle()
  onProgress(barMessage(id, 'Extracting', 0, blob.size))
  let layer: Layer
  try {
    layer = await store.layers.add(diffId, path, blob, {
      signal, verifyBlob: kept, ...(kept ? {} : { adopt: () => store.content.adopt(path, blob.digest) }),
      onPosition: (bytes) => throttle.ready() && onProgress(barMessage(id, 'Extracting', Math.min(bytes, blob.size), blob.size)),
    })
  } catch (error) {
    // What cannot be unpacked is not kept: the next pull must not stumble over it again. But a blob that was here already may be another image's, and that this one says
    // something wrong of it, or that the disk is full, is not its fault. What cannot be read now is left for later.
    if (!signal.aborted) {
      if (kept) await store.content.removeDamaged(blob.digest, signal).catch(() => {})
      else await store.content.removePartial(blob.digest)
    }
    throw error
  }
  await store.content.removePartial(blob.digest) // there only when the layer came by another blob
  onProgress(layerMessage(id, 'Pull complete'))
  return layer
}

