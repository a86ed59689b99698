import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

/**
 * Bytes of everything but directories below `path`, a file with several names counted once, other file systems left out (moby
 * directory.Size). find(1) walks by descriptors: whoever can write to the tree cannot lead it out by a link. Files that vanish
 * meanwhile do not count. `signal` ends it.
 */
export async function treeSize(path: string, signal?: AbortSignal): Promise<number> {
  const child = spawn('find', [path, '-xdev', '-not', '-type', 'd', '(', '-links', '1', '-printf', '%s\\n', ')', '-o', '(', '-not', '-type', 'd', '-printf', '%s %i\\n', ')'], {
    stdio: ['ignore', 'pipe', 'ignore'], env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' }, ...(signal ? { signal } : {}),
  })
  const failed = new Promise<never>((_resolve, reject) => child.once('error', reject))
  failed.catch(() => {})
  const seen = new Set<string>()
  let size = 0
  const count = async () => {
    for await (const line of createInterface({ input: child.stdout })) {
      const [bytes = '0', inode] = line.split(' ')
      if (inode !== undefined) {
        if (seen.has(inode)) continue
        seen.add(inode)
      }
      size += Number(bytes)
    }
  }
  await Promise.race([count(), failed])
  return size
}
