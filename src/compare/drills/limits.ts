import { readFile } from 'node:fs/promises'

/** A cgroup's limits and use; bytes and numbers. Infinity: no limit. */
export interface Usage { memoryLimit: number; memory: number; pidsLimit: number; pids: number }

async function value(path: string): Promise<number> {
  const text = (await readFile(path, 'utf8')).trim()
  return text === 'max' ? Infinity : Number(text)
}

/** The cgroup of a process as the host sees it (cgroups(7)); null where it may not be read, or is of another host. */
export async function usageOf(pid: number): Promise<Usage | null> {
  try {
    const lines = (await readFile(`/proc/${pid}/cgroup`, 'utf8')).trim().split('\n').map((line) => /^\d+:([^:]*):(.*)$/.exec(line))
    const pathOf = (controller: string) => {
      const v1 = lines.find((line) => line?.[1]?.split(',').includes(controller))
      const path = v1 ?? lines.find((line) => line?.[1] === '')
      if (!path) throw new Error(`no cgroup of ${controller}`)
      return { unified: !v1, directory: `/sys/fs/cgroup${v1 ? `/${controller}` : ''}${path[2]}` }
    }
    const memory = pathOf('memory')
    const pids = pathOf('pids')
    const [memoryLimit, used, pidsLimit, count] = await Promise.all([
      value(`${memory.directory}/${memory.unified ? 'memory.max' : 'memory.limit_in_bytes'}`), value(`${memory.directory}/${memory.unified ? 'memory.current' : 'memory.usage_in_bytes'}`),
      value(`${pids.directory}/pids.max`), value(`${pids.directory}/pids.current`),
    ])
    return { memoryLimit, memory: used, pidsLimit, pids: count }
  } catch {
    return null
  }
}
