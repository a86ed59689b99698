import { conflict, notFound } from '../base/errors.js'
import { shortOf, type Digest } from './digest.js'
import { canonicalName, canonicalString, familiarString, isIdPrefix, parseReference, withDefaultTag, type Reference } from './references.js'
import type { ImageStore } from './store.js'

/** A container that stands on an image. */
export interface User {
  id: string
  running: boolean
}
export type Row = { Untagged: string } | { Deleted: string }
export interface RemoveOptions {
  force: boolean
  usedBy: (imageId: string) => User[]
}

const noSuchImage = (name: string) => notFound(`No such image: ${name}`)

/** Finds an image as Docker does: by name, then by ID or an unambiguous prefix of one. 404 when there is none. */
export function resolveImage(store: ImageStore, text: string): Digest {
  if (/^(sha256:)?[0-9a-f]{64}$/.test(text)) {
    const [id] = store.search(text)
    if (id === undefined) throw noSuchImage(text)
    return id
  }
  const reference = parseReference(text)
  const named = store.repositories.get(withDefaultTag(reference))
  if (named !== undefined) return named
  const tagAndDigest = reference.tag !== undefined && reference.digest !== undefined
  const byDigest = tagAndDigest ? store.repositories.get({ domain: reference.domain, path: reference.path, digest: reference.digest! }) : undefined
  if (byDigest !== undefined) return byDigest
  const found = store.search(text)
  if (found.length !== 1) throw noSuchImage(familiarString(withDefaultTag(reference)))
  return found[0]!
}

/** True when the names are one tag at most, and digests of the same repository (moby isSingleReference). */
function isSingle(names: readonly Reference[]): boolean {
  if (names.length <= 1) return true
  const tags = names.filter((name) => name.digest === undefined)
  if (tags.length > 1) return false
  return new Set(names.map(canonicalName)).size === 1
}

/** What stands against deleting the image itself; undefined: nothing (moby checkImageDeleteConflict). */
function obstacle(store: ImageStore, id: Digest, users: readonly User[], force: boolean, namesCount: boolean): Error | undefined {
  if (store.children(id).length > 0) return cannotDelete(id, 'cannot be forced', 'image has dependent child images')
  const running = users.find((user) => user.running)
  if (running !== undefined) return cannotDelete(id, 'cannot be forced', `image is being used by running container ${running.id.slice(0, 12)}`)
  if (force) return undefined
  if (namesCount && store.repositories.of(id).length > 0) return cannotDelete(id, 'must be forced', 'image is referenced in multiple repositories')
  const stopped = users[0]
  return stopped && cannotDelete(id, 'must be forced', `image is being used by stopped container ${stopped.id.slice(0, 12)}`)
}

const cannotDelete = (id: Digest, how: string, why: string) => conflict(`conflict: unable to delete ${shortOf(id)} (${how}) - ${why}`)

/**
 * `docker rmi`, by moby's rules (daemon/image_delete.go): a name is untagged; the last name, or the ID, deletes. Containers stand in
 * the way, running ones even with `force`. Layers of an image that stopped containers need are kept for them.
 */
export function removeImage(store: ImageStore, text: string, options: RemoveOptions): Promise<Row[]> {
  return store.exclusively(async () => {
    const rows: Row[] = []
    try {
      await untagAndDrop(store, text, options, rows)
      return rows
    } finally {
      // After the image's own record: a daemon that dies in between leaves names of nothing, which its next life forgets, and no nameless image.
      if (rows.length > 0) await store.repositories.flush()
    }
  })
}

async function untagAndDrop(store: ImageStore, text: string, options: RemoveOptions, rows: Row[]): Promise<void> {
  const id = resolveImage(store, text)
  const users = options.usedBy(id)
  const untag = (names: readonly Reference[]) => {
    store.repositories.forget(names)
    for (const name of names) rows.push({ Untagged: familiarString(name) })
  }
  const names = store.repositories.of(id)
  let untagged = false
  if (!isIdPrefix(id, text)) {
    const named = findName(store, text, id)
    if (!options.force && isSingle(names) && users.length > 0) {
      throw conflict(`conflict: unable to remove repository reference "${text}" (must force) - container ${users[0]!.id.slice(0, 12)} is using its referenced image ${shortOf(id)}`)
    }
    untag([named])
    // A repository's digests go with its last tag.
    const left = store.repositories.of(id)
    const same = left.filter((name) => canonicalName(name) === canonicalName(named))
    if (named.digest === undefined && same.every((name) => name.digest !== undefined)) untag(same)
    if (store.repositories.of(id).length > 0) return
    untagged = true
  } else if (isSingle(names)) {
    const against = obstacle(store, id, users, options.force, false)
    if (against !== undefined) throw against
    untag(names)
  }
  const against = obstacle(store, id, users, options.force, true)
  if (against !== undefined) {
    // The name is gone, as was asked; that the image itself is in use is no error then.
    if (untagged) return
    throw against
  }
  untag(store.repositories.of(id))
  const gone = await store.drop(id, users.length > 0)
  rows.push({ Deleted: id }, ...gone.map((chainId) => ({ Deleted: chainId })))
}

/** The stored name that `text` means: it led to `id`. */
function findName(store: ImageStore, text: string, id: Digest): Reference {
  const reference = withDefaultTag(parseReference(text))
  const key = canonicalString(reference)
  const exact = store.repositories.of(id).find((name) => canonicalString(name) === key)
  if (exact !== undefined) return exact
  const byDigest = store.repositories.of(id).find((name) => name.digest !== undefined && name.digest === reference.digest && canonicalName(name) === canonicalName(reference))
  if (byDigest === undefined) throw noSuchImage(familiarString(reference))
  return byDigest
}
