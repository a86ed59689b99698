import { z } from 'zod'

/**
 * Building blocks that read JSON as Go's decoder reads it for Docker: a missing field or `null` is the zero value, unknown fields are
 * ignored, field names match in any case; a wrong type is an error.
 */

/** Marks an issue whose message is a whole sentence in Docker's words, to be shown without the field's path. */
export const sentence = { sentence: true }

/** A string; '' when not said. */
export const text = z.string().refine((value) => !value.includes('\0'), { message: 'a string must not hold a NUL byte' }).nullish().transform((value) => value ?? '')
export const flag = z.boolean().nullish().transform((value) => value ?? false)
/** An int64 that may have been rounded on its way through a JavaScript client. */
const int64 = z.number().refine((value) => Number.isInteger(value) && Math.abs(value) <= 2 ** 63, { message: 'expected a 64-bit integer', abort: true })
export const integer = int64.nullish().transform((value) => value ?? 0)
export const natural = int64.refine((value) => value >= 0, { message: 'expected an integer that is not negative' }).nullish().transform((value) => value ?? 0)
export const integerOrNull = int64.nullish().transform((value) => value ?? null)
export const flagOrNull = z.boolean().nullish().transform((value) => value ?? null)

const plainText = z.string().refine((value) => !value.includes('\0'), { message: 'a string must not hold a NUL byte' })

/** A list; [] when not said. */
export const list = <Item extends z.ZodType>(item: Item) => z.array(item).nullish().transform((value): z.output<Item>[] => value ?? [])
export const texts = list(plainText)
/** A list where "not said" differs from []. */
export const textsOrNull = z.array(plainText).nullish().transform((value) => value ?? null)
/** Go's strslice: a list of strings, or one string, or null. */
export const words = z.union([z.array(plainText), plainText]).nullish().transform((value) => (value === null || value === undefined ? null : typeof value === 'string' ? [value] : value))

/** An object with keys of the user's choice; {} when not said. */
export const dictionary = <Item extends z.ZodType>(item: Item) =>
  z.record(plainText, item).nullish().transform((value): Record<string, z.output<Item>> => value ?? {})
export const labels = dictionary(z.string().nullable().transform((value) => value ?? ''))
/** Go's map[string]struct{}: '80/tcp' → {}. */
export const names = dictionary(z.object({}).nullable().transform((): object => ({})))

/** An object with known fields. */
export function fields<Shape extends z.ZodRawShape>(shape: Shape) {
  const byLower = new Map(Object.keys(shape).map((key) => [key.toLowerCase(), key]))
  const rename = (value: unknown): unknown => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
    if (Object.keys(value).every((key) => key in shape || !byLower.has(key.toLowerCase()))) return value
    return Object.fromEntries(Object.entries(value).map(([key, field]) => [byLower.get(key.toLowerCase()) ?? key, field as unknown]))
  }
  return z.preprocess(rename, z.object(shape))
}

/** {@link fields}, where null or nothing means all zero values. */
export function fieldsOrZero<Shape extends z.ZodRawShape>(shape: Shape) {
  const inner = fields(shape)
  return z.preprocess((value) => value ?? {}, inner)
}

/** {@link fields}, or null. */
export const fieldsOrNull = <Shape extends z.ZodRawShape>(shape: Shape) =>
  z.union([z.null(), fields(shape)]).optional().transform((value): z.output<z.ZodObject<Shape>> | null => value ?? null)

/** One of several words; `message` is the whole sentence that the user sees for another. */
export const word = <const Words extends readonly string[]>(choices: Words, message: (value: unknown) => string) =>
  z.custom<Words[number]>((value) => typeof value === 'string' && choices.includes(value), { error: (issue) => message(issue.input), params: sentence })
