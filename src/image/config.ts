import { z } from 'zod'
import { internal } from '../base/errors.js'
import { isDigest, type Digest } from './digest.js'
import { firstIssue, layerLimit, parseJsonObject } from './manifests.js'
import type { Image } from './types.js'

/** What Hull uses of an image config blob (OCI image-spec, config.md). */
export type ImageDocument = Pick<Image, 'architecture' | 'os' | 'created' | 'config' | 'history'> & { variant?: string; author?: string; diffIds: Digest[] }

const line = z.string().max(1 << 20)
/** Go writes `null` for what is empty: the same as absent. */
const optional = <T extends z.ZodType>(type: T) => type.nullish().transform((value) => value ?? undefined)
const lines = z.array(line).max(100_000)
const keys = z.record(line, z.unknown()).transform((value) => Object.fromEntries(Object.keys(value).map((key) => [key, {}])))

const nanoseconds = z.number().int().min(-(2 ** 62)).max(2 ** 62)
const healthcheck = z.object({
  Test: optional(lines), Interval: optional(nanoseconds), Timeout: optional(nanoseconds), StartPeriod: optional(nanoseconds),
  StartInterval: optional(nanoseconds), Retries: optional(z.number().int()),
})

const runtimeConfig = z.object({
  User: optional(line), ExposedPorts: optional(keys), Env: optional(lines), Entrypoint: optional(lines), Cmd: optional(lines), Volumes: optional(keys),
  WorkingDir: optional(line), Labels: optional(z.record(line, line)), StopSignal: optional(line), Shell: optional(lines),
  Healthcheck: optional(healthcheck), OnBuild: optional(lines),
})

const documentSchema = z.object({
  architecture: optional(line), os: optional(line), variant: optional(line), created: optional(line), author: optional(line),
  config: optional(runtimeConfig),
  rootfs: z.object({ type: z.literal('layers').nullish(), diff_ids: z.array(z.string().refine(isDigest, 'not a sha256 digest')).max(layerLimit, 'max depth exceeded') }),
  history: optional(z.array(z.object({ created: optional(line), created_by: optional(line), comment: optional(line), empty_layer: optional(z.boolean()) })).max(10_000)),
})

/** A copy without undefined members, one level down too: what exactOptionalPropertyTypes and JSON both mean by absent. */
function present<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as { [K in keyof T]: Exclude<T[K], undefined> }
}

/** Reads a config blob. Throws what is wrong with it; an image without layers is wrong. */
export function parseConfig(bytes: Uint8Array): ImageDocument {
  const parsed = documentSchema.safeParse(parseJsonObject(bytes, 'the image config'))
  if (!parsed.success) throw internal(`the image config is not valid: ${firstIssue(parsed.error)}`)
  const { rootfs, config, history, ...rest } = parsed.data
  if (rootfs.diff_ids.length === 0) throw internal('the image has no layers: there is nothing to run')
  const runtime = config === undefined ? {} : present({ ...config, Healthcheck: config.Healthcheck && present(config.Healthcheck) })
  return {
    architecture: rest.architecture ?? '',
    os: rest.os || 'linux',
    created: rest.created && !Number.isNaN(Date.parse(rest.created)) ? rest.created : '0001-01-01T00:00:00Z',
    ...(rest.variant ? { variant: rest.variant } : {}),
    ...(rest.author ? { author: rest.author } : {}),
    config: runtime,
    history: (history ?? []).map((entry) => present(entry) as Image['history'][number]),
    diffIds: rootfs.diff_ids,
  }
}
