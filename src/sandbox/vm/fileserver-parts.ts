import { createHash, randomBytes } from 'node:crypto'
import { access, mkdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { constants } from 'node:fs'
import { join } from 'node:path'
import { codeOf, HullError } from '../../base/errors.js'
import { run } from '../../base/run.js'
import { installFile, LIBRARIES, libraryClosure, lockDirectories } from './jailroot.js'

/** Which virtiofsd: QEMU's own in C (until 7.2, Debian 12) or its successor in Rust (Debian 13). Their options differ. */
export type FileServerKind = 'c' | 'rust'

/** The file server of this host and the root file system of its jails. */
export interface FileServerParts {
  kind: FileServerKind
  /** As it says itself: 'virtiofsd 1.13.2'. */
  version: string
  /** On the host. */
  program: string
  /** Directory that holds the program and its libraries, and nothing else. */
  root: string
}

/** Where things are inside the file server's jail. */
export const FILE_SERVER_PATHS = { program: '/virtiofsd', shares: '/shares' } as const

/** Descriptor of its listening socket: the first that hull-monitor and crun hand down. */
const LISTENER_FD = 3

const programs = ['/usr/libexec/virtiofsd', '/usr/lib/qemu/virtiofsd']

async function locate(): Promise<string> {
  for (const path of programs) {
    try {
      await access(path, constants.X_OK)
      return path
    } catch {
      // the next
    }
  }
  throw new HullError(500, 'isolation vm: volumes and bind mounts need virtiofsd: apt-get install virtiofsd (Debian 13) or qemu-system-common (Debian 12)')
}

/**
 * Finds virtiofsd and makes its jail's root below `directory`, once for each version. Throws a HullError that says what to install.
 */
export async function findFileServer(directory: string, program?: string): Promise<FileServerParts> {
  const path = program ?? (await locate())
  const said = await run(path, ['--version'], { timeoutMs: 10_000 })
  const version = (said.stdout || said.stderr).split('\n', 1)[0]!.trim()
  const kind: FileServerKind = /^virtiofsd \d/.test(version) ? 'rust' : 'c' // 'virtiofsd 1.13.2', 'virtiofsd version 7.2.22 (Debian …)'
  const closure = await libraryClosure([path])
  const hash = createHash('sha256').update('files 1\n')
  for (const file of [path, closure.loader, ...closure.libraries.values()]) {
    const s = await stat(file)
    hash.update(`${file}\0${s.size}\0${s.mtimeMs}\0${s.ino}\n`)
  }
  const root = join(directory, `files-${hash.digest('hex').slice(0, 24)}`)
  const parts = { kind, version, program: path, root }
  if (await stat(root).catch(() => undefined)) return parts
  const temporary = join(directory, `tmp-${randomBytes(6).toString('hex')}`)
  try {
    await mkdir(temporary, { recursive: true, mode: 0o755 })
    await installFile(path, join(temporary, FILE_SERVER_PATHS.program), 0o555)
    await installFile(closure.loader, join(temporary, closure.loader), 0o555)
    for (const [name, library] of closure.libraries) await installFile(library, join(temporary, LIBRARIES, name), 0o444)
    for (const point of ['dev', 'proc', FILE_SERVER_PATHS.shares]) await mkdir(join(temporary, point), { mode: 0o555 })
    await lockDirectories(temporary)
    await rename(temporary, root)
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    if (!['ENOTEMPTY', 'EEXIST'].includes(codeOf(error) ?? '')) throw error // another start was faster
  }
  return parts
}

/** Whether the guest's kernel lets a file be mapped that it does not cache (FUSE_DIRECT_IO_ALLOW_MMAP, Linux 6.6). */
async function mapsUncached(guestDir: string): Promise<boolean> {
  const manifest = await readFile(join(guestDir, 'manifest'), 'utf8').catch(() => '')
  const [, major = '0', minor = '0'] = /^kernel=(\d+)\.(\d+)/m.exec(manifest) ?? []
  return Number(major) > 6 || (Number(major) === 6 && Number(minor) >= 6)
}

/**
 * argv. What the guest may believe without asking: nothing. Names and attributes are asked for each time, and pages are thrown away at each open and whenever a
 * file's time or size has changed, so each side sees what the other wrote. Not "no cache": then a file cannot be mapped shared (SQLite's WAL), but for
 * guest kernels and servers that can do both. Locks are the guest's own (docs/decisions/0007-virtiofs.md).
 */
export async function fileServerArguments(parts: FileServerParts, guestDir: string): Promise<string[]> {
  const { program, shares } = FILE_SERVER_PATHS
  if (parts.kind === 'c') {
    const options = [`source=${shares}`, 'sandbox=chroot', 'cache=auto', 'timeout=0', 'no_readdirplus', 'xattr', 'announce_submounts', 'no_posix_lock', 'no_flock', 'log_level=err']
    return [program, `--fd=${LISTENER_FD}`, '-f', '--rlimit-nofile=0', ...options.flatMap((option) => ['-o', option])]
  }
  const direct = await mapsUncached(guestDir)
  return [
    program, `--fd=${LISTENER_FD}`, `--shared-dir=${shares}`, '--sandbox=chroot', ...(direct ? ['--cache=never', '--allow-mmap'] : ['--cache=auto']), '--no-readdirplus', '--xattr',
    '--announce-submounts', '--inode-file-handles=never', '--rlimit-nofile=0', '--log-level=error',
  ]
}
