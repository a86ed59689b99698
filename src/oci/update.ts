import { conflict, HullError, messageOf, codeOf } from '../base/errors.js'
import { changeLimits } from '../host/cgroup-change.js'
import type { CgroupLimits } from '../host/cgroup-limits.js'
import type { Cgroup } from '../host/cgroup.js'
import { defaultSwap, type ResourceInput, type ResourceSupport } from './resources.js'

/** The kernel's defaults, which a limit of "none" goes back to. */
const defaultPeriod = 100_000
const defaultShares = 1024

/** Limits of a running container that an update may change. */
export type LiveLimits = Pick<
  ResourceInput,
  'memory' | 'memorySwap' | 'memoryReservation' | 'nanoCpus' | 'cpuShares' | 'cpuPeriod' | 'cpuQuota' | 'cpusetCpus' | 'cpusetMems' | 'pidsLimit' | 'blkioWeight'
>

/** Memory limits from the wanted ones, where they differ from those before. `before` undefined: all. */
export function memoryChanges(after: LiveLimits, before: LiveLimits | undefined): Pick<CgroupLimits, 'memory' | 'memorySwap' | 'memoryReservation'> {
  const changes: CgroupLimits = {}
  if (!before || after.memory !== before.memory || after.memorySwap !== before.memorySwap) {
    changes.memory = after.memory > 0 ? after.memory : -1
    changes.memorySwap = after.memory <= 0 || after.memorySwap < 0 ? -1 : after.memorySwap === 0 ? defaultSwap(after.memory) : after.memorySwap
  }
  if (!before || after.memoryReservation !== before.memoryReservation) changes.memoryReservation = after.memoryReservation > 0 ? after.memoryReservation : -1
  return changes
}

/** CPU and block I/O limits: what binds a container or a VMM on the host alike. */
export function cpuChanges(after: LiveLimits, before: LiveLimits | undefined): CgroupLimits {
  const changes: CgroupLimits = {}
  const changed = (...keys: (keyof LiveLimits)[]) => !before || keys.some((key) => after[key] !== before[key])
  if (changed('cpuShares')) changes.cpuShares = after.cpuShares > 0 ? after.cpuShares : defaultShares
  if (changed('nanoCpus', 'cpuQuota', 'cpuPeriod')) {
    changes.cpuPeriod = after.nanoCpus > 0 || after.cpuPeriod <= 0 ? defaultPeriod : after.cpuPeriod
    changes.cpuQuota = after.nanoCpus > 0 ? Math.floor((after.nanoCpus * defaultPeriod) / 1e9) : after.cpuQuota > 0 ? after.cpuQuota : -1
  }
  // '' cannot be asked for, and v1 cannot be given it.
  if (after.cpusetCpus !== '' && changed('cpusetCpus')) changes.cpusetCpus = after.cpusetCpus
  if (after.cpusetMems !== '' && changed('cpusetMems')) changes.cpusetMems = after.cpusetMems
  if (after.blkioWeight > 0 && changed('blkioWeight')) changes.blkioWeight = after.blkioWeight
  return changes
}

/** Leaves out what this host's cgroups cannot limit, with Docker's words for it. */
export function supported(changes: CgroupLimits, support: ResourceSupport): { limits: CgroupLimits; warnings: string[] } {
  const { memorySwap, blkioWeight, ...limits } = changes
  const warnings: string[] = []
  if (memorySwap !== undefined) {
    if (support.swap) Object.assign(limits, { memorySwap })
    else if (memorySwap > 0) warnings.push('Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.')
  }
  if (blkioWeight !== undefined) {
    if (support.blkioWeight) Object.assign(limits, { blkioWeight })
    else warnings.push('Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.')
  }
  return { limits, warnings }
}

const words: Record<string, string> = {
  EBUSY: 'it is less than what is in use and cannot be freed', EINVAL: 'invalid argument', ERANGE: 'out of range', ENOENT: 'the host has no such limit, or the container has just ended',
}

/** {@link changeLimits}, with an error that a client may see: 409. Returns what undoes it. */
export async function applyLimits(cgroup: Cgroup, limits: CgroupLimits): Promise<() => Promise<void>> {
  if (Object.keys(limits).length === 0) return async () => {}
  try {
    return await changeLimits(cgroup, limits)
  } catch (error) {
    if (error instanceof HullError) throw error
    const values = Object.entries(limits).map(([name, value]) => `${name} ${value}`).join(', ')
    throw conflict(`the kernel refuses ${values}: ${words[codeOf(error) ?? ''] ?? messageOf(error)}`, error)
  }
}
