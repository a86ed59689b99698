import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { badRequest } from '../../base/errors.js'
import { parseMeminfo } from '../../host/facts.js'
import type { WorkloadSpec } from '../types.js'

/** Annotation: how the machine has to come to life: 'boot', or 'template': not from the pool. Whoever compares them needs it. */
const START = 'org.hull.vm.start'

/** What {@link START} says. 400 for what it must not. */
export function wantedStart({ annotations }: Pick<WorkloadSpec, 'annotations'>): 'boot' | 'template' | undefined {
  const value = annotations?.[START]
  if (value === undefined || value === 'boot' || value === 'template') return value
  throw badRequest(`annotation ${START}=${value}: want boot or template`)
}

/**
 * Everything that a machine and its jail have from the beginning and cannot be given later: programs, image, disk, size and limits, network card, what the monitor was told of stdin and log. What
 * the guest is told with CONFIG and RUN (names, addresses, command, environment, user, capabilities, …) is not in it. '' for a container whose machine cannot be made ahead: one with mounts, or that is not to be.
 */
export function poolKey(spec: WorkloadSpec, bridged: boolean, jailRoot: string): string {
  if (spec.mounts.some((mount) => mount.type !== 'tmpfs') || wantedStart(spec)) return ''
  const { chainId, layers, diskBytes, resources, openStdin, stdinOnce, process, logPath, logLimits, cgroupParent } = spec
  return JSON.stringify([jailRoot, chainId, layers, diskBytes, resources, bridged, openStdin, stdinOnce, process.tty, logPath !== '', logLimits, cgroupParent])
}

/** The spec of a container like this one that does not exist: an id and paths of its own. */
export function aheadOf(like: WorkloadSpec): WorkloadSpec {
  const id = randomBytes(32).toString('hex')
  const own = (path: string) => path.replaceAll(like.id, id)
  return { ...like, id, name: '', stateDir: own(like.stateDir), runDir: own(like.runDir), logPath: own(like.logPath) }
}

/** Part of the host's memory that must be available, or a GiB if that is less, before machines are made that nobody has asked for. */
const SHARE = 0.1
const ENOUGH = 2 ** 30

/** True: what is available of the host's memory is for others (proc(5), MemAvailable). */
export async function memoryIsShort(): Promise<boolean> {
  const text = await readFile('/proc/meminfo', 'utf8')
  return parseMeminfo(text, 'MemAvailable') < Math.min(ENOUGH, parseMeminfo(text, 'MemTotal') * SHARE)
}
