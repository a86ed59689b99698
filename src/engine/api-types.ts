import type { Duplex, Readable } from 'node:stream'
import type { Facts, Isolation, SandboxStats, TopResult } from '../sandbox/types.js'
import type { DistributionInfo, Image, ImageConfig, ProgressMessage, RegistryAuth, SearchResult } from '../image/types.js'
import type { BuildRequest } from './build-types.js'
import type { ContainerConfig, HostConfig } from './config-types.js'
import type { MetricFamily } from '../base/metrics.js'
import type { EngineEvent } from './events.js'

export type * from './config-types.js'

/**
 * What the API layer asks of the engine. Requests are validated and complete (defaults filled in) when they come here; failures are
 * thrown as HullErrors in Docker's words. `reference` of a container: full ID, unambiguous ID prefix, or name with or without '/'.
 * An `AbortSignal` fires when the client has gone; iterables then end and promises may reject with anything.
 */
export interface Engine {
  readonly system: SystemEngine
  readonly containers: ContainerEngine
  readonly execs: ExecEngine
  readonly images: ImageEngine
  readonly builds: BuildEngine
  readonly networks: NetworkEngine
  readonly volumes: VolumeEngine
}

/** Parsed `filters`: key → values, all of which the endpoint knows (the API answers 400 for the others). Values of one key are alternatives,
 *  keys are joined by "and"; a boolean filter has the value 'true' or 'false'; `label` is 'key' or 'key=value' and all of its values must hold. */
export type Filters<Key extends string> = Readonly<Partial<Record<Key, readonly string[]>>>

// containers ----------------------------------------------------------------------------------------------

/** One `-p`. */
export interface PublishedPort {
  containerPort: number
  protocol: 'tcp' | 'udp' | 'sctp'
  /** '' when not given. */
  hostIp: string
  /** 0: choose. First and last of a range to choose from; equal for a single port. */
  hostPortStart: number
  hostPortEnd: number
}

/** A mount from HostConfig.Binds, .Mounts, .Tmpfs, in one form; `target` is absolute and clean. */
export interface MountRequest {
  type: 'bind' | 'volume' | 'tmpfs' | 'image' | 'npipe' | 'cluster'
  /** bind: absolute host path. volume: name, '' for an anonymous one. tmpfs: ''. */
  source: string
  target: string
  readOnly: boolean
  /** bind: must the source exist (Mounts: yes unless CreateMountpoint; Binds: Docker makes the directory). */
  createSource: boolean
  /** As written: bind 'rslave', 'z', 'nocopy'; tmpfs: mount data such as 'size=64m', 'mode=1777'. */
  options: string[]
  /** Mounts[].VolumeOptions */
  volume?: { noCopy: boolean; labels: Record<string, string>; driver: string; driverOptions: Record<string, string>; subpath: string }
  /** Where the user wrote it: decides how inspect shows it. */
  from: 'Binds' | 'Mounts' | 'Tmpfs'
}

/** Settings for one network of NetworkingConfig.EndpointsConfig. */
export interface EndpointRequest {
  aliases: string[]
  links: string[]
  /** '' when not given. */
  ipv4Address: string
  ipv6Address: string
  macAddress: string
  driverOptions: Record<string, string>
}

/** POST /containers/create. */
export interface CreateContainerRequest {
  /** Without the slash; '' : choose one. */
  name: string
  /** 'linux/amd64', '' when not given. */
  platform: string
  config: ContainerConfig
  hostConfig: HostConfig
  /** HostConfig.PortBindings, parsed. */
  ports: PublishedPort[]
  /** HostConfig.Binds, .Mounts and .Tmpfs, parsed. Config.Volumes are not in it: they join the image's. */
  mounts: MountRequest[]
  /** By network name. */
  endpoints: Record<string, EndpointRequest>
}

export type ContainerFilter =
  | 'ancestor' | 'before' | 'expose' | 'exited' | 'health' | 'id' | 'isolation' | 'is-task' | 'label' | 'name' | 'network'
  | 'publish' | 'since' | 'status' | 'volume'

/** GET /containers/json. */
export interface ListContainersRequest {
  all: boolean
  /** 0: no limit. The latest created first. */
  limit: number
  /** Fill in sizeRw and sizeRootFs. */
  size: boolean
  filters: Filters<ContainerFilter>
}

export type ContainerStatus = 'created' | 'running' | 'paused' | 'restarting' | 'removing' | 'exited' | 'dead'

/** A mount as `inspect` and `ps` show it. */
export interface MountPoint {
  type: 'bind' | 'volume' | 'tmpfs'
  /** Volume's name, '' for others. */
  name: string
  source: string
  destination: string
  /** 'local' for volumes, '' for others. */
  driver: string
  /** 'z', 'ro', … as written. */
  mode: string
  rw: boolean
  propagation: string
}

/** A container's end on one network. */
export interface EndpointInfo {
  networkId: string
  endpointId: string
  /** '' while the container does not run. */
  gateway: string
  ipAddress: string
  prefixLength: number
  mac: string
  aliases: string[]
  links: string[]
  dnsNames: string[]
  driverOptions: Record<string, string>
  /** Empty on a network without IPv6. */
  ipv6: { address: string; prefixLength: number; gateway: string }
  /** What the user asked for (IPAMConfig), '' when nothing. */
  requestedAddress: string
  requestedAddress6: string
}

/** A port as it is really open; `hostPort` 0: exposed only. */
export interface PortInfo {
  containerPort: number
  protocol: 'tcp' | 'udp' | 'sctp'
  hostIp: string
  hostPort: number
}

/** A row of `docker ps`. */
export interface ContainerSummary {
  id: string
  name: string
  /** As the user named it, or the ID when that name now means another image. */
  image: string
  imageId: string
  /** What `docker ps` shows: entrypoint and arguments. */
  command: string[]
  created: Date
  status: ContainerStatus
  exitCode: number
  startedAt?: Date
  finishedAt?: Date
  /** undefined: no health check. */
  health?: 'starting' | 'healthy' | 'unhealthy'
  ports: PortInfo[]
  labels: Record<string, string>
  sizeRw?: number
  sizeRootFs?: number
  networkMode: string
  networks: Record<string, EndpointInfo>
  mounts: MountPoint[]
  annotations: Record<string, string>
}

/** State of a container. */
export interface ContainerState {
  status: ContainerStatus
  oomKilled: boolean
  /** 0 when it does not run. */
  pid: number
  exitCode: number
  /** Why the last start failed; ''. */
  error: string
  startedAt?: Date
  finishedAt?: Date
  health?: { status: 'starting' | 'healthy' | 'unhealthy'; failingStreak: number; log: { start: Date; end: Date; exitCode: number; output: string }[] }
}

/** GET /containers/{id}/json. */
export interface ContainerDetails {
  id: string
  name: string
  created: Date
  path: string
  args: string[]
  state: ContainerState
  imageId: string
  /** Architecture's os: 'linux'. */
  platform: string
  resolvConfPath: string
  hostnamePath: string
  hostsPath: string
  logPath: string
  restartCount: number
  /** Storage driver and its directories. */
  storage: { driver: string; data: Record<string, string> }
  appArmorProfile: string
  execIds: string[]
  /** With `Isolation` resolved to 'process' or 'vm'. */
  hostConfig: HostConfig
  config: ContainerConfig
  mounts: MountPoint[]
  ports: PortInfo[]
  networks: Record<string, EndpointInfo>
  /** Path of the network namespace, '' for none. */
  sandboxKey: string
  sizeRw?: number
  sizeRootFs?: number
  /** Hull's own: which wall, what stands behind the word, and how it is weaker than its name. */
  hull: { isolation: Isolation; accelerator: string; warnings: string[] }
}

/**
 * A stream to a container or an exec session. `duplex` reads output (raw with a tty, else in Docker's 8-byte framing, both streams: the API filters)
 * and takes stdin. The API ends its writable half when the client has ended its own; whether that closes the container's stdin (StdinOnce)
 * is the engine's matter (Docker ends an attach whose stdin ended when it did not close the container's). Output ends when the process has
 * ended and all was read; an exec session's exit code is known to `inspect` before that. `destroy()` detaches and leaves the process alone.
 */
export interface AttachedStream {
  tty: boolean
  duplex: Duplex
  /** The client typed the detach keys: announce it ('detach', 'exec_detach') and detach. */
  detach(): void
}

/** POST /containers/{id}/attach. */
export interface AttachRequest {
  /** Replay the log first, without a gap or a repetition. */
  logs: boolean
  /** Follow live output; when false output ends after the log. */
  stream: boolean
  /** When false nothing is written to `duplex`. */
  stdin: boolean
  stdout: boolean
  stderr: boolean
}

/** GET /containers/{id}/logs. */
export interface LogsRequest {
  follow: boolean
  /** Only lines at or after this moment (nanoseconds since the epoch); undefined: all. */
  since?: bigint
  until?: bigint
  /** Put RFC 3339 time with nanoseconds and a blank before every line. */
  timestamps: boolean
  /** Put the attributes that the log options name before every line. */
  details: boolean
  /** Last so many lines; undefined: all. Counted before stdout and stderr are told apart, as Docker does. */
  tail?: number
  signal: AbortSignal
}

/** `output` as in {@link AttachedStream}; both streams, the API filters. `destroy()` stops following. */
export interface LogsResult {
  tty: boolean
  output: Readable
}

export type WaitCondition = 'not-running' | 'next-exit' | 'removed'

/** One sample for /stats. */
export interface StatsSample {
  id: string
  name: string
  read: Date
  /** undefined: it does not run. */
  stats: SandboxStats | undefined
  /** CPU time of the whole host since boot, all CPUs and all states but guest, nanoseconds (first line of /proc/stat). */
  systemCpu: number
}

/** POST /containers/{id}/update. Only what is to change. */
export interface UpdateContainerRequest {
  resources: Partial<HostConfig>
  restartPolicy?: HostConfig['RestartPolicy']
}

/** POST /containers/{id}/exec. */
export interface CreateExecRequest {
  attachStdin: boolean
  attachStdout: boolean
  attachStderr: boolean
  tty: boolean
  /** Parsed from the text by the API at start of the stream; kept as written for inspect. */
  detachKeys: string
  env: string[]
  /** Never empty. */
  cmd: string[]
  privileged: boolean
  user: string
  workingDir: string
  consoleSize?: [rows: number, columns: number]
}

export interface ContainerEngine {
  list(request: ListContainersRequest): Promise<ContainerSummary[]>
  /** 409 name in use, 404 'No such image: …', 400 'no command specified', … */
  create(request: CreateContainerRequest): Promise<{ id: string; warnings: string[] }>
  inspect(reference: string, options: { size: boolean }): Promise<ContainerDetails>
  top(reference: string, psArgs: string[]): Promise<TopResult>
  logs(reference: string, request: LogsRequest): Promise<LogsResult>
  /** `true`: started; `false`: it ran already (304). */
  start(reference: string): Promise<boolean>
  /** `true`: stopped; `false`: it did not run (304). `timeout` in seconds, -1 for ever; undefined: the container's own. */
  stop(reference: string, options: { timeout?: number; signal?: number }): Promise<boolean>
  restart(reference: string, options: { timeout?: number; signal?: number }): Promise<void>
  /** 409 when it does not run. */
  kill(reference: string, signal: number): Promise<void>
  pause(reference: string): Promise<void>
  unpause(reference: string): Promise<void>
  rename(reference: string, name: string): Promise<void>
  update(reference: string, request: UpdateContainerRequest): Promise<{ warnings: string[] }>
  resize(reference: string, rows: number, columns: number): Promise<void>
  /** Resolves as soon as the waiter is registered, so that no exit is missed; `exit` resolves when the condition is met.
   *  `error` is Docker's: the reason when waiting or removing failed. `signal`: forget the waiter. */
  wait(reference: string, condition: WaitCondition, signal: AbortSignal): Promise<{ exit: Promise<{ exitCode: number; error?: string }> }>
  remove(reference: string, options: { volumes: boolean; force: boolean; link: boolean }): Promise<void>
  /** Works before the start too ('created'): the stream then waits for it. 409 when paused or restarting. */
  attach(reference: string, request: AttachRequest): Promise<AttachedStream>
  /** 404 before the first sample. A sample at once and then one a second, until the client goes, or one only when `once`. A container that does
   *  not run gives samples with `stats` undefined. */
  stats(reference: string, options: { once: boolean; signal: AbortSignal }): Promise<AsyncIterable<StatsSample>>
  prune(filters: Filters<'until' | 'label' | 'label!'>): Promise<{ deleted: string[]; spaceReclaimed: number }>
  /** Hull's own. */
  explain(reference: string): Promise<{ id: string; name: string; isolation: Isolation; sections: Facts[] }>
  /** HEAD /archive: a file's kind in the container. */
  archiveStat(reference: string, path: string): Promise<ArchiveStat>
  /** GET /archive: a tar of `path`. */
  archiveGet(reference: string, path: string, signal: AbortSignal): Promise<{ stat: ArchiveStat; tar: Readable }>
  /** PUT /archive: unpack a tar into the directory `path`. */
  archivePut(reference: string, path: string, tar: Readable, options: { noOverwriteDirNonDir: boolean; copyUidGid: boolean }): Promise<void>
  /** Kind: 0 modified, 1 added, 2 deleted. */
  changes(reference: string, signal: AbortSignal): Promise<{ path: string; kind: 0 | 1 | 2 }[]>
  export(reference: string, signal: AbortSignal): Promise<Readable>
  commit(reference: string, request: CommitRequest): Promise<{ id: string }>
}

/** What HEAD and GET /archive say of a path. */
export interface ArchiveStat {
  name: string
  size: number
  /** Go's os.FileMode bits. */
  mode: number
  mtime: Date
  linkTarget: string
}

/** POST /commit. */
export interface CommitRequest {
  repo: string
  tag: string
  comment: string
  author: string
  pause: boolean
  changes: string[]
}

/** GET /exec/{id}/json. */
export interface ExecDetails {
  id: string
  containerId: string
  running: boolean
  /** null: has not ended. */
  exitCode: number | null
  pid: number
  canRemove: boolean
  request: CreateExecRequest
}

export interface ExecEngine {
  /** 404, 409 when the container does not run or is paused. Returns the session's ID (64 hexadecimal digits). */
  create(container: string, request: CreateExecRequest): Promise<string>
  inspect(id: string): Promise<ExecDetails>
  /** All that can be refused before the command runs: 404 unknown, 409 already started or ended, or container stopped or paused. */
  checkStart(id: string): Promise<ExecDetails>
  /** Runs it and resolves once it runs, also when it has ended already; undefined when `detach`. Rejects when it cannot run (and inspect's exit code is then 126 or 127):
   *  the API has hijacked the connection by then and writes the message into the stream, as Docker does. */
  start(id: string, options: { detach: boolean; consoleSize?: [rows: number, columns: number] }): Promise<AttachedStream | undefined>
  resize(id: string, rows: number, columns: number): Promise<void>
}

// images ----------------------------------------------------------------------------------------------------

export type ImageFilter = 'before' | 'dangling' | 'label' | 'label!' | 'reference' | 'since' | 'until'

/** A row of `docker images`. */
export interface ImageSummary {
  image: Image
  /** Containers that use it; -1: not counted. */
  containers: number
  /** Bytes of layers that other images have too; -1: not counted. */
  sharedSize: number
}

/** One line of `docker history`, newest first. */
export interface HistoryEntry {
  /** Image ID, or '<missing>'. */
  id: string
  created: Date
  createdBy: string
  tags: string[]
  size: number
  comment: string
}

export interface ImageEngine {
  list(request: { all: boolean; filters: Filters<ImageFilter>; digests: boolean; sharedSize: boolean }): Promise<ImageSummary[]>
  inspect(reference: string): Promise<{ image: Image; layersDirectories: Record<string, string>; storageDriver: string; lastTagged?: Date }>
  history(reference: string): Promise<HistoryEntry[]>
  tag(reference: string, repo: string, tag: string): Promise<void>
  remove(reference: string, options: { force: boolean; noprune: boolean }): Promise<({ Untagged: string } | { Deleted: string })[]>
  pull(reference: string, options: { platform: string; allTags: boolean; auth?: RegistryAuth; onProgress: (m: ProgressMessage) => void; signal: AbortSignal }): Promise<void>
  load(tar: Readable, options: { onProgress: (m: ProgressMessage) => void; signal: AbortSignal }): Promise<void>
  /** Returns the new image's ID. */
  import(tar: Readable, options: { repo: string; tag: string; message: string; changes: string[]; platform: string; signal: AbortSignal }): Promise<string>
  /** A docker-archive of the named images. */
  save(references: string[], signal: AbortSignal): Promise<Readable>
  push(reference: string, options: { tag: string; auth?: RegistryAuth; onProgress: (m: ProgressMessage) => void; signal: AbortSignal }): Promise<void>
  search(term: string, options: { limit: number; auth?: RegistryAuth; filters: Filters<'is-automated' | 'is-official' | 'stars'>; signal: AbortSignal }): Promise<SearchResult[]>
  prune(filters: Filters<'dangling' | 'until' | 'label' | 'label!'>): Promise<{ deleted: ({ Untagged: string } | { Deleted: string })[]; spaceReclaimed: number }>
}

/** `docker build`. */
export interface BuildEngine {
  /** Builds from a tar of the context; resolves with the image's ID. 400 for what is wrong with the Dockerfile; StepError for a command that failed. */
  build(tar: Readable, request: BuildRequest): Promise<string>
}

// networks and volumes ----------------------------------------------------------------------------------------

export type NetworkFilter = 'dangling' | 'driver' | 'id' | 'label' | 'name' | 'scope' | 'type'

/** One subnet of a network; '' what was not given. */
export interface NetworkAddressing {
  subnet: string
  gateway: string
  ipRange: string
  /** --aux-address: name → address that is never given out. */
  auxiliary: Record<string, string>
}

/** A network as `docker network inspect` shows it. */
export interface NetworkDetails {
  name: string
  id: string
  created: Date
  scope: 'local'
  driver: string
  enableIPv6: boolean
  internal: boolean
  attachable: boolean
  ipam: { driver: string; options: Record<string, string>; configs: NetworkAddressing[] }
  options: Record<string, string>
  labels: Record<string, string>
  /** Running containers on it, by container ID. */
  containers: Record<string, { name: string; endpointId: string; mac: string; ipv4: string; ipv6: string }>
}

/** POST /networks/create. */
export interface CreateNetworkRequest {
  name: string
  driver: string
  internal: boolean
  attachable: boolean
  ingress: boolean
  enableIPv6: boolean
  ipam: { driver: string; configs: NetworkAddressing[]; options: Record<string, string> }
  options: Record<string, string>
  labels: Record<string, string>
}

export interface NetworkEngine {
  list(filters: Filters<NetworkFilter>): Promise<NetworkDetails[]>
  inspect(reference: string): Promise<NetworkDetails>
  create(request: CreateNetworkRequest): Promise<{ id: string; warning: string }>
  remove(reference: string): Promise<void>
  connect(network: string, container: string, endpoint: EndpointRequest): Promise<void>
  disconnect(network: string, container: string, force: boolean): Promise<void>
  prune(filters: Filters<'until' | 'label' | 'label!'>): Promise<{ deleted: string[] }>
}

/** A volume. */
export interface VolumeDetails {
  name: string
  driver: string
  mountpoint: string
  created: Date
  labels: Record<string, string>
  options: Record<string, string>
  scope: 'local'
  /** Only for /system/df. */
  usage?: { size: number; refCount: number }
}

export interface VolumeEngine {
  list(filters: Filters<'dangling' | 'driver' | 'label' | 'name'>): Promise<{ volumes: VolumeDetails[]; warnings: string[] }>
  inspect(name: string): Promise<VolumeDetails>
  /** The one there is when the name is taken. `name` '': choose one. */
  create(request: { name: string; driver: string; options: Record<string, string>; labels: Record<string, string> }): Promise<VolumeDetails>
  remove(name: string, force: boolean): Promise<void>
  prune(filters: Filters<'all' | 'label' | 'label!'>): Promise<{ deleted: string[]; spaceReclaimed: number }>
}

// system --------------------------------------------------------------------------------------------------------

/** What `docker info` shows. */
export interface EngineInfo {
  id: string
  name: string
  containers: { running: number; paused: number; stopped: number }
  images: number
  storageDriver: string
  storageStatus: [name: string, value: string][]
  dataRoot: string
  loggingDriver: string
  /** 'cgroupfs' | 'systemd' | 'none' */
  cgroupDriver: string
  cgroupVersion: '1' | '2'
  limits: { memory: boolean; swap: boolean; cpuCfs: boolean; cpuShares: boolean; cpuset: boolean; pids: boolean; oomKillDisable: boolean }
  ipv4Forwarding: boolean
  kernelVersion: string
  operatingSystem: string
  osVersion: string
  architecture: string
  cpus: number
  /** bytes */
  memory: number
  runtimes: Record<string, { path: string }>
  defaultRuntime: string
  defaultIsolation: Isolation
  /** 'name=seccomp,profile=builtin' and the like. */
  securityOptions: string[]
  networkPlugins: string[]
  /** Versions by name: crun, tini. */
  components: Record<string, string>
  insecureRegistries: string[]
  httpProxy: string
  httpsProxy: string
  noProxy: string
  labels: string[]
  eventsListeners: number
  /** 'isolation=process|vm', accelerator, … : lines of Hull's own. */
  details: [name: string, value: string][]
  warnings: string[]
}

export type { EngineEvent, EventType } from './events.js'

export type EventFilter = 'container' | 'daemon' | 'event' | 'image' | 'label' | 'network' | 'plugin' | 'scope' | 'type' | 'volume' | 'builder' | 'config' | 'node' | 'secret' | 'service'

export interface SystemEngine {
  /** For GET /metrics. */
  metrics(): MetricFamily[]
  info(): Promise<EngineInfo>
  /** An iterable must not queue without bound for a client that does not read: end it instead.
   *  Kept events since `since` (nanoseconds), then live ones until `until` (in the past: ends at once) or the client goes. */
  events(request: { since?: bigint; until?: bigint; filters: Filters<EventFilter>; signal: AbortSignal }): AsyncIterable<EngineEvent>
  /** 401 when the registry refuses. */
  auth(request: { username: string; password: string; serverAddress: string; identityToken: string }): Promise<{ status: string; identityToken: string }>
  /** What things weigh; only the kinds asked for. */
  diskUsage(kinds: ReadonlySet<'container' | 'image' | 'volume' | 'build-cache'>): Promise<{
    layersSize: number
    images: ImageSummary[]
    containers: ContainerSummary[]
    volumes: VolumeDetails[]
  }>
  /** GET /distribution/{name}/json: what a registry has under a name. */
  distribution(reference: string, auth?: RegistryAuth): Promise<DistributionInfo>
}

export type { DistributionInfo, Facts, Image, ImageConfig, Isolation, ProgressMessage, RegistryAuth, SandboxStats, SearchResult, TopResult }
