import { setTimeout as sleep } from 'node:timers/promises'
import { summarize } from '../src/compare/statistics.js'
import type { Summary } from '../src/compare/types.js'

/** Milliseconds between two measurements: what an engine still does after its answer (podman's clean-up, a slot that is made anew) is not its successor's time. */
const PAUSE = 300

/** A random order (Fisher and Yates): a fixed one turned round by round would give everybody the same predecessor each time. */
function shuffled<T>(list: readonly T[]): T[] {
  const order = [...list]
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1))
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  return order
}

/**
 * Measures several subjects in turn, `rounds` times: what disturbs the machine disturbs all alike. One round before is not counted
 * (caches). After `limitMs` no further round begins, but one is always counted. Values in whatever unit `measure` returns.
 */
export async function interleave<Subject>(
  subjects: readonly Subject[], rounds: number, measure: (subject: Subject, round: number) => Promise<number>, limitMs = Infinity,
): Promise<Map<Subject, Summary>> {
  const end = performance.now() + limitMs
  const values = new Map<Subject, number[]>(subjects.map((subject) => [subject, []]))
  for (let round = -1; round < rounds; round++) {
    if (round >= 1 && performance.now() > end) break
    for (const subject of shuffled(subjects)) {
      await sleep(PAUSE)
      const value = await measure(subject, round)
      if (round >= 0) values.get(subject)!.push(value)
    }
  }
  return new Map([...values].map(([subject, list]) => [subject, summarize(list)]))
}
