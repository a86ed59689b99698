import { type CgroupLimits, writeLimits } from './cgroup-limits.js'
import type { Cgroup } from './cgroup.js'

/** The files that {@link writeLimits} may write, by what they hold. */
const v2Files: Record<keyof CgroupLimits, [controller: string, ...files: string[]]> = {
  memory: ['memory', 'memory.max'], memorySwap: ['memory', 'memory.swap.max'], memoryReservation: ['memory', 'memory.low'],
  cpuShares: ['cpu', 'cpu.weight'], cpuQuota: ['cpu', 'cpu.max'], cpuPeriod: ['cpu', 'cpu.max'],
  cpusetCpus: ['cpuset', 'cpuset.cpus'], cpusetMems: ['cpuset', 'cpuset.mems'], pids: ['pids', 'pids.max'], blkioWeight: ['io', 'io.bfq.weight', 'io.weight'],
}
const v1Files: Record<keyof CgroupLimits, [controller: string, ...files: string[]]> = {
  memory: ['memory', 'memory.limit_in_bytes'], memorySwap: ['memory', 'memory.memsw.limit_in_bytes'], memoryReservation: ['memory', 'memory.soft_limit_in_bytes'],
  cpuShares: ['cpu', 'cpu.shares'], cpuQuota: ['cpu', 'cpu.cfs_quota_us'], cpuPeriod: ['cpu', 'cpu.cfs_period_us'],
  cpusetCpus: ['cpuset', 'cpuset.cpus'], cpusetMems: ['cpuset', 'cpuset.mems'], pids: ['pids', 'pids.max'], blkioWeight: ['blkio', 'blkio.bfq.weight', 'blkio.weight'],
}

interface Saved {
  controller: string
  file: string
  text: string
}

/** What the files of some limits hold now; files that the kernel does not have are left out. */
async function save(cgroup: Cgroup, limits: CgroupLimits): Promise<Saved[]> {
  const table = cgroup.isV2 ? v2Files : v1Files
  const saved: Saved[] = []
  for (const key of Object.keys(limits) as (keyof CgroupLimits)[]) {
    const [controller, ...files] = table[key]
    for (const file of files) {
      if (saved.some((other) => other.file === file)) continue
      const text = (await cgroup.read(controller, file))?.split('\n', 1)[0]?.trim()
      if (text !== undefined) saved.push({ controller, file, text })
    }
  }
  return saved
}

/** Writes saved values back. In rounds: one value may stand in another's way (v1: memory above memory + swap). Gives up in silence: the cgroup may be gone. */
async function restore(cgroup: Cgroup, saved: readonly Saved[]): Promise<void> {
  let left = [...saved]
  for (let round = 0; round < 3 && left.length > 0; round++) {
    const failed: Saved[] = []
    for (const entry of left.reverse()) {
      const now = (await cgroup.read(entry.controller, entry.file))?.split('\n', 1)[0]?.trim()
      if (now === entry.text) continue
      await cgroup.write(entry.controller, entry.file, entry.text).catch(() => failed.push(entry))
    }
    left = failed
  }
}

/**
 * {@link writeLimits}, all or nothing: when the kernel refuses one value, those written before it are put back. Resolves with what undoes it all,
 * for a caller that has more to change elsewhere.
 */
export async function changeLimits(cgroup: Cgroup, limits: CgroupLimits): Promise<() => Promise<void>> {
  const saved = await save(cgroup, limits)
  try {
    await writeLimits(cgroup, limits)
  } catch (error) {
    await restore(cgroup, saved)
    throw error
  }
  return () => restore(cgroup, saved)
}
