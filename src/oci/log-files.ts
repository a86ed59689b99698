import { readdir } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { codeOf } from '../base/errors.js'

/** How large a container's log may become: hull-monitor keeps to it (native/monitor/log.c). */
export interface LogLimits {
  /** bytes of one file, and at most one record more */
  maxSize: number
  /** files, the one that is written to included; at least 1 */
  maxFiles: number
}

/** Numbers N of the files PATH.N that are there, ascending: the higher, the older. */
export async function rotatedNumbers(path: string): Promise<number[]> {
  const prefix = `${basename(path)}.`
  const names = await readdir(dirname(path)).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return []
    throw error
  })
  return names
    .filter((name) => name.startsWith(prefix) && /^[1-9]\d{0,5}$/.test(name.slice(prefix.length)))
    .map((name) => Number(name.slice(prefix.length)))
    .sort((a, b) => a - b)
}
