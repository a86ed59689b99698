import { inPath } from '../client.js'
import { textFlag, type CommandDefinition } from '../command.js'

/** A section of GET /containers/{id}/hull/explain. */
export interface Section { Title: string; Rows: [name: string, value: string][] }
interface Explanation { Id: string; Name: string; Isolation: string; Sections: Section[] }

/** Sections with their names aligned in one column; a value of several lines is indented under its first. */
export function formatSections(sections: readonly Section[]): string {
  const width = Math.max(0, ...sections.flatMap((section) => section.Rows.map(([name]) => name.length)))
  return sections
    .map(({ Title, Rows }) => `${Title}\n${Rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value.replaceAll('\n', `\n${' '.repeat(width + 4)}`)}`.trimEnd() + '\n').join('')}`)
    .join('\n')
}

/** `hull explain`: Hull's own. */
export const explainDefinition: CommandDefinition = {
  usage: 'explain [OPTIONS] CONTAINER',
  summary: 'Show what really surrounds a running workload',
  arguments: [1, 1],
  flags: (command) => { command.option('-f, --format <string>', "'json', or readable sections by default") },
  run: async ({ client, streams }, flags, [container = '']) => {
    const answer = await client.json<Explanation>('GET', `/containers/${inPath(container)}/hull/explain`)
    if (textFlag(flags, 'format') === 'json') streams.stdout.write(`${JSON.stringify(answer)}\n`)
    else {
      streams.stdout.write(`${answer.Name.replace(/^\//, '')} (${answer.Id.slice(0, 12)}), isolation ${answer.Isolation}\n\n${formatSections(answer.Sections)}`)
    }
    return 0
  },
}
