import { open, readFile, stat } from 'node:fs/promises'
import { arch, availableParallelism, hostname, release, totalmem, version } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { codeOf } from '../base/errors.js'
import { readIfExists } from '../base/files.js'
import { cgroupMounts, type CgroupLayout, type CgroupMounts } from './cgroup-layout.js'
import { parseMountinfo } from './mountinfo.js'
import { native } from './native.js'
import { parseStatus } from './process.js'

/** What the kernel can do with a feature: it is there, a module would bring it, it is not there. */
export type Support = 'yes' | 'module' | 'no'

/** What `docker info` and `hull doctor` say of the host. */
export interface HostFacts {
  hostname: string
  /** uname -r */
  kernel: string
  /** uname -v */
  kernelVersion: string
  /** Docker's and Go's word: 'amd64', 'arm64', … */
  architecture: string
  /** uname -m: 'x86_64', 'aarch64', … */
  machine: string
  /** Fields of os-release(5); PRETTY_NAME, ID and VERSION_ID are always there, perhaps empty. */
  os: Record<string, string> & { PRETTY_NAME: string; ID: string; VERSION_ID: string }
  cpus: number
  /** bytes */
  memory: number
  memoryAvailable: number
  /** bytes; 0: none */
  swap: number
  cgroup: CgroupFacts
  /** 'no-node': no /dev/kvm. 'denied': there, but we may not open it. 'yes' says that it opens, not that a guest boots. */
  kvm: 'yes' | 'denied' | 'no-node'
  /** /dev/net/tun, which VMs need. */
  tun: boolean
  overlay: Support
  erofs: Support
  bridge: Support
  nftables: Support
  /** user.max_user_namespaces > 0 */
  userNamespaces: boolean
  /** 'filter': programs are possible. */
  seccomp: 'filter' | 'no'
  /** Active security modules ('landlock', 'apparmor', …); undefined when securityfs is not mounted. */
  securityModules: string[] | undefined
  /** ABI version of Landlock; 0: none. */
  landlock: number
  /** net.bridge.bridge-nf-call-*: bridged frames go through other engines' rules. undefined: br_netfilter is not loaded. */
  bridgeNetfilter: { iptables: boolean; ip6tables: boolean } | undefined
  ipForward: boolean
  /** Capabilities that we have, as bits; compare with 1n << number (linux/capability.h). */
  capabilities: bigint
}

/** The resource controllers, in the words of `docker info`. */
export interface CgroupFacts {
  layout: CgroupLayout
  /** Docker's CgroupVersion: that of the controllers. */
  version: '1' | '2'
  controllers: string[]
  memoryLimit: boolean
  swapLimit: boolean
  cpuQuota: boolean
  cpuShares: boolean
  cpuset: boolean
  pidsLimit: boolean
  blockIo: boolean
  oomKillDisable: boolean
}

/** Parses os-release(5): shell assignments, quoted or not. */
export function parseOsRelease(text: string): HostFacts['os'] {
  const fields: HostFacts['os'] = { PRETTY_NAME: '', ID: '', VERSION_ID: '' }
  for (const line of text.split('\n')) {
    const match = /^([A-Z0-9_]+)=(.*)$/.exec(line.trim())
    if (match) fields[match[1]!] = match[2]!.replace(/^(["'])(.*)\1$/, '$2').replace(/\\(.)/g, '$1')
  }
  return fields
}

/** The value of a /proc/meminfo line in bytes; 0 without it. */
export function parseMeminfo(text: string, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) * 1024
}

/** Go's names, which Docker shows. */
const architectures: Record<string, string> = { x64: 'amd64', ia32: '386', arm64: 'arm64', arm: 'arm', ppc64: 'ppc64le', s390x: 's390x', riscv64: 'riscv64', loong64: 'loong64' }
const machines: Record<string, string> = { x64: 'x86_64', ia32: 'i686', arm64: 'aarch64', arm: 'armv7l', ppc64: 'ppc64le', s390x: 's390x', riscv64: 'riscv64', loong64: 'loongarch64' }

const exists = (path: string) => stat(path).then(() => true, () => false)

/** Which controllers there are, from what is mounted and from the files that only some kernels have. */
export async function cgroupFacts(mounts: CgroupMounts): Promise<CgroupFacts> {
  const v2 = mounts.layout === 'v2'
  const controllers = v2 ? mounts.unifiedControllers : Object.keys(mounts.controllers).filter((name) => !name.startsWith('name='))
  const has = (name: string) => controllers.includes(name)
  const v1File = (controller: string, file: string) => exists(join(mounts.controllers[controller] ?? '/nonexistent', file))
  return {
    layout: mounts.layout,
    version: v2 ? '2' : '1',
    controllers,
    memoryLimit: has('memory'),
    // v2 has the file in every cgroup but the root; there is no cheaper way to know than that the kernel accounts swap at all.
    swapLimit: has('memory') && (v2 ? await exists('/proc/swaps') : await v1File('memory', 'memory.memsw.limit_in_bytes')),
    cpuQuota: has('cpu') && (v2 || (await v1File('cpu', 'cpu.cfs_quota_us'))),
    cpuShares: has('cpu'),
    cpuset: has('cpuset'),
    pidsLimit: has('pids'),
    blockIo: has(v2 ? 'io' : 'blkio'),
    oomKillDisable: !v2 && (await v1File('memory', 'memory.oom_control')),
  }
}

/** What the kernel was built with ('CONFIG_X=y' lines), where it says so; '' otherwise. */
async function kernelConfig(): Promise<string> {
  const boot = await readIfExists(`/boot/config-${release()}`).catch(() => undefined)
  if (boot !== undefined) return boot
  return readFile('/proc/config.gz').then((packed) => gunzipSync(packed).toString('latin1'), () => '')
}

/** Part of the kernel, a module that it could load, or neither. `option`: its CONFIG_ name. O(modules that are installed). */
async function moduleSupport(module: string, option: string, present: boolean): Promise<Support> {
  if (present) return 'yes'
  const [builtin, loadable] = await Promise.all(
    ['modules.builtin', 'modules.dep'].map((file) => readIfExists(`/lib/modules/${release()}/${file}`).catch(() => undefined)),
  )
  const named = new RegExp(`/${module}\\.ko(\\.\\w+)?(:|$)`, 'm')
  if (named.test(builtin ?? '')) return 'yes'
  if (named.test(loadable ?? '')) return 'module'
  return new RegExp(`^CONFIG_${option}=y$`, 'm').test(await kernelConfig()) ? 'yes' : 'no'
}

async function kvmFact(): Promise<HostFacts['kvm']> {
  try {
    await (await open('/dev/kvm', 'r+')).close()
    return 'yes'
  } catch (error) {
    return ['ENOENT', 'ENODEV', 'ENXIO'].includes(codeOf(error) ?? '') ? 'no-node' : 'denied'
  }
}

/** Reads everything anew: some twenty small files. */
export async function hostFacts(): Promise<HostFacts> {
  const read = (path: string) => readIfExists(path).catch(() => undefined) // unreadable is as good as absent
  const [mountinfo, status, meminfo, filesystems, etcRelease, usrRelease, maxUserns, lsm, nf4, nf6, forward] = await Promise.all([
    readFile('/proc/self/mountinfo', 'utf8'), readFile('/proc/self/status', 'utf8'), readFile('/proc/meminfo', 'utf8'), readFile('/proc/filesystems', 'utf8'),
    read('/etc/os-release'), read('/usr/lib/os-release'), read('/proc/sys/user/max_user_namespaces'), read('/sys/kernel/security/lsm'),
    read('/proc/sys/net/bridge/bridge-nf-call-iptables'), read('/proc/sys/net/bridge/bridge-nf-call-ip6tables'), read('/proc/sys/net/ipv4/ip_forward'),
  ])
  const filesystem = (name: string, option: string) => moduleSupport(name, option, new RegExp(`\\b${name}$`, 'm').test(filesystems))
  const mounts = await cgroupMounts(parseMountinfo(mountinfo))
  const [cgroup, kvm, tun, overlay, erofs, bridge, nftables] = await Promise.all([
    cgroupFacts(mounts), kvmFact(), exists('/dev/net/tun'), filesystem('overlay', 'OVERLAY_FS'), filesystem('erofs', 'EROFS_FS'),
    exists('/sys/module/bridge').then((present) => moduleSupport('bridge', 'BRIDGE', present)),
    exists('/sys/module/nf_tables').then((present) => moduleSupport('nf_tables', 'NF_TABLES', present)),
  ])
  const self = parseStatus(status)
  return {
    hostname: hostname(),
    kernel: release(),
    kernelVersion: version(),
    architecture: architectures[arch()] ?? arch(),
    machine: machines[arch()] ?? arch(),
    os: parseOsRelease(etcRelease ?? usrRelease ?? ''),
    cpus: availableParallelism(),
    memory: totalmem(),
    memoryAvailable: parseMeminfo(meminfo, 'MemAvailable'),
    swap: parseMeminfo(meminfo, 'SwapTotal'),
    cgroup, kvm, tun, overlay, erofs, bridge, nftables,
    userNamespaces: Number(maxUserns ?? 0) > 0,
    seccomp: 'Seccomp' in self.fields && (await exists('/proc/sys/kernel/seccomp')) ? 'filter' : 'no',
    securityModules: lsm === undefined ? undefined : lsm.trim().split(',').filter(Boolean),
    landlock: native.landlockVersion(),
    bridgeNetfilter: nf4 === undefined ? undefined : { iptables: nf4.trim() === '1', ip6tables: nf6?.trim() === '1' },
    ipForward: forward?.trim() === '1',
    capabilities: self.capabilities.effective,
  }
}
