import { badRequest, internal } from '../base/errors.js'
import type { Isolation } from '../sandbox/types.js'
import { DISK_BOUNDS } from '../storage/disk.js'
import { bytesOf } from './size.js'

/** Size of a VM's writable disk in bytes. 400 in docker/go-units' words when `text` is no size, or when no disk can have it. */
export function diskBytesOf(text: string): number {
  const bytes = bytesOf(text, 1024)
  if (bytes === undefined) throw badRequest(`invalid size: '${text}'`)
  if (bytes < DISK_BOUNDS.smallest || bytes > DISK_BOUNDS.largest) {
    throw badRequest(`invalid size: '${text}': the disk of a virtual machine has between ${DISK_BOUNDS.smallest / 2 ** 20} MiB and ${DISK_BOUNDS.largest / 2 ** 40} TiB`)
  }
  return bytes
}

/**
 * --storage-opt: bytes of a VM's writable disk; undefined: nobody said. Keys and words are those of moby's overlay2 (parseStorageOpt), which takes `size` alone, and that only where
 * the kernel keeps a quota for it. An overlay of ours has none, so a container is answered as dockerd answers on any other file system: with status 500.
 */
export function diskSize(options: Record<string, string>, isolation: Isolation): number | undefined {
  const entries = Object.entries(options)
  if (entries.length === 0) return undefined
  if (isolation === 'process') throw internal('--storage-opt is supported only for overlay over xfs with \'pquota\' mount option')
  let bytes: number | undefined
  for (const [name, value] of entries) {
    if (name.toLowerCase() !== 'size') throw badRequest(`Unknown option ${name.toLowerCase()}`)
    bytes = diskBytesOf(value)
  }
  return bytes
}
