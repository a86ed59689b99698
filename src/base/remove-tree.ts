import { rm } from 'node:fs/promises'
import { runOk } from './run.js'

/**
 * Removes a directory tree that a stranger wrote. Nothing else may be using it. Links are not followed. A tree that is
 * deeper than a path name can be (PATH_MAX) is left to rm(1), which walks by descriptors.
 */
export async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true })
  } catch {
    await runOk('rm', ['-rf', '--one-file-system', '--', path], { env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } })
  }
}
