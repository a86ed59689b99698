import { createHash, randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { access, chmod, copyFile, mkdir, open, readdir, readFile, realpath, rename, rm, stat } from 'node:fs/promises'
import { delimiter, dirname, join } from 'node:path'
import { codeOf, HullError } from '../../base/errors.js'
import { log } from '../../base/log.js'
import { runOk } from '../../base/run.js'
import { loadedLibraries } from '../../host/loader.js'
import { disarm, neededWithout } from '../../oci/disarm.js'
import { NEVER_CALLED } from './never-called.js'
import { JAIL_PATHS } from './qemu.js'

/** Where the parts of a VM lie on the host. */
export interface VmParts {
  qemu: string
  /** QEMU's loadable TCG accelerator (Debian builds it as a module); absent when it is built in. */
  tcgModule?: string
  /** Firmware that QEMU opens on this machine type, by name. */
  firmware: Record<string, string>
  supervisor: string
  /** What is loaded into a clone's QEMU. */
  discard: string
  kernel: string
  initrd: string
}

/**
 * The firmware files that QEMU really opens for q35 with a PVH kernel (strace of 7.2): SeaBIOS, the PVH option ROM that enters the kernel,
 * and the APIC patcher, which the machine type names whatever the accelerator.
 */
export const FIRMWARE = ['bios-256k.bin', 'pvh.bin', 'kvmvapic.bin'] as const
const FIRMWARE_DIRECTORIES = ['/usr/share/seabios', '/usr/share/qemu']
const MODULE_DIRECTORIES = ['/usr/lib/x86_64-linux-gnu/qemu', '/usr/lib/qemu']
/** The dynamic loader's default directory on Debian (amd64): no cache and no environment variable is needed to find libraries there. */
export const LIBRARIES = '/lib/x86_64-linux-gnu'

const missing = (what: string, package_: string) =>
  new HullError(500, `isolation vm: ${what} is missing; install it with \`apt-get install ${package_}\` or run \`make setup\` in Hull's source tree`)

async function firstExisting(paths: string[]): Promise<string | undefined> {
  for (const path of paths) {
    try {
      await access(path, constants.R_OK)
      return path
    } catch {
      // the next
    }
  }
  return undefined
}

/** Finds QEMU, its firmware and our guest build. Throws a HullError that says what to install. */
export async function findVmParts(guestDir: string, qemuName = 'qemu-system-x86_64', searchPath = process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin'): Promise<VmParts> {
  const candidates = qemuName.includes('/') ? [qemuName] : searchPath.split(delimiter).filter((d) => d.startsWith('/')).map((d) => join(d, qemuName))
  const qemu = await firstExisting(candidates)
  if (!qemu) throw missing(`QEMU (${qemuName})`, 'qemu-system-x86')
  const firmware: Record<string, string> = {}
  for (const name of FIRMWARE) {
    const path = await firstExisting(FIRMWARE_DIRECTORIES.map((directory) => join(directory, name)))
    if (!path) throw missing(`QEMU's firmware ${name}`, 'qemu-system-data seabios')
    firmware[name] = path
  }
  const part = async (name: string) => {
    const path = join(guestDir, name)
    if (!(await firstExisting([path]))) throw new HullError(500, `isolation vm: ${path} is missing; run \`make setup build\` in Hull's source tree`)
    return path
  }
  const tcgModule = await firstExisting(MODULE_DIRECTORIES.map((directory) => join(directory, 'accel-tcg-x86_64.so')))
  return {
    qemu, firmware,
    ...(tcgModule ? { tcgModule } : {}),
    supervisor: await part('hull-vmm'), discard: await part('hull-discard.so'), kernel: await part('vmlinux'), initrd: await part('initrd.cpio'),
  }
}

/**
 * Name of this set of files, from each file's path, size, modification time and inode: a package upgrade (of a library too) or a new build gives
 * another name.
 */
export async function fingerprint(parts: VmParts, closure: LibraryClosure): Promise<string> {
  const hash = createHash('sha256').update('jail 4\n')
  const files = [...programs(parts), parts.supervisor, parts.discard, parts.kernel, parts.initrd, ...Object.values(parts.firmware), closure.loader, ...closure.libraries.values()]
  for (const [index, s] of (await Promise.all(files.map((file) => stat(file)))).entries()) {
    hash.update(`${files[index]}\0${s.size}\0${s.mtimeMs}\0${s.ino}\n`)
  }
  return hash.digest('hex').slice(0, 24)
}

const programs = (parts: VmParts) => [parts.qemu, ...(parts.tcgModule ? [parts.tcgModule] : [])]

/** What a set of programs needs of the dynamic loader. */
export interface LibraryClosure {
  loader: string
  /** name → host path */
  libraries: Map<string, string>
}

/** Shared libraries that these programs load. */
export async function libraryClosure(programs: string[]): Promise<LibraryClosure> {
  const loader = '/lib64/ld-linux-x86-64.so.2'
  const libraries = new Map<string, string>()
  for (const program of programs) {
    for (const [name, path] of await loadedLibraries(loader, program)) {
      if (path === undefined) throw new HullError(500, `isolation vm: ${program}: library ${name} not found; reinstall the package qemu-system-x86`)
      if (path !== loader) libraries.set(name, path)
    }
  }
  return { loader, libraries }
}

/** A copy of its own (never a link: a change to the host's file must not reach a running jail), root's, not writable, on disk. */
export async function installFile(from: string, to: string, mode: number): Promise<void> {
  await mkdir(dirname(to), { recursive: true, mode: 0o755 })
  await copyFile(await realpath(from), to, constants.COPYFILE_EXCL)
  await chmod(to, mode)
  const file = await open(to, 'r')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

/** What of a closure the programs need in a machine of ours, and the content of those libraries that are there for their names alone ({@link disarm}). */
async function librariesOf(parts: VmParts, libraries: LibraryClosure['libraries']): Promise<Map<string, { path: string; disarmed?: Buffer }>> {
  const { stdout } = await runOk(parts.qemu, ['--version'], { env: { PATH: '/usr/bin:/bin' }, timeoutMs: 10_000 })
  const never = NEVER_CALLED[/^QEMU emulator version (\d+\.\d+)\./.exec(stdout)?.[1] ?? '']
  if (!never) return new Map([...libraries].map(([name, path]) => [name, { path }]))
  const contents = new Map(await Promise.all([...libraries].map(async ([name, path]) => [name, await readFile(path)] as const)))
  const needed = neededWithout(await Promise.all(programs(parts).map((path) => readFile(path))), (name) => contents.get(name), new Set(never))
  return new Map([...libraries].flatMap(([name, path]) => {
    const unused = needed.get(name)
    return unused === undefined ? [] : [[name, { path, ...(unused ? { disarmed: disarm(contents.get(name)!) } : {}) }] as const]
  }))
}

/** Of a file that {@link installFile} made. */
async function replaceContent(path: string, content: Buffer): Promise<void> {
  const file = await open(path, 'r+')
  try {
    await file.writeFile(content)
    await file.sync()
  } finally {
    await file.close()
  }
}

async function populate(root: string, parts: VmParts, { loader, libraries }: LibraryClosure): Promise<void> {
  const at = (path: string) => join(root, path)
  await installFile(parts.qemu, at(JAIL_PATHS.qemu), 0o555)
  await installFile(parts.supervisor, at(JAIL_PATHS.supervisor), 0o555)
  await installFile(parts.discard, at(JAIL_PATHS.discard), 0o444)
  await installFile(parts.kernel, at(JAIL_PATHS.kernel), 0o444)
  await installFile(parts.initrd, at(JAIL_PATHS.initrd), 0o444)
  for (const [name, path] of Object.entries(parts.firmware)) await installFile(path, at(join(JAIL_PATHS.firmware, name)), 0o444)
  if (parts.tcgModule) await installFile(parts.tcgModule, at(join(JAIL_PATHS.modules, 'accel-tcg-x86_64.so')), 0o444)
  await installFile(loader, at(loader), 0o555)
  for (const [name, { path, disarmed }] of await librariesOf(parts, libraries)) {
    const to = at(join(LIBRARIES, name))
    await installFile(path, to, 0o444)
    if (disarmed) await replaceContent(to, disarmed)
  }
  // Mount points: the file system is read-only when the runtime mounts over them.
  for (const directory of ['dev', 'proc', JAIL_PATHS.directory]) await mkdir(at(directory), { recursive: true, mode: 0o555 })
  for (const file of [JAIL_PATHS.image, JAIL_PATHS.disk]) await (await open(at(file), 'wx', 0o444)).close()
}

/**
 * The jail's root file system below `directory`: only the files that QEMU opens. Made once for each set of parts, in a temporary directory
 * that is renamed when it is whole, so that a crash never leaves a half jail under its final name.
 */
export async function ensureJailRoot(directory: string, parts: VmParts): Promise<string> {
  const closure = await libraryClosure(programs(parts))
  const final = join(directory, `jail-${await fingerprint(parts, closure)}`)
  if (await firstExisting([final])) return final
  await mkdir(directory, { recursive: true, mode: 0o711 })
  const temporary = join(directory, `tmp-${randomBytes(6).toString('hex')}`)
  try {
    await mkdir(temporary, { mode: 0o755 })
    await populate(temporary, parts, closure)
    await lockDirectories(temporary)
    await rename(temporary, final)
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    // Another start was faster: its jail is as good as ours.
    if (['ENOTEMPTY', 'EEXIST'].includes(codeOf(error) ?? '') && (await firstExisting([final]))) return final
    throw error
  }
  log.info('made the jail for virtual machines', { path: final })
  return final
}

/** Directories of a jail's root are nobody's to write to. */
export async function lockDirectories(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) await lockDirectories(join(directory, entry.name))
  }
  await chmod(directory, 0o555)
}

/** Paths of all jails' roots, and of what a crash left of one half made. */
export async function jailRootsIn(directory: string): Promise<string[]> {
  const names = await readdir(directory).catch(() => [])
  return names.filter((name) => /^(jail|files|tmp)-[0-9a-f]+$/.test(name)).map((name) => join(directory, name))
}
