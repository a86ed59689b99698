/** What `hull advise` weighs: what a workload asks for, what this host can do, and what the rules say of both. */

export type Wall = 'process' | 'vm'
/** Who wrote the code that will run, or whose input it takes to be code. */
export const TRUSTS = ['own', 'team', 'tenant', 'unknown'] as const
export type Trust = (typeof TRUSTS)[number]
export const IO_PROFILES = ['light', 'disk', 'network', 'cpu'] as const
export type IoProfile = (typeof IO_PROFILES)[number]

/** What Compose, flags and inspect do not say about a workload. */
export interface Asked {
  trust: Trust
  /** A version of the kernel that it must have ('6.1'), '' for any. */
  kernel: string
  /** It loads kernel modules of its own. */
  modules: boolean
  io: IoProfile
  /** ms that create, start, first output and exit may take together; null: any. */
  startBudget: number | null
  /** Instances that must fit in this host at the same time; 1 where nothing is said. */
  instances: number
}

/** What a workload asks for, whatever said so: flags, a Compose service or a container. */
export interface Needs extends Asked {
  /** How it is called in the answer: a container, a service or an image. */
  name: string
  /** What it has now: 'process', 'vm', or '' where nothing is said. */
  now: string
  privileged: boolean
  /** Capabilities added to the default ones, without CAP_. */
  capabilities: string[]
  /** Host namespaces that it joins, as the flags say it: '--pid host'. */
  namespaces: string[]
  /** Host devices: '--device /dev/dri'. */
  devices: string[]
  /** Other options that a VM refuses: '--runtime runsc', a seccomp profile of one's own. */
  processOnly: string[]
  /** Sources of bind mounts on the host. */
  binds: string[]
  /** Sockets of an engine among them: whoever has one is root on the host. */
  engineSockets: string[]
  /** Named volumes. */
  volumes: string[]
  /** Published ports. */
  ports: number
  /** What could not be read and may change the answer; sentences. */
  unread: string[]
}

/** A measured value and where it is from. */
export interface Measured { value: number; source: string }

/** What is known of this host. What nobody measured is null, and then no rule speaks of it. */
export interface Facts {
  /** '': the daemon has no VMs. */
  accelerator: 'kvm' | 'tcg' | ''
  /** Of the host. */
  kernel: string
  /** Of the guests; '' where there are none. */
  guestKernel: string
  /** RAM of the host, bytes. */
  memory: number
  /** ms from create to exit. */
  start: Record<Wall, Measured | null>
  /** bytes of the host's memory that one more idle instance costs. */
  slope: Record<Wall, Measured | null>
  /** How much slower than a process a VM is, by the figure's id ('disk-random-read'); 2: half as fast. */
  slower: Record<string, Measured>
  /** System calls of the host that the workload, or the VM's VMM, may make. */
  hostSyscalls: Record<Wall, Measured | null>
  /** Drills with --privileged that had their effect on the host. */
  escapes: Record<Wall, Measured | null>
  /** Where the figures are from, and why they may not be this host's; sentences. */
  notes: string[]
}

/** For or against a wall. A `must` decides by itself; where musts disagree there is no answer. */
export interface Reason {
  rule: string
  for: Wall
  /** 1 (a preference) to 100; a must is above all. */
  weight: number
  must: boolean
  /** With the figure behind it. */
  sentence: string
}

/** A condition over needs and facts, as data: `when` gives the figure's words, or nothing. */
export interface Rule {
  id: string
  /** What the rule is about, for docs/choosing.md. */
  about: string
  for: Wall
  weight: number
  must?: boolean
  /** A VM is wanted against code that one does not trust: who cannot have one must hear that nothing else is as good. */
  security?: boolean
  /** The sentence, or null when the rule has nothing to say. */
  when: (needs: Needs, facts: Facts) => string | null
}

export interface Advice {
  name: string
  /** What it has now; '': nothing said. */
  now: string
  /** null: the needs exclude one another. */
  isolation: Wall | null
  /** By weight, greatest first: the first is the one that decided. */
  reasons: Reason[]
  /** What a reader must know besides: that a VM here is no boundary, that nothing was measured. */
  warnings: string[]
}
