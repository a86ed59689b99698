import { runOk } from '../base/run.js'
import { native } from './native.js'

/**
 * Removes a directory tree that a stranger wrote, or nothing when there is none. Nothing else may be using it. Links are not followed, mounts not entered. A tree that is
 * deeper than fts(3) counts is left to rm(1), which walks by descriptors.
 */
export async function removeTree(path: string): Promise<void> {
  try {
    await native.removeTree(path)
  } catch {
    await runOk('rm', ['-rf', '--one-file-system', '--', path], { env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } })
  }
}
