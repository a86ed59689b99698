import { readFile, writeFile } from 'node:fs/promises'
import type { Engine } from './engines.js'
import type { Summary } from '../src/compare/types.js'

/** A part of the report: a title and its Markdown. */
export interface Section {
  title: string
  text: string
}

/** A table of medians, with ratios to dockerd (or whoever is there). `better`: which way is good. */
export function table(options: { unit: string; command: string; engines: readonly Engine[]; results: ReadonlyMap<Engine, Summary>; digits?: number }): string {
  const { engines, results, unit, digits = 1 } = options
  const measured = engines.filter((engine) => results.has(engine))
  const base = measured.find((engine) => engine.name === 'dockerd') ?? measured[0]
  if (!base) return 'No engine could be measured.\n'
  const reference = results.get(base)!.median
  const rows = measured.map((engine) => {
    const row = results.get(engine)!
    return `| ${engine.name} | ${row.median.toFixed(digits)} | ${row.p95.toFixed(digits)} | ${row.min.toFixed(digits)} | ${row.max.toFixed(digits)} | ${row.n} | ${(row.median / reference).toFixed(3)} |`
  })
  return [`\`${options.command}\`, interleaved; ratio of medians to ${base.name}.`, '', `| engine | median ${unit} | p95 | min | max | n | ratio |`, '|---|---|---|---|---|---|---|', ...rows, ''].join('\n')
}

/** Sections of an earlier report, by title. */
export function sectionsOf(text: string): Map<string, string> {
  const parts = text.split(/^### /m).slice(1)
  return new Map(parts.map((part) => [part.split('\n', 1)[0]!.trim(), part.slice(part.indexOf('\n') + 1).trim()]))
}

/** Writes the report; sections that this run did not measure, and those that were written by hand, stay as they are; so does the head unless there is another. */
export async function writeReport(file: string, head: string | undefined, sections: readonly Section[]): Promise<void> {
  const before = await readFile(file, 'utf8').catch(() => '')
  const old = sectionsOf(before)
  for (const { title, text } of sections) old.set(title, text.trim())
  await writeFile(file, [(head ?? before.split(/^### /m)[0]!).trim(), ...[...old].map(([title, text]) => `### ${title}\n\n${text}`)].join('\n\n') + '\n')
}
