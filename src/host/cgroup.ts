import { constants, readFileSync } from 'node:fs'
import { mkdir, readFile, readdir, rmdir, writeFile } from 'node:fs/promises'
import { join, normalize } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf } from '../base/errors.js'
import type { CgroupMounts } from './cgroup-layout.js'
import { native } from './native.js'

/** Opens files that are there and makes none: where the kernel has no such file, that is ENOENT and not EACCES. */
const existing = constants.O_WRONLY | constants.O_TRUNC

/** Gone, or going. */
export const isAbsent = (error: unknown) => codeOf(error) === 'ENOENT' || codeOf(error) === 'ENODEV'

/** A thread of the kernel's own (include/linux/sched.h), in the flags of proc(5), stat. */
const PF_KTHREAD = 0x0020_0000

/**
 * The cgroup of one container: on v2 a directory, on v1 one of the same name in each hierarchy. It need not exist.
 * Figures: cgroup-stats.ts. Limits: cgroup-limits.ts.
 */
export class Cgroup {
  /** As in /proc/PID/cgroup: absolute, relative to the hierarchy's mount. */
  readonly path: string

  /** `path`: the OCI runtime-spec's cgroupsPath. The root, and paths with '..' in them, are refused: nothing here may ever act on the host's own. */
  constructor(
    readonly mounts: CgroupMounts,
    path: string,
  ) {
    if (!path.startsWith('/') || path.includes('\0') || path.split('/').includes('..')) throw new TypeError(`not a cgroup path: ${JSON.stringify(path)}`)
    this.path = normalize(path).replace(/\/$/, '')
    if (this.path === '') throw new TypeError('the root cgroup is nobody\'s own')
  }

  /** True when the controllers are those of v2. */
  get isV2(): boolean {
    return this.mounts.layout === 'v2'
  }

  /** The directory that has a controller's files ('memory', 'cpu', 'cpuacct', 'pids', …); undefined when the host lacks it. */
  directory(controller: string): string | undefined {
    const mount = this.isV2 ? this.mounts.unified : this.mounts.controllers[controller]
    return mount === undefined ? undefined : join(mount, this.path)
  }

  /** Every directory of this cgroup, each once. On a hybrid host the v2 tree's is among them. */
  directories(): string[] {
    const mounts = new Set([...Object.values(this.mounts.controllers), ...(this.mounts.unified ? [this.mounts.unified] : [])])
    return [...mounts].map((mount) => join(mount, this.path))
  }

  /** Text of a controller's file; undefined when there is no such file or cgroup (any more). */
  async read(controller: string, file: string): Promise<string | undefined> {
    const directory = this.directory(controller)
    if (directory === undefined) return undefined
    try {
      return await readFile(join(directory, file), 'utf8')
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw error
    }
  }

  /** As {@link read}, at once: for a file whose text the kernel makes without waiting for anything. */
  readNow(controller: string, file: string): string | undefined {
    const directory = this.directory(controller)
    if (directory === undefined) return undefined
    try {
      return readFileSync(join(directory, file), 'utf8')
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw error
    }
  }

  /** Writes a value. EBUSY, EINVAL as the kernel says; ENOENT when the host lacks the controller or the file. */
  async write(controller: string, file: string, value: string | number): Promise<void> {
    const directory = this.directory(controller)
    if (directory === undefined) throw Object.assign(new Error(`cgroup: ENOENT: no such controller, '${controller}'`), { code: 'ENOENT' })
    await writeFile(join(directory, file), String(value), { flag: existing })
  }

  /** Makes the directories. On v2 the controllers must be enabled in the parent by the caller. */
  async create(): Promise<void> {
    await Promise.all(this.directories().map((directory) => mkdir(directory, { recursive: true })))
  }

  async exists(): Promise<boolean> {
    for (const directory of this.directories()) {
      try {
        await readdir(directory)
        return true
      } catch (error) {
        if (!isAbsent(error)) throw error
      }
    }
    return false
  }

  /** Pids in this cgroup and those below it (exec sessions and nested ones), without order. A union over the hierarchies: a process may be in one only. */
  async pids(): Promise<number[]> {
    const found = new Set<number>()
    for (const directory of this.directories()) {
      for (const nested of await tree(directory)) {
        for (const pid of (await readPids(nested)) ?? []) found.add(pid)
      }
    }
    found.delete(0) // a process of another pid namespace
    return [...found]
  }

  /** Stops every process (v2: cgroup.freeze; v1: freezer.state), or lets them go on; resolves when it is done. ENOENT without the controller. */
  async freeze(frozen: boolean, timeoutMs = 10_000): Promise<void> {
    const deadline = performance.now() + timeoutMs
    const [file, wanted] = this.isV2 ? ['cgroup.freeze', frozen ? '1' : '0'] : ['freezer.state', frozen ? 'FROZEN' : 'THAWED']
    for (let pause = 1; ; pause = Math.min(pause * 2, 50)) {
      // v1: again in each round, as the kernel's documentation says for tasks that were just being forked.
      await this.write('freezer', file, wanted)
      const state = this.isV2 ? /^frozen (\d)/m.exec((await this.read('freezer', 'cgroup.events')) ?? '')?.[1] : (await this.read('freezer', file))?.trim()
      if (state === undefined || state === wanted) return
      if (frozen && this.isV2 && (await this.onlyKernelThreadsGoOn())) return
      if (performance.now() > deadline && frozen) await this.write('freezer', file, this.isV2 ? '0' : 'THAWED') // half of it is worse than nothing
      if (performance.now() > deadline) throw Object.assign(new Error(`cgroup ${this.path}: still ${state} after ${timeoutMs} ms`), { code: 'ETIMEDOUT' })
      await sleep(pause)
    }
  }

  /**
   * KVM's kernel thread for huge pages belongs to the cgroup of its machine, and cannot be frozen: the kernel (before 6.14) then never says that the cgroup is. True when there
   * is such a thread, and every thread that is not the kernel's own stands in the freezer.
   */
  private async onlyKernelThreadsGoOn(): Promise<boolean> {
    const threads = ((await this.read('freezer', 'cgroup.threads')) ?? '').split('\n').filter((line) => line !== '')
    let kernels = 0
    for (const thread of threads) {
      const [stat, place] = await Promise.all(['stat', 'wchan'].map((name) => readFile(`/proc/${thread}/${name}`, 'utf8').catch(() => '')))
      const flags = Number(stat!.slice(stat!.lastIndexOf(')') + 2).split(' ')[6]) // field 9 of proc(5)
      if ((flags & PF_KTHREAD) !== 0) kernels++
      else if (!/^(do_freezer_trap|get_signal)$/.test(place!)) return false // the latter where the compiler has put the former into it
    }
    return kernels > 0
  }

  /**
   * Kills every process in it. Resolves with true when none is left, false when some still are after `timeoutMs` (in uninterruptible sleep, or
   * zombies whose parent is elsewhere and does not reap them).
   */
  async kill(timeoutMs = 5000): Promise<boolean> {
    const deadline = performance.now() + timeoutMs
    if (this.isV2) {
      try {
        await this.write('', 'cgroup.kill', '1') // atomic and recursive, Linux 5.14
      } catch (error) {
        if (!isAbsent(error)) throw error
      }
    }
    for (let pause = 1; ; pause = Math.min(pause * 2, 50)) {
      const pids = await this.pids()
      if (pids.length === 0) return true
      if (pids.includes(process.pid)) throw new Error(`cgroup ${this.path}: this very process is in it`)
      for (const pid of pids) native.kill(pid, 9)
      // Frozen processes of v1 die only when they thaw; and one that forks faster than we count is caught by repetition.
      if (!this.isV2) await this.thawAll()
      if (performance.now() > deadline) return false
      await sleep(pause)
    }
  }

  private async thawAll(): Promise<void> {
    const directory = this.directory('freezer')
    if (directory === undefined) return
    for (const nested of await tree(directory)) {
      await writeFile(join(nested, 'freezer.state'), 'THAWED', { flag: existing }).catch((error: unknown) => {
        if (!isAbsent(error)) throw error
      })
    }
  }

  /**
   * Removes the empty cgroup and what is below it, in every hierarchy. EBUSY is tried again for `timeoutMs`: processes count until they have
   * ended wholly. Rejects with EBUSY when some still live. No error when it is gone.
   */
  async remove(timeoutMs = 2000): Promise<void> {
    const deadline = performance.now() + timeoutMs
    await Promise.all(this.directories().map((directory) => removeTree(directory, deadline)))
  }
}

/** A directory and all below it, deepest first; empty when it is gone. */
async function tree(directory: string): Promise<string[]> {
  let entries
  try {
    entries = await readdir(directory, { withFileTypes: true })
  } catch (error) {
    if (isAbsent(error)) return []
    throw error
  }
  const below: string[] = []
  for (const entry of entries) if (entry.isDirectory()) below.push(...(await tree(join(directory, entry.name))))
  return [...below, directory]
}

async function readPids(directory: string): Promise<number[] | undefined> {
  for (const file of ['cgroup.procs', 'cgroup.threads']) {
    try {
      return (await readFile(join(directory, file), 'utf8')).split('\n').filter(Boolean).map(Number)
    } catch (error) {
      if (isAbsent(error)) return undefined
      // A threaded cgroup of v2 says its processes in the domain above only.
      if (codeOf(error) !== 'EOPNOTSUPP') throw error
    }
  }
  return undefined
}

async function removeTree(top: string, deadline: number): Promise<void> {
  try {
    await rmdir(top) // mostly there is nothing below, and nobody in it any more
    return
  } catch (error) {
    if (isAbsent(error)) return
    if (codeOf(error) !== 'EBUSY' && codeOf(error) !== 'ENOTEMPTY') throw error
  }
  for (const directory of await tree(top)) {
    for (let pause = 1; ; pause = Math.min(pause * 2, 50)) {
      try {
        await rmdir(directory)
        break
      } catch (error) {
        if (isAbsent(error)) break
        if (codeOf(error) !== 'EBUSY' || performance.now() > deadline) throw error
        await sleep(pause)
      }
    }
  }
}
