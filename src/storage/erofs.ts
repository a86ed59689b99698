import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readdir, rename, rm, rmdir, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, HullError, internal } from '../base/errors.js'
import { run } from '../base/run.js'
import { MS, mountOverlay, unmount } from '../host/mount.js'
import { Flights } from '../base/flights.js'
import type { Layers } from './layers.js'
import { layerOptions } from './snapshots.js'
import type { ErofsStore } from './types.js'

const chainPattern = /^sha256:[0-9a-f]{64}$/

/** Read-only disk images for VMs: one EROFS file per chain of layers below `dataRoot/erofs`, made when it is first asked for. */
export class ErofsImages implements ErofsStore {
  private readonly flights = new Flights<string>()

  private constructor(
    private readonly root: string,
    private readonly mounts: string,
    private readonly layers: Layers,
    private readonly sizes: readonly number[],
  ) {}

  /** Removes what an interrupted build left, its mounts included. `sizes`, ascending, bytes: a file is made as long as the first that holds it; the rest of it is a hole. */
  static async open(dataRoot: string, execRoot: string, layers: Layers, sizes: readonly number[] = []): Promise<ErofsImages> {
    const root = join(dataRoot, 'erofs')
    const mounts = join(execRoot, 'erofs')
    await mkdir(join(root, 'empty'), { recursive: true, mode: 0o711 })
    await mkdir(mounts, { recursive: true, mode: 0o700 })
    for (const name of await readdir(mounts)) await removeMountPoint(join(mounts, name))
    for (const name of await readdir(root)) {
      if (name !== 'empty' && !/^[0-9a-f]{64}\.erofs$/.test(name)) await rm(join(root, name), { recursive: true, force: true })
    }
    const images = new ErofsImages(root, mounts, layers, sizes)
    // Those of a version that knew of no sizes.
    for (const name of await readdir(root)) if (name.endsWith('.erofs')) await images.lengthen(join(root, name))
    return images
  }

  private path(chainId: string): string {
    return join(this.root, `${chainId.slice('sha256:'.length)}.erofs`)
  }

  async erofsFor(chainId: string, layers: readonly string[]): Promise<string> {
    if (!chainPattern.test(chainId)) throw internal(`not a chain id: ${chainId.slice(0, 100)}`)
    const path = this.path(chainId)
    if (await exists(path)) return path
    return this.flights.run(chainId, async () => {
      if (!(await exists(path))) await this.build(path, layers)
      return path
    })
  }

  private async build(path: string, layers: readonly string[]): Promise<void> {
    const name = randomBytes(8).toString('hex')
    const tree = join(this.mounts, name)
    const output = join(this.root, `tmp-${name}`)
    await mkdir(tree, { mode: 0o700 })
    try {
      await mkdir(output, { mode: 0o700 })
      // The empty directory below all: overlayfs wants two layers, and even a lone one may hold whiteouts.
      const short = layers.map((dir) => this.layers.linkOf(dir) ?? dir)
      await mountOverlay({ lower: [join(this.root, 'empty'), ...short], target: tree, flags: MS.RDONLY | MS.NODEV | MS.NOSUID | MS.NOEXEC, options: [...layerOptions] })
      await makeErofs(tree, output)
      await this.lengthen(join(output, 'image'))
      await chmod(join(output, 'image'), 0o444)
      await rename(join(output, 'image'), path)
    } finally {
      await removeMountPoint(tree)
      await rm(output, { recursive: true, force: true })
    }
  }

  private async lengthen(path: string): Promise<void> {
    const { size } = await stat(path)
    const wanted = this.sizes.find((one) => one >= size)
    if (wanted !== undefined && wanted !== size) await truncate(path, wanted)
  }

  async collectGarbage(chainIds: ReadonlySet<string>): Promise<void> {
    for (const name of await readdir(this.root)) {
      const match = /^([0-9a-f]{64})\.erofs$/.exec(name)
      if (match !== null && !chainIds.has(`sha256:${match[1]}`)) await rm(join(this.root, name), { force: true })
    }
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile()
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false
    throw error
  }
}

async function removeMountPoint(path: string): Promise<void> {
  unmount(path)
  // Never recursive: had the mount stayed, that would delete layers.
  await rmdir(path)
}

/**
 * mkfs.erofs reads a tree that strangers wrote: it runs in namespaces of its own, without network, sees programs, the tree (read-only) and
 * its output directory, and may do no more than read files of all owners. Not in a user namespace, which would change the owners that it sees.
 */
async function makeErofs(tree: string, output: string): Promise<void> {
  const result = await run('bwrap', [
    '--unshare-ipc', '--unshare-pid', '--unshare-net', '--unshare-uts', '--unshare-cgroup-try', '--die-with-parent', '--new-session',
    '--cap-drop', 'ALL', '--cap-add', 'CAP_DAC_READ_SEARCH', '--clearenv', '--setenv', 'PATH', '/usr/sbin:/usr/bin',
    '--ro-bind', '/usr', '/usr', '--symlink', 'usr/lib', '/lib', '--symlink', 'usr/lib64', '/lib64', '--dev', '/dev',
    '--ro-bind', tree, '/tree', '--bind', output, '/out', '--chdir', '/',
    // Files as they are, never inlined into metadata: DAX maps whole pages.
    'mkfs.erofs', '-E', 'noinline_data', '/out/image', '/tree',
  ])
  if (result.code === 0) return
  const said = (result.stderr || result.stdout).trim().slice(-1000)
  throw new HullError(500, `the image cannot be made into a disk: mkfs.erofs: ${result.signal ?? `exit code ${result.code}`}: ${said}`)
}
