import { createHash } from 'node:crypto'

/** `sha256:` and 64 lower-case hexadecimal digits: the one algorithm that Hull stores (OCI image-spec, descriptor.md, "Digests"). */
export type Digest = `sha256:${string}`

const pattern = /^sha256:[0-9a-f]{64}$/

/** True for a well-formed sha256 digest. */
export function isDigest(text: unknown): text is Digest {
  return typeof text === 'string' && pattern.test(text)
}

/** The digest of `data`. */
export function digestOf(data: string | Uint8Array): Digest {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`
}

/** The 64 digits alone: what blobs and layers are called on disk. */
export function hexOf(digest: string): string {
  return digest.slice('sha256:'.length)
}

/** The 12 digits that Docker shows. */
export function shortOf(digest: string): string {
  return hexOf(digest).slice(0, 12)
}

/** OCI image-spec, config.md, "Layer ChainID": names the result of applying `diffIds` one over the other, lowest first. */
export function chainIds(diffIds: readonly Digest[]): Digest[] {
  const chain: Digest[] = []
  for (const diffId of diffIds) {
    const parent = chain.at(-1)
    chain.push(parent === undefined ? diffId : digestOf(`${parent} ${diffId}`))
  }
  return chain
}
