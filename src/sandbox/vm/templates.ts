import { createHash, randomBytes } from 'node:crypto'
import { closeSync, openSync } from 'node:fs'
import { access, mkdir, open, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { release } from 'node:os'
import { basename, join } from 'node:path'
import { messageOf } from '../../base/errors.js'
import { log } from '../../base/log.js'
import { sealedCopy } from '../../host/memory.js'
import { JAIL_PATHS, PLACEHOLDER, PLACEHOLDER_MAC, qemuArguments, type Accelerator, type Machine } from './qemu.js'
import { buildTemplate, DISK_FILE, MEMORY_FILE, STATE_FILE } from './templatebuild.js'
import { hashOfContent, type DiskContent, type VmDisks } from './disks.js'

/** What must be the same in a template and its clones, besides the programs. */
export interface TemplateShape {
  accelerator: Accelerator
  /** As in {@link Machine}. */
  tscKhz?: number
  vcpus: number
  /** bytes */
  ram: number
  /** There is a network card. */
  network: boolean
  /** Bytes of persistent memory that an image fills; 0: it is a block device. */
  image: number
  /** Bytes of the new disk that the machine has mounted; 0: none, its place is kept. */
  disk: number
  /** The image that is mounted, and under the disk by overlayfs, with {@link disk}; absent: any image can take its place. */
  root?: { path: string; identity: string }
}

/** What a clone inherits: descriptors that are the taker's to close. */
export interface Template {
  key: string
  /** The image's own: it is mounted. */
  own: boolean
  state: number
  memory: number
  /** What the clone's disk must be; undefined: anything. */
  disk?: DiskContent
}

interface Stamp {
  version: 2
  key: string
  /** Name of the jail's root: stands for QEMU, its libraries, firmware, kernel, initrd and hull-vmm. */
  jail: string
  /** bytes */
  ram: number
  stateSha256: string
  /** {@link hashOfContent}; '' without a disk. */
  diskSha256: string
  /** The image that is mounted; '': none. */
  image: string
}

interface Loaded {
  memory: number
  disk?: DiskContent
}

/** A template in memory, or on its way there. */
interface Held {
  readonly loaded: Promise<Loaded>
  /** Who waits for it or duplicates its descriptor: while there are any it is not closed. */
  users: number
  /** In no list any more: closed when its last user has done. */
  dropped: boolean
  closed: boolean
}

/** Of larger machines no template is made: they are rare, and each template lies in memory. */
const MAX_RAM = 2 ** 31
/** Templates in memory at once; a further one takes the place of the one that was used longest ago. */
const MAX_OPEN = 6
/** Templates on disk, some 90 MB each: who gives every VM another size has no use of more. */
const MAX_KEPT = 12
/** Milliseconds after the first wish for a template: the VM that wished for it boots meanwhile, and should not wait for a processor. */
const BUILD_DELAY = 2_500
/** Starts of one image from a template of any image that make it worth one of its own: who is run once or twice needs none. */
const WORTHWHILE = 2
/** Images whose starts are counted. */
const MAX_COUNTED = 64
/** Milliseconds before a build that failed is tried again. */
const RETRY_DELAY = 300_000

/** The machine that a template of this shape is made of, in its jail. */
export function templateMachine(shape: TemplateShape, fds: { agent: number; qmp: number; tap: number }): Machine {
  const file = (name: string) => join(JAIL_PATHS.directory, name)
  return {
    accelerator: shape.accelerator, ...(shape.tscKhz === undefined ? {} : { tscKhz: shape.tscKhz }), vcpus: shape.vcpus, ram: shape.ram,
    kernel: JAIL_PATHS.kernel, initrd: JAIL_PATHS.initrd, firmware: JAIL_PATHS.firmware, agentFd: fds.agent,
    image: shape.root ? JAIL_PATHS.image : PLACEHOLDER, imageSlot: shape.image, disk: shape.disk > 0 ? file(DISK_FILE) : PLACEHOLDER, ...(shape.network ? { network: { fd: fds.tap, mac: PLACEHOLDER_MAC } } : {}),
    memory: { use: 'template', path: file(MEMORY_FILE), qmpFd: fds.qmp },
  }
}

/** Of an image's file: a template's kernel has read some of it, and believes it to be still the same. */
export async function imageRoot(path: string): Promise<NonNullable<TemplateShape['root']> & { size: number }> {
  const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true })
  return { path, size: Number(size), identity: [basename(path), dev, ino, size, mtimeNs, ctimeNs].join(' ') }
}

/**
 * Memory templates below `directory`: machines of our own kernel and agent, stopped just before the agent was told who it is. One for each set of programs, command line,
 * size, processor and host kernel, with a new disk mounted or with none, and of images that are started again and again one each, with the image mounted as well; made in the background at the first wish, kept on disk, and in memory as a sealed copy that clones map privately. docs/decisions/0013-templates.md.
 */
export class Templates {
  /** Sealed memory by key, used longest ago first. */
  private readonly open = new Map<string, Held>()
  private readonly building = new Map<string, NodeJS.Timeout | Promise<void>>()
  private readonly failed = new Map<string, number>()
  /** Starts without the image's own template by its key, the one of longest ago first. */
  private readonly starts = new Map<string, number>()
  private queue: Promise<void> = Promise.resolve()
  private readonly stopped = new AbortController()

  constructor(
    private readonly directory: string,
    private readonly disks: VmDisks,
    private readonly ownAfter = WORTHWHILE,
  ) {}

  /**
   * The template of a shape if there is one by now: the image's own, or else one of any image. If there is none one is built in the background and the caller boots. `jailRoot` stands for QEMU, its libraries, firmware, kernel,
   * initrd and hull-vmm, and has them.
   */
  async take(shape: TemplateShape, jailRoot: string): Promise<Template | undefined> {
    if (shape.ram > MAX_RAM || this.stopped.signal.aborted) return undefined
    const { root, ...any } = shape
    const own = root === undefined ? undefined : await templateKey(shape, jailRoot)
    const mine = own === undefined ? undefined : await this.takeKey(own, true)
    if (mine) return mine
    const key = await templateKey(any, jailRoot)
    const template = await this.takeKey(key, false)
    if (!template) this.want(key, any, jailRoot)
    else if (own !== undefined && this.countStart(own) >= this.ownAfter) this.want(own, shape, jailRoot)
    return template
  }

  private async takeKey(key: string, own: boolean): Promise<Template | undefined> {
    let held: Held | undefined
    try {
      held = await this.hold(key)
      const loaded = await held?.loaded
      // Forgotten meanwhile: the files below its name are gone, or another template's.
      if (!loaded || held?.dropped) return undefined
      // Its own of both: reading the state moves its offset, and the store lets go of the memory when nobody holds it.
      return { key, own, ...openBoth(join(this.directory, key, STATE_FILE), `/proc/self/fd/${loaded.memory}`), ...(loaded.disk ? { disk: loaded.disk } : {}) }
    } catch (error) {
      if (held?.dropped) return undefined // somebody else has found it out
      log.warn('a memory template cannot be used and is made again', { key, error: messageOf(error) })
      await this.forget(key)
    } finally {
      if (held) await this.release(held)
    }
    return undefined
  }

  private countStart(key: string): number {
    const count = (this.starts.get(key) ?? 0) + 1
    this.starts.delete(key)
    this.starts.set(key, count)
    if (this.starts.size > MAX_COUNTED) this.starts.delete(this.starts.keys().next().value!)
    return count
  }

  /** A clone of it did not come to life: it is not used again. */
  async distrust(key: string): Promise<void> {
    log.error('a memory template did not come to life and is made again', { key })
    await this.forget(key)
    this.failed.set(key, Date.now()) // not at once: if it is not the template's fault it would be built for ever
  }

  /** Resolves when nothing is being built. For tests. */
  async idle(): Promise<void> {
    while (this.building.size > 0) await Promise.all([...this.building.values()].map((one) => (one instanceof Promise ? one : new Promise((done) => setTimeout(done, 50)))))
  }

  /** Ends what is being built, and what would be: whoever waits for {@link idle} has it soon. */
  stop(): void {
    this.stopped.abort()
    for (const [key, one] of this.building) {
      if (one instanceof Promise) continue
      clearTimeout(one)
      this.building.delete(key)
    }
  }

  /** {@link stop}, and lets go of the memory. */
  async close(): Promise<void> {
    this.stop()
    await this.queue.catch(() => {})
    await Promise.all([...this.open].map(([key, held]) => this.drop(key, held)))
  }

  /** What lies in the templates' directory. */
  names(): Promise<string[]> {
    return readdir(this.directory).catch(() => [])
  }

  /** Removes those of `names` that are templates of other programs than these or of images that are gone, or what a daemon left half made. For the start of the daemon. */
  async collect(jailRoot: string, names: readonly string[]): Promise<void> {
    for (const name of names) {
      const stamp = await readStamp(join(this.directory, name)).catch(() => undefined)
      if ((stamp?.jail !== basename(jailRoot) || (await isStale(stamp))) && !this.open.has(name) && !this.building.has(name)) await rm(join(this.directory, name), { recursive: true, force: true })
    }
  }

  /** The template in memory, with the caller among its users: {@link release} must follow. Found and counted in one go, so that nobody drops it in between. */
  private async hold(key: string): Promise<Held | undefined> {
    const known = this.open.get(key)
    if (known) {
      this.open.delete(key)
      this.open.set(key, known)
      known.users++
      return known
    }
    if (this.building.has(key)) return undefined
    const directory = join(this.directory, key)
    const stamp = await readStamp(directory)
    if (stamp === undefined || this.stopped.signal.aborted) return undefined
    const again = this.open.get(key) // somebody else read it meanwhile
    if (again) {
      again.users++
      return again
    }
    const held: Held = { loaded: load(directory, key, stamp, this.disks), users: 1, dropped: false, closed: false }
    held.loaded.catch(() => {}) // its users see it
    this.open.set(key, held)
    return held
  }

  private async release(held: Held): Promise<void> {
    held.users--
    if (held.dropped) await letGo(held)
    this.makeRoom()
  }

  /** Those of images that are gone, and those that were made or read into memory longest ago, make room on the disk. */
  private async dropOldest(): Promise<void> {
    const names = (await readdir(this.directory)).filter((name) => /^[0-9a-f]{32}$/.test(name))
    for (const name of names) {
      const stamp = await readStamp(join(this.directory, name)).catch(() => undefined)
      if (stamp && (await isStale(stamp))) await this.forget(name)
    }
    const ages = await Promise.all(names.map(async (name) => ({ name, at: (await stat(join(this.directory, name, 'stamp.json')).catch(() => ({ mtimeMs: 0 }))).mtimeMs })))
    for (const { name } of ages.sort((a, b) => b.at - a.at).slice(MAX_KEPT)) await this.forget(name)
  }

  /** Clones keep their mapping of a memory that is closed here. Those that are being loaded stay, though they be too many: each has somebody who waits for it. */
  private makeRoom(): void {
    for (const [key, held] of this.open) {
      if (this.open.size <= MAX_OPEN) return
      if (held.users === 0) void this.drop(key, held)
    }
  }

  /** Resolves when its memory is closed, or its users are to close it. */
  private async drop(key: string, held: Held): Promise<void> {
    held.dropped = true
    this.open.delete(key)
    await letGo(held)
  }

  private async forget(key: string): Promise<void> {
    const held = this.open.get(key)
    if (held) await this.drop(key, held)
    await rm(join(this.directory, key), { recursive: true, force: true })
  }

  private want(key: string, shape: TemplateShape, jailRoot: string): void {
    if (this.stopped.signal.aborted || this.building.has(key) || Date.now() - (this.failed.get(key) ?? -Infinity) < RETRY_DELAY) return
    const timer = setTimeout(() => {
      this.queue = this.queue.then(() => this.build(key, shape, jailRoot))
      this.building.set(key, this.queue)
    }, BUILD_DELAY)
    timer.unref()
    this.building.set(key, timer)
  }

  /** One at a time. Never rejects. */
  private async build(key: string, shape: TemplateShape, jailRoot: string): Promise<void> {
    const temporary = join(this.directory, `tmp-${randomBytes(6).toString('hex')}`)
    try {
      if (this.stopped.signal.aborted) return
      await mkdir(temporary, { recursive: true, mode: 0o700 })
      const started = performance.now()
      if (shape.disk > 0) await this.disks.make(join(temporary, DISK_FILE), shape.disk, 0)
      const { stateSha256 } = await buildTemplate(temporary, shape, jailRoot, this.stopped.signal)
      const diskSha256 = shape.disk > 0 ? hashOfContent(await this.disks.content(join(temporary, DISK_FILE))) : ''
      const stamp: Stamp = { version: 2, key, jail: basename(jailRoot), ram: shape.ram, stateSha256, diskSha256, image: shape.root?.path ?? '' }
      if (shape.root && (await imageRoot(shape.root.path)).identity !== shape.root.identity) throw new Error('its image has changed')
      await writeFile(join(temporary, 'stamp.json'), JSON.stringify(stamp), { mode: 0o600 })
      for (const name of [MEMORY_FILE, STATE_FILE, ...(shape.disk > 0 ? [DISK_FILE] : []), 'stamp.json', '.']) await sync(join(temporary, name))
      await rm(join(this.directory, key), { recursive: true, force: true })
      await rename(temporary, join(this.directory, key))
      await this.dropOldest()
      const { root, ...facts } = shape
      log.info('made a memory template for virtual machines', { key, ...facts, ...(root ? { root: root.path } : {}), milliseconds: Math.round(performance.now() - started) })
    } catch (error) {
      if (!this.stopped.signal.aborted) {
        this.failed.set(key, Date.now())
        log.warn('cannot make a memory template: virtual machines of this shape boot', { key, error: messageOf(error) })
      }
    } finally {
      this.building.delete(key)
      await rm(temporary, { recursive: true, force: true }).catch((error: unknown) => log.warn('cannot remove a directory', { path: temporary, error: messageOf(error) }))
    }
  }
}

/** Everything that a template and a clone must agree on. A change of any of it is another key. */
export async function templateKey(shape: TemplateShape, jailRoot: string): Promise<string> {
  const args = qemuArguments(templateMachine(shape, { agent: 0, qmp: 0, tap: 0 }))
  return createHash('sha256').update(JSON.stringify(['template 4', basename(jailRoot), shape.disk, shape.root?.identity ?? '', release(), await processor(), shape.accelerator === 'kvm' ? await hostBoot() : '', args])).digest('hex').slice(0, 32)
}

let processorText: Promise<string> | undefined
/** Model, microcode and features of the first processor: what `-cpu host` gives, and TCG's own code depends on. */
function processor(): Promise<string> {
  processorText ??= readFile('/proc/cpuinfo', 'utf8').then((text) => (text.split('\n\n')[0] ?? '').split('\n').filter((line) => /^(vendor_id|model|cpu family|stepping|microcode|flags|bugs)/.test(line)).join('\n'))
  return processorText
}

/** With KVM the guest's clock is tied to the frequency that the host has measured for its own at this boot. */
const hostBoot = (): Promise<string> => readFile('/proc/sys/kernel/random/boot_id', 'utf8')

async function readStamp(directory: string): Promise<Stamp | undefined> {
  const text = await readFile(join(directory, 'stamp.json'), 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || (error as NodeJS.ErrnoException).code === 'ENOTDIR') return undefined
    throw error
  })
  if (text === undefined) return undefined
  const { version, key, jail, ram, stateSha256, diskSha256, image } = JSON.parse(text) as Record<string, unknown>
  if (version !== 2 || typeof key !== 'string' || typeof jail !== 'string' || typeof ram !== 'number' || typeof stateSha256 !== 'string' || typeof diskSha256 !== 'string' || typeof image !== 'string') throw new Error('its stamp is not one')
  return { version, key, jail, ram, stateSha256, diskSha256, image }
}

/** Its image is there no more. */
const isStale = async ({ image }: Stamp): Promise<boolean> => image !== '' && !(await access(image).then(() => true, () => false))

/** Closes the memory of what is in no list any more, unless it has users: the last of them does it. */
async function letGo(held: Held): Promise<void> {
  const loaded = await held.loaded.catch(() => undefined)
  if (!loaded || held.users > 0 || held.closed) return
  held.closed = true
  closeSync(loaded.memory)
}

async function load(directory: string, key: string, stamp: Stamp, disks: VmDisks): Promise<Loaded> {
  if (stamp.key !== key) throw new Error('its stamp is another template’s')
  const state = await readFile(join(directory, STATE_FILE))
  if (createHash('sha256').update(state).digest('hex') !== stamp.stateSha256) throw new Error('its state is damaged')
  if ((await stat(join(directory, MEMORY_FILE))).size !== stamp.ram) throw new Error('its memory is damaged')
  const disk = stamp.diskSha256 === '' ? undefined : await disks.content(join(directory, DISK_FILE))
  if (disk && hashOfContent(disk) !== stamp.diskSha256) throw new Error('its disk is damaged')
  await utimes(join(directory, 'stamp.json'), new Date(), new Date())
  return { memory: await sealedCopy(join(directory, MEMORY_FILE)), ...(disk ? { disk } : {}) }
}

function openBoth(statePath: string, memoryPath: string): Pick<Template, 'state' | 'memory'> {
  const state = openSync(statePath, 'r')
  try {
    return { state, memory: openSync(memoryPath, 'r') }
  } catch (error) {
    closeSync(state)
    throw error
  }
}

async function sync(path: string): Promise<void> {
  const file = await open(path, 'r')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}
