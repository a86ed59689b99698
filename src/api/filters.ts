import { badRequest } from '../base/errors.js'
import type { Filters } from '../engine/api-types.js'

/** Docker filters whose value is a boolean. */
const booleans = new Set(['dangling', 'is-task', 'is-automated', 'is-official', 'all'])
/** More than anybody asks for; keeps a hostile query from costing a scan of everything times everything. */
const maxValues = 1000

/**
 * The `filters` parameter: `{"label":["a","b=c"]}`, or the older `{"label":{"a":true}}` (moby, api/types/filters). 400 'invalid filter' for bad JSON,
 * and for a key that is not in `known`, as Docker answers; its events alone let unknown ones by.
 */
export function parseFilters<Key extends string>(text: string, known: readonly Key[], unknown: 'refuse' | 'ignore' = 'refuse'): Filters<Key> {
  if (text === '') return {} as Filters<Key>
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    throw badRequest('invalid filter')
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw badRequest('invalid filter')
  const result: Partial<Record<Key, readonly string[]>> = {}
  let count = 0
  for (const [name, raw] of Object.entries(parsed)) {
    const key = known.find((candidate) => candidate === name)
    if (key === undefined) {
      if (unknown === 'ignore') continue
      throw badRequest(`invalid filter '${name}'`)
    }
    const values = valuesOf(raw)
    count += values.length
    if (count > maxValues) throw badRequest(`invalid filter: more than ${maxValues} values`)
    if (values.length > 0) result[key] = booleans.has(name) ? [booleanOf(name, values)] : values
  }
  return result
}

function valuesOf(raw: unknown): string[] {
  if (raw === null) return []
  if (Array.isArray(raw)) {
    if (!raw.every((value) => typeof value === 'string')) throw badRequest('invalid filter')
    return raw
  }
  if (typeof raw !== 'object') throw badRequest('invalid filter')
  const entries = Object.entries(raw)
  if (!entries.every(([, on]) => typeof on === 'boolean')) throw badRequest('invalid filter')
  return entries.filter(([, on]) => on === true).map(([value]) => value)
}

function booleanOf(name: string, values: string[]): string {
  const truths = new Set(values.map((value) => (/^(1|true)$/i.test(value) ? 'true' : /^(0|false)$/i.test(value) ? 'false' : '')))
  const [only] = truths
  if (truths.size !== 1 || only === undefined || only === '') throw badRequest(`invalid filter '${name}=${JSON.stringify(values)}'`)
  return only
}
