import { badRequest } from '../base/errors.js'
import { propagationOf } from './propagation.js'
import type { OciMount } from './spec-types.js'

/** A mount that the user asked for. */
export interface MountInput {
  type: 'bind' | 'volume' | 'tmpfs'
  source: string
  target: string
  readOnly: boolean
  options: string[]
  /** The source is no directory: nothing can be mounted below it (and crun 1.8 opens the target of `rro` as a directory). */
  file?: boolean
}

const TMPFS_FLAGS = new Set([
  'rw', 'ro', 'exec', 'noexec', 'suid', 'nosuid', 'dev', 'nodev', 'sync', 'async', 'dirsync', 'atime', 'noatime', 'diratime', 'nodiratime',
  'relatime', 'norelatime', 'strictatime', 'nostrictatime', 'mand', 'nomand', 'iversion', 'noiversion',
])
const TMPFS_VALUES = /^(size=\d+[kKmMgG%]?|mode=[0-7]{1,4}|uid=\d+|gid=\d+|nr_inodes=\d+[kKmMgG]?|nr_blocks=\d+[kKmMgG]?|mpol=[\w:,=-]+)$/

/** tmpfs(5) options: Docker's noexec,nosuid,nodev unless the user says exec, suid, dev; of opposites the last counts. */
export function tmpfsOptions(options: readonly string[]): string[] {
  const opposite = (word: string) => (word.startsWith('no') ? word.slice(2) : word === 'ro' ? 'rw' : word === 'rw' ? 'ro' : `no${word}`)
  let result = ['noexec', 'nosuid', 'nodev']
  for (const word of options.flatMap((option) => option.split(',')).filter(Boolean)) {
    if (!TMPFS_FLAGS.has(word) && !TMPFS_VALUES.test(word)) throw badRequest(`Invalid tmpfs option ${JSON.stringify(word)}`)
    const key = word.split('=')[0]!
    result = result.filter((other) => other !== word && other !== opposite(word) && !(word.includes('=') && other.startsWith(`${key}=`)))
    result.push(word)
  }
  return result
}

/**
 * Options of a bind mount. Read-only means all that is mounted below as well, where kernel and runtime can (mount_setattr(2), Linux 5.12: `rro`), as Docker does since
 * 25.0, unless the user says `bind-recursive=writable`; `bind-recursive=readonly` is refused where they cannot.
 */
function bindOptions(mount: MountInput, recursiveReadOnly: boolean): string[] {
  const words = mount.options.flatMap((option) => option.split(','))
  const recursive = !words.includes('nonrecursive')
  const force = words.includes('ro-force-recursive')
  if (force && !mount.readOnly) throw badRequest('mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive')
  if (force && !recursiveReadOnly) throw badRequest(`this host cannot make ${mount.target} recursively read-only: it takes Linux 5.12 and crun or runc 1.1`)
  const readOnly = recursive && recursiveReadOnly && !mount.file && !words.includes('ro-nonrecursive') ? 'rro' : 'ro'
  return [recursive ? 'rbind' : 'bind', propagationOf(words), ...(mount.readOnly ? [readOnly] : [])]
}

function toOci(mount: MountInput, recursiveReadOnly: boolean): OciMount {
  if (mount.type === 'tmpfs') {
    return { destination: mount.target, type: 'tmpfs', source: 'tmpfs', options: [...tmpfsOptions(mount.options), ...(mount.readOnly ? ['ro'] : [])] }
  }
  return { destination: mount.target, type: 'bind', source: mount.source, options: bindOptions(mount, recursiveReadOnly) }
}

const shmMount = (source: string | undefined, size: number): OciMount =>
  source === undefined
    ? { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: ['nosuid', 'noexec', 'nodev', 'mode=1777', `size=${size}`] }
    : { destination: '/dev/shm', type: 'bind', source, options: ['bind', 'rprivate', 'nosuid', 'noexec', 'nodev'] }

/** What every container has, as Docker lays it out (moby oci/defaults.go). */
function defaultMounts(options: { shmSize: number; shm?: string | undefined; writableSystem: boolean }): OciMount[] {
  const ro = options.writableSystem ? [] : ['ro']
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'] },
    { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'] },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', ...ro] },
    { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['nosuid', 'noexec', 'nodev', ...ro] },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
    ...(options.shm === 'none' ? [] : [shmMount(options.shm, options.shmSize)]),
  ]
}

const depth = (path: string) => path.split('/').filter(Boolean).length

/**
 * All mounts of a container in order. `files` (host path by target) are /etc/hosts and its like; a mount of the user on the same target
 * replaces them, and the default mounts. Parents come before children.
 */
export function buildMounts(options: {
  mounts: readonly MountInput[]
  files: Record<string, string>
  filesReadOnly: boolean
  init: string | undefined
  shmSize: number
  /** Host directory that is /dev/shm, or 'none'; undefined: a new one. */
  shm?: string | undefined
  writableSystem: boolean
  /** Volumes are seen through the container's user namespace: on disk their files have the container's own ids, whoever else mounts them. */
  mapVolumes?: boolean
  /** Kernel and runtime know `rro`. */
  recursiveReadOnly: boolean
}): OciMount[] {
  for (const { target } of options.mounts) {
    if (!target.startsWith('/') || depth(target) === 0 || target.split('/').includes('..')) throw badRequest(`invalid mount target ${JSON.stringify(target)}: want an absolute path other than /`)
  }
  const own = options.mounts.map((mount) => {
    const oci = toOci(mount, options.recursiveReadOnly)
    return options.mapVolumes && mount.type === 'volume' ? { ...oci, options: [...(oci.options ?? []), 'idmap'] } : oci
  })
  const targets = new Set(own.map((mount) => `/${mount.destination.split('/').filter(Boolean).join('/')}`))
  // Who replaces /sys or /dev means all of it (moby oci_linux.go withMounts): what we would mount below goes as well, but not /dev's.
  const replaced = (target: string) => targets.has(target) || (targets.has('/sys') && target.startsWith('/sys/'))
  const defaults = defaultMounts(options).filter((mount) => !replaced(mount.destination))
  for (const [target, source] of Object.entries(options.files)) {
    if (!targets.has(target)) own.push({ destination: target, type: 'bind', source, options: ['rbind', 'rprivate', ...(options.filesReadOnly ? ['ro'] : [])] })
  }
  if (options.init !== undefined) own.push({ destination: '/sbin/docker-init', type: 'bind', source: options.init, options: ['bind', 'rprivate', 'ro'] })
  own.sort((a, b) => depth(a.destination) - depth(b.destination)) // stable
  return [...defaults, ...own]
}
