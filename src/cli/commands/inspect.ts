import { inPath } from '../client.js'
import { boolFlag, textFlag, type CommandDefinition, type Context } from '../command.js'
import { ApiError, CliError, UsageError } from '../errors.js'
import { compileTemplate } from '../template/evaluate.js'
import { withOmitted } from '../template/omitted.js'

/** Kinds of objects in the order in which a name is looked up, as the docker CLI does. */
const kinds: Record<string, string> = { container: 'containers/*/json', image: 'images/*/json', network: 'networks/*', volume: 'volumes/*' }

async function find(context: Context, name: string, type: string, size: boolean): Promise<{ kind: string; value: unknown }> {
  const wanted = type === '' ? Object.keys(kinds) : [type]
  for (const kind of wanted) {
    try {
      const value = await context.client.json<unknown>('GET', `/${kinds[kind]!.replace('*', inPath(name))}`, { query: { size: kind === 'container' && size } })
      return { kind, value }
    } catch (error) {
      // 501: a kind of object that this daemon does not have.
      if (!(error instanceof ApiError) || ![404, 501].includes(error.statusCode)) throw error
      if (type !== '') throw new CliError(`Error: No such ${type}: ${name}`)
    }
  }
  throw new CliError(`Error: No such object: ${name}`)
}

/** `hull inspect`. */
export const inspectDefinition: CommandDefinition = {
  usage: 'inspect [OPTIONS] NAME|ID [NAME|ID...]',
  summary: 'Return low-level information on containers and images',
  arguments: [1, Infinity],
  flags: (command) => {
    command.option('-f, --format <string>', "Format output using a custom template: 'json' or TEMPLATE (Go template)")
    command.option('-s, --size', 'Display total file sizes if the type is container')
    command.option('--type <string>', 'Only inspect objects of the given type: container, image, network, volume')
  },
  run: async (context, flags, names) => {
    const { stdout, stderr } = context.streams
    const type = textFlag(flags, 'type')
    if (type !== '' && !Object.hasOwn(kinds, type)) throw new UsageError(`unknown type: "${type}": must be one of "${Object.keys(kinds).join('", "')}"`, 1)
    const format = textFlag(flags, 'format')
    const template = format === '' || format === 'json' ? undefined : compileTemplate(format)
    const found: unknown[] = []
    let code = 0
    for (const name of names) {
      try {
        const { kind, value } = await find(context, name, type, boolFlag(flags, 'size'))
        found.push(value)
        if (template) stdout.write(`${template(withOmitted(kind, value))}\n`)
      } catch (error) {
        if (!(error instanceof CliError) || error instanceof UsageError) throw error
        stderr.write(`${error.message}\n`)
        code = 1
      }
    }
    if (!template) stdout.write(`${format === 'json' ? JSON.stringify(found) : JSON.stringify(found, undefined, 4)}\n`)
    return code
  },
}
