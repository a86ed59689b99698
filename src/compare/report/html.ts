import { createHash } from 'node:crypto'
import { isMissing, type Comparison, type Missing, type SectionName, type Subject } from '../types.js'
import { html, Markup } from './markup.js'
import { ratioPlots, surfacePlots } from './plots/bars.js'
import { densityPlots } from './plots/density.js'
import { memoryPlots } from './plots/memory.js'
import { startPlots } from './plots/start.js'
import { reasonsOf, sheetsOf, type Block, type Cell, type Sheet } from './sheets.js'
import { STYLE } from './style.js'
import { hostWords, imageWords } from './table.js'
import { formatSeconds, formatValue, measuredOf, titleOf } from './values.js'

const TONES = { good: 'good', bad: 'bad', dim: 'faint' } as const
const PLOTS: Partial<Record<SectionName, (comparison: Comparison) => Markup[]>> = { start: startPlots, memory: memoryPlots, density: densityPlots, perf: ratioPlots, surface: surfacePlots }

type Titles = (subject: Subject) => string

const cellMarkup = (cell: Cell | undefined, label: string): Markup =>
  cell ? html`<td data-label="${label}"><span class="${cell.tone ? TONES[cell.tone] : ''}">${cell.text}</span>${cell.aside && html`<small>${cell.aside}</small>`}</td>` : html`<td data-label="${label}"></td>`

function blockMarkup(block: Block, titles: Titles): Markup {
  const { title, subjects, rows } = block
  return html`<table><thead><tr><th scope="col">${title}</th>${subjects.map((subject) => html`<th scope="col">${titles(subject)}</th>`)}</tr></thead><tbody>${
    rows.map((row) => html`<tr><th scope="row">${title && html`<span class="prefix">${title}: </span>`}${row.label}</th>${subjects.map((subject) => cellMarkup(row.cells[subject], titles(subject)))}</tr>`)}</tbody></table>${
    reasonsOf(block).map(({ why, subjects: whom, labels }) => html`<p class="dim">– ${whom.map(titles).join(', ')}${labels.length < rows.length && ` (${labels.join('; ')})`}: ${why}</p>`)}`
}

/** Every command of a section, each once, with what it measures. */
function commandsOf({ sections }: Comparison, name: SectionName, titles: Titles): { what: string; command: string }[] {
  const found = new Map<string, string[]>()
  const add = (what: string, command: string) => found.set(command, [...(found.get(command) ?? []), what])
  const section = sections[name]
  if (section && 'figures' in section) {
    for (const { title, results } of section.figures) {
      for (const [subject, result] of Object.entries(results)) if (!isMissing(result)) add(`${title}, ${titles(subject as Subject)}`, result.command)
    }
  }
  const runs: Partial<Record<Subject, { command: string } | Missing>> = (name === 'density' ? sections.density?.curves : name === 'surface' ? sections.surface?.facts : undefined) ?? {}
  for (const [subject, one] of Object.entries(runs)) if (!isMissing(one)) add(titles(subject as Subject), one.command)
  for (const [subject, one] of Object.entries((name === 'surface' ? sections.surface?.facts : undefined) ?? {})) {
    if (!isMissing(one) && one.kernelFunctionsCommand !== undefined) add(`host kernel functions run, ${titles(subject as Subject)}`, one.kernelFunctionsCommand)
  }
  for (const drill of (name === 'drills' ? sections.drills?.drills : undefined) ?? []) {
    for (const [subject, { outcome, command }] of Object.entries(drill.results)) if (outcome !== 'missing') add(`${drill.title}${drill.privileged ? ', privileged' : ''}, ${titles(subject as Subject)}`, command)
  }
  return [...found].map(([command, whats]) => ({ what: whats.join('; '), command }))
}

function sheetMarkup(comparison: Comparison, sheet: Sheet, titles: Titles): Markup {
  const plots = PLOTS[sheet.name]?.(comparison) ?? []
  const commands = commandsOf(comparison, sheet.name, titles)
  return html`<section id="${sheet.name}"><h2>${sheet.title}</h2>${sheet.skipped !== undefined && html`<p>Not measured: ${sheet.skipped}</p>`}${
    plots.length > 0 && html`<div class="plots">${plots}</div>`}${sheet.blocks.map((block) => blockMarkup(block, titles))}${
    sheet.lists.map((list) => html`<h3>${list.title}</h3><ul>${list.entries.map(({ subject, sentences }) => html`<li>${titles(subject)}: ${sentences.join('; ')}</li>`)}</ul>`)}${
    sheet.notes.length > 0 && html`<ul class="dim">${sheet.notes.map((note) => html`<li>${note}</li>`)}</ul>`}${
    commands.length > 0 && html`<details><summary>The commands behind these figures</summary>${commands.map(({ what, command }) => html`<p>${what}</p><pre>${command}</pre>`)}</details>`}</section>`
}

/** The four figures that a reader wants first: container and VM beside each other. */
function tiles({ sections }: Comparison, titles: Titles): Markup {
  const walls = ['process', 'vm'] as const
  const entries: { name: string; values: (string | undefined)[] }[] = [
    { name: 'start to exit', values: walls.map((wall) => { const found = measuredOf(sections.start?.figures.find(({ id }) => id === 'start-total')?.results[wall]); return found && formatValue(found.median, 'ms') }) },
    { name: 'one more idle instance', values: walls.map((wall) => { const found = measuredOf(sections.memory?.figures.find(({ id }) => id === 'memory-slope')?.results[wall]); return found && formatValue(found.median, 'bytes') }) },
    { name: 'fit in this host', values: walls.map((wall) => { const curve = sections.density?.curves[wall]; return curve && !isMissing(curve) && curve.bytesEach > 0 ? `≈ ${Math.floor(curve.predicted)}` : undefined }) },
    { name: 'host system calls', values: walls.map((wall) => { const facts = sections.surface?.facts[wall]; return facts && !isMissing(facts) && facts.hostSyscalls !== null ? String(facts.hostSyscalls) : undefined }) },
  ]
  const shown = entries.filter(({ values }) => values.some((value) => value !== undefined))
  return html`<ul class="tiles">${shown.map(({ name, values }) => html`<li><span class="name">${name}</span>${values.map((value, i) => value !== undefined && html`<b>${value}</b><span class="name">${titles(walls[i]!)}</span>`)}</li>`)}</ul>`
}

/**
 * The whole comparison as one HTML page that loads nothing and has no script, whoever opens it wherever: a policy in the page says so to the browser too, so that even a hole in the
 * escaping would run nothing. UTF-8.
 */
export function renderHtml(comparison: Comparison): string {
  const titles = (subject: Subject) => titleOf(comparison, subject)
  const absent = comparison.isolations.flatMap((isolation) => (isolation.available ? [] : [html`<li>${titles(isolation.name)}: ${isolation.reason}</li>`]))
  const policy = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'; base-uri 'none'; form-action 'none'`
  const name = imageWords(comparison)
  return html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="${policy}"><meta name="viewport" content="width=device-width,initial-scale=1"><meta name="referrer" content="no-referrer">
<title>hull compare ${name}</title><style>${new Markup(STYLE)}</style></head><body>
<header><h1>${name}: container and VM</h1><p class="dim">${comparison.startedAt}, took ${formatSeconds(comparison.seconds)}</p>${hostWords(comparison).map((line) => html`<p class="dim">${line}</p>`)}</header>
<main>${comparison.warnings.length > 0 && html`<ul class="warnings">${comparison.warnings.map((warning) => html`<li>${warning}</li>`)}</ul>`}${tiles(comparison, titles)}${
  absent.length > 0 && html`<p>Not measured on this host:</p><ul>${absent}</ul>`}
${sheetsOf(comparison).map((sheet) => html`${sheetMarkup(comparison, sheet, titles)}
`)}</main>
<footer><p>± half the 95 % interval of the median; n=… rows where they are too few for one; × times the first column that has a value of: bare host, container.</p><p>Repeat it: <code>${comparison.command}</code>. Raw rows: <code>--format json</code>. Written by hull ${comparison.versions.hull}; this page has no script and loads nothing.</p></footer>
</body></html>
`.text
}
