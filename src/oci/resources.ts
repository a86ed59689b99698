import type { Cgroup } from '../host/cgroup.js'
import type { CgroupMounts } from '../host/cgroup-layout.js'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { blockIoOf, type BlockDeviceLimits } from './block-io.js'
import type { OciResources } from './spec-types.js'

/** Limits in Docker's units; 0 or '': none. */
export interface ResourceInput {
  /** bytes */
  memory: number
  /** memory + swap; -1 unlimited; 0: twice the memory */
  memorySwap: number
  memoryReservation: number
  nanoCpus: number
  cpuShares: number
  /** microseconds */
  cpuPeriod: number
  cpuQuota: number
  cpusetCpus: string
  cpusetMems: string
  /** -1 or 0: unlimited */
  pidsLimit: number
  oomKillDisable: boolean
  blkioWeight: number
  blkioDevices?: BlockDeviceLimits
  /** 0-100 */
  memorySwappiness?: number
}

/** What this host's cgroups can limit. */
export interface ResourceSupport {
  v2: boolean
  swap: boolean
  blkioWeight: boolean
}

/** The largest number of bytes that a double can tell from 2^63, where the runtime's 64-bit integers end. */
const MAX_BYTES = 2 ** 63 - 1024

/** Memory and swap together when only a memory limit is given: twice that (Docker). Bytes. */
export const defaultSwap = (memory: number): number => Math.min(memory * 2, MAX_BYTES)

/** Looks once for what only some kernels have. */
export function resourceSupport(mounts: CgroupMounts): ResourceSupport {
  const v2 = mounts.layout === 'v2'
  const v1 = (controller: string, file: string) => existsSync(join(mounts.controllers[controller] ?? '/nonexistent', file))
  return {
    v2,
    // v2: the root has no such file; a child has it wherever the kernel counts swap, which all of Debian's do.
    swap: v2 ? existsSync('/proc/swaps') : v1('memory', 'memory.memsw.limit_in_bytes'),
    blkioWeight: v2 ? mounts.unifiedControllers.includes('io') : v1('blkio', 'blkio.weight') || v1('blkio', 'blkio.bfq.weight'),
  }
}

/** Docker's device rules (moby oci/defaults.go): everything may be made with mknod, only these may be opened. */
const DEVICE_RULES: NonNullable<OciResources['devices']> = [
  { allow: false, access: 'rwm' },
  { allow: true, type: 'c', access: 'm' },
  { allow: true, type: 'b', access: 'm' },
  ...([[1, 3], [1, 5], [1, 7], [1, 8], [1, 9], [5, 0], [5, 1], [5, 2]] as const).map(([major, minor]) => ({ allow: true, type: 'c', major, minor, access: 'rwm' })),
  { allow: true, type: 'c', major: 136, access: 'rwm' }, // the pseudo-terminals of /dev/pts
]

/** The runtime-spec's resources, with Docker's words for what this host cannot do. */
export function buildResources(input: ResourceInput, support: ResourceSupport, privileged: boolean): { resources: OciResources; warnings: string[] } {
  const warnings: string[] = []
  const resources: OciResources = { devices: privileged ? [{ allow: true, access: 'rwm' }] : DEVICE_RULES }
  const memory: OciResources['memory'] = {}
  if (input.memory > 0) {
    memory.limit = input.memory
    const swap = input.memorySwap === 0 ? defaultSwap(input.memory) : input.memorySwap
    if (support.swap) memory.swap = swap
    else if (input.memorySwap !== 0) warnings.push('Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.')
  }
  if (input.memoryReservation > 0) memory.reservation = input.memoryReservation
  if (input.oomKillDisable) {
    if (support.v2) warnings.push('OomKillDisable is discarded: cgroup v2 has no such setting.')
    else memory.disableOOMKiller = true
  }
  if (input.memorySwappiness !== undefined) {
    if (support.v2) warnings.push('Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.')
    else memory.swappiness = input.memorySwappiness
  }
  if (Object.keys(memory).length > 0) resources.memory = memory
  const cpu: OciResources['cpu'] = {}
  if (input.cpuShares > 0) cpu.shares = input.cpuShares
  if (input.nanoCpus > 0) {
    cpu.period = 100_000
    cpu.quota = Math.floor((input.nanoCpus * 100_000) / 1e9)
  } else {
    if (input.cpuPeriod > 0) cpu.period = input.cpuPeriod
    // Negative means none, which is what there is when none is said; crun writes -1 as an unsigned number, which the kernel refuses.
    if (input.cpuQuota > 0) cpu.quota = input.cpuQuota
  }
  if (input.cpusetCpus !== '') cpu.cpus = input.cpusetCpus
  if (input.cpusetMems !== '') cpu.mems = input.cpusetMems
  if (Object.keys(cpu).length > 0) resources.cpu = cpu
  if (input.pidsLimit > 0) resources.pids = { limit: input.pidsLimit }
  const { blockIO, warnings: blockWarnings } = blockIoOf(input.blkioWeight, input.blkioDevices, support)
  warnings.push(...blockWarnings)
  if (blockIO) resources.blockIO = blockIO
  return { resources, warnings }
}

/** A line of figures for people. */
export type LimitRow = [name: string, value: string]

const bytes = (value: string) => (Number(value) >= 2 ** 60 || value === 'max' ? 'none' : `${Number(value)} bytes`)

/** The limits that the kernel holds this cgroup to, read from its files. */
export async function limitsInForce(cgroup: Cgroup): Promise<LimitRow[]> {
  const rows: LimitRow[] = []
  const read = async (controller: string, v2: string, v1: string) => (await cgroup.read(controller, cgroup.isV2 ? v2 : v1))?.trim()
  const memory = await read('memory', 'memory.max', 'memory.limit_in_bytes')
  if (memory !== undefined) rows.push(['memory limit', bytes(memory)])
  const swap = await read('memory', 'memory.swap.max', 'memory.memsw.limit_in_bytes')
  if (swap !== undefined) rows.push([cgroup.isV2 ? 'swap limit' : 'memory and swap limit', bytes(swap)])
  const [quota, period] = cgroup.isV2
    ? ((await cgroup.read('cpu', 'cpu.max'))?.trim().split(' ') ?? [])
    : [await read('cpu', '', 'cpu.cfs_quota_us'), await read('cpu', '', 'cpu.cfs_period_us')]
  if (quota !== undefined) rows.push(['cpus', quota === 'max' || Number(quota) < 0 ? 'no quota' : String(Number(quota) / Number(period))])
  const shares = await read('cpu', 'cpu.weight', 'cpu.shares')
  if (shares !== undefined) rows.push([cgroup.isV2 ? 'cpu weight' : 'cpu shares', shares])
  const cpus = await read('cpuset', 'cpuset.cpus.effective', 'cpuset.cpus')
  if (cpus !== undefined) rows.push(['cpuset', cpus])
  const pids = await read('pids', 'pids.max', 'pids.max')
  if (pids !== undefined) rows.push(['pids limit', pids === 'max' ? 'none' : pids])
  return rows
}
