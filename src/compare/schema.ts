import { z } from 'zod'
import { DRILLS, ISOLATIONS, SCHEMA_VERSION, type Comparison, type Unit } from './types.js'

const finite = z.number()
const text = z.string()
const texts = z.array(text)
const missing = z.looseObject({ missing: text })
const measured = z.looseObject({ n: finite, median: finite, p95: finite, min: finite, max: finite, ci95: z.tuple([finite, finite]).nullable(), rows: z.array(finite), command: text })
const result = z.union([missing, measured])
const subjects = ['host', ...ISOLATIONS] as const
const bySubject = <T extends z.ZodType>(value: T) => z.partialRecord(z.enum(subjects), value)
const byIsolation = <T extends z.ZodType>(value: T) => z.partialRecord(z.enum(ISOLATIONS), value)
const units = ['ms', 'us', 's', 'bytes', 'MB/s', 'Mbit/s', 'ops/s', 'requests/s', 'events/s', 'count'] as const satisfies readonly Unit[]
const figure = z.looseObject({ id: text, title: text, unit: z.enum(units), better: z.enum(['less', 'more', 'neither']), results: bySubject(result) })
const base = { skipped: text.exactOptional(), notes: texts, seconds: finite }
const figures = { ...base, figures: z.array(figure) }

const parts = z.looseObject({ workload: finite, guestKernel: finite, vmm: finite, supervisor: finite })
const step = z.looseObject({ index: finite, startMs: finite, available: finite })
const curve = z.looseObject({ steps: z.array(step), bytesEach: finite, predicted: finite, started: finite, alive: finite, stopped: text.exactOptional(), command: text })
const surface = z.looseObject({
  sharedKernel: z.boolean().nullable(), kernel: text, hostSyscalls: finite.nullable(), hostSyscallsBy: z.enum(['prober', 'filter']).nullable(), workloadSyscalls: finite.nullable(), kernelFunctions: finite.nullable(),
  kernelFunctionsMissing: text.exactOptional(), kernelFunctionsCommand: text.exactOptional(),
  capabilities: texts, devices: texts, sharedNamespaces: texts, hostUid: finite.nullable(), seccomp: z.enum(['filter', 'strict', 'off']).nullable(), command: text,
})
const drill = z.looseObject({ drill: z.enum(DRILLS), title: text, privileged: z.boolean(), results: byIsolation(z.looseObject({ outcome: z.enum(['host', 'guest', 'refused', 'missing']), detail: text, command: text })) })

const sections = z.looseObject({
  start: z.looseObject(figures).exactOptional(),
  memory: z.looseObject({ ...figures, parts: byIsolation(z.union([missing, parts])) }).exactOptional(),
  density: z.looseObject({ ...base, asked: finite, total: finite, available: finite, curves: byIsolation(z.union([missing, curve])) }).exactOptional(),
  perf: z.looseObject(figures).exactOptional(),
  surface: z.looseObject({ ...base, facts: byIsolation(z.union([missing, surface])) }).exactOptional(),
  drills: z.looseObject({ ...base, drills: z.array(drill) }).exactOptional(),
  portability: z.looseObject({ ...figures, requirements: byIsolation(texts), elsewhere: byIsolation(texts) }).exactOptional(),
})

/** types.ts, for what comes from a file. Fields that a later version adds are let through. */
const comparison = z.looseObject({
  kind: z.literal('hull-comparison'), schemaVersion: z.literal(SCHEMA_VERSION), startedAt: text, seconds: finite, command: text,
  host: z.looseObject({ kernel: text, os: text, cpu: text, cpus: finite, memory: finite, available: finite, load: finite, dataRootFs: text, cgroup: text, kvmDevice: z.boolean() }),
  versions: z.looseObject({ hull: text, crun: text, runsc: text, qemu: text, guestKernel: text, kernel: text }), accelerator: z.enum(['kvm', 'tcg', '']),
  image: z.looseObject({ reference: text, id: text, digests: texts, size: finite, layers: finite, architecture: text }),
  workload: z.looseObject({ command: texts, port: finite.nullable(), behaviour: z.enum(['exits', 'serves', 'stays']), exitCode: finite.nullable(), prints: z.boolean() }),
  isolations: z.array(z.intersection(
    z.looseObject({ name: z.enum(ISOLATIONS), title: text }),
    z.discriminatedUnion('available', [z.looseObject({ available: z.literal(true), flags: texts }), z.looseObject({ available: z.literal(false), reason: text })]),
  )),
  sections, warnings: texts,
}) satisfies z.ZodType<Comparison>

/** A comparison's JSON, every field checked; throws an Error in words for what is none. */
export function parseComparison(source: string): Comparison {
  let value: unknown
  try {
    value = JSON.parse(source)
  } catch (error) {
    throw new Error(`not JSON: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
  }
  const result = comparison.safeParse(value)
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw new Error(`not a comparison that this version reads: ${issue?.path.join('.') || 'the file'}: ${issue?.message ?? 'wrong'}`)
}
