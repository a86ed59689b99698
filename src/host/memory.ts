import { accessSync, closeSync, constants, statSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import { messageOf } from '../base/errors.js'
import { log } from '../base/log.js'
import { native } from './native.js'

/** A descriptor of memory with the file's contents that nobody, whatever his rights, can change any more. The caller closes it. */
export const sealedCopy = (path: string): Promise<number> => native.sealedCopy(path, false)

/** A descriptor of memory of the same contents that is whoever's has it: it can be written and shared. `from` may be closed meanwhile. The caller closes it. */
export const ownCopy = (from: number): Promise<number> => native.ownCopy(from)

const programs = new Map<string, { mtimeMs: number; ino: number; path: Promise<string> }>()

/**
 * A path of a program's {@link sealedCopy}, good for as long as this process lives, one for each state of the file. runc and crun take such a copy of themselves at each start, so that no container
 * can write to the host's (CVE-2019-5736): a program that is one already need not. Where there can be none (vm.memfd_noexec) it is the program's own path.
 */
export async function sealedProgram(path: string): Promise<string> {
  const { mtimeMs, ino } = statSync(path)
  const known = programs.get(path)
  if (known?.mtimeMs === mtimeMs && known.ino === ino) return known.path
  const copied = copyProgram(path)
  programs.set(path, { mtimeMs, ino, path: copied })
  return copied
}

async function copyProgram(path: string): Promise<string> {
  try {
    const fd = await native.sealedCopy(await realpath(path), true)
    const copy = `/proc/${process.pid}/fd/${fd}`
    try {
      accessSync(copy, constants.X_OK)
      return copy
    } catch (error) {
      closeSync(fd)
      throw error
    }
  } catch (error) {
    log.debug('a program is run from its own file, not from a sealed copy', { path, error: messageOf(error) })
    return path
  }
}
