import { scaleLinear, scaleLog } from 'd3-scale'
import { line } from 'd3-shape'
import { isMissing, type Comparison, type DensityCurve } from '../../types.js'
import { html, type Markup } from '../markup.js'
import { formatValue, SUBJECTS, titleOf } from '../values.js'
import { axisFor, classOf, legend, plot, WIDTH, xAxis, yAxis } from './frame.js'

const LEFT = 62
const HEIGHT = 240
const point = line()

type Entry = { subject: (typeof SUBJECTS)[number]; curve: DensityCurve }

/** Up to where a curve is drawn that costs next to nothing. */
const MOST_INSTANCES = 1e5

function ramPlot(comparison: Comparison, entries: readonly Entry[], total: number, available: number): Markup {
  const known = entries.filter(({ curve }) => curve.bytesEach > 0)
  const used = (curve: DensityCurve) => curve.steps.map((step): [number, number] => [step.index, available - step.available]).filter(([, bytes]) => bytes > 0)
  const predicted = (curve: DensityCurve) => Math.min(MOST_INSTANCES, available / curve.bytesEach)
  const most = Math.max(10, ...known.map(({ curve }) => predicted(curve)), ...entries.map(({ curve }) => curve.started))
  const least = Math.min(total / 100, ...known.flatMap(({ curve }) => [curve.bytesEach, ...used(curve).map(([, bytes]) => bytes)]))
  const x = scaleLog([1, most * 1.15], [LEFT, WIDTH - 6])
  const y = scaleLog([least * 0.7, total * 1.9], [HEIGHT, 6])
  const curves = known.map(({ subject, curve }) => {
    const end = predicted(curve)
    const measured = used(curve).map(([index, bytes]): [number, number] => [x(index), y(bytes)])
    const dashed: [number, number][] = [[x(1), y(curve.bytesEach)], [x(end), y(curve.bytesEach * end)]]
    return html`<g class="${classOf(subject)}"><path class="predicted" d="${point(dashed)}"/><path class="curve" d="${measured.length > 0 ? point(measured) : ''}"/>${measured.map(([cx, cy]) => html`<circle cx="${cx.toFixed(1)}" cy="${cy.toFixed(1)}" r="2"/>`)}${
      curve.predicted <= MOST_INSTANCES && html`<circle class="end" cx="${x(end).toFixed(1)}" cy="${y(curve.bytesEach * end).toFixed(1)}" r="4"/>`}</g>`
  })
  const limit = (bytes: number, words: string, below: boolean) => html`<line class="limit" x1="${LEFT}" x2="${WIDTH}" y1="${y(bytes).toFixed(1)}" y2="${y(bytes).toFixed(1)}"/><text class="label" x="${LEFT + 4}" y="${(y(bytes) + (below ? 14 : -5)).toFixed(1)}">${formatValue(bytes, 'bytes')} ${words}</text>`
  return plot('Memory that instances take, up to this host\'s RAM', HEIGHT + 34, [
    yAxis(y, LEFT, (value) => formatValue(value, 'bytes')), xAxis(x, 6, HEIGHT, (value) => String(value)), html`<text class="unit" x="${WIDTH}" y="${HEIGHT + 30}" text-anchor="end">instances (measured: line, predicted: dashed)</text>`,
    limit(total, 'of RAM', false), limit(available, 'available', true), ...curves,
  ], legend(known.map(({ subject, curve }) => ({ className: classOf(subject), text: `${titleOf(comparison, subject)}: ≈ ${Math.floor(curve.predicted)} fit` }))))
}

function startPlot(comparison: Comparison, entries: readonly Entry[]): Markup {
  const steps = entries.flatMap(({ curve }) => curve.steps)
  const x = scaleLinear([1, Math.max(2, ...steps.map(({ index }) => index))], [LEFT, WIDTH - 6])
  const y = axisFor(steps.map(({ startMs }) => startMs), [HEIGHT, 6])
  return plot('Start of the i-th instance', HEIGHT + 34, [
    yAxis(y, LEFT, (value) => formatValue(value, 'ms')), xAxis(x, 6, HEIGHT, (value) => (Number.isInteger(value) ? String(value) : '')), html`<text class="unit" x="${WIDTH}" y="${HEIGHT + 30}" text-anchor="end">instances that run already, and this one</text>`,
    ...entries.map(({ subject, curve }) => {
      const points = curve.steps.filter(({ startMs }) => startMs > 0).map((step): [number, number] => [x(step.index), y(step.startMs)])
      return html`<g class="${classOf(subject)}"><path class="curve" d="${points.length > 0 ? point(points) : ''}"/>${points.map(([cx, cy]) => html`<circle cx="${cx.toFixed(1)}" cy="${cy.toFixed(1)}" r="2"/>`)}</g>`
    }),
  ], legend(entries.map(({ subject, curve }) => ({ className: classOf(subject), text: `${titleOf(comparison, subject)}: ${curve.started} started` }))))
}

/** Memory over instances with the host's RAM as a line, and how long the i-th took to start. */
export function densityPlots(comparison: Comparison): Markup[] {
  const section = comparison.sections.density
  if (!section || section.total <= 0 || section.available <= 0) return []
  const entries = SUBJECTS.flatMap((subject): Entry[] => {
    const curve = subject === 'host' ? undefined : section.curves[subject]
    return curve && !isMissing(curve) && curve.steps.length > 0 ? [{ subject, curve }] : []
  })
  if (entries.length === 0) return []
  return [...(entries.some(({ curve }) => curve.bytesEach > 0) ? [ramPlot(comparison, entries, section.total, section.available)] : []), startPlot(comparison, entries)]
}
