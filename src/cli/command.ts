import { Command, CommanderError, type Option } from 'commander'
import type { Client } from './client.js'
import { UsageError } from './errors.js'
import type { Streams } from './terminal/session.js'

/** What a command works with. */
export interface Context {
  client: Client
  streams: Streams
}

/** Parsed flags, by commander's camel-cased long name. */
export type Flags = Record<string, unknown>

/** One command of the CLI. `run` resolves to the exit code. */
export interface CommandDefinition {
  /** As in Docker's help: 'run [OPTIONS] IMAGE [COMMAND] [ARG...]'. */
  usage: string
  summary: string
  /** Least and greatest number of arguments. */
  arguments: [least: number, most: number]
  /** Flags end at the first argument (run, create, exec, top), the rest belongs to the workload. */
  passThrough?: boolean
  flags: (command: Command) => void
  run: (context: Context, flags: Flags, args: string[]) => Promise<number>
}

/** Collects a flag that may be given more than once. */
export const collect = (value: string, previous?: string[]): string[] => [...(previous ?? []), value]

/** A parser for a flag of a whole number; the error is in pflag's words. */
export function integer(flag: string): (value: string) => number {
  return (value) => {
    if (!/^-?\d+$/.test(value) || !Number.isSafeInteger(Number(value))) {
      throw new UsageError(`invalid argument "${value}" for "${flag}" flag: strconv.ParseInt: parsing "${value}": invalid syntax`)
    }
    return Number(value)
  }
}

/** Puts pflag's frame round the error of a flag's parser. */
export function parsedBy<T>(flag: string, parse: (value: string) => T): (value: string) => T {
  return (value) => {
    try {
      return parse(value)
    } catch (error) {
      if (error instanceof UsageError) throw new UsageError(`invalid argument "${value}" for "${flag}" flag: ${error.message}`)
      throw error
    }
  }
}

/** Text of a flag, '' when it was not given. */
export const textFlag = (flags: Flags, name: string): string => (typeof flags[name] === 'string' ? flags[name] : '')
/** Values of a repeated flag. */
export const listFlag = (flags: Flags, name: string): string[] => (Array.isArray(flags[name]) ? (flags[name] as string[]) : [])
/** A number, undefined when it was not given. */
export const numberFlag = (flags: Flags, name: string): number | undefined => (typeof flags[name] === 'number' ? flags[name] : undefined)
/** A boolean. `--no-x` flags are `x` here, true unless given. */
export const boolFlag = (flags: Flags, name: string): boolean => flags[name] === true

/**
 * Rewrites what Go's pflag accepts and commander does not: `--flag=true|false` of a boolean flag and `-x=value`. Stops at `--` and,
 * with `passThrough`, at the first argument. commander cannot be told `--flag=false`: `off` has what such flags are, by commander's
 * name, for after the parsing. As in pflag the last spelling counts.
 */
export function normaliseArguments(command: Command, argv: readonly string[], passThrough: boolean): { words: string[]; off: Map<string, boolean> } {
  const result: string[] = []
  const off = new Map<string, boolean>()
  const find = (name: string) => command.options.find((option) => option.long === name || option.short === name)
  for (let i = 0; i < argv.length; i += 1) {
    const argument = argv[i]!
    if (argument === '--' || (passThrough && (argument === '-' || !argument.startsWith('-')))) {
      result.push(...argv.slice(i))
      break
    }
    const match = /^(--[^=]+|-[A-Za-z])=([\s\S]*)$/.exec(argument)
    const option = match ? find(match[1]!) : undefined
    if (match && option) {
      const value = match[2]!
      if (option.required || option.optional) {
        result.push(...(match[1]!.startsWith('--') ? [argument] : [match[1]! + value]))
        if (!match[1]!.startsWith('--') && value === '') result.splice(-1, 1, match[1]!, '')
        continue
      }
      const on = ['1', 't', 'T', 'true', 'TRUE', 'True'].includes(value)
      if (!on && !['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(value)) {
        throw new UsageError(`invalid argument "${value}" for "${option.flags}" flag: strconv.ParseBool: parsing "${value}": invalid syntax`)
      }
      if (on) {
        result.push(match[1]!)
        off.delete(option.attributeName())
      } else off.set(option.attributeName(), option.negate)
      continue
    }
    result.push(argument)
    for (const option of booleansIn(command, argument)) off.delete(option.attributeName())
    // A flag that takes its value from the next word: that word is no argument, whatever it looks like.
    const long = argument.startsWith('--') ? find(argument) : undefined
    const takesNext = long ? long.required : argument.startsWith('-') && !argument.startsWith('--') && shortTakesNext(command, argument)
    if (takesNext && i + 1 < argv.length) result.push(argv[(i += 1)]!)
  }
  return { words: result, off }
}

/** The boolean flags that a word turns on: `--rm`, or each letter of `-it` up to one that takes a value. */
function booleansIn(command: Command, argument: string): Option[] {
  const isBoolean = (option: Option | undefined): option is Option => option !== undefined && !option.required && !option.optional
  if (argument.startsWith('--')) return command.options.filter((option) => option.long === argument && isBoolean(option))
  const found: Option[] = []
  if (!argument.startsWith('-')) return found
  for (const letter of argument.slice(1)) {
    const option = command.options.find((candidate) => candidate.short === `-${letter}`)
    if (!isBoolean(option)) break
    found.push(option)
  }
  return found
}

function shortTakesNext(command: Command, argument: string): boolean {
  for (let i = 1; i < argument.length; i += 1) {
    const option = command.options.find((candidate) => candidate.short === `-${argument[i]}`)
    if (!option) return false
    if (option.required) return i === argument.length - 1
  }
  return false
}

function argumentError(definition: CommandDefinition, name: string, count: number): string | undefined {
  const [least, most] = definition.arguments
  if (count >= least && count <= most) return undefined
  const plural = (n: number) => `${n} argument${n === 1 ? '' : 's'}`
  if (most === 0) return `'hull ${name}' accepts no arguments`
  if (least === most) return `'hull ${name}' requires ${plural(least)}`
  if (count < least) return `'hull ${name}' requires at least ${plural(least)}`
  return `'hull ${name}' requires at most ${plural(most)}`
}

/** Parses `argv` (without the command's name) and runs the command. Help goes to stdout. */
export async function runCommand(name: string, definition: CommandDefinition, argv: readonly string[], context: Context): Promise<number> {
  const passThrough = definition.passThrough ?? false
  const command = new Command(`hull ${name}`)
  command
    .usage(definition.usage.slice(definition.usage.indexOf(' ') + 1))
    .description(definition.summary)
    .helpOption('--help', 'Print usage')
    .allowExcessArguments()
    .exitOverride()
    .passThroughOptions(passThrough)
    .argument('[arguments...]')
    .configureOutput({ writeErr: () => {}, writeOut: (text) => { context.streams.stdout.write(text) } })
  definition.flags(command)
  const usage = `\n\nUsage:  hull ${definition.usage}\n\nRun 'hull ${name} --help' for more information`
  try {
    const { words, off } = normaliseArguments(command, argv, passThrough)
    command.parse(words, { from: 'user' })
    for (const [flag, value] of off) command.setOptionValue(flag, value)
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return 0
      throw new UsageError(flagMessage(error.message) + usage)
    }
    if (error instanceof UsageError) throw new UsageError(error.message + usage, error.exitCode)
    throw error
  }
  const problem = argumentError(definition, name, command.args.length)
  if (problem) throw new UsageError(`hull: ${problem}${usage}`, 1)
  return definition.run(context, command.opts(), command.args)
}

/** commander's errors in pflag's words. */
function flagMessage(message: string): string {
  const unknown = /unknown option '(-[^']*)'/.exec(message)
  if (unknown) return unknown[1]!.startsWith('--') ? `unknown flag: ${unknown[1]}` : `unknown shorthand flag: '${unknown[1]![1]}' in ${unknown[1]}`
  const missing = /option '(?:-(\w), )?(--[\w-]+)?.*' argument missing/.exec(message)
  if (missing) return `flag needs an argument: ${missing[2] ?? `'${missing[1]}' in -${missing[1]}`}`
  return message.replace(/^error: /, '')
}
