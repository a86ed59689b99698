import { readFileSync } from 'node:fs'
import { codeOf, messageOf } from '../../base/errors.js'
import { UsageError } from '../errors.js'
import { parseBytes } from '../format/units.js'

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') throw new UsageError(`open ${path}: no such file or directory`)
    throw new UsageError(`open ${path}: ${messageOf(error)}`)
  }
}

/** Lines of an --env-file or --label-file: comments and empty lines are skipped, leading white space is cut, values are taken as they are. */
export function readKeyValueFile(path: string, environment?: NodeJS.ProcessEnv): string[] {
  const result: string[] = []
  for (const raw of readText(path).replace(/^\uFEFF/, '').split(/\r?\n/)) {
    const line = raw.trimStart()
    if (line === '' || line.startsWith('#')) continue
    const at = line.indexOf('=')
    const name = at < 0 ? line : line.slice(0, at)
    if (name === '') throw new UsageError(`invalid environment variable: ${line}: no variable name on line '${line}'`)
    if (/\s/.test(name)) throw new UsageError(`variable '${name}' contains whitespaces`)
    if (at >= 0) result.push(line)
    else if (!environment) result.push(name)
    else if (environment[name] !== undefined) result.push(`${name}=${environment[name]}`)
  }
  return result
}

/** --env and --env-file: files first, so that flags win; a bare NAME takes its value from our environment, or is dropped. */
export function parseEnvironment(flags: readonly string[], files: readonly string[], environment: NodeJS.ProcessEnv): string[] {
  const result = files.flatMap((file) => readKeyValueFile(file, environment))
  for (const flag of flags) {
    const at = flag.indexOf('=')
    if (at === 0 || flag === '') throw new UsageError(`invalid environment variable: ${flag}`)
    if (at > 0) result.push(flag)
    else if (environment[flag] !== undefined) result.push(`${flag}=${environment[flag]}`)
    else result.push(flag) // without '=': the daemon removes the image's variable of that name
  }
  return result
}

/** 'KEY=VALUE' or 'KEY' lines as an object. */
export function parseMap(lines: readonly string[]): Record<string, string> {
  const result: Record<string, string> = {}
  for (const line of lines) {
    const at = line.indexOf('=')
    if (at < 0) result[line] = ''
    else result[line.slice(0, at)] = line.slice(at + 1)
  }
  return result
}

/** --tmpfs PATH[:OPTIONS]. */
export function parseTmpfs(flags: readonly string[]): Record<string, string> {
  const result: Record<string, string> = {}
  for (const flag of flags) {
    const at = flag.indexOf(':')
    if (at < 0) result[flag] = ''
    else result[flag.slice(0, at)] = flag.slice(at + 1)
  }
  return result
}

const ULIMITS = ['core', 'cpu', 'data', 'fsize', 'locks', 'memlock', 'msgqueue', 'nice', 'nofile', 'nproc', 'rss', 'rtprio', 'rttime', 'sigpending', 'stack']

/** --ulimit NAME=SOFT[:HARD] (docker/go-units ParseUlimit); -1 is unlimited. */
export function parseUlimit(flag: string): { Name: string; Soft: number; Hard: number } {
  const [name, value, ...more] = flag.split('=')
  if (!name || value === undefined || more.length > 0) throw new UsageError(`invalid ulimit argument: ${flag}`)
  if (!ULIMITS.includes(name)) throw new UsageError(`invalid ulimit type: ${name}`)
  const numbers = value.split(':')
  if (numbers.length > 2 || !numbers.every((n) => /^-?\d+$/.test(n))) throw new UsageError(`invalid ulimit value: ${value}`)
  const soft = Number(numbers[0])
  const hard = Number(numbers[1] ?? numbers[0])
  if (hard !== -1 && (soft > hard || soft === -1)) {
    throw new UsageError(`ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`)
  }
  return { Name: name, Soft: soft, Hard: hard }
}

/** --restart no|always|unless-stopped|on-failure[:N]. */
export function parseRestartPolicy(text: string): { Name: string; MaximumRetryCount: number } {
  if (text === '') return { Name: 'no', MaximumRetryCount: 0 }
  const [name, count, ...more] = text.split(':')
  if (name === '') throw new UsageError('invalid restart policy format: no policy provided before colon')
  if (more.length > 0) throw new UsageError(`invalid restart policy format: restart policy can only have one colon`)
  if (count !== undefined && !/^\d+$/.test(count)) throw new UsageError('invalid restart policy format: maximum retry count must be an integer')
  return { Name: name!, MaximumRetryCount: Number(count ?? 0) }
}

/** --security-opt; a seccomp profile is read here and sent as JSON, because the file is the client's. */
export function parseSecurityOptions(flags: readonly string[]): string[] {
  return flags.map((flag) => {
    const match = /^seccomp[=:](.*)$/s.exec(flag)
    if (!match || match[1] === 'unconfined' || match[1] === 'builtin') return flag
    const text = readText(match[1]!)
    try {
      return `seccomp=${JSON.stringify(JSON.parse(text))}`
    } catch (error) {
      throw new UsageError(`compacting json for seccomp profile (${match[1]}) failed: ${messageOf(error)}`)
    }
  })
}

/** --device PATH[:PATH_IN_CONTAINER][:rwm]. */
export function parseDevice(flag: string): { PathOnHost: string; PathInContainer: string; CgroupPermissions: string } {
  const words = flag.split(':')
  const isMode = (word: string) => /^[rwm]{1,3}$/.test(word)
  if (words.length > 3 || words[0] === '') throw new UsageError(`invalid device specification: ${flag}`)
  const permissions = words.length === 3 ? words[2]! : words.length === 2 && isMode(words[1]!) ? words[1]! : 'rwm'
  if (!isMode(permissions)) throw new UsageError(`invalid device mode: ${permissions}`)
  const inside = words.length === 3 || (words.length === 2 && !isMode(words[1]!)) ? words[1]! : words[0]!
  return { PathOnHost: words[0]!, PathInContainer: inside, CgroupPermissions: permissions }
}

/** --volume: binds ('source:target[:mode]') apart from anonymous volumes ('target'). Relative sources are of the client's working directory. */
export function parseVolumes(flags: readonly string[], cwd: string): { binds: string[]; anonymous: Record<string, object> } {
  const binds: string[] = []
  const anonymous: Record<string, object> = {}
  for (const flag of flags) {
    const words = flag.split(':')
    if (flag === '' || words.length > 3 || words.some((word) => word === '')) throw new UsageError(`invalid volume specification: '${flag}'`)
    if (words.length === 1) anonymous[flag] = {}
    else if (words[0]!.startsWith('.')) binds.push([new URL(words[0]!, `file://${cwd}/`).pathname.replace(/(.)\/$/, '$1'), ...words.slice(1)].join(':'))
    else binds.push(flag)
  }
  return { binds, anonymous }
}

/** One --mount: comma-separated fields (docs.docker.com, "docker run --mount"). */
export function parseMount(flag: string): Record<string, unknown> {
  const mount: { Type: string; Source?: string; Target?: string; ReadOnly?: boolean } & Record<string, unknown> = { Type: 'volume' }
  const options: Record<string, Record<string, unknown>> = {}
  const option = (group: string, name: string, value: unknown) => { (options[group] ??= {})[name] = value }
  const flagOf = (name: string, value: string | undefined): boolean => {
    if (value === undefined || value === 'true' || value === '1') return true
    if (value === 'false' || value === '0') return false
    throw new UsageError(`invalid value for ${name}: ${value}`)
  }
  for (const field of flag.split(',')) {
    const at = field.indexOf('=')
    const name = (at < 0 ? field : field.slice(0, at)).trim().toLowerCase()
    const value = at < 0 ? undefined : field.slice(at + 1)
    if (name === 'readonly' || name === 'ro') { mount.ReadOnly = flagOf(name, value); continue }
    if (name === 'volume-nocopy') { option('VolumeOptions', 'NoCopy', flagOf(name, value)); continue }
    if (name === 'bind-nonrecursive') { option('BindOptions', 'NonRecursive', flagOf(name, value)); continue }
    if (value === undefined) throw new UsageError(`invalid field '${field}' must be a key=value pair`)
    switch (name) {
      case 'type': mount.Type = value.toLowerCase(); break
      case 'source': case 'src': mount.Source = value; break
      case 'target': case 'dst': case 'destination': mount.Target = value; break
      case 'consistency': mount.Consistency = value.toLowerCase(); break
      case 'bind-propagation': option('BindOptions', 'Propagation', value.toLowerCase()); break
      case 'volume-driver': option('VolumeOptions', 'DriverConfig', { Name: value }); break
      case 'volume-label': option('VolumeOptions', 'Labels', { ...(options.VolumeOptions?.Labels ?? {}), ...parseMap([value]) }); break
      case 'volume-subpath': option('VolumeOptions', 'Subpath', value); break
      case 'tmpfs-size': option('TmpfsOptions', 'SizeBytes', parseBytes(value)); break
      case 'tmpfs-mode': {
        if (!/^[0-7]+$/.test(value)) throw new UsageError(`invalid value for ${name}: ${value}`)
        option('TmpfsOptions', 'Mode', parseInt(value, 8))
        break
      }
      default: throw new UsageError(`unexpected key '${name}' in '${field}'`)
    }
  }
  if (!mount.Target) throw new UsageError('target is required')
  return { ...mount, ...options }
}
