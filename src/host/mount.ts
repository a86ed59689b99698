import { closeSync, constants, openSync } from 'node:fs'
import { dirname, isAbsolute, relative } from 'node:path'
import { codeOf } from '../base/errors.js'
import { isAtOrBelow, listMounts } from './mountinfo.js'
import { native } from './native.js'
import { O_PATH } from './paths.js'

/** Flags of mount(2) (linux/mount.h). */
export const MS = {
  RDONLY: 1, NOSUID: 2, NODEV: 4, NOEXEC: 8, SYNCHRONOUS: 16, REMOUNT: 32, NOSYMFOLLOW: 256, NOATIME: 1024, NODIRATIME: 2048,
  BIND: 4096, MOVE: 8192, REC: 16384, UNBINDABLE: 1 << 17, PRIVATE: 1 << 18, SLAVE: 1 << 19, SHARED: 1 << 20,
  RELATIME: 1 << 21, STRICTATIME: 1 << 24,
} as const

/** Flags of umount2(2). */
export const MNT = { FORCE: 1, DETACH: 2, EXPIRE: 4, NOFOLLOW: 8 } as const

/** Attributes of mount_setattr(2). */
export const MOUNT_ATTR = { RDONLY: 1, NOSUID: 2, NODEV: 4, NOEXEC: 8, NOATIME: 16, NODIRATIME: 128, NOSYMFOLLOW: 0x200000 } as const

/** mount(2). Throws ENOENT, EBUSY, EINVAL (often: see dmesg), EPERM, ENODEV (unknown file system), E2BIG (data over a page). */
export function mount(source: string, target: string, fstype: string, flags = 0, data = ''): void {
  native.mount(source, target, fstype, flags, data)
}

/** An overlay of directories, all absolute. */
export interface OverlayOptions {
  /** Lowest first, as images list their layers; at least one (at least two when there is no `upper`), at most 500. */
  lower: string[]
  /** Where changes go, and its empty sibling on the same file system. Without them the overlay is read-only. */
  upper?: string
  work?: string
  target: string
  /** MS_* */
  flags?: number
  /** Further overlayfs options, 'volatile', 'index=off', … */
  options?: string[]
}

// Separators and escapes in overlayfs options; rather than to rely on how each kernel unescapes, such paths go by descriptor.
const special = /[,:\\"]/

/** The longest directory that all of `paths` are in. */
function commonDirectory(paths: string[]): string {
  let common = dirname(paths[0] ?? '/')
  for (const path of paths) while (!isAtOrBelow(path, common)) common = dirname(common)
  return common
}

/** The option string for directories as they are called in the mount's working directory. Upper layers come first in lowerdir. */
function overlayData(options: OverlayOptions, name: (path: string) => string): string {
  const parts = [`lowerdir=${options.lower.map(name).reverse().join(':')}`]
  if (options.upper !== undefined) parts.push(`upperdir=${name(options.upper)}`)
  if (options.work !== undefined) parts.push(`workdir=${name(options.work)}`)
  return [...parts, ...(options.options ?? [])].join(',')
}

/**
 * Mounts an overlay (Documentation/filesystems/overlayfs.rst). Mount data holds at most a page (4096 bytes), so the layers are named relative
 * to the directory that they share, and, when that is not short enough or a path has a character that is special there, by descriptor.
 * Rejects with ENOENT, EINVAL, EBUSY (upper or work in use by another overlay), ESTALE (layers changed below an indexed upper).
 */
export async function mountOverlay(options: OverlayOptions): Promise<void> {
  const { lower, upper, work, target, flags = 0 } = options
  const directories = [...lower, ...(upper === undefined ? [] : [upper]), ...(work === undefined ? [] : [work])]
  if (lower.length === 0 || (upper === undefined) !== (work === undefined)) throw new TypeError('mountOverlay: lower, or upper and work, are missing')
  for (const path of [...directories, target]) if (!isAbsolute(path)) throw new TypeError(`mountOverlay: not absolute: ${path}`)

  const cwd = commonDirectory(lower)
  const data = overlayData(options, (path) => relative(cwd, path) || '.')
  if (Buffer.byteLength(data) < 4096 && !directories.some((path) => special.test(relative(cwd, path)))) {
    return native.mountAt(cwd, 'overlay', target, 'overlay', flags, data)
  }
  const open: number[] = []
  try {
    const byDescriptor = overlayData(options, (path) => {
      const fd = openSync(path, O_PATH | constants.O_DIRECTORY)
      open.push(fd)
      return String(fd)
    })
    // The links in /proc/self/fd lead to the directories themselves.
    await native.mountAt('/proc/self/fd', 'overlay', target, 'overlay', flags, byDescriptor)
  } finally {
    for (const fd of open) closeSync(fd)
  }
}

/** Makes `source` (file or directory) visible at `target` (of the same kind). Read-only from the first moment that others could see only if `target` is private. */
export function bindMount(source: string, target: string, options: { readOnly?: boolean; recursive?: boolean } = {}): void {
  const recursive = options.recursive ?? false
  native.mount(source, target, '', MS.BIND | (recursive ? MS.REC : 0), '')
  if (!options.readOnly) return
  try {
    native.mountSetattr(target, MOUNT_ATTR.RDONLY, 0, recursive)
  } catch (error) {
    native.umount(target, MNT.DETACH | MNT.NOFOLLOW)
    throw error
  }
}

/** Makes a mount (and with `recursive` all below it) read-only; other attributes stay, unlike with MS_REMOUNT. EINVAL when it is no mount. */
export function remountReadOnly(target: string, recursive = false): void {
  native.mountSetattr(target, MOUNT_ATTR.RDONLY, 0, recursive)
}

/** Changes propagation of a mount: MS.PRIVATE, MS.SLAVE, MS.SHARED or MS.UNBINDABLE, with MS.REC for all below it. */
export function setPropagation(target: string, flags: number): void {
  native.mount('none', target, '', flags, '')
}

/** A tmpfs. `data`: 'size=64m,mode=1777'. */
export function mountTmpfs(target: string, data = '', flags: number = MS.NOSUID | MS.NODEV): void {
  native.mount('tmpfs', target, 'tmpfs', flags, data)
}

// First as it should be; then so that it leaves the tree although someone is in it.
const attempts = [MNT.NOFOLLOW, MNT.NOFOLLOW | MNT.DETACH]

/** Nothing is mounted there: false. It is busy: undefined. Anything else is thrown. */
function unmountFailure(error: unknown, flags: number): false | undefined {
  const code = codeOf(error)
  if (code === 'EINVAL' || code === 'ENOENT' || code === 'ENOTDIR') return false
  if (code === 'EBUSY' && !(flags & MNT.DETACH)) return undefined
  throw error
}

/**
 * Unmounts the topmost mount at `target`; one that is busy is detached: it vanishes from the tree now, and ends with its last user.
 * False: nothing is mounted there, or there is no such path. Blocks while dirty pages are written (overlays: those of the whole upper
 * file system): {@link unmountAsync} does not.
 */
export function unmount(target: string): boolean {
  for (const flags of attempts) {
    try {
      native.umount(target, flags)
      return true
    } catch (error) {
      if (unmountFailure(error, flags) === false) return false
    }
  }
  return false
}

/** {@link unmount} on a thread. */
export async function unmountAsync(target: string): Promise<boolean> {
  for (const flags of attempts) {
    try {
      await native.umountAsync(target, flags)
      return true
    } catch (error) {
      if (unmountFailure(error, flags) === false) return false
    }
  }
  return false
}

/** Unmounts everything at `prefix` and below, last mounted first. Returns the mount points. O(mounts of the host): for clean-up, not for starts. */
export async function unmountBelow(prefix: string): Promise<string[]> {
  const targets = (await listMounts(prefix)).map((entry) => entry.target).reverse()
  const done: string[] = []
  for (const target of targets) if (await unmountAsync(target)) done.push(target)
  return done
}
