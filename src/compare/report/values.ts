import { ISOLATIONS, isMissing, type Comparison, type Measured, type Result, type Subject, type Unit } from '../types.js'

/** Image references and what workloads print are hostile: nothing of theirs moves a cursor, turns text round, or hides. */
export const plain = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, '\ufffd')

/** Three digits that say something. */
function digits(value: number): string {
  const size = Math.abs(value)
  return size >= 99.95 || value === 0 ? value.toFixed(0) : size >= 9.995 ? value.toFixed(1) : size >= 0.0995 ? value.toFixed(2) : value.toPrecision(2)
}

/** Next greater names of a unit, and the factor to each. */
const LADDERS: Record<Unit, readonly (readonly [name: string, factor: number])[]> = {
  'us': [['µs', 1], ['ms', 1e3], ['s', 1e6]], 'ms': [['ms', 1], ['s', 1e3]], 's': [['s', 1]], 'bytes': [['B', 1], ['kB', 1e3], ['MB', 1e6], ['GB', 1e9], ['TB', 1e12]],
  'MB/s': [['MB/s', 1], ['GB/s', 1e3]], 'Mbit/s': [['Mbit/s', 1], ['Gbit/s', 1e3]], 'ops/s': [['ops/s', 1], ['k ops/s', 1e3], ['M ops/s', 1e6]],
  'requests/s': [['req/s', 1], ['k req/s', 1e3]], 'events/s': [['events/s', 1], ['k events/s', 1e3], ['M events/s', 1e6]], 'count': [['', 1]],
}

/** '410 ms', '1.50 s', '61.0 MB': a value in the greatest unit in which it is at least one (rates: ten, so that neighbours share one). */
export function formatValue(value: number, unit: Unit): string {
  const ladder = LADDERS[unit]
  const [name, factor] = [...ladder].reverse().find(([, least]) => Math.abs(value) >= least * (unit.endsWith('s/s') && least > 1 ? 10 : 1)) ?? ladder[0]!
  if (unit === 'count') return Number.isInteger(value) ? String(value) : digits(value)
  return `${digits(value / factor)} ${name}`
}

/** '×5.9' */
export const formatRatio = (ratio: number): string => `×${digits(ratio)}`

/** Half the 95 % interval in per cent of the median ('±4 %'), or of how few rows it is ('n=3'). */
export function formatSpread({ ci95, median, n }: Measured): string {
  if (!ci95 || median === 0) return `n=${n}`
  const share = (100 * (ci95[1] - ci95[0])) / 2 / Math.abs(median)
  return `±${share < 0.95 ? share.toFixed(1) : share.toFixed(0)} %`
}

export function formatSeconds(seconds: number): string {
  return seconds < 100 ? `${digits(seconds)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`
}

/** A result that is a measurement. */
export const measuredOf = (result: Result | undefined): Measured | undefined => (result && !isMissing(result) ? result : undefined)

/** In the order in which they are shown. */
export const SUBJECTS: readonly Subject[] = ['host', ...ISOLATIONS]

/** How a subject is called in this comparison. */
export function titleOf(comparison: Comparison, subject: Subject): string {
  if (subject === 'host') return 'bare host'
  return plain(comparison.isolations.find(({ name }) => name === subject)?.title ?? subject)
}

/** Whom the others of a figure are compared to: the bare host, else the container. */
export const baseOf = (results: Partial<Record<Subject, Result>>): Subject | undefined => (['host', 'process'] as const).find((subject) => measuredOf(results[subject]))
