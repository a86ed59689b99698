import { randomBytes } from 'node:crypto'
import { closeSync, fstatSync } from 'node:fs'
import { mkdir, readdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, HullError } from '../base/errors.js'
import { run } from '../base/run.js'
import { mount, MS, mountOverlay, unmount } from '../host/mount.js'
import { O_PATH, openInRoot } from '../host/paths.js'
import { layerOptions } from './snapshots.js'

/** Where the copying is done. */
export interface CopyUpPlace {
  /** Scratch directory for mount points, gone after a boot. */
  scratch: string
  /** An empty directory: overlayfs wants two layers. */
  empty: string
  /** A shorter name for a layer's directory, if there is one. */
  shorten: (layer: string) => string
}

/** Removes the mount points that an interrupted daemon left in `scratch`. */
export async function cleanScratch(scratch: string): Promise<void> {
  await mkdir(scratch, { recursive: true, mode: 0o700 })
  for (const name of await readdir(scratch)) await removeScratch(join(scratch, name))
}

async function removeScratch(directory: string): Promise<void> {
  for (const name of ['from', 'to', 'root']) {
    const path = join(directory, name)
    while (unmount(path));
    // Never recursive: had a mount stayed, that would delete what is below it.
    await rmdir(path).catch((error: unknown) => {
      if (codeOf(error) !== 'ENOENT') throw error
    })
  }
  await rmdir(directory)
}

/**
 * Copies what the image of `layers` has at `path` into the directory `target`, owner, mode, times, extended attributes and hard links included,
 * the directory's own too: what Docker does for a volume at its first use. False: the image has no directory there, and nothing happened.
 *
 * The image is hostile: `path` is resolved as after chroot(image), and what is found there is bound and copied by a cp(1) that sees nothing but the two
 * directories, without network, with the capabilities that copying takes.
 */
export async function copyUp(layers: readonly string[], path: string, target: string, place: CopyUpPlace): Promise<boolean> {
  const directory = join(place.scratch, randomBytes(8).toString('hex'))
  const [root, from, to] = ['root', 'from', 'to'].map((name) => join(directory, name)) as [string, string, string]
  await mkdir(directory, { mode: 0o700 })
  try {
    for (const name of [root, from, to]) await mkdir(name, { mode: 0o700 })
    const quiet = MS.RDONLY | MS.NODEV | MS.NOSUID | MS.NOEXEC
    await mountOverlay({ lower: [place.empty, ...layers.map(place.shorten)], target: root, flags: quiet, options: [...layerOptions] })
    const source = openDirectory(root, path)
    if (source === undefined) return false
    try {
      mount(`/proc/self/fd/${source}`, from, '', MS.BIND)
    } finally {
      closeSync(source)
    }
    mount(target, to, '', MS.BIND)
    await copy(from, to)
    return true
  } finally {
    await removeScratch(directory)
  }
}

function openDirectory(root: string, path: string): number | undefined {
  let fd: number
  try {
    fd = openInRoot(root, path, O_PATH)
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(codeOf(error) ?? '')) return undefined
    throw error
  }
  if (fstatSync(fd).isDirectory()) return fd
  closeSync(fd)
  return undefined
}

async function copy(from: string, to: string): Promise<void> {
  const capabilities = ['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'MKNOD', 'SETFCAP'].flatMap((name) => ['--cap-add', `CAP_${name}`])
  const result = await run('bwrap', [
    '--unshare-ipc', '--unshare-pid', '--unshare-net', '--unshare-uts', '--unshare-cgroup-try', '--die-with-parent', '--new-session',
    '--cap-drop', 'ALL', ...capabilities, '--clearenv', '--setenv', 'PATH', '/usr/bin', '--setenv', 'LC_ALL', 'C',
    '--ro-bind', '/usr', '/usr', '--symlink', 'usr/lib', '/lib', '--symlink', 'usr/lib64', '/lib64',
    '--ro-bind', from, '/from', '--bind', to, '/to', '--chdir', '/',
    'cp', '-a', '--reflink=auto', '--sparse=auto', '/from/.', '/to',
  ])
  if (result.code === 0) return
  const said = (result.stderr || result.stdout).trim().slice(-500)
  const words = /No space left/.test(said) ? 'no space left on device' : said || `cp: ${result.signal ?? result.code}`
  throw new HullError(500, `cannot copy the image's content into the volume: ${words}`)
}
