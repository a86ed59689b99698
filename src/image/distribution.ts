import { HullError, notFound, unauthorized } from '../base/errors.js'
import { parseConfig } from './config.js'
import { parseManifest } from './manifests.js'
import { parseReference, withDefaultTag } from './references.js'
import { RegistryClient } from './registry/client.js'
import { RegistryError } from './registry/errors.js'
import type { Transport } from './registry/http.js'
import type { DistributionInfo, RegistryAuth } from './types.js'

/** What a registry has under a name: descriptor and platforms (moby, api/server/router/distribution). */
export async function distribution(transport: Transport, name: string, auth: RegistryAuth | undefined, signal?: AbortSignal): Promise<DistributionInfo> {
  const reference = withDefaultTag(parseReference(name))
  const client = new RegistryClient(reference, auth, { transport })
  try {
    const { bytes, mediaType, digest } = await client.manifest(reference.digest ?? reference.tag!, signal)
    const parsed = parseManifest(bytes, mediaType)
    const descriptor = { mediaType: parsed.mediaType, digest, size: bytes.length }
    if (parsed.kind === 'index') return { descriptor, platforms: parsed.manifests.flatMap(({ platform }) => (platform ? [platform] : [])) }
    const { architecture, os, variant } = parseConfig(await client.document(parsed.config.digest, signal))
    return { descriptor, platforms: [{ architecture, os, ...(variant ? { variant } : {}) }] }
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error
    const words = error.code === '' ? error.message : `errors:\n${error.code.toLowerCase().replaceAll('_', ' ')}: ${error.message}\n`
    if (error.status === 401 || error.code === 'DENIED' || error.code === 'UNAUTHORIZED') throw unauthorized(words, error)
    if (error.status === 404) throw notFound(words, error)
    throw new HullError(500, words, { cause: error })
  }
}
