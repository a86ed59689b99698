/**
 * The JSON of `hull compare --format json`: what was measured, on which machine, with the raw rows and the commands that repeat it. Reports, `--diff` and `hull advise` are made of
 * this and of nothing else. Fields are only ever added within one {@link SCHEMA_VERSION}; a reader refuses a greater one.
 */
export const SCHEMA_VERSION = 1

/** The ways of running the image, in the order in which they are shown. */
export const ISOLATIONS = ['process', 'process-userns', 'runsc', 'vm-cold', 'vm'] as const
/**
 * `process`: crun in the host's user namespace; `process-userns`: the same in a user namespace of its own (daemon with --userns-remap); `runsc`: gVisor as OCI runtime;
 * `vm-cold`: a VM that boots; `vm`: a template's clone, as `--isolation=vm` starts one that was not made ahead.
 */
export type IsolationName = (typeof ISOLATIONS)[number]
/** Whose figure it is: an isolation, or the bare host for what has ratios to it. */
export type Subject = IsolationName | 'host'

export const SECTIONS = ['start', 'memory', 'density', 'perf', 'surface', 'drills', 'portability'] as const
export type SectionName = (typeof SECTIONS)[number]

/** SI and IEC names as they are shown. `count` is a plain number, `MB/s` is 10^6 bytes a second. */
export type Unit = 'ms' | 'us' | 's' | 'bytes' | 'MB/s' | 'Mbit/s' | 'ops/s' | 'requests/s' | 'events/s' | 'count'

/** What repeated measurements say. Same unit as their figure. */
export interface Summary {
  n: number
  median: number
  /** 95th percentile, nearest rank: the greatest value while n < 20. */
  p95: number
  min: number
  max: number
  /** 95 % confidence interval of the median by order statistics; null while n < 6, when no interval of the sample reaches 95 %. */
  ci95: [low: number, high: number] | null
}

export interface Measured extends Summary {
  /** The raw values in the order in which they were measured. */
  rows: number[]
  /** A command line (POSIX shell) that measures one such row. */
  command: string
}

/** Why there is no value: a sentence. */
export interface Missing {
  missing: string
}

export type Result = Measured | Missing

/** One quantity, for everyone who has it. A subject that is not named was not asked for. */
export interface Figure {
  /** Stable, in kebab case, unique in the comparison: 'start-total', 'disk-random-read'. */
  id: string
  /** A few words: 'create, start, first output, exit'. */
  title: string
  unit: Unit
  better: 'less' | 'more' | 'neither'
  results: Partial<Record<Subject, Result>>
}

interface SectionBase {
  /** Why the section has nothing at all (the image cannot run that long, the time is over): a sentence; absent: it was measured. */
  skipped?: string
  /** What a reader must know to judge the figures; sentences. */
  notes: string[]
  /** How long it took. */
  seconds: number
}

/** Everything in this section is said by figures. */
export interface FigureSection extends SectionBase {
  figures: Figure[]
}

/** Where the memory of one idle instance is; bytes, PSS (proc_pid_smaps(5)) but for `slab`. */
export interface MemoryParts {
  /** Processes of the workload, as far as the host sees them; in a VM: what the guest counts as used by others than its kernel. */
  workload: number
  /** RAM that the guest's kernel holds; 0 without a guest. */
  guestKernel: number
  /** The hypervisor without the guest's RAM, or gVisor's sentry. */
  vmm: number
  /** hull-monitor, hull-vmm: what watches over the instance. */
  supervisor: number
}

/** Memory of instances that idle. Figures: 'memory-slope' (bytes of MemAvailable that one more instance costs), 'memory-after-free' (bytes of MemAvailable that are still gone after the workload took and freed memory). */
export interface MemorySection extends FigureSection {
  parts: Partial<Record<IsolationName, MemoryParts | Missing>>
}

/** One more instance. */
export interface DensityStep {
  /** 1-based. */
  index: number
  /** ms from the request to create it until it ran. */
  startMs: number
  /** The host's MemAvailable after it, bytes. */
  available: number
}

export interface DensityCurve {
  steps: DensityStep[]
  /** bytes that one more costs: slope of MemAvailable over the steps (least squares), or the PSS of one where that is more. */
  bytesEach: number
  /** MemAvailable before the first / bytesEach. */
  predicted: number
  /** Really started at once. */
  started: number
  /** Still running when the last had been started. */
  alive: number
  /** Why fewer than asked for were started; a sentence. */
  stopped?: string
  command: string
}

export interface DensitySection extends SectionBase {
  /** --density */
  asked: number
  /** The host's RAM and what of it was available before the first, bytes. */
  total: number
  available: number
  curves: Partial<Record<IsolationName, DensityCurve | Missing>>
}

/** What stands between a workload and the host, as seen from inside and out; null: cannot be told here (a note says why). */
export interface SurfaceFacts {
  /** The host's own kernel: the same boot id. */
  sharedKernel: boolean | null
  /** uname -r inside. */
  kernel: string
  /** System calls of the host's kernel that the workload (for a VM: its VMM process) may make. */
  hostSyscalls: number | null
  /** How {@link hostSyscalls} was told: tried one by one from within, or read from the filter in force. */
  hostSyscallsBy: 'prober' | 'filter' | null
  /** Calls that the workload can make of the kernel that serves it (its own kernel in a VM). */
  workloadSyscalls: number | null
  /** Distinct functions of the host's kernel that run while the same workload does (ftrace). */
  kernelFunctions: number | null
  /** Why they are not known: a sentence. */
  kernelFunctionsMissing?: string
  /** Lists them, one a line. */
  kernelFunctionsCommand?: string
  /** Effective capabilities inside, by name. */
  capabilities: string[]
  /** Files in /dev that are devices, by path. */
  devices: string[]
  /** Namespaces that are the host's own: of pid, mnt, net, uts, ipc, user, cgroup, time. */
  sharedNamespaces: string[]
  /** uid on the host of the process that the host sees. */
  hostUid: number | null
  seccomp: 'filter' | 'strict' | 'off' | null
  command: string
}

export interface SurfaceSection extends SectionBase {
  facts: Partial<Record<IsolationName, SurfaceFacts | Missing>>
}

export const DRILLS = ['sysctl', 'module', 'dmesg', 'mount-disk', 'mknod', 'cgroup', 'processes', 'pids', 'memory', 'panic'] as const
export type DrillName = (typeof DRILLS)[number]

/**
 * `host`: it had its effect on the host (or the arrangement that stands for it); `guest`: it had its effect on the workload's own kernel and the host felt nothing;
 * `refused`: it had no effect at all; `missing`: not tried, `detail` says why.
 */
export type DrillOutcome = 'host' | 'guest' | 'refused' | 'missing'

export interface DrillResult {
  outcome: DrillOutcome
  /** What was seen, or why it was not tried: a sentence. */
  detail: string
  /** What the workload ran. */
  command: string
}

export interface Drill {
  drill: DrillName
  /** 'mount a disk of the host' */
  title: string
  privileged: boolean
  results: Partial<Record<IsolationName, DrillResult>>
}

export interface DrillSection extends SectionBase {
  drills: Drill[]
}

/** Figures: 'image-transfer' (compressed layers as a registry sends them), 'image-archive' (docker save), 'image-unpacked', 'image-disk'; bytes. */
export interface PortabilitySection extends FigureSection {
  /** What a host must have to run it in this isolation; short sentences. */
  requirements: Partial<Record<IsolationName, string[]>>
  /** What another engine needs to run the same image or saved container; short sentences. */
  elsewhere: Partial<Record<IsolationName, string[]>>
}

export interface Sections {
  /** Figures: 'start-create', 'start-output', 'start-total', 'start-http', 'stop', 'remove'; ms. */
  start: FigureSection
  memory: MemorySection
  density: DensitySection
  /** Figures with the subject 'host': 'cpu', 'memory-bandwidth', 'syscall', 'context-switch', 'disk-*', 'network-*'. */
  perf: FigureSection
  surface: SurfaceSection
  drills: DrillSection
  portability: PortabilitySection
}

/** The machine. */
export interface HostFacts {
  kernel: string
  os: string
  cpu: string
  cpus: number
  /** bytes */
  memory: number
  /** Free for others when the comparison began, bytes. */
  available: number
  /** Load average of the last minute when it began: above the number of processors the figures are of a busy machine. */
  load: number
  /** 'ext4', 'overlay', …: of the daemon's data root. */
  dataRootFs: string
  cgroup: string
  /** /dev/kvm is there; whether it boots a guest is `accelerator`. */
  kvmDevice: boolean
}

export interface Versions {
  hull: string
  /** '1.8.1', '' where it cannot be told; likewise below. */
  crun: string
  runsc: string
  qemu: string
  guestKernel: string
  kernel: string
}

export interface ImageFacts {
  reference: string
  /** sha256:… of the config. */
  id: string
  digests: string[]
  /** bytes, unpacked */
  size: number
  layers: number
  architecture: string
}

export type IsolationState = {
  name: IsolationName
  /** 'VM from a template' */
  title: string
} & (
  | { available: true; /** Flags of `hull run` that choose it. */ flags: string[] }
  | { available: false; /** A sentence. */ reason: string }
)

export interface Comparison {
  schemaVersion: typeof SCHEMA_VERSION
  kind: 'hull-comparison'
  /** ISO 8601 */
  startedAt: string
  seconds: number
  /** The command line that repeats the whole. */
  command: string
  host: HostFacts
  versions: Versions
  /** Of VMs; '': there are none. `tcg` is emulation: its figures say nothing about KVM, and it is no security boundary. */
  accelerator: 'kvm' | 'tcg' | ''
  image: ImageFacts
  workload: {
    /** After IMAGE; [] is the image's own. */
    command: string[]
    /** Where the first HTTP 200 is waited for. */
    port: number | null
    /** How it behaves, as seen before anything was measured. */
    behaviour: 'exits' | 'serves' | 'stays'
    /** Its exit code when it exits. */
    exitCode: number | null
    /** It wrote something within the time that it was watched. */
    prints: boolean
  }
  /** All of {@link ISOLATIONS}, or those asked for. */
  isolations: IsolationState[]
  /** Those asked for. */
  sections: Partial<Sections>
  warnings: string[]
}

export const isMissing = (value: object): value is Missing => 'missing' in value
