import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { log } from '../base/log.js'
import type { Runtime } from './runtime.js'
import type { SeccompConfig } from './seccomp.js'
import type { OciConfig } from './spec-types.js'

/** crun(1): a filter that is compiled already, base64, in place of linux.seccomp. */
const ANNOTATION = 'run.oci.seccomp_bpf_data'
/** struct sock_filter, linux/filter.h; BPF_MAXINSNS. */
const INSTRUCTION = 8
const MAX_INSTRUCTIONS = 4096
/** Profiles are few: the default by capability sets, and what users bring. */
const MAX_FILTERS = 64

const filters = new Map<string, string>()
/** One profile object is used again and again: hashing it once is enough. */
const keys = new WeakMap<SeccompConfig, string>()

function keyOf(runtime: Runtime, seccomp: SeccompConfig): string {
  let digest = keys.get(seccomp)
  if (digest === undefined) keys.set(seccomp, (digest = createHash('sha256').update(JSON.stringify(seccomp)).digest('hex')))
  return `${runtime.program.path} ${runtime.program.version} ${digest}`
}

/**
 * Spares crun the compilation of the profile (2.7 of 8.5 ms of its `create`; Debian's crun is built without its own cache). The filter is
 * the one that crun itself wrote for the same profile at an earlier start of this daemon. What it was made of, 16 of 25 KB, is left out of the file, which is parsed at the start and at each exec, and lies in memory twice: what stays
 * there makes a filter under which nothing runs, for a runtime that did not know the annotation. Call {@link keepFilter} once the container is created.
 */
export function useCachedFilter(runtime: Runtime, config: OciConfig): void {
  const { seccomp } = config.linux
  if (!seccomp || runtime.kind !== 'crun') return
  const filter = filters.get(keyOf(runtime, seccomp))
  if (filter === undefined) return
  config.annotations = { ...config.annotations, [ANNOTATION]: filter }
  config.linux.seccomp = { ...seccomp, defaultAction: 'SCMP_ACT_KILL_PROCESS', syscalls: [] }
}

/** Keeps the filter that crun compiled for this container. Not on anybody's way: a failure costs the next start 3 ms. */
export async function keepFilter(runtime: Runtime, id: string, config: OciConfig): Promise<void> {
  const { seccomp } = config.linux
  if (!seccomp || runtime.kind !== 'crun' || config.annotations?.[ANNOTATION] !== undefined) return
  try {
    const program = await readFile(join(runtime.root, id, 'seccomp.bpf'))
    // An empty or cut file would be a hole in the wall.
    if (program.length === 0 || program.length % INSTRUCTION !== 0 || program.length > MAX_INSTRUCTIONS * INSTRUCTION) return
    if (filters.size >= MAX_FILTERS) filters.delete(filters.keys().next().value!)
    filters.set(keyOf(runtime, seccomp), program.toString('base64'))
  } catch (error) {
    log.debug('no compiled filter to keep', { id, error })
  }
}
