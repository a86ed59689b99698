import { area, curveBasis, line } from 'd3-shape'
import type { Comparison, Figure, Measured } from '../../types.js'
import { html, type Markup } from '../markup.js'
import { formatValue, measuredOf, SUBJECTS, titleOf } from '../values.js'
import { axisFor, classOf, plot, ROW, WIDTH, xAxis, type Scale } from './frame.js'

/** Fewer rows have no shape. */
const LEAST_FOR_SHAPE = 8

/** Density of positions, by a Gaussian kernel with Silverman's bandwidth (Density Estimation, 1986, 3.31); the greatest is 1. */
function shape(positions: readonly number[]): [x: number, y: number][] {
  const n = positions.length
  const mean = positions.reduce((sum, x) => sum + x, 0) / n
  const deviation = Math.sqrt(positions.reduce((sum, x) => sum + (x - mean) ** 2, 0) / n)
  const bandwidth = Math.max(1.5, 0.9 * deviation * n ** -0.2)
  const from = Math.max(0, Math.min(...positions) - 3 * bandwidth)
  const to = Math.min(WIDTH, Math.max(...positions) + 3 * bandwidth)
  const points = Array.from({ length: 49 }, (_, i): [number, number] => {
    const x = from + ((to - from) * i) / 48
    return [x, positions.reduce((sum, one) => sum + Math.exp(-0.5 * ((x - one) / bandwidth) ** 2), 0)]
  })
  const most = Math.max(...points.map(([, y]) => y))
  return points.map(([x, y]) => [x, y / most])
}

/** Every row as a dot, their shape behind them, the 95 % interval and the median. */
function strip({ rows, median, ci95 }: Measured, x: Scale, middle: number): Markup {
  const place = (value: number) => Math.min(WIDTH - 2, Math.max(2, x(value)))
  const outline = area<[number, number]>().x(([at]) => at).y0(([, share]) => middle + 11 * share).y1(([, share]) => middle - 11 * share).curve(curveBasis)
  const positions = rows.map(place)
  return html`${rows.length >= LEAST_FOR_SHAPE && html`<path class="shape" d="${outline(shape(positions))}"/>`}${positions.map((at, i) => html`<circle cx="${at.toFixed(1)}" cy="${(middle + (((i * 0.618) % 1) - 0.5) * 14).toFixed(1)}" r="2.4"/>`)}${
    ci95 && html`<line class="interval" x1="${place(ci95[0]).toFixed(1)}" x2="${place(ci95[1]).toFixed(1)}" y1="${middle + 12}" y2="${middle + 12}"/>`}<path class="median" d="${line()([[place(median), middle - 12], [place(median), middle + 12]])}"/>`
}

function distribution(comparison: Comparison, figure: Figure): Markup[] {
  const entries = SUBJECTS.flatMap((subject) => {
    const result = measuredOf(figure.results[subject])
    return result && result.rows.length > 0 ? [{ subject, result }] : []
  })
  if (entries.length === 0) return []
  const x = axisFor(entries.flatMap(({ result }) => result.rows), [4, WIDTH - 8])
  const bottom = entries.length * ROW
  return [plot(figure.title, bottom + 20, [
    xAxis(x, 0, bottom, (value) => formatValue(value, figure.unit)),
    ...entries.map(({ subject, result }, i) => html`<g class="${classOf(subject)}"><text class="label" x="0" y="${i * ROW + 12}">${titleOf(comparison, subject)}: ${formatValue(result.median, figure.unit)}</text>${strip(result, x, i * ROW + 28)}</g>`),
  ])]
}

/** How long each of the things round a start takes: all rows. */
export const startPlots = (comparison: Comparison): Markup[] => (comparison.sections.start?.figures ?? []).flatMap((figure) => distribution(comparison, figure))
