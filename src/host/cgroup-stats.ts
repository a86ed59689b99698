import type { Cgroup } from './cgroup.js'

/** A number, or undefined for 'max' and for what v1 writes instead of it: the largest page-aligned 64-bit number. */
export function parseLimit(text: string | undefined): number | undefined {
  const value = text?.trim()
  if (!value || value === 'max' || value === '-1') return undefined
  const number = Number(value)
  return Number.isFinite(number) && number < 2 ** 62 ? number : undefined
}

/** 'key value' lines. */
export function parseFlat(text: string | undefined): Record<string, number> {
  const values: Record<string, number> = Object.create(null) as Record<string, number>
  for (const line of (text ?? '').split('\n')) {
    const [key, value] = line.split(' ')
    if (key && value !== undefined && value !== '') values[key] = Number(value)
  }
  return values
}

const parseNumber = (text: string | undefined) => {
  const number = Number(text?.trim() || NaN)
  return Number.isNaN(number) ? undefined : number
}

/** Bytes. */
export interface MemoryStats {
  /** With page cache, as the kernel counts. Docker's CLI subtracts `stat.inactive_file` (v2) or `stat.total_inactive_file` (v1). */
  usage: number
  /** undefined: unlimited. */
  limit: number | undefined
  /** Swap alone in use; undefined where swap is not counted. */
  swap: number | undefined
  /** memory + swap limit; undefined: unlimited or not counted. */
  swapLimit: number | undefined
  /** Highest usage; undefined before Linux 5.19 on v2. */
  peak: number | undefined
  /** Processes that the OOM killer ended in this cgroup and below. */
  oomKills: number
  /** memory.stat as it is. */
  stat: Record<string, number>
}

/** undefined: the cgroup is gone or the host has no memory controller. */
export async function memoryStats(cgroup: Cgroup): Promise<MemoryStats | undefined> {
  const read = (file: string) => cgroup.read('memory', file)
  if (cgroup.isV2) {
    const [usage, max, swap, swapMax, peak, events, stat] = await Promise.all(
      ['memory.current', 'memory.max', 'memory.swap.current', 'memory.swap.max', 'memory.peak', 'memory.events', 'memory.stat'].map(read),
    )
    if (usage === undefined) return undefined
    const limit = parseLimit(max)
    const swapOnly = parseLimit(swapMax)
    return {
      usage: Number(usage), limit, swap: parseNumber(swap), swapLimit: limit === undefined || swapOnly === undefined ? undefined : limit + swapOnly,
      peak: parseNumber(peak), oomKills: parseFlat(events)['oom_kill'] ?? 0, stat: parseFlat(stat),
    }
  }
  const [usage, max, both, bothMax, peak, oom, stat] = await Promise.all(
    ['memory.usage_in_bytes', 'memory.limit_in_bytes', 'memory.memsw.usage_in_bytes', 'memory.memsw.limit_in_bytes', 'memory.max_usage_in_bytes',
      'memory.oom_control', 'memory.stat'].map(read),
  )
  if (usage === undefined) return undefined
  const total = parseNumber(both)
  return {
    usage: Number(usage), limit: parseLimit(max), swap: total === undefined ? undefined : Math.max(0, total - Number(usage)), swapLimit: parseLimit(bothMax),
    peak: parseNumber(peak), oomKills: parseFlat(oom)['oom_kill'] ?? 0, stat: parseFlat(stat),
  }
}

/** True when the OOM killer has ended a process here. Cheap: one file. */
export function wasOomKilled(cgroup: Cgroup): boolean {
  const text = cgroup.readNow('memory', cgroup.isV2 ? 'memory.events' : 'memory.oom_control')
  return (parseFlat(text)['oom_kill'] ?? 0) > 0
}

/** Nanoseconds, counted since the cgroup was made. */
export interface CpuStats {
  total: number
  user: number
  kernel: number
  /** Of the CPU quota. */
  periods: number
  throttledPeriods: number
  throttledTime: number
}

/** undefined: the cgroup is gone. v2 counts CPU time even where the controller is off. */
export async function cpuStats(cgroup: Cgroup): Promise<CpuStats | undefined> {
  if (cgroup.isV2) {
    const text = await cgroup.read('cpu', 'cpu.stat')
    if (text === undefined) return undefined
    const stat = parseFlat(text)
    return {
      total: (stat['usage_usec'] ?? 0) * 1000, user: (stat['user_usec'] ?? 0) * 1000, kernel: (stat['system_usec'] ?? 0) * 1000,
      periods: stat['nr_periods'] ?? 0, throttledPeriods: stat['nr_throttled'] ?? 0, throttledTime: (stat['throttled_usec'] ?? 0) * 1000,
    }
  }
  const [total, user, kernel, throttling] = await Promise.all([
    cgroup.read('cpuacct', 'cpuacct.usage'), cgroup.read('cpuacct', 'cpuacct.usage_user'), cgroup.read('cpuacct', 'cpuacct.usage_sys'),
    cgroup.read('cpu', 'cpu.stat'),
  ])
  if (total === undefined) return undefined
  const stat = parseFlat(throttling)
  return {
    total: Number(total), user: Number(user ?? 0), kernel: Number(kernel ?? 0),
    periods: stat['nr_periods'] ?? 0, throttledPeriods: stat['nr_throttled'] ?? 0, throttledTime: stat['throttled_time'] ?? 0,
  }
}

/** `limit` undefined: unlimited. */
export interface PidsStats {
  current: number
  limit: number | undefined
}

/** Tasks, threads included. undefined: the cgroup is gone or the host has no pids controller. */
export async function pidsStats(cgroup: Cgroup): Promise<PidsStats | undefined> {
  const [current, max] = await Promise.all([cgroup.read('pids', 'pids.current'), cgroup.read('pids', 'pids.max')])
  return current === undefined ? undefined : { current: Number(current), limit: parseLimit(max) }
}

/** Counters of one block device. */
export interface BlockStats {
  major: number
  minor: number
  readBytes: number
  writeBytes: number
  readOperations: number
  writeOperations: number
}

/** Parses v2's io.stat: '8:0 rbytes=1 wbytes=2 rios=3 wios=4 …'. */
export function parseIoStat(text: string): BlockStats[] {
  const devices: BlockStats[] = []
  for (const line of text.split('\n')) {
    const device = /^(\d+):(\d+)\s/.exec(line)
    if (!device) continue
    const value = (key: string) => Number(new RegExp(`\\s${key}=(\\d+)`).exec(line)?.[1] ?? 0)
    devices.push({
      major: Number(device[1]), minor: Number(device[2]),
      readBytes: value('rbytes'), writeBytes: value('wbytes'), readOperations: value('rios'), writeOperations: value('wios'),
    })
  }
  return devices
}

/** Parses v1's '8:0 Read 1' lines of bytes and of operations. */
export function parseBlkio(bytes: string, operations: string): BlockStats[] {
  const devices = new Map<string, BlockStats>()
  const collect = (text: string, read: 'readBytes' | 'readOperations', written: 'writeBytes' | 'writeOperations') => {
    for (const match of text.matchAll(/^(\d+):(\d+) (Read|Write) (\d+)$/gm)) {
      const key = `${match[1]}:${match[2]}`
      const device = devices.get(key) ?? {
        major: Number(match[1]), minor: Number(match[2]), readBytes: 0, writeBytes: 0, readOperations: 0, writeOperations: 0,
      }
      device[match[3] === 'Read' ? read : written] = Number(match[4])
      devices.set(key, device)
    }
  }
  collect(bytes, 'readBytes', 'writeBytes')
  collect(operations, 'readOperations', 'writeOperations')
  return [...devices.values()]
}

/** Block I/O by device; empty when nothing was read or written, or the controller is missing. */
export async function blockStats(cgroup: Cgroup): Promise<BlockStats[]> {
  if (cgroup.isV2) return parseIoStat((await cgroup.read('io', 'io.stat')) ?? '')
  const read = async (name: string) =>
    (await cgroup.read('blkio', `blkio.throttle.${name}_recursive`)) ?? (await cgroup.read('blkio', `blkio.throttle.${name}`)) ?? ''
  return parseBlkio(...(await Promise.all([read('io_service_bytes'), read('io_serviced')])))
}
