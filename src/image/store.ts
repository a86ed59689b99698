import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { internal } from '../base/errors.js'
import { writeFileAtomic } from '../base/files.js'
import { log } from '../base/log.js'
import { Slots } from '../base/flights.js'
import type { Layer, LayerStore } from '../storage/types.js'
import { parseConfig, type ImageDocument } from './config.js'
import type { ContentStore } from './content.js'
import { chainIds, digestOf, hexOf, isDigest, type Digest } from './digest.js'
import { familiarName, familiarString, type Reference } from './references.js'
import { Repositories } from './repositories.js'
import type { Image, ImageRoot } from './types.js'

const blobSchema = z.object({ digest: z.string().refine(isDigest), size: z.number(), mediaType: z.string() })
const digestSchema = z.string().refine(isDigest)
const recordSchema = z.object({
  version: z.literal(1), id: digestSchema, manifest: digestSchema.optional(), index: digestSchema.optional(), parent: digestSchema.optional(), key: z.string().optional(),
  layers: z.array(z.object({ diffId: z.string().refine(isDigest), size: z.number(), blob: blobSchema })).min(1),
})
interface Record {
  version: 1
  id: Digest
  /** The manifest by which it came, if any. */
  manifest?: Digest
  /** The multi-architecture index that led to the manifest, if any. */
  index?: Digest
  /** The image that it was built or committed on, here. */
  parent?: Digest
  /** What a step of a build was, for the next build. */
  key?: string
  layers: { diffId: Digest; size: number; blob: Layer['blob'] }[]
}
/** An image's record, for who sends it elsewhere. */
export type StoredParts = Readonly<Record>
/** Where an image comes from. */
export interface Origin {
  /** Manifest and index as the registry or archive had them. */
  manifest?: Uint8Array | undefined
  index?: Uint8Array | undefined
  parent?: Digest | undefined
  key?: string | undefined
}
interface Stored {
  record: Record
  document: ImageDocument
}

/**
 * The images: `images/<hex>.json` says which layers and blobs an image has, its config is the blob named by its ID, and
 * `repositories.json` gives names. `held/` keeps images that were deleted while containers still stood on their layers.
 */
export class ImageStore {
  private readonly images = new Map<Digest, Stored>()
  private readonly held = new Map<Digest, Stored>()
  /** Commits and removals, one at a time: an image that is being deleted cannot be pulled into half existence. */
  private readonly lock = new Slots(1)

  private constructor(
    private readonly root: string,
    readonly content: ContentStore,
    readonly layers: LayerStore,
    readonly repositories: Repositories,
  ) {}

  static async open(dataRoot: string, content: ContentStore, layers: LayerStore): Promise<ImageStore> {
    const root = join(dataRoot, 'image')
    await mkdir(join(root, 'images'), { recursive: true, mode: 0o700 })
    await mkdir(join(root, 'held'), { recursive: true, mode: 0o700 })
    const store = new ImageStore(root, content, layers, await Repositories.open(join(root, 'repositories.json')))
    await store.readAll('images', store.images)
    await store.readAll('held', store.held)
    await store.repositories.settle((id) => store.images.has(id))
    return store
  }

  private async readAll(directory: 'images' | 'held', into: Map<Digest, Stored>): Promise<void> {
    for (const name of await readdir(join(this.root, directory))) {
      const path = join(this.root, directory, name)
      if (!/^[0-9a-f]{64}\.json$/.test(name)) {
        await rm(path, { force: true }) // what an interrupted atomic write left
        continue
      }
      try {
        const record = recordSchema.parse(JSON.parse(await readFile(path, 'utf8'))) as Record
        const bytes = await this.content.read(record.id)
        if (bytes === undefined) throw new Error('its config is gone')
        into.set(record.id, { record, document: parseConfig(bytes) })
        for (const { diffId } of record.layers) this.layers.retain(diffId)
      } catch (error) {
        log.error('image cannot be read: it is left out', { path, error })
      }
    }
  }

  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.lock.run(work)
  }

  has(id: Digest): boolean {
    return this.images.has(id)
  }

  ids(): Digest[] {
    return [...this.images.keys()]
  }

  /** IDs that begin with `prefix`, with or without 'sha256:'. */
  search(prefix: string): Digest[] {
    const digits = prefix.startsWith('sha256:') ? prefix.slice(7) : prefix
    if (!/^[0-9a-f]{1,64}$/.test(digits)) return []
    if (digits.length === 64) return this.images.has(`sha256:${digits}`) ? [`sha256:${digits}`] : []
    return this.ids().filter((id) => hexOf(id).startsWith(digits))
  }

  image(id: Digest): Image | undefined {
    const stored = this.images.get(id)
    if (stored === undefined) return undefined
    const names = this.repositories.of(id)
    return structuredClone({
      id, ...stored.document, ...(stored.record.parent === undefined ? {} : { parent: stored.record.parent }),
      repoTags: names.filter((name) => name.digest === undefined).map(familiarString),
      repoDigests: names.filter((name) => name.digest !== undefined).map((name) => `${familiarName(name)}@${name.digest}`),
      size: stored.record.layers.reduce((sum, layer) => sum + layer.size, 0),
    })
  }

  /** An image's record: its blobs and where it came from. */
  parts(id: Digest): StoredParts | undefined {
    return this.images.get(id)?.record
  }

  /** Bytes of an image's layers that another image has too. */
  sharedSize(id: Digest): number {
    const own = new Map((this.images.get(id)?.record.layers ?? []).map((layer) => [layer.diffId, layer.size]))
    const shared = new Set<Digest>()
    for (const [other, { record }] of this.images) {
      if (other !== id) for (const { diffId } of record.layers) if (own.has(diffId)) shared.add(diffId)
    }
    return [...shared].reduce((sum, diffId) => sum + own.get(diffId)!, 0)
  }

  /** The latest image that a build's step with this key made on `parent`. */
  withKey(parent: Digest | undefined, key: string): Digest | undefined {
    const found = [...this.images.values()].filter(({ record }) => record.key === key && record.parent === parent)
    return found.sort((a, b) => Date.parse(b.document.created) - Date.parse(a.document.created))[0]?.record.id
  }

  /** Images that were built or committed on this one. */
  children(id: Digest): Digest[] {
    return this.ids().filter((other) => this.images.get(other)!.record.parent === id)
  }

  /**
   * Makes an image of unpacked layers and a config. The layers must be there and retained by the caller until this
   * resolves. Idempotent. Call within {@link exclusively}.
   */
  async commit(config: Uint8Array, layers: readonly Layer[], names: readonly Reference[], origin: Origin = {}): Promise<Digest> {
    const document = parseConfig(config)
    const id = digestOf(config)
    if (document.diffIds.length !== layers.length || document.diffIds.some((diffId, i) => layers[i]!.diffId !== diffId)) {
      throw internal("layers from manifest don't match image configuration")
    }
    const entries = names.map((name): [Reference, Digest] => [name, id])
    if (!this.images.has(id)) {
      await this.content.put(config)
      const record: Record = {
        version: 1, id, ...(await this.keepOrigin(origin)),
        layers: layers.map((layer) => ({ diffId: layer.diffId as Digest, size: layer.size, blob: layer.blob })),
      }
      await this.repositories.announce(entries)
      try {
        await writeFileAtomic(this.path('images', id), JSON.stringify(record))
      } catch (error) {
        this.repositories.withdraw(entries)
        throw error
      }
      this.images.set(id, { record, document })
      for (const { diffId } of record.layers) this.layers.retain(diffId)
    } else await this.learnOrigin(id, origin)
    await this.repositories.set(entries)
    return id
  }

  private async keepOrigin({ manifest, index, parent, key }: Origin): Promise<Pick<Record, 'manifest' | 'index' | 'parent' | 'key'>> {
    return {
      ...(manifest === undefined ? {} : { manifest: await this.content.put(manifest) }), ...(index === undefined ? {} : { index: await this.content.put(index) }),
      ...(parent === undefined ? {} : { parent }), ...(key === undefined ? {} : { key }),
    }
  }

  /** An image that is there already came by another way, too: what was not known of it is kept, what was known stays. */
  async learnOrigin(id: Digest, origin: Origin): Promise<void> {
    const { record } = this.images.get(id)!
    const news = { manifest: record.manifest === undefined ? origin.manifest : undefined, index: record.index === undefined ? origin.index : undefined, parent: record.parent === undefined ? origin.parent : undefined }
    if (Object.values(news).every((value) => value === undefined)) return
    Object.assign(record, await this.keepOrigin(news))
    await writeFileAtomic(this.path('images', id), JSON.stringify(record))
  }

  private path(directory: 'images' | 'held', id: Digest): string {
    return join(this.root, directory, `${hexOf(id)}.json`)
  }

  /** Drops an image that no name refers to. With `hold` its layers stay for the containers on it. Returns the chain ids of layers that are gone, top first. */
  async drop(id: Digest, hold: boolean): Promise<Digest[]> {
    const stored = this.images.get(id)
    if (stored === undefined) return []
    if (hold) {
      await rename(this.path('images', id), this.path('held', id))
      this.images.delete(id)
      if (this.held.has(id)) await this.releaseLayers(stored) // held already from an earlier life: counted once
      this.held.set(id, stored)
      return []
    }
    await rm(this.path('images', id), { force: true })
    this.images.delete(id)
    return this.release(stored)
  }

  private async release(stored: Stored): Promise<Digest[]> {
    const { id, manifest, index } = stored.record
    if (!this.images.has(id) && !this.held.has(id)) {
      await this.content.remove(id)
      if (manifest !== undefined) await this.content.remove(manifest)
      // One index leads to the images of several platforms.
      const shared = [...this.images.values(), ...this.held.values()].some((other) => other.record.index === index)
      if (index !== undefined && !shared) await this.content.remove(index)
    }
    return this.releaseLayers(stored)
  }

  private async releaseLayers(stored: Stored): Promise<Digest[]> {
    const gone: Digest[] = []
    const chain = chainIds(stored.document.diffIds)
    for (let i = chain.length - 1; i >= 0; i--) {
      if (await this.releaseLayer(stored.record.layers[i]!.diffId)) gone.push(chain[i]!)
    }
    return gone
  }

  /** One user of a layer less; the last one takes its blob along. */
  async releaseLayer(diffId: Digest): Promise<boolean> {
    const blob = this.layers.get(diffId)?.blob
    // The layer is out of sight before the first pause, its files take longer. The blob goes in the same step: a pull that retains the layer behind us would find the blob
    // and not fetch it, and lose it when its turn comes.
    const releasing = this.layers.release(diffId)
    const removing = blob !== undefined && isDigest(blob.digest) && this.layers.get(diffId) === undefined ? this.content.remove(blob.digest) : undefined
    const [gone] = await Promise.all([releasing, removing])
    return gone
  }

  /** What a new image on top of `id` begins with; also of one that is only held for its containers. */
  async baseOf(id: Digest): Promise<{ document: ImageDocument; layers: Layer[] } | undefined> {
    if ((await this.rootfs(id)) === undefined) return undefined
    const { record, document } = (this.images.get(id) ?? this.held.get(id))!
    return { document: structuredClone(document), layers: record.layers.map(({ diffId }) => this.layers.get(diffId)!) }
  }

  /** The layers of an image, also of one that is only held; those that a host crash took are unpacked again from their blobs. */
  async rootfs(id: Digest): Promise<ImageRoot | undefined> {
    const stored = this.images.get(id) ?? this.held.get(id)
    if (stored === undefined) return undefined
    const layers: string[] = []
    for (const { diffId, blob } of stored.record.layers) {
      const layer = this.layers.get(diffId) ?? (await this.layers.add(diffId, this.content.path(blob.digest as Digest), blob, { verifyBlob: true }))
      layers.push(layer.dir)
    }
    // An image may have a layer several times (the empty one of BuildKit), overlayfs may not: ELOOP. The topmost stays. The lower ones never show: every file, whiteout and
    // opaque directory of theirs is there again on top, whatever lies between, and a plain directory lets the same be seen through it once as twice.
    return { layers: layers.filter((dir, i) => layers.lastIndexOf(dir) === i), chainId: chainIds(stored.document.diffIds).at(-1)! }
  }

  /** Lets go of held images whose chain no container has, then of every layer and blob that nothing refers to. Call within {@link exclusively}. */
  async collectGarbage(inUse: ReadonlySet<string>): Promise<Set<string>> {
    for (const [id, stored] of this.held) {
      if (inUse.has(chainIds(stored.document.diffIds).at(-1)!)) continue
      this.held.delete(id)
      await rm(this.path('held', id), { force: true })
      await this.release(stored)
    }
    await this.layers.collectGarbage()
    const blobs = new Set<string>()
    const chains = new Set<string>(inUse)
    for (const { record, document } of [...this.images.values(), ...this.held.values()]) {
      blobs.add(record.id)
      if (record.manifest !== undefined) blobs.add(record.manifest)
      if (record.index !== undefined) blobs.add(record.index)
      for (const layer of record.layers) blobs.add(layer.blob.digest)
      chains.add(chainIds(document.diffIds).at(-1)!)
    }
    for (const layer of this.layers.all()) blobs.add(layer.blob.digest)
    await this.content.collectGarbage((digest) => blobs.has(digest))
    return chains
  }
}
