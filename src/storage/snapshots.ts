import { existsSync } from 'node:fs'
import { chmod, chown, mkdir, readdir, rename, rm, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { codeOf, internal, messageOf } from '../base/errors.js'
import { log } from '../base/log.js'
import { MOUNT_ATTR, mountOverlay, unmount } from '../host/mount.js'
import { idmapMount } from '../host/userns.js'
import type { Layers } from './layers.js'
import { removeTree } from '../host/remove-tree.js'

/**
 * Options for every overlay of image layers: what would let a layer's own attributes lead overlayfs to other files is off
 * (hull-unpack does not write such attributes either), as is what needs file handles across reboots.
 */
export const layerOptions = ['redirect_dir=nofollow', 'metacopy=off', 'index=off', 'xino=off'] as const

/** A container's writable view of an image. All paths are absolute. */
export interface Snapshot {
  /** Lowest first. */
  layers: readonly string[]
  upper: string
  work: string
  /** Where it is mounted. */
  merged: string
}

/** Whose a container's files are when it has a user namespace: its file, and the host's ids of its root. */
export interface SnapshotOwners {
  userns: string
  uid: number
  gid: number
}

const idPattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/

/** Folder of what is being removed while nobody waits for it; no id is called so. */
const condemned = '.removed'

/** Writable overlayfs layers below `dataRoot/overlay/<id>`, for containers without a kernel of their own. */
export class Snapshots {
  private constructor(
    private readonly root: string,
    private readonly layers: Layers,
  ) {}

  static async open(dataRoot: string, layers: Layers): Promise<Snapshots> {
    const root = join(dataRoot, 'overlay')
    await mkdir(join(root, 'l'), { recursive: true, mode: 0o700 })
    await mkdir(join(root, condemned), { recursive: true, mode: 0o700 })
    const snapshots = new Snapshots(root, layers)
    for (const name of await readdir(join(root, condemned))) snapshots.removeLater(join(root, condemned, name))
    for (const id of await snapshots.list()) await snapshots.clearMapped(join(root, id))
    return snapshots
  }

  private directory(id: string): string {
    if (!idPattern.test(id) || id === 'l') throw internal(`not a container id: ${id.slice(0, 100)}`)
    return join(this.root, id)
  }

  /** Where a container's directories are, whether they exist or not. */
  paths(id: string, layers: readonly string[]): Snapshot {
    const directory = this.directory(id)
    return { layers, upper: join(directory, 'upper'), work: join(directory, 'work'), merged: join(directory, 'merged') }
  }

  /** Makes the directories; those that exist are left as they are. On failure nothing new is left. */
  async prepare(id: string, layers: readonly string[]): Promise<Snapshot> {
    const snapshot = this.paths(id, layers)
    const directory = this.directory(id)
    const isNew = (await mkdir(directory, { recursive: true, mode: 0o700 })) !== undefined
    try {
      const made = await Promise.allSettled([mkdir(snapshot.upper, { recursive: true, mode: 0o755 }), mkdir(snapshot.work, { recursive: true, mode: 0o700 }), mkdir(snapshot.merged, { recursive: true, mode: 0o700 })])
      for (const one of made) if (one.status === 'rejected') throw one.reason
    } catch (error) {
      if (isNew) await removeTree(directory)
      throw error
    }
    return snapshot
  }

  /**
   * Mounts a prepared snapshot on `merged`. `volatile` leaves out all syncing (overlayfs.rst, "Volatile mount"): for
   * containers whose changes need not outlive a crash of the host.
   */
  async mount(snapshot: Snapshot, options: { volatile?: boolean; owners?: SnapshotOwners } = {}): Promise<void> {
    const incompat = join(snapshot.work, 'work', 'incompat')
    // Left by a volatile mount that ended in an orderly way: its content is whole, but the kernel cannot know.
    if (options.volatile && existsSync(incompat)) await rm(incompat, { recursive: true, force: true })
    const mountFlags = [...layerOptions, ...(options.volatile ? ['volatile'] : [])]
    if (options.owners) return this.mountMapped(snapshot, options.owners, mountFlags)
    await mountOverlay({ lower: snapshot.layers.map((dir) => this.layers.linkOf(dir) ?? dir), upper: snapshot.upper, work: snapshot.work, target: snapshot.merged, options: mountFlags })
  }

  /**
   * The layers are seen through mounts that map their owners; the overlay keeps hold of them, so they need not stay in the tree (overlayfs
   * takes no detached mounts before Linux 6.15). What is written lands in `upper` with the host's ids. The directories on the way are passable for the namespace's root.
   */
  private async mountMapped(snapshot: Snapshot, { userns, uid, gid }: SnapshotOwners, options: string[]): Promise<void> {
    const directory = dirname(snapshot.merged)
    const lower = join(directory, 'lower')
    await this.clearMapped(directory)
    await mkdir(lower, { mode: 0o700 })
    const targets = snapshot.layers.map((_, index) => join(lower, String(index)))
    try {
      for (const [index, target] of targets.entries()) {
        await mkdir(target, { mode: 0o700 })
        await idmapMount(snapshot.layers[index]!, target, userns, MOUNT_ATTR.NODEV)
      }
      await Promise.all([chmod(this.root, 0o711), chown(directory, 0, gid).then(() => chmod(directory, 0o710)), chown(snapshot.merged, uid, gid), chown(snapshot.upper, uid, gid)])
      await mountOverlay({ lower: targets, upper: snapshot.upper, work: snapshot.work, target: snapshot.merged, options })
    } finally {
      await this.clearMapped(directory)
    }
  }

  /** Takes away the mounts of {@link mountMapped}, also those of a daemon that died between two of them. Nothing of a layer is reached: rmdir(2) only. */
  private async clearMapped(directory: string): Promise<void> {
    const lower = join(directory, 'lower')
    if (!existsSync(lower)) return
    for (const name of await readdir(lower).catch(() => [])) {
      while (unmount(join(lower, name)));
      await rmdir(join(lower, name))
    }
    await rmdir(lower).catch((error: unknown) => {
      if (codeOf(error) !== 'ENOENT') throw error
    })
  }

  /** False: it was not mounted. */
  unmount(id: string): boolean {
    return unmount(join(this.directory(id), 'merged'))
  }

  /**
   * Unmounts and deletes a container's writable layer. No error when it is gone. `later`: it is out of the way at once, and its space comes back in a moment, or when a later daemon
   * begins: who waits for `docker run --rm` does not wait for that.
   */
  async remove(id: string, later = false): Promise<void> {
    const directory = this.directory(id)
    while (unmount(join(directory, 'merged'))) {
      // whatever was stacked there
    }
    await this.clearMapped(directory)
    if (!later) return removeTree(directory)
    const aside = join(this.root, condemned, id)
    try {
      await rename(directory, aside)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return
      return removeTree(directory) // one of that name is being removed
    }
    this.removeLater(aside)
  }

  private removeLater(path: string): void {
    removeTree(path).catch((error: unknown) => log.error('cannot remove the files of a container that is gone', { path, error: messageOf(error) }))
  }

  /** The ids that have a directory. */
  async list(): Promise<string[]> {
    try {
      return (await readdir(this.root)).filter((name) => name !== 'l' && name !== condemned)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return []
      throw error
    }
  }
}
