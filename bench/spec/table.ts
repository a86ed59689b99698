import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A row of SPEC.md. */
export interface Promised {
  id: string
  promise: string
  relation: '≤' | '≥' | '='
  bound: number
}

/** The rows of SPEC.md's table; throws for one that cannot be read, and for a second of the same id. */
export function readSpec(path = join(import.meta.dirname, '../../SPEC.md')): Promised[] {
  const rows = readFileSync(path, 'utf8').split('\n').filter((line) => line.startsWith('| ')).slice(1)
  const seen = new Set<string>()
  return rows.map((line) => {
    const match = /^\| ([a-z-]+) \| ([^|]+) \| ([≤≥=]) (\d+(?:\.\d+)?) \| [^|]*`[^|]+ \|$/.exec(line)
    if (!match) throw new Error(`SPEC.md: no promise with a bound and a command: ${line}`)
    const [, id = '', promise = '', relation, bound] = match
    if (seen.has(id)) throw new Error(`SPEC.md: ${id} is there twice`)
    seen.add(id)
    return { id, promise, relation: relation as Promised['relation'], bound: Number(bound) }
  })
}

/** Whether a measured value keeps the promise; what is no number keeps none. */
export function keeps({ relation, bound }: Promised, value: number): boolean {
  return relation === '≤' ? value <= bound : relation === '≥' ? value >= bound : value === bound
}
