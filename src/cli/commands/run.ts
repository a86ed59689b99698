import { closeSync, openSync, unlinkSync, writeFileSync } from 'node:fs'
import { codeOf, messageOf } from '../../base/errors.js'
import { type CommandDefinition, type Context, type Flags, boolFlag, textFlag } from '../command.js'
import { ApiError, CliError, UsageError } from '../errors.js'
import { attachments, containerBody, containerFlags } from '../options/container.js'
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from '../terminal/detach-keys.js'
import { followTerminalSize, proxySignals, rawTerminal, runSession } from '../terminal/session.js'
import { type WaitAnswer, workloadExitCode } from '../wait.js'
import { pullImage } from './pull.js'

/** The docker CLI's reading of a failed start: 127 not found, 126 not runnable, 125 everything else. */
export function startExitCode(message: string): number {
  if (/executable file not found|no such file or directory/i.test(message)) return 127
  if (/permission denied|is a directory|exec format error/i.test(message)) return 126
  return 125
}

/** --cidfile: made before the container, so that a file that is there already stops us in time. */
class IdFile {
  private written = false
  constructor(private readonly path: string) {
    if (path === '') return
    try {
      closeSync(openSync(path, 'wx'))
    } catch (error) {
      if (codeOf(error) === 'EEXIST') throw new CliError(`container ID file found, make sure the other container isn't running or delete ${path}`, 125)
      throw new CliError(`failed to create the container ID file: ${messageOf(error)}`, 125)
    }
  }
  write(id: string): void {
    if (this.path === '') return
    writeFileSync(this.path, id)
    this.written = true
  }
  /** Removes the file if no container came of it. */
  close(): void {
    if (this.path !== '' && !this.written) unlinkSync(this.path)
  }
}

/** Creates the container of `run` and `create`, pulling the image when it is not there. */
async function createContainer(context: Context, flags: Flags, args: string[]): Promise<{ id: string; body: Record<string, unknown> }> {
  const [image, ...command] = args as [string, ...string[]]
  const { client, streams } = context
  const body = containerBody(flags, image, command, process.env, process.cwd())
  const pull = textFlag(flags, 'pull') || 'missing'
  if (!['always', 'missing', 'never'].includes(pull)) throw new UsageError(`invalid pull option: '${pull}': must be one of "always", "missing" or "never"`)
  if (boolFlag(flags, 'tty') && streams.stdout.isTTY && streams.stdout.rows && streams.stdout.columns) {
    // Known at the start, so that a program that asks at once is not told 0×0.
    ;(body.HostConfig as Record<string, unknown>).ConsoleSize = [streams.stdout.rows, streams.stdout.columns]
  }
  const idFile = new IdFile(textFlag(flags, 'cidfile'))
  try {
    const query = { name: textFlag(flags, 'name'), platform: textFlag(flags, 'platform') }
    const fetch = () => pullImage(context, image, { platform: textFlag(flags, 'platform'), quiet: boolFlag(flags, 'quiet'), screen: streams.stderr })
    const create = () => client.json<{ Id: string; Warnings?: string[] | null }>('POST', '/containers/create', { query, body })
    if (pull === 'always') await fetch()
    let created
    try {
      created = await create()
    } catch (error) {
      const absent = error instanceof ApiError && error.statusCode === 404 && /no such image/i.test(error.daemonMessage)
      if (!absent || pull !== 'missing') throw error
      if (!boolFlag(flags, 'quiet')) streams.stderr.write(`Unable to find image '${withTag(image)}' locally\n`)
      await fetch()
      created = await create()
    }
    for (const warning of created.Warnings ?? []) streams.stderr.write(`WARNING: ${warning}\n`)
    idFile.write(created.Id)
    return { id: created.Id, body }
  } finally {
    idFile.close()
  }
}

function withTag(image: string): string {
  return /[:@][^/]*$/.test(image) || /^[0-9a-f]{64}$/.test(image) ? image : `${image}:latest`
}

/** Any failure before the workload runs is exit code 125, in the words that name this program. */
function asRunError(error: unknown, name: string): Error {
  if (error instanceof UsageError) return error
  const code = error instanceof ApiError ? startExitCode(error.daemonMessage) : error instanceof CliError && error.exitCode > 1 ? error.exitCode : 125
  return new CliError(`hull: ${messageOf(error)}\n\nRun 'hull ${name} --help' for more information`, code)
}

async function run(context: Context, flags: Flags, args: string[]): Promise<number> {
  const { client, streams } = context
  const tty = boolFlag(flags, 'tty')
  const attached = attachments(flags)
  const interactive = attached.stdin
  if (interactive && tty && !streams.stdin.isTTY) throw new UsageError('the input device is not a TTY', 1)
  const detachKeys = parseDetachKeys(textFlag(flags, 'detachKeys') || DEFAULT_DETACH_KEYS)
  let id: string
  try {
    id = (await createContainer(context, flags, args)).id
  } catch (error) {
    throw asRunError(error, 'run')
  }
  if (!attached.stdin && !attached.stdout && !attached.stderr) {
    try {
      await client.call('POST', `/containers/${id}/start`)
    } catch (error) {
      throw asRunError(error, 'run')
    }
    streams.stdout.write(`${id}\n`)
    return 0
  }

  // Signals that come before the start are for the container as well: the daemon answers that it does not run, and they are lost, as with Docker.
  const stopProxy = !tty && flags.sigProxy !== false ? proxySignals(client, id) : () => {}
  const waiting = new AbortController()
  let restore = () => {}
  let unfollow = () => {}
  try {
    const { stream } = await client.hijack('POST', `/containers/${id}/attach`, {
      query: { stream: true, stdin: attached.stdin, stdout: attached.stdout, stderr: attached.stderr, detachKeys: textFlag(flags, 'detachKeys') },
    })
    // Registered before the start, so that the shortest of lives is seen.
    const condition = boolFlag(flags, 'rm') ? 'removed' : 'next-exit'
    const exit = client.json<WaitAnswer>('POST', `/containers/${id}/wait`, {
      query: { condition }, signal: waiting.signal,
    })
    exit.catch(() => {})
    const session = runSession(stream, streams, { tty, stdin: interactive, stdout: attached.stdout, stderr: attached.stderr, detachKeys })
    session.catch(() => {})
    if (interactive && tty) restore = rawTerminal(streams)
    try {
      await client.call('POST', `/containers/${id}/start`)
    } catch (error) {
      stream.destroy()
      // --rm: the daemon removes what could not be started; not before that is done may this command end.
      if (condition === 'removed') await Promise.race([exit.catch(() => {}), new Promise((resolve) => { setTimeout(resolve, 5000).unref() })])
      throw asRunError(error, 'run')
    }
    if (tty) unfollow = followTerminalSize(client, `/containers/${id}`, streams)
    if ((await session) === 'detached') {
      restore()
      streams.stderr.write('read escape sequence\n')
      return 0
    }
    return await workloadExitCode(exit, streams)
  } finally {
    restore()
    unfollow()
    stopProxy()
    waiting.abort()
  }
}

/** `hull run`. */
export const runDefinition: CommandDefinition = {
  usage: 'run [OPTIONS] IMAGE [COMMAND] [ARG...]',
  summary: 'Create and run a new container from an image',
  arguments: [1, Infinity],
  passThrough: true,
  flags: (command) => {
    containerFlags(command)
    command.option('-d, --detach', 'Run container in background and print container ID')
    command.option('--detach-keys <string>', 'Override the key sequence for detaching a container')
    command.option('--sig-proxy', 'Proxy received signals to the process (default true)', true)
    command.option('--no-sig-proxy', 'Do not proxy received signals')
  },
  run,
}

/** `hull create`. */
export const createDefinition: CommandDefinition = {
  usage: 'create [OPTIONS] IMAGE [COMMAND] [ARG...]',
  summary: 'Create a new container',
  arguments: [1, Infinity],
  passThrough: true,
  flags: containerFlags,
  run: async (context, flags, args) => {
    try {
      const { id } = await createContainer(context, flags, args)
      context.streams.stdout.write(`${id}\n`)
      return 0
    } catch (error) {
      const failed = asRunError(error, 'create')
      throw failed instanceof UsageError ? failed : new CliError(failed.message, error instanceof ApiError ? 1 : 125)
    }
  },
}
