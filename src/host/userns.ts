import { createHash } from 'node:crypto'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf } from '../base/errors.js'
import { isNetns } from './netns.js'
import { native } from './native.js'
import { mapText, type IdMap } from './subid.js'

/** The file that holds the user namespace of these ids, below a daemon's exec root. Equal maps share one. */
export function usernsPath(execRoot: string, map: IdMap): string {
  const key = createHash('sha256').update(`${mapText(map.uids)}/${mapText(map.gids)}`).digest('hex').slice(0, 16)
  return join(execRoot, 'userns', key)
}

const known = new Map<string, Promise<void>>()

/**
 * Makes the namespace at {@link usernsPath} unless it is there, held by a mount: it outlives the daemon. EINVAL, EPERM: the kernel does not
 * take the map (too many lines, or no right to it); ENOSPC: no more user namespaces are allowed (user.max_user_namespaces).
 */
export async function ensureUserns(execRoot: string, map: IdMap): Promise<string> {
  const path = usernsPath(execRoot, map)
  let making = known.get(path)
  if (!making) {
    making = make(path, map)
    known.set(path, making)
    making.catch(() => known.delete(path))
  }
  await making
  return path
}

async function make(path: string, map: IdMap): Promise<void> {
  if (await isNetns(path)) return
  await mkdir(join(path, '..'), { recursive: true, mode: 0o700 })
  native.netnsDelete(path) // an empty file from a make that was cut off
  try {
    await native.usernsCreate(path, mapText(map.uids), mapText(map.gids))
  } catch (error) {
    if (codeOf(error) !== 'EEXIST' || !(await isNetns(path))) throw error
  }
}

/** Lets go of a namespace of {@link ensureUserns}; it ends with its last process. No error when it is gone. */
export function releaseUserns(path: string): void {
  known.delete(path)
  native.netnsDelete(path)
}

/** {@link releaseUserns} for all of a daemon. Running containers keep theirs. */
export async function releaseAllUserns(execRoot: string): Promise<void> {
  const directory = join(execRoot, 'userns')
  for (const name of await readdir(directory).catch(() => [])) releaseUserns(join(directory, name))
}

/** A network namespace as {@link createNetns} makes, whose owner is the user namespace at `userns`: root in there may administer it. */
export function createOwnedNetns(path: string, userns: string): Promise<void> {
  return native.netnsCreateOwned(path, userns)
}

/**
 * A bind mount of the directory `source` at `target` in which owners are seen as the user namespace at `userns` maps them: what root of the host
 * owns belongs to root of the namespace. EINVAL: the file system cannot do it (mount_setattr(2) lists those that can); EPERM: `source` is mapped already.
 */
export function idmapMount(source: string, target: string, userns: string, attributes = 0): Promise<void> {
  return native.idmapMount(source, target, userns, attributes)
}
