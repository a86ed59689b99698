import type { Bench } from '../engines.js'
import type { Section } from '../report.js'

/** What a part may use. */
export interface PartContext {
  bench: Bench
  /** Name of the small image that every engine has. */
  image: string
  /** Rounds of a measurement that takes well under a second. */
  rounds: number
  /** Milliseconds after which the part begins no further round. */
  limitMs: number
}

/** One independent measurement: `BENCH=name` selects it. */
export type Part = (context: PartContext) => Promise<Section>
