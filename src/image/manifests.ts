import { z } from 'zod'
import { HullError, internal } from '../base/errors.js'
import { isDigest, type Digest } from './digest.js'
import type { Platform } from './platform.js'

/** Largest manifest, index or config that is read, bytes (OCI distribution-spec: registries may refuse more than 4 MiB). */
export const documentLimit = 4 << 20
/** Largest number of layers: what one overlayfs mount takes with short names, and Docker's own limit (moby, layer: maxLayerDepth 125). */
export const layerLimit = 125

export const mediaTypes = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
} as const

/** Layers that Hull can unpack; gzip, zstd or none is told from the bytes. */
const layerTypes = new Set([
  'application/vnd.docker.image.rootfs.diff.tar.gzip', 'application/vnd.docker.image.rootfs.diff.tar.zstd', 'application/vnd.docker.image.rootfs.diff.tar',
  'application/vnd.oci.image.layer.v1.tar', 'application/vnd.oci.image.layer.v1.tar+gzip', 'application/vnd.oci.image.layer.v1.tar+zstd',
])
const configTypes = new Set<string>([mediaTypes.ociConfig, mediaTypes.dockerConfig])

/** What a manifest or index points to. */
export interface Descriptor {
  mediaType: string
  digest: Digest
  /** bytes */
  size: number
}
export interface Manifest {
  kind: 'manifest'
  mediaType: string
  config: Descriptor
  layers: Descriptor[]
}
export interface Index {
  kind: 'index'
  mediaType: string
  manifests: (Descriptor & { platform?: Platform | undefined; annotations: Record<string, string> })[]
}

const text = z.string().max(4096)
const digest = z.string().refine(isDigest, 'not a sha256 digest').transform((value) => value)
const size = z.number().int().min(0).max(2 ** 50)
const annotations = z.record(text, z.string()).nullish().transform((value) => value ?? {})
const descriptor = z.object({ mediaType: text, digest, size, urls: z.array(z.string()).nullish() })
const platform = z.object({ os: text, architecture: text, variant: text.nullish() }).transform(
  (p): Platform => ({ os: p.os, architecture: p.architecture, ...(p.variant ? { variant: p.variant } : {}) }))
const manifestSchema = z.object({
  schemaVersion: z.literal(2), mediaType: text.nullish(), config: descriptor, layers: z.array(descriptor).max(layerLimit, 'max depth exceeded').nullish(),
})
const indexSchema = z.object({
  schemaVersion: z.literal(2), mediaType: text.nullish(),
  manifests: z.array(z.object({ mediaType: text, digest, size, platform: platform.nullish(), annotations })).max(10_000),
})

/** JSON from outside; anything but an object is an error that says what it was for. */
export function parseJsonObject(bytes: Uint8Array, what: string): Record<string, unknown> {
  if (bytes.length > documentLimit) throw internal(`${what} is larger than ${documentLimit} bytes`)
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    throw internal(`${what} is not valid JSON`, error)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw internal(`${what} is not a JSON object`)
  return value as Record<string, unknown>
}

/** The first thing that zod found wrong, in a line. */
export function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0]
  return issue === undefined ? 'invalid' : `${issue.path.map(String).join('.').slice(0, 200)}${issue.path.length > 0 ? ': ' : ''}${issue.message.slice(0, 300)}`
}

/**
 * Reads a manifest or an index. Its own `mediaType` decides, then `declared` (the Content-Type, or the descriptor that led
 * here), then its form; a document that is both is refused (moby CVE-2021-41190, OCI image-spec GHSA-mc8v-mgrf-8f4m).
 */
export function parseManifest(bytes: Uint8Array, declared?: string): Manifest | Index {
  const document = parseJsonObject(bytes, 'the manifest')
  if (document.schemaVersion === 1) {
    throw new HullError(400, 'the manifest has schema version 1, which Docker has given up: the image must be pushed again with a newer tool')
  }
  const own = typeof document.mediaType === 'string' && document.mediaType !== '' ? document.mediaType : undefined
  const isIndexForm = 'manifests' in document
  const isManifestForm = 'layers' in document || 'config' in document
  if (isIndexForm && isManifestForm) throw internal('the manifest is both an image manifest and an index')
  const mediaType = own ?? declared?.split(';')[0]?.trim() ?? (isIndexForm ? mediaTypes.ociIndex : mediaTypes.ociManifest)
  if (mediaType === mediaTypes.ociIndex || mediaType === mediaTypes.dockerList) {
    const parsed = indexSchema.safeParse(document)
    if (!parsed.success) throw internal(`the image index is not valid: ${firstIssue(parsed.error)}`)
    return { kind: 'index', mediaType, manifests: parsed.data.manifests.map(({ platform: p, ...m }) => ({ ...m, platform: p ?? undefined })) }
  }
  if (mediaType === mediaTypes.ociManifest || mediaType === mediaTypes.dockerManifest) {
    return readManifest(document, mediaType)
  }
  if (own === undefined && (isIndexForm || isManifestForm)) {
    return parseManifest(bytes, isIndexForm ? mediaTypes.ociIndex : mediaTypes.ociManifest)
  }
  throw internal(`unsupported manifest media type "${mediaType.slice(0, 200)}"`)
}

function readManifest(document: Record<string, unknown>, mediaType: string): Manifest {
  const parsed = manifestSchema.safeParse(document)
  if (!parsed.success) throw internal(`the image manifest is not valid: ${firstIssue(parsed.error)}`)
  const { config, layers } = parsed.data
  if (!configTypes.has(config.mediaType)) {
    throw internal(`unsupported config media type "${config.mediaType.slice(0, 200)}": this is not a container image`)
  }
  if (config.size > documentLimit) throw internal(`the image config is larger than ${documentLimit} bytes`)
  if (!layers || layers.length === 0) throw internal('the image has no layers: there is nothing to run')
  for (const layer of layers) {
    if (/foreign|nondistributable/.test(layer.mediaType) || (layer.urls?.length ?? 0) > 0) {
      throw internal(`layer ${layer.digest} is a foreign layer (${layer.mediaType.slice(0, 200)}): only layers that the registry itself holds can be pulled`)
    }
    if (!layerTypes.has(layer.mediaType)) throw internal(`unsupported layer media type "${layer.mediaType.slice(0, 200)}"`)
  }
  const bare = ({ mediaType: type, digest: d, size: s }: Descriptor): Descriptor => ({ mediaType: type, digest: d, size: s })
  return { kind: 'manifest', mediaType, config: bare(config), layers: layers.map(bare) }
}
