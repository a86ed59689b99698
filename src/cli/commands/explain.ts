import { inPath } from '../client.js'
import { textFlag, type CommandDefinition } from '../command.js'

/** A section of GET /containers/{id}/hull/explain. */
export interface Section { title: string; rows: [name: string, value: string][] }
interface Explanation { id: string; name: string; isolation: string; sections: Section[] }

/** Sections with their names aligned in one column; a value of several lines is indented under its first. */
export function formatSections(sections: readonly Section[]): string {
  const width = Math.max(0, ...sections.flatMap((section) => section.rows.map(([name]) => name.length)))
  return sections
    .map(({ title, rows }) => `${title}\n${rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value.replaceAll('\n', `\n${' '.repeat(width + 4)}`)}`.trimEnd() + '\n').join('')}`)
    .join('\n')
}

/** `hull explain`: Hull's own. */
export const explainDefinition: CommandDefinition = {
  usage: 'explain [OPTIONS] CONTAINER',
  summary: 'Show what really surrounds a running workload',
  arguments: [1, 1],
  flags: (command) => { command.option('-f, --format <string>', "'json', or readable sections by default") },
  run: async ({ client, streams }, flags, [container = '']) => {
    const answer = await client.json<Explanation | Section[]>('GET', `/containers/${inPath(container)}/hull/explain`)
    const sections = Array.isArray(answer) ? answer : answer.sections
    if (textFlag(flags, 'format') === 'json') streams.stdout.write(`${JSON.stringify(answer)}\n`)
    else {
      if (!Array.isArray(answer)) streams.stdout.write(`${answer.name.replace(/^\//, '')} (${answer.id.slice(0, 12)}), isolation ${answer.isolation}\n\n`)
      streams.stdout.write(formatSections(sections))
    }
    return 0
  },
}
