import { messageOf } from '../../base/errors.js'
import { shellWord } from '../../base/shell.js'
import { compare, MEASURED, ON_REQUEST, type MeasuredSection } from '../../compare/compare.js'
import { differencesOf, renderDiff } from '../../compare/report/diff.js'
import { storeComparison } from '../../compare/stored.js'
import { ISOLATIONS, type IsolationName } from '../../compare/types.js'
import { boolFlag, integer, numberFlag, textFlag, type CommandDefinition, type Context, type Flags } from '../command.js'
import { CliError, UsageError } from '../errors.js'
import { openComparison, screenOf, showComparison } from '../format/comparison.js'

/** A list of words out of those that there are. */
function listOf<T extends string>(flags: Flags, name: string, known: readonly T[], standard: readonly T[] = known): readonly T[] {
  const text = textFlag(flags, name)
  if (text === '') return standard
  const words = [...new Set(text.split(',').map((word) => word.trim()))]
  for (const word of words) if (!known.some((one) => one === word)) throw new UsageError(`invalid argument "${word}" for "--${name}" flag: want some of ${known.join(', ')}`)
  return known.filter((one) => words.includes(one))
}

function number(flags: Flags, name: string, standard: number, least: number, most: number): number {
  const value = numberFlag(flags, name) ?? standard
  if (value < least || value > most) throw new UsageError(`invalid argument "${value}" for "--${name}" flag: want ${least} to ${most}`)
  return value
}

async function measure({ client, streams }: Context, flags: Flags, words: readonly string[], output: { format: 'table' | 'json'; html: string }): Promise<number> {
  const [image = '', ...command] = words
  const port = numberFlag(flags, 'port') === undefined ? null : number(flags, 'port', 0, 1, 65_535)
  const isolations = listOf<IsolationName>(flags, 'isolation', ISOLATIONS)
  const sections = listOf<MeasuredSection>(flags, 'sections', MEASURED, MEASURED.filter((one) => !ON_REQUEST.includes(one)))
  const density = number(flags, 'density', 20, 2, 10_000)
  const probe = textFlag(flags, 'probe')
  const seconds = number(flags, 'time', 480, 10, 86_400)
  const ended = new AbortController()
  const onSignal = () => ended.abort(new CliError('compare was ended: what it started is removed', 130))
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal)
  const shown = Boolean(process.stderr.isTTY)
  const progress = (text: string) => {
    if (shown) process.stderr.write(`\r\x1b[K${text.slice(0, (process.stderr.columns || 80) - 1)}`)
  }
  try {
    const comparison = await compare({
      client, image, command, port, isolations, sections, density, probe, seconds, signal: ended.signal, progress,
      commandLine: ['hull', 'compare', ...(port === null ? [] : ['--port', String(port)]), '--isolation', isolations.join(','), '--sections', sections.join(','), '--density', String(density), ...(probe === '' ? [] : ['--probe', probe]), '--time', String(seconds), image, ...command].map(shellWord).join(' '),
    })
    progress('')
    await storeComparison(comparison).catch((error: unknown) => {
      process.stderr.write(`hull compare: not kept for hull advise: ${messageOf(error)}\n`)
    })
    await showComparison(streams, comparison, output)
    return 0
  } finally {
    progress('')
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, onSignal)
  }
}

/** `hull compare`: Hull's own. */
export const compareDefinition: CommandDefinition = {
  usage: 'compare [OPTIONS] IMAGE [COMMAND] [ARG...] | --show FILE | --diff FILE FILE',
  summary: 'Measure an image as container and VM; show what was measured, or the difference of two',
  arguments: [0, Infinity],
  passThrough: true,
  flags: (command) => {
    command.option('-p, --port <int>', 'Port of the container whose first HTTP 200 is waited for', integer('-p, --port'))
    command.option('--isolation <string>', `Only these: ${ISOLATIONS.join(', ')}`)
    command.option('--sections <string>', `Only these: ${MEASURED.join(', ')} (without it, all but ${ON_REQUEST.join(', ')})`)
    command.option('--density <int>', 'Instances that are really started at once (default 20)', integer('--density'))
    command.option('--probe <image>', 'Image with the tools for section perf, run on the bare host, too (default: one that is made of Debian packages, once)')
    command.option('--time <int>', 'Seconds for all of it, about (default 480)', integer('--time'))
    command.option('--show <file>', 'Show the comparison in this file')
    command.option('--diff', 'Show what changed between two: two hosts, or two versions')
    command.option('--html <string>', 'Write the comparison as a page to this file, too')
    command.option('-f, --format <string>', "'table' or 'json'")
  },
  run: async (context, flags, words) => {
    const { streams } = context
    const format = textFlag(flags, 'format') || 'table'
    if (format !== 'table' && format !== 'json') throw new UsageError(`invalid argument "${format}" for "-f, --format" flag: must be table or json`)
    const [first = '', second = ''] = words
    const html = textFlag(flags, 'html')
    const show = textFlag(flags, 'show')
    if (boolFlag(flags, 'diff')) {
      if (words.length !== 2 || show !== '') throw new UsageError('--diff wants two files')
      if (html !== '') throw new UsageError('--html is for one comparison')
      const [a, b] = [await openComparison(first), await openComparison(second)]
      streams.stdout.write(format === 'json' ? `${JSON.stringify(differencesOf(a, b), null, 1)}\n` : renderDiff(a, b, { ...screenOf(streams), names: [first, second] }))
      return 0
    }
    if (show === '' && words.length === 0) throw new UsageError('want an IMAGE, --show FILE or --diff FILE FILE')
    if (show === '') return measure(context, flags, words, { format, html })
    if (words.length > 0) throw new UsageError('--show wants one file')
    await showComparison(streams, await openComparison(show), { format, html })
    return 0
  },
}
