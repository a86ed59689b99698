import type { Comparison, Subject } from '../types.js'
import { reasonsOf, sheetsOf, type Block, type Cell, type Sheet } from './sheets.js'
import { pad, paint, width, wrap, type Screen } from './terminal.js'
import { formatSeconds, formatValue, plain, titleOf } from './values.js'

const wordsOf = ({ text, aside }: Cell) => (aside ? `${text}  ${aside}` : text)
const painted = (cell: Cell, screen: Screen) => paint(cell.text, cell.tone, screen) + (cell.aside ? `  ${paint(cell.aside, 'dim', screen)}` : '')

/** A block with a column for each subject, or undefined where it is wider than the screen. */
function wide({ title, rows, subjects }: Block, titles: (subject: Subject) => string, screen: Screen): string[] | undefined {
  const first = Math.max(width(title), ...rows.map((row) => width(row.label)))
  const widths = subjects.map((subject) => Math.max(width(titles(subject)), ...rows.map((row) => (row.cells[subject] ? width(wordsOf(row.cells[subject])) : 0))))
  if (2 + first + widths.reduce((sum, one) => sum + 3 + one, 0) > screen.columns) return undefined
  const head = `  ${pad(title, first)}${subjects.map((subject, i) => `   ${pad(titles(subject), widths[i]!)}`).join('')}`.trimEnd()
  return [paint(head, 'dim', screen), ...rows.map((row) => `  ${pad(row.label, first)}${subjects.map((subject, i) => {
    const cell = row.cells[subject]
    return cell ? `   ${painted(cell, screen)}${' '.repeat(widths[i]! - width(wordsOf(cell)))}` : ' '.repeat(3 + widths[i]!)
  }).join('')}`.trimEnd())]
}

/** A block with a line for each value: as wide as its longest one. */
function narrow({ title, rows, subjects }: Block, titles: (subject: Subject) => string, screen: Screen): string[] {
  const first = Math.max(...subjects.map((subject) => width(titles(subject))))
  return [...(title ? [paint(`  ${title}`, 'dim', screen)] : []), ...rows.flatMap((row) => [
    `  ${row.label}`, ...subjects.flatMap((subject) => (row.cells[subject] ? [`    ${pad(titles(subject), first)}  ${painted(row.cells[subject], screen)}`] : [])),
  ])]
}

function sheetLines({ title, skipped, notes, blocks, lists }: Sheet, titles: (subject: Subject) => string, screen: Screen): string[] {
  const text = (mark: string, sentence: string) => paint(wrap(`  ${mark}${sentence}`, screen.columns, '    '), 'dim', screen)
  return [
    '', paint(title, 'bold', screen), ...(skipped === undefined ? [] : [wrap(`  not measured: ${skipped}`, screen.columns, '    ')]),
    ...blocks.flatMap((block) => [
      ...(wide(block, titles, screen) ?? narrow(block, titles, screen)),
      ...reasonsOf(block).map(({ why, subjects, labels }) => text('– ', `${subjects.map(titles).join(', ')}${labels.length < block.rows.length ? ` (${labels.join('; ')})` : ''}: ${why}`)),
    ]),
    ...lists.flatMap((list) => [`  ${list.title}`, ...list.entries.map(({ subject, sentences }) => wrap(`    ${titles(subject)}: ${sentences.join('; ')}`, screen.columns, '      '))]),
    ...notes.map((note) => text('* ', note)),
  ]
}

/** Two lines on the machine, for every report. */
export function hostWords({ host, versions, accelerator }: Comparison): string[] {
  const vms = { kvm: `VMs with KVM, guest kernel ${plain(versions.guestKernel)}, QEMU ${plain(versions.qemu)}`, tcg: `VMs emulated (TCG): slow, and no security boundary; guest kernel ${plain(versions.guestKernel)}, QEMU ${plain(versions.qemu)}`, '': 'no VMs' }
  return [
    `${plain(host.cpu)}, ${host.cpus} processor${host.cpus === 1 ? '' : 's'}, ${formatValue(host.memory, 'bytes')} of RAM, ${plain(host.os)}, Linux ${plain(host.kernel)}, ${plain(host.dataRootFs)}, cgroup ${plain(host.cgroup)}, load ${host.load.toFixed(1)}`,
    `hull ${plain(versions.hull)}, crun ${plain(versions.crun)}${versions.runsc ? `, runsc ${plain(versions.runsc)}` : ''}; ${vms[accelerator]}`,
  ]
}

/** 'debian true' */
export const imageWords = ({ image, workload }: Comparison): string => [image.reference, ...workload.command].map(plain).join(' ')

/** The whole comparison in lines of at most `columns` cells, where its words allow that: medians with half their 95 % interval, and ratios (×) to the bare host or the container. */
export function renderTable(comparison: Comparison, screen: Screen): string {
  const titles = (subject: Subject) => titleOf(comparison, subject)
  const absent = comparison.isolations.flatMap((isolation) => (isolation.available ? [] : [`  – ${titles(isolation.name)}: ${plain(isolation.reason)}`]))
  return [
    paint(wrap(imageWords(comparison), screen.columns), 'bold', screen),
    ...[`${plain(comparison.startedAt)}, took ${formatSeconds(comparison.seconds)}`, ...hostWords(comparison)].map((line) => wrap(`  ${line}`, screen.columns, '  ')),
    ...comparison.warnings.map((warning) => paint(wrap(`  ! ${plain(warning)}`, screen.columns, '    '), 'bad', screen)),
    ...absent.map((line) => paint(wrap(line, screen.columns, '    '), 'dim', screen)),
    ...sheetsOf(comparison).flatMap((sheet) => sheetLines(sheet, titles, screen)),
    '', paint(wrap(`${'±'} half the 95 % interval of the median, n=… rows where they are too few for one; × times the first column that has a value of: bare host, container.`, screen.columns), 'dim', screen), '',
  ].join('\n')
}
