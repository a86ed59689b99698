import { setTimeout as sleep } from 'node:timers/promises'
import { parseLink } from './attachment.js'
import type { Container } from './container.js'
import { donorOf } from './namespaces.js'
import type { ContainerRegistry } from './registry.js'
import type { ContainerRecord } from './store.js'

/** Milliseconds for which those that are about to run are waited for, at most, and between looks. A VM without KVM boots in seconds. */
const PATIENCE = 60_000
const LOOK = 50

/** Those without which it cannot start: what it links to on the default bridge, and whose namespaces it joins. */
function neededBy({ hostConfig }: ContainerRecord, registry: ContainerRegistry): Container[] {
  const references = [...hostConfig.Links.map((text) => parseLink(text).target), ...[hostConfig.NetworkMode, hostConfig.PidMode, hostConfig.IpcMode].flatMap((mode) => donorOf(mode) ?? [])]
  return references.flatMap((reference) => {
    try {
      return [registry.get(reference)]
    } catch {
      return [] // told at the start
    }
  })
}

/**
 * Resolves when those that a container needs run, or will not, or have been waited for long enough, or nobody `wants` it any more. After a boot of the host the restart policies start all at once, and one that came before
 * those that it needs would fail for good. Docker waits so for links (moby, daemon.restore), and leaves who joins a namespace to chance.
 */
export async function neededAreUp(record: ContainerRecord, registry: ContainerRegistry, wants: () => boolean): Promise<void> {
  const needed = neededBy(record, registry)
  const coming = ({ isUp, record: { state } }: Container) => !isUp && (state.status === 'restarting' || state.starting)
  for (const end = performance.now() + PATIENCE; needed.some(coming) && wants() && performance.now() < end; ) await sleep(LOOK, undefined, { ref: false })
}
