import type { RuntimeKind } from './runtime.js'

/** What we think of a runtime's version. */
export interface Verdict {
  /** Why it must not be used at all. */
  refuse?: string
  /** What the user should know and may accept. */
  warn?: string
}

interface Floor {
  /** First upstream release without the flaw. */
  version: string
  /** What is wrong below it. */
  reason: string
  /** First Debian version with the fix backported, as `--version` shows it in its commit line. */
  debian?: string
  severity: 'refuse' | 'warn'
}

/** The oldest releases that hold the wall, with the flaw that sets each floor. Newest last. */
export const RUNTIME_FLOORS: Record<RuntimeKind, readonly Floor[]> = {
  crun: [
    { version: '1.4.4', severity: 'refuse', reason: 'CVE-2022-27650 (exec leaves inheritable capabilities behind)' },
  ],
  runc: [
    { version: '1.1.12', debian: '1.1.5+ds1-1+deb12u1', severity: 'refuse', reason: 'CVE-2024-21626 (leaked descriptor lets the working directory reach the host)' },
    { version: '1.2.8', severity: 'warn', reason: 'CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 (masked path and console races)' },
  ],
  runsc: [],
  other: [],
}

/** 1.8.1 → [1, 8, 1]; what follows the numbers is left out. */
function numbers(version: string): number[] {
  return (/^\d+(?:\.\d+)*/.exec(version)?.[0] ?? '').split('.').filter(Boolean).map(Number)
}

/** Compares dotted versions by number. */
export function atLeast(version: string, floor: string): boolean {
  const [have, want] = [numbers(version), numbers(floor)]
  for (let i = 0; i < want.length; i++) {
    const difference = (have[i] ?? 0) - want[i]!
    if (difference !== 0) return difference > 0
  }
  return true
}

/** True when `output` shows the Debian version `fixed` or a later security update (+deb12uN) of the same upload. */
function debianFix(output: string, fixed: string): boolean {
  const [base, update] = fixed.split('+deb') as [string, string]
  const release = /^(\d+)u(\d+)$/.exec(update)
  if (!release) return false
  for (const match of output.matchAll(/(\S+)\+deb(\d+)u(\d+)/g)) {
    if (match[1] === base && match[2] === release[1] && Number(match[3]) >= Number(release[2])) return true
  }
  return false
}

/** Holds a version against {@link RUNTIME_FLOORS}. `output` is all that `--version` printed. */
export function judge(kind: RuntimeKind, version: string, output: string): Verdict {
  const verdict: Verdict = {}
  for (const floor of RUNTIME_FLOORS[kind]) {
    if (version === '') continue
    if (atLeast(version, floor.version) || (floor.debian && debianFix(output, floor.debian))) continue
    const why = `${kind} ${version} is older than ${floor.version}: ${floor.reason}`
    if (floor.severity === 'refuse') verdict.refuse ??= why
    else verdict.warn ??= why
  }
  return verdict
}
