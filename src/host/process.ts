import { readFileSync } from 'node:fs'
import { readFile, readdir, readlink } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf } from '../base/errors.js'
import { native } from './native.js'

/** One process of this boot for good: a pid is used again, but never with the same start time. */
export interface ProcessIdentity {
  pid: number
  /** Clock ticks after boot: field 22 of /proc/PID/stat (proc(5)). Compare it within one boot only. */
  startTime: number
}

/** What /proc/PID/stat says. */
export interface ProcessStat {
  pid: number
  name: string
  /** R, S, D, T, t, Z (ended, not reaped), X */
  state: string
  parent: number
  processGroup: number
  session: number
  /** Clock ticks (USER_HZ: 100 in a second, on every architecture that Node runs on). */
  userTicks: number
  systemTicks: number
  startTime: number
}

/** Parses a /proc/PID/stat line. The name stands in parentheses and may itself hold spaces and parentheses. */
export function parseStat(text: string): ProcessStat | undefined {
  const open = text.indexOf('(')
  const close = text.lastIndexOf(')')
  const rest = text.slice(close + 2).split(' ')
  if (open < 0 || close < open || rest.length < 20) return undefined
  const field = (number: number) => Number(rest[number - 3]) // numbered as in proc(5)
  const stat: ProcessStat = {
    pid: Number(text.slice(0, open)), name: text.slice(open + 1, close), state: rest[0]!,
    parent: field(4), processGroup: field(5), session: field(6), userTicks: field(14), systemTicks: field(15), startTime: field(22),
  }
  return Number.isInteger(stat.pid) && Number.isInteger(stat.startTime) ? stat : undefined
}

/** Gone, or going: /proc files of a process that ends give ESRCH. */
const isGone = (error: unknown) => codeOf(error) === 'ENOENT' || codeOf(error) === 'ESRCH'

/** At once: the kernel makes such a file's text when it is read, and the way through a thread takes ten times as long. */
function readProc(pid: number, file: 'stat' | 'status' | `task/${string}/children`): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch (error) {
    if (isGone(error)) return undefined
    throw error
  }
}

/** undefined: there is no such process. */
export async function processStat(pid: number): Promise<ProcessStat | undefined> {
  const text = readProc(pid, 'stat')
  return text === undefined ? undefined : parseStat(text)
}

/** The identity of the process that has `pid` now; undefined if there is none, or it has ended and waits to be reaped. */
export async function identify(pid: number): Promise<ProcessIdentity | undefined> {
  const stat = await processStat(pid)
  if (!stat || stat.state === 'Z' || stat.state === 'X') return undefined
  return { pid, startTime: stat.startTime }
}

/** True while this very process lives. A zombie does not. */
export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  return (await identify(identity.pid))?.startTime === identity.startTime
}

/** Sends a signal to this very process (by pidfd: no race). False: it is gone. EPERM for another user's. */
export function signalProcess(identity: ProcessIdentity, signal: number): boolean {
  return native.killIf(identity.pid, identity.startTime, signal)
}

/** kill(2) of a pid that the caller knows to be right (its own child, not yet reaped). False: there is none. */
export function killPid(pid: number, signal: number): boolean {
  return native.kill(pid, signal)
}

/**
 * Kills the process group that this very process is in: itself, and what it has started and not put elsewhere. Not the group of this daemon. A
 * process can only be in a group of its own session, so whatever a container does, these are its own. False: it is gone.
 */
export async function killGroupOf(identity: ProcessIdentity): Promise<boolean> {
  const [stat, own] = await Promise.all([processStat(identity.pid), processStat(process.pid)])
  if (stat?.startTime !== identity.startTime) return false
  if (stat.processGroup <= 1 || stat.session === own?.session) return signalProcess(identity, 9)
  try {
    return process.kill(-stat.processGroup, 'SIGKILL')
  } catch (error) {
    if (codeOf(error) === 'ESRCH') return false
    throw error
  }
}

/** Waits until the process has ended; false when it still lives after `timeoutMs`. For processes that are not our children. */
export async function waitGone(identity: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs
  for (let pause = 1; ; pause = Math.min(pause * 2, 50)) {
    if (!(await isAlive(identity))) return true
    if (performance.now() >= deadline) return false
    await sleep(pause)
  }
}

/** Pids of the direct children (CONFIG_PROC_CHILDREN, in all distributions' kernels). Empty when the process is gone. */
export async function childrenOf(pid: number): Promise<number[]> {
  let threads: string[]
  try {
    threads = await readdir(`/proc/${pid}/task`)
  } catch (error) {
    if (isGone(error)) return []
    throw error
  }
  const lists = threads.map((thread) => readProc(pid, `task/${thread}/children`))
  return lists.flatMap((list) => (list ?? '').split(' ').filter(Boolean).map(Number))
}

/** Fields of /proc/PID/status (proc(5)). */
export interface ProcessStatus {
  name: string
  state: string
  parent: number
  /** real, effective, saved, file system */
  uids: number[]
  gids: number[]
  groups: number[]
  /** Pids in each pid namespace, outermost first. */
  namespacePids: number[]
  threads: number
  /** bytes; 0 for kernel threads and zombies */
  residentBytes: number
  /** Capability sets, 64 bits. */
  capabilities: { inheritable: bigint; permitted: bigint; effective: bigint; bounding: bigint; ambient: bigint }
  noNewPrivileges: boolean
  /** 0 off, 1 strict, 2 filter */
  seccomp: number
  /** Every field as it stands there. */
  fields: Record<string, string>
}

/** Parses /proc/PID/status. */
export function parseStatus(text: string): ProcessStatus {
  const fields: Record<string, string> = Object.create(null) as Record<string, string>
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':')
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trim()
  }
  const numbers = (name: string) => (fields[name] ?? '').split(/\s+/).filter(Boolean).map(Number)
  const set = (name: string) => BigInt(`0x${/^[0-9a-f]+$/.exec(fields[name] ?? '')?.[0] ?? '0'}`)
  return {
    name: fields['Name'] ?? '', state: (fields['State'] ?? '')[0] ?? '', parent: numbers('PPid')[0] ?? 0,
    uids: numbers('Uid'), gids: numbers('Gid'), groups: numbers('Groups'), namespacePids: numbers('NSpid'), threads: numbers('Threads')[0] ?? 0,
    residentBytes: (numbers('VmRSS')[0] ?? 0) * 1024,
    capabilities: {
      inheritable: set('CapInh'), permitted: set('CapPrm'), effective: set('CapEff'), bounding: set('CapBnd'), ambient: set('CapAmb'),
    },
    noNewPrivileges: fields['NoNewPrivs'] === '1', seccomp: numbers('Seccomp')[0] ?? 0, fields,
  }
}

/** undefined: there is no such process. */
export async function processStatus(pid: number): Promise<ProcessStatus | undefined> {
  const text = readProc(pid, 'status')
  return text === undefined ? undefined : parseStatus(text)
}

/** argv; empty for kernel threads and zombies; undefined: there is no such process. The process itself chose these bytes. */
export async function commandLine(pid: number): Promise<string[] | undefined> {
  // Not at once: it waits for the process's memory map, which a process may hold for long.
  const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch((error: unknown) => {
    if (isGone(error)) return undefined
    throw error
  })
  if (text === undefined) return undefined
  return text === '' ? [] : text.replace(/\0$/, '').split('\0')
}

/** The kinds of namespaces(7). */
export const namespaceKinds = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts'] as const
export type NamespaceKind = (typeof namespaceKinds)[number]

/** Ids (inode numbers) of a process's namespaces; two processes share one if the ids are equal. Kinds that the kernel lacks are absent. */
export async function namespacesOf(pid: number | 'self'): Promise<Partial<Record<NamespaceKind, number>>> {
  const ids: Partial<Record<NamespaceKind, number>> = {}
  await Promise.all(
    namespaceKinds.map(async (kind) => {
      try {
        const id = /\[(\d+)\]$/.exec(await readlink(`/proc/${pid}/ns/${kind}`))?.[1]
        if (id) ids[kind] = Number(id)
      } catch (error) {
        if (!isGone(error)) throw error
      }
    }),
  )
  return ids
}
