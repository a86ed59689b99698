import { inPath } from '../client.js'
import { boolFlag, collect, listFlag, textFlag, type CommandDefinition } from '../command.js'
import { UsageError } from '../errors.js'
import { parseEnvironment } from '../options/values.js'
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from '../terminal/detach-keys.js'
import { followTerminalSize, rawTerminal, runSession } from '../terminal/session.js'

/** `hull exec`. */
export const execDefinition: CommandDefinition = {
  usage: 'exec [OPTIONS] CONTAINER COMMAND [ARG...]',
  summary: 'Execute a command in a running container',
  arguments: [2, Infinity],
  passThrough: true,
  flags: (command) => {
    command.option('-d, --detach', 'Detached mode: run command in the background')
    command.option('--detach-keys <string>', 'Override the key sequence for detaching a container')
    command.option('-e, --env <list>', 'Set environment variables', collect)
    command.option('--env-file <list>', 'Read in a file of environment variables', collect)
    command.option('-i, --interactive', 'Keep STDIN open even if not attached')
    command.option('--privileged', 'Give extended privileges to the command')
    command.option('-t, --tty', 'Allocate a pseudo-TTY')
    command.option('-u, --user <string>', 'Username or UID (format: "<name|uid>[:<group|gid>]")')
    command.option('-w, --workdir <string>', 'Working directory inside the container')
  },
  run: async (context, flags, [container = '', ...Cmd]) => {
    const { client, streams } = context
    const detach = boolFlag(flags, 'detach')
    const Tty = boolFlag(flags, 'tty')
    const interactive = boolFlag(flags, 'interactive')
    if (!detach && interactive && Tty && !streams.stdin.isTTY) throw new UsageError('the input device is not a TTY', 1)
    const detachKeysText = textFlag(flags, 'detachKeys')
    const detachKeys = parseDetachKeys(detachKeysText || DEFAULT_DETACH_KEYS)
    const { rows, columns } = streams.stdout
    const ConsoleSize = Tty && streams.stdout.isTTY && rows && columns ? [rows, columns] : undefined
    const { Id } = await client.json<{ Id: string }>('POST', `/containers/${inPath(container)}/exec`, {
      body: {
        AttachStdin: interactive && !detach, AttachStdout: !detach, AttachStderr: !detach, Tty, Cmd,
        Env: parseEnvironment(listFlag(flags, 'env'), listFlag(flags, 'envFile'), process.env),
        User: textFlag(flags, 'user'), WorkingDir: textFlag(flags, 'workdir'), Privileged: boolFlag(flags, 'privileged'),
        ...(detachKeysText ? { DetachKeys: detachKeysText } : {}),
        ...(ConsoleSize ? { ConsoleSize } : {}),
      },
    })
    const body = { Detach: detach, Tty, ...(ConsoleSize ? { ConsoleSize } : {}) }
    if (detach) {
      await client.call('POST', `/exec/${Id}/start`, { body })
      return 0
    }
    const { stream } = await client.hijack('POST', `/exec/${Id}/start`, { body })
    const restore = interactive && Tty ? rawTerminal(streams) : () => {}
    const unfollow = Tty ? followTerminalSize(client, `/exec/${Id}`, streams) : () => {}
    try {
      const ended = await runSession(stream, streams, { tty: Tty, stdin: interactive, stdout: true, stderr: true, detachKeys })
      if (ended === 'detached') {
        restore()
        streams.stderr.write('read escape sequence\n')
        return 0
      }
    } finally {
      restore()
      unfollow()
    }
    const { ExitCode } = await client.json<{ ExitCode: number | null }>('GET', `/exec/${Id}/json`)
    return ExitCode ?? 0
  },
}
