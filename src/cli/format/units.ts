import { UsageError } from '../errors.js'

/** Bytes of '64m', '1.5g', '100'; powers of 1024 (docker/go-units RAMInBytes). Throws with Docker's words. */
export function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?) ?([a-zA-Z]*)$/.exec(text.trim())
  if (!match) throw new UsageError(`invalid size: '${text}'`)
  const suffix = match[2]!.toLowerCase()
  const unit = /^([kmgtp]?)(i?b)?$/.exec(suffix)
  if (!unit || suffix === 'i') throw new UsageError(`invalid suffix: '${suffix}'`)
  const power = unit[1] === '' ? 0 : 'kmgtp'.indexOf(unit[1]!) + 1
  return Math.trunc(Number(match[1]) * 1024 ** power)
}

/** '1.5' CPUs as billionths (Docker's NanoCpus). */
export function parseCpus(text: string): number {
  if (!/^\d*\.?\d+$/.test(text) && !/^\d+\.$/.test(text)) throw new UsageError(`failed to parse ${text} as a rational number`)
  const nano = Number(text) * 1e9
  if (Math.abs(nano - Math.round(nano)) > 1e-3) throw new UsageError('value is too precise')
  return Math.round(nano)
}

function significant(value: number, digits: number): string {
  return String(Number(value.toPrecision(digits)))
}

/** Bytes as '4.26MB': powers of 1000, `digits` significant digits (go-units HumanSizeWithPrecision). */
export function humanSize(bytes: number, digits = 4): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']
  let value = bytes
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit += 1
  }
  return significant(value, digits) + units[unit]!
}

/** Bytes as '15.6MiB': powers of 1024. */
export function binarySize(bytes: number, digits = 4): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  return significant(value, digits) + units[unit]!
}

/** '5 minutes', 'About an hour', … (go-units HumanDuration). */
export function humanDuration(milliseconds: number): string {
  const seconds = Math.trunc(milliseconds / 1000)
  if (seconds < 1) return 'Less than a second'
  if (seconds === 1) return '1 second'
  if (seconds < 60) return `${seconds} seconds`
  const minutes = Math.trunc(seconds / 60)
  if (minutes === 1) return 'About a minute'
  if (minutes < 60) return `${minutes} minutes`
  const hours = Math.trunc(seconds / 3600 + 0.5)
  if (hours === 1) return 'About an hour'
  if (hours < 48) return `${hours} hours`
  if (hours < 24 * 7 * 2) return `${Math.trunc(hours / 24)} days`
  if (hours < 24 * 30 * 2) return `${Math.trunc(hours / 24 / 7)} weeks`
  if (hours < 24 * 365 * 2) return `${Math.trunc(hours / 24 / 30)} months`
  return `${Math.trunc(seconds / 3600 / 24 / 365)} years`
}

/** Go's time.Duration text ('1m30s', '500ms', '1.5h') in nanoseconds; undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  const units: Record<string, number> = { ns: 1, us: 1e3, 'µs': 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 }
  if (text === '0') return 0
  const match = /^([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+$/.exec(text)
  if (!match) return undefined
  let total = 0
  for (const part of text.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/g)) total += Number(part[1]) * units[part[2]!]!
  return Math.round(match[1] === '-' ? -total : total)
}

/** A duration flag, in nanoseconds. */
export function requireDuration(text: string): number {
  const value = parseDuration(text)
  if (value === undefined) throw new UsageError(`time: invalid duration "${text}"`)
  return value
}

/**
 * --since and --until: a duration back from `now`, a date, or seconds since the epoch; as the API wants it
 * ('SECONDS' or 'SECONDS.NANOSECONDS').
 */
export function parseTimestamp(text: string, now = Date.now()): string {
  const back = parseDuration(text)
  let milliseconds: number
  if (back !== undefined && text !== '0') milliseconds = now - back / 1e6
  else if (/^\d+(\.\d+)?$/.test(text)) return text
  else {
    const date = /^(\d{4}-\d\d-\d\d)(?:T(\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?))?(Z|[+-]\d\d:\d\d)?$/.exec(text)
    if (!date) throw new UsageError(`failed to parse value as time or duration: "${text}"`, 1)
    let time = date[2] ?? '00:00:00'
    while (time.split(':').length < 3) time += ':00'
    milliseconds = Date.parse(`${date[1]}T${time}${date[3] ?? ''}`)
    if (Number.isNaN(milliseconds)) throw new UsageError(`failed to parse value as time or duration: "${text}"`, 1)
    const fraction = /\.(\d+)$/.exec(time)
    if (fraction) return `${Math.floor(milliseconds / 1000)}.${fraction[1]!.padEnd(9, '0').slice(0, 9)}`
  }
  const seconds = Math.floor(milliseconds / 1000)
  const nanoseconds = Math.round((milliseconds - seconds * 1000) * 1e6)
  return `${seconds}.${String(nanoseconds).padStart(9, '0')}`
}

/** Cuts to `width` characters, the last of them '…'. */
export function ellipsis(text: string, width: number): string {
  const characters = [...text]
  if (characters.length <= width) return text
  return width <= 1 ? characters.slice(0, width).join('') : characters.slice(0, width - 1).join('') + '…'
}

/** 12 digits of an ID, without 'sha256:'. */
export function shortId(id: string): string {
  return id.replace(/^sha256:/, '').slice(0, 12)
}
