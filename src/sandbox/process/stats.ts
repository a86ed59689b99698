import { readFile } from 'node:fs/promises'
import { availableParallelism, totalmem } from 'node:os'
import { blockStats, cpuStats, memoryStats, pidsStats } from '../../host/cgroup-stats.js'
import type { Cgroup } from '../../host/cgroup.js'
import type { SandboxStats } from '../types.js'

/** Sums of /proc/PID/net/dev (proc(5)) over all links but lo; undefined when the process is gone. */
export function parseNetDev(text: string): SandboxStats['network'] {
  let result: SandboxStats['network']
  for (const line of text.split('\n')) {
    const match = /^\s*([^:\s]+):\s*(.*)$/.exec(line)
    if (!match || match[1] === 'lo') continue
    const n = match[2]!.split(/\s+/).map(Number)
    const row = {
      name: match[1]!, rxBytes: n[0] ?? 0, rxPackets: n[1] ?? 0, rxErrors: n[2] ?? 0, rxDropped: n[3] ?? 0,
      txBytes: n[8] ?? 0, txPackets: n[9] ?? 0, txErrors: n[10] ?? 0, txDropped: n[11] ?? 0,
    }
    if (!result) result = row
    else {
      for (const key of ['rxBytes', 'rxPackets', 'rxErrors', 'rxDropped', 'txBytes', 'txPackets', 'txErrors', 'txDropped'] as const) result[key] += row[key]
    }
  }
  return result
}

/** A running container's figures, from its cgroup and its network namespace. Zeros for what the host does not count. */
export async function processStats(cgroup: Cgroup, pid: number, ownNetwork: boolean): Promise<SandboxStats> {
  const [memory, cpu, pids, blocks, netDev] = await Promise.all([
    memoryStats(cgroup), cpuStats(cgroup), pidsStats(cgroup), blockStats(cgroup), ownNetwork ? readFile(`/proc/${pid}/net/dev`, 'utf8').catch(() => '') : '',
  ])
  const network = parseNetDev(netDev)
  return {
    memoryUsage: memory?.usage ?? 0,
    memoryLimit: memory?.limit ?? totalmem(),
    memoryStats: memory?.stat ?? {},
    cpuTotal: cpu?.total ?? 0,
    cpuUser: cpu?.user ?? 0,
    cpuKernel: cpu?.kernel ?? 0,
    onlineCpus: availableParallelism(),
    pids: pids?.current ?? 0,
    pidsLimit: pids?.limit ?? 0,
    ...(network ? { network } : {}),
    blockRead: blocks.reduce((sum, block) => sum + block.readBytes, 0),
    blockWrite: blocks.reduce((sum, block) => sum + block.writeBytes, 0),
  }
}
