import { badRequest } from '../base/errors.js'

/**
 * The query of a request, read as Docker's daemon reads it (moby, httputils/form.go): booleans are lenient, numbers strict.
 */
export class Query {
  readonly #params: URLSearchParams

  constructor(search: string) {
    this.#params = new URLSearchParams(search)
  }

  has(key: string): boolean {
    return this.#params.has(key)
  }

  /** First value, '' when absent. */
  text(key: string): string {
    const value = this.#params.get(key) ?? ''
    if (value.includes('\0')) throw badRequest(`invalid value for "${key}": it holds a NUL byte`)
    return value
  }

  /** All values of a repeated key. */
  all(key: string): string[] {
    return this.#params.getAll(key)
  }

  /** '', '0', 'no', 'false' and 'none' are false, all else true. */
  bool(key: string, absent = false): boolean {
    const value = this.#params.get(key)
    if (value === null) return absent
    return !['', '0', 'no', 'false', 'none'].includes(value.trim().toLowerCase())
  }

  /** A signed decimal integer, `undefined` when absent or empty. 400 otherwise. */
  integer(key: string): number | undefined {
    const value = this.text(key)
    if (value === '') return undefined
    if (!/^[+-]?\d{1,15}$/.test(value)) throw badRequest(`invalid value for "${key}": strconv.Atoi: parsing ${JSON.stringify(value)}: invalid syntax`)
    return Number(value)
  }

  /** A terminal's height or width: present, 0 to 2^32-1. `what` is the word in Docker's message. */
  dimension(key: string, what: string): number {
    const value = this.text(key)
    const valid = /^\d{1,10}$/.test(value)
    if (!valid) throw badRequest(`invalid resize ${what} ${JSON.stringify(value)}: ${/^-\d+$|^\d+$/.test(value) ? 'value out of range' : 'invalid syntax'}`)
    if (Number(value) > 0xffff_ffff) throw badRequest(`invalid resize ${what} ${JSON.stringify(value)}: value out of range`)
    return Number(value)
  }

  /** A Unix time with up to nine decimals ('1700000000.5') or RFC 3339, in nanoseconds; `undefined` when absent or empty. */
  time(key: string): bigint | undefined {
    const value = this.text(key)
    if (value === '') return undefined
    const unix = /^(-?\d{1,12})(?:\.(\d{1,30}))?$/.exec(value)
    if (unix) {
      const fraction = BigInt((unix[2] ?? '').slice(0, 9).padEnd(9, '0'))
      return BigInt(unix[1]!) * 1_000_000_000n + fraction
    }
    const iso = /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2})?)(?:\.(\d{1,9})\d*)?(Z|[+-]\d{2}:\d{2})?$/.exec(value)
    const ms = iso ? Date.parse(iso[1]! + (iso[3] ?? 'Z')) : NaN
    if (Number.isNaN(ms)) throw badRequest(`invalid value for "${key}": failed to parse value as time or duration: ${JSON.stringify(value)}`)
    return BigInt(ms) * 1_000_000n + BigInt((iso![2] ?? '').padEnd(9, '0'))
  }
}
