import { readdir, readFile } from 'node:fs/promises'

interface Process { pid: number; parent: number; commandLine: string }

async function processes(): Promise<Process[]> {
  const result: Process[] = []
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      const [stat, commandLine] = await Promise.all([readFile(`/proc/${name}/stat`, 'utf8'), readFile(`/proc/${name}/cmdline`, 'utf8')])
      // The command's name, in parentheses, may itself hold blanks and parentheses: what follows the last one is safe (proc(5)).
      result.push({ pid: Number(name), parent: Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]), commandLine })
    } catch {
      // ended meanwhile
    }
  }
  return result
}

/** Everything that runs for a container: what names its ID (conmon) or stands below that. */
export async function processesOf(id: string): Promise<number[]> {
  const all = await processes()
  const found = new Set(all.filter((process) => process.commandLine.includes(id)).map((process) => process.pid))
  for (let before = -1; before !== found.size;) {
    before = found.size
    for (const process of all) if (found.has(process.parent)) found.add(process.pid)
  }
  return [...found]
}

/** Proportional set size in bytes: a page that n processes share counts 1/n for each (proc(5), smaps_rollup). */
export async function pss(pids: readonly number[]): Promise<number> {
  const sizes = await Promise.all(pids.map(async (pid) => {
    const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '')
    return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) * 1024
  }))
  return sizes.reduce((sum, size) => sum + size, 0)
}

/** MemAvailable in bytes, the median of five readings. */
export async function memoryAvailable(): Promise<number> {
  const readings: number[] = []
  for (let i = 0; i < 5; i += 1) {
    readings.push(Number(/^MemAvailable:\s+(\d+) kB/m.exec(await readFile('/proc/meminfo', 'utf8'))?.[1] ?? 0) * 1024)
    await new Promise((resolve) => { setTimeout(resolve, 50) })
  }
  return median(readings)
}

/** The middle one; of an even number the lower of the two. */
export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? 0
}
