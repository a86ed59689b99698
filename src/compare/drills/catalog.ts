import type { DrillName, DrillOutcome } from '../types.js'

/** How it is judged that a drill reached the host. Nothing that a drill says of itself counts. */
export type Judged =
  /** It brings back the token that the host has planted, which it was not told. */
  | 'token'
  /** The kernel that obeyed has the host's boot id, of which it was told eight digits of 32. */
  | 'kernel'
  /** The host sees its cgroup beyond the limit that it set. */
  | 'limit'
  /** The host sees the machine gone, and the others go on. */
  | 'machine'

/** What decides an outcome besides the isolation. */
export interface DrillHost {
  /** Its kernel loads modules at all. */
  modules: boolean
  /** A cgroup v2 mounted with nsdelegate: the kernel itself guards the limits of a cgroup namespace's root (cgroups(7)). */
  delegated: boolean
}

export interface DrillDefinition {
  name: DrillName
  title: string
  judged: Judged
  /** What the host plants for it: without that it is not tried. */
  planted?: 'device' | 'log'
  /** What it does; a sentence. */
  does: string
  /** Why nothing can come of it, though it succeeds; a sentence. */
  harmless: string
  /** What has to come out: of a container on the host's kernel and of a VM, without and with --privileged. */
  expected: Record<'container' | 'vm', [plain: DrillOutcome, privileged: DrillOutcome]>
  /** Where this host makes another outcome of `host`. */
  unless?: (host: DrillHost) => DrillOutcome | undefined
}

const GUARDED = ({ delegated }: DrillHost): DrillOutcome | undefined => (delegated ? 'refused' : undefined)

/** In the order in which they are tried: the last ones change the limits of the container that all are tried in. */
export const CATALOG: readonly DrillDefinition[] = [
  {
    name: 'processes', title: 'see processes of the host', judged: 'token',
    does: 'Looks for a process whose name the host has drawn by lot: in /proc, then in the scheduler\'s list, for which it mounts debugfs.',
    harmless: 'It reads; the mount is read-only, its own, and gone at once.',
    expected: { container: ['refused', 'host'], vm: ['refused', 'guest'] },
  },
  {
    name: 'dmesg', title: 'read the kernel\'s log', judged: 'token', planted: 'log',
    does: 'Looks through the kernel\'s log (syslog(2), /dev/kmsg) for a line that the host has written there.',
    harmless: 'It reads; the line stays in the log, beside what the kernel itself logs of a loop device, a mount and an OOM kill.',
    expected: { container: ['refused', 'host'], vm: ['refused', 'guest'] },
  },
  {
    name: 'sysctl', title: 'write a sysctl', judged: 'kernel',
    does: 'Writes kernel.printk_ratelimit, which belongs to no namespace.',
    harmless: 'It writes the value that it has just read.',
    expected: { container: ['refused', 'host'], vm: ['refused', 'guest'] },
  },
  {
    name: 'module', title: 'load a kernel module', judged: 'kernel',
    does: 'Hands 4096 zeros to init_module(2): EPERM is a refusal, ENOEXEC the loader\'s own answer to somebody who may load.',
    harmless: 'Zeros are no ELF file: there is nothing that a kernel could load.',
    expected: { container: ['refused', 'host'], vm: ['refused', 'guest'] }, unless: ({ modules }) => (modules ? undefined : 'missing'),
  },
  {
    name: 'mknod', title: 'make a device node and read a disk', judged: 'token', planted: 'device',
    does: 'Makes a node with the number of a disk that the host has made, and reads its label. In a VM, which has no such disk, the same with its own first one.',
    harmless: 'The disk is 1 MiB of memory behind a read-only loop device; the node lies in the container, is read only, and is removed. A kernel that could be the host\'s gets no other number.',
    expected: { container: ['refused', 'host'], vm: ['guest', 'guest'] },
  },
  {
    name: 'mount-disk', title: 'mount a disk', judged: 'token', planted: 'device',
    does: 'Mounts the same disk and looks for a file that the host has put there.',
    harmless: 'As above; the mount is read-only, in the container\'s mount namespace, and undone.',
    expected: { container: ['refused', 'host'], vm: ['refused', 'guest'] },
  },
  {
    name: 'pids', title: 'start more processes than its limit', judged: 'limit',
    does: 'Raises the limit of its processes where it can, and forks until it has 16 more than that was.',
    harmless: 'It never has more than 16 beyond the limit, which do nothing and die with it; the cgroup is that of a container made for this.',
    expected: { container: ['refused', 'host'], vm: ['refused', 'guest'] }, unless: GUARDED,
  },
  {
    name: 'memory', title: 'use more memory than its limit', judged: 'limit',
    does: 'Raises the limit of its memory where it can, and uses 8 MiB more than that was.',
    harmless: 'It never uses more than 8 MiB beyond the limit (of 64 MiB for a container, of the guest\'s for a VM), and offers itself to the OOM killer first.',
    expected: { container: ['refused', 'host'], vm: ['refused', 'guest'] }, unless: GUARDED,
  },
  {
    name: 'cgroup', title: 'raise a limit of its cgroup', judged: 'limit',
    does: 'Writes a memory limit that is 16 MiB more, where cgroups are shown or in a mount of its own.',
    harmless: 'The limit is that of a container made for this, and goes with it.',
    expected: { container: ['refused', 'host'], vm: ['refused', 'guest'] }, unless: GUARDED,
  },
  {
    name: 'panic', title: 'crash the kernel', judged: 'machine',
    does: 'Writes c to /proc/sysrq-trigger, in a VM that was started for the drills alone, while another of its kind runs.',
    harmless: 'Only VMs are asked to, and the program itself refuses on a kernel whose boot id begins as the host\'s, or cannot be read.',
    expected: { container: ['missing', 'missing'], vm: ['refused', 'guest'] },
  },
]

/** What has to come of a drill on such a host. */
export function expectedOf(drill: DrillDefinition, wall: 'container' | 'vm', privileged: boolean, host: DrillHost): DrillOutcome {
  const outcome = drill.expected[wall][privileged ? 1 : 0]
  return (outcome === 'host' ? drill.unless?.(host) : undefined) ?? outcome
}
