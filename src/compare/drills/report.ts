import { z } from 'zod'
import { DRILLS, type DrillName } from '../types.js'

/** Bytes of a drill's line; what is longer is none. */
export const LONGEST_LINE = 2048

/** What `hull-drills DRILL` says (native/drills/main.c). It comes from a guest: a hostile one says what it likes, in these bounds. */
const schema = z.strictObject({
  drill: z.enum(DRILLS), done: z.boolean(), error: z.string().regex(/^(E[A-Z0-9]{1,20})?$/), number: z.int().min(-1).max(2 ** 50),
  said: z.string().regex(/^[ -~]{0,200}$/), tokens: z.string().regex(/^(hd-[0-9a-f]{12}( hd-[0-9a-f]{12}){0,7})?$/), boot: z.string().regex(/^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?$/),
}).transform(({ tokens, ...rest }) => ({ ...rest, tokens: tokens === '' ? [] : tokens.split(' ') }))

export type DrillReport = z.output<typeof schema>

/** A drill's line, or undefined for what is none of this drill. */
export function parseReport(line: string, drill: DrillName): DrillReport | undefined {
  if (Buffer.byteLength(line) > LONGEST_LINE) return undefined
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return undefined
  }
  const result = schema.safeParse(value)
  return result.success && result.data.drill === drill ? result.data : undefined
}
