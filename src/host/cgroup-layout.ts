import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readIfExists } from '../base/files.js'
import { parseMountinfo, type MountEntry } from './mountinfo.js'

/** 'v2': one tree. 'v1': a tree for each controller. 'hybrid': v1 controllers, and a v2 tree beside them that has none (systemd's hybrid). */
export type CgroupLayout = 'v1' | 'v2' | 'hybrid'

/** Where this host's cgroups are. */
export interface CgroupMounts {
  layout: CgroupLayout
  /** Mount point of each v1 hierarchy by controller ('memory', 'cpu', …; 'name=systemd' too). Empty on v2. */
  controllers: Record<string, string>
  /** Mount point of the v2 tree; absent on v1. */
  unified?: string
  /** Controllers of the v2 tree's root. */
  unifiedControllers: string[]
}

/** v1 controllers (cgroups(7)); other words in a v1 mount's options are flags. */
const v1Controllers = new Set([
  'cpu', 'cpuacct', 'cpuset', 'memory', 'devices', 'freezer', 'blkio', 'pids', 'net_cls', 'net_prio', 'perf_event', 'hugetlb', 'rdma', 'misc',
])

/** Reads the layout out of a mount table. `root` stands before the mount points: '' on a host, a directory in tests. */
export async function cgroupMounts(mounts: readonly MountEntry[], root = ''): Promise<CgroupMounts> {
  const controllers: Record<string, string> = {}
  let unified: string | undefined
  for (const mount of mounts) {
    // A mount of a part of a hierarchy (in a container) has another root; paths are then relative to that, as ours are.
    if (mount.fstype === 'cgroup2') unified ??= join(root, mount.target)
    if (mount.fstype !== 'cgroup') continue
    for (const word of mount.superOptions) {
      if (v1Controllers.has(word) || word.startsWith('name=')) controllers[word] ??= join(root, mount.target)
    }
  }
  const hasV1 = Object.keys(controllers).some((name) => !name.startsWith('name='))
  const list = unified ? ((await readIfExists(join(unified, 'cgroup.controllers'))) ?? '') : ''
  const unifiedControllers = list.split(/\s+/).filter(Boolean)
  if (!unified && !hasV1) throw new Error('no cgroup file system is mounted (expected one below /sys/fs/cgroup)')
  return {
    layout: !hasV1 ? 'v2' : unified ? 'hybrid' : 'v1',
    controllers: hasV1 ? controllers : {},
    ...(unified ? { unified } : {}),
    unifiedControllers,
  }
}

/** The layout of this host. */
export async function detectCgroups(): Promise<CgroupMounts> {
  return cgroupMounts(parseMountinfo(await readFile('/proc/self/mountinfo', 'utf8')))
}

/** Parses /proc/PID/cgroup: path by controller; '' is the v2 tree's. */
export function parseProcCgroup(text: string): Map<string, string> {
  const paths = new Map<string, string>()
  for (const line of text.split('\n')) {
    const match = /^\d+:([^:]*):(\/.*)$/.exec(line)
    if (match) for (const controller of match[1]!.split(',')) paths.set(controller, match[2]!)
  }
  return paths
}
