import { summarize } from '../src/compare/statistics.js'
import type { Summary } from '../src/compare/types.js'

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
    // The order turns round by round, so that nobody always follows the same neighbour.
    const order = subjects.map((_, index) => subjects[(index + Math.max(0, round)) % subjects.length]!)
    for (const subject of order) {
      const value = await measure(subject, round)
      if (round >= 0) values.get(subject)!.push(value)
    }
  }
  return new Map([...values].map(([subject, list]) => [subject, summarize(list)]))
}
