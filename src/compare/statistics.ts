import type { Measured, Summary } from './types.js'

const ascending = (values: readonly number[]) => [...values].sort((a, b) => a - b)

/** Median of at least one value. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error('nothing was measured')
  const sorted = ascending(values)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/**
 * Rank r (1-based) such that the r-th smallest and the r-th greatest of n values enclose the median of what they were drawn from with at least the given probability: the number of values
 * below the median is binomial(n, 1/2), whatever the distribution (Conover, Practical Nonparametric Statistics, section 3.2). 0: no rank does.
 */
export function medianRank(n: number, confidence = 0.95): number {
  // In logarithms: 2^-n underflows for n > 1074.
  let term = -n * Math.LN2
  let below = 0
  let rank = 0
  for (let k = 0; k < n >> 1; k += 1) {
    below += Math.exp(term)
    if (1 - 2 * below < confidence) break
    rank = k + 1
    term += Math.log((n - k) / (k + 1))
  }
  return rank
}

/** 95 % confidence interval of the median; null for fewer than six values, whose whole range does not reach 95 %. */
export function medianInterval(values: readonly number[]): [number, number] | null {
  const rank = medianRank(values.length)
  if (rank === 0) return null
  const sorted = ascending(values)
  return [sorted[rank - 1]!, sorted[sorted.length - rank]!]
}

/** Of at least one value. */
export function summarize(values: readonly number[]): Summary {
  const sorted = ascending(values)
  return {
    n: sorted.length, median: median(sorted), p95: sorted[Math.max(0, Math.ceil(0.95 * sorted.length) - 1)]!,
    min: sorted[0]!, max: sorted.at(-1)!, ci95: medianInterval(sorted),
  }
}

/** A result with its raw rows. */
export function measured(rows: readonly number[], command: string): Measured {
  return { ...summarize(rows), rows: [...rows], command }
}

/** The median is known to within ± `share` of itself: no further row is needed. */
export function spreadIsKnown(values: readonly number[], share: number): boolean {
  const interval = medianInterval(values)
  if (!interval) return false
  return (interval[1] - interval[0]) / 2 <= share * Math.abs(median(values))
}

/** Slope of the least-squares line through (0, y0), (1, y1), …; needs two values. */
export function slope(values: readonly number[]): number {
  const n = values.length
  if (n < 2) throw new Error('a slope needs two values')
  const meanX = (n - 1) / 2
  const meanY = values.reduce((sum, value) => sum + value, 0) / n
  let above = 0
  let below = 0
  for (const [x, y] of values.entries()) {
    above += (x - meanX) * (y - meanY)
    below += (x - meanX) ** 2
  }
  return above / below
}
