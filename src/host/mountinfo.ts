import { readFile } from 'node:fs/promises'

/** One line of /proc/PID/mountinfo (proc(5)). */
export interface MountEntry {
  id: number
  parentId: number
  /** 'major:minor' */
  device: string
  /** The directory of the file system that is the root of this mount. */
  root: string
  /** Absolute, relative to the process's root. */
  target: string
  /** Per-mount options: 'rw', 'nosuid', … */
  options: string[]
  fstype: string
  source: string
  /** Per-superblock options. */
  superOptions: string[]
  /** 'shared:7', 'master:3', …: empty for a private mount. */
  propagation: string[]
}

/** mountinfo writes space, tab, newline, backslash (and '#' in sources) as \ooo. */
function unescape(text: string): string {
  if (!text.includes('\\')) return text
  // By bytes: what follows may be part of a UTF-8 sequence.
  return Buffer.from(
    Buffer.from(text, 'utf8').toString('latin1').replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8))),
    'latin1',
  ).toString('utf8')
}

/** Parses the text of a mountinfo file. Lines that are not in its form are left out. */
export function parseMountinfo(text: string): MountEntry[] {
  const entries: MountEntry[] = []
  for (const line of text.split('\n')) {
    const fields = line.split(' ')
    const dash = fields.indexOf('-', 6)
    const [id, parentId, device, root, target, options] = fields
    const fstype = fields[dash + 1]
    const source = fields[dash + 2]
    if (dash < 0 || !id || !parentId || !device || root === undefined || target === undefined || !options || !fstype || source === undefined) continue
    entries.push({
      id: Number(id),
      parentId: Number(parentId),
      device,
      root: unescape(root),
      target: unescape(target),
      options: options.split(','),
      fstype,
      source: unescape(source),
      superOptions: (fields[dash + 3] ?? '').split(',').map(unescape),
      propagation: fields.slice(6, dash),
    })
  }
  return entries
}

/** True for `path` itself and for what is below it. Both absolute and without a slash at the end. */
export function isAtOrBelow(path: string, prefix: string): boolean {
  return prefix === '/' || path === prefix || (path.startsWith(prefix) && path[prefix.length] === '/')
}

/** The mounts of this process at `prefix` and below, in the order in which they were made; all without `prefix`. O(mounts of the host). */
export async function listMounts(prefix = '/'): Promise<MountEntry[]> {
  const entries = parseMountinfo(await readFile('/proc/self/mountinfo', 'utf8'))
  return entries.filter((entry) => isAtOrBelow(entry.target, prefix))
}
