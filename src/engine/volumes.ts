import { randomBytes } from 'node:crypto'
import { mkdir, stat } from 'node:fs/promises'
import { badRequest, codeOf, conflict, HullError, internal, messageOf, notFound } from '../base/errors.js'
import { log } from '../base/log.js'
import { localMount } from '../storage/local-options.js'
import { type StoredVolume, volumeName, type VolumeStore } from '../storage/volumes.js'
import type { Filters, VolumeDetails, VolumeEngine } from './api-types.js'
import type { EventBus } from './events.js'
import { matchLabels } from './list.js'
import { KeyedLock } from './lock.js'
import { anonymousLabel, type ContainerMount } from './mounts.js'
import type { ContainerRegistry } from './registry.js'
import type { ContainerRecord } from './store.js'

/** What a container's mounts need to be known of it. */
type Owner = Pick<ContainerRecord, 'id' | 'mounts'>

const driver = 'local'

const invalidName = (name: string) =>
  badRequest(
    name.length < 2
      ? `create ${name}: volume name is too short, names should be at least two alphanumeric characters`
      : `create ${name}: ${JSON.stringify(name)} includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
  )

/**
 * Docker's volumes, and what containers do with them. Which container uses which volume is nowhere written down but in the containers' records; steps on one
 * volume come one after the other, so a volume is not removed while a container that names it is being made.
 */
export class Volumes implements VolumeEngine {
  readonly #lock = new KeyedLock()
  /** Containers that run (or are being started) by the volume that they have mounted. */
  readonly #mounted = new Map<string, Set<string>>()

  constructor(
    readonly store: VolumeStore,
    readonly registry: ContainerRegistry,
    readonly events: EventBus,
  ) {}

  #details(volume: StoredVolume): VolumeDetails {
    return {
      name: volume.name, driver, mountpoint: this.store.mountpoint(volume.name), created: new Date(volume.created), labels: volume.labels, options: volume.options, scope: 'local',
    }
  }

  /** Containers whose records name a volume, running or not. */
  #users(name: string, except?: string): string[] {
    return this.registry
      .all()
      .filter((container) => container.id !== except && container.record.mounts.some((mount) => mount.type === 'volume' && mount.name === name))
      .map((container) => container.id)
  }

  // Docker's endpoints ---------------------------------------------------------------------------------------

  async list(filters: Filters<'dangling' | 'driver' | 'label' | 'name'>): Promise<{ volumes: VolumeDetails[]; warnings: string[] }> {
    const any = (values: readonly string[] | undefined, test: (value: string) => boolean) => !values || values.length === 0 || values.some(test)
    const used = new Set(this.registry.all().flatMap((container) => container.record.mounts.map((mount) => mount.name)))
    const volumes = this.store.all().filter(
      (volume) =>
        any(filters.name, (value) => volume.name.includes(value)) &&
        any(filters.driver, (value) => value === driver) &&
        any(filters.dangling, (value) => used.has(volume.name) === (value === 'false')) &&
        matchLabels(volume.labels, filters.label),
    )
    return { volumes: volumes.sort((a, b) => (a.name < b.name ? -1 : 1)).map((volume) => this.#details(volume)), warnings: [] }
  }

  async inspect(name: string): Promise<VolumeDetails> {
    const volume = this.store.get(name)
    if (!volume) throw notFound(`get ${name}: no such volume`)
    return this.#details(volume)
  }

  async create(request: { name: string; driver: string; options: Record<string, string>; labels: Record<string, string> }): Promise<VolumeDetails> {
    const anonymous = request.name === ''
    const name = anonymous ? randomBytes(32).toString('hex') : request.name
    if (request.driver !== '' && request.driver !== driver) {
      throw notFound(`create ${name}: error looking up volume plugin ${request.driver}: plugin ${JSON.stringify(request.driver)} not found`)
    }
    if (!volumeName.test(name) || name.length > 255) throw invalidName(name)
    return this.#lock.run(name, () => this.#ensure(name, anonymous ? { ...request.labels, [anonymousLabel]: '' } : request.labels, request.options))
  }

  /** Under the volume's lock: the one there is, or a new one. */
  async #ensure(name: string, labels: Record<string, string>, options: Record<string, string>): Promise<VolumeDetails> {
    const present = this.store.get(name)
    if (present) return this.#details(present)
    try {
      localMount(options)
    } catch (error) {
      throw error instanceof HullError ? new HullError(error.statusCode, `create ${name}: ${error.message}`, { cause: error }) : error
    }
    const volume: StoredVolume = { version: 1, name, created: new Date().toISOString(), labels, options }
    try {
      await this.store.create(volume)
    } catch (error) {
      throw codeOf(error) === 'ENOSPC' ? internal(`create ${name}: no space left on device`, error) : error
    }
    this.#announce('create', name)
    return this.#details(volume)
  }

  #announce(action: string, name: string, attributes: Record<string, string> = {}): void {
    this.events.publish('volume', action, name, { driver, ...attributes })
  }

  async remove(name: string, force: boolean): Promise<void> {
    await this.#remove(name, force)
  }

  async #remove(name: string, force: boolean, except?: string): Promise<void> {
    await this.#lock.run(name, async () => {
      if (!this.store.get(name)) {
        if (force) return
        throw notFound(`get ${name}: no such volume`)
      }
      const users = this.#users(name, except)
      if (users.length > 0) throw conflict(`remove ${name}: volume is in use - [${users.join(', ')}]`)
      await this.store.remove(name)
      this.#announce('destroy', name)
    })
  }

  async prune(filters: Filters<'all' | 'label' | 'label!'>): Promise<{ deleted: string[]; spaceReclaimed: number }> {
    const all = filters.all?.[0] === 'true'
    const deleted: string[] = []
    let spaceReclaimed = 0
    for (const volume of this.store.all()) {
      if (!all && !Object.hasOwn(volume.labels, anonymousLabel)) continue
      if (!matchLabels(volume.labels, filters.label) || filters['label!']?.some((label) => matchLabels(volume.labels, [label]))) continue
      if (this.#users(volume.name).length > 0) continue
      const size = await this.store.size(volume.name)
      try {
        await this.remove(volume.name, true)
      } catch (error) {
        if (error instanceof HullError && error.statusCode === 409) continue // a container was made meanwhile
        throw error
      }
      deleted.push(volume.name)
      spaceReclaimed += size
    }
    this.events.publish('volume', 'prune', '', { reclaimed: String(spaceReclaimed) })
    return { deleted, spaceReclaimed }
  }

  /** All volumes with what they weigh and how many containers use them: for `docker system df`. */
  async usage(): Promise<VolumeDetails[]> {
    const result: VolumeDetails[] = []
    for (const volume of this.store.all()) {
      result.push({ ...this.#details(volume), usage: { size: await this.store.size(volume.name), refCount: this.#users(volume.name).length } })
    }
    return result
  }

  // containers -----------------------------------------------------------------------------------------------

  /** At create, when the record is in the registry: makes the volumes that it names, and fills new ones from the image. */
  async provide(owner: Owner, layers: readonly string[]): Promise<void> {
    for (const [index, mount] of owner.mounts.entries()) {
      if (mount.type !== 'volume') continue
      await this.#lock.run(mount.name, async () => {
        await this.#ensure(mount.name, mount.labels, mount.driverOptions)
        if (!mount.copyUp || layers.length === 0) return
        const mountedHere = !this.#mounted.has(mount.name)
        try {
          await this.#mountVolume(mount)
          if (mount.subpath !== '') await this.#bindSubpath(mount, owner.id, index)
          const bound = mount.subpath === '' ? undefined : this.store.subpathTarget(owner.id, index)
          // A file there is nothing to fill.
          if (bound === undefined || (await stat(bound)).isDirectory()) await this.store.populate(mount.name, layers, mount.target, { bound, idle: mountedHere })
        } finally {
          if (mount.subpath !== '') await this.store.releaseSubpaths(owner.id)
          if (mountedHere) await this.store.unmount(mount.name)
        }
      })
    }
  }

  async #mountVolume(mount: ContainerMount): Promise<void> {
    try {
      await this.store.mount(mount.name)
    } catch (error) {
      throw badRequest(`error while mounting volume '${mount.source}': ${messageOf(error)}`, error)
    }
  }

  async #bindSubpath(mount: ContainerMount, container: string, index: number): Promise<void> {
    try {
      await this.store.bindSubpath(mount.name, mount.subpath, container, index)
    } catch (error) {
      const why = codeOf(error) === 'ENOENT' ? 'no such file or directory' : messageOf(error)
      throw badRequest(`cannot access path ${mount.source}/${mount.subpath}: ${why}`, error)
    }
  }

  /** At start: sources that are not there are made, driver options mounted, subpaths bound. {@link release} undoes it. */
  async mount(owner: Owner): Promise<void> {
    for (const [index, mount] of owner.mounts.entries()) {
      if (mount.type === 'bind' && mount.createSource) {
        await mkdir(mount.source, { recursive: true, mode: 0o755 }).catch((error: unknown) => {
          if (codeOf(error) !== 'EEXIST') throw badRequest(`error while creating mount source path '${mount.source}': ${messageOf(error)}`, error)
        })
      }
      if (mount.type !== 'volume') continue
      await this.#lock.run(mount.name, async () => {
        // It is there unless a crash or somebody's hand took it.
        await this.#ensure(mount.name, mount.labels, mount.driverOptions)
        this.#hold(mount.name, owner.id)
        await this.#mountVolume(mount)
        if (mount.subpath !== '') await this.#bindSubpath(mount, owner.id, index)
        this.#announce('mount', mount.name, { container: owner.id, destination: mount.target, propagation: '', 'read/write': String(!mount.readOnly) })
      })
    }
  }

  #hold(name: string, container: string): void {
    const holders = this.#mounted.get(name) ?? new Set()
    this.#mounted.set(name, holders.add(container))
  }

  /** At the end of a run, however it ended. Idempotent. */
  async release(owner: Owner): Promise<void> {
    if (owner.mounts.some((mount) => mount.subpath !== '')) await this.store.releaseSubpaths(owner.id)
    for (const mount of owner.mounts) {
      if (mount.type !== 'volume') continue
      await this.#lock.run(mount.name, async () => {
        const holders = this.#mounted.get(mount.name)
        if (!holders?.delete(owner.id)) return
        this.#announce('unmount', mount.name, { container: owner.id })
        if (holders.size > 0) return
        this.#mounted.delete(mount.name)
        await this.store.unmount(mount.name)
      })
    }
  }

  /** A container is being removed: the volumes that were made for it go as well, unless another uses them. */
  async removeAnonymous(owner: Owner): Promise<void> {
    for (const mount of owner.mounts) {
      if (mount.type !== 'volume' || !mount.anonymous) continue
      try {
        await this.#remove(mount.name, true, owner.id)
      } catch (error) {
        if (error instanceof HullError && error.statusCode === 409) continue
        log.error('cannot remove a volume', { name: mount.name, error: messageOf(error) })
      }
    }
  }

  /** After a start of the daemon: `running` are the containers that it took back. What else is still mounted is not used by anybody. */
  async restore(running: readonly Owner[]): Promise<void> {
    for (const owner of running) for (const mount of owner.mounts) if (mount.type === 'volume') this.#hold(mount.name, owner.id)
    const ids = new Set(running.map((owner) => owner.id))
    for (const id of await this.store.subpathOwners()) if (!ids.has(id)) await this.store.releaseSubpaths(id)
    for (const volume of this.store.all()) if (!this.#mounted.has(volume.name)) await this.store.unmount(volume.name)
  }
}
