import { badRequest } from '../base/errors.js'
import type { ImageConfig } from './types.js'

const defaultShell = ['/bin/sh', '-c']

/** The JSON form of CMD and its kin: an array of strings, or undefined when it is the shell form. */
function jsonWords(text: string): string[] | undefined {
  if (!text.startsWith('[')) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return Array.isArray(value) && value.every((word) => typeof word === 'string') ? value : undefined
  } catch {
    return undefined
  }
}

/** Splits at blanks outside of quotes; quotes and backslashes are undone (Dockerfile reference, "ENV", "LABEL"). */
function splitWords(text: string): string[] {
  const words: string[] = []
  let word: string | undefined
  let quote = ''
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!
    if (quote !== '') {
      if (c === quote) quote = ''
      else if (c === '\\' && quote === '"' && i + 1 < text.length && /["\\$]/.test(text[i + 1]!)) word = `${word}${text[++i]}`
      else word = `${word}${c}`
    } else if (/\s/.test(c)) {
      if (word !== undefined) words.push(word)
      word = undefined
    } else if (c === '"' || c === "'") {
      quote = c
      word ??= ''
    } else if (c === '\\' && i + 1 < text.length) {
      word = `${word ?? ''}${text[++i]}`
    } else {
      word = `${word ?? ''}${c}`
    }
  }
  if (quote !== '') throw badRequest(`unexpected end of statement while looking for matching ${quote === '"' ? 'double' : 'single'}-quote`)
  if (word !== undefined) words.push(word)
  return words
}

/** KEY=VALUE pairs, or the old form KEY VALUE. */
function pairs(instruction: string, text: string): [string, string][] {
  const first = /^\S+/.exec(text)?.[0] ?? ''
  if (!first.includes('=')) {
    const rest = text.slice(first.length).trim()
    if (rest === '') throw badRequest(`${instruction} must have two arguments`)
    return [[first, splitWords(rest).join(' ')]]
  }
  return splitWords(text).map((word) => {
    const equals = word.indexOf('=')
    if (equals < 0) throw badRequest(`Syntax error - can't find = in "${word}". Must be of the form: name=value`)
    if (equals === 0) throw badRequest(`${instruction} names can not be blank`)
    return [word.slice(0, equals), word.slice(equals + 1)]
  })
}

/** What the ranges of one EXPOSE may sum up to: every port of every protocol. */
const portLimit = 3 * 65_536

/** '80', '80/tcp', '8000-8010/udp' */
function exposedPorts(words: string[]): Record<string, object> {
  const ports: Record<string, object> = {}
  let count = 0
  for (const word of words) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/i.exec(word)
    const from = Number(match?.[1])
    const to = Number(match?.[2] ?? match?.[1])
    if (match === null || from > to || to > 65535) throw badRequest(`invalid containerPort: ${word}`)
    count += to - from + 1
    if (count > portLimit) throw badRequest(`EXPOSE has more than ${portLimit} ports`)
    const protocol = (match[3] ?? 'tcp').toLowerCase()
    for (let port = from; port <= to; port++) ports[`${port}/${protocol}`] = {}
  }
  return ports
}

const units: Record<string, number> = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 }

/** Go's time.ParseDuration, for what is not negative: '1m30s'. Nanoseconds. */
function duration(flag: string, text: string): number {
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) throw badRequest(`time: invalid duration "${text}"`)
  let sum = 0
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) sum += Number(number) * units[unit!]!
  if (sum < 1e6 && sum !== 0) throw badRequest(`Interval "${flag}" cannot be less than 1ms`)
  return Math.round(sum)
}

const healthFlags = { interval: 'Interval', timeout: 'Timeout', 'start-period': 'StartPeriod', 'start-interval': 'StartInterval' } as const

/** NONE, or [--interval=…] CMD command (Dockerfile reference, "HEALTHCHECK"). */
function healthcheck(text: string): NonNullable<ImageConfig['Healthcheck']> {
  const health: NonNullable<ImageConfig['Healthcheck']> = {}
  let rest = text
  for (let flag = /^--([a-z-]+)=(\S*)\s*/.exec(rest); flag; flag = /^--([a-z-]+)=(\S*)\s*/.exec(rest)) {
    const [whole, name, value] = flag as unknown as [string, string, string]
    if (name in healthFlags) health[healthFlags[name as keyof typeof healthFlags]] = duration(name, value)
    else if (name === 'retries' && /^\d{1,9}$/.test(value)) health.Retries = Number(value)
    else throw badRequest(`Unknown flag: ${name}`)
    rest = rest.slice(whole.length)
  }
  const [, kind = '', command = ''] = /^(\S*)\s*([\s\S]*)$/.exec(rest) ?? []
  if (kind.toUpperCase() === 'NONE') {
    if (command !== '') throw badRequest('HEALTHCHECK NONE takes no arguments')
    return { Test: ['NONE'] }
  }
  if (kind.toUpperCase() !== 'CMD') throw badRequest(`Unknown type "${kind.toUpperCase()}" in HEALTHCHECK (try CMD)`)
  if (command === '') throw badRequest('Missing command after HEALTHCHECK CMD')
  const words = jsonWords(command)
  return { ...health, Test: words ? ['CMD', ...words] : ['CMD-SHELL', command] }
}

/** Each variable moves to the end. All in one go: a line may have a hundred thousand. */
function withVariables(env: readonly string[], variables: readonly [string, string][]): string[] {
  const latest = new Map<string, string>()
  for (const [key, value] of variables) {
    latest.delete(key)
    latest.set(key, `${key}=${value}`)
  }
  return [...env.filter((entry) => !entry.includes('=') || !latest.has(entry.slice(0, entry.indexOf('=')))), ...latest.values()]
}

/** Applies one Dockerfile line, as `docker import --change` and `docker commit --change` take them. 400 for anything else. */
export function applyChange(config: ImageConfig, line: string): void {
  // As in parseInstruction: no pattern that looks for the blanks at the end.
  const trimmed = line.trim()
  const word = /^\S+/.exec(trimmed)?.[0] ?? ''
  const rest = trimmed.slice(word.length).trimStart()
  const instruction = word.toUpperCase()
  if (instruction === '') throw badRequest('file with no instructions')
  if (rest === '') throw badRequest(`${instruction} requires at least one argument`)
  const command = () => jsonWords(rest) ?? [...(config.Shell ?? defaultShell), rest]
  switch (instruction) {
    case 'CMD':
      config.Cmd = command()
      break
    case 'ENTRYPOINT':
      config.Entrypoint = command()
      break
    case 'ENV':
      config.Env = withVariables(config.Env ?? [], pairs(instruction, rest))
      break
    case 'LABEL':
      config.Labels = { ...config.Labels, ...Object.fromEntries(pairs(instruction, rest)) }
      break
    case 'EXPOSE':
      config.ExposedPorts = { ...config.ExposedPorts, ...exposedPorts(splitWords(rest)) }
      break
    case 'USER':
      config.User = rest
      break
    case 'WORKDIR':
      config.WorkingDir = rest.startsWith('/') ? rest : `${(config.WorkingDir ?? '').replace(/\/$/, '')}/${rest}`
      break
    case 'VOLUME': {
      const paths = jsonWords(rest) ?? splitWords(rest)
      if (paths.some((path) => path.trim() === '')) throw badRequest('VOLUME specified can not be an empty string')
      if (paths.length > 0) config.Volumes = { ...config.Volumes, ...Object.fromEntries(paths.map((path) => [path, {}])) }
      break
    }
    case 'STOPSIGNAL':
      config.StopSignal = rest
      break
    case 'HEALTHCHECK':
      config.Healthcheck = healthcheck(rest)
      break
    case 'ONBUILD':
      config.OnBuild = [...(config.OnBuild ?? []), rest]
      break
    default:
      throw badRequest(`${word.toLowerCase().slice(0, 100)} is not a valid change command`)
  }
}
