import { symlinkSync } from 'node:fs'
import { mkdir, readdir, readlink, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf } from '../base/errors.js'
import { log } from '../base/log.js'
import { createVeth, deleteLink, listLinks } from '../host/link.js'
import { createNetns, deleteNetns } from '../host/netns.js'
import { createOwnedNetns } from '../host/userns.js'
import { disableIPv6 } from './kernel.js'
import { randomSuffix, type Names } from './names.js'

/** A network namespace made ahead. */
export interface Slot {
  /** File name in runDir: 's' (with a veth) or 'i' (isolated) and the suffix that its veth has too. */
  name: string
  netnsPath: string
}

/** Whose the network namespaces are: a user namespace (its file), '' for the host's. Root of another one could not use its own network. */
export interface NamespaceOwners {
  /** Of the namespaces that are made ahead. */
  poolOwner: string
  /** Of one container's. */
  ownerOf: (containerId: string) => Promise<string>
}

/** Options of {@link SlotPool}. */
export interface SlotPoolOptions {
  names: Names
  runDir: string
  mtu: number
  /** Ready slots with a veth that are kept; half as many isolated ones. 0: made when asked for. */
  size: number
  /** Default: the host's user namespace owns all. */
  owners?: NamespaceOwners
}

type Kind = 's' | 'i'

/** A refill begins this long after a slot was taken (milliseconds): the kernel's rtnl lock belongs to the container that is starting, and on a slow machine the processors do, until a short one has ended. */
const refillDelayMs = 150
/** After a failure (no memory, no descriptors) the pool waits this long. */
const retryDelayMs = 2_000

/** Folder in runDir with a symbolic link for each container, named by its id, to the file of its slot. */
const ownersFolder = 'owners'

/**
 * Namespaces that are ready before anyone needs them. What a container has is written down as a symbolic link before it is used, so that
 * after a crash everything in the kernel can be told to be somebody's or nobody's.
 */
export class SlotPool {
  readonly #ready: Record<Kind, Slot[]> = { s: [], i: [] }
  #running = false
  #timer: NodeJS.Timeout | undefined
  #filling: Promise<void> = Promise.resolve()

  constructor(readonly options: SlotPoolOptions) {}

  get #poolOwner(): string {
    return this.options.owners?.poolOwner ?? ''
  }

  get #owners(): string {
    return join(this.options.runDir, ownersFolder)
  }

  /** Removes what a killed daemon left, see {@link removeLeftovers}, then begins to fill the pool. */
  async start(active: ReadonlySet<string>, links: ReadonlySet<string> = new Set()): Promise<void> {
    await this.removeLeftovers(active, links)
    this.#running = true
    this.#schedule(0)
  }

  /** Removes what nobody has taken. Slots of containers stay. */
  async stop(): Promise<void> {
    this.#running = false
    clearTimeout(this.#timer)
    await this.#filling
    for (const kind of ['s', 'i'] as const) for (const slot of this.#ready[kind].splice(0)) this.#destroy(slot)
  }

  /** Ready slots at this moment, for tests and measurements. */
  get ready(): { veth: number; isolated: number } {
    return { veth: this.#ready.s.length, isolated: this.#ready.i.length }
  }

  /** A namespace with `eth0` that is a port of the bridge ('s'), or one with only `lo` ('i'), now `containerId`'s. */
  async take(containerId: string, kind: Kind): Promise<Slot> {
    const owner = (await this.options.owners?.ownerOf(containerId)) ?? ''
    const slot = (owner === this.#poolOwner ? this.#ready[kind].shift() : undefined) ?? (await this.#create(kind, owner))
    this.#schedule(refillDelayMs)
    try {
      await this.#own(slot, containerId)
    } catch (error) {
      this.#destroy(slot)
      throw error
    }
    return slot
  }

  /** The namespace of a container; undefined when it has none. */
  async pathOf(containerId: string): Promise<string | undefined> {
    const name = await readlink(join(this.#owners, containerId)).catch(() => undefined)
    return name !== undefined && /^[si][0-9a-z]{7}$/.test(name) ? join(this.options.runDir, name) : undefined
  }

  /** Destroys a container's slot. Its veth goes with the namespace. Idempotent. */
  async release(containerId: string): Promise<void> {
    const link = join(this.#owners, containerId)
    const name = await readlink(link).catch((error: unknown) => {
      if (codeOf(error) === 'ENOENT') return undefined
      throw error
    })
    if (name === undefined) return
    if (/^[si][0-9a-z]{7}$/.test(name)) this.#destroy({ name, netnsPath: join(this.options.runDir, name) })
    await unlink(link).catch((error: unknown) => {
      if (codeOf(error) !== 'ENOENT') throw error
    })
  }

  async #own(slot: Slot, containerId: string): Promise<void> {
    const link = join(this.#owners, containerId)
    try {
      symlinkSync(slot.name, link)
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
      // An earlier start of this container that nobody cleaned up after.
      await this.release(containerId)
      symlinkSync(slot.name, link)
    }
  }

  #schedule(delayMs: number): void {
    if (!this.#running || this.#timer) return
    this.#timer = setTimeout(() => {
      this.#filling = this.#fill().finally(() => {
        this.#timer = undefined
        // Slots may have been taken while the last ones were made.
        if (this.#lacking()) this.#schedule(refillDelayMs)
      })
    }, delayMs)
  }

  #lacking(): Kind | undefined {
    if (this.#ready.s.length < this.options.size) return 's'
    if (this.#ready.i.length < Math.ceil(this.options.size / 2)) return 'i'
    return undefined
  }

  async #fill(): Promise<void> {
    for (let kind = this.#lacking(); kind && this.#running; kind = this.#lacking()) {
      try {
        this.#ready[kind].push(await this.#create(kind, this.#poolOwner))
      } catch (error) {
        log.warn('network: cannot make a namespace ahead', { error })
        await new Promise((resolve) => setTimeout(resolve, retryDelayMs).unref())
        return
      }
    }
  }

  async #create(kind: Kind, owner: string): Promise<Slot> {
    const { names, runDir, mtu } = this.options
    const suffix = randomSuffix()
    const slot: Slot = { name: kind + suffix, netnsPath: join(runDir, kind + suffix) }
    try {
      await (owner === '' ? createNetns(slot.netnsPath) : createOwnedNetns(slot.netnsPath, owner))
      if (kind === 's') {
        const veth = names.vethPrefix + suffix
        await createVeth({ name: veth, peer: 'eth0', netns: slot.netnsPath, mtu, bridge: names.bridge })
        await disableIPv6(veth)
      }
      return slot
    } catch (error) {
      this.#destroy(slot)
      throw error
    }
  }

  #destroy(slot: Slot): void {
    try {
      deleteNetns(slot.netnsPath)
    } catch (error) {
      log.warn('network: cannot remove a namespace', { path: slot.netnsPath, error })
    }
  }

  /** Removes all namespaces, veths and taps of ours but those of the containers in `active` and the links in `links`. The pool must not run. */
  async removeLeftovers(active: ReadonlySet<string>, links: ReadonlySet<string> = new Set()): Promise<void> {
    const { names, runDir } = this.options
    await mkdir(this.#owners, { recursive: true, mode: 0o700 })
    const kept = new Set<string>()
    for (const containerId of await readdir(this.#owners)) {
      const name = await readlink(join(this.#owners, containerId)).catch(() => '')
      if (active.has(containerId) && name !== '') kept.add(name)
      else await this.release(containerId)
    }
    for (const name of await readdir(runDir)) {
      if (/^[si][0-9a-z]{7}$/.test(name) && !kept.has(name)) this.#destroy({ name, netnsPath: join(runDir, name) })
    }
    const keptVeths = new Set([...kept].map((name) => names.vethPrefix + name.slice(1)))
    const keptTaps = new Set([...active].map((id) => tapName(names, id)))
    for (const link of await listLinks()) {
      if (links.has(link)) continue
      const stray = link.startsWith(names.vethPrefix) ? !keptVeths.has(link) : link.startsWith(names.tapPrefix) ? !keptTaps.has(link) : link.startsWith(names.sourcePrefix)
      if (stray) deleteLink(link)
    }
  }
}

/** The tap of a container: found again after a restart by its name alone. */
export function tapName(names: Names, containerId: string): string {
  return names.tapPrefix + containerId.toLowerCase().replaceAll(/[^a-z0-9]/g, '').slice(0, 7)
}
