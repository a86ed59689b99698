import { codeOf } from '../base/errors.js'
import { parseLimit } from './cgroup-stats.js'
import type { Cgroup } from './cgroup.js'

/** Limits to write; an absent one stays as it is. */
export interface CgroupLimits {
  /** bytes; -1: unlimited */
  memory?: number
  /** memory + swap, bytes; -1: unlimited swap */
  memorySwap?: number
  /** bytes; soft limit (v2: memory.low) */
  memoryReservation?: number
  /** v1 shares, 2 to 262144; translated to a weight on v2 */
  cpuShares?: number
  /** microseconds; -1: no quota */
  cpuQuota?: number
  /** microseconds */
  cpuPeriod?: number
  /** list format, '0-1,3' */
  cpusetCpus?: string
  cpusetMems?: string
  /** tasks; -1: unlimited */
  pids?: number
  /** 10 to 1000; translated to 1 to 10000 on v2 */
  blkioWeight?: number
}

/** v1's cpu.shares (2 … 262144) as v2's cpu.weight (1 … 10000), the OCI runtimes' formula. */
export function sharesToWeight(shares: number): number {
  return Math.min(10_000, Math.max(1, 1 + Math.floor(((Math.max(2, shares) - 2) * 9999) / 262_142)))
}

/** blkio weight (10 … 1000) as v2's io.weight (1 … 10000), the OCI runtimes' formula. */
export function blkioToIoWeight(weight: number): number {
  return Math.min(10_000, Math.max(1, 1 + Math.floor(((weight - 10) * 9999) / 990)))
}

/**
 * Writes limits, in an order that the kernel accepts. Rejects with ENOENT (gone, or no such controller), EINVAL, EBUSY (v1: memory limit
 * below what is in use), ERANGE. What was written before the failure stays.
 */
export async function writeLimits(cgroup: Cgroup, limits: CgroupLimits): Promise<void> {
  await writeMemory(cgroup, limits)
  if (limits.cpuShares !== undefined) {
    if (cgroup.isV2) await cgroup.write('cpu', 'cpu.weight', sharesToWeight(limits.cpuShares))
    else await cgroup.write('cpu', 'cpu.shares', limits.cpuShares)
  }
  await writeQuota(cgroup, limits)
  if (limits.cpusetCpus !== undefined) await cgroup.write('cpuset', 'cpuset.cpus', limits.cpusetCpus)
  if (limits.cpusetMems !== undefined) await cgroup.write('cpuset', 'cpuset.mems', limits.cpusetMems)
  if (limits.pids !== undefined) await cgroup.write('pids', 'pids.max', limits.pids < 0 ? 'max' : limits.pids)
  if (limits.blkioWeight !== undefined) await writeWeight(cgroup, limits.blkioWeight)
}

async function writeMemory(cgroup: Cgroup, limits: CgroupLimits): Promise<void> {
  const { memory, memorySwap, memoryReservation } = limits
  if (cgroup.isV2) {
    const value = (bytes: number) => (bytes < 0 ? 'max' : bytes)
    if (memorySwap !== undefined) {
      // v2 limits swap alone; the caller's number holds both.
      const ram = memory ?? parseLimit(await cgroup.read('memory', 'memory.max')) ?? -1
      if (memorySwap >= 0 && (ram < 0 || memorySwap < ram)) throw Object.assign(new Error('memory + swap limit is lower than the memory limit'), { code: 'EINVAL' })
      await writeOptional(cgroup, 'memory', 'memory.swap.max', memorySwap < 0 ? 'max' : memorySwap - ram)
    }
    if (memory !== undefined) await cgroup.write('memory', 'memory.max', value(memory))
    if (memoryReservation !== undefined) await cgroup.write('memory', 'memory.low', value(Math.max(0, memoryReservation)))
    return
  }
  // v1 refuses a memory limit above memory + swap at any moment: raise the sum first, or lower it last.
  const present = parseLimit(await cgroup.read('memory', 'memory.memsw.limit_in_bytes')) ?? Infinity
  const wide = (bytes: number) => (bytes < 0 ? Infinity : bytes)
  const sum = async () => {
    if (memorySwap !== undefined) await writeOptional(cgroup, 'memory', 'memory.memsw.limit_in_bytes', memorySwap)
  }
  const raising = memorySwap !== undefined && wide(memorySwap) >= present
  if (raising) await sum()
  if (memory !== undefined) await cgroup.write('memory', 'memory.limit_in_bytes', memory)
  if (!raising) await sum()
  if (memoryReservation !== undefined) await cgroup.write('memory', 'memory.soft_limit_in_bytes', memoryReservation)
}

async function writeQuota(cgroup: Cgroup, limits: CgroupLimits): Promise<void> {
  const { cpuQuota, cpuPeriod } = limits
  if (cpuQuota === undefined && cpuPeriod === undefined) return
  if (cgroup.isV2) {
    const [presentQuota = 'max', presentPeriod = '100000'] = ((await cgroup.read('cpu', 'cpu.max')) ?? '').trim().split(' ')
    const quota = cpuQuota === undefined ? presentQuota || 'max' : cpuQuota < 0 ? 'max' : String(cpuQuota)
    return cgroup.write('cpu', 'cpu.max', `${quota} ${cpuPeriod ?? presentPeriod}`)
  }
  const period = async () => {
    if (cpuPeriod !== undefined) await cgroup.write('cpu', 'cpu.cfs_period_us', cpuPeriod)
  }
  try {
    await period()
  } catch (error) {
    // The old quota in the new period may be more than the parent allows: the quota first, then.
    if (codeOf(error) !== 'EINVAL' || cpuQuota === undefined) throw error
    await cgroup.write('cpu', 'cpu.cfs_quota_us', cpuQuota)
    return period()
  }
  if (cpuQuota !== undefined) await cgroup.write('cpu', 'cpu.cfs_quota_us', cpuQuota)
}

async function writeWeight(cgroup: Cgroup, weight: number): Promise<void> {
  // Which of the two files is there depends on the I/O scheduler.
  const [controller, ...files]: [string, ...[string, number][]] = cgroup.isV2
    ? ['io', ['io.bfq.weight', weight], ['io.weight', blkioToIoWeight(weight)]]
    : ['blkio', ['blkio.bfq.weight', weight], ['blkio.weight', weight]]
  for (const [file, value] of files) {
    if ((await cgroup.read(controller, file)) !== undefined) return cgroup.write(controller, file, value)
  }
  throw Object.assign(new Error('cgroup: ENOENT: this kernel has no block I/O weights'), { code: 'ENOENT' })
}

/** Swap is not counted on every kernel: then its limit cannot be set, and none is needed. */
async function writeOptional(cgroup: Cgroup, controller: string, file: string, value: string | number): Promise<void> {
  try {
    await cgroup.write(controller, file, value)
  } catch (error) {
    // Without the controller's other files the cgroup itself is gone: that is an error.
    if (codeOf(error) !== 'ENOENT' || !(await cgroup.exists())) throw error
  }
}
