import type { Duplex } from 'node:stream'
import type { MetricFamily } from '../base/metrics.js'
import type { LogLimits } from '../oci/log-files.js'
import type { FileJob, FileOperation } from './files.js'
import type { IdMap } from '../host/subid.js'
import type { DefaultRoute, GuestInterface } from '../network/types.js'
import type { BlockDeviceLimits } from '../oci/block-io.js'

/** The two walls. Docker's HostConfig.Isolation, already resolved (`default` and `hyperv` never come this far). */
export type Isolation = 'process' | 'vm'

/** A process to run in a container, OCI runtime-spec `process` before users and capabilities are resolved. */
export interface ProcessSpec {
  /** argv; never empty. */
  args: string[]
  /** KEY=VALUE lines, complete (PATH, HOSTNAME, TERM, HOME are added by the sandbox where Docker does). */
  env: string[]
  /** Absolute. Made if it does not exist (containers only, as Docker does). */
  cwd: string
  /** As the user wrote it: '', 'name', 'uid', 'name:group', 'uid:gid'. Resolved against the container's own /etc/passwd. */
  user: string
  /** --group-add: names or gids. */
  groupAdd: string[]
  tty: boolean
  /** [rows, columns] of the terminal at its start. */
  consoleSize?: [number, number]
  privileged: boolean
}

/** Limits, in the units of Docker's HostConfig. 0 or absent: no limit. */
export interface Resources {
  /** bytes */
  memory: number
  /** memory + swap, bytes; -1 unlimited; 0: twice the memory */
  memorySwap: number
  /** bytes; soft limit */
  memoryReservation: number
  /** CPUs in billionths (`--cpus 1.5` is 1.5e9) */
  nanoCpus: number
  cpuShares: number
  /** microseconds */
  cpuPeriod: number
  /** microseconds */
  cpuQuota: number
  /** list format, '0-1,3' */
  cpusetCpus: string
  cpusetMems: string
  /** -1 or 0: unlimited */
  pidsLimit: number
  ulimits: { name: string; soft: number; hard: number }[]
  oomKillDisable: boolean
  oomScoreAdj: number
  blkioWeight: number
  /** Limits on the host's block devices; absent: none. */
  blkioDevices?: BlockDeviceLimits
  /** 0 to 100; absent: the host's. cgroup v1 only. */
  memorySwappiness?: number
}

/** Namespaces that are not the container's own; absent: its own. `joined`: another container's, in {@link SandboxAttachments}. */
export interface NamespaceChoice {
  pid?: 'host' | 'joined'
  /** `none`: its own, without /dev/shm; `shareable`: its own, which others may join. */
  ipc?: 'host' | 'none' | 'shareable' | 'joined'
  uts?: 'host'
  cgroup?: 'host'
  network?: 'joined'
}

/** `--device` */
export interface DeviceSpec {
  hostPath: string
  /** In the container; '': the same. */
  path: string
  /** Of r, w, m; '': all. */
  permissions: string
}

/** Where the container's network comes from; what network/ handed out. */
export type SandboxNetwork =
  | { mode: 'none' }
  | { mode: 'host' }
  | {
      mode: 'bridge'
      /** IPv4, dotted. */
      address: string
      prefixLength: number
      gateway: string
      /** aa:bb:cc:dd:ee:ff */
      mac: string
      mtu: number
      /** All interfaces, eth0 first where there is one, and which has the default route. A VM makes them in its guest; a container's are in its namespace already. */
      interfaces?: GuestInterface[]
      route?: DefaultRoute
    }

/** What changes about a running workload's network. */
export interface NetworkChange {
  /** An interface more; plugged in on the host's side already. */
  add?: GuestInterface
  /** An interface less, by its name. */
  remove?: string
  /** The interface with the default route afterwards. */
  route?: DefaultRoute
  /** Lines that /etc/hosts gains, and addresses whose lines it loses. */
  hosts: string[]
  forget: string[]
  /** The new text of /etc/resolv.conf. */
  resolvConf?: string
}

/** A mount into the container besides those every container has. */
export interface MountSpec {
  type: 'bind' | 'volume' | 'tmpfs'
  /** Absolute host path for bind and volume. */
  source: string
  /** Absolute path in the container. */
  target: string
  readOnly: boolean
  /** tmpfs: mount data ('size=64m,mode=1777'); bind: 'rprivate' and the like. */
  options: string[]
}

/** Everything a sandbox needs to know of one container. Plain data: it is derived from the config on disk at each start. */
export interface WorkloadSpec {
  /** 64 hexadecimal digits. */
  id: string
  /** Without the slash. */
  name: string
  process: ProcessSpec
  openStdin: boolean
  /** The container's stdin closes when the first client that attached to it leaves (`docker run -i`); else it stays open. */
  stdinOnce: boolean
  hostname: string
  domainname: string
  /** Unpacked layers of the image, absolute directories, lowest first. */
  layers: string[]
  /** Names the image's root for caches: OCI image-spec ChainID ('sha256:…') of the top layer. */
  chainId: string
  readOnlyRootfs: boolean
  /** What the workload has written is of no use once it has ended by itself (--rm): a VM need not bring it to its disk then. */
  ephemeral?: boolean
  /** --storage-opt size: bytes of the writable disk, for a sandbox that has one; absent: as many as the daemon gives. */
  diskBytes?: number
  mounts: MountSpec[]
  resources: Resources
  network: SandboxNetwork
  /** --init: tini is PID 1. */
  init: boolean
  privileged: boolean
  capAdd: string[]
  capDrop: string[]
  noNewPrivileges: boolean
  /** 'default', 'unconfined' or the JSON text of a profile in Docker's format. */
  seccomp: string
  sysctls: Record<string, string>
  /** Process isolation only. */
  namespaces?: NamespaceChoice
  devices?: DeviceSpec[]
  /** 'c 1:3 rwm' */
  deviceRules?: string[]
  /** For the OCI runtime. */
  annotations?: Record<string, string>
  /** bytes; 0: 64 MiB */
  shmSize: number
  /** Text of /etc/hosts, /etc/hostname and /etc/resolv.conf. */
  files: { hosts: string; hostname: string; resolvConf: string }
  /** Process isolation: the ids of its user namespace; absent: the host's. */
  idMap?: IdMap
  /** OCI runtime for the process isolation: a name on PATH or an absolute path; '' means crun. */
  runtime: string
  maskedPaths: string[]
  readonlyPaths: string[]
  /** Parent cgroup, '' for the daemon's default ('/hull'). */
  cgroupParent: string
  /** Log file that hull-monitor appends to (CRI format); '' for none. Absolute. */
  logPath: string
  /** How large the log may become; absent: without bound. */
  logLimits?: LogLimits
  /** This container's directory under the data root: kept until it is removed. */
  stateDir: string
  /** This container's directory under the exec root: gone after a host boot. Made by the sandbox. */
  runDir: string
}

/** How a workload ended. */
export interface ExitStatus {
  /** 0-255; 128 + signal number when a signal ended it. */
  code: number
  oomKilled: boolean
  finishedAt: Date
}

/** A running stream to a container or exec session. With a TTY `output` is raw; without, in Docker's multiplexed framing (8-byte headers). */
export interface StdioStream {
  /** Reads output, writes stdin; ending the writable half is end of input; `destroy()` detaches. */
  duplex: Duplex
}

/** One exec session (Docker's /exec). */
export interface ExecSession extends StdioStream {
  /** Host pid for process isolation, guest pid for vm. */
  pid: number
  /** Resolves when it has ended AND all its output is in `duplex`. */
  exited: Promise<number>
  resize(rows: number, columns: number): Promise<void>
  /** SIGKILL: the command with all of its process group. */
  signal(signal: number): Promise<void>
}

/** Figures for /stats; absent where the isolation cannot know. Bytes and nanoseconds, counters since start. */
export interface SandboxStats {
  memoryUsage: number
  memoryLimit: number
  memoryStats: Record<string, number>
  cpuTotal: number
  cpuUser: number
  cpuKernel: number
  /** Of the host: who shows a percentage multiplies the share of its time by it. */
  onlineCpus: number
  pids: number
  pidsLimit: number
  network?: { name: string; rxBytes: number; rxPackets: number; rxErrors: number; rxDropped: number; txBytes: number; txPackets: number; txErrors: number; txDropped: number }
  blockRead: number
  blockWrite: number
  /** vm: what the whole machine costs the host. Bytes, nanoseconds, processes and threads of the VMM. */
  host?: { memoryUsage: number; memoryLimit: number; cpuTotal: number; pids: number }
}

/** One row of `docker top`, or more columns: titles and rows as `ps` printed them. */
export interface TopResult {
  Titles: string[]
  Processes: string[][]
}

/** A section of `hull explain`: what really surrounds the workload, read from the kernel and never from the config. */
export interface Facts {
  title: string
  rows: [name: string, value: string][]
}

/**
 * One isolation boundary with one container in it. Made by {@link SandboxDriver.create}; the engine holds it while the
 * container runs and forgets it after {@link Sandbox.destroy}. No other part of the engine knows which isolation it is.
 */
export interface Sandbox {
  readonly id: string
  readonly isolation: Isolation
  /** Host pid of the container's init (process) or of the VM's supervisor in its jail (vm). */
  readonly pid: number
  /** A container whose processes, network and other namespaces are inside a kernel of its own, of which the host has only the outside: nobody can join them. */
  readonly ownKernel?: boolean
  /** Starts the workload. Rejects with HullError 400 in Docker's words when the command cannot be run
   *  ('… executable file not found in $PATH …', '… permission denied …'): the docker CLI makes 127 and 126 of them. */
  start(): Promise<void>
  /** Opens the container's own stdio; without `input` (default: with) the client only listens, and its leaving ends nothing. Before {@link start} nothing is missed. */
  attach(input?: boolean): Promise<StdioStream>
  exec(process: ProcessSpec, options: { stdin: boolean; detach: boolean }): Promise<ExecSession>
  /** Signal to the workload's PID 1. SIGKILL always works. False: it is not running. */
  signal(signal: number): Promise<boolean>
  resize(rows: number, columns: number): Promise<void>
  /** A network was connected or is to be disconnected. Rejects when the workload cannot have it; then nothing has changed. */
  changeNetwork(change: NetworkChange): Promise<void>
  pause(): Promise<void>
  unpause(): Promise<void>
  stats(): Promise<SandboxStats>
  /**
   * New limits for the running workload: all of them or, with an error (409 names the value that cannot be changed while it runs), none. `before`:
   * those in force, so that only what differs is touched; undefined: not known. Returns warnings.
   */
  update(resources: Resources, before?: Resources): Promise<string[]>
  top(psArgs: string[]): Promise<TopResult>
  /** Resolves once, when the workload has ended and its log is complete. */
  readonly exited: Promise<ExitStatus>
  explain(): Promise<Facts[]>
  /** Work on the container's files while it runs, as its own processes see them. 409 when they cannot be reached now. */
  files(operation: FileOperation): Promise<FileJob>
  /** Frees all that the sandbox made in the kernel and in runDir; kills what still runs. Idempotent. The writable layer stays. */
  destroy(): Promise<void>
}

/** What `docker inspect` and the create response say of a wall that is weaker than its name. */
export interface DriverInfo {
  isolation: Isolation
  /** 'kvm' | 'tcg' for vm, '' for process. */
  accelerator: string
  /** Shown by `docker info`, in the create response and in inspect. */
  warnings: string[]
  /** Lines for `docker info`: name → value. */
  details: Record<string, string>
}

/** Makes sandboxes of one isolation. */
export interface SandboxDriver {
  readonly isolation: Isolation
  info(): Promise<DriverInfo>
  /** What it counts, for GET /metrics. */
  metrics?(): MetricFamily[]
  /** Throws HullError 400 for what this isolation cannot do; returns warnings for what it does differently. Called at create. */
  validate(spec: WorkloadSpec): Promise<string[]>
  /** Up to "created": namespaces, root file system, supervisor; the workload does not run yet. On failure nothing is left. */
  create(spec: WorkloadSpec, attachments: SandboxAttachments): Promise<Sandbox>
  /**
   * A container like this is about to be created (its id may still be changed; `bridged`: it will have a network): the id under which something waits that has been made ahead. It is let go
   * of when the container is not started soon.
   */
  reserve?(spec: WorkloadSpec, bridged: boolean): Promise<string | undefined>
  /**
   * Before the attachments of a {@link create} are made. True: what was made ahead for this container fits it, and has its tap. Else it is let go of.
   */
  settle?(spec: WorkloadSpec): Promise<boolean>
  /** What needs no attachments of a {@link create} that follows soon, begun ahead of it. {@link callOff} when it does not follow. Idempotent. */
  begin?(spec: WorkloadSpec): Promise<void>
  /** Undoes {@link begin}; without effect once {@link create} has been called. */
  callOff?(spec: Pick<WorkloadSpec, 'id' | 'runDir'>): Promise<void>
  /** After a daemon restart: the sandbox if its supervisor or workload still exists or left an exit status, else undefined. */
  adopt(spec: WorkloadSpec): Promise<Sandbox | undefined>
  /** Work on the files of a container that does not run (or never has). No sandbox of it exists until the job is done; {@link create} and
   *  {@link removeState} end what is kept for the next such job. */
  files(spec: WorkloadSpec, operation: FileOperation): Promise<FileJob>
  /** The container is being removed: frees its writable layer under stateDir. The sandbox is gone already. `ephemeral`: the space may come back a moment later. */
  removeState(spec: Pick<WorkloadSpec, 'id' | 'stateDir' | 'runDir' | 'ephemeral'>): Promise<void>
}

/** Live kernel objects that network/ made for this start. */
export interface SandboxAttachments {
  /** process + bridge: path of the ready network namespace. */
  netnsPath?: string
  /** vm + bridge: an open tap, already a port of the bridge. The driver passes it to the VMM and closes its own copy. */
  tapFd?: number
  /** process: namespaces of another container that this one joins, and the host path of its /dev/shm. */
  pidnsPath?: string
  ipcnsPath?: string
  shmPath?: string
}
