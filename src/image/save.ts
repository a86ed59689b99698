import { createReadStream } from 'node:fs'
import { Readable } from 'node:stream'
import { tarEnd, tarHeader, tarPadding } from '../base/tar.js'
import { internal, notFound } from '../base/errors.js'
import { compressionOf } from './compression.js'
import { digestOf, hexOf, type Digest } from './digest.js'
import { mediaTypes, parseManifest, type Descriptor } from './manifests.js'
import { canonicalString, familiarString, isIdPrefix, parseReference, type Reference } from './references.js'
import { resolveImage } from './remove.js'
import type { ImageStore, StoredParts } from './store.js'

interface Chosen {
  id: Digest
  names: Reference[]
}

/** What `docker save` was asked for: an ID gives an image without names, a name without a tag all tags of that repository (moby, image/tarexport/save.go). */
function choose(store: ImageStore, references: readonly string[]): Chosen[] {
  const chosen = new Map<Digest, Map<string, Reference>>()
  const add = (id: Digest, names: readonly Reference[]) => {
    const known = chosen.get(id) ?? new Map<string, Reference>()
    for (const name of names) known.set(canonicalString(name), name)
    chosen.set(id, known)
  }
  for (const text of references) {
    const id = /^(sha256:)?[0-9a-f]{64}$/.test(text) ? resolveImage(store, text) : undefined
    if (id !== undefined) {
      add(id, [])
      continue
    }
    const reference = parseReference(text)
    const isBare = reference.tag === undefined && reference.digest === undefined
    const tags = isBare ? store.repositories.tagsOf(reference) : []
    for (const [name, named] of tags) add(named, [name])
    if (tags.length > 0) continue
    const found = resolveImage(store, text)
    const named = store.repositories.get(reference) === found && reference.digest === undefined
    if (!named && !isIdPrefix(found, text) && reference.digest === undefined) throw notFound(`No such image: ${familiarString(reference)}`)
    add(found, named ? [reference] : [])
  }
  return [...chosen].map(([id, names]) => ({ id, names: [...names.values()].sort((a, b) => (canonicalString(a) < canonicalString(b) ? -1 : 1)) }))
}

/** A manifest of the blobs as they are kept: the very one by which the image came, when its layers are these. */
export async function manifestOf(store: ImageStore, parts: StoredParts): Promise<{ bytes: Buffer; mediaType: string; layers: Descriptor[] }> {
  if (parts.manifest !== undefined) {
    const bytes = await store.content.read(parts.manifest)
    if (bytes === undefined) throw internal(`manifest ${parts.manifest} is gone`)
    const parsed = parseManifest(bytes)
    if (parsed.kind === 'manifest' && parsed.layers.every((layer, i) => layer.digest === parts.layers[i]?.blob.digest)) return { bytes, mediaType: parsed.mediaType, layers: parsed.layers }
  }
  const size = await store.content.size(parts.id)
  const layers: Descriptor[] = []
  for (const { blob } of parts.layers) {
    const digest = blob.digest as Digest
    layers.push({ mediaType: `${mediaTypes.ociLayer}${await compressionOf(store.content.path(digest))}`, digest, size: (await store.content.size(digest)) ?? blob.size })
  }
  const config = { mediaType: mediaTypes.ociConfig, digest: parts.id, size }
  return { bytes: Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers })), mediaType: mediaTypes.ociManifest, layers }
}

/**
 * A tar that is a docker-archive and an OCI image layout in one, as Docker 25 and later write it: `docker load`, skopeo and Hull read it by
 * either. Layers go out byte for byte as they are kept (in the form in which they came), so an image that was pulled keeps its
 * manifest, and the same images always give the same archive. Everything that can be refused is refused before this resolves.
 */
export async function save(store: ImageStore, references: readonly string[], signal?: AbortSignal): Promise<Readable> {
  const chosen = choose(store, references)
  const held: Digest[] = []
  const documents = new Map<string, Buffer>()
  const blobs = new Map<Digest, number>()
  const release = () => store.exclusively(async () => {
    for (const diffId of held.splice(0)) await store.releaseLayer(diffId)
  })
  try {
    const manifests: object[] = []
    const index: object[] = []
    for (const { id, names } of chosen) {
      const parts = store.parts(id)
      if (parts === undefined) throw notFound(`No such image: ${id}`)
      for (const { diffId } of parts.layers) {
        store.layers.retain(diffId) // `rmi` while we write must not take the blobs away
        held.push(diffId)
      }
      const config = await store.content.read(id)
      if (config === undefined) throw internal(`the config of image ${id} is gone`)
      const { bytes, mediaType, layers } = await manifestOf(store, parts)
      for (const layer of layers) {
        const size = await store.content.size(layer.digest)
        if (size === undefined) throw internal(`blob ${layer.digest} of image ${id} is gone`)
        blobs.set(layer.digest, size)
      }
      const digest = digestOf(bytes)
      documents.set(`blobs/sha256/${hexOf(id)}`, config)
      documents.set(`blobs/sha256/${hexOf(digest)}`, bytes)
      const platform = store.image(id)!
      const descriptor = {
        mediaType, digest, size: bytes.length, platform: { architecture: platform.architecture, os: platform.os, ...(platform.variant ? { variant: platform.variant } : {}) },
      }
      if (names.length === 0) index.push(descriptor)
      for (const name of names) {
        index.push({ ...descriptor, annotations: { 'io.containerd.image.name': canonicalString(name), 'org.opencontainers.image.ref.name': name.tag } })
      }
      manifests.push({ Config: `blobs/sha256/${hexOf(id)}`, RepoTags: names.length > 0 ? names.map(familiarString) : null, Layers: layers.map((layer) => `blobs/sha256/${hexOf(layer.digest)}`) })
    }
    documents.set('index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: index })))
    documents.set('manifest.json', Buffer.from(JSON.stringify(manifests)))
    documents.set('oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}'))
  } catch (error) {
    await release()
    throw error
  }
  const stream = Readable.from(write(store, documents, blobs, signal), { objectMode: false })
  // Also when nobody ever reads: an unread generator's `finally` does not run.
  stream.once('close', () => void release())
  return stream
}

async function* write(store: ImageStore, documents: ReadonlyMap<string, Buffer>, blobs: ReadonlyMap<Digest, number>, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
  const plain = { uid: 0, gid: 0, mtime: 0 }
  for (const name of ['blobs/', 'blobs/sha256/']) yield tarHeader({ ...plain, name, type: 'dir', mode: 0o755 })
  for (const [digest, size] of [...blobs].sort(([a], [b]) => (a < b ? -1 : 1))) {
    yield tarHeader({ ...plain, name: `blobs/sha256/${hexOf(digest)}`, type: 'file', mode: 0o644, size })
    let sent = 0
    for await (const chunk of createReadStream(store.content.path(digest), { highWaterMark: 1 << 20, ...(signal ? { signal } : {}) }) as AsyncIterable<Buffer>) {
      sent += chunk.length
      if (sent > size) break
      yield chunk
    }
    if (sent !== size) throw internal(`blob ${digest} changed while it was read`)
    yield tarPadding(size)
  }
  for (const [name, bytes] of [...documents].sort(([a], [b]) => (a < b ? -1 : 1))) {
    yield tarHeader({ ...plain, name, type: 'file', mode: 0o644, size: bytes.length })
    yield bytes
    yield tarPadding(bytes.length)
  }
  yield tarEnd()
}
