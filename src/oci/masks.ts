import { mkdirSync, statSync } from 'node:fs'
import type { OciConfig, OciMount } from './spec-types.js'

const isDirectory = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
/** The mount that a path of the container lies on: of those above it the deepest, and of these the last. */
function mountOf(path: string, mounts: readonly OciMount[]): OciMount | undefined {
  let found: OciMount | undefined
  let depth = -1
  for (const mount of mounts) {
    const target = mount.destination.split('/').filter(Boolean)
    if (target.length < depth || target.some((name, at) => name !== path.split('/')[at + 1])) continue
    found = mount
    depth = target.length
  }
  return found
}

/**
 * Masked directories as bind mounts of one empty directory, `empty`, in place of a tmpfs that the runtime would make for each. A file system of its own costs the kernel 5 KB, and more where there are many containers: it keeps a kilobyte for
 * each 64 file systems of the host and each memory cgroup (alloc_shrinker_info), 10 of them for each container were 160 KB for each of a thousand.
 *
 * Only where the container's own /proc or /sys is what is masked, and only for containers that cannot mount: who has CAP_SYS_ADMIN could make the mount writable, and the directory is the same for all.
 */
export function shareMasks(config: OciConfig, empty: string): void {
  const { linux, mounts, process } = config
  if (!linux.maskedPaths || !process.capabilities || process.capabilities.bounding.includes('CAP_SYS_ADMIN')) return
  const shared = linux.maskedPaths.filter((path) => ['proc', 'sysfs'].includes(mountOf(path, mounts)?.type ?? '') && isDirectory(path))
  if (shared.length === 0) return
  mkdirSync(empty, { recursive: true, mode: 0o555 })
  linux.maskedPaths = linux.maskedPaths.filter((path) => !shared.includes(path))
  mounts.push(...shared.map((destination) => ({ destination, type: 'bind', source: empty, options: ['bind', 'rprivate', 'ro', 'nosuid', 'nodev', 'noexec'] })))
}
