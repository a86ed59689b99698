import type { Readable } from 'node:stream'
import { notFound } from '../base/errors.js'
import { removeTree } from '../base/remove-tree.js'
import type { Layer } from '../storage/types.js'
import type { Digest } from './digest.js'
import { spool } from './import.js'
import { mediaTypes } from './manifests.js'
import { taggedReference } from './references.js'
import type { ImageStore } from './store.js'
import type { CommitOptions } from './types.js'

/** DiffID of a tar without entries (moby layer.DigestSHA256EmptyTar): such a layer is not kept, only its line of history. */
const EMPTY_TAR = 'sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef'

/** Files a container's changes as one more layer on its image; resolves with the new image's ID. The tar is unpacked by the confined child, as any layer. */
export async function commitContainer(store: ImageStore, tar: Readable, options: CommitOptions): Promise<Digest> {
  const name = options.repo ? taggedReference(options.repo, options.tag) : undefined
  const scratch = await store.content.scratch()
  const held: Layer[] = []
  try {
    const { path, size } = await spool(tar, scratch)
    const base = await store.exclusively(async () => {
      const found = await store.baseOf(options.parent as Digest)
      if (found === undefined) throw notFound(`No such image: ${options.parent}`)
      for (const layer of found.layers) {
        store.layers.retain(layer.diffId)
        held.push(layer)
      }
      return found
    })
    const added = await store.layers.addUnknown(path, mediaTypes.dockerLayer, size, { adopt: (digest) => store.content.adopt(path, digest as Digest) })
    held.push(added)
    const empty = added.diffId === EMPTY_TAR
    const layers = empty ? base.layers : [...base.layers, added]
    const created = new Date().toISOString()
    const { architecture, os, variant, history } = base.document
    const line = {
      created, created_by: options.createdBy, ...(options.author ? { author: options.author } : {}), ...(options.comment ? { comment: options.comment } : {}),
      ...(empty ? { empty_layer: true } : {}),
    }
    const document = {
      architecture, ...(variant ? { variant } : {}), os, created, ...(options.author ? { author: options.author } : {}), config: options.config,
      rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) }, history: [...history, line],
    }
    return await store.exclusively(() => store.commit(Buffer.from(JSON.stringify(document)), layers, name ? [name] : []))
  } finally {
    await store.exclusively(async () => {
      for (const layer of held) await store.releaseLayer(layer.diffId as Digest)
    })
    await removeTree(scratch)
  }
}
