import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { join } from 'node:path'
import { PassThrough, type Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { badRequest, HullError, internal, notFound } from '../base/errors.js'
import { Slots } from '../base/flights.js'
import { removeTree } from '../host/remove-tree.js'
import { compressionOf } from './compression.js'
import { digestOf, shortOf, type Digest } from './digest.js'
import { mediaTypes, parseManifest, type Descriptor, type Manifest } from './manifests.js'
import { barMessage, layerMessage, Throttle } from './progress.js'
import type { PushMemory } from './push-memory.js'
import { canonicalName, familiarName, familiarString, parseReference, taggedReference, type Reference } from './references.js'
import { RegistryClient } from './registry/client.js'
import { translatePushError } from './registry/errors.js'
import type { Transport } from './registry/http.js'
import type { ImageStore, StoredParts } from './store.js'
import type { ProgressMessage, RegistryAuth } from './types.js'

/** Uploads at a time (Docker's max-concurrent-uploads). */
const concurrency = 5

export interface PushOptions {
  /** '' with a bare name: every tag of the repository. */
  tag: string
  auth?: RegistryAuth
  onProgress: (message: ProgressMessage) => void
  signal?: AbortSignal
  transport: Transport
  memory: PushMemory
}

interface Context extends PushOptions {
  store: ImageStore
  client: RegistryClient
  repository: Reference
  slots: Slots
  /** Blobs that are in the repository by now: several tags share them. */
  settled: Map<Digest, Promise<void>>
}

/** Sends tags of a repository to its registry; resolves with the names that were sent. Errors are Docker's (moby, distribution/push_v2.go). */
export async function push(store: ImageStore, name: string, options: PushOptions): Promise<{ name: string; id: Digest }[]> {
  const written = parseReference(name)
  if (written.digest !== undefined) throw badRequest('cannot push a digest reference')
  const repository = { domain: written.domain, path: written.path }
  const tags = options.tag === '' && written.tag === undefined ? store.repositories.tagsOf(repository) : [named(store, taggedReference(canonicalName(repository), options.tag || written.tag!))]
  if (tags.length === 0) throw notFound(`An image does not exist locally with the tag: ${familiarName(repository)}`)
  options.onProgress({ status: `The push refers to repository [${canonicalName(repository)}]` })
  const sources = new Set<string>()
  for (const [, id] of tags) for (const { diffId, blob } of store.parts(id)?.layers ?? []) {
    const digest = options.memory.compressedOf(diffId)?.digest ?? (blob.digest as Digest)
    for (const path of options.memory.repositoriesWith(digest, repository.domain, repository.path).slice(0, 1)) sources.add(path)
  }
  const client = new RegistryClient(repository, options.auth, { transport: options.transport, push: true, mountFrom: [...sources].slice(0, 10) })
  const context: Context = { ...options, store, client, repository, slots: new Slots(concurrency), settled: new Map() }
  const pushed: { name: string; id: Digest }[] = []
  try {
    for (const [reference, id] of tags) {
      await pushTag(context, reference, id)
      pushed.push({ name: familiarString(reference), id })
    }
    return pushed
  } catch (error) {
    options.signal?.throwIfAborted()
    throw translatePushError(error)
  } finally {
    await options.memory.save()
  }
}

function named(store: ImageStore, reference: Reference): [Reference, Digest] {
  const id = store.repositories.get(reference)
  if (id === undefined) throw notFound(`An image does not exist locally with the tag: ${familiarName(reference)}`)
  return [reference, id]
}

async function pushTag(context: Context, reference: Reference, id: Digest): Promise<void> {
  const { store, client, onProgress, signal } = context
  const parts = store.parts(id)
  if (parts === undefined) throw notFound(`No such image: ${id}`)
  for (const { diffId } of parts.layers) store.layers.retain(diffId) // `rmi` meanwhile does not take the blobs away
  try {
    const { bytes, mediaType } = await pushManifestParts(context, parts)
    const config = await store.content.read(id)
    if (config === undefined) throw internal(`the config of image ${id} is gone`)
    await settle(context, id, async () => {
      if (await client.hasBlob(id, signal)) return
      await client.upload((await client.beginUpload(undefined, signal)) as URL, { digest: id, size: config.length, open: () => whole(config) }, signal)
    })
    const top = (await pushIndex(context, parts, bytes, mediaType)) ?? bytes
    const digest = digestOf(top)
    await client.putManifest(reference.tag!, top, mediaTypeOf(top, mediaType), signal)
    await store.exclusively(async () => {
      if (store.has(id)) await store.repositories.set([[{ domain: reference.domain, path: reference.path, digest }, id]])
    })
    onProgress({ status: `${reference.tag}: digest: ${digest} size: ${top.length}` })
    onProgress({ progressDetail: {}, aux: { Tag: reference.tag, Digest: digest, Size: top.length } })
  } finally {
    await store.exclusively(async () => {
      for (const { diffId } of parts.layers) await store.releaseLayer(diffId)
    })
  }
}

function whole(bytes: Buffer): Readable {
  const stream = new PassThrough()
  stream.end(bytes)
  return stream
}

const mediaTypeOf = (bytes: Buffer, fallback: string) => parseManifest(bytes, fallback).mediaType

/** Each blob of a repository once, however many tags have it. */
function settle(context: Context, digest: Digest, work: () => Promise<void>): Promise<void> {
  let settled = context.settled.get(digest)
  if (settled === undefined) {
    settled = work()
    settled.catch(() => context.settled.delete(digest))
    context.settled.set(digest, settled)
  }
  return settled
}

/** Layers to the registry. Resolves with the manifest that names them: the one by which the image came, as long as its blobs can be had. */
async function pushManifestParts(context: Context, parts: StoredParts): Promise<{ bytes: Buffer; mediaType: string }> {
  const { onProgress } = context
  const kept = await keptManifest(context, parts)
  const stop = new AbortController()
  const signal = context.signal ? AbortSignal.any([context.signal, stop.signal]) : stop.signal
  const seen = new Set<string>()
  const work = [...parts.layers.entries()].reverse().map(async ([i, { diffId, blob }]): Promise<[number, Descriptor]> => {
    const first = !seen.has(diffId)
    seen.add(diffId)
    if (first) onProgress(layerMessage(shortOf(diffId), 'Preparing'))
    return context.slots.run(async () => [i, await pushLayer(context, diffId, kept?.layers[i] ?? blob, kept !== undefined, signal, first)], signal)
  })
  let layers: Descriptor[]
  try {
    layers = (await Promise.all(work)).sort(([a], [b]) => a - b).map(([, descriptor]) => descriptor)
  } catch (error) {
    stop.abort(error)
    await Promise.allSettled(work)
    throw error
  }
  if (kept !== undefined) return kept
  const config = { mediaType: mediaTypes.dockerConfig, size: (await context.store.content.size(parts.id)) ?? 0, digest: parts.id }
  return { bytes: Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.dockerManifest, config, layers })), mediaType: mediaTypes.dockerManifest }
}

async function keptManifest({ store, client, signal }: Context, parts: StoredParts): Promise<(Manifest & { bytes: Buffer }) | undefined> {
  const bytes = parts.manifest === undefined ? undefined : await store.content.read(parts.manifest)
  if (bytes === undefined) return undefined
  const parsed = parseManifest(bytes)
  if (parsed.kind !== 'manifest' || parsed.layers.length !== parts.layers.length) return undefined
  for (const { digest } of parsed.layers) {
    // The layer may be here from another image, in another compression.
    if (!(await store.content.has(digest)) && !(await client.hasBlob(digest, signal))) return undefined
  }
  return { ...parsed, bytes }
}

/** One layer to the registry; resolves with the blob that it is there. `fixed`: by the manifest that is pushed, else in whatever form is best. */
async function pushLayer(context: Context, diffId: Digest, blob: { digest: string; mediaType: string; size: number }, fixed: boolean, signal: AbortSignal, tell: boolean): Promise<Descriptor> {
  const { store, memory } = context
  const digest = blob.digest as Digest
  const path = store.content.path(digest)
  if (fixed) {
    const descriptor = { mediaType: blob.mediaType, digest, size: blob.size }
    await settle(context, digest, () => send(context, diffId, { ...descriptor, path }, signal, tell))
    return descriptor
  }
  const compression = await compressionOf(path)
  if (compression !== '') {
    const descriptor = { mediaType: `${mediaTypes.dockerLayer}.${compression.slice(1)}`, digest, size: (await store.content.size(digest)) ?? blob.size }
    await settle(context, digest, () => send(context, diffId, { ...descriptor, path }, signal, tell))
    return descriptor
  }
  // Kept as a plain tar: without compression it would be two or three times as long on the way.
  const mediaType = `${mediaTypes.dockerLayer}.gzip`
  const known = memory.compressedOf(diffId)
  if (known !== undefined && (await context.client.hasBlob(known.digest, signal))) {
    await settle(context, known.digest, async () => {
      if (tell) context.onProgress(layerMessage(shortOf(diffId), 'Layer already exists'))
      memory.rememberSeen(known.digest, context.repository.domain, context.repository.path)
    })
    return { mediaType, ...known }
  }
  const scratch = await store.content.scratch()
  try {
    const made = await compress(path, join(scratch, 'layer'), signal)
    memory.rememberCompressed(diffId, made)
    await settle(context, made.digest, () => send(context, diffId, { ...made, mediaType, path: join(scratch, 'layer') }, signal, tell))
    return { mediaType, ...made }
  } finally {
    await removeTree(scratch)
  }
}

/** gzip, the same bytes each time: no name and no time in the header (zlib's default is 0). */
async function compress(from: string, to: string, signal: AbortSignal): Promise<{ digest: Digest; size: number }> {
  const hash = createHash('sha256')
  let size = 0
  const count = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk)
      size += chunk.length
      done(null, chunk)
    },
  })
  try {
    await pipeline(createReadStream(from, { highWaterMark: 1 << 20 }), createGzip(), count, createWriteStream(to, { flags: 'wx', mode: 0o600 }), { signal })
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOSPC') throw new HullError(500, 'failed to compress the layer: no space left on device', { cause: error })
    throw error
  }
  return { digest: `sha256:${hash.digest('hex')}`, size }
}

/** Makes sure that the repository has a blob: it has it, mounts it from another repository, or is sent it. */
async function send(context: Context, diffId: Digest, blob: Descriptor & { path: string }, signal: AbortSignal, tell: boolean): Promise<void> {
  const { client, memory, repository } = context
  const id = shortOf(diffId)
  const say = (message: ProgressMessage) => tell && context.onProgress(message)
  const done = (status: string) => {
    memory.rememberSeen(blob.digest, repository.domain, repository.path)
    say(layerMessage(id, status))
  }
  if (await client.hasBlob(blob.digest, signal)) return done('Layer already exists')
  const [from] = memory.repositoriesWith(blob.digest, repository.domain, repository.path)
  const begun = await client.beginUpload(from === undefined ? undefined : { digest: blob.digest, from }, signal)
  if (begun === 'mounted') return done(`Mounted from ${from}`)
  const throttle = new Throttle()
  let sent = 0
  const open = () => {
    sent = 0
    const counter = new Transform({
      transform(chunk: Buffer, _encoding, next) {
        sent += chunk.length
        if (throttle.ready()) say(barMessage(id, 'Pushing', sent, blob.size))
        next(null, chunk)
      },
    })
    const file = createReadStream(blob.path, { highWaterMark: 1 << 18 })
    file.on('error', (error) => counter.destroy(error))
    counter.on('close', () => file.destroy())
    return file.pipe(counter)
  }
  say(barMessage(id, 'Pushing', 0, blob.size))
  await client.upload(begun, { digest: blob.digest, size: blob.size, open }, signal)
  done('Pushed')
}

/**
 * The multi-architecture index by which the image came goes along when all that it names is in the repository already, or ours: then the
 * name keeps its digest. Else undefined, and said so as Docker's containerd image store does: the image of this platform alone is pushed.
 */
async function pushIndex(context: Context, parts: StoredParts, manifest: Buffer, mediaType: string): Promise<Buffer | undefined> {
  const { store, client, onProgress, signal } = context
  const bytes = parts.index === undefined ? undefined : await store.content.read(parts.index)
  if (bytes === undefined) return undefined
  const index = parseManifest(bytes)
  const own = digestOf(manifest)
  if (index.kind !== 'index' || !index.manifests.some((entry) => entry.digest === own)) return undefined
  await client.putManifest(own, manifest, mediaType, signal)
  for (const entry of index.manifests) {
    if (entry.digest === own || (await client.hasManifest(entry.digest, signal))) continue
    const described = (document: Buffer, type: string) => ({ mediaType: type, digest: digestOf(document), size: document.length })
    onProgress({ aux: { manifestPushedInsteadOfIndex: true, originalIndex: described(bytes, index.mediaType), selectedManifest: described(manifest, mediaType) } })
    return undefined
  }
  return bytes
}
