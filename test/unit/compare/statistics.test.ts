import { describe, expect, test } from 'vitest'
import { measured, median, medianInterval, medianRank, slope, spreadIsKnown, summarize } from '../../../src/compare/statistics.js'

/** Coverage of [r-th smallest, r-th greatest], summed up term by term. */
function coverage(n: number, rank: number): number {
  let choose = 1
  let below = 0
  for (let k = 0; k < rank; k += 1) {
    below += choose
    choose = (choose * (n - k)) / (k + 1)
  }
  return 1 - 2 * below / 2 ** n
}

describe('median and percentile', () => {
  test('odd, even, one', () => {
    expect(median([3, 1, 2])).toBe(2)
    expect(median([4, 1, 3, 2])).toBe(2.5)
    expect(median([7])).toBe(7)
    expect(() => median([])).toThrow('nothing was measured')
  })

  test('p95 is the nearest rank', () => {
    expect(summarize(Array.from({ length: 100 }, (_, i) => 100 - i)).p95).toBe(95)
    expect(summarize([5, 9, 1])).toEqual({ n: 3, median: 5, p95: 9, min: 1, max: 9, ci95: null })
  })

  test('raw rows keep their order', () => {
    expect(measured([3, 1, 2], 'true').rows).toEqual([3, 1, 2])
  })
})

describe('confidence interval of the median', () => {
  test('no interval below six values, the range at six to eight', () => {
    expect(medianInterval([1, 2, 3, 4, 5])).toBeNull()
    expect(medianInterval([6, 1, 5, 2, 4, 3])).toEqual([1, 6])
    expect([6, 7, 8, 9, 15, 25, 100].map((n) => medianRank(n))).toEqual([1, 1, 1, 2, 4, 8, 40]) // tables of the sign test
  })

  test('is the narrowest of at least 95 %', () => {
    for (let n = 6; n <= 60; n += 1) {
      const rank = medianRank(n)
      expect(coverage(n, rank)).toBeGreaterThanOrEqual(0.95)
      if (rank < n >> 1) expect(coverage(n, rank + 1)).toBeLessThan(0.95)
    }
  })

  test('many values neither underflow nor take long', () => {
    const rank = medianRank(10_000)
    expect(rank).toBeGreaterThan(4_890)
    expect(rank).toBeLessThan(4_910) // n/2 - 1.96·√n/2 = 4902
  })

  test('encloses the true median 95 times of 100', () => {
    let seed = 7
    const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647
    let inside = 0
    for (let trial = 0; trial < 2000; trial += 1) {
      const [low, high] = medianInterval(Array.from({ length: 15 }, () => -Math.log(random())))! // exponential: median ln 2
      if (low <= Math.LN2 && Math.LN2 <= high) inside += 1
    }
    expect(inside / 2000).toBeGreaterThan(0.945)
    expect(inside / 2000).toBeLessThan(0.985) // 0.965 exactly
  })

  test('tells when the spread is known', () => {
    expect(spreadIsKnown([100, 100, 100], 0.05)).toBe(false)
    expect(spreadIsKnown([100, 101, 99, 100, 102, 98], 0.05)).toBe(true)
    expect(spreadIsKnown([100, 150, 99, 100, 102, 98], 0.05)).toBe(false)
  })
})

test('slope of a line with noise', () => {
  expect(slope([10, 8, 6, 4])).toBeCloseTo(-2)
  expect(slope([0, 1.1, 1.9, 3])).toBeCloseTo(0.98)
  expect(() => slope([1])).toThrow('two values')
})
