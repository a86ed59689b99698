import { readdirSync, statfsSync } from 'node:fs'
import { readdir, readFile, rmdir } from 'node:fs/promises'
import { codeOf } from '../base/errors.js'

const ROOT = '/sys/fs/cgroup'
/** CGROUP2_SUPER_MAGIC, linux/magic.h. */
const CGROUP2_MAGIC = 0x63677270

/** v2: one tree. v1: a tree per controller. hybrid: v1, and a v2 tree on /sys/fs/cgroup/unified. */
export type CgroupMode = 'v1' | 'hybrid' | 'v2'

function isCgroup2(path: string): boolean {
  try {
    return statfsSync(path).type === CGROUP2_MAGIC
  } catch {
    return false
  }
}

let mode: CgroupMode | undefined

/** How this host mounts cgroups (cgroups(7)). It does not change while the host runs. */
export function cgroupMode(): CgroupMode {
  mode ??= isCgroup2(ROOT) ? 'v2' : isCgroup2(`${ROOT}/unified`) ? 'hybrid' : 'v1'
  return mode
}

let hierarchies: string[] | undefined

/** The directories that a cgroup path hangs below: the v2 root, or every v1 controller's. */
export function cgroupHierarchies(): string[] {
  hierarchies ??=
    cgroupMode() === 'v2'
      ? [ROOT]
      : readdirSync(ROOT, { withFileTypes: true })
          .filter((entry) => entry.isDirectory() && entry.name !== 'unified') // links are aliases: cpu → cpu,cpuacct
          .map((entry) => `${ROOT}/${entry.name}`)
  return hierarchies
}

/** Directory of a cgroup: for v1 in the tree of `controller`. */
export function cgroupDirectory(cgroupPath: string, controller: string): string {
  return cgroupMode() === 'v2' ? ROOT + cgroupPath : `${ROOT}/${controller}${cgroupPath}`
}

/** How many processes the kernel has killed in this cgroup because its memory was used up; 0 when the cgroup is gone. */
export async function oomKills(cgroupPath: string): Promise<number> {
  const directory = cgroupDirectory(cgroupPath, 'memory')
  const file = cgroupMode() === 'v2' ? 'memory.events' : 'memory.oom_control'
  try {
    const text = await readFile(`${directory}/${file}`, 'utf8')
    return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0)
  } catch {
    return 0
  }
}

async function pidsOf(directory: string): Promise<number[]> {
  try {
    return (await readFile(`${directory}/cgroup.procs`, 'utf8')).split('\n').filter(Boolean).map(Number)
  } catch {
    return []
  }
}

async function removeTree(directory: string, deadline: number): Promise<void> {
  for (;;) {
    try {
      return await rmdir(directory)
    } catch (error) {
      const code = codeOf(error)
      if (code === 'ENOENT') return
      if (code !== 'EBUSY' && code !== 'ENOTEMPTY') throw error
      if (Date.now() > deadline) throw new Error(`cgroup ${directory} still has processes`, { cause: error })
    }
    // Busy: cgroups that the workload made below, or processes that are not in its pid namespace. Both go.
    for (const pid of await pidsOf(directory)) {
      if (pid > 1 && pid !== process.pid) {
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // gone by itself
        }
      }
    }
    const children = await readdir(directory, { withFileTypes: true }).catch(() => [])
    for (const child of children) if (child.isDirectory()) await removeTree(`${directory}/${child.name}`, deadline)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

/**
 * Removes a cgroup with all below it from every hierarchy, killing what still runs in it. No error when it is gone.
 * Rejects when processes do not die within `timeoutMs` (uninterruptible sleep).
 */
export async function removeCgroup(cgroupPath: string, timeoutMs = 5000): Promise<void> {
  if (!/^\/[^/]/.test(cgroupPath) || cgroupPath.split('/').includes('..')) throw new Error(`not a cgroup path of ours: ${cgroupPath}`)
  const deadline = Date.now() + timeoutMs
  await Promise.all(cgroupHierarchies().map((hierarchy) => removeTree(hierarchy + cgroupPath, deadline)))
}
