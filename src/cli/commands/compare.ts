import { differencesOf, renderDiff } from '../../compare/report/diff.js'
import { boolFlag, textFlag, type CommandDefinition } from '../command.js'
import { UsageError } from '../errors.js'
import { openComparison, screenOf, showComparison } from '../format/comparison.js'

/** `hull compare`: Hull's own. Reports of comparisons that were measured; they ask no daemon. */
export const compareDefinition: CommandDefinition = {
  usage: 'compare --show FILE | --diff FILE FILE [OPTIONS]',
  summary: 'Show a measured comparison of container and VM, or the difference of two',
  arguments: [1, 2],
  flags: (command) => {
    command.option('--show', 'Show the comparison in FILE')
    command.option('--diff', 'Show what changed between two: two hosts, or two versions')
    command.option('--html <string>', 'Write the comparison as a page to this file, too')
    command.option('-f, --format <string>', "'table' or 'json'")
  },
  run: async ({ streams }, flags, words) => {
    const format = textFlag(flags, 'format') || 'table'
    if (format !== 'table' && format !== 'json') throw new UsageError(`invalid argument "${format}" for "-f, --format" flag: must be table or json`)
    const [first = '', second] = words
    const html = textFlag(flags, 'html')
    if (boolFlag(flags, 'diff')) {
      if (second === undefined || boolFlag(flags, 'show')) throw new UsageError('--diff wants two files')
      if (html !== '') throw new UsageError('--html is for one comparison')
      const [a, b] = [await openComparison(first), await openComparison(second)]
      streams.stdout.write(format === 'json' ? `${JSON.stringify(differencesOf(a, b), null, 1)}\n` : renderDiff(a, b, { ...screenOf(streams), names: [first, second] }))
      return 0
    }
    if (!boolFlag(flags, 'show') || second !== undefined) throw new UsageError('want --show FILE or --diff FILE FILE')
    await showComparison(streams, await openComparison(first), { format, html })
    return 0
  },
}
