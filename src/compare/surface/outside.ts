import { execFile } from 'node:child_process'
import { readFile, readlink } from 'node:fs/promises'
import { promisify } from 'node:util'
import { z } from 'zod'
import { familyOf, processes } from '../host.js'
import { program } from './inside.js'

/** namespaces(7) */
const NAMESPACES = ['pid', 'mnt', 'net', 'uts', 'ipc', 'user', 'cgroup', 'time'] as const
const MODES = ['off', 'strict', 'filter'] as const

export interface SeenOutside {
  /** Of the host. */
  pid: number
  uid: number | null
  sharedNamespaces: string[]
  seccomp: (typeof MODES)[number] | null
}

const field = (status: string, name: string): number | null => {
  const match = new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)
  return match ? Number(match[1]) : null
}

/** What stands between a workload and the host's kernel: nothing, QEMU, or gVisor's sentry. */
export type Between = 'nothing' | 'vmm' | 'sentry'

/** What is to be attacked from within: a container's first process, a VM's QEMU, gVisor's sentry. Undefined: the host's processes cannot be seen from here. */
async function pidOf(id: string, between: Between, place: string): Promise<number | undefined> {
  const begins = { nothing: `/${place}/`, sentry: 'runsc-sandbox' }
  return familyOf(id, await processes()).find(({ name, commandLine }) => (between === 'vmm' ? name.startsWith('qemu') : commandLine.startsWith(begins[between])))?.pid
}

/** A workload as the host sees it; `place`: what its program's path begins with. */
export async function lookOutside(id: string, between: Between, place: string): Promise<SeenOutside | undefined> {
  const pid = await pidOf(id, between, place)
  if (pid === undefined) return undefined
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  const shared = await Promise.all(NAMESPACES.map(async (kind) => {
    const [ours, theirs] = await Promise.all(['self', pid].map((who) => readlink(`/proc/${who}/ns/${kind}`).catch(() => '')))
    return ours !== '' && ours === theirs
  }))
  return { pid, uid: field(status, 'Uid'), sharedNamespaces: NAMESPACES.filter((_, index) => shared[index]), seccomp: MODES[field(status, 'Seccomp') ?? -1] ?? null }
}

const told = z.strictObject({ calls: z.int().min(-1).max(1000), why: z.string() })

/** System calls that a process of the host may make, by all its filters: with some arguments at least. A number, or why it cannot be told. */
export async function callsByFilter(pid: number): Promise<number | string> {
  try {
    const { stdout } = await promisify(execFile)(program, ['filter', String(pid)], { timeout: 10_000 })
    const { calls, why } = told.parse(JSON.parse(stdout))
    return calls < 0 ? why : calls
  } catch {
    return 'the program that reads filters failed'
  }
}
