import { readFileSync } from 'node:fs'
import { parseStatus } from './process.js'

/** Docker's and setrlimit(2)'s names, lower case without RLIMIT_, and how /proc/PID/limits calls them. */
const titles: Record<string, string> = {
  as: 'Max address space', core: 'Max core file size', cpu: 'Max cpu time', data: 'Max data size', fsize: 'Max file size',
  locks: 'Max file locks', memlock: 'Max locked memory', msgqueue: 'Max msgqueue size', nice: 'Max nice priority', nofile: 'Max open files',
  nproc: 'Max processes', rss: 'Max resident set', rtprio: 'Max realtime priority', rttime: 'Max realtime timeout',
  sigpending: 'Max pending signals', stack: 'Max stack size',
}

/** True for the names that `--ulimit` takes ('nofile', 'nproc', …). */
export function isRlimitName(name: string): boolean {
  return Object.hasOwn(titles, name)
}

/** A resource limit; Infinity: unlimited. Units as in setrlimit(2). */
export interface Rlimit {
  soft: number
  hard: number
}

/** Parses /proc/PID/limits. */
export function parseLimits(text: string): Map<string, Rlimit> {
  const limits = new Map<string, Rlimit>()
  const lines = text.split('\n')
  for (const [name, title] of Object.entries(titles)) {
    const line = lines.find((candidate) => candidate.startsWith(title + ' '))
    const [soft, hard] = (line?.slice(title.length).trim() ?? '').split(/\s+/)
    if (!soft || !hard) continue
    const value = (word: string) => (word === 'unlimited' ? Infinity : Number(word))
    limits.set(name, { soft: value(soft), hard: value(hard) })
  }
  return limits
}

/** What this process may give to its children. */
export interface RlimitPowers {
  limits: Map<string, Rlimit>
  /** CAP_SYS_RESOURCE: hard limits may be raised. */
  mayRaise: boolean
  /** fs.nr_open: no nofile limit above it, whatever the capabilities (EPERM). */
  maxFiles: number
}

/** Bit 24 (linux/capability.h). */
const CAP_SYS_RESOURCE = 1n << 24n

/** Reads our own limits; they do not change while we run. */
export function rlimitPowers(): RlimitPowers {
  const status = parseStatus(readFileSync('/proc/self/status', 'utf8'))
  return {
    limits: parseLimits(readFileSync('/proc/self/limits', 'utf8')),
    mayRaise: (status.capabilities.effective & CAP_SYS_RESOURCE) !== 0n,
    maxFiles: Number(readFileSync('/proc/sys/fs/nr_open', 'utf8')),
  }
}

/** A limit as Docker's HostConfig.Ulimits has it: -1 is unlimited. */
export interface Ulimit {
  name: string
  soft: number
  hard: number
}

/**
 * Lowers requested limits to what the kernel will let us set, so that a start does not fail with EPERM where CAP_SYS_RESOURCE is missing.
 * `capped` names those that were changed, for warnings. Names that Linux does not know stay as they are.
 */
export function capUlimits(requested: readonly Ulimit[], powers: RlimitPowers): { ulimits: Ulimit[]; capped: string[] } {
  const capped: string[] = []
  const ulimits = requested.map(({ name, soft, hard }) => {
    let ceiling = powers.mayRaise ? Infinity : (powers.limits.get(name)?.hard ?? Infinity)
    if (name === 'nofile') ceiling = Math.min(ceiling, powers.maxFiles)
    const lower = (value: number) => {
      const least = Math.min(value < 0 ? Infinity : value, ceiling)
      return least === Infinity ? -1 : least
    }
    const result = { name, soft: lower(soft), hard: lower(hard) }
    if (result.soft !== soft || result.hard !== hard) capped.push(name)
    return result
  })
  return { ulimits, capped }
}
