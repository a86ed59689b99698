import { availableParallelism } from 'node:os'
import { conflict } from '../../base/errors.js'
import type { Cgroup } from '../../host/cgroup.js'
import { hostCgroups } from '../../oci/cgroups.js'
import { resourceSupport } from '../../oci/resources.js'
import { applyLimits, cpuChanges, supported } from '../../oci/update.js'
import type { Resources } from '../types.js'
import type { VmClient } from './client.js'
import type { TextEntry } from './protocol.js'
import type { VmRecord } from './record.js'
import { defaultGuestMemory, kernelShare, wantedVcpus } from './resources.js'

const MiB = 1 << 20
const shown = (bytes: number) => `${Math.floor(bytes / MiB)} MiB`

/** What a running machine is too small for: its RAM and CPUs are those that it was started with. Throws 409 that names the value. */
function refuseGrowth(record: Pick<VmRecord, 'ram' | 'vcpus'>, resources: Resources): void {
  const again = 'stop the container, update it, and start it again'
  if (resources.memory > 0 && resources.memory + kernelShare(resources.memory) > record.ram) {
    throw conflict(`isolation vm: memory ${resources.memory} (${shown(resources.memory)}) is more than the running machine has (${shown(record.ram)} with its kernel's share): ${again}`)
  }
  const vcpus = wantedVcpus(resources, availableParallelism())
  if (vcpus > record.vcpus) {
    throw conflict(`isolation vm: ${resources.nanoCpus > 0 ? `cpus ${resources.nanoCpus / 1e9}` : `cpu quota ${resources.cpuQuota}`} needs ${vcpus} CPUs and the running machine has ${record.vcpus}: ${again}`)
  }
}

/** Limits of the container's cgroup inside the guest (guest/PROTOCOL.md, what=update); 0: none. */
function guestEntries(resources: Resources, before: Resources | undefined, ram: number): TextEntry[] {
  const entries: TextEntry[] = []
  const changed = (...keys: (keyof Resources)[]) => !before || keys.some((key) => resources[key] !== before[key])
  if (changed('memory', 'memorySwap')) {
    entries.push(['memory', String(resources.memory > 0 ? resources.memory : defaultGuestMemory(ram))])
    entries.push(['swap', String(resources.memory > 0 ? Math.max(0, resources.memorySwap) : 0)])
  }
  if (changed('memoryReservation')) entries.push(['reservation', String(resources.memoryReservation)])
  if (changed('pidsLimit')) entries.push(['pids', String(Math.max(0, resources.pidsLimit))])
  return entries
}

/**
 * New limits for a running VM. What concerns the workload (memory, processes) is its guest's matter; what concerns the host (CPU time, CPUs,
 * block I/O) is the jail's. Both or neither.
 */
export async function updateVm(
  vm: { cgroup: Cgroup; client: VmClient; record: Pick<VmRecord, 'ram' | 'vcpus'> },
  resources: Resources,
  before: Resources | undefined,
): Promise<string[]> {
  refuseGrowth(vm.record, resources)
  const { limits, warnings } = supported(cpuChanges(resources, before), resourceSupport(await hostCgroups()))
  const undo = await applyLimits(vm.cgroup, limits)
  const entries = guestEntries(resources, before, vm.record.ram)
  if (entries.length === 0) return warnings
  try {
    const refused = await vm.client.update(entries)
    if (refused !== '') throw conflict(`isolation vm: the guest refuses ${entries.map(([key, value]) => `${key} ${value}`).join(', ')}: ${refused}`)
  } catch (error) {
    await undo()
    throw error
  }
  return warnings
}
