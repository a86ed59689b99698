import type { IdMap } from '../host/subid.js'
import { randomBytes } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { Duplex, type Readable } from 'node:stream'
import { setTimeout } from 'node:timers/promises'
import { conflict, messageOf, notImplemented } from '../base/errors.js'
import { Slots } from '../base/flights.js'
import { log } from '../base/log.js'
import { within } from '../base/timers.js'
import { expectAttach } from '../host/cgroup-attach.js'
import type { Isolation, TopResult } from '../sandbox/types.js'
import { Archive } from './archive.js'
import type {
  ArchiveStat,
  AttachedStream,
  AttachRequest,
  CommitRequest,
  ContainerDetails,
  ContainerEngine,
  ContainerSummary,
  CreateContainerRequest,
  Facts,
  Filters,
  ListContainersRequest,
  LogsRequest,
  LogsResult,
  StatsSample,
  UpdateContainerRequest,
  WaitCondition,
} from './api-types.js'
import { adaptHostConfig } from './adapt.js'
import { commitImage } from './commit.js'
import { checkResources, idMapOf, ignoredWarnings, parseSecurityOptions, refuseUnsupported } from './checks.js'
import type { Container } from './container.js'
import type { Lifecycle, LifecycleParts } from './lifecycle.js'
import { filterContainers, matchLabels } from './list.js'
import { withDonorIds } from './namespaces.js'
import { parseMoment } from './images.js'
import { logStream } from './log-stream.js'
import { mergeConfig } from './merge.js'
import { checkSources, resolveMounts } from './mounts.js'
import { resolveIsolation } from './policy.js'
import { networkModeOf, workloadSpec } from './spec.js'
import type { ContainerRecord } from './store.js'
import { updateContainer } from './update.js'
import { detailsOf, type networkIds, summaryOf } from './views.js'

/** What the daemon was told. */
export interface ContainersOptions {
  defaultIsolation: Isolation
  dataRoot: string
  ids: ReturnType<typeof networkIds>
  /** --userns-remap; absent: off. */
  idMap?: IdMap
  makeContainer: (record: ContainerRecord) => Container
}

/** Milliseconds that a guest gets to say what its container wrote. */
const SIZE_PATIENCE = 5000
/** Containers that a list measures at a time. */
const SIZES_AT_ONCE = 8

/** CPU time of the whole host since boot in nanoseconds: the first line of /proc/stat without guest time, which user time holds already (proc(5)). */
async function systemCpuTime(): Promise<number> {
  const line = (await readFile('/proc/stat', 'utf8')).split('\n', 1)[0]!
  const ticks = line.split(/\s+/).slice(1, 9).reduce((sum, text) => sum + Number(text), 0)
  return ticks * 10_000_000 // USER_HZ is 100 on every architecture that Linux has
}

/** Docker's /containers. Decisions about one container's life are {@link Lifecycle}'s; here requests become records and records become views. */
export class Containers implements ContainerEngine {
  readonly #accelerators = new Map<Isolation, Promise<string>>()
  readonly #archive: Archive

  constructor(
    readonly parts: LifecycleParts,
    readonly lifecycle: Lifecycle,
    readonly options: ContainersOptions,
  ) {
    this.#archive = new Archive(lifecycle)
  }

  // create -------------------------------------------------------------------------------------------------

  async create(request: CreateContainerRequest): Promise<{ id: string; warnings: string[] }> {
    const { parts } = this
    const isolation = resolveIsolation(request.hostConfig.Isolation, this.options.defaultIsolation)
    const image = await parts.images.get(request.config.Image)
    expectAttach()
    refuseUnsupported(request, isolation)
    checkResources(request.hostConfig)
    parseSecurityOptions(request.hostConfig.SecurityOpt, request.hostConfig.Privileged)
    const idMap = isolation === 'process' ? idMapOf(request.hostConfig, this.options.idMap) : undefined
    const config = mergeConfig(request.config, image.config)
    const driver = parts.drivers[isolation]
    const ownId = randomBytes(32).toString('hex')
    const record: ContainerRecord = {
      version: 1,
      id: ownId,
      name: '',
      created: new Date().toISOString(),
      imageId: image.id,
      imageRef: request.config.Image,
      isolation,
      ...(idMap ? { idMap } : {}),
      config: { ...config, Hostname: config.Hostname || (/^(host$|container:)/.test(request.hostConfig.NetworkMode) || request.hostConfig.UTSMode === 'host' ? '' : ownId.slice(0, 12)) },
      hostConfig: withDonorIds(adaptHostConfig(request.hostConfig), parts.registry),
      ports: this.#publishedPorts(request, config.ExposedPorts),
      mounts: resolveMounts({
        requested: request.mounts, volumes: config.Volumes, volumesFrom: request.hostConfig.VolumesFrom, volumeDriver: request.hostConfig.VolumeDriver,
        mountsOf: (reference) => parts.registry.get(reference).record.mounts, mountpoint: (name) => parts.volumes.store.mountpoint(name),
      }),
      networks: [],
      warnings: [],
      restartCount: 0,
      state: { status: 'created', starting: false, exitCode: 0, error: '', oomKilled: false, stoppedByUser: false },
    }
    this.lifecycle.connections.resolve(record, request)
    await checkSources(record.mounts)
    await this.#reserve(record)
    const { id } = record
    try {
      record.name = parts.registry.names.take(request.name, id)
    } catch (error) {
      await this.#forgetState(record)
      throw error
    }
    // The image must stay while the record that names it is being written: `rmi` asks the registry who uses an image. So the container is
    // listed before it is on the disk, and a client that sees it there and removes or starts it waits until it is.
    const container = this.options.makeContainer(record)
    await this.lifecycle.exclusive(container, async () => {
      try {
        const root = await parts.images.rootfs(image.id)
        const spec = await workloadSpec(record, root, parts.paths, await this.lifecycle.connections.place(record, false))
        record.warnings = [...(await driver.validate(spec)), ...ignoredWarnings(request.hostConfig, isolation), ...architectureWarning(image, request.platform)]
        await parts.store.create(record, !request.hostConfig.AutoRemove)
        // From here on the registry says who uses what. After a crash the start makes what is missing.
        await parts.volumes.provide(record, root.layers)
        this.lifecycle.announce(container, 'create')
      } catch (error) {
        record.state.status = 'dead' // for whoever waits
        await this.#forgetState(record)
        await parts.volumes.removeAnonymous(record)
        await parts.store.remove(id)
        parts.registry.delete(container)
        throw error
      }
    })
    // What goes by itself is made in order to be started now; `docker create` of another may be for tomorrow.
    if (record.hostConfig.AutoRemove) this.lifecycle.expectStart(container)
    return { id, warnings: record.warnings }
  }

  /** What was made ahead for a container like this was made under an id, which becomes the container's. */
  async #reserve(record: ContainerRecord): Promise<void> {
    const driver = this.parts.drivers[record.isolation]
    if (!driver.reserve) return
    const root = await this.parts.images.rootfs(record.imageId)
    const spec = await workloadSpec(record, root, this.parts.paths, await this.lifecycle.connections.place(record, false))
    const id = await driver.reserve(spec, networkModeOf(record) === 'bridge')
    if (id === undefined) return
    if (record.config.Hostname === record.id.slice(0, 12)) record.config.Hostname = id.slice(0, 12)
    record.id = id
  }

  /** What was reserved for a container that there will not be. */
  async #forgetState({ id, isolation }: ContainerRecord): Promise<void> {
    if (!this.parts.drivers[isolation].reserve) return
    const state = { id, stateDir: this.parts.store.directory(id), runDir: `${this.parts.paths.execRoot}/containers/${id}` }
    await this.parts.drivers[isolation].removeState(state).catch((error: unknown) => log.error('cannot clean up after a failed create', { id, error: messageOf(error) }))
  }

  #publishedPorts(request: CreateContainerRequest, exposed: Record<string, object>): CreateContainerRequest['ports'] {
    const ports = [...request.ports]
    if (!request.hostConfig.PublishAllPorts) return ports
    for (const text of Object.keys(exposed)) {
      const [number, protocol = 'tcp'] = text.split('/')
      if (protocol !== 'tcp' && protocol !== 'udp') continue
      if (ports.some((port) => port.containerPort === Number(number) && port.protocol === protocol)) continue
      ports.push({ containerPort: Number(number), protocol, hostIp: '', hostPortStart: 0, hostPortEnd: 0 })
    }
    return ports
  }

  // views --------------------------------------------------------------------------------------------------

  async list(request: ListContainersRequest): Promise<ContainerSummary[]> {
    const { registry, images } = this.parts
    const rows = registry.all().map((container) => summaryOf(container, this.options.ids))
    const kept = await filterContainers(rows, request, {
      createdOf: (reference) => new Date(registry.get(reference).record.created),
      image: (reference) => images.get(reference).catch(() => undefined),
    })
    const slots = new Slots(SIZES_AT_ONCE)
    const measure = async (row: ContainerSummary) => {
      const container = registry.find(row.id)
      if (container) Object.assign(row, await this.#sizes(container)) // else it is gone meanwhile
    }
    if (request.size) await Promise.all(kept.map((row) => slots.run(() => measure(row))))
    return kept
  }

  async inspect(reference: string, options: { size: boolean }): Promise<ContainerDetails> {
    const container = this.parts.registry.get(reference)
    const { record } = container
    const root = await this.parts.images.rootfs(record.imageId).catch(() => ({ layers: [] }))
    const accelerator = await this.#accelerator(container.record.isolation)
    const state = this.parts.store.directory(record.id)
    const details = detailsOf(
      container,
      this.options.ids,
      {
        state,
        overlay: `${this.options.dataRoot}/overlay/${record.id}`,
        netns: container.sandbox ? `/proc/${container.sandbox.pid}/ns/net` : '',
        layers: root.layers,
      },
      accelerator,
      this.parts.paths.defaultRuntime,
    )
    return options.size ? { ...details, ...(await this.#sizes(container)) } : details
  }

  async top(reference: string, psArgs: string[]): Promise<TopResult> {
    return this.#running(reference).sandbox.top(psArgs)
  }

  async explain(reference: string): Promise<{ id: string; name: string; isolation: Isolation; sections: Facts[] }> {
    const { container, sandbox } = this.#running(reference)
    return { id: container.id, name: container.record.name, isolation: container.record.isolation, sections: await sandbox.explain() }
  }

  async stats(reference: string, options: { once: boolean; signal: AbortSignal }): Promise<AsyncIterable<StatsSample>> {
    const container = this.parts.registry.get(reference)
    const sample = async (): Promise<StatsSample> => ({
      id: container.id,
      name: container.record.name,
      read: new Date(),
      stats: container.isUp ? await container.sandbox?.stats().catch(() => undefined) : undefined,
      systemCpu: await systemCpuTime(),
    })
    return (async function* () {
      for (;;) {
        yield await sample()
        if (options.once) return
        await setTimeout(1000, undefined, { signal: options.signal }).catch(() => {})
        if (options.signal.aborted || container.record.state.status === 'dead') return
      }
    })()
  }

  /** What a driver runs on does not change while the daemon lives: asked once. */
  #accelerator(isolation: Isolation): Promise<string> {
    let known = this.#accelerators.get(isolation)
    if (!known) {
      known = this.parts.drivers[isolation].info().then((info) => info.accelerator)
      this.#accelerators.set(isolation, known)
    }
    return known
  }

  #running(reference: string) {
    const container = this.parts.registry.get(reference)
    const { sandbox } = container
    if (!container.isUp || !sandbox) throw conflict(`container ${container.id} is not running`)
    return { container, sandbox }
  }

  // life cycle ---------------------------------------------------------------------------------------------

  start(reference: string): Promise<boolean> {
    return this.lifecycle.start(this.parts.registry.get(reference))
  }

  stop(reference: string, options: { timeout?: number; signal?: number }): Promise<boolean> {
    return this.lifecycle.stop(this.parts.registry.get(reference), options)
  }

  restart(reference: string, options: { timeout?: number; signal?: number }): Promise<void> {
    return this.lifecycle.restart(this.parts.registry.get(reference), options)
  }

  kill(reference: string, signal: number): Promise<void> {
    return this.lifecycle.kill(this.parts.registry.get(reference), signal)
  }

  pause(reference: string): Promise<void> {
    return this.lifecycle.pause(this.parts.registry.get(reference))
  }

  unpause(reference: string): Promise<void> {
    return this.lifecycle.unpause(this.parts.registry.get(reference))
  }

  async update(reference: string, request: UpdateContainerRequest): Promise<{ warnings: string[] }> {
    return updateContainer(this.lifecycle, this.parts.registry.get(reference), request)
  }

  rename(reference: string, name: string): Promise<void> {
    return this.lifecycle.rename(this.parts.registry.get(reference), name)
  }

  remove(reference: string, options: { volumes: boolean; force: boolean; link: boolean }): Promise<void> {
    return this.lifecycle.remove(this.parts.registry.get(reference), options.force, options.volumes)
  }

  async resize(reference: string, rows: number, columns: number): Promise<void> {
    await this.#running(reference).sandbox.resize(rows, columns)
  }

  async wait(reference: string, condition: WaitCondition, signal: AbortSignal) {
    return { exit: this.parts.registry.get(reference).wait(condition, signal) }
  }

  async prune(filters: Filters<'until' | 'label' | 'label!'>): Promise<{ deleted: string[]; spaceReclaimed: number }> {
    const deleted: string[] = []
    let spaceReclaimed = 0
    const until = Math.min(Infinity, ...(filters.until ?? []).map(parseMoment))
    for (const container of this.parts.registry.all()) {
      const { record } = container
      if (container.isUp || record.state.starting || !['created', 'exited'].includes(record.state.status)) continue
      if (Date.parse(record.created) >= until || !matchLabels(record.config.Labels, filters.label)) continue
      if (filters['label!']?.some((label) => matchLabels(record.config.Labels, [label]))) continue
      const size = await this.#writtenBytes(container)
      try {
        await this.lifecycle.remove(container, false)
      } catch (error) {
        // Started or removed by somebody else meanwhile: the others are still to go (moby).
        log.warn('cannot prune a container', { id: record.id, error: messageOf(error) })
        continue
      }
      spaceReclaimed += size
      deleted.push(record.id)
    }
    this.parts.events.publish('container', 'prune', '', { reclaimed: String(spaceReclaimed) })
    return { deleted, spaceReclaimed }
  }

  /** What its writable layer takes on the host's disk. Of a VM's that is its image file: no guest is started to look into it. */
  async #writtenBytes(container: Container): Promise<number> {
    if (container.record.isolation === 'process') return this.#archive.size(container).catch(() => 0)
    return this.#diskBytes(container)
  }

  async #diskBytes(container: Container): Promise<number> {
    const disk = await stat(`${this.parts.store.directory(container.id)}/disk.img`).catch(() => undefined)
    return (disk?.blocks ?? 0) * 512
  }

  // streams ------------------------------------------------------------------------------------------------

  async attach(reference: string, request: AttachRequest): Promise<AttachedStream> {
    const container = this.parts.registry.get(reference)
    const { record } = container
    if (record.state.status === 'paused') throw conflict(`container ${record.id} is paused, unpause the container before attach`)
    if (record.state.status === 'restarting') throw conflict(`container ${record.id} is restarting, wait until the container is running`)
    const stop = new AbortController()
    let duplex: Duplex
    if (request.logs) {
      // The log holds all output up to this moment and, followed, all that comes: one source, so nothing is missed or doubled.
      const { output } = await logStream(container, this.parts.store.directory(record.id), { follow: request.stream, timestamps: false, signal: stop.signal })
      const input = request.stream && request.stdin ? await container.attach(true) : undefined
      input?.resume()
      duplex = input ? Duplex.from({ readable: output, writable: input }) : Duplex.from(output)
    } else if (request.stream) {
      duplex = await container.attach(request.stdin)
    } else {
      duplex = Duplex.from([])
    }
    duplex.once('close', () => stop.abort())
    this.lifecycle.announce(container, 'attach')
    if (request.stream) this.lifecycle.expectStart(container)
    return {
      tty: record.config.Tty,
      duplex,
      detach: () => {
        this.lifecycle.announce(container, 'detach')
        duplex.destroy()
      },
    }
  }

  async logs(reference: string, request: LogsRequest): Promise<LogsResult> {
    const container = this.parts.registry.get(reference)
    if (container.record.hostConfig.LogConfig.Type === 'none') throw notImplemented('configured logging driver does not support reading')
    const { output } = await logStream(container, this.parts.store.directory(container.id), request)
    return { tty: container.record.config.Tty, output }
  }

  // not yet ------------------------------------------------------------------------------------------------

  // files --------------------------------------------------------------------------------------------------

  archiveStat(reference: string, path: string): Promise<ArchiveStat> {
    return this.#archive.stat(this.parts.registry.get(reference), reference, path)
  }

  archiveGet(reference: string, path: string, signal: AbortSignal): Promise<{ stat: ArchiveStat; tar: Readable }> {
    return this.#archive.get(this.parts.registry.get(reference), reference, path, signal)
  }

  archivePut(reference: string, path: string, tar: Readable, options: { noOverwriteDirNonDir: boolean; copyUidGid: boolean }): Promise<void> {
    return this.#archive.put(this.parts.registry.get(reference), reference, path, tar, options)
  }

  changes(reference: string, signal: AbortSignal): Promise<{ path: string; kind: 0 | 1 | 2 }[]> {
    return this.#archive.changes(this.parts.registry.get(reference), signal)
  }

  export(reference: string, signal: AbortSignal): Promise<Readable> {
    return this.#archive.export(this.parts.registry.get(reference), signal)
  }

  commit(reference: string, request: CommitRequest): Promise<{ id: string }> {
    return commitImage(this.lifecycle, this.parts.images, this.parts.registry.get(reference), request)
  }

  /** What the container wrote, and that with its image; nothing when it cannot be told now (a paused virtual machine). */
  async #sizes(container: Container): Promise<{ sizeRw?: number; sizeRootFs?: number }> {
    const sizeRw = await this.#sizeRw(container)
    if (sizeRw === undefined) return {}
    const image = await this.parts.images.get(container.record.imageId).catch(() => undefined)
    return { sizeRw, sizeRootFs: sizeRw + (image?.size ?? 0) }
  }

  /** A running guest is asked: it alone knows its files, and what is not on its disk yet. But everybody's list waits for it, so one that does not answer is asked no more, and the host's word given. */
  async #sizeRw(container: Container): Promise<number | undefined> {
    const late = new AbortController()
    const size = this.#archive.size(container, late.signal).catch(() => undefined)
    if (container.record.isolation === 'process') return size
    const said = await within(size, SIZE_PATIENCE)
    if (said !== 'timeout') return said
    late.abort()
    return this.#diskBytes(container)
  }
}

function architectureWarning(image: { architecture: string; os: string }, platform: string): string[] {
  const host = process.arch === 'x64' ? 'amd64' : process.arch
  if (image.architecture === '' || image.architecture === host) return []
  const wanted = platform ? `the requested platform (${platform})` : `the detected host platform (linux/${host})`
  return [`The requested image's platform (${image.os}/${image.architecture}) does not match ${wanted}`]
}
