/** A figure from repeated measurements. */
export interface Summary {
  n: number
  median: number
  p95: number
  min: number
  max: number
}

/** Median, 95th percentile (nearest rank) and range of at least one value. */
export function summarize(values: readonly number[]): Summary {
  if (values.length === 0) throw new Error('nothing was measured')
  const sorted = [...values].sort((a, b) => a - b)
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)]!
  const middle = sorted.length >> 1
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
  return { n: sorted.length, median, p95: at(0.95), min: sorted[0]!, max: sorted.at(-1)! }
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
    // The order turns round by round, so that nobody always follows the same neighbour.
    const order = subjects.map((_, index) => subjects[(index + Math.max(0, round)) % subjects.length]!)
    for (const subject of order) {
      const value = await measure(subject, round)
      if (round >= 0) values.get(subject)!.push(value)
    }
  }
  return new Map([...values].map(([subject, list]) => [subject, summarize(list)]))
}
