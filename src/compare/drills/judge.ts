import type { DrillOutcome } from '../types.js'
import type { DrillDefinition } from './catalog.js'
import type { Usage } from './limits.js'
import type { DrillReport } from './report.js'

/** What the host itself saw. */
export interface Seen {
  /** The host's boot id. */
  boot: string
  /** What it has planted. */
  token: string
  /** Its view of the container's cgroup before any drill, and while this one held what it had taken; null: it cannot be read. */
  before: Usage | null
  during: Usage | null
}

export interface Judgement { outcome: DrillOutcome; detail: string }

const mib = (bytes: number) => `${Math.round(bytes / 2 ** 20)} MiB`
const why = (report: DrillReport) => (report.error === '' ? report.said : `${report.said}: ${report.error}`)

/** What a drill had an effect on, beyond its limit, in the host's own eyes. */
function beyond(name: DrillDefinition['name'], before: Usage, during: Usage): string | undefined {
  if (name === 'cgroup') return during.memoryLimit > before.memoryLimit ? `the host sees a memory limit of ${mib(during.memoryLimit)} where it had set ${mib(before.memoryLimit)}` : undefined
  if (name === 'pids') return during.pids > before.pidsLimit ? `the host sees ${during.pids} processes where it allows ${before.pidsLimit}` : undefined
  return during.memory > before.memoryLimit ? `the host sees ${mib(during.memory)} in use where it allows ${mib(before.memoryLimit)}` : undefined
}

/**
 * Whether a drill reached the host, its own kernel, or nothing. A report is a guest's word, and is believed in two things alone: a token that it was not told, and the host's boot id, which
 * nobody has who does not run on the host's kernel (of what it was told, eight digits, 24 are missing).
 */
export function judge(drill: DrillDefinition, report: DrillReport | undefined, seen: Seen): Judgement {
  const { before, during } = seen
  if (drill.judged === 'limit') {
    if (!before || !during) return { outcome: 'missing', detail: 'the cgroup of the container cannot be read from here' }
    const found = beyond(drill.name, before, during)
    if (found !== undefined) return { outcome: 'host', detail: found }
  }
  if (!report) return { outcome: 'refused', detail: 'it ended before it could say anything' }
  if (drill.judged === 'token' && report.tokens.includes(seen.token)) return { outcome: 'host', detail: `it brought back ${seen.token}, which the host had put there` }
  const ours = report.boot === seen.boot
  if (!report.done) return report.error === 'ENOSYS' ? { outcome: 'missing', detail: `${report.said}: this kernel cannot do it for anybody` } : { outcome: 'refused', detail: why(report) }
  if (!ours) return { outcome: 'guest', detail: `${why(report)}: it did, to its own kernel; the host saw nothing` }
  if (drill.judged === 'kernel') return { outcome: 'host', detail: `${why(report)}: the host's kernel obeyed` }
  return { outcome: 'refused', detail: `${why(report)}: it did, but the host saw nothing of it` }
}

/** The end of a machine that was to crash its kernel. */
export interface MachineEnd {
  running: boolean
  exitCode: number
  /** The other machine still answered afterwards. */
  others: boolean
}

export function judgePanic(report: DrillReport | undefined, end: MachineEnd): Judgement {
  if (!end.others) return { outcome: 'host', detail: 'another machine was gone afterwards' }
  if (!end.running && end.exitCode !== 0) return { outcome: 'guest', detail: `its machine ended with exit code ${end.exitCode}; host and other machines went on` }
  return { outcome: 'refused', detail: report ? why(report) : 'its machine runs on' }
}
