import { inPath } from '../client.js'
import type { ContainerDetails } from '../api.js'
import { boolFlag, textFlag, type CommandDefinition, type Context, type Flags } from '../command.js'
import { CliError, UsageError } from '../errors.js'
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from '../terminal/detach-keys.js'
import { followTerminalSize, proxySignals, rawTerminal, runSession } from '../terminal/session.js'
import { type WaitAnswer, workloadExitCode } from '../wait.js'

/** Output and, on request, input of a container that runs or (with `start`) is about to. */
async function session(context: Context, details: ContainerDetails, flags: Flags, options: { stdin: boolean; start: boolean }): Promise<number> {
  const { client, streams } = context
  const id = details.Id
  const tty = details.Config.Tty
  const detachKeysText = textFlag(flags, 'detachKeys')
  const detachKeys = parseDetachKeys(detachKeysText || DEFAULT_DETACH_KEYS)
  const stdin = options.stdin && details.Config.OpenStdin
  const waiting = new AbortController()
  const stopProxy = !tty && flags.sigProxy !== false ? proxySignals(client, id) : () => {}
  let restore = () => {}
  let unfollow = () => {}
  try {
    const condition = options.start ? (details.HostConfig.AutoRemove ? 'removed' : 'next-exit') : undefined
    const { stream } = await client.hijack('POST', `/containers/${id}/attach`, {
      query: { stream: true, stdin, stdout: true, stderr: true, detachKeys: detachKeysText },
    })
    const exit = client.json<WaitAnswer>('POST', `/containers/${id}/wait`, {
      query: { condition }, signal: waiting.signal,
    })
    exit.catch(() => {})
    const running = runSession(stream, streams, { tty, stdin, stdout: true, stderr: true, detachKeys })
    running.catch(() => {})
    if (stdin && tty) restore = rawTerminal(streams)
    if (options.start) await client.call('POST', `/containers/${id}/start`, { query: { detachKeys: detachKeysText } })
    if (tty) unfollow = followTerminalSize(client, `/containers/${id}`, streams)
    if ((await running) === 'detached') {
      restore()
      streams.stderr.write('read escape sequence\n')
      return 0
    }
    if (options.start) return await workloadExitCode(exit, streams)
    const result = await exit
    if (result?.Error?.Message) throw new CliError(result.Error.Message)
    if (result?.StatusCode === undefined) throw new CliError('error waiting for container: the daemon gave no answer')
    return result.StatusCode
  } finally {
    restore()
    unfollow()
    stopProxy()
    waiting.abort()
  }
}

/** `hull attach`. */
export const attachDefinition: CommandDefinition = {
  usage: 'attach [OPTIONS] CONTAINER',
  summary: 'Attach local standard input, output, and error streams to a running container',
  arguments: [1, 1],
  flags: (command) => {
    command.option('--detach-keys <string>', 'Override the key sequence for detaching a container')
    command.option('--no-stdin', 'Do not attach STDIN')
    command.option('--sig-proxy', 'Proxy all received signals to the process (default true)', true)
    command.option('--no-sig-proxy', 'Do not proxy received signals')
  },
  run: async (context, flags, [name = '']) => {
    const details = await context.client.json<ContainerDetails>('GET', `/containers/${inPath(name)}/json`)
    if (!details.State.Running) throw new CliError('You cannot attach to a stopped container, start it first')
    if (details.State.Paused) throw new CliError('You cannot attach to a paused container, unpause it first')
    if (details.State.Restarting) throw new CliError('You cannot attach to a restarting container, wait until it is running')
    const stdin = flags.stdin !== false
    if (stdin && details.Config.OpenStdin && details.Config.Tty && !context.streams.stdin.isTTY) throw new UsageError('the input device is not a TTY', 1)
    return session(context, details, flags, { stdin, start: false })
  },
}

/** `hull start`. */
export const startDefinition: CommandDefinition = {
  usage: 'start [OPTIONS] CONTAINER [CONTAINER...]',
  summary: 'Start one or more stopped containers',
  arguments: [1, Infinity],
  flags: (command) => {
    command.option('-a, --attach', 'Attach STDOUT/STDERR and forward signals')
    command.option('--detach-keys <string>', 'Override the key sequence for detaching a container')
    command.option('-i, --interactive', "Attach container's STDIN")
  },
  run: async (context, flags, names) => {
    const { client, streams } = context
    if (boolFlag(flags, 'attach') || boolFlag(flags, 'interactive')) {
      if (names.length > 1) throw new CliError('you cannot start and attach multiple containers at once')
      const details = await client.json<ContainerDetails>('GET', `/containers/${inPath(names[0]!)}/json`)
      return session(context, details, flags, { stdin: boolFlag(flags, 'interactive'), start: true })
    }
    const failed: string[] = []
    for (const name of names) {
      try {
        await client.call('POST', `/containers/${inPath(name)}/start`)
        streams.stdout.write(`${name}\n`)
      } catch (error) {
        if (!(error instanceof CliError)) throw error
        streams.stderr.write(`${error.message}\n`)
        failed.push(name)
      }
    }
    if (failed.length > 0) throw new CliError(`Error: failed to start containers: ${failed.join(', ')}`)
    return 0
  },
}
