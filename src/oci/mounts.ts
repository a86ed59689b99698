import { badRequest } from '../base/errors.js'
import type { OciMount } from './spec-types.js'

/** A mount that the user asked for. */
export interface MountInput {
  type: 'bind' | 'volume' | 'tmpfs'
  source: string
  target: string
  readOnly: boolean
  options: string[]
}

const PROPAGATION = new Set(['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave'])
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

function bindOptions(mount: MountInput): string[] {
  const words = mount.options.flatMap((option) => option.split(','))
  const recursive = !words.includes('bind-nonrecursive')
  const propagation = words.find((word) => PROPAGATION.has(word)) ?? 'rprivate'
  return [recursive ? 'rbind' : 'bind', propagation, ...(mount.readOnly ? ['ro'] : [])]
}

function toOci(mount: MountInput): OciMount {
  if (mount.type === 'tmpfs') {
    return { destination: mount.target, type: 'tmpfs', source: 'tmpfs', options: [...tmpfsOptions(mount.options), ...(mount.readOnly ? ['ro'] : [])] }
  }
  return { destination: mount.target, type: 'bind', source: mount.source, options: bindOptions(mount) }
}

/** What every container has, as Docker lays it out (moby oci/defaults.go). */
function defaultMounts(options: { shmSize: number; writableSystem: boolean }): OciMount[] {
  const ro = options.writableSystem ? [] : ['ro']
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'] },
    { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'] },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', ...ro] },
    { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['nosuid', 'noexec', 'nodev', ...ro] },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
    { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: ['nosuid', 'noexec', 'nodev', 'mode=1777', `size=${options.shmSize}`] },
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
  writableSystem: boolean
}): OciMount[] {
  for (const { target } of options.mounts) {
    if (!target.startsWith('/') || depth(target) === 0 || target.split('/').includes('..')) throw badRequest(`invalid mount target ${JSON.stringify(target)}: want an absolute path other than /`)
  }
  const own = options.mounts.map(toOci)
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
