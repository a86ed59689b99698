import { scaleLinear } from 'd3-scale'
import { stack } from 'd3-shape'
import { isMissing, type Comparison, type MemoryParts } from '../../types.js'
import { html, type Markup } from '../markup.js'
import { formatValue, measuredOf, SUBJECTS, titleOf } from '../values.js'
import { legend, plot, ROW, WIDTH, xAxis } from './frame.js'

const PARTS = ['workload', 'guestKernel', 'vmm', 'supervisor'] as const
const WORDS: Record<(typeof PARTS)[number], string> = { workload: 'workload', guestKernel: 'guest kernel', vmm: 'hypervisor or sentry', supervisor: 'supervisor' }

/** What one idle instance holds, part on part; a mark where the host's MemAvailable says that it costs. */
export function memoryPlots(comparison: Comparison): Markup[] {
  const section = comparison.sections.memory
  const slope = section?.figures.find(({ id }) => id === 'memory-slope')
  const entries = SUBJECTS.flatMap((subject) => {
    const parts = subject === 'host' ? undefined : section?.parts[subject]
    return parts && !isMissing(parts) ? [{ subject, parts, cost: measuredOf(slope?.results[subject])?.median }] : []
  })
  if (entries.length === 0) return []
  const series = stack<MemoryParts>().keys(PARTS)(entries.map(({ parts }) => parts))
  const most = Math.max(...entries.flatMap(({ cost }, i) => [cost ?? 0, series.at(-1)![i]![1]]), 1)
  const x = scaleLinear([0, most * 1.03], [0, WIDTH - 8]).nice()
  const bottom = entries.length * ROW
  const rows = entries.map(({ subject, cost }, i) => {
    const total = series.at(-1)![i]![1]
    return html`<g><text class="label" x="0" y="${i * ROW + 12}">${titleOf(comparison, subject)}: ${formatValue(total, 'bytes')}${cost === undefined ? '' : `, costs ${formatValue(cost, 'bytes')}`}</text>${series.map((part, k) => {
      const [from, to] = part[i]!
      return to > from && html`<rect class="part-${PARTS[k]}" x="${x(from).toFixed(2)}" y="${i * ROW + 18}" width="${Math.max(0.5, x(to) - x(from)).toFixed(2)}" height="18"/>`
    })}${cost !== undefined && cost >= 0 && html`<line class="cost" x1="${x(cost).toFixed(1)}" x2="${x(cost).toFixed(1)}" y1="${i * ROW + 15}" y2="${i * ROW + 39}"/>`}</g>`
  })
  return [plot('Memory of one idle instance (PSS), and what the host loses (line)', bottom + 20, [xAxis(x, 0, bottom, (value) => formatValue(value, 'bytes')), ...rows], legend(PARTS.map((part) => ({ className: `part-${part}`, text: WORDS[part] }))))]
}
