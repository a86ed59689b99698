import { availableParallelism } from 'node:os'
import type { Cgroup } from '../../host/cgroup.js'
import { blockStats, cpuStats, memoryStats, pidsStats } from '../../host/cgroup-stats.js'
import type { SandboxStats } from '../types.js'
import { textNumber } from './protocol.js'
import type { VmRecord } from './record.js'

/**
 * Figures of a VM: the workload's own from the guest's cgroup, as a container's would be; and what the VM costs the host, as `host_*` in
 * memoryStats. Without an answer from the guest (paused, ended) the host's figures stand for both.
 */
export async function readStats(cgroup: Cgroup, record: Pick<VmRecord, 'vcpus' | 'ram'>, guest: ReadonlyMap<string, string> | undefined): Promise<SandboxStats> {
  const [memory, cpu, pids, blocks] = await Promise.all([memoryStats(cgroup), cpuStats(cgroup), pidsStats(cgroup), blockStats(cgroup)])
  const number = (key: string) => (guest ? textNumber(guest, key) : undefined)
  const sum = (pick: (block: (typeof blocks)[number]) => number) => blocks.reduce((total, block) => total + pick(block), 0)
  // The guest's limit is its cgroup's, or all of the machine.
  const limit = number('memory_limit') || number('mem_total') || record.ram
  return {
    memoryUsage: number('memory_usage') ?? memory?.usage ?? 0,
    memoryLimit: limit,
    memoryStats: {
      // What the docker CLI takes from the usage: cache that the guest can give back.
      inactive_file: number('memory_inactive_file') ?? 0,
      anon: number('memory_anon') ?? 0,
      file: number('memory_file') ?? 0,
      machine_total: number('mem_total') ?? record.ram,
      machine_available: number('mem_available') ?? 0,
    },
    cpuTotal: number('cpu_total_ns') ?? cpu?.total ?? 0,
    cpuUser: number('cpu_user_ns') ?? cpu?.user ?? 0,
    cpuKernel: number('cpu_system_ns') ?? cpu?.kernel ?? 0,
    // The host's: clients multiply by it a share of the whole host's processor time.
    onlineCpus: availableParallelism(),
    pids: number('pids') ?? pids?.current ?? 0,
    pidsLimit: number('pids_limit') ?? 0,
    ...(number('rx_bytes') === undefined
      ? {}
      : {
          network: {
            name: 'eth0',
            rxBytes: number('rx_bytes') ?? 0, rxPackets: number('rx_packets') ?? 0, rxErrors: 0, rxDropped: 0,
            txBytes: number('tx_bytes') ?? 0, txPackets: number('tx_packets') ?? 0, txErrors: 0, txDropped: 0,
          },
        }),
    host: { memoryUsage: memory?.usage ?? 0, memoryLimit: memory?.limit ?? 0, cpuTotal: cpu?.total ?? 0, pids: pids?.current ?? 0 },
    blockRead: number('blk_read') ?? sum((block) => block.readBytes),
    blockWrite: number('blk_write') ?? sum((block) => block.writeBytes),
  }
}
