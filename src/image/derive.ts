import { notFound } from '../base/errors.js'
import { removeTree } from '../host/remove-tree.js'
import type { Layer } from '../storage/types.js'
import type { Digest } from './digest.js'
import { spool } from './import.js'
import { mediaTypes } from './manifests.js'
import { hostPlatform, parsePlatform } from './platform.js'
import { taggedReference } from './references.js'
import type { ImageStore } from './store.js'
import type { DeriveOptions } from './types.js'

/** DiffID of a tar without entries (moby layer.DigestSHA256EmptyTar): such a layer is not kept, only its line of history. */
const emptyTar = 'sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef'

/**
 * An image on another one (or on nothing), with one more layer or with none, and another config: what `docker commit` and a step of a build make. Layers are
 * unpacked by the confined child, as any. The parent stays as long as the step works on it, also when it is removed meanwhile.
 */
export async function derive(store: ImageStore, options: DeriveOptions): Promise<Digest> {
  const { parent, layer: tar, config, createdBy } = options
  const name = options.repo ? taggedReference(options.repo, options.tag ?? '') : undefined
  const scratch = await store.content.scratch()
  const held: Layer[] = []
  try {
    const base = await store.exclusively(async () => {
      if (parent === '') return undefined
      const found = await store.baseOf(parent as Digest)
      if (found === undefined) throw notFound(`No such image: ${parent}`)
      for (const layer of found.layers) {
        store.layers.retain(layer.diffId)
        held.push(layer)
      }
      return found
    })
    const layers = [...(base?.layers ?? [])]
    if (tar !== undefined) {
      const { path, size } = await spool(tar, scratch, options.signal)
      const added = await store.layers.addUnknown(path, mediaTypes.dockerLayer, size, { adopt: (digest) => store.content.adopt(path, digest as Digest), ...(options.signal ? { signal: options.signal } : {}) })
      held.push(added)
      if (added.diffId !== emptyTar || layers.length === 0) layers.push(added)
    }
    const created = new Date().toISOString()
    const { architecture, os, variant } = base?.document ?? (options.platform ? parsePlatform(options.platform) : hostPlatform())
    const line = {
      created, created_by: createdBy, ...(options.author ? { author: options.author } : {}), ...(options.comment ? { comment: options.comment } : {}),
      ...(layers.length === (base?.layers.length ?? 0) ? { empty_layer: true } : {}),
    }
    const document = {
      architecture, ...(variant ? { variant } : {}), os, created, ...(options.author ? { author: options.author } : {}), config,
      rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) }, history: [...(base?.document.history ?? []), ...(options.history ?? []), line],
    }
    const origin = { ...(parent === '' ? {} : { parent: parent as Digest }), ...(options.key === undefined ? {} : { key: options.key }) }
    return await store.exclusively(() => store.commit(Buffer.from(JSON.stringify(document)), layers, name ? [name] : [], origin))
  } finally {
    await store.exclusively(async () => {
      for (const layer of held) await store.releaseLayer(layer.diffId as Digest)
    })
    await removeTree(scratch)
  }
}
