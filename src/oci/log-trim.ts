import { renameSync } from 'node:fs'
import { open, rm, stat, writeFile } from 'node:fs/promises'
import { codeOf } from '../base/errors.js'

/** Readers of each log in this process, by path. A file that one of them may be in the middle of is not replaced. */
const readers = new Map<string, number>()

/** A reader begins; call the result when it has ended. */
export function readerOf(path: string): () => void {
  readers.set(path, (readers.get(path) ?? 0) + 1)
  return () => {
    const left = readers.get(path)! - 1
    if (left > 0) readers.set(path, left)
    else readers.delete(path)
  }
}

/**
 * Cuts a file of the log `path` that nobody writes to down to its last whole lines of at most `bytes`; by a rename, so that it is whole whatever happens. False: somebody reads
 * the log, and nothing was done.
 */
export async function trim(path: string, file: string, bytes: number): Promise<boolean> {
  const size = await stat(file).then((found) => found.size, (error: unknown) => {
    if (codeOf(error) === 'ENOENT') return 0
    throw error
  })
  if (size <= bytes) return true
  const handle = await open(file, 'r')
  let tail: Buffer
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(bytes), 0, bytes, size - bytes)
    tail = buffer.subarray(0, bytesRead)
  } finally {
    await handle.close()
  }
  // The first line is cut, or may be.
  tail = tail.subarray(tail.indexOf(10) + 1)
  const temporary = `${file}.trimmed`
  await writeFile(temporary, tail, { mode: 0o600 })
  if (readers.has(path)) {
    await rm(temporary, { force: true })
    return false
  }
  renameSync(temporary, file) // at once: no reader may begin in between
  return true
}
