import { createHash } from 'node:crypto'
import { chmod, chown, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf } from '../../base/errors.js'

/** What of a disk is not zero. */
export interface DiskContent {
  /** bytes, virtual */
  size: number
  extents: { offset: number; data: Buffer }[]
}

/** How writable disks are made: sparse files with an ext4 (storage/disk.ts). */
export interface VmDisks {
  /** Bytes of a disk whose container asks for no size: memory templates have one of these. */
  usual: number
  /** Makes the file (it must not exist) for a uid: empty, or with `content`. On failure nothing is left. */
  make: (path: string, size: number, uid: number, content?: DiskContent) => Promise<void>
  /** Reads a disk that is nearly empty. */
  content: (path: string) => Promise<DiskContent>
}

/** A container's writable layer in a VM: kept from one start to the next. */
export const diskPath = (stateDir: string) => join(stateDir, 'disk.img')

/** Whether the container has one by now. */
export async function diskExists(stateDir: string): Promise<boolean> {
  try {
    await stat(diskPath(stateDir))
    return true
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false
    throw error
  }
}

/** The container's disk, made if there is none yet, and given to the VM's uid: nobody else may read it. Returns its path. */
export async function ensureDisk(disks: VmDisks, stateDir: string, size: number | undefined, uid: number, content?: DiskContent): Promise<string> {
  const path = diskPath(stateDir)
  if (!(await diskExists(stateDir))) await disks.make(path, size ?? disks.usual, uid, content)
  await chown(path, uid, uid)
  await chmod(path, 0o600)
  return path
}

/** Two disks with the same are the same. */
export function hashOfContent({ size, extents }: DiskContent): string {
  const hash = createHash('sha256').update(String(size))
  for (const { offset, data } of extents) hash.update(`\n${offset} ${data.length}\n`).update(data)
  return hash.digest('hex')
}
