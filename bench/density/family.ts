import { readFile } from 'node:fs/promises'
import { processStat } from '../../src/host/process.js'

/** What a set of processes costs. Bytes; seconds of processor time so far. */
export interface Cost {
  pss: number
  anonymous: number
  cpuSeconds: number
  processes: number
}

/** Clock ticks in a second of /proc/PID/stat (proc(5): sysconf(_SC_CLK_TCK), 100 on every Linux of today). */
const TICKS = 100


/** Sums over those that still live. */
export async function costOf(pids: readonly number[]): Promise<Cost> {
  const cost: Cost = { pss: 0, anonymous: 0, cpuSeconds: 0, processes: 0 }
  for (const pid of pids) {
    const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '')
    const stat = await processStat(pid)
    if (text === '' || !stat) continue
    const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0)
    cost.pss += kib('Pss') * 1024
    cost.anonymous += kib('Anonymous') * 1024
    cost.cpuSeconds += (await cpuTicks(pid)) / TICKS
    cost.processes++
  }
  return cost
}

/** utime and stime, fields 14 and 15 of /proc/PID/stat. */
async function cpuTicks(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11] ?? 0) + Number(fields[12] ?? 0)
}
