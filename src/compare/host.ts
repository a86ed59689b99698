import { readdir, readFile, stat } from 'node:fs/promises'
import { cpus, loadavg, release } from 'node:os'

/** Bytes of a line of /proc/meminfo (proc(5)). */
export async function meminfo(name: string): Promise<number> {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(await readFile('/proc/meminfo', 'utf8'))?.[1] ?? 0) * 1024
}

/** MemAvailable when it has come to rest: the median of five readings, 100 ms apart; bytes. */
export async function memAvailable(): Promise<number> {
  const readings: number[] = []
  for (let n = 0; n < 5; n += 1) {
    readings.push(await meminfo('MemAvailable'))
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return readings.sort((a, b) => a - b)[2]!
}

export async function hostFacts(info: { OperatingSystem?: string; Driver?: string; CgroupVersion?: string; DriverStatus?: [string, string][] | null }) {
  const model = /^model name\s*:\s*(.+)$/m.exec(await readFile('/proc/cpuinfo', 'utf8'))?.[1] ?? ''
  return {
    kernel: release(), os: info.OperatingSystem ?? '', cpu: model, cpus: cpus().length, memory: await meminfo('MemTotal'), available: await meminfo('MemAvailable'), load: loadavg()[0] ?? 0,
    dataRootFs: info.DriverStatus?.find(([name]) => name === 'Backing Filesystem')?.[1] ?? '', cgroup: info.CgroupVersion ?? '',
    kvmDevice: await stat('/dev/kvm').then(() => true, () => false),
  }
}

/** A process and all below it, of those that are there. */
export interface Running { pid: number; parent: number; name: string; commandLine: string }

export async function processes(): Promise<Running[]> {
  const found: Running[] = []
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    try {
      const [text, commandLine] = await Promise.all([readFile(`/proc/${entry}/stat`, 'utf8'), readFile(`/proc/${entry}/cmdline`, 'utf8')])
      // The name, in parentheses, may itself hold blanks and parentheses: what follows the last one is safe.
      const end = text.lastIndexOf(')')
      found.push({ pid: Number(entry), parent: Number(text.slice(end + 2).split(' ')[1]), name: text.slice(text.indexOf('(') + 1, end), commandLine })
    } catch {
      continue // it ended meanwhile
    }
  }
  return found
}

/** What stands for a container on the host: its hull-monitor (and that of a VM's file server), which has the id on its command line, and all below. */
export function familyOf(id: string, all: readonly Running[]): Running[] {
  const family = all.filter(({ name, commandLine }) => name === 'hull-monitor' && commandLine.includes(id))
  for (let at = 0; at < family.length; at += 1) family.push(...all.filter(({ parent }) => parent === family[at]!.pid))
  return family
}

/** Proportional set size, bytes (proc_pid_smaps(5)); undefined where we may not read it. */
export async function pssOf(pid: number): Promise<number | undefined> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '')
  const match = /^Pss:\s+(\d+) kB/m.exec(text)
  return match ? Number(match[1]) * 1024 : undefined
}
