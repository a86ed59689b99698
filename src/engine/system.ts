import type { IdMap } from '../host/subid.js'
import { randomUUID } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { arch, cpus, hostname, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { readIfExists } from '../base/files.js'
import type { DistributionInfo, RegistryAuth } from '../image/types.js'
import type { Isolation } from '../sandbox/types.js'
import type {
  ContainerEngine,
  ContainerSummary,
  EngineEvent,
  EngineInfo,
  EventFilter,
  Filters,
  ImageEngine,
  ImageSummary,
  SystemEngine,
  VolumeDetails,
} from './api-types.js'
import type { LifecycleParts } from './lifecycle.js'
import { matchesEvent } from './event-filter.js'
import type { MetricFamily } from '../base/metrics.js'
import { LONGEST_TIMER } from '../base/timers.js'

/** What the daemon knows of itself and its host. */
export interface SystemOptions {
  /** --userns-remap; absent: off. */
  idMap?: IdMap
  dataRoot: string
  defaultIsolation: Isolation
  defaultRuntime: string
  cgroupVersion: '1' | '2'
  /** Versions of the programs that do the work, by name. */
  components: Record<string, string>
  /** Installed OCI runtimes by name. */
  runtimes: Record<string, { path: string }>
  /** gVisor's runsc, where it works; why it does not where it is installed. Takes a moment the first time. */
  gvisor: () => Promise<{ path: string; version: string } | { warning: string } | undefined>
  hostWarnings: string[]
  /** Beside loopback. */
  insecureRegistries: readonly string[]
}

/** systemd's os-release(5). */
async function osRelease(): Promise<Record<string, string>> {
  const text = (await readIfExists('/etc/os-release')) ?? (await readIfExists('/usr/lib/os-release')) ?? ''
  return Object.fromEntries([...text.matchAll(/^([A-Z_]+)="?(.*?)"?$/gm)].map((match) => [match[1]!, match[2]!]))
}

const architectures: Record<string, string> = { x64: 'x86_64', arm64: 'aarch64' }

/** Docker's /info, /events and friends. */
export class System implements SystemEngine {
  constructor(
    readonly options: SystemOptions,
    readonly parts: LifecycleParts,
    readonly images: ImageEngine,
    readonly containers: ContainerEngine,
    private readonly familiesOf: () => MetricFamily[] = () => [],
  ) {}

  async info(): Promise<EngineInfo> {
    const { options, parts } = this
    const [os, processInfo, vmInfo, images, forwarding, gvisor] = await Promise.all([
      osRelease(),
      parts.drivers.process.info(),
      parts.drivers.vm.info(),
      parts.images.list(),
      readIfExists('/proc/sys/net/ipv4/ip_forward'),
      options.gvisor(),
    ])
    const count = (status: string) => parts.registry.all().filter((container) => container.record.state.status === status).length
    const all = parts.registry.all().length
    const running = count('running')
    const paused = count('paused')
    return {
      id: await this.#id(),
      name: hostname(),
      containers: { running, paused, stopped: all - running - paused },
      images: images.length,
      storageDriver: 'overlay2',
      storageStatus: [
        ['Backing Filesystem', 'extfs'],
        ['VM root', 'EROFS (read-only) + ext4 (writable), one of each per container'],
      ],
      dataRoot: options.dataRoot,
      loggingDriver: 'json-file',
      cgroupDriver: 'cgroupfs',
      cgroupVersion: options.cgroupVersion,
      limits: { memory: true, swap: true, cpuCfs: true, cpuShares: true, cpuset: true, pids: true, oomKillDisable: options.cgroupVersion === '1' },
      ipv4Forwarding: forwarding?.trim() === '1',
      kernelVersion: release(),
      operatingSystem: os['PRETTY_NAME'] ?? 'Linux',
      osVersion: os['VERSION_ID'] ?? '',
      architecture: architectures[arch()] ?? arch(),
      cpus: cpus().length,
      memory: totalmem(),
      runtimes: { ...options.runtimes, ...(gvisor && 'path' in gvisor ? { runsc: { path: gvisor.path } } : {}) },
      defaultRuntime: options.defaultRuntime,
      defaultIsolation: options.defaultIsolation,
      securityOptions: ['name=seccomp,profile=builtin', ...(options.idMap ? ['name=userns'] : []), 'name=cgroupns'],
      networkPlugins: ['bridge', 'host', 'null'],
      components: options.components,
      insecureRegistries: ['127.0.0.0/8', '::1/128', ...options.insecureRegistries],
      httpProxy: process.env['HTTP_PROXY'] ?? process.env['http_proxy'] ?? '',
      httpsProxy: process.env['HTTPS_PROXY'] ?? process.env['https_proxy'] ?? '',
      noProxy: process.env['NO_PROXY'] ?? process.env['no_proxy'] ?? '',
      labels: [],
      eventsListeners: parts.events.listeners,
      details: [
        ['Isolations', 'process, vm'],
        ['VM accelerator', vmInfo.accelerator || 'none'],
        ...Object.entries(processInfo.details),
        ...(gvisor && 'version' in gvisor ? [['runsc version', gvisor.version] as [string, string]] : []),
        ...Object.entries(vmInfo.details),
      ],
      warnings: [...options.hostWarnings, ...(gvisor && 'warning' in gvisor ? [gvisor.warning] : []), ...processInfo.warnings, ...vmInfo.warnings, ...parts.network.warnings()],
    }
  }

  /** Made once and kept, as Docker's engine ID is. */
  async #id(): Promise<string> {
    const path = join(this.options.dataRoot, 'engine-id')
    try {
      return (await readFile(path, 'utf8')).trim()
    } catch {
      const id = randomUUID()
      await writeFile(path, `${id}\n`, { flag: 'wx', mode: 0o600 }).catch(() => {})
      return (await readFile(path, 'utf8')).trim()
    }
  }

  metrics(): MetricFamily[] {
    return this.familiesOf()
  }

  async *events(request: { since?: bigint; until?: bigint; filters: Filters<EventFilter>; signal: AbortSignal }): AsyncIterable<EngineEvent> {
    const queue: EngineEvent[] = []
    let wake: () => void = () => {}
    const unsubscribe = this.parts.events.subscribe((event) => {
      // A client that does not read must not grow the daemon: beyond this it loses the oldest.
      if (queue.length >= 10_000) queue.shift()
      queue.push(event)
      wake()
    })
    const nowNano = () => BigInt(Date.now()) * 1_000_000n
    const stop = () => wake()
    request.signal.addEventListener('abort', stop)
    // The timer says that the time is up; the clock is not asked again. A timer's clock may run a little ahead of the events' clock, and one that fired early must not
    // leave the client waiting for an event to come.
    let over = request.until !== undefined && request.until <= nowNano()
    let timer: NodeJS.Timeout | undefined
    const arm = (): void => {
      if (request.until === undefined || over) return
      const ms = Number((request.until - nowNano()) / 1_000_000n) + 1
      timer = setTimeout(() => {
        over = ms <= LONGEST_TIMER
        arm()
        wake()
      }, Math.min(Math.max(ms, 1), LONGEST_TIMER))
    }
    arm()
    try {
      let last = 0n
      if (request.since !== undefined) {
        for (const event of this.parts.events.past()) {
          last = event.timeNano
          if (event.timeNano < request.since || (request.until !== undefined && event.timeNano > request.until)) continue
          if (matchesEvent(event, request.filters)) yield event
        }
      }
      for (;;) {
        for (let event = queue.shift(); event; event = queue.shift()) {
          if (request.until !== undefined && event.timeNano > request.until) continue
          if (event.timeNano > last && matchesEvent(event, request.filters)) yield event
        }
        if (request.signal.aborted || over) return
        await new Promise<void>((resolve) => {
          wake = resolve
          if (queue.length > 0 || request.signal.aborted || over) resolve()
        })
      }
    } finally {
      clearTimeout(timer)
      unsubscribe()
      request.signal.removeEventListener('abort', stop)
    }
  }

  async auth(request: { username: string; password: string; serverAddress: string; identityToken: string }): Promise<{ status: string; identityToken: string }> {
    const identityToken = await this.parts.images.login(request.serverAddress, {
      ...(request.username === '' ? {} : { username: request.username, password: request.password }),
      ...(request.identityToken === '' ? {} : { identitytoken: request.identityToken }),
    })
    return { status: 'Login Succeeded', identityToken }
  }

  async diskUsage(kinds: ReadonlySet<'container' | 'image' | 'volume' | 'build-cache'>): Promise<{
    layersSize: number
    images: ImageSummary[]
    containers: ContainerSummary[]
    volumes: VolumeDetails[]
  }> {
    const images = kinds.has('image') ? await this.images.list({ all: true, filters: {}, digests: false, sharedSize: true }) : []
    const containers = kinds.has('container') ? await this.containers.list({ all: true, limit: 0, size: true, filters: {} }) : []
    const volumes = kinds.has('volume') ? await this.parts.volumes.usage() : []
    return { layersSize: kinds.has('image') ? this.parts.images.layersSize() : 0, images, containers, volumes }
  }

  async distribution(reference: string, auth?: RegistryAuth): Promise<DistributionInfo> {
    return this.parts.images.distribution(reference, auth)
  }
}
