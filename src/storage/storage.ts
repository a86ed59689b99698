import { mkdir } from 'node:fs/promises'
import { Disks } from './disk.js'
import { ErofsImages } from './erofs.js'
import { Layers } from './layers.js'
import { Snapshots } from './snapshots.js'
import type { Unpack, UnpackLimits } from './types.js'
import { unpack } from './unpack.js'
import { VolumeStore } from './volumes.js'

export interface StorageOptions {
  /** Kept across boots of the host. */
  dataRoot: string
  /** Gone after a boot of the host: mount points. */
  execRoot: string
  /** Size of a VM's writable disk unless somebody wants another, bytes; default 10 GiB. */
  diskBytes?: number
  /** Lengths that the files of images for VMs have, bytes, ascending; a larger image has its own. */
  imageSizes?: readonly number[]
  /** Bounds for hostile archives. */
  limits?: UnpackLimits
}

/** Everything that keeps file trees and disks. */
export interface Storage {
  readonly layers: Layers
  readonly snapshots: Snapshots
  readonly erofs: ErofsImages
  readonly disks: Disks
  readonly volumes: VolumeStore
  readonly unpack: Unpack
}

/** Opens the storage below `dataRoot`; what an interrupted daemon left half-done is removed. One process at a time. */
export async function openStorage({ dataRoot, execRoot, diskBytes, imageSizes, limits }: StorageOptions): Promise<Storage> {
  await mkdir(dataRoot, { recursive: true, mode: 0o711 })
  const layers = await Layers.open(dataRoot, limits)
  await layers.removeInterrupted()
  const [snapshots, erofs, disks, volumes] = await Promise.all([
    Snapshots.open(dataRoot, layers), ErofsImages.open(dataRoot, execRoot, layers, imageSizes), Disks.open(dataRoot, diskBytes), VolumeStore.open(dataRoot, execRoot, layers),
  ])
  return { layers, snapshots, erofs, disks, volumes, unpack: (source, target, options) => unpack(source, target, { ...limits, ...options }) }
}
