import { createWriteStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { codeOf, HullError } from '../base/errors.js'
import { removeTree } from '../host/remove-tree.js'
import { applyChange } from './changes.js'
import type { Digest } from './digest.js'
import { mediaTypes } from './manifests.js'
import { hostPlatform, parsePlatform } from './platform.js'
import { taggedReference } from './references.js'
import type { ImageStore } from './store.js'
import type { ImageConfig } from './types.js'

/** Stores a stream as a file in `directory`. Rejects with Docker's words for a full disk. */
export async function spool(stream: Readable, directory: string, signal?: AbortSignal): Promise<{ path: string; size: number }> {
  const path = join(directory, 'stream')
  try {
    await pipeline(stream, createWriteStream(path, { flags: 'wx', mode: 0o600, highWaterMark: 1 << 20 }), signal ? { signal } : {})
  } catch (error) {
    if (codeOf(error) === 'ENOSPC') throw new HullError(500, 'failed to store the archive: no space left on device', { cause: error })
    throw error
  }
  return { path, size: (await stat(path)).size }
}

/** A root file system tar as an image of one layer; resolves with its ID. */
export async function importTar(store: ImageStore, tar: Readable, options: { repo?: string; tag?: string; message?: string; changes: string[]; platform?: string }): Promise<Digest> {
  // All that can be wrong with the request is told before the stream is read.
  const name = options.repo ? taggedReference(options.repo, options.tag ?? '') : undefined
  const config: ImageConfig = {}
  for (const change of options.changes) applyChange(config, change)
  const platform = options.platform ? parsePlatform(options.platform) : hostPlatform()
  if (platform.os !== 'linux') throw new HullError(400, `operating system "${platform.os}" is not supported`)

  const scratch = await store.content.scratch()
  try {
    const { path, size } = await spool(tar, scratch)
    const layer = await store.layers.addUnknown(path, mediaTypes.dockerLayer, size, { adopt: (digest) => store.content.adopt(path, digest as Digest) })
    try {
      const created = new Date().toISOString()
      const comment = options.message || 'Imported from -'
      const document = {
        architecture: platform.architecture, ...(platform.variant ? { variant: platform.variant } : {}), os: platform.os, created, config,
        rootfs: { type: 'layers', diff_ids: [layer.diffId] }, history: [{ created, comment }],
      }
      return await store.exclusively(() => store.commit(Buffer.from(JSON.stringify(document)), [layer], name ? [name] : []))
    } finally {
      await store.exclusively(() => store.releaseLayer(layer.diffId as Digest))
    }
  } finally {
    await removeTree(scratch)
  }
}
