import { readdir, rmdir } from 'node:fs/promises'
import { codeOf } from '../base/errors.js'
import { detectCgroups, type CgroupMounts } from '../host/cgroup-layout.js'
import { wasOomKilled } from '../host/cgroup-stats.js'
import { Cgroup } from '../host/cgroup.js'

let mounts: Promise<CgroupMounts> | undefined

/** How this host mounts cgroups, read once: it does not change while we run. */
export function hostCgroups(): Promise<CgroupMounts> {
  mounts ??= detectCgroups().catch((error: unknown) => {
    mounts = undefined
    throw error
  })
  return mounts
}

/** A container's cgroup by its OCI cgroupsPath. */
export async function cgroupOf(path: string): Promise<Cgroup> {
  return new Cgroup(await hostCgroups(), path)
}

/** True when the kernel has killed a process of this cgroup because its memory was used up. */
export async function oomKilled(path: string): Promise<boolean> {
  return wasOomKilled(await cgroupOf(path))
}

/** A container's cgroup, that of the machine for its files, and those of their file servers. */
const OURS = /^[0-9a-f]{58}([0-9a-f]{6}|-files)(-mounts)?$/

/** Removes what a daemon's containers left below a parent, killing what still runs in it; and the parent, unless there is something of somebody else's in it (`--cgroup-parent /system.slice`). */
export async function removeContainersIn(parent: string): Promise<void> {
  const directories = (await cgroupOf(parent)).directories()
  const names = new Set<string>()
  for (const directory of directories) for (const name of await readdir(directory).catch(() => [])) if (OURS.test(name)) names.add(name)
  for (const name of names) await removeCgroup(`${parent}/${name}`)
  for (const directory of directories) {
    await rmdir(directory).catch((error: unknown) => {
      if (!['EBUSY', 'ENOTEMPTY', 'ENOENT'].includes(codeOf(error) ?? '')) throw error
    })
  }
}

/** Removes a cgroup with all below it from every hierarchy, killing what still runs in it. No error when it is gone. */
export async function removeCgroup(path: string): Promise<void> {
  const cgroup = await cgroupOf(path)
  try {
    await cgroup.remove(0)
  } catch (error) {
    if (codeOf(error) !== 'EBUSY') throw error
    await cgroup.kill() // what was not in the pid namespace, or has not ended wholly yet
    await cgroup.remove()
  }
}
