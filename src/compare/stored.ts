import { mkdir, readFile, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import { codeOf } from '../base/errors.js'
import { writeFileAtomic } from '../base/files.js'
import { parseComparison } from './schema.js'
import type { Comparison } from './types.js'

/** A comparison with all its rows is some hundred kB; bytes. */
export const LARGEST_COMPARISON = 16 << 20

/** Reads and parses a comparison's file; Errors say what is wrong, without the path. */
export async function readComparison(path: string): Promise<Comparison> {
  const found = await stat(path)
  if (!found.isFile()) throw new Error('not a regular file') // a FIFO would hold us
  if (found.size > LARGEST_COMPARISON) throw new Error(`larger than ${LARGEST_COMPARISON} bytes`)
  return parseComparison(await readFile(path, 'utf8'))
}

/** Where `hull compare` leaves its last result for `hull advise`: state of a user, not a cache (XDG Base Directory Specification 0.8). */
export function storedPath(environment: NodeJS.ProcessEnv = process.env): string {
  const base = environment['XDG_STATE_HOME'] ?? ''
  return join(isAbsolute(base) ? base : join(environment['HOME'] || homedir(), '.local', 'state'), 'hull', 'compare.json')
}

/** Keeps a comparison as the last one. Throws when it cannot be written. */
export async function storeComparison(comparison: Comparison, path = storedPath()): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  await writeFileAtomic(path, `${JSON.stringify(comparison)}\n`)
}

/** The last one, undefined when there is none. Throws for a file that is there and cannot be read as one. */
export async function lastComparison(path = storedPath()): Promise<Comparison | undefined> {
  try {
    return await readComparison(path)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}
