import { chown, constants, open, realpath, stat } from 'node:fs/promises'
import { statSync } from 'node:fs'
import { Command } from 'commander'
import { readCompose, writeIsolation, type ComposeFile } from '../../advise/compose.js'
import { factsOfInfo, withComparison, type InfoLike } from '../../advise/facts.js'
import { judge } from '../../advise/judge.js'
import { needsOfContainer, type ContainerLike } from '../../advise/needs.js'
import { formatAdvice } from '../../advise/report.js'
import { IO_PROFILES, TRUSTS, type Advice, type Asked, type Facts, type IoProfile, type Needs, type Trust } from '../../advise/types.js'
import { codeOf, messageOf } from '../../base/errors.js'
import { writeFileAtomic } from '../../base/files.js'
import { lastComparison, readComparison, storedPath } from '../../compare/stored.js'
import { inPath } from '../client.js'
import { boolFlag, integer, numberFlag, parsedBy, textFlag, type CommandDefinition, type Context, type Flags } from '../command.js'
import { ApiError, CliError, UsageError } from '../errors.js'
import { requireDuration } from '../format/units.js'
import { containerBody, containerFlags } from '../options/container.js'

/** Larger than any Compose file (compose.ts says what is too large); bytes. */
const LARGEST_FILE = 4 << 20

async function readText(path: string): Promise<string> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK) // a FIFO without a writer must not hold us
    try {
      const found = await file.stat()
      if (!found.isFile()) throw new Error('not a regular file')
      if (found.size > LARGEST_FILE) throw new Error(`larger than ${LARGEST_FILE} bytes`)
      return await file.readFile('utf8')
    } finally {
      await file.close()
    }
  } catch (error) {
    throw new CliError(`open ${path}: ${codeOf(error) === 'ENOENT' ? 'no such file or directory' : messageOf(error)}`, 1, { cause: error })
  }
}

const isFile = (path: string) => statSync(path, { throwIfNoEntry: false })?.isFile() === true
const oneOf = <T extends string>(flag: string, values: readonly T[]) => parsedBy(flag, (value) => {
  const found = values.find((candidate) => candidate === value)
  if (!found) throw new UsageError(`must be one of ${values.join(', ')}`)
  return found
})

function askedOf(flags: Flags): Asked {
  const instances = numberFlag(flags, 'instances') ?? 1
  if (instances < 1) throw new UsageError(`invalid argument "${instances}" for "--instances" flag: must be at least 1`)
  const budget = numberFlag(flags, 'startBudget')
  return {
    trust: (textFlag(flags, 'trust') || 'unknown') as Trust, kernel: textFlag(flags, 'kernel'), modules: boolFlag(flags, 'modules'), io: (textFlag(flags, 'io') || 'light') as IoProfile,
    startBudget: budget === undefined ? null : budget / 1e6, instances,
  }
}

/** Hull's own flags, which all three forms take. */
function ownFlags(command: Command): void {
  command.option('--trust <string>', `Who wrote the code: ${TRUSTS.join(', ')} (default unknown)`, oneOf('--trust', TRUSTS))
  command.option('--kernel <string>', 'A kernel version that it must have (6.1)')
  command.option('--modules', 'It loads kernel modules of its own')
  command.option('--io <string>', `What it does most: ${IO_PROFILES.join(', ')} (default light)`, oneOf('--io', IO_PROFILES))
  command.option('--start-budget <duration>', 'What create, start, first output and exit may take together (ms|s|m|h)', parsedBy('--start-budget', requireDuration))
  command.option('--instances <int>', 'How many must run at the same time', integer('--instances'))
  command.option('--facts <string>', 'The JSON of a `hull compare` on this host (default: the last one)')
  command.option('--write', "Set each service's isolation in the Compose file")
  command.option('-f, --format <string>', "'json', or lines by default")
}

/** Names of the flags that belong to `hull run` and were given. */
function runFlags(flags: Flags): string[] {
  const own = new Command()
  ownFlags(own)
  const names = new Set(own.options.map((option) => option.attributeName()))
  // commander's --no-x is x, and true unless given
  return Object.entries(flags).filter(([name, value]) => !names.has(name) && value !== undefined && !(name === 'healthcheck' && value === true)).map(([name]) => name)
}

/** What a name means: a container if there is one and no flag of `hull run` speaks of an image; else an image. */
async function needsOfWords({ client }: Context, words: string[], flags: Flags, asked: Asked, runtime: string): Promise<Needs> {
  const [name = '', ...command] = words
  if (words.length === 1 && runFlags(flags).length === 0) {
    try {
      return needsOfContainer(name, await client.json<ContainerLike>('GET', `/containers/${inPath(name)}/json`), asked, runtime)
    } catch (error) {
      if (!(error instanceof ApiError && error.statusCode === 404)) throw error
    }
  }
  return needsOfContainer(name, containerBody(flags, name, command, process.env, process.cwd()), asked, runtime)
}

async function composeOf(path: string, asked: Asked): Promise<ComposeFile> {
  const source = await readText(path)
  try {
    return readCompose(source, asked)
  } catch (error) {
    throw new CliError(`${path}: ${messageOf(error)}`, 1, { cause: error })
  }
}

/** Replaces the file whole, with its owner and mode: a reader sees the old one or the new one. A symbolic link stays one. */
async function replace(path: string, text: string): Promise<void> {
  const target = await realpath(path)
  const { mode, uid, gid } = await stat(target)
  await writeFileAtomic(target, text, mode & 0o777)
  const now = await stat(target)
  if (now.uid !== uid || now.gid !== gid) await chown(target, uid, gid)
}

async function writeChoices(path: string, file: ComposeFile, advice: readonly Advice[]): Promise<void> {
  try {
    const choices = new Map(advice.flatMap(({ name, isolation }) => (isolation ? [[name, isolation] as const] : [])))
    if (choices.size < advice.length) throw new Error(`no isolation satisfies ${advice.filter(({ isolation }) => !isolation).map(({ name }) => JSON.stringify(name)).join(', ')}`)
    const changed = writeIsolation(file, choices)
    if (changed === file.source) return
    if ((await readText(path)) !== file.source) throw new Error('it was changed meanwhile')
    await replace(path, changed)
  } catch (error) {
    throw new CliError(`${path}: nothing written: ${messageOf(error)}`, 1, { cause: error })
  }
}

async function factsOf({ client }: Context, path: string): Promise<{ facts: Facts; runtime: string }> {
  const info = await client.json<InfoLike & { DefaultRuntime?: string }>('GET', '/info')
  const facts = factsOfInfo(info)
  const runtime = info.DefaultRuntime ?? ''
  try {
    const comparison = path === '' ? await lastComparison() : await readComparison(path)
    return { facts: comparison ? withComparison(facts, comparison) : facts, runtime }
  } catch (error) {
    // Nobody asked for that one: an old file must not stand in the way.
    if (path === '') return { facts: { ...facts, notes: [`${storedPath()} is left aside: ${messageOf(error)}`] }, runtime }
    throw new CliError(`${path}: ${codeOf(error) === 'ENOENT' ? 'no such file or directory' : messageOf(error)}`, 1, { cause: error })
  }
}

/** `hull advise`: Hull's own. Exit code 1 when a workload's needs exclude one another. */
export const adviseDefinition: CommandDefinition = {
  usage: 'advise [OPTIONS] COMPOSE-FILE | CONTAINER | [RUN OPTIONS] IMAGE [COMMAND] [ARG...]',
  summary: 'Say which isolation fits a workload on this host, and why',
  arguments: [1, Infinity],
  flags: (command) => {
    ownFlags(command)
    command.option('-d, --detach', 'Run container in background and print container ID')
    containerFlags(command)
  },
  run: async (context, flags, words) => {
    const [first = ''] = words
    const format = textFlag(flags, 'format')
    if (format !== '' && format !== 'json') throw new UsageError(`invalid argument "${format}" for "-f, --format" flag: must be json`)
    const asked = askedOf(flags)
    const asFile = words.length === 1 && (/\.ya?ml$/i.test(first) || (first.includes('/') && isFile(first)))
    if (boolFlag(flags, 'write') && !asFile) throw new UsageError('--write is for a Compose file')
    if (asFile && runFlags(flags).length > 0) throw new UsageError('flags of hull run are for an image: a Compose file says them itself')
    const file = asFile ? await composeOf(first, asked) : undefined
    const { facts, runtime } = await factsOf(context, textFlag(flags, 'facts'))
    const needs = file ? file.services.map((service) => service.needs) : [await needsOfWords(context, words, flags, asked, runtime)]
    const advice = needs.map((one) => judge(one, facts))
    context.streams.stdout.write(format === 'json' ? `${JSON.stringify({ facts, advice })}\n` : formatAdvice(advice))
    if (file && boolFlag(flags, 'write')) await writeChoices(first, file, advice)
    return advice.some(({ isolation }) => isolation === null) ? 1 : 0
  },
}
