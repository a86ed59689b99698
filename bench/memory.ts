import { readdir, readFile } from 'node:fs/promises'

/** Proportional set size of all processes whose program's name matches, in KiB, and how many there are. Unlike RSS it counts shared pages once. */
export async function pssOf(names: RegExp): Promise<{ kib: number; processes: number }> {
  let kib = 0
  let processes = 0
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    try {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8')
      const name = command.split('\0')[0]?.split('/').pop() ?? ''
      if (!names.test(name)) continue
      const match = /^Pss:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/smaps_rollup`, 'utf8'))
      kib += Number(match?.[1] ?? 0)
      processes++
    } catch {
      continue // it ended meanwhile
    }
  }
  return { kib, processes }
}
