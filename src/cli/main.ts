import { codeOf, messageOf } from '../base/errors.js'
import { commands, groups } from './commands.js'
import { DEFAULT_HOST } from './defaults.js'
import { CliError, UsageError } from './errors.js'
import type { Streams } from './terminal/session.js'

/** Flags before the command. */
interface GlobalFlags { host: string; rest: string[]; help: boolean; version: boolean; debug: boolean }

function globalFlags(argv: readonly string[]): GlobalFlags {
  const flags: GlobalFlags = { host: process.env.HULL_HOST || DEFAULT_HOST, rest: [], help: false, version: false, debug: Boolean(process.env.HULL_DEBUG) }
  for (let i = 0; i < argv.length; i += 1) {
    const argument = argv[i]!
    if (argument === '-H' || argument === '--host') {
      const value = argv[(i += 1)]
      if (value === undefined) throw new UsageError(`flag needs an argument: ${argument}`)
      flags.host = value
    } else if (argument.startsWith('--host=')) flags.host = argument.slice('--host='.length)
    else if (/^-H./.test(argument)) flags.host = argument.slice(2).replace(/^=/, '')
    else if (argument === '--help') flags.help = true
    else if (argument === '-v' || argument === '--version') flags.version = true
    else if (argument === '-D' || argument === '--debug') flags.debug = true
    else if (argument.startsWith('-') && argument !== '-') throw new UsageError(`unknown flag: ${argument}\n\nUsage:  hull [OPTIONS] COMMAND\n\nRun 'hull --help' for more information`)
    else {
      flags.rest = argv.slice(i)
      break
    }
  }
  return flags
}

function help(): string {
  const rows = Object.entries(commands).filter(([, entry]) => !entry.hidden)
  const lines = (from: number, to?: number) => rows.slice(from, to).map(([name, entry]) => `  ${name.padEnd(10)}  ${entry.summary}\n`).join('')
  return `Usage:  hull [OPTIONS] COMMAND

One OCI image, two walls: containers and virtual machines

Common Commands:
${lines(0, 12)}
Commands:
${lines(12)}
Global Options:
  -D, --debug           Print the stack of an unexpected error
  -H, --host string     Daemon socket to connect to (default "${DEFAULT_HOST}", or HULL_HOST)
  -v, --version         Print version information and quit
      --help            Print usage

Run 'hull COMMAND --help' for more information on a command.
`
}

/** The command's name and its arguments: `container ls -a` is `ps -a`, `help run` is `run --help`. */
function resolve(words: readonly string[]): { name: string; argv: string[] } {
  const [first = '', second, ...rest] = words
  if (first === 'help' && second) return { name: second, argv: ['--help'] }
  const group = Object.hasOwn(groups, first) ? groups[first] : undefined
  if (!group) return { name: first, argv: words.slice(1) }
  const name = second && Object.hasOwn(group, second) ? group[second] : undefined
  if (!name) throw new UsageError(`hull: unknown command: ${words.slice(0, 2).join(' ')}\n\nRun 'hull --help' for more information`, 1)
  return { name, argv: first !== 'system' && name === 'inspect' ? [`--type=${first}`, ...rest] : rest }
}

async function dispatch(argv: readonly string[], streams: Streams): Promise<number> {
  const flags = globalFlags(argv)
  if (flags.version) {
    streams.stdout.write(`Hull version ${(await import('./version.js')).VERSION}\n`)
    return 0
  }
  if (flags.help || flags.rest.length === 0 || (flags.rest[0] === 'help' && flags.rest.length === 1)) {
    streams.stdout.write(help())
    return 0
  }
  const { name, argv: rest } = resolve(flags.rest)
  if (name === 'daemon') {
    // The one place where the CLI reaches into the daemon: `hull daemon` IS the daemon, which reads its own flags.
    // eslint-disable-next-line import-x/no-restricted-paths
    const { runDaemon } = await import('../daemon/main.js')
    return runDaemon(rest)
  }
  const entry = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (!entry) throw new UsageError(`hull: unknown command: hull ${name}\n\nRun 'hull --help' for more information`, 1)
  const [definition, { runCommand }, { Client }] = await Promise.all([entry.load(), import('./command.js'), import('./client.js')])
  // Only the default daemon is ours to start; another socket is somebody else's daemon. `version` and `doctor` tell what there is.
  const mayStart = flags.host === DEFAULT_HOST && name !== 'version' && name !== 'doctor'
  const client = new Client(flags.host, mayStart ? async () => (await import('./autostart.js')).startDaemon(flags.host, streams.stderr) : undefined)
  return runCommand(name, definition, rest, { client, streams })
}

/** Runs the command line and ends the process with its exit code. */
export async function main(argv: readonly string[]): Promise<never> {
  const streams: Streams = process
  // `hull logs x | head`: whoever read us has gone, and nothing is left to say.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error) => { process.exit(codeOf(error) === 'EPIPE' ? 0 : 1) })
  }
  try {
    process.exit(await dispatch(argv, streams))
  } catch (error) {
    const unexpected = !(error instanceof CliError)
    process.stderr.write(`${unexpected && process.env.HULL_DEBUG ? (error as Error).stack : messageOf(error)}\n`)
    process.exit(unexpected ? 1 : error.exitCode)
  }
}
