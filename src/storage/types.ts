import type { Readable } from 'node:stream'

/** The compressed form that a layer came in. */
export interface LayerBlob {
  digest: string
  /** bytes */
  size: number
  mediaType: string
}

/** An unpacked, immutable layer. */
export interface Layer {
  /** 'sha256:…' of the uncompressed tar. */
  diffId: string
  /** The directory for overlayfs, absolute. */
  dir: string
  /** Name of a symbolic link to `dir`: keeps mount options short. */
  short: string
  /** Bytes of all its regular files. */
  size: number
  blob: LayerBlob
}

export interface AddOptions {
  signal?: AbortSignal | undefined
  /** Bytes of the blob read so far. */
  onPosition?: ((bytes: number) => void) | undefined
  /** The blob's own digest is checked too: for bytes that lay on the disk since an earlier time. */
  verifyBlob?: boolean
  /** Makes the blob, verified now, permanent under `digest`: just before the layer itself appears. Not called when the layer is there already. */
  adopt?: ((digest: string) => Promise<void>) | undefined
}

/** Unpacked layers, keyed by diff id, with a count of their users. */
export interface LayerStore {
  get(diffId: string): Layer | undefined
  all(): Layer[]
  /** One more user of a layer, which need not be there yet. As long as there is one, {@link release} of another does not remove it. */
  retain(diffId: string): void
  /** One user less; true when that was the last, and the layer is gone. */
  release(diffId: string): Promise<boolean>
  /** One user less, where another is known to remain. */
  dropReference(diffId: string): void
  /**
   * Unpacks the blob at `path` as the layer `diffId`, once however many ask at the same time. The stream's digest must be
   * `diffId` (and the blob's `blob.digest`, with `verifyBlob`); an empty `blob.digest` is filled in. On failure nothing is
   * left. HullError 'failed to register layer: …': 400 when the archive is bad, 500 when the disk is full.
   */
  add(diffId: string, path: string, blob: LayerBlob, options?: AddOptions): Promise<Layer>
  /** Unpacks a blob of which nothing is known yet, and files it under what its digest turns out to be. The caller {@link release}s it. */
  addUnknown(path: string, mediaType: string, size: number, options?: Pick<AddOptions, 'signal' | 'adopt'>): Promise<Layer>
  /** Removes layers without a user. */
  collectGarbage(): Promise<void>
  /** Resolves when everything is on the disk. */
  settled(): Promise<void>
}

export interface UnpackOptions {
  /** An OCI layer with owners, devices, xattrs and whiteouts in overlayfs' form; else a scratch tree: files 0600, directories 0700, links. */
  layer: boolean
  /** Also hash the input as it came. */
  blobDigest?: boolean
  /** Entries of the archive (default 4 194 304). */
  maxEntries?: number
  /** Bytes of the decompressed stream, and of all files' lengths together (default 256 GiB). */
  maxBytes?: number
  signal?: AbortSignal | undefined
  /** Bytes of the input read so far, about ten times a second. Only for an input by descriptor. */
  onPosition?: ((bytes: number) => void) | undefined
  /** The helper program; for tests. */
  binary?: string
}

/** Bounds for hostile archives. */
export type UnpackLimits = Pick<UnpackOptions, 'maxEntries' | 'maxBytes' | 'binary'>

export interface UnpackResult {
  /** sha256 of the decompressed stream: the OCI DiffID. */
  diffId: string
  /** sha256 of the input as it came, when it was asked for. */
  blobDigest?: string
  /** Bytes of all regular files. */
  size: number
  entries: number
  /** Bytes of the decompressed stream. */
  stream: number
}

/** Unpacks a tar in a confined child; see storage/unpack.ts. */
export type Unpack = (source: number | Readable, target: string, options: UnpackOptions) => Promise<UnpackResult>

/** Why an archive was not unpacked. `code` is an errno name ('ENOSPC') when the kernel said it. */
export class UnpackError extends Error {
  readonly code: string | undefined
  constructor(message: string, code?: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'UnpackError'
    this.code = code || undefined
  }
}

/** Read-only disk images for VMs. */
export interface ErofsStore {
  /** The image of `layers` (absolute, lowest first), named by their chain: absolute, mode 0444. Made once however many ask; a failure leaves nothing. */
  erofsFor(chainId: string, layers: readonly string[]): Promise<string>
  /** Removes the images of all other chains. One that a VM has open stays with it until its end. */
  collectGarbage(chainIds: ReadonlySet<string>): Promise<void>
}
