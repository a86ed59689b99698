import { log } from '../base/log.js'
import { messageOf } from '../base/errors.js'
import type { Endpoint } from '../network/types.js'
import type { Sandbox } from '../sandbox/types.js'
import { type Container, recordExit } from './container.js'
import type { Lifecycle } from './lifecycle.js'
import { restartsAtBoot } from './restart-policy.js'
import type { ContainerRecord } from './store.js'
import { finishUpdate } from './update.js'

interface Found {
  container: Container
  sandbox: Sandbox | undefined
  /** It ran, or was being started, when the last daemon ended. */
  wasUp: boolean
}

/**
 * After a start of the daemon: takes back what still runs, finishes or undoes what was half done, then applies restart policies.
 * `records` come from the disk. The network is started by `startNetwork` with the endpoints of all that runs.
 */
export async function restore(life: Lifecycle, records: ContainerRecord[], make: (record: ContainerRecord) => Container, startNetwork: (active: Endpoint[]) => Promise<void>): Promise<void> {
  const found: Found[] = []
  for (const record of records) found.push(await find(life, make(record)))
  const active = found.flatMap(({ container, sandbox }) => (sandbox ? life.connections.active(container.record) : []))
  await startNetwork(active)
  await life.parts.volumes.restore(found.flatMap(({ container, sandbox }) => (sandbox ? [container.record] : [])))
  for (const { container, sandbox, wasUp } of found) {
    await life.health.restore(container, sandbox !== undefined && container.record.state.status === 'running')
    if (sandbox) await goOn(life, container, sandbox)
    else await setRight(life, container, wasUp)
  }
}

async function find(life: Lifecycle, container: Container): Promise<Found> {
  const { record } = container
  const wasUp = container.isUp || record.state.starting
  let sandbox: Sandbox | undefined
  try {
    sandbox = await life.parts.drivers[record.isolation].adopt(await life.specOf(record))
  } catch (error) {
    log.error('cannot adopt a container', { id: record.id, error: messageOf(error) })
  }
  if (sandbox && (record.state.starting || !container.isUp)) {
    // Nobody was told that it had started: undo.
    await sandbox.destroy()
    sandbox = undefined
  }
  return { container, sandbox, wasUp }
}

async function goOn(life: Lifecycle, container: Container, sandbox: Sandbox): Promise<void> {
  const { record } = container
  life.hold(container, sandbox)
  // A daemon that died in the middle of a commit left it frozen.
  if (record.state.status === 'running') await sandbox.unpause().catch((error: unknown) => log.warn('cannot thaw a container', { id: record.id, error: messageOf(error) }))
  await finishUpdate(life, container)
  await life.exclusive(container, () => life.connections.finishPending(container))
}

/** What does not run. */
async function setRight(life: Lifecycle, container: Container, wasUp: boolean): Promise<void> {
  const { record } = container
  const { state } = record
  if (state.status === 'removing') return life.finishRemoval(container)
  if (state.starting) {
    // A start that was cut off; what it had in the kernel is gone.
    state.starting = false
    await life.connections.release(record)
    await life.parts.store.keep(record)
  }
  if (container.isUp) {
    // It ran and is gone: its end is on record, or there is no exit status: the host was restarted, or somebody killed its supervisor.
    const { ending } = state
    recordExit(record, ending ? { ...ending, finishedAt: new Date(ending.finishedAt) } : { code: 137, oomKilled: false, finishedAt: new Date() })
    await life.connections.release(record)
    await life.parts.store.keep(record)
    life.announce(container, 'die', { exitCode: String(state.exitCode) })
  } else if (state.status === 'restarting') {
    // Its end is told and written down already; the wait for the next start was cut off.
    state.status = 'exited'
    wasUp = true
    if (!restartsAtBoot(record, wasUp)) await life.parts.store.keep(record)
  }
  if (record.hostConfig.AutoRemove) return life.finishRemoval(container) // whatever it was: nobody would (moby, daemon.restore)
  if (restartsAtBoot(record, wasUp)) await life.startByPolicy(container)
}
