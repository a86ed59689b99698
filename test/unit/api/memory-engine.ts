import { randomBytes } from 'node:crypto'
import { PassThrough, Readable, duplexPair, type Duplex } from 'node:stream'
import { badRequest, conflict, HullError, notFound, notImplemented } from '../../../src/base/errors.js'
import type {
  AttachedStream, AttachRequest, BuildEngine, ContainerDetails, ContainerEngine, ContainerSummary, CreateContainerRequest, CreateExecRequest, Engine, EngineEvent, ExecDetails,
  ExecEngine, Image, ImageEngine, LogsRequest, NetworkEngine, ProgressMessage, SandboxStats, StatsSample, SystemEngine, VolumeEngine,
} from '../../../src/engine/api-types.js'
import { StepError } from '../../../src/engine/build-types.js'
import { EventBus } from '../../../src/engine/events.js'
import { NameRegistry } from '../../../src/engine/names.js'
import { resolveIsolation } from '../../../src/engine/policy.js'

/** Both ends of a stream: the API's, and the workload's, which a test plays. */
export interface Stdio {
  api: Duplex
  workload: Duplex
}
const stdio = (): Stdio => {
  const [api, workload] = duplexPair()
  for (const end of [api, workload]) end.on('error', () => {})
  return { api, workload }
}

export interface MemoryContainer {
  id: string
  name: string
  request: CreateContainerRequest
  created: Date
  status: ContainerSummary['status']
  exitCode: number
  startedAt?: Date
  finishedAt?: Date
  attached: Stdio[]
  waiters: ((exitCode: number) => void)[]
  /** Whole frames (or raw bytes for a tty). */
  log: Buffer
  size?: [number, number]
  signals: number[]
  detached: number
}

interface MemoryExec {
  details: ExecDetails
  stdio: Stdio | undefined
  detached: number
  size?: [number, number]
}

const stats: SandboxStats = {
  memoryUsage: 1 << 20, memoryLimit: 1 << 28, memoryStats: { inactive_file: 4096 }, cpuTotal: 1e9, cpuUser: 6e8, cpuKernel: 4e8, onlineCpus: 2, pids: 1, pidsLimit: 0,
  network: { name: 'eth0', rxBytes: 1, rxPackets: 2, rxErrors: 0, rxDropped: 0, txBytes: 3, txPackets: 4, txErrors: 0, txDropped: 0 }, blockRead: 5, blockWrite: 6,
}

/** An engine whose containers are entries in a map: no kernel behind it. Tests play the workloads. */
export class MemoryEngine implements Engine {
  readonly events = new EventBus()
  readonly all = new Map<string, MemoryContainer>()
  readonly execSessions = new Map<string, MemoryExec>()
  readonly #names = new NameRegistry()
  /** Every call that reached the engine, for tests of what the API passes on. */
  readonly calls: [name: string, ...args: unknown[]][] = []
  /** What the next pull does. */
  pull: (onProgress: (m: ProgressMessage) => void, signal: AbortSignal) => Promise<void> = async () => {}
  /** How a command is refused; undefined: it runs. */
  execFailure: HullError | undefined
  uploaded = 0
  /** Ready streams of `/events` iterations that ended. */
  eventsEnded = 0

  find(reference: string): MemoryContainer {
    const name = reference.replace(/^\//, '')
    const owner = this.#names.owner(name)
    const matches = owner ? [owner] : [...this.all.keys()].filter((id) => name.length > 0 && id.startsWith(name))
    if (matches.length > 1) throw badRequest(`multiple IDs found with provided prefix: ${reference}`)
    const found = this.all.get(matches[0] ?? '')
    if (!found) throw notFound(`No such container: ${reference}`)
    return found
  }

  /** The workload ends. */
  exit(container: MemoryContainer, code: number): void {
    container.status = 'exited'
    container.exitCode = code
    container.finishedAt = new Date()
    for (const end of container.attached) end.workload.end()
    for (const waiter of container.waiters.splice(0)) waiter(code)
    this.events.publish('container', 'die', container.id, { exitCode: String(code), image: container.request.config.Image, name: container.name })
  }

  readonly containers: ContainerEngine = {
    list: async (request) => {
      this.calls.push(['list', request])
      return [...this.all.values()].filter((c) => request.all || c.status === 'running').map((c) => this.#summary(c))
    },
    create: async (request) => {
      this.calls.push(['create', request])
      if (request.config.Image === '') throw badRequest('no image given')
      if (request.config.Image === 'missing') throw notFound('No such image: missing:latest')
      const isolation = resolveIsolation(request.hostConfig.Isolation, 'process')
      const id = randomBytes(32).toString('hex')
      const name = this.#names.take(request.name, id)
      this.all.set(id, {
        id, name, request, created: new Date(), status: 'created', exitCode: 0, attached: [], waiters: [], log: Buffer.alloc(0), signals: [], detached: 0,
      })
      this.events.publish('container', 'create', id, { image: request.config.Image, name })
      return { id, warnings: isolation === 'vm' ? ['emulation'] : [] }
    },
    inspect: async (reference) => this.#details(this.find(reference)),
    top: async (reference, args) => {
      this.find(reference)
      this.calls.push(['top', args])
      return { Titles: ['PID', 'CMD'], Processes: [['1', 'sh']] }
    },
    logs: async (reference, request) => this.#logs(reference, request),
    start: async (reference) => {
      const container = this.find(reference)
      if (container.status === 'running') return false
      container.status = 'running'
      container.startedAt = new Date()
      this.events.publish('container', 'start', container.id, { image: container.request.config.Image, name: container.name })
      return true
    },
    stop: async (reference, options) => {
      const container = this.find(reference)
      this.calls.push(['stop', options])
      if (container.status !== 'running') return false
      this.exit(container, 143)
      return true
    },
    restart: async (reference, options) => {
      this.calls.push(['restart', options])
      this.find(reference).status = 'running'
    },
    kill: async (reference, signal) => {
      const container = this.find(reference)
      if (container.status !== 'running') throw conflict(`container ${container.id} is not running`)
      container.signals.push(signal)
      if (signal === 9) this.exit(container, 137)
    },
    pause: async (reference) => void (this.find(reference).status = 'paused'),
    unpause: async (reference) => void (this.find(reference).status = 'running'),
    rename: async (reference, name) => {
      const container = this.find(reference)
      const old = container.name
      container.name = this.#names.take(name, container.id)
      this.#names.free(old, container.id)
    },
    update: async (reference, request) => {
      this.find(reference)
      this.calls.push(['update', request])
      return { warnings: [] }
    },
    resize: async (reference, rows, columns) => void (this.find(reference).size = [rows, columns]),
    wait: async (reference, condition, signal) => {
      const container = this.find(reference)
      if (condition === 'not-running' && container.status === 'exited') return { exit: Promise.resolve({ exitCode: container.exitCode }) }
      return {
        exit: new Promise((resolve, reject) => {
          const waiter = (exitCode: number) => resolve({ exitCode })
          container.waiters.push(waiter)
          signal.addEventListener('abort', () => {
            container.waiters.splice(container.waiters.indexOf(waiter), 1)
            reject(new Error('aborted'))
          })
        }),
      }
    },
    remove: async (reference, options) => {
      const container = this.find(reference)
      if (container.status === 'running' && !options.force) throw conflict(`cannot remove container "/${container.name}": container is running: stop the container before removing or force remove`)
      this.#names.free(container.name, container.id)
      this.all.delete(container.id)
    },
    attach: async (reference, request) => this.#attach(reference, request),
    stats: async (reference, { once, signal }) => {
      const container = this.find(reference)
      return (async function* (): AsyncGenerator<StatsSample> {
        for (let n = 1; !signal.aborted; n++) {
          yield { id: container.id, name: container.name, read: new Date(), systemCpu: n * 1e9, stats: container.status === 'running' ? { ...stats, cpuTotal: n * 1e8 } : undefined }
          if (once) return
          await new Promise((resolve) => setTimeout(resolve, 5))
        }
      })()
    },
    prune: async () => ({ deleted: [], spaceReclaimed: 0 }),
    explain: async (reference) => {
      const container = this.find(reference)
      return { id: container.id, name: container.name, isolation: 'process', sections: [{ title: 'namespaces', rows: [['pid', 'own']] }] }
    },
    archiveStat: async (_reference, path) => ({ name: path, size: 1, mode: 0o644, mtime: new Date(0), linkTarget: '' }),
    archiveGet: async () => {
      throw notImplemented('cp')
    },
    archivePut: async () => {
      throw notImplemented('cp')
    },
    changes: async (_reference, signal) => {
      this.calls.push(['changes', { leaves: signal instanceof AbortSignal }])
      return []
    },
    export: async () => Readable.from([Buffer.from('tar')]),
    commit: async () => {
      throw notImplemented('commit')
    },
  }

  async #attach(reference: string, request: AttachRequest): Promise<AttachedStream> {
    this.calls.push(['attach', request])
    const container = this.find(reference)
    if (container.status === 'paused') throw conflict(`Container ${reference} is paused, unpause the container before attach.`)
    const ends = stdio()
    if (request.logs) ends.workload.write(container.log)
    if (request.stream) container.attached.push(ends)
    else ends.workload.end()
    return { tty: container.request.config.Tty, duplex: ends.api, detach: () => void container.detached++ }
  }

  async #logs(reference: string, request: LogsRequest): Promise<{ tty: boolean; output: Readable }> {
    const container = this.find(reference)
    this.calls.push(['logs', { ...request, signal: undefined }])
    const output = new PassThrough()
    output.write(container.log)
    if (!request.follow) output.end()
    request.signal.addEventListener('abort', () => output.destroy())
    container.waiters.push(() => output.end())
    return { tty: container.request.config.Tty, output }
  }

  #summary(container: MemoryContainer): ContainerSummary {
    return {
      id: container.id, name: container.name, image: container.request.config.Image, imageId: 'sha256:0', command: container.request.config.Cmd ?? [], created: container.created,
      status: container.status, exitCode: container.exitCode, ports: [], labels: container.request.config.Labels, networkMode: container.request.hostConfig.NetworkMode,
      networks: {}, mounts: [], annotations: {}, ...(container.startedAt ? { startedAt: container.startedAt } : {}),
      ...(container.finishedAt ? { finishedAt: container.finishedAt } : {}),
    }
  }

  #details(container: MemoryContainer): ContainerDetails {
    const [path = '', ...args] = container.request.config.Cmd ?? []
    return {
      id: container.id, name: container.name, created: container.created, path, args, imageId: 'sha256:0', platform: 'linux', resolvConfPath: '', hostnamePath: '', hostsPath: '',
      logPath: '', restartCount: 0, storage: { driver: 'overlay2', data: {} }, appArmorProfile: '', execIds: [], hostConfig: container.request.hostConfig,
      config: container.request.config, mounts: [], ports: [], networks: {}, sandboxKey: '', hull: { isolation: 'process', accelerator: '', warnings: [] },
      state: {
        status: container.status, oomKilled: false, pid: container.status === 'running' ? 42 : 0, exitCode: container.exitCode, error: '',
        ...(container.startedAt ? { startedAt: container.startedAt } : {}), ...(container.finishedAt ? { finishedAt: container.finishedAt } : {}),
      },
    }
  }

  execSession(id: string): MemoryExec {
    const found = this.execSessions.get(id)
    if (!found) throw notFound(`No such exec instance: ${id}`)
    return found
  }

  readonly execs: ExecEngine = {
    create: async (reference, request: CreateExecRequest) => {
      const container = this.find(reference)
      if (container.status !== 'running') throw conflict(`container ${container.id} is not running`)
      const id = randomBytes(32).toString('hex')
      this.execSessions.set(id, { details: { id, containerId: container.id, running: false, exitCode: null, pid: 0, canRemove: false, request }, stdio: undefined, detached: 0 })
      return id
    },
    inspect: async (id) => this.execSession(id).details,
    checkStart: async (id) => {
      const { details } = this.execSession(id)
      if (details.running || details.exitCode !== null) throw conflict(`Error: Exec command ${id} is already running`)
      return details
    },
    start: async (id, options) => {
      this.calls.push(['execStart', options])
      const session = this.execSession(id)
      if (this.execFailure) {
        session.details.exitCode = 127
        throw this.execFailure
      }
      session.details.running = true
      if (options.detach) return undefined
      const ends = (session.stdio = stdio())
      return { tty: session.details.request.tty, duplex: ends.api, detach: () => void session.detached++ }
    },
    resize: async (id, rows, columns) => void (this.execSession(id).size = [rows, columns]),
  }

  readonly image: Image = {
    id: `sha256:${'a'.repeat(64)}`, architecture: 'amd64', os: 'linux', created: '2026-01-02T03:04:05Z', config: { Cmd: ['sh'], Env: ['PATH=/bin'] }, diffIds: [],
    history: [{ created: '2026-01-02T03:04:05Z', created_by: 'sh', comment: 'c' }], repoTags: ['localhost:5000/a/b:latest'], repoDigests: [], size: 1234,
  }

  readonly images: ImageEngine = {
    list: async (request) => {
      this.calls.push(['images', request])
      return [{ image: this.image, containers: -1, sharedSize: -1 }]
    },
    inspect: async (reference) => {
      this.calls.push(['imageInspect', reference])
      if (!reference.startsWith('localhost:5000/a/b') && reference !== 'busybox') throw notFound(`No such image: ${reference}`)
      return { image: this.image, layersDirectories: {}, storageDriver: 'overlay2' }
    },
    history: async () => [{ id: '<missing>', created: new Date(0), createdBy: 'sh', tags: [], size: 1, comment: '' }],
    tag: async (...args) => void this.calls.push(['tag', ...args]),
    remove: async (reference, options) => {
      this.calls.push(['imageRemove', reference, options])
      return [{ Untagged: reference }]
    },
    pull: async (reference, options) => {
      this.calls.push(['pull', reference, { platform: options.platform, allTags: options.allTags, auth: options.auth }])
      await this.pull(options.onProgress, options.signal)
    },
    load: async (tar, options) => {
      for await (const chunk of tar as AsyncIterable<Buffer>) {
        this.uploaded += chunk.length
        options.onProgress({ status: 'Loading layer', id: 'x', progressDetail: { current: this.uploaded } })
      }
      if (this.uploaded === 0) throw badRequest('unexpected EOF')
      options.onProgress({ stream: 'Loaded image: x\n' })
    },
    import: async (tar, options) => {
      for await (const chunk of tar as AsyncIterable<Buffer>) this.uploaded += chunk.length
      this.calls.push(['import', { ...options, signal: undefined }])
      return 'sha256:imported'
    },
    save: async () => {
      throw notImplemented('save')
    },
    push: async () => {
      throw notImplemented('push')
    },
    search: async () => {
      throw notImplemented('search')
    },
    prune: async () => ({ deleted: [], spaceReclaimed: 0 }),
  }

  readonly networks: NetworkEngine = {
    list: async () => [await this.networks.inspect('bridge')],
    inspect: async (reference) => {
      if (reference !== 'bridge') throw notFound(`network ${reference} not found`)
      return {
        name: 'bridge', id: 'b'.repeat(64), created: new Date(0), scope: 'local', driver: 'bridge', enableIPv6: false, internal: false, attachable: false,
        ipam: { driver: 'default', options: {}, configs: [{ subnet: '10.1.0.0/16', gateway: '10.1.0.1', ipRange: '', auxiliary: {} }] }, options: {}, labels: {}, containers: {},
      }
    },
    create: async () => {
      throw notImplemented('networks')
    },
    remove: async () => {
      throw notImplemented('networks')
    },
    connect: async () => {
      throw notImplemented('networks')
    },
    disconnect: async () => {
      throw notImplemented('networks')
    },
    prune: async () => ({ deleted: [] }),
  }

  readonly volumes: VolumeEngine = {
    list: async () => ({ volumes: [], warnings: [] }),
    inspect: async (name) => {
      throw notFound(`get ${name}: no such volume`)
    },
    create: async () => {
      throw notImplemented('volumes')
    },
    remove: async () => {
      throw notImplemented('volumes')
    },
    prune: async () => ({ deleted: [], spaceReclaimed: 0 }),
  }

  readonly builds: BuildEngine = {
    build: async (tar, request) => {
      for await (const chunk of tar as AsyncIterable<Buffer>) this.uploaded += chunk.length
      this.calls.push(['build', { ...request, auth: request.auth('docker.io'), container: undefined, onProgress: undefined, signal: undefined }])
      if (this.uploaded === 0) throw badRequest('Cannot locate specified Dockerfile: Dockerfile')
      request.onProgress({ stream: 'Step 1/1 : RUN false\n' })
      throw new StepError("The command '/bin/sh -c false' returned a non-zero code: 1", 1)
    },
  }

  readonly system: SystemEngine = {
    metrics: () => [],
    info: async () => ({
      id: 'x', name: 'host', containers: { running: 0, paused: 0, stopped: this.all.size }, images: 1, storageDriver: 'overlay2', storageStatus: [], dataRoot: '/var/lib/hull',
      loggingDriver: 'k8s-file', cgroupDriver: 'cgroupfs', cgroupVersion: '2', ipv4Forwarding: true, kernelVersion: '6.1.0', operatingSystem: 'Debian', osVersion: '12',
      limits: { memory: true, swap: true, cpuCfs: true, cpuShares: true, cpuset: true, pids: true, oomKillDisable: true }, architecture: 'x86_64', cpus: 2, memory: 1e9,
      runtimes: { crun: { path: 'crun' } }, defaultRuntime: 'crun', defaultIsolation: 'process', securityOptions: ['name=seccomp,profile=builtin'], networkPlugins: ['bridge'],
      components: { crun: '1.8.1' }, insecureRegistries: ['localhost:5000', '127.0.0.0/8'], httpProxy: '', httpsProxy: '', noProxy: '', labels: [], eventsListeners: 0,
      details: [['Isolation', 'process, vm']], warnings: ['a warning'],
    }),
    events: (request) => this.#events(request),
    auth: async (request) => {
      this.calls.push(['auth', request])
      if (request.password !== 'right') throw new HullError(401, 'unauthorized: incorrect username or password')
      return { status: 'Login Succeeded', identityToken: '' }
    },
    diskUsage: async () => ({ layersSize: 1, images: [], containers: [], volumes: [] }),
    distribution: async () => {
      throw notImplemented('distribution')
    },
  }

  async *#events(request: Parameters<SystemEngine['events']>[0]): AsyncGenerator<EngineEvent> {
    const queue: EngineEvent[] = request.since === undefined ? [] : [...this.events.past()]
    let wake = () => {}
    const stop = this.events.subscribe((event) => {
      queue.push(event)
      wake()
    })
    request.signal.addEventListener('abort', () => wake())
    try {
      while (!request.signal.aborted) {
        while (queue.length > 0) yield queue.shift()!
        if (request.until !== undefined && request.until <= BigInt(Date.now()) * 1_000_000n) return
        await new Promise<void>((resolve) => (wake = resolve))
      }
    } finally {
      stop()
      this.eventsEnded++
    }
  }
}
