import type { OciBlockIo, OciConfig } from '../../oci/spec-types.js'
import { jailSeccomp } from './jailseccomp.js'
import { AGENT_FD, JAIL_PATHS, QMP_FD, qemuArguments, TAP_FD, type Accelerator } from './qemu.js'
import type { VmSize } from './resources.js'

/** What a jail is made from. All paths are the host's, absolute. */
export interface JailInput {
  /** jailroot.ts */
  root: string
  /** The VM's own directory (vmdir.ts): bound writable. */
  directory: string
  /** EROFS image: bound read-only. */
  image: string
  /** As in {@link Machine}. */
  imageSlot: number
  /** ext4 image of the writable layer: the only writable file. */
  disk: string
  uid: number
  hostname: string
  accelerator: Accelerator
  /** As in {@link Machine}. */
  tscKhz?: number
  size: VmSize
  /** The guest's MAC address; absent: no network device. The tap itself is inherited as descriptor {@link TAP_FD}. */
  mac?: string
  /** There is a file server: its connection is inherited, after the tap. */
  shares: boolean
  /** The machine is a clone of a template: its state and its memory are inherited, after all others. */
  clone: boolean
  /** It waits for its workload (`--ahead`). */
  ahead: boolean
  /** '/parent/id' */
  cgroupsPath: string
  /** The VM's disk is a file of the host: its I/O is limited as a container's is. */
  blockIO?: OciBlockIo
  /** Seconds from start to HELLO that the supervisor allows. */
  bootTimeout: number
  /** Guest console into DIRECTORY/console.log: for finding faults. */
  console: boolean
}

/** /dev/kvm, major and minor (linux/miscdevice.h). */
const KVM_DEVICE = { type: 'c' as const, path: '/dev/kvm', major: 10, minor: 232 }

/** Inherited descriptors come in order: the tap, if there is a network, then the file server, then a template's state and its memory. */
const sharesFd = (input: JailInput) => (input.mac === undefined ? TAP_FD : TAP_FD + 1)
const stateFd = (input: JailInput) => (input.shares ? sharesFd(input) + 1 : sharesFd(input))

/** Arguments of the supervisor; what follows `--` is QEMU's command line. */
export function supervisorArguments(input: JailInput): string[] {
  const qemu = qemuArguments({
    accelerator: input.accelerator,
    ...(input.tscKhz === undefined ? {} : { tscKhz: input.tscKhz }),
    vcpus: input.size.vcpus,
    ram: input.size.ram,
    kernel: JAIL_PATHS.kernel,
    initrd: JAIL_PATHS.initrd,
    firmware: JAIL_PATHS.firmware,
    agentFd: AGENT_FD,
    image: JAIL_PATHS.image,
    imageSlot: input.imageSlot,
    disk: JAIL_PATHS.disk,
    ...(input.mac === undefined ? {} : { network: { fd: TAP_FD, mac: input.mac } }),
    ...(input.shares ? { shares: { fd: sharesFd(input) } } : {}),
    // By /proc, since QEMU takes a path: opening it anew asks the file's seals, not its descriptor.
    ...(input.clone ? { memory: { use: 'clone', path: `/proc/self/fd/${stateFd(input) + 1}`, qmpFd: QMP_FD } as const } : {}),
    ...(input.console ? { console: `${JAIL_PATHS.directory}/console.log` } : {}),
  })
  return [JAIL_PATHS.supervisor, '--dir', JAIL_PATHS.directory, '--boot-timeout', String(input.bootTimeout), ...(input.shares ? ['--file-server', String(sharesFd(input))] : []), ...(input.clone ? ['--restore', String(stateFd(input))] : []), ...(input.ahead ? ['--ahead', '1'] : []), '--', JAIL_PATHS.qemu, ...qemu]
}

/**
 * The OCI runtime spec (1.0) of the container around the VMM: every namespace new, one unprivileged uid without any capability, a read-only root
 * with the files of QEMU and nothing else, no /sys, no /proc (a clone has one that shows nothing but the jail's own processes), three device nodes, a cgroup with the VM's limits.
 */
export function jailConfig(input: JailInput): OciConfig {
  const bind = (destination: string, source: string, ...options: string[]) => ({
    destination, source, type: 'bind', options: ['bind', 'private', 'nosuid', 'nodev', 'noexec', ...options],
  })
  const allow = (major: number, minor: number) => ({ allow: true, type: 'c', major, minor, access: 'rw' })
  const kvm = input.accelerator === 'kvm'
  const { jail } = input.size
  return {
    ociVersion: '1.0.2',
    hostname: input.hostname,
    root: { path: input.root, readonly: true },
    process: {
      terminal: false,
      user: { uid: input.uid, gid: input.uid, umask: 0o077 },
      args: supervisorArguments(input),
      // QEMU finds its accelerator module here, and a clone's gives memory back by its own way; nothing else is in the environment.
      env: ['PATH=/', `QEMU_MODULE_DIR=${JAIL_PATHS.modules}`, ...(input.clone && !input.shares ? [`LD_PRELOAD=${JAIL_PATHS.discard}`] : [])],
      cwd: '/',
      capabilities: { bounding: [], effective: [], inheritable: [], permitted: [], ambient: [] },
      noNewPrivileges: true,
      // A core file of a VMM holds the guest's memory.
      rlimits: [{ type: 'RLIMIT_CORE', soft: 0, hard: 0 }, { type: 'RLIMIT_NOFILE', soft: 1024, hard: 1024 }],
    },
    mounts: [
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'noexec', 'strictatime', 'mode=755', 'size=64k'] },
      ...(input.clone ? [{ destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'nodev', 'noexec', 'ro', 'subset=pid'] }] : []),
      bind(JAIL_PATHS.directory, input.directory, 'rw'),
      bind(JAIL_PATHS.image, input.image, 'ro'),
      bind(JAIL_PATHS.disk, input.disk, 'rw'),
    ],
    linux: {
      namespaces: ['pid', 'mount', 'ipc', 'uts', 'network', 'cgroup'].map((type) => ({ type })),
      cgroupsPath: input.cgroupsPath,
      devices: kvm ? [{ ...KVM_DEVICE, fileMode: 0o600, uid: input.uid, gid: input.uid }] : [],
      resources: {
        devices: [{ allow: false, access: 'rwm' }, allow(1, 3), allow(1, 9), ...(kvm ? [allow(KVM_DEVICE.major, KVM_DEVICE.minor)] : [])],
        memory: { limit: jail.memory },
        cpu: jail.cpu,
        pids: { limit: jail.pids },
        ...(input.blockIO ? { blockIO: input.blockIO } : {}),
      },
      seccomp: jailSeccomp(),
    },
  }
}
