import { closeSync, readlinkSync } from 'node:fs'
import { realpath, stat } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { z } from 'zod'
import { badRequest, codeOf, HullError, messageOf, notFound } from '../base/errors.js'
import { openFileInRoot, readFileInRoot } from '../host/paths.js'
import { UnpackError, type Layer, type Unpack } from '../storage/types.js'
import { removeTree } from '../host/remove-tree.js'
import { parseConfig } from './config.js'
import { digestOf, hexOf, isDigest, shortOf, type Digest } from './digest.js'
import { documentLimit, firstIssue, layerLimit, mediaTypes, parseManifest, type Descriptor, type Index, type Manifest } from './manifests.js'
import { choosePlatform, formatPlatform, hostPlatform } from './platform.js'
import { barMessage, Throttle } from './progress.js'
import { familiarString, parseReference, withDefaultTag, type Reference } from './references.js'
import type { ImageStore } from './store.js'
import type { ProgressMessage } from './types.js'

/** Members that an archive of images may have; real ones have a few hundred. */
const entryLimit = 100_000

interface LoadOptions {
  onProgress: (message: ProgressMessage) => void
  signal?: AbortSignal
}

const dockerManifest = z.array(z.object({
  Config: z.string().max(4096), RepoTags: z.array(z.string().max(4096)).max(1000).nullish(),
  Layers: z.array(z.string().max(4096)).max(layerLimit, 'max depth exceeded').nullish(),
})).min(1).max(1000)

/** An unpacked archive: a tree that a stranger chose, in a directory that only we can reach. */
class Tree {
  constructor(private readonly root: string) {}

  /** A document; undefined when it is not there. Links end inside of the tree. */
  async read(path: string): Promise<Buffer | undefined> {
    try {
      return await readFileInRoot(this.root, path, documentLimit)
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined
      throw badRequest(`invalid archive: ${path.slice(0, 300)}: ${messageOf(error)}`, error)
    }
  }

  async need(path: string): Promise<Buffer> {
    const bytes = await this.read(path)
    if (bytes === undefined) throw badRequest(`invalid archive: ${path.slice(0, 300)} is missing`)
    return bytes
  }

  /** The real path of a regular file, after links. Nobody writes into the tree any more, so it stays true. */
  async locate(path: string): Promise<{ path: string; size: number }> {
    let fd: number
    try {
      fd = openFileInRoot(this.root, path)
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') throw badRequest(`invalid archive: ${path.slice(0, 300)} is missing`, error)
      throw badRequest(`invalid archive: ${path.slice(0, 300)}: ${messageOf(error)}`, error)
    }
    try {
      const real = readlinkSync(`/proc/self/fd/${fd}`)
      if (!real.startsWith(`${await realpath(this.root)}/`)) throw badRequest(`invalid archive: ${path.slice(0, 300)} is outside of the archive`)
      return { path: real, size: (await stat(real)).size }
    } finally {
      closeSync(fd)
    }
  }

  async blob(digest: Digest): Promise<Buffer> {
    const bytes = await this.need(`blobs/sha256/${hexOf(digest)}`)
    if (digestOf(bytes) !== digest) throw badRequest(`invalid archive: blob ${digest} has another digest`)
    return bytes
  }
}

/** Loads a docker-archive (docker save) or an OCI layout; resolves with the IDs of its images. */
export async function load(store: ImageStore, unpack: Unpack, tar: Readable, options: LoadOptions): Promise<Digest[]> {
  const scratch = await store.content.scratch()
  try {
    try {
      await unpack(tar, scratch, { layer: false, maxEntries: entryLimit, signal: options.signal })
    } catch (error) {
      if (!(error instanceof UnpackError)) throw error
      if (error.code === 'ENOSPC') throw new HullError(500, `failed to load the archive: ${error.message}`, { cause: error })
      throw badRequest(`invalid archive: ${error.message}`, error)
    }
    const tree = new Tree(scratch)
    const docker = await tree.read('manifest.json')
    if (docker !== undefined) return await loadDocker(store, tree, docker, options)
    if ((await tree.read('oci-layout')) === undefined) throw badRequest('invalid archive: it has neither a manifest.json (docker save) nor an oci-layout (OCI image layout)')
    return await loadOci(store, tree, options)
  } finally {
    await removeTree(scratch)
  }
}

/** One layer of an image in the archive. */
interface Part {
  path: string
  /** Undefined: not known from the archive, hashed while unpacking. */
  digest?: Digest
  mediaType: string
}

/** Unpacks what is missing, commits, names, and says so as Docker does. */
async function addImage(store: ImageStore, tree: Tree, config: Buffer, parts: readonly Part[], names: readonly Reference[], manifest: Buffer | undefined, options: LoadOptions): Promise<Digest> {
  const { diffIds, os } = parseConfig(config)
  if (os !== 'linux') throw badRequest(`cannot load ${os.slice(0, 100)} image on linux`)
  if (diffIds.length !== parts.length) throw badRequest(`invalid manifest, layers length mismatch: expected ${diffIds.length}, got ${parts.length}`)
  for (const diffId of diffIds) store.layers.retain(diffId)
  let committed = false
  try {
    const layers: Layer[] = []
    for (const [i, part] of parts.entries()) layers.push(await addLayer(store, tree, diffIds[i]!, part, options))
    const id = await store.exclusively(async () => {
      for (const name of names) {
        const old = store.repositories.get(name)
        if (old === undefined || old === digestOf(config)) continue
        options.onProgress({ stream: `The image ${familiarString(name)} already exists, renaming the old one with ID ${old} to empty string\n` })
      }
      return store.commit(config, layers, names, { manifest })
    })
    committed = true
    if (names.length === 0) options.onProgress({ stream: `Loaded image ID: ${id}\n` })
    for (const name of names) options.onProgress({ stream: `Loaded image: ${familiarString(name)}\n` })
    return id
  } finally {
    await store.exclusively(async () => {
      for (const diffId of diffIds) {
        if (committed) store.layers.dropReference(diffId)
        else await store.releaseLayer(diffId)
      }
    })
  }
}

async function addLayer(store: ImageStore, tree: Tree, diffId: Digest, part: Part, { onProgress, signal }: LoadOptions): Promise<Layer> {
  const present = store.layers.get(diffId)
  if (present !== undefined) return present
  const { path, size } = await tree.locate(part.path)
  const throttle = new Throttle()
  const layer = await store.layers.add(diffId, path, { digest: part.digest ?? '', size, mediaType: part.mediaType }, {
    signal, verifyBlob: true,
    // A link, because two images of one archive may share the file.
    adopt: (digest) => store.content.adoptLink(path, digest as Digest),
    onPosition: (bytes) => throttle.ready() && onProgress(barMessage(shortOf(diffId), 'Loading layer', Math.min(bytes, size), size)),
  })
  onProgress(barMessage(shortOf(diffId), 'Loading layer', size, size))
  return layer
}

/** The form of `docker save` since Docker 1.10 (moby, image/tarexport). */
async function loadDocker(store: ImageStore, tree: Tree, bytes: Buffer, options: LoadOptions): Promise<Digest[]> {
  let json: unknown
  try {
    json = JSON.parse(bytes.toString('utf8'))
  } catch (error) {
    throw badRequest('invalid archive: manifest.json is not valid JSON', error)
  }
  const parsed = dockerManifest.safeParse(json)
  if (!parsed.success) throw badRequest(`invalid archive: manifest.json: ${firstIssue(parsed.error)}`)
  const manifests = await manifestsByConfig(tree)
  const ids: Digest[] = []
  // All names before the first image is added.
  const tags = parsed.data.map(({ RepoTags }) => (RepoTags ?? []).map(parseTag))
  for (const [i, { Config, Layers }] of parsed.data.entries()) {
    const names = tags[i]!
    const config = await tree.need(Config)
    const known = manifests.get(digestOf(config))
    const layers = Layers ?? []
    // Only a manifest of these very files says what they are.
    const fits = known !== undefined && known.manifest.layers.length === layers.length && known.manifest.layers.every((layer, i) => layers[i] === blobPath(layer.digest))
    const parts = layers.map((path, i): Part => (fits ? layerPart(known.manifest.layers[i]!) : { path, mediaType: mediaTypes.dockerLayer }))
    ids.push(await addImage(store, tree, config, parts, names, fits ? known.bytes : undefined, options))
  }
  return ids
}

/** A tag of an archive. Names by a digest come from a registry alone, which was asked for that digest: an archive could call any image so. */
function parseTag(text: string): Reference {
  const reference = withDefaultTag(parseReference(text))
  if (reference.digest !== undefined) throw badRequest(`invalid tag "${text.slice(0, 300)}"`)
  return reference
}

const blobPath = (digest: Digest) => `blobs/sha256/${hexOf(digest)}`
const layerPart = ({ digest, mediaType }: Descriptor): Part => ({ path: blobPath(digest), digest, mediaType })

/** The manifests of an archive that is an OCI layout too (Docker 25 and later, and Hull): with them an image keeps the digest that registries know it by. */
async function manifestsByConfig(tree: Tree): Promise<Map<Digest, { manifest: Manifest; bytes: Buffer }>> {
  const found = new Map<Digest, { manifest: Manifest; bytes: Buffer }>()
  const bytes = await tree.read('index.json')
  if (bytes === undefined) return found
  const index = parseManifest(bytes, mediaTypes.ociIndex)
  if (index.kind !== 'index') throw badRequest('invalid archive: index.json is not an image index')
  for (const entry of index.manifests.slice(0, 1000)) {
    // What else an index may hold (attestations, other platforms) is not for us; the manifest.json has the images.
    const blob = await tree.read(blobPath(entry.digest))
    if (blob === undefined || digestOf(blob) !== entry.digest || !manifestTypes.has(entry.mediaType)) continue
    const manifest = parseManifest(blob, entry.mediaType)
    if (manifest.kind === 'manifest') found.set(manifest.config.digest, { manifest, bytes: blob })
  }
  return found
}

const manifestTypes = new Set<string>([mediaTypes.ociManifest, mediaTypes.dockerManifest])

/** The name that an OCI layout gives an image: containerd's annotation, or ref.name where it is more than a tag. */
function annotatedNames(annotations: Record<string, string>): Reference[] {
  const name = annotations['io.containerd.image.name'] ?? annotations['org.opencontainers.image.ref.name']
  if (name === undefined || !/[:/]/.test(name)) return []
  const reference = withDefaultTag(parseReference(name))
  return reference.digest === undefined ? [reference] : []
}

/** image-spec, image-layout.md. */
async function loadOci(store: ImageStore, tree: Tree, options: LoadOptions): Promise<Digest[]> {
  const index = parseManifest(await tree.need('index.json'), mediaTypes.ociIndex)
  if (index.kind !== 'index') throw badRequest('invalid archive: index.json is not an image index')
  const platform = hostPlatform()
  const ids: Digest[] = []
  for (const entry of index.manifests) {
    if (entry.platform !== undefined && choosePlatform([entry], platform) === undefined) continue
    const found = await followIndex(tree, entry)
    if (found === undefined) continue
    const { manifest, bytes } = found
    const parts = manifest.layers.map(layerPart)
    ids.push(await addImage(store, tree, await tree.blob(manifest.config.digest), parts, annotatedNames(entry.annotations), bytes, options))
  }
  if (ids.length === 0) throw notFound(`no matching manifest for ${formatPlatform(platform)} in the archive`)
  return ids
}

async function followIndex(tree: Tree, entry: Index['manifests'][number]): Promise<{ manifest: Manifest; bytes: Buffer } | undefined> {
  let next: { digest: Digest; mediaType: string } = entry
  for (let depth = 0; depth < 4; depth++) {
    if (!isDigest(next.digest)) return undefined
    const bytes = await tree.blob(next.digest)
    const parsed = parseManifest(bytes, next.mediaType)
    if (parsed.kind === 'manifest') return { manifest: parsed, bytes }
    const chosen = choosePlatform(parsed.manifests, hostPlatform())
    if (chosen === undefined) return undefined
    next = chosen
  }
  throw badRequest('invalid archive: image indexes are nested too deeply')
}
