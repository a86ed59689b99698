import { mkdir, readFile, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import { z } from 'zod'
import { codeOf, messageOf } from '../base/errors.js'
import { writeFileAtomic } from '../base/files.js'
import { type Comparison, SCHEMA_VERSION } from './types.js'

/** A comparison with all its rows is some hundred kB; bytes. */
export const LARGEST_COMPARISON = 16 << 20

const section = z.looseObject({})
const envelope = z.object({
  kind: z.literal('hull-comparison'), schemaVersion: z.number().int().min(1).max(SCHEMA_VERSION), startedAt: z.string(),
  accelerator: z.enum(['kvm', 'tcg', '']), host: z.looseObject({ kernel: z.string(), memory: z.number() }), versions: z.looseObject({ guestKernel: z.string() }),
  image: z.looseObject({ reference: z.string() }), isolations: z.array(z.looseObject({ name: z.string() })), warnings: z.array(z.string()), sections: z.record(z.string(), section),
})

/** A comparison's JSON (types.ts); throws an Error in words for what is none. Its envelope is checked, not every figure: the file is the user's own. */
export function parseComparison(text: string): Comparison {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new Error(`not JSON: ${messageOf(error)}`, { cause: error })
  }
  const result = envelope.safeParse(value)
  if (!result.success) {
    const [issue] = result.error.issues
    throw new Error(`not a comparison that this version reads: ${issue?.path.join('.') || 'the file'}: ${issue?.message ?? 'wrong'}`)
  }
  return value as Comparison
}

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
