import { badRequest, internal } from '../../base/errors.js'
import { run } from '../../base/run.js'
import type { TopResult } from '../types.js'

/** moby daemon/top_unix.go: a column that is merely called PID would pick the rows. */
function checkArguments(args: readonly string[]): void {
  for (const match of args.join(' ').matchAll(/(?:^|\s)?(\w*)=\s*(PID[^\s,]*)/g)) throw badRequest(`specifying "${match[1]}=${match[2]}" is not allowed`)
}

/** Rows of `ps` for these pids; the last column keeps its spaces. */
export function selectRows(output: string, pids: ReadonlySet<number>): TopResult {
  const lines = output.split('\n')
  const titles = (lines[0] ?? '').trim().split(/\s+/)
  const column = titles.indexOf('PID')
  if (column < 0) throw internal("Couldn't find PID field in ps output")
  const rows: string[][] = []
  let previous = false
  for (const line of lines.slice(1)) {
    const fields = line.trim().split(/\s+/)
    if (fields.length < titles.length && line.trim() === '') continue
    const pid = fields[column]
    // Threads of the process above (`ps m`): no pid of their own.
    const mine: boolean = pid === '-' ? previous : pids.has(Number(pid))
    previous = mine
    if (!mine) continue
    rows.push([...fields.slice(0, titles.length - 1), fields.slice(titles.length - 1).join(' ')])
  }
  return { Titles: titles, Processes: rows }
}

/** `docker top`: the host's ps, and of it the rows of this container. */
export async function topOf(pids: readonly number[], psArgs: readonly string[]): Promise<TopResult> {
  const args = psArgs.length > 0 ? psArgs : ['-ef']
  checkArguments(args)
  const said = await run('ps', args, { env: { PATH: '/usr/bin:/bin', LC_ALL: 'C', COLUMNS: '10000' }, timeoutMs: 20_000, maxBuffer: 16 << 20 })
  if (said.code !== 0) throw badRequest(`error running ps: ${said.stderr.trim().split('\n')[0] ?? ''}`)
  return selectRows(said.stdout, new Set(pids))
}
