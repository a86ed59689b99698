import { messageOf } from '../base/errors.js'
import { log } from '../base/log.js'
import type { BuildEngine, ContainerEngine, Engine, ExecEngine, ImageEngine, NetworkEngine, SystemEngine, VolumeEngine } from './api-types.js'
import { Builder } from './build.js'
import { removeInterruptedBuilds } from './build-work.js'
import { Container } from './container.js'
import { upgradeNetworks } from './connections.js'
import { Containers } from './containers.js'
import { Execs } from './execs.js'
import { Images } from './images.js'
import { Lifecycle, type LifecycleParts } from './lifecycle.js'
import { restore } from './restore.js'
import { Networks } from './networks.js'
import { System, type SystemOptions } from './system.js'
import { networkIds } from './views.js'
import { Volumes } from './volumes.js'
import type { VolumeStore } from '../storage/volumes.js'

/** What the daemon puts together before there is an engine. */
export type EngineOptions = Omit<LifecycleParts, 'volumes'> &
  SystemOptions & {
    volumeStore: VolumeStore
    /** Bytes of one unpacked layer, for `docker history`. */
    layerSize: (diffId: string) => number
    /** Clean-up that has to know what still runs: called when everything has been taken back. `rest` is not waited for: the daemon serves meanwhile. */
    afterRestore: () => Promise<{ rest: Promise<void> }>
    /** Ends what must not outlive the daemon. */
    beforeLeave: () => Promise<void>
  }

/** The engine behind the API: the life of containers and their state on disk, over sandboxes, images and networks. */
export class HullEngine implements Engine {
  readonly containers: ContainerEngine
  readonly execs: ExecEngine
  readonly images: ImageEngine
  readonly builds: BuildEngine
  readonly networks: NetworkEngine
  readonly volumes: VolumeEngine
  readonly system: SystemEngine
  readonly #lifecycle: Lifecycle

  constructor(readonly options: EngineOptions) {
    const ids = networkIds(options.dataRoot)
    const volumes = new Volumes(options.volumeStore, options.registry, options.events)
    const parts = { ...options, volumes }
    this.#lifecycle = new Lifecycle(parts)
    this.containers = new Containers(parts, this.#lifecycle, {
      defaultIsolation: options.defaultIsolation,
      dataRoot: options.dataRoot,
      ids,
      ...(options.idMap ? { idMap: options.idMap } : {}),
      makeContainer: (record) => this.#make(record),
    })
    this.execs = new Execs(options.registry, this.#lifecycle)
    this.images = new Images(options.images, options.registry, options.events, options.layerSize)
    this.networks = new Networks(parts, this.#lifecycle)
    this.builds = new Builder(this.#lifecycle, this.containers, this.images)
    this.volumes = volumes
    const lifecycle = this.#lifecycle
    this.system = new System(options, parts, this.images, this.containers, () => [...lifecycle.metrics.families(lifecycle.health.counts, options.events.listeners), ...(options.drivers.vm.metrics?.() ?? [])])
  }

  #make(record: Container['record']): Container {
    const container = new Container(record)
    this.options.registry.add(container)
    return container
  }

  /** Reads the disk, takes back what runs, starts the network, applies restart policies. Before this nothing may be asked of the engine. */
  async restore(): Promise<void> {
    const networks = await this.options.directory.load()
    const records = await this.options.store.load()
    for (const record of records) upgradeNetworks(record, this.options.directory.ids.bridge)
    await restore(
      this.#lifecycle,
      records,
      (record) => {
        this.options.registry.names.take(record.name, record.id)
        return this.#make(record)
      },
      (active) => this.options.network.start(active, networks),
    )
    await removeInterruptedBuilds(this.#lifecycle.parts, this.containers, this.options.dataRoot)
    const chains = new Set<string>()
    for (const record of records) {
      const root = await this.options.images.rootfs(record.imageId).catch(() => undefined)
      if (root) chains.add(root.chainId)
    }
    await this.options.images.collectGarbage(chains)
    // A full disk must not keep the daemon from what runs already, and what takes its time not from serving.
    const complain = (error: unknown) => log.warn('cannot clean up after the restart', { error: messageOf(error) })
    await this.options.afterRestore().then(({ rest }) => void rest.catch(complain), complain)
  }

  /** The daemon goes; workloads stay. */
  async leave(): Promise<void> {
    this.#lifecycle.leave()
    await this.options.beforeLeave().catch((error: unknown) => log.warn('cannot clean up before the end', { error: messageOf(error) }))
    await this.options.network.stop(false)
  }
}
