import { isMissing, type Comparison, type DensitySection, type Drill, type Figure, type FigureSection, type MemorySection, type Missing, type PortabilitySection, type SectionName, type Subject, type SurfaceFacts, type SurfaceSection } from '../types.js'
import { baseOf, formatRatio, formatSpread, formatValue, measuredOf, plain, SUBJECTS } from './values.js'

export type Tone = 'good' | 'bad' | 'dim'
/** What stands in one place of a table. Plain text: its maker escapes nothing. */
export interface Cell {
  text: string
  /** Smaller, beside it. */
  aside?: string
  tone?: Tone
  /** Why there is nothing: a sentence. */
  why?: string
}
export interface Row { label: string; cells: Partial<Record<Subject, Cell>> }
/** Rows for the same subjects. */
export interface Block { title: string; subjects: Subject[]; rows: Row[] }
/** One section as tables: what the terminal and the page show. */
export interface Sheet {
  name: SectionName
  title: string
  skipped?: string
  notes: string[]
  blocks: Block[]
  /** Sentences for one subject. */
  lists: { title: string; entries: { subject: Subject; sentences: string[] }[] }[]
}

const TITLES: Record<SectionName, string> = { start: 'Start', memory: 'Memory', density: 'Density', perf: 'Speed', surface: 'Surface', drills: 'Escape drills', portability: 'Portability' }
const nothing = ({ missing }: Missing): Cell => ({ text: '–', tone: 'dim', why: plain(missing) })
const known = (value: string | null | undefined): Cell => (value === null || value === undefined ? { text: '?', tone: 'dim' } : { text: plain(value) })
const many = (words: readonly string[]): Cell => ({ text: String(words.length), ...(words.length > 0 && words.length <= 4 ? { aside: plain(words.join(' ')) } : {}) })

function block(title: string, rows: Row[]): Block[] {
  const subjects = SUBJECTS.filter((subject) => rows.some((row) => row.cells[subject]))
  return rows.length > 0 && subjects.length > 0 ? [{ title, subjects, rows }] : []
}

const cells = <T>(values: Partial<Record<Subject, T>>, make: (value: T, subject: Subject) => Cell): Row['cells'] =>
  Object.fromEntries(SUBJECTS.flatMap((subject) => (values[subject] === undefined ? [] : [[subject, make(values[subject], subject)]])))

function figureRow(figure: Figure): Row {
  const base = baseOf(figure.results)
  const reference = base && measuredOf(figure.results[base])?.median
  return {
    label: plain(figure.title),
    cells: cells(figure.results, (result, subject) => {
      if (isMissing(result)) return nothing(result)
      const ratio = reference && reference > 0 && subject !== base && result.median > 0 ? `${formatRatio(result.median / reference)} ` : ''
      return { text: formatValue(result.median, figure.unit), aside: `${ratio}${formatSpread(result)}` }
    }),
  }
}

/** Medians, and the 95th percentiles where every row is one start of one's own. */
function figureBlocks({ figures }: FigureSection, percentiles: boolean): Block[] {
  const rows = figures.map(figureRow)
  const tails = percentiles ? figures.map((figure): Row => ({ label: plain(figure.title), cells: cells(figure.results, (result) => (isMissing(result) ? nothing(result) : { text: formatValue(result.p95, figure.unit), aside: `n=${result.n}` })) })) : []
  return [...block('', rows), ...block('95th percentile', tails.filter((row) => Object.values(row.cells).some((cell) => cell.why === undefined)))]
}

const PARTS = [['workload', 'workload'], ['guestKernel', 'guest kernel'], ['vmm', 'hypervisor or sentry'], ['supervisor', 'supervisor']] as const

function memoryBlocks(section: MemorySection): Block[] {
  const rows = PARTS.map(([key, label]): Row => ({ label, cells: cells(section.parts, (parts) => (isMissing(parts) ? nothing(parts) : { text: formatValue(parts[key], 'bytes') })) }))
  return [...figureBlocks(section, false), ...block('where it is (PSS)', rows)]
}

function densityBlocks({ curves }: DensitySection): Block[] {
  type Curve = Exclude<NonNullable<DensitySection['curves']['vm']>, Missing>
  const row = (label: string, make: (curve: Curve) => Cell): Row => ({ label, cells: cells(curves, (curve) => (isMissing(curve) ? nothing(curve) : make(curve))) })
  const start = (at: number) => ({ steps }: Curve): Cell => {
    const step = steps.at(at)
    return step ? { text: formatValue(step.startMs, 'ms'), aside: `no. ${step.index}` } : { text: '–', tone: 'dim' }
  }
  return block('', [
    row('really started at once', (curve) => ({ text: String(curve.started), aside: curve.alive === curve.started ? 'all alive' : `${curve.alive} alive`, ...(curve.alive < curve.started ? { tone: 'bad' as const } : {}) })),
    row('one more costs', (curve) => ({ text: formatValue(curve.bytesEach, 'bytes') })),
    row('fit in this host, predicted', (curve) => (Number.isFinite(curve.predicted) && curve.predicted > 0 ? { text: `≈ ${Math.floor(curve.predicted)}` } : { text: '–', tone: 'dim', why: 'one more costs less than can be measured' })),
    row('start of the first', start(0)), row('start of the last', start(-1)),
  ])
}

function surfaceBlocks({ facts }: SurfaceSection): Block[] {
  const row = (label: string, make: (of: SurfaceFacts) => Cell): Row => ({ label, cells: cells(facts, (of) => (isMissing(of) ? nothing(of) : make(of))) })
  const number = (value: number | null) => known(value === null ? null : String(value))
  return block('', [
    row('kernel', (of) => ({ ...known(of.sharedKernel === null ? null : of.sharedKernel ? 'the host\'s' : 'its own'), aside: plain(of.kernel), ...(of.sharedKernel === null ? {} : { tone: of.sharedKernel ? 'bad' as const : 'good' as const }) })),
    row('host system calls', (of) => ({ ...number(of.hostSyscalls), ...(of.hostSyscallsBy ? { aside: of.hostSyscallsBy === 'prober' ? 'tried' : 'by its filter' } : {}) })),
    row('system calls of its kernel', (of) => number(of.workloadSyscalls)), row('host kernel functions run', (of) => (of.kernelFunctionsMissing === undefined ? number(of.kernelFunctions) : nothing({ missing: of.kernelFunctionsMissing }))),
    row('capabilities inside', (of) => many(of.capabilities)), row('devices', (of) => many(of.devices)), row('namespaces of the host', (of) => many(of.sharedNamespaces)),
    row('uid on the host', (of) => ({ ...number(of.hostUid), ...(of.hostUid === 0 ? { tone: 'bad' as const } : {}) })), row('seccomp', (of) => ({ ...known(of.seccomp), ...(of.seccomp === 'off' ? { tone: 'bad' as const } : {}) })),
  ])
}

const OUTCOMES: Record<'host' | 'guest' | 'refused', Cell> = { host: { text: 'HOST', tone: 'bad' }, guest: { text: 'guest', tone: 'good' }, refused: { text: 'refused', tone: 'good' } }

function drillBlocks(drills: Drill[]): Block[] {
  const rows = (privileged: boolean) => drills.filter((drill) => drill.privileged === privileged)
    .map((drill): Row => ({ label: plain(drill.title), cells: cells(drill.results, ({ outcome, detail }) => (outcome === 'missing' ? nothing({ missing: detail }) : OUTCOMES[outcome])) }))
  return [...block('without --privileged', rows(false)), ...block('with --privileged', rows(true))]
}

/** What the host saw: a word in a table is easily said. */
function drillLists(drills: Drill[]): Sheet['lists'] {
  const entries = SUBJECTS.flatMap((subject) => {
    const sentences = drills.flatMap(({ title, privileged, results }) => {
      const result = subject === 'host' ? undefined : results[subject]
      return result?.outcome === 'host' ? [plain(`${title}${privileged ? ' (--privileged)' : ''}: ${result.detail}`)] : []
    })
    return sentences.length > 0 ? [{ subject, sentences }] : []
  })
  return entries.length > 0 ? [{ title: 'What the host saw', entries }] : []
}

function portabilityLists(section: PortabilitySection): Sheet['lists'] {
  const entries = (of: PortabilitySection['requirements']) => SUBJECTS.flatMap((subject) => {
    const sentences = subject === 'host' ? undefined : of[subject]
    return sentences && sentences.length > 0 ? [{ subject, sentences: sentences.map(plain) }] : []
  })
  return [{ title: 'This host must have', entries: entries(section.requirements) }, { title: 'Another engine needs', entries: entries(section.elsewhere) }].filter((list) => list.entries.length > 0)
}

/** The sections that were asked for, in their order. */
export function sheetsOf({ sections }: Comparison): Sheet[] {
  const make = <N extends SectionName>(name: N, blocks: (section: NonNullable<Comparison['sections'][N]>) => Block[], lists: Sheet['lists'] = []): Sheet[] => {
    const section = sections[name]
    if (!section) return []
    const skipped = section.skipped === undefined ? {} : { skipped: plain(section.skipped) }
    return [{ name, title: TITLES[name], ...skipped, notes: section.notes.map(plain), blocks: blocks(section), lists }]
  }
  return [
    ...make('start', (section) => figureBlocks(section, true)), ...make('memory', memoryBlocks), ...make('density', densityBlocks), ...make('perf', (section) => figureBlocks(section, false)),
    ...make('surface', surfaceBlocks), ...make('drills', (section) => drillBlocks(section.drills), drillLists(sections.drills?.drills ?? [])),
    ...make('portability', (section) => figureBlocks(section, false), sections.portability ? portabilityLists(sections.portability) : []),
  ]
}

/** Why cells of a block are empty: each reason once, with those whom it concerns. */
export function reasonsOf({ rows, subjects }: Block): { why: string; subjects: Subject[]; labels: string[] }[] {
  const byReason = new Map<string, { subjects: Set<Subject>; labels: Set<string> }>()
  for (const row of rows) {
    for (const subject of subjects) {
      const why = row.cells[subject]?.why
      if (why === undefined) continue
      const entry = byReason.get(why) ?? { subjects: new Set(), labels: new Set() }
      entry.subjects.add(subject)
      entry.labels.add(row.label)
      byReason.set(why, entry)
    }
  }
  return [...byReason].map(([why, entry]) => ({ why, subjects: [...entry.subjects], labels: [...entry.labels] }))
}
