import type { Readable } from 'node:stream'

/** OCI image-spec config, the fields that Docker shows and uses. Everything in it is hostile input, validated on the way in. */
export interface ImageConfig {
  User?: string
  ExposedPorts?: Record<string, object>
  Env?: string[]
  Entrypoint?: string[]
  Cmd?: string[]
  Volumes?: Record<string, object>
  WorkingDir?: string
  Labels?: Record<string, string>
  StopSignal?: string
  Shell?: string[]
  Healthcheck?: { Test?: string[]; Interval?: number; Timeout?: number; StartPeriod?: number; StartInterval?: number; Retries?: number }
  OnBuild?: string[]
}

/** A stored image. */
export interface Image {
  /** 'sha256:…' digest of the config blob: Docker's image ID. */
  id: string
  architecture: string
  os: string
  variant?: string
  created: string
  author?: string
  config: ImageConfig
  /** Uncompressed layer digests, lowest first (OCI rootfs.diff_ids). */
  diffIds: string[]
  /** The image that it was built or committed on, here. */
  parent?: string
  history: { created?: string; created_by?: string; comment?: string; empty_layer?: boolean }[]
  /** 'busybox:latest', familiar form. */
  repoTags: string[]
  /** 'busybox@sha256:…', familiar form. */
  repoDigests: string[]
  /** Bytes on disk of all layers, unpacked. */
  size: number
}

/** Docker's JSON message on pull, load and import streams (moby pkg/jsonmessage). */
export interface ProgressMessage {
  status?: string
  id?: string
  progressDetail?: { current?: number; total?: number }
  progress?: string
  stream?: string
  error?: string
  errorDetail?: { message: string; code?: number }
  aux?: unknown
}

/** Credentials, from the X-Registry-Auth header. */
export interface RegistryAuth {
  username?: string
  password?: string
  identitytoken?: string
  registrytoken?: string
}

/** GET /distribution/{name}/json. */
export interface DistributionInfo {
  descriptor: { mediaType: string; digest: string; size: number }
  platforms: { architecture: string; os: string; variant?: string }[]
}

/** A row of `docker search`. */
export interface SearchResult {
  name: string
  description: string
  starCount: number
  isOfficial: boolean
  isAutomated: boolean
}

/** A root file system for a container. */
export interface ImageRoot {
  /** Absolute directories, lowest first. */
  layers: string[]
  /** OCI ChainID of the top layer. */
  chainId: string
}

/** What `docker commit` makes of a container's writable layer. */
export interface CommitOptions {
  /** ID of the image that the container was made from. */
  parent: string
  config: ImageConfig
  author: string
  comment: string
  /** The command that made the changes, for `docker history`. */
  createdBy: string
  /** '': the image gets no name. */
  repo: string
  tag: string
}

/** One step of a build. */
export interface DeriveOptions {
  /** ID of the image below; '' for none. */
  parent: string
  config: ImageConfig
  createdBy: string
  author?: string
  comment?: string
  /** '' or undefined: the image gets no name. */
  repo?: string
  tag?: string
  /** An OCI layer's tar. */
  layer?: Readable
  /** Lines of history that come before this one. */
  history?: Image['history']
  /** For images on nothing: 'linux/arm64'. */
  platform?: string
  /** By which {@link ImageService.cached} finds the image again. */
  key?: string
  signal?: AbortSignal
}

/** Everything the engine does with images. Errors are HullErrors in Docker's words. */
export interface ImageService {
  /** By name ('busybox', 'repo:tag', 'repo@sha256:…'), by ID or by unambiguous ID prefix. 404 'No such image: …'. */
  get(reference: string): Promise<Image>
  list(): Promise<Image[]>
  tag(reference: string, repo: string, tag: string): Promise<void>
  /** Untags, and deletes when nothing refers to it. 409 when `usedBy` names containers and not `force`. Returns Docker's rows. */
  remove(reference: string, options: { force: boolean; noprune: boolean; usedBy: (imageId: string) => { id: string; running: boolean }[] }): Promise<({ Untagged: string } | { Deleted: string })[]>
  /** Docker's progress goes to `onProgress`; rejects with 404 'pull access denied …' / 'manifest for … not found', 401, 500. */
  pull(reference: string, options: { platform?: string; auth?: RegistryAuth; onProgress: (m: ProgressMessage) => void; signal?: AbortSignal }): Promise<Image>
  /** Every tag of a repository, one after the other. */
  pullAll(repository: string, options: { platform?: string; auth?: RegistryAuth; onProgress: (m: ProgressMessage) => void; signal?: AbortSignal }): Promise<{ name: string; image: Image }[]>
  /** `tag` '' with a bare name: every tag. Resolves with what was sent. */
  push(name: string, options: { tag: string; auth?: RegistryAuth; onProgress: (m: ProgressMessage) => void; signal?: AbortSignal }): Promise<{ name: string; id: string }[]>
  /** A tar that is a docker-archive and an OCI layout; 404 before it begins. Destroy it when it is not read to its end. */
  save(references: string[], signal?: AbortSignal): Promise<Readable>
  /** What a registry has under a name, without pulling it. */
  distribution(reference: string, auth?: RegistryAuth, signal?: AbortSignal): Promise<DistributionInfo>
  /** Asks a registry whether it knows us; the identity token, '' for none. 401. */
  login(serverAddress: string, auth: RegistryAuth, signal?: AbortSignal): Promise<string>
  /** The index protocol v1 of Docker Hub. 404 and 500 where a registry has none. */
  search(term: string, options: { limit: number; auth?: RegistryAuth; signal?: AbortSignal }): Promise<SearchResult[]>
  /** Bytes on disk of all layers, each counted once. */
  layersSize(): number
  /** Bytes of an image's layers that other images have too. */
  sharedSize(imageId: string): number
  /** Images that were built or committed on this one. */
  children(imageId: string): string[]
  /** docker-archive and OCI layout tars, plain, gzip or zstd. */
  load(tar: Readable, options: { onProgress: (m: ProgressMessage) => void; signal?: AbortSignal }): Promise<Image[]>
  /** A root file system tar as a one-layer image. `changes` are Dockerfile lines (CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL). */
  import(tar: Readable, options: { repo?: string; tag?: string; message?: string; changes: string[]; platform?: string }): Promise<Image>
  /** A container's changes (an OCI layer tar) on top of its image. */
  commit(layer: Readable, options: CommitOptions): Promise<Image>
  /** A step of a build. */
  derive(options: DeriveOptions): Promise<Image>
  /** What an earlier build made of the same parent ('' for none) by a step with the same key. */
  cached(parent: string, key: string): Image | undefined
  /** Unpacks a tar of a stranger's, modes and owners and all, to a directory that only root can enter. 400 when it is no archive. */
  unpackTree(tar: Readable, signal?: AbortSignal): Promise<{ root: string; release(): Promise<void> }>
  /** Directories for overlayfs. Kept as long as the image or `hold`er exists. */
  rootfs(imageId: string): Promise<ImageRoot>
  /** Removes what no image refers to: interrupted unpacks, orphan layers and EROFS files. Called at start. `inUse`: chain ids of containers. */
  collectGarbage(inUse: ReadonlySet<string>): Promise<void>
}
