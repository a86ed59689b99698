import { API_VERSION, inPath } from '../client.js'
import { textFlag, type CommandDefinition, type Context } from '../command.js'
import { ConnectError } from '../errors.js'
import { binarySize } from '../format/units.js'
import { formatTable } from '../format/table.js'
import { compileTemplate } from '../template/evaluate.js'
import { VERSION } from '../version.js'

interface VersionAnswer {
  Version: string
  ApiVersion: string
  MinAPIVersion: string
  Os: string
  Arch: string
  KernelVersion: string
  Components?: { Name: string; Version: string; Details?: Record<string, string> }[]
}

const formatFlag = "Format output using a custom template: 'json' or TEMPLATE (Go template)"

function formatted(context: Context, format: string, value: unknown): number {
  context.streams.stdout.write(`${format === 'json' ? JSON.stringify(value) : compileTemplate(format)(value)}\n`)
  return 0
}

/** 'Client:' and its lines, aligned. */
const block = (title: string, rows: [string, string][]) => `${title}\n${rows.map(([name, value]) => ` ${`${name}:`.padEnd(18)}${value}`).join('\n')}\n`

/** `hull version`. Does not start a daemon, as `docker version` does not: it tells what there is. */
export const versionDefinition: CommandDefinition = {
  usage: 'version [OPTIONS]',
  summary: 'Show the Hull version information',
  arguments: [0, 0],
  flags: (command) => { command.option('-f, --format <string>', formatFlag) },
  run: async (context, flags) => {
    const { stdout } = context.streams
    const arch = process.arch === 'x64' ? 'amd64' : process.arch
    const client = { Version: VERSION, ApiVersion: API_VERSION, NodeVersion: process.version, Os: process.platform, Arch: arch }
    let server: VersionAnswer | undefined
    let failure: ConnectError | undefined
    try {
      server = await context.client.json<VersionAnswer>('GET', '/version')
    } catch (error) {
      if (!(error instanceof ConnectError)) throw error
      failure = error
    }
    const format = textFlag(flags, 'format')
    if (format !== '') {
      if (failure && /\.Server\b/.test(format)) throw failure
      return formatted(context, format, { Client: client, Server: server ?? null })
    }
    let text = block('Client: Hull', [['Version', VERSION], ['API version', API_VERSION], ['Node.js version', process.version], ['OS/Arch', `${process.platform}/${arch}`]])
    if (server) {
      text += `\n${block('Server: Hull', [
        ['Version', server.Version], ['API version', `${server.ApiVersion} (minimum version ${server.MinAPIVersion})`],
        ['OS/Arch', `${server.Os}/${server.Arch}`], ['Kernel', server.KernelVersion],
        ...(server.Components ?? []).filter((part) => part.Name !== 'Engine').map((part): [string, string] => [part.Name, part.Version]),
      ])}`
    }
    stdout.write(text)
    if (failure) throw failure
    return 0
  },
}

interface InfoAnswer extends Record<string, unknown> {
  Containers: number
  ContainersRunning: number
  ContainersPaused: number
  ContainersStopped: number
  Images: number
  ServerVersion: string
  Driver: string
  DriverStatus: [string, string][] | null
  LoggingDriver: string
  CgroupDriver: string
  CgroupVersion: string
  Runtimes: Record<string, unknown> | null
  DefaultRuntime: string
  Isolation: string
  SecurityOptions: string[] | null
  KernelVersion: string
  OperatingSystem: string
  OSType: string
  Architecture: string
  NCPU: number
  MemTotal: number
  Name: string
  ID: string
  DockerRootDir: string
  Labels: string[] | null
  Warnings: string[] | null
}

/** `hull info`. */
export const infoDefinition: CommandDefinition = {
  usage: 'info [OPTIONS]',
  summary: 'Display system-wide information',
  arguments: [0, 0],
  flags: (command) => { command.option('-f, --format <string>', formatFlag) },
  run: async (context, flags) => {
    const info = await context.client.json<InfoAnswer>('GET', '/info')
    const format = textFlag(flags, 'format')
    if (format !== '') return formatted(context, format, { ...info, ClientInfo: { Version: VERSION } })
    const line = (name: string, value: string | number | undefined, indent = 1) => (value === undefined || value === '' ? '' : `${' '.repeat(indent)}${name}: ${value}\n`)
    const list = (name: string, items: readonly string[]) => (items.length > 0 ? ` ${name}:\n${items.map((item) => `  ${item}\n`).join('')}` : '')
    context.streams.stdout.write([
      'Client: Hull\n', line('Version', VERSION), '\nServer:\n',
      line('Containers', info.Containers), line('Running', info.ContainersRunning, 2), line('Paused', info.ContainersPaused, 2), line('Stopped', info.ContainersStopped, 2),
      line('Images', info.Images), line('Server Version', info.ServerVersion),
      line('Storage Driver', info.Driver), ...(info.DriverStatus ?? []).map(([name, value]) => line(name, value, 2)),
      line('Logging Driver', info.LoggingDriver), line('Cgroup Driver', info.CgroupDriver), line('Cgroup Version', info.CgroupVersion),
      line('Runtimes', Object.keys(info.Runtimes ?? {}).join(' ')), line('Default Runtime', info.DefaultRuntime), line('Default Isolation', info.Isolation),
      list('Security Options', info.SecurityOptions ?? []),
      line('Kernel Version', info.KernelVersion), line('Operating System', info.OperatingSystem), line('OSType', info.OSType), line('Architecture', info.Architecture),
      line('CPUs', info.NCPU), line('Total Memory', binarySize(info.MemTotal)), line('Name', info.Name), line('ID', info.ID), line('Docker Root Dir', info.DockerRootDir),
      list('Labels', info.Labels ?? []),
    ].join(''))
    for (const warning of info.Warnings ?? []) context.streams.stderr.write(`${warning}\n`)
    return 0
  },
}

/** `hull top`. */
export const topDefinition: CommandDefinition = {
  usage: 'top CONTAINER [ps OPTIONS]',
  summary: 'Display the running processes of a container',
  arguments: [1, Infinity],
  passThrough: true,
  flags: () => {},
  run: async ({ client, streams }, _flags, [container = '', ...psArguments]) => {
    const { Titles, Processes } = await client.json<{ Titles: string[]; Processes: string[][] | null }>('GET', `/containers/${inPath(container)}/top`, {
      query: { ps_args: psArguments.join(' ') },
    })
    // Cells of `top` are wider apart than those of other lists: tabwriter with a minimal width of 20.
    streams.stdout.write(formatTable([Titles, ...(Processes ?? [])], 20, 3))
    return 0
  },
}
