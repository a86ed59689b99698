import { inPath } from '../client.js'
import type { ContainerDetails } from '../api.js'
import { boolFlag, integer, numberFlag, textFlag, type CommandDefinition, type Context, type Flags } from '../command.js'
import { ApiError, CliError } from '../errors.js'
import { splitReference } from './pull.js'

/** Does `act` for each name, prints what it returns; errors go to stderr and make the exit code 1, and the others are still done. */
async function each(context: Context, names: readonly string[], act: (reference: string) => Promise<string | undefined>): Promise<number> {
  let failed = false
  // All at once: stopping ten containers takes as long as the slowest. Printed in the order asked for.
  const results = await Promise.allSettled(names.map((name) => act(inPath(name))))
  for (const [i, result] of results.entries()) {
    if (result.status === 'fulfilled') {
      if (result.value !== '') context.streams.stdout.write(`${result.value ?? names[i]!}\n`)
    } else if (result.reason instanceof CliError) {
      failed = true
      context.streams.stderr.write(`${result.reason.message}\n`)
    } else throw result.reason
  }
  return failed ? 1 : 0
}

const many = [1, Infinity] as [number, number]
const time = (flags: Flags) => numberFlag(flags, 'timeout') ?? numberFlag(flags, 'time')

/** `hull stop` and `hull restart`. */
const stopLike = (verb: 'stop' | 'restart', summary: string): CommandDefinition => ({
  usage: `${verb} [OPTIONS] CONTAINER [CONTAINER...]`,
  summary,
  arguments: many,
  flags: (command) => {
    command.option('-s, --signal <string>', 'Signal to send to the container')
    command.option('-t, --timeout <int>', 'Seconds to wait before killing the container', integer('-t, --timeout'))
    command.option('--time <int>', 'The same as --timeout', integer('--time'))
  },
  run: (context, flags, names) => each(context, names, async (reference) => {
    await context.client.call('POST', `/containers/${reference}/${verb}`, { query: { signal: textFlag(flags, 'signal'), t: time(flags) } })
    return undefined
  }),
})

/** A command that is one POST for each container. */
const verb = (name: string, summary: string): CommandDefinition => ({
  usage: `${name} CONTAINER [CONTAINER...]`,
  summary,
  arguments: many,
  flags: () => {},
  run: (context, _flags, names) => each(context, names, async (reference) => {
    await context.client.call('POST', `/containers/${reference}/${name}`)
    return undefined
  }),
})

export const stopDefinition = stopLike('stop', 'Stop one or more running containers')
export const restartDefinition = stopLike('restart', 'Restart one or more containers')
export const pauseDefinition = verb('pause', 'Pause all processes within one or more containers')
export const unpauseDefinition = verb('unpause', 'Unpause all processes within one or more containers')

/** `hull kill`. */
export const killDefinition: CommandDefinition = {
  usage: 'kill [OPTIONS] CONTAINER [CONTAINER...]',
  summary: 'Kill one or more running containers',
  arguments: many,
  flags: (command) => { command.option('-s, --signal <string>', 'Signal to send to the container') },
  run: (context, flags, names) => each(context, names, async (reference) => {
    await context.client.call('POST', `/containers/${reference}/kill`, { query: { signal: textFlag(flags, 'signal') } })
    return undefined
  }),
}

/** `hull rm`. */
export const rmDefinition: CommandDefinition = {
  usage: 'rm [OPTIONS] CONTAINER [CONTAINER...]',
  summary: 'Remove one or more containers',
  arguments: many,
  flags: (command) => {
    command.option('-f, --force', 'Force the removal of a running container (uses SIGKILL)')
    command.option('-l, --link', 'Remove the specified link')
    command.option('-v, --volumes', 'Remove anonymous volumes associated with the container')
  },
  run: (context, flags, names) => each(context, names, async (reference) => {
    const force = boolFlag(flags, 'force')
    try {
      await context.client.call('DELETE', `/containers/${reference}`, { query: { force, v: boolFlag(flags, 'volumes'), link: boolFlag(flags, 'link') } })
    } catch (error) {
      // `rm -f` of what is not there is no failure of the command (docker CLI since 20.10), but it is said.
      if (!(force && error instanceof ApiError && error.statusCode === 404)) throw error
      context.streams.stderr.write(`${error.message}\n`)
      return ''
    }
    return undefined
  }),
}

/** `hull wait`. */
export const waitDefinition: CommandDefinition = {
  usage: 'wait CONTAINER [CONTAINER...]',
  summary: 'Block until one or more containers stop, then print their exit codes',
  arguments: many,
  flags: () => {},
  run: (context, _flags, names) => each(context, names, async (reference) => {
    const result = await context.client.json<{ StatusCode: number; Error?: { Message?: string } | null }>('POST', `/containers/${reference}/wait`)
    if (result.Error?.Message) throw new CliError(result.Error.Message)
    return String(result.StatusCode)
  }),
}

/** `hull rename`. */
export const renameDefinition: CommandDefinition = {
  usage: 'rename CONTAINER NEW_NAME',
  summary: 'Rename a container',
  arguments: [2, 2],
  flags: () => {},
  run: async ({ client }, _flags, [container = '', name = '']) => {
    await client.call('POST', `/containers/${inPath(container)}/rename`, { query: { name } })
    return 0
  },
}

/** `hull port`. */
export const portDefinition: CommandDefinition = {
  usage: 'port CONTAINER [PRIVATE_PORT[/PROTO]]',
  summary: 'List port mappings or a specific mapping for the container',
  arguments: [1, 2],
  flags: () => {},
  run: async ({ client, streams }, _flags, [container = '', port]) => {
    const details = await client.json<ContainerDetails>('GET', `/containers/${inPath(container)}/json`)
    const ports = details.NetworkSettings.Ports ?? {}
    const text = (binding: { HostIp: string; HostPort: string }) => `${binding.HostIp.includes(':') ? `[${binding.HostIp}]` : binding.HostIp}:${binding.HostPort}`
    if (port !== undefined) {
      const bindings = ports[port.includes('/') ? port : `${port}/tcp`] ?? []
      if (bindings.length === 0) throw new CliError(`Error: No public port '${port.includes('/') ? port : `${port}/tcp`}' published for ${container}`)
      streams.stdout.write(bindings.map((binding) => `${text(binding)}\n`).join(''))
    } else {
      const lines = Object.entries(ports).flatMap(([key, bindings]) => (bindings ?? []).map((binding) => `${key} -> ${text(binding)}\n`))
      streams.stdout.write(lines.sort().join(''))
    }
    return 0
  },
}

/** `hull rmi`. */
export const rmiDefinition: CommandDefinition = {
  usage: 'rmi [OPTIONS] IMAGE [IMAGE...]',
  summary: 'Remove one or more images',
  arguments: many,
  flags: (command) => {
    command.option('-f, --force', 'Force removal of the image')
    command.option('--no-prune', 'Do not delete untagged parents')
  },
  run: async (context, flags, names) => {
    let code = 0
    // One after the other: two names of one image depend on each other.
    for (const name of names) {
      code = Math.max(code, await each(context, [name], async (reference) => {
        try {
          const rows = await context.client.json<{ Untagged?: string; Deleted?: string }[]>('DELETE', `/images/${reference}`, {
            query: { force: boolFlag(flags, 'force'), noprune: flags.prune === false },
          })
          return rows.map((row) => (row.Deleted ? `Deleted: ${row.Deleted}` : `Untagged: ${row.Untagged}`)).join('\n')
        } catch (error) {
          if (!(boolFlag(flags, 'force') && error instanceof ApiError && error.statusCode === 404)) throw error
          context.streams.stderr.write(`${error.message}\n`)
          return ''
        }
      }))
    }
    return code
  },
}

/** `hull tag`. */
export const tagDefinition: CommandDefinition = {
  usage: 'tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]',
  summary: 'Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE',
  arguments: [2, 2],
  flags: () => {},
  run: async ({ client }, _flags, [source = '', target = '']) => {
    if (target.includes('@')) throw new CliError('refusing to create a tag with a digest reference')
    const { name, tag } = splitReference(target)
    await client.call('POST', `/images/${inPath(source)}/tag`, { query: { repo: name, tag: tag || 'latest' } })
    return 0
  },
}
