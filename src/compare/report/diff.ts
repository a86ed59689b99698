import { isMissing, type Comparison, type Figure, type Measured, type SectionName, type Subject } from '../types.js'
import type { Tone } from './sheets.js'
import { hostWords, imageWords } from './table.js'
import { pad, paint, width, wrap, type Screen } from './terminal.js'
import { formatRatio, formatSpread, formatValue, measuredOf, plain, SUBJECTS, titleOf } from './values.js'

/** One thing that both or one of two comparisons say. */
export interface Difference {
  section: SectionName
  label: string
  subject: Subject
  /** As it is shown; '–': not there. */
  a: string
  b: string
  /** b / a where both are measured. */
  ratio?: number
  /**
   * `same`: the 95 % intervals of the medians overlap, or the words are the same; `unknown`: too few rows for an interval, or only one has it; `other`: it changed, and nobody can say
   * for the better.
   */
  verdict: 'better' | 'worse' | 'same' | 'other' | 'unknown'
}

/** Below this change two density curves are the same: they are one run each, without an interval. */
const NOISE = 0.05

function verdictOf(a: Measured, b: Measured, better: Figure['better']): Difference['verdict'] {
  if (!a.ci95 || !b.ci95) return 'unknown'
  if (a.ci95[0] <= b.ci95[1] && b.ci95[0] <= a.ci95[1]) return 'same'
  if (better === 'neither') return 'other'
  return (better === 'less') === (b.median < a.median) ? 'better' : 'worse'
}

function figureDifferences(section: SectionName, a: Figure[], b: Figure[]): Difference[] {
  const ids = [...new Set([...a, ...b].map(({ id }) => id))]
  return ids.flatMap((id) => {
    const [before, after] = [a, b].map((list) => list.find((figure) => figure.id === id))
    const { title, unit, better } = (after ?? before)!
    return SUBJECTS.flatMap((subject): Difference[] => {
      const [was, is] = [measuredOf(before?.results[subject]), measuredOf(after?.results[subject])]
      if (!was && !is) return []
      const show = (one: Measured | undefined) => (one ? `${formatValue(one.median, unit)} ${formatSpread(one)}` : '–')
      const common = { section, label: plain(title), subject, a: show(was), b: show(is) }
      if (!was || !is) return [{ ...common, verdict: 'unknown' }]
      return [{ ...common, verdict: verdictOf(was, is, better), ...(was.median > 0 && is.median > 0 ? { ratio: is.median / was.median } : {}) }]
    })
  })
}

function densityDifferences(a: Comparison, b: Comparison): Difference[] {
  return SUBJECTS.flatMap((subject): Difference[] => {
    if (subject === 'host') return []
    const [was, is] = [a, b].map(({ sections }) => sections.density?.curves[subject])
    if (!was || !is || isMissing(was) || isMissing(is)) return []
    const ratio = was.bytesEach > 0 && is.bytesEach > 0 ? { ratio: is.bytesEach / was.bytesEach } : {}
    const verdict = ratio.ratio === undefined ? 'unknown' : Math.abs(ratio.ratio - 1) < NOISE ? 'same' : ratio.ratio < 1 ? 'better' : 'worse'
    return [{ section: 'density', label: 'one more costs', subject, a: formatValue(was.bytesEach, 'bytes'), b: formatValue(is.bytesEach, 'bytes'), ...ratio, verdict }]
  })
}

/** More of the host's calls, capabilities, devices and namespaces is worse. */
function surfaceDifferences(a: Comparison, b: Comparison): Difference[] {
  return SUBJECTS.flatMap((subject): Difference[] => {
    if (subject === 'host') return []
    const [was, is] = [a, b].map(({ sections }) => sections.surface?.facts[subject])
    if (!was || !is || isMissing(was) || isMissing(is)) return []
    const count = (label: string, before: number | null, after: number | null): Difference[] => (before === null && after === null ? [] : [{
      section: 'surface', label, subject, a: before === null ? '–' : String(before), b: after === null ? '–' : String(after),
      verdict: before === null || after === null ? 'unknown' : before === after ? 'same' : after < before ? 'better' : 'worse',
    }])
    const word = (label: string, before: string, after: string): Difference => ({ section: 'surface', label, subject, a: plain(before), b: plain(after), verdict: before === after ? 'same' : 'other' })
    return [
      word('kernel', was.kernel, is.kernel), ...count('host system calls', was.hostSyscalls, is.hostSyscalls), ...count('host kernel functions run', was.kernelFunctions, is.kernelFunctions),
      ...count('capabilities inside', was.capabilities.length, is.capabilities.length), ...count('devices', was.devices.length, is.devices.length),
      ...count('namespaces of the host', was.sharedNamespaces.length, is.sharedNamespaces.length), word('seccomp', was.seccomp ?? '?', is.seccomp ?? '?'),
    ]
  })
}

function drillDifferences(a: Comparison, b: Comparison): Difference[] {
  return (b.sections.drills?.drills ?? []).flatMap((drill) => {
    const before = a.sections.drills?.drills.find((other) => other.drill === drill.drill && other.privileged === drill.privileged)
    return SUBJECTS.flatMap((subject): Difference[] => {
      if (subject === 'host') return []
      const [was, is] = [before?.results[subject]?.outcome, drill.results[subject]?.outcome]
      if (!was || !is) return []
      const verdict = was === is ? 'same' : was === 'missing' || is === 'missing' ? 'unknown' : is === 'host' ? 'worse' : was === 'host' ? 'better' : 'other'
      return [{ section: 'drills', label: `${plain(drill.title)}${drill.privileged ? ', privileged' : ''}`, subject, a: was, b: is, verdict }]
    })
  })
}

/** What two comparisons say of the same things, in the order of the sections. */
export function differencesOf(a: Comparison, b: Comparison): Difference[] {
  const figures = (section: 'start' | 'memory' | 'perf' | 'portability') => figureDifferences(section, a.sections[section]?.figures ?? [], b.sections[section]?.figures ?? [])
  return [...figures('start'), ...figures('memory'), ...densityDifferences(a, b), ...figures('perf'), ...surfaceDifferences(a, b), ...drillDifferences(a, b), ...figures('portability')]
}

const TONES: Partial<Record<Difference['verdict'], Tone>> = { better: 'good', worse: 'bad', same: 'dim', unknown: 'dim' }

/** What makes figures of two runs hard to compare: sentences. */
function caveats(a: Comparison, b: Comparison): string[] {
  const pairs: [string, unknown, unknown][] = [
    ['processor', a.host.cpu, b.host.cpu], ['processors', a.host.cpus, b.host.cpus], ['RAM', formatValue(a.host.memory, 'bytes'), formatValue(b.host.memory, 'bytes')], ['kernel', a.host.kernel, b.host.kernel],
    ['file system', a.host.dataRootFs, b.host.dataRootFs], ['accelerator', a.accelerator || 'none', b.accelerator || 'none'], ['hull', a.versions.hull, b.versions.hull], ['crun', a.versions.crun, b.versions.crun],
    ['QEMU', a.versions.qemu, b.versions.qemu], ['guest kernel', a.versions.guestKernel, b.versions.guestKernel], ['image', a.image.id, b.image.id], ['command', a.workload.command.join(' '), b.workload.command.join(' ')],
  ]
  const differing = pairs.filter(([, was, is]) => was !== is).map(([what, was, is]) => `${what}: ${plain(String(was))} → ${plain(String(is))}`)
  const busy = ([['A', a], ['B', b]] as const).filter(([, { host }]) => host.load > host.cpus).map(([name, { host }]) => `${name} was measured at load ${host.load.toFixed(1)} on ${host.cpus} processors`)
  return [...differing, ...busy]
}

/** Two comparisons beside each other: what changed, with colours, and by how much. `names` are how A and B are called, files as a rule. */
export function renderDiff(a: Comparison, b: Comparison, { names, ...screen }: Screen & { names: [string, string] }): string {
  const list = differencesOf(a, b)
  const rows = list.map((one) => [one.label, titleOf(b, one.subject), one.a, one.b, one.ratio === undefined ? '' : formatRatio(one.ratio), one.verdict])
  const head = ['', '', 'A', 'B', 'B to A', '']
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => width(row[column]!))))
  const lines = rows.flatMap((row, i) => {
    const { section, verdict } = list[i]!
    const line = `  ${row.map((cell, column) => (column === 5 ? paint(cell, TONES[verdict], screen) : pad(cell, widths[column]!))).join('  ')}`.trimEnd()
    return section === list[i - 1]?.section ? [line] : ['', paint(section, 'bold', screen), line]
  })
  const changed = list.filter(({ verdict }) => verdict === 'better' || verdict === 'worse').length
  return [
    ...([['A', a, names[0]], ['B', b, names[1]]] as const).flatMap(([name, one, path]) => [paint(`${name}  ${plain(path)}  ${imageWords(one)}, ${plain(one.startedAt)}`, 'bold', screen), ...hostWords(one).map((line) => wrap(`   ${line}`, screen.columns, '   '))]),
    ...caveats(a, b).map((line) => paint(wrap(`  ! ${line}`, screen.columns, '    '), 'bad', screen)),
    '', paint(`  ${head.map((cell, column) => pad(cell, widths[column]!)).join('  ')}`.trimEnd(), 'dim', screen), ...lines,
    '', list.length === 0 ? 'The two have nothing in common.' : `${changed} of ${list.length} changed. Same: the 95 % intervals of the medians overlap (density: less than ${NOISE * 100} %).`, '',
  ].join('\n')
}
