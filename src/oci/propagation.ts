import { readFile, realpath } from 'node:fs/promises'
import { badRequest } from '../base/errors.js'
import { isAtOrBelow, parseMountinfo, type MountEntry } from '../host/mountinfo.js'
import type { MountInput } from './mounts.js'

/** Propagation of a bind mount as the user wrote it: 'rprivate' (Docker's default), 'rslave', 'shared', … */
export function propagationOf(options: readonly string[]): string {
  return options.find((word) => /^r?(private|shared|slave)$/.test(word)) ?? 'rprivate'
}

/** The mount that `path` is on: of those at the longest prefix the last. */
function mountOf(path: string, table: readonly MountEntry[]): MountEntry | undefined {
  let found: MountEntry | undefined
  for (const entry of table) if (isAtOrBelow(path, entry.target) && entry.target.length >= (found?.target.length ?? 0)) found = entry
  return found
}

/**
 * What the root of the container's mount namespace must be so that mounts go in (slave) or both ways (shared) where the user asks for that; undefined: nobody does.
 * 400 in Docker's words when the source is on a mount that shares nothing (moby oci_linux.go, ensureShared).
 */
export async function rootPropagation(mounts: readonly MountInput[]): Promise<'rshared' | 'rslave' | undefined> {
  const wanted = mounts.filter((mount) => mount.type === 'bind' && !propagationOf(mount.options).endsWith('private'))
  if (wanted.length === 0) return undefined
  const table = parseMountinfo(await readFile('/proc/self/mountinfo', 'utf8'))
  let shared = false
  for (const mount of wanted) {
    const path = await realpath(mount.source).catch(() => mount.source)
    const on = mountOf(path, table)
    const isShared = on?.propagation.some((word) => word.startsWith('shared:')) ?? false
    const isSlave = on?.propagation.some((word) => word.startsWith('master:')) ?? false
    const both = propagationOf(mount.options).endsWith('shared')
    if (!isShared && (both || !isSlave)) {
      throw badRequest(`path ${mount.source} is mounted on ${on?.target ?? '/'} but it is not a ${both ? 'shared' : 'shared or slave'} mount`)
    }
    shared ||= both
  }
  return shared ? 'rshared' : 'rslave'
}
