import { badRequest } from '../base/errors.js'
import type { LogLimits } from '../oci/log-files.js'
import type { HostConfig } from './api-types.js'
import { bytesOf } from './size.js'
import type { ContainerRecord } from './store.js'

type LogConfig = HostConfig['LogConfig']

/** Docker's drivers of which Hull has none of its own: refused elsewhere by name. The two that keep files differ in their defaults alone. */
const FILE_DRIVERS = ['json-file', 'local'] as const
const OPTIONS = ['max-file', 'max-size', 'compress', 'labels', 'labels-regex', 'env', 'env-regex', 'tag']
const GENERAL = ['mode', 'max-buffer-size']

/** Docker's default for `local` (moby daemon/logger/local): 5 files of 20 MiB. */
const LOCAL_DEFAULT: LogLimits = { maxSize: 20 << 20, maxFiles: 5 }

function sizeOf(text: string, base: 1000 | 1024): number {
  const bytes = bytesOf(text, base)
  if (bytes === undefined) throw badRequest(`invalid size: '${text}'`)
  return bytes
}

function integerOf(text: string): number {
  if (!/^[+-]?\d{1,9}$/.test(text)) throw badRequest(`strconv.Atoi: parsing ${JSON.stringify(text)}: invalid syntax`)
  return Number(text)
}

function booleanOf(text: string): boolean {
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(text)) return true
  if (['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(text)) return false
  throw badRequest(`strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`)
}

function regexOf(text: string): RegExp {
  try {
    return new RegExp(text)
  } catch (error) {
    throw badRequest(`error parsing regexp: ${text}`, error)
  }
}

/** How large the log may become; undefined: without bound, as json-file is when nobody says otherwise. 400 for values that Docker refuses. */
export function logLimits({ Type: type, Config: options }: LogConfig): LogLimits | undefined {
  if (type === 'none') return undefined
  const local = type === 'local'
  const said = { size: options['max-size'], files: options['max-file'] }
  const maxSize = said.size === undefined ? undefined : sizeOf(said.size, 1000)
  const maxFiles = said.files === undefined ? undefined : integerOf(said.files)
  if (local) {
    if ((maxFiles ?? 1) < 0) throw badRequest('max-file must not be negative')
    const limits = { maxSize: maxSize ?? LOCAL_DEFAULT.maxSize, maxFiles: maxFiles ?? LOCAL_DEFAULT.maxFiles }
    const compress = options['compress'] === undefined || booleanOf(options['compress'])
    if (compress && limits.maxFiles <= 1) throw badRequest('compression cannot be enabled when max file count is 1')
    return limits.maxSize === 0 ? undefined : { ...limits, maxFiles: Math.max(1, limits.maxFiles) }
  }
  if (maxSize !== undefined && maxSize <= 0) throw badRequest('max-size must be a positive number')
  if (maxFiles !== undefined && maxFiles < 1) throw badRequest('max-file cannot be less than 1')
  if (options['compress'] !== undefined && booleanOf(options['compress']) && ((maxFiles ?? 1) === 1 || maxSize === undefined)) {
    throw badRequest('compress cannot be true when max-file is less than 2 or unset, or max-size is not set')
  }
  return maxSize === undefined ? undefined : { maxSize, maxFiles: maxFiles ?? 1 }
}

/** Checks a log configuration in moby's words (daemon/logger/factory.go and the drivers' ValidateLogOpt). Throws 400. */
export function checkLogConfig(config: LogConfig): void {
  const { Type: type, Config: options } = config
  if (type === 'none') return
  const mode = options['mode'] ?? ''
  if (!['', 'blocking', 'non-blocking'].includes(mode)) throw badRequest(`logger: logging mode not supported: ${mode}`)
  const buffer = options['max-buffer-size']
  if (buffer !== undefined) {
    if (mode !== 'non-blocking') throw badRequest("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    sizeOf(buffer, 1024)
  }
  const driver = FILE_DRIVERS.find((name) => name === (type || 'json-file'))
  if (!driver) throw badRequest(`logger: no log driver named '${type}' is registered`)
  for (const key of Object.keys(options)) {
    if (OPTIONS.includes(key) || GENERAL.includes(key)) continue
    throw badRequest(driver === 'local' ? `unknown log opt '${key}' for log driver local` : `unknown log opt '${key}' for json-file log driver`)
  }
  logLimits(config)
  for (const key of ['labels-regex', 'env-regex']) if (options[key]) regexOf(options[key])
  tagOf(options['tag'] ?? '', { id: '', name: '', imageRef: '', imageId: '' })
}

/** What is taken and not done. */
export function logWarnings({ Type: type, Config: options }: LogConfig): string[] {
  if (type === 'none') return []
  const warnings: string[] = []
  if (options['compress'] !== undefined && booleanOf(options['compress'])) warnings.push('Rotated logs are not compressed.')
  if (options['mode'] === 'non-blocking') warnings.push('Log mode non-blocking has no effect: the log is a file, and no line is dropped.')
  return warnings
}

/** The fields of Docker's log tag templates that name a container (moby loggerutils.ParseLogTag). 400 for all that is more than a field. */
function tagOf(template: string, of: Pick<ContainerRecord, 'id' | 'name' | 'imageRef' | 'imageId'>): string {
  const fields: Record<string, string> = {
    ID: of.id.slice(0, 12), FullID: of.id, Name: of.name, ImageName: of.imageRef, ImageID: of.imageId.replace('sha256:', '').slice(0, 12), ImageFullID: of.imageId, DaemonName: 'docker',
  }
  return template.replace(/\{\{(.*?)\}\}/g, (whole, inside: string) => {
    const field = /^\s*\.(\w+)\s*$/.exec(inside)?.[1]
    if (field === undefined || !(field in fields)) throw badRequest(`log tag: ${whole} is not supported by Hull (${Object.keys(fields).join(', ')} are)`)
    return fields[field]!
  })
}

/** The attributes that `docker logs --details` shows with each line: labels and environment that the options name, and the tag. */
export function logAttributes(record: Pick<ContainerRecord, 'id' | 'name' | 'imageRef' | 'imageId' | 'config' | 'hostConfig'>): Record<string, string> {
  const options = record.hostConfig.LogConfig.Config
  const attributes: Record<string, string> = {}
  const take = (values: [string, string][], names: string | undefined, pattern: string | undefined): void => {
    const listed = new Set((names ?? '').split(',').map((name) => name.trim()).filter((name) => name !== ''))
    const expression = pattern ? regexOf(pattern) : undefined
    for (const [key, value] of values) if (listed.has(key) || expression?.test(key)) attributes[key] = value
  }
  take(Object.entries(record.config.Labels), options['labels'], options['labels-regex'])
  const environment = record.config.Env.map((line): [string, string] => [line.split('=', 1)[0]!, line.slice(line.indexOf('=') + 1)])
  take(environment, options['env'], options['env-regex'])
  if (options['tag']) attributes['tag'] = tagOf(options['tag'], record)
  return attributes
}

/** Go's url.QueryEscape. */
const escaped = (text: string): string => encodeURIComponent(text).replace(/%20/g, '+').replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)

/** As `docker logs --details` writes them before a line: `key=value,key=value ` (moby byte_slice of attributes). */
export function detailsPrefix(attributes: Record<string, string>): string {
  const keys = Object.keys(attributes).sort()
  return `${keys.map((key) => `${escaped(key)}=${escaped(attributes[key]!)}`).join(',')} `
}
