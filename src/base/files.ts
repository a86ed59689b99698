import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { codeOf } from './errors.js'

/**
 * Replaces `path` with `data` so that a crash at any moment leaves the old file or the new one, whole:
 * write to a sibling, fsync, rename, fsync the directory (rename(2), fsync(2)).
 */
export async function writeFileAtomic(path: string, data: string | Uint8Array, mode = 0o600): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`
  try {
    const file = await open(temporary, 'wx', mode)
    try {
      await file.writeFile(data)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  const directory = await open(dirname(path), 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/** What {@link writeFileAtomic} calls its siblings. */
const temporaryName = /\.[0-9a-f]{12}\.tmp$/

/** Removes from a directory what {@link writeFileAtomic} left there when the process was killed in the middle. For the start, when nobody writes yet. No error without the directory. */
export async function sweepTemporaries(directory: string): Promise<void> {
  let names: string[]
  try {
    names = await readdir(directory)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return
    throw error
  }
  await Promise.all(names.filter((name) => temporaryName.test(name)).map((name) => rm(join(directory, name), { force: true })))
}

/** {@link readIfExists}, at once: for small files that are in memory anyway. */
export function readNowIfExists(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

/** `readFile` as UTF-8, or `undefined` when the file does not exist. */
export async function readIfExists(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}
