import { close, closeSync, constants, fstatSync, openSync, read, type Stats } from 'node:fs'
import { promisify } from 'node:util'
import { codeOf } from '../base/errors.js'
import { native } from './native.js'

const readAsync = promisify(read)
const closeAsync = promisify(close)

/** Refers to a file without opening it: no driver is asked, nothing blocks (open(2)). Not in fs.constants. */
export const O_PATH = 0o10000000

/** An error in the form of Node's own system errors. */
export function systemError(code: string, syscall: string, reason: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${syscall}: ${code}: ${reason}, '${path}'`), { code, syscall, path })
}

/**
 * Opens `path` below `root`, a tree that somebody else controls: links in it resolve as after chroot(root), `..` stops at the root,
 * links of /proc are refused (ELOOP). Returns a descriptor that the caller closes. Beware: without O_PATH the opened file may be a
 * device or FIFO that blocks or acts; {@link readFileInRoot} cares for that.
 */
export function openInRoot(root: string, path: string, flags: number = constants.O_RDONLY, mode = 0): number {
  return native.openInRoot(root, path, flags, mode)
}

/** What `path` below `root` is, links followed inside of it; undefined if it is not there. */
export function statInRoot(root: string, path: string): Stats | undefined {
  let fd: number
  try {
    fd = openInRoot(root, path, O_PATH)
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw error
  }
  try {
    return fstatSync(fd)
  } finally {
    closeSync(fd)
  }
}

/**
 * Opens a regular file below `root` for reading. What is not one is refused before it is opened (EISDIR, EINVAL): opening a device node
 * out of a hostile image would reach the host's driver, and a FIFO would block.
 */
export function openFileInRoot(root: string, path: string): number {
  const handle = openInRoot(root, path, O_PATH)
  try {
    const stat = fstatSync(handle)
    if (stat.isDirectory()) throw systemError('EISDIR', 'open', 'illegal operation on a directory', path)
    if (!stat.isFile()) throw systemError('EINVAL', 'open', 'not a regular file', path)
    // The very same file: this link names the inode, not the path.
    return openSync(`/proc/self/fd/${handle}`, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY)
  } finally {
    closeSync(handle)
  }
}

/** Reads a regular file below `root`. EFBIG when it is longer than `maxBytes`; the other errors as {@link openFileInRoot}. */
export async function readFileInRoot(root: string, path: string, maxBytes: number): Promise<Buffer> {
  const fd = openFileInRoot(root, path)
  try {
    const chunks: Buffer[] = []
    let total = 0
    // Not by the size that stat tells: the file may grow, and some file systems say 0.
    for (;;) {
      const chunk = Buffer.allocUnsafe(Math.min(65_536, maxBytes + 1 - total))
      const { bytesRead } = await readAsync(fd, chunk, 0, chunk.length, null)
      if (bytesRead === 0) return Buffer.concat(chunks, total)
      total += bytesRead
      if (total > maxBytes) throw systemError('EFBIG', 'read', `file longer than ${maxBytes} bytes`, path)
      chunks.push(chunk.subarray(0, bytesRead))
    }
  } finally {
    await closeAsync(fd)
  }
}
