import { measured, spreadIsKnown } from './statistics.js'
import type { Figure, Missing, Result } from './types.js'

/** Rounds that are measured at least where time allows, and at most. */
const LEAST = 6
const MOST = 30
/** The median's confidence interval may be so wide, in parts of the median, to each side. */
const SPREAD = 0.05

export interface RoundsOptions<S> {
  subjects: readonly S[]
  /** One row: figures by id. Rejects: this subject cannot be measured, and is left out from then on. */
  measure: (subject: S) => Promise<Record<string, number>>
  /** The figure by which it is judged whether the spread is known. */
  leading: string
  /** performance.now() */
  deadline: number
  signal: AbortSignal
  progress: (round: number, of: string) => void
  nameOf: (subject: S) => string
}

export interface Rounds<S> {
  rows: Map<S, Record<string, number[]>>
  failed: Map<S, string>
}

/** Measures all in turn, so that what disturbs the machine disturbs all alike, until every median is known, or the time is over. The first round is not counted: it warms caches. */
export async function rounds<S>(options: RoundsOptions<S>): Promise<Rounds<S>> {
  const { subjects, signal } = options
  const rows = new Map<S, Record<string, number[]>>(subjects.map((subject) => [subject, {}]))
  const failed = new Map<S, string>()
  for (let round = 0; round <= MOST; round += 1) {
    const left = subjects.filter((subject) => !failed.has(subject))
    const known = (subject: S) => spreadIsKnown(rows.get(subject)![options.leading] ?? [], SPREAD)
    if (left.length === 0 || (round > LEAST && left.every(known)) || (round > 1 && performance.now() > options.deadline)) break
    // Who comes first changes, so that nobody always follows the same neighbour.
    for (let n = 0; n < left.length; n += 1) {
      const subject = left[(n + round) % left.length]!
      signal.throwIfAborted()
      options.progress(round, options.nameOf(subject))
      try {
        const row = await options.measure(subject)
        if (round > 0) for (const [id, value] of Object.entries(row)) (rows.get(subject)![id] ??= []).push(value)
      } catch (error) {
        signal.throwIfAborted()
        failed.set(subject, error instanceof Error ? error.message : String(error))
      }
    }
  }
  return { rows, failed }
}

/** What rounds gave for one figure, by subject. */
export function resultsOf<S>({ rows, failed }: Rounds<S>, id: string, nameOf: (subject: S) => string, commandOf: (subject: S) => string): Figure['results'] {
  return Object.fromEntries([...rows].flatMap(([subject, figures]): [string, Result][] => {
    const values = figures[id] ?? []
    if (values.length > 0) return [[nameOf(subject), measured(values, commandOf(subject))]]
    const missing = failed.get(subject)
    return missing === undefined ? [] : [[nameOf(subject), { missing } satisfies Missing]]
  }))
}
