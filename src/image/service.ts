import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { badRequest, HullError, notFound } from '../base/errors.js'
import { removeTree } from '../host/remove-tree.js'
import { UnpackError, type ErofsStore, type LayerStore, type Unpack } from '../storage/types.js'
import { ContentStore } from './content.js'
import type { Digest } from './digest.js'
import { BlobFetcher, type FetcherOptions } from './fetch.js'
import { importTar } from './import.js'
import { load } from './load.js'
import { derive } from './derive.js'
import { distribution } from './distribution.js'
import { pull, pullAll, type PullOptions } from './pull.js'
import { push, type PushOptions } from './push.js'
import { PushMemory } from './push-memory.js'
import { taggedReference } from './references.js'
import { removeImage, resolveImage, type Row, type User } from './remove.js'
import { Transport } from './registry/http.js'
import { login } from './registry/login.js'
import { search } from './registry/search.js'
import type { RegistrySettings } from './registry/settings.js'
import { save } from './save.js'
import { ImageStore } from './store.js'
import type { CommitOptions, DeriveOptions, DistributionInfo, Image, ImageRoot, ImageService, ProgressMessage, RegistryAuth, SearchResult } from './types.js'

export interface ImageServiceOptions {
  /** Where images and blobs are kept: dataRoot/image. */
  dataRoot: string
  /** From openStorage() of the same data root. */
  storage: { layers: LayerStore; erofs: ErofsStore; unpack: Unpack }
  fetcher?: FetcherOptions
  registries?: RegistrySettings
}

class DiskImageService implements ImageService {
  constructor(
    private readonly store: ImageStore,
    private readonly fetcher: BlobFetcher,
    private readonly storage: ImageServiceOptions['storage'],
    private readonly memory: PushMemory,
    private readonly registries: RegistrySettings | undefined,
  ) {}

  /** One for each piece of work: certificates are read anew. */
  private get transport(): Transport {
    return new Transport(this.registries)
  }

  async get(reference: string): Promise<Image> {
    return this.image(resolveImage(this.store, reference))
  }

  private image(id: Digest): Image {
    const image = this.store.image(id)
    if (image === undefined) throw notFound(`No such image: ${id}`)
    return image
  }

  async list(): Promise<Image[]> {
    const images = this.store.ids().map((id) => this.image(id))
    return images.sort((a, b) => Date.parse(b.created) - Date.parse(a.created))
  }

  tag(reference: string, repo: string, tag: string): Promise<void> {
    const name = taggedReference(repo, tag)
    return this.store.exclusively(() => this.store.repositories.set([[name, resolveImage(this.store, reference)]]))
  }

  remove(reference: string, options: { force: boolean; noprune: boolean; usedBy: (imageId: string) => User[] }): Promise<Row[]> {
    return removeImage(this.store, reference, options)
  }

  async pull(reference: string, options: PullOptions): Promise<Image> {
    return this.image(await pull(this.store, this.fetcher, reference, { ...options, transport: this.transport, memory: this.memory }))
  }

  async pullAll(repository: string, options: PullOptions): Promise<{ name: string; image: Image }[]> {
    const pulled = await pullAll(this.store, this.fetcher, repository, { ...options, transport: this.transport, memory: this.memory })
    return pulled.map(({ name, id }) => ({ name, image: this.image(id) }))
  }

  push(name: string, options: Omit<PushOptions, 'transport' | 'memory'>): Promise<{ name: string; id: string }[]> {
    return push(this.store, name, { ...options, transport: this.transport, memory: this.memory })
  }

  save(references: string[], signal?: AbortSignal): Promise<Readable> {
    return save(this.store, references, signal)
  }

  distribution(reference: string, auth?: RegistryAuth, signal?: AbortSignal): Promise<DistributionInfo> {
    return distribution(this.transport, reference, auth, signal)
  }

  login(serverAddress: string, auth: RegistryAuth, signal?: AbortSignal): Promise<string> {
    return login(this.transport, serverAddress, auth, signal)
  }

  search(term: string, options: { limit: number; auth?: RegistryAuth; signal?: AbortSignal }): Promise<SearchResult[]> {
    return search(this.transport, term, options)
  }

  layersSize(): number {
    return this.storage.layers.all().reduce((sum, layer) => sum + layer.size, 0)
  }

  sharedSize(imageId: string): number {
    return this.store.sharedSize(imageId as Digest)
  }

  children(imageId: string): string[] {
    return this.store.children(imageId as Digest)
  }

  async load(tar: Readable, options: { onProgress: (message: ProgressMessage) => void; signal?: AbortSignal }): Promise<Image[]> {
    return (await load(this.store, this.storage.unpack, tar, options)).map((id) => this.image(id))
  }

  async import(tar: Readable, options: { repo?: string; tag?: string; message?: string; changes: string[]; platform?: string }): Promise<Image> {
    return this.image(await importTar(this.store, tar, options))
  }

  async commit(layer: Readable, options: CommitOptions): Promise<Image> {
    return this.image(await derive(this.store, { ...options, layer }))
  }

  async derive(options: DeriveOptions): Promise<Image> {
    return this.image(await derive(this.store, options))
  }

  cached(parent: string, key: string): Image | undefined {
    const id = this.store.withKey(parent === '' ? undefined : (parent as Digest), key)
    return id === undefined ? undefined : this.store.image(id)
  }

  async unpackTree(tar: Readable, signal?: AbortSignal): Promise<{ root: string; release(): Promise<void> }> {
    const scratch = await this.store.content.scratch()
    const root = join(scratch, 'tree')
    try {
      await mkdir(root, { mode: 0o755 })
      await this.storage.unpack(tar, root, { layer: true, signal })
    } catch (error) {
      await removeTree(scratch)
      if (!(error instanceof UnpackError)) throw error
      throw error.code === 'ENOSPC' ? new HullError(500, `failed to unpack the archive: ${error.message}`, { cause: error }) : badRequest(`invalid archive: ${error.message}`, error)
    }
    return { root, release: () => removeTree(scratch) }
  }

  async rootfs(imageId: string): Promise<ImageRoot> {
    const root = await this.store.rootfs(imageId as Digest)
    if (root === undefined) throw notFound(`No such image: ${imageId}`)
    return root
  }

  collectGarbage(inUse: ReadonlySet<string>): Promise<void> {
    return this.store.exclusively(async () => {
      const chains = await this.store.collectGarbage(inUse)
      await this.storage.erofs.collectGarbage(chains)
    })
  }
}

/** Opens the image store below `dataRoot`; what an interrupted daemon left half-done is removed first. One process at a time. */
export async function openImageService(options: ImageServiceOptions): Promise<ImageService> {
  const content = await ContentStore.open(options.dataRoot)
  await content.removeInterrupted()
  const store = await ImageStore.open(options.dataRoot, content, options.storage.layers)
  return new DiskImageService(store, new BlobFetcher(content, options.fetcher), options.storage, await PushMemory.open(options.dataRoot), options.registries)
}
