import { maskedPaths, readonlyPaths } from '../hidden-paths.js'
import { TCG_CACHE_MIB } from './resources.js'

/** How guest code is executed. */
export type Accelerator = 'kvm' | 'tcg'

/** Where things are inside the jail (jailroot.ts and jailspec.ts make them so). */
export const JAIL_PATHS = {
  supervisor: '/hull-vmm',
  qemu: '/qemu-system-x86_64',
  modules: '/modules',
  firmware: '/firmware',
  kernel: '/vmlinux',
  initrd: '/initrd',
  /** The VM's own directory: the only writable one. */
  directory: '/vm',
  image: '/image.erofs',
  disk: '/disk.img',
  /** guest/qemu_discard.c, beside QEMU's libraries. */
  discard: '/lib/x86_64-linux-gnu/hull-discard.so',
} as const

/** Descriptors that the supervisor finds or makes (guest/PROTOCOL.md, guest/vmm.c). */
export const AGENT_FD = 20
export const QMP_FD = 21
/** The tap, as hull-monitor and crun hand it down (`--preserve-fds=1`). */
export const TAP_FD = 3

/** Of a template's devices: there, of the same kind, and empty. A clone has the real one in its place. */
export const PLACEHOLDER = Symbol('placeholder')

/**
 * Memory that is a file. `template`: shared, so that the file is what a clone starts from; the machine boots, and listens to QMP on `qmpFd`. `clone`: private pages over a
 * template's file, or with a file server, which reads and writes there as well, a copy of that file that is the machine's own; the machine waits for `migrate-incoming` on `qmpFd` instead of booting.
 */
export interface MachineMemory {
  use: 'template' | 'clone'
  path: string
  qmpFd: number
}

/** What a machine is made of. */
export interface Machine {
  accelerator: Accelerator
  /** TCG: frequency of the host's time stamp counter, which is the guest's as well, kHz; absent: the guest measures it, and errs when the host is busy. */
  tscKhz?: number
  vcpus: number
  /** bytes, a multiple of 1 MiB */
  ram: number
  kernel: string
  initrd: string
  /** Directory with QEMU's firmware files; absent: QEMU's own search path. */
  firmware?: string
  /** Descriptor of a connected stream socket to the agent. */
  agentFd: number
  /** How the machine comes to life; absent: it boots. */
  memory?: MachineMemory
  /** EROFS image, opened read-only by QEMU whatever the guest does. Where it becomes what: {@link guestDevices}. */
  image?: string | typeof PLACEHOLDER
  /** Bytes of persistent memory that the image fills, one of {@link IMAGE_SLOTS}; 0: it is a block device. */
  imageSlot?: number
  /** ext4 image for the writable layer. */
  disk?: string | typeof PLACEHOLDER
  /** An open tap and the guest's MAC address. */
  network?: { fd: number; mac: string }
  /** A connected socket to the file server (vhost-user): becomes the virtiofs "hull". A clone's guest has not met this device, which no template can have: its agent looks for it. */
  shares?: { fd: number }
  /** File that gets the guest kernel's console; for finding faults only. */
  console?: string
}

/**
 * q35 without what a server in a box does not need: every device left out is code that a guest cannot attack and time that its kernel
 * does not spend. mem-merge: KSM would let one guest feel what another has in its memory. dump-guest-core: no guest RAM in core files.
 */
const MACHINE = 'q35,smm=off,sata=off,smbus=off,vmport=off,usb=off,hpet=off,i8042=off,graphics=off,mem-merge=off,dump-guest-core=off'

/** QEMU's own seccomp filter: no new programs, no privileges, no scheduling or affinity calls, no obsolete calls. */
const SANDBOX = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'

/** TCG: an old model has fewer features to probe, patch and translate; RDRAND so that the kernel has entropy before the agent seeds it. */
const CPU: Record<Accelerator, string> = { kvm: 'host', tcg: 'Nehalem,+rdrand' }

/** The guest kernel's command line. Reasons: docs/decisions/0005-vm-command-line.md. */
export function kernelCommandLine({ accelerator, console, tscKhz, memory, image, disk, imageSlot = 0 }: Pick<Machine, 'accelerator' | 'console' | 'tscKhz' | 'memory' | 'image' | 'disk' | 'imageSlot'>): string {
  const words = [
    console !== undefined ? 'console=ttyS0' : 'quiet 8250.nr_uarts=0',
    // A panic or a reboot ends QEMU (-no-reboot): the supervisor sees it at once.
    'reboot=t', 'panic=-1',
    'random.trust_cpu=on', 'tsc=reliable', 'no_timer_check', 'cryptomgr.notests', 'rcupdate.rcu_expedited=1',
    'numa=off', 'audit=0', 'nomodeset', 'raid=noautodetect', 'lsm=landlock,yama',
    'nowatchdog', 'noautogroup',
  ]
  // Emulated code does not speculate: there is nothing to mitigate, only time to lose. Under KVM all mitigations stay.
  if (accelerator === 'tcg') words.push('mitigations=off')
  // By its own measurement an emulated guest on a busy host believed time to be many times as fast, and so did every clone of it.
  if (accelerator === 'tcg' && tscKhz !== undefined) words.push(`tsc_early_khz=${tscKhz}`)
  // The agent's: its clones find loaded what only some of them need.
  if (memory?.use === 'template') words.push('hull_template=1')
  // The agent's: its clones find their disk mounted, and in the template of one image all that a container's root is made of, and a process in it.
  if (memory?.use === 'template' && typeof disk === 'string') {
    words.push(`hull_disk=${guestDevices(imageSlot).disk}`)
    if (typeof image === 'string') words.push(`hull_root=${guestDevices(imageSlot).root}`, `hull_masked=${maskedPaths.join(',')}`, `hull_ropaths=${readonlyPaths.join(',')}`)
  }
  return words.join(' ')
}

/**
 * Bytes of a placeholder disk. The guest remembers this size: what takes its place may be smaller (a file system knows its own size), never larger.
 */
export const PLACEHOLDER_SIZE = 2 ** 40

/** A block device by JSON, the only form in which no character of a file name is special. */
function blockdev(node: string, file: string | typeof PLACEHOLDER, readOnly: boolean): string {
  if (file === PLACEHOLDER) return JSON.stringify({ driver: 'null-co', 'node-name': node, size: PLACEHOLDER_SIZE, 'read-zeroes': true, 'read-only': readOnly })
  return JSON.stringify({
    driver: 'raw',
    'node-name': node,
    'read-only': readOnly,
    'auto-read-only': false,
    ...(readOnly ? {} : { discard: 'unmap' }),
    // One image serves many VMs: no lock. Of the writable disk there is one user: QEMU's lock says so if that ever fails.
    file: { driver: 'file', filename: file, 'read-only': readOnly, 'auto-read-only': false, locking: readOnly ? 'off' : 'on', ...(readOnly ? {} : { discard: 'unmap' }) },
  })
}

/**
 * Bytes that an image's file may have to be persistent memory: the guest maps pages of the host's page cache, of which there is one for all machines, and has none of them in its own RAM. Few sizes,
 * since each makes a template of its own, and 64 bytes of each page are the guest's RAM. docs/decisions/0020-images-as-memory.md.
 */
export const IMAGE_SLOTS = [128 << 20, 512 << 20] as const

/** The slot for an image's file; 0: none, a block device. */
export const imageSlotOf = (size: number): number => IMAGE_SLOTS.find((slot) => slot === size) ?? 0

/** A file that stands for an image in a template, in the machine's directory: as large, and empty. */
export const PLACEHOLDER_FILE = 'placeholder'

/** Where the guest sees image and disk. */
export const guestDevices = (imageSlot: number): { root: string; disk: string } => (imageSlot > 0 ? { root: '/dev/pmem0', disk: '/dev/vda' } : { root: '/dev/vda', disk: '/dev/vdb' })

/** What of the host's errors the guest gets: all. By default QEMU stops the whole machine when the host has no room, and nobody hears of it. */
const DISK_ERRORS = 'werror=report,rerror=report'

/** Of the template's network card, until a clone's agent sets its own. Locally administered. */
export const PLACEHOLDER_MAC = '02:00:00:00:00:01'

const memoryBackend = ({ use, path }: MachineMemory, ram: number, served: boolean): string =>
  `memory-backend-file,id=ram,size=${ram / (1 << 20)}M,mem-path=${path.replaceAll(',', ',,')},share=${use === 'template' || served ? 'on' : 'off'}`

/** QEMU's arguments, without argv[0]. */
export function qemuArguments(machine: Machine): string[] {
  if (machine.ram % (1 << 20) !== 0 || machine.ram <= 0) throw new Error(`RAM of ${machine.ram} bytes`)
  if (!Number.isInteger(machine.vcpus) || machine.vcpus < 1) throw new Error(`${machine.vcpus} vCPUs`)
  const { image, imageSlot = 0 } = machine
  const args = [
    '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
    '-sandbox', SANDBOX,
    ...(machine.firmware ? ['-L', machine.firmware] : []),
    '-machine', machine.shares || machine.memory ? `${MACHINE},memory-backend=ram` : MACHINE,
    '-accel', machine.accelerator === 'kvm' ? 'kvm' : `tcg,tb-size=${TCG_CACHE_MIB}`,
    '-cpu', CPU[machine.accelerator],
    '-smp', String(machine.vcpus),
    '-m', `${machine.ram / (1 << 20)}M${imageSlot > 0 ? `,slots=1,maxmem=${(machine.ram + imageSlot) / (1 << 20)}M` : ''}`,
    // The file server reads and writes the guest's memory itself: it must be a file that both have. Only then: such memory is not merged, and is counted as shared.
    ...(machine.shares && !machine.memory ? ['-object', `memory-backend-memfd,id=ram,size=${machine.ram / (1 << 20)}M,share=on`] : []),
    ...(machine.memory ? ['-object', memoryBackend(machine.memory, machine.ram, machine.shares !== undefined)] : []),
    // First of all devices, so that the agent's port has a number that never changes.
    '-device', 'virtio-serial-pci,disable-legacy=on',
    '-chardev', `socket,id=agent,fd=${machine.agentFd}`,
    '-device', 'virtserialport,chardev=agent,name=hull',
  ]
  if (image !== undefined && imageSlot > 0) {
    const path = image === PLACEHOLDER ? `${JAIL_PATHS.directory}/${PLACEHOLDER_FILE}` : image
    args.push(
      '-object', `memory-backend-file,id=root,size=${imageSlot / (1 << 20)}M,mem-path=${path.replaceAll(',', ',,')},share=on,readonly=on`,
      '-device', 'virtio-pmem-pci,memdev=root',
    )
  } else if (image !== undefined) {
    args.push('-blockdev', blockdev('root', image, true), '-device', 'virtio-blk-pci,drive=root,disable-legacy=on')
  }
  if (machine.disk !== undefined) {
    args.push('-blockdev', blockdev('disk', machine.disk, false), '-device', `virtio-blk-pci,drive=disk,disable-legacy=on,${DISK_ERRORS}`)
  }
  if (machine.network) {
    const { fd, mac } = machine.network
    if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(mac)) throw new Error(`bad MAC address ${JSON.stringify(mac)}`)
    // A template's must be a real tap, too: its offloads (vnet_hdr) are part of the device's state.
    args.push('-netdev', `tap,id=net,fd=${fd}`, '-device', `virtio-net-pci,netdev=net,mac=${mac},romfile=,disable-legacy=on`)
  }
  // What the guest does not use any more goes back to the host. It is never asked to give anything up.
  args.push('-device', 'virtio-balloon-pci,disable-legacy=on,free-page-reporting=on')
  // A place for a device that a template cannot have.
  if (machine.memory) args.push('-device', 'pci-bridge,id=later,chassis_nr=1,msi=off')
  if (machine.shares) {
    args.push('-chardev', `socket,id=shares,fd=${machine.shares.fd}`)
    if (!machine.memory) args.push('-device', 'vhost-user-fs-pci,chardev=shares,tag=hull,queue-size=512')
  }
  if (machine.console !== undefined) args.push('-serial', `file:${machine.console}`)
  if (machine.memory) args.push('-chardev', `socket,id=qmp,fd=${machine.memory.qmpFd}`, '-mon', 'chardev=qmp,mode=control')
  if (machine.memory?.use === 'clone') return [...args, '-incoming', 'defer']
  args.push('-kernel', machine.kernel, '-initrd', machine.initrd, '-append', kernelCommandLine(machine))
  return args
}
