import { randomBytes } from 'node:crypto'
import { closeSync } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, rmdir, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, internal, messageOf } from '../base/errors.js'
import { writeFileAtomic } from '../base/files.js'
import { log } from '../base/log.js'
import { removeTree } from '../host/remove-tree.js'
import { listMounts } from '../host/mountinfo.js'
import { mount, MS, unmount, unmountAsync } from '../host/mount.js'
import { O_PATH, openInRoot } from '../host/paths.js'
import { cleanScratch, copyUp, type CopyUpPlace } from './copy-up.js'
import type { Layers } from './layers.js'
import { isPlain, localMount } from './local-options.js'
import { treeSize } from './tree-size.js'

/** What is kept of a volume on disk: `volumes/<name>/volume.json`. */
export interface StoredVolume {
  version: 1
  name: string
  /** ISO 8601. */
  created: string
  labels: Record<string, string>
  /** Driver options as the user wrote them. */
  options: Record<string, string>
}

/** Docker's names (moby names.RestrictedNamePattern). The engine checks first; here it keeps a name from being a path. */
export const volumeName = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/

/**
 * Volumes of the `local` driver below `dataRoot/volumes/<name>`: `_data` is the content, `volume.json` the record. A volume appears and goes by one rename,
 * so a crash leaves a whole volume or none. Who uses which is the engine's to know.
 */
export class VolumeStore {
  private readonly volumes = new Map<string, StoredVolume>()

  private constructor(
    private readonly root: string,
    /** Mount points of volumes' subdirectories, `<container>/<index>`: gone after a boot. */
    readonly subpaths: string,
    private readonly place: CopyUpPlace,
  ) {}

  /** Reads what is there and removes what an interrupted daemon left half-made or half-removed. */
  static async open(dataRoot: string, execRoot: string, layers: Pick<Layers, 'linkOf'>): Promise<VolumeStore> {
    const root = join(dataRoot, 'volumes')
    const subpaths = join(execRoot, 'volumes')
    const place = { scratch: join(execRoot, 'copy-up'), empty: join(root, '.empty'), shorten: (layer: string) => layers.linkOf(layer) ?? layer }
    // Passable, since an unprivileged or remapped user in a container walks through; not readable.
    await mkdir(root, { recursive: true, mode: 0o711 })
    await mkdir(place.empty, { recursive: true, mode: 0o755 })
    await mkdir(subpaths, { recursive: true, mode: 0o711 })
    await cleanScratch(place.scratch)
    const self = new VolumeStore(root, subpaths, place)
    for (const name of await readdir(root)) {
      if (name === '.empty') continue
      if (name.startsWith('.')) await self.discard(join(root, name)).catch((error: unknown) => log.warn('cannot remove what is left of a volume', { name, error: messageOf(error) }))
      else await self.read(name)
    }
    return self
  }

  private async read(name: string): Promise<void> {
    try {
      const record = JSON.parse(await readFile(join(this.root, name, 'volume.json'), 'utf8')) as StoredVolume
      if (record.version !== 1 || record.name !== name || !volumeName.test(name)) throw new Error('the record is of another volume')
      this.volumes.set(name, record)
      for (const left of await readdir(join(this.root, name))) if (left.startsWith('.copy-')) await removeTree(join(this.root, name, left))
    } catch (error) {
      // Data is never thrown away because a record is bad: it stays on the disk for its owner.
      log.error('a volume cannot be read and is left alone', { name, error: messageOf(error) })
    }
  }

  get(name: string): StoredVolume | undefined {
    return this.volumes.get(name)
  }

  all(): StoredVolume[] {
    return [...this.volumes.values()]
  }

  /** Where the content is: absolute, whether the volume exists or not. */
  mountpoint(name: string): string {
    if (!volumeName.test(name)) throw internal(`not a volume name: ${name.slice(0, 100)}`)
    return join(this.root, name, '_data')
  }

  /** Makes a volume; on the disk when this returns. On failure nothing is left. */
  async create(record: StoredVolume): Promise<void> {
    const final = join(this.mountpoint(record.name), '..')
    localMount(record.options)
    const temporary = join(this.root, `.new-${randomBytes(8).toString('hex')}`)
    await mkdir(temporary, { mode: 0o711 })
    try {
      await mkdir(join(temporary, '_data'), { mode: 0o755 })
      await writeFileAtomic(join(temporary, 'volume.json'), JSON.stringify(record))
      await rename(temporary, final)
    } catch (error) {
      await removeTree(temporary)
      throw error
    }
    await syncDirectory(this.root)
    this.volumes.set(record.name, record)
  }

  /** Removes a volume with its content. Nobody may be using it. */
  async remove(name: string): Promise<void> {
    const data = this.mountpoint(name)
    await this.unmount(name)
    const doomed = join(this.root, `.old-${randomBytes(8).toString('hex')}`)
    await rename(join(data, '..'), doomed)
    this.volumes.delete(name)
    await syncDirectory(this.root)
    await this.discard(doomed)
  }

  /** Deletes a directory of ours, but never what somebody has mounted in it: that may be the user's home. */
  private async discard(directory: string): Promise<void> {
    while (unmount(join(directory, '_data')));
    const below = (await listMounts(directory)).map((entry) => entry.target)
    if (below.length > 0) throw internal(`${below[0]} is still mounted: it is not deleted`)
    await removeTree(directory)
  }

  // mounts of driver options ---------------------------------------------------------------------------------

  /** A volume with driver options gets its file system now, if it has not got it yet. Throws what mount(2) says, in Docker's words. */
  async mount(name: string): Promise<void> {
    const wanted = localMount(this.volumes.get(name)?.options ?? {})
    if (!wanted) return
    const target = this.mountpoint(name)
    if (await this.isMounted(target)) return
    try {
      mount(wanted.source, target, wanted.fstype, wanted.flags & ~MS.RDONLY, wanted.data)
      // A bind mount takes flags only when it is there (mount(2)).
      if ((wanted.flags & MS.BIND) !== 0 && (wanted.flags & ~(MS.BIND | MS.REC)) !== 0) mount('none', target, '', MS.REMOUNT | MS.BIND | (wanted.flags & ~MS.REC), '')
      else if ((wanted.flags & MS.RDONLY) !== 0) mount('none', target, '', MS.REMOUNT | wanted.flags, wanted.data)
    } catch (error) {
      await this.unmount(name)
      throw Object.assign(new Error(`failed to mount local volume: mount ${wanted.source}:${target}${wanted.data ? `, data: ${wanted.data}` : ''}: ${messageOf(error)}`), { code: codeOf(error) })
    }
  }

  /** The last user has gone. */
  async unmount(name: string): Promise<void> {
    const target = this.mountpoint(name)
    if (!localMount(this.volumes.get(name)?.options ?? {})) return
    while (await unmountAsync(target));
  }

  private async isMounted(target: string): Promise<boolean> {
    return (await listMounts(target)).some((entry) => entry.target === target)
  }

  // subpaths --------------------------------------------------------------------------------------------------

  /** Where {@link bindSubpath} makes a part of a volume visible for one mount of a container. */
  subpathTarget(container: string, index: number): string {
    return join(this.subpaths, container, String(index))
  }

  /**
   * Binds `subpath` of a volume on {@link subpathTarget}. Whoever writes to the volume may have put links there: it is resolved as after chroot(volume), and what
   * was found is what is bound, whatever its name means later. Throws ENOENT and the like.
   */
  async bindSubpath(name: string, subpath: string, container: string, index: number): Promise<void> {
    const target = this.subpathTarget(container, index)
    const fd = openInRoot(this.mountpoint(name), subpath, O_PATH)
    try {
      const directory = (await stat(`/proc/self/fd/${fd}`)).isDirectory()
      await mkdir(join(this.subpaths, container), { recursive: true, mode: 0o711 })
      while (unmount(target));
      if (directory) await mkdir(target, { recursive: true, mode: 0o711 })
      else await (await open(target, 'a', 0o600)).close()
      mount(`/proc/self/fd/${fd}`, target, '', MS.BIND | MS.REC)
    } finally {
      closeSync(fd)
    }
  }

  /** Takes away all that {@link bindSubpath} made for a container. No error when there is nothing. */
  async releaseSubpaths(container: string): Promise<void> {
    const directory = join(this.subpaths, container)
    for (const name of await readdir(directory).catch(() => [])) {
      const target = join(directory, name)
      while (await unmountAsync(target));
      // An empty directory or an empty file; never more.
      await rmdir(target).catch(async (error: unknown) => {
        if (codeOf(error) !== 'ENOTDIR') throw error
        await unlink(target)
      })
    }
    await rmdir(directory).catch((error: unknown) => {
      if (codeOf(error) !== 'ENOENT') throw error
    })
  }

  /** Containers that have subpaths bound. */
  async subpathOwners(): Promise<string[]> {
    return readdir(this.subpaths)
  }

  // content ---------------------------------------------------------------------------------------------------

  /**
   * Fills a volume (or its subpath bound at `bound`) from what the image of `layers` has at `path`; one that has anything in it is left alone. `idle`: no container runs
   * with it. Then the copy is made beside it and takes its place in one step, so that a crash leaves all of it or nothing; else it is made in place, as Docker does it.
   */
  async populate(name: string, layers: readonly string[], path: string, { bound, idle }: { bound: string | undefined; idle: boolean }): Promise<void> {
    const directory = bound ?? this.mountpoint(name)
    if (layers.length === 0 || (await readdir(directory)).length > 0) return
    if (bound !== undefined || !idle || !isPlain(this.volumes.get(name)?.options ?? {})) {
      await copyUp(layers, path, directory, this.place)
      return
    }
    const staged = join(directory, '..', `.copy-${randomBytes(8).toString('hex')}`)
    await mkdir(staged, { mode: 0o755 })
    try {
      if (await copyUp(layers, path, staged, this.place)) await rename(staged, directory)
    } catch (error) {
      if (codeOf(error) !== 'ENOTEMPTY' && codeOf(error) !== 'EEXIST') throw error // somebody was faster: theirs stays
    } finally {
      await removeTree(staged)
    }
  }

  /** Bytes of a volume's files. */
  async size(name: string, signal?: AbortSignal): Promise<number> {
    return treeSize(this.mountpoint(name), signal)
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
