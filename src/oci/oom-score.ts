import { readFileSync } from 'node:fs'
import { rlimitPowers } from '../host/rlimit.js'

/** What this daemon has itself, and whether it may give less. */
export interface OwnOomScore {
  score: number
  /** CAP_SYS_RESOURCE: without it a score can only be raised (proc_pid_oom_score_adj(5)). */
  mayLower: boolean
}

let own: OwnOomScore | undefined
const ownScore = (): OwnOomScore => (own ??= { score: Number(readFileSync('/proc/self/oom_score_adj', 'utf8')), mayLower: rlimitPowers().mayRaise })

/**
 * The runtime-spec's process.oomScoreAdj for a workload that is to have `wanted` (HostConfig.OomScoreAdj; 0 when nothing was said): absent where it has that already, by inheriting ours. A daemon that its service manager
 * protects from the OOM killer must not hand that protection on. `refused`: it would have to be lowered, and cannot be.
 */
export function oomScoreFor(wanted: number, from: OwnOomScore = ownScore()): { oomScoreAdj?: number; refused: boolean } {
  if (wanted === from.score) return { refused: false }
  if (wanted < from.score && !from.mayLower) return { refused: true }
  return { oomScoreAdj: wanted, refused: false }
}
