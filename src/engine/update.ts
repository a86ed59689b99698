import { conflict, HullError, messageOf } from '../base/errors.js'
import { log } from '../base/log.js'
import type { HostConfig, UpdateContainerRequest } from './api-types.js'
import { checkResources } from './checks.js'
import type { Container } from './container.js'
import type { Lifecycle } from './lifecycle.js'
import { resourcesOf } from './spec.js'

/** What `docker update` may change (moby container.UpdateContainer). */
const updatable = [
  'BlkioWeight', 'CpuShares', 'NanoCpus', 'CpuPeriod', 'CpuQuota', 'CpusetCpus', 'CpusetMems', 'Memory', 'MemorySwap', 'MemoryReservation', 'PidsLimit',
] as const satisfies readonly (keyof HostConfig)[]

/** Zero values of everything that {@link checkResources} looks at, so that a request is checked for what it says itself. */
const nothing = {
  BlkioWeight: 0, CpuShares: 0, NanoCpus: 0, CpuPeriod: 0, CpuQuota: 0, CpusetCpus: '', CpusetMems: '', Memory: 0, MemorySwap: 0, MemoryReservation: 0,
  PidsLimit: null, MemorySwappiness: null, OomScoreAdj: 0, ShmSize: 0, Ulimits: [],
} satisfies Partial<HostConfig>

/** The configuration after an update. 400 for what is wrong in the request, 409 for what contradicts the present one, in Docker's words. */
export function updatedConfig(present: HostConfig, request: UpdateContainerRequest): { hostConfig: HostConfig; warnings: string[] } {
  const asked = request.resources
  checkResources({ ...present, ...nothing, ...asked }, { update: true })
  const positive = (value: number | undefined) => (value ?? 0) > 0
  const clash = (one: boolean, other: boolean, words: string) => {
    if (one && other) throw conflict(`Conflicting options: ${words}`)
  }
  clash(positive(asked.NanoCpus), present.CpuPeriod > 0, 'Nano CPUs cannot be updated as CPU Period has already been set')
  clash(positive(asked.NanoCpus), present.CpuQuota > 0, 'Nano CPUs cannot be updated as CPU Quota has already been set')
  clash(positive(asked.CpuPeriod), present.NanoCpus > 0, 'CPU Period cannot be updated as NanoCPUs has already been set')
  clash(positive(asked.CpuQuota), present.NanoCpus > 0, 'CPU Quota cannot be updated as NanoCPUs has already been set')
  if (positive(asked.Memory) && !asked.MemorySwap && present.MemorySwap >= 0 && asked.Memory! > present.MemorySwap) {
    throw conflict('Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time')
  }
  const { restartPolicy } = request
  if (restartPolicy && restartPolicy.Name !== 'no' && present.AutoRemove) {
    throw conflict('Restart policy cannot be updated because AutoRemove is enabled for the container')
  }
  const hostConfig: HostConfig = { ...present, ...(restartPolicy ? { RestartPolicy: restartPolicy } : {}) }
  const warnings: string[] = []
  for (const [name, value] of Object.entries(asked)) {
    if ((updatable as readonly string[]).includes(name)) Object.assign(hostConfig, { [name]: value })
    else warnings.push(`${name} cannot be updated: it stays as it was when the container was made.`)
  }
  // The parts fit the request; the whole must fit together too.
  checkResources(hostConfig, { update: true })
  return { hostConfig, warnings }
}

/**
 * `docker update`: all of it or nothing. What the container is to have is on disk, marked as under way, before the kernel is told, so that a daemon
 * that dies in between finds what to finish ({@link finishUpdate}).
 */
export function updateContainer(lifecycle: Lifecycle, container: Container, request: UpdateContainerRequest): Promise<{ warnings: string[] }> {
  return lifecycle.exclusive(container, async () => {
    const { record, sandbox } = container
    const { store } = lifecycle.parts
    const cannot = (error: unknown) => {
      const status = error instanceof HullError ? error.statusCode : 500
      return new HullError(status, `Cannot update container ${record.id}: ${messageOf(error)}`, { cause: error })
    }
    if (record.state.status === 'removing' || record.state.status === 'dead') {
      throw cannot(conflict('container is marked for removal and cannot be "update"'))
    }
    const before = record.hostConfig
    let after: ReturnType<typeof updatedConfig>
    try {
      after = updatedConfig(before, request)
      // A limit that its next start could not be made with is refused now.
      await lifecycle.parts.drivers[record.isolation].validate(await lifecycle.specOf({ ...record, hostConfig: after.hostConfig }))
    } catch (error) {
      throw error instanceof HullError && error.statusCode === 400 ? error : cannot(error)
    }
    const warnings = [...after.warnings]
    const live = container.isUp && sandbox
    record.hostConfig = after.hostConfig
    if (live) record.state.updating = true
    try {
      await store.save(record, true)
      if (live) {
        warnings.push(...(await sandbox.update(resourcesOf(after.hostConfig), resourcesOf(before))))
        delete record.state.updating
        await store.save(record)
      }
    } catch (error) {
      record.hostConfig = before
      delete record.state.updating
      await store.save(record, true).catch((reason: unknown) => log.error('cannot save a container', { id: record.id, error: messageOf(reason) }))
      throw cannot(error)
    }
    lifecycle.announce(container, 'update')
    return { warnings }
  })
}

/** After a start of the daemon: the last one died in an update of this running container. What is on disk holds. */
export async function finishUpdate(lifecycle: Lifecycle, container: Container): Promise<void> {
  const { record, sandbox } = container
  if (!record.state.updating || !sandbox) return
  await sandbox.update(resourcesOf(record.hostConfig)).catch((error: unknown) => log.error('cannot finish an update', { id: record.id, error: messageOf(error) }))
  delete record.state.updating
  await lifecycle.parts.store.save(record)
}
