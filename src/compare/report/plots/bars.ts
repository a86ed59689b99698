import { scaleLinear, scaleLog } from 'd3-scale'
import { isMissing, type Comparison, type Subject, type SurfaceFacts } from '../../types.js'
import { html, type Markup } from '../markup.js'
import { formatRatio, measuredOf, SUBJECTS, titleOf } from '../values.js'
import { classOf, legend, plot, WIDTH, xAxis } from './frame.js'

const BAR = 14

const legendOf = (comparison: Comparison, subjects: ReadonlySet<Subject>) => legend(SUBJECTS.filter((subject) => subjects.has(subject)).map((subject) => ({ className: classOf(subject), text: titleOf(comparison, subject) })))

/** The speed of each isolation as a share of the bare host's, or of the container's where the host was not measured: bars from 1, to the left where it is slower. */
export function ratioPlots(comparison: Comparison): Markup[] {
  const figures = comparison.sections.perf?.figures ?? []
  const base = figures.some(({ results }) => measuredOf(results.host)) ? 'host' : 'process'
  const groups = figures.flatMap((figure) => {
    const one = measuredOf(figure.results[base])?.median
    if (one === undefined || one <= 0 || figure.better === 'neither') return []
    const bars = SUBJECTS.flatMap((subject) => {
      const value = subject === base ? undefined : measuredOf(figure.results[subject])?.median
      return value === undefined || value <= 0 ? [] : [{ subject, ratio: figure.better === 'more' ? value / one : one / value }]
    })
    return bars.length > 0 ? [{ title: figure.title, bars }] : []
  })
  if (groups.length === 0) return []
  const ratios = groups.flatMap(({ bars }) => bars.map(({ ratio }) => ratio))
  const x = scaleLog([Math.min(0.5, ...ratios) * 0.8, Math.max(1.25, ...ratios) * 1.1], [44, WIDTH - 44])
  const body: Markup[] = []
  let y = 0
  for (const { title, bars } of groups) {
    body.push(html`<text class="label" x="0" y="${y + 13}">${title}</text>`)
    y += 18
    for (const { subject, ratio } of bars) {
      const [from, to] = [Math.min(x(1), x(ratio)), Math.max(x(1), x(ratio))]
      const left = ratio < 1 && from > 46
      body.push(html`<g class="${classOf(subject)}"><rect x="${from.toFixed(1)}" y="${y + 1}" width="${Math.max(1, to - from).toFixed(1)}" height="${BAR - 3}"/><text class="value" x="${(left ? from - 4 : to + 4).toFixed(1)}" y="${y + 11}" text-anchor="${left ? 'end' : 'start'}">${formatRatio(ratio)}</text></g>`)
      y += BAR
    }
    y += 8
  }
  return [plot(`Speed, as a share of the ${base === 'host' ? 'bare host' : 'container'}'s (×1; left: slower)`, y + 20, [
    xAxis(x, 0, y, formatRatio), html`<line class="one" x1="${x(1).toFixed(1)}" x2="${x(1).toFixed(1)}" y1="0" y2="${y}"/>`, ...body,
  ], legendOf(comparison, new Set(groups.flatMap(({ bars }) => bars.map(({ subject }) => subject)))))]
}

const SURFACE: readonly [title: string, count: (facts: SurfaceFacts) => number | null][] = [
  ['System calls of the host\'s kernel', (facts) => facts.hostSyscalls], ['Functions of the host\'s kernel that ran', (facts) => facts.kernelFunctions], ['Capabilities', (facts) => facts.capabilities.length],
  ['Devices', (facts) => facts.devices.length], ['Namespaces of the host', (facts) => facts.sharedNamespaces.length],
]

/** How much of the host each isolation can reach: less is better everywhere. */
export function surfacePlots(comparison: Comparison): Markup[] {
  const facts = comparison.sections.surface?.facts ?? {}
  const entries = SUBJECTS.flatMap((subject) => {
    const of = subject === 'host' ? undefined : facts[subject]
    return of && !isMissing(of) ? [{ subject, of }] : []
  })
  const body: Markup[] = []
  let y = 0
  for (const [title, count] of SURFACE) {
    const bars = entries.flatMap(({ subject, of }) => {
      const value = count(of)
      return value === null ? [] : [{ subject, value }]
    })
    if (bars.length === 0) continue
    const x = scaleLinear([0, Math.max(1, ...bars.map(({ value }) => value))], [0, WIDTH - 50])
    body.push(html`<text class="label" x="0" y="${y + 13}">${title}</text>`)
    y += 18
    for (const { subject, value } of bars) {
      body.push(html`<g class="${classOf(subject)}"><rect x="0" y="${y + 1}" width="${Math.max(1, x(value)).toFixed(1)}" height="${BAR - 3}"/><text class="value" x="${(Math.max(1, x(value)) + 4).toFixed(1)}" y="${y + 11}">${String(value)}</text></g>`)
      y += BAR
    }
    y += 8
  }
  return body.length === 0 ? [] : [plot('What the workload (a VM: its hypervisor) can reach; less is better', y, body, legendOf(comparison, new Set(entries.map(({ subject }) => subject))))]
}
