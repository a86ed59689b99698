import type { ContainerRecord } from './store.js'

/** Docker's back-off (moby restartmanager), milliseconds: from the first, doubled up to the last, begun anew after a run of so long. */
const firstMs = 100
const lastMs = 60_000
const resetMs = 10_000

/** How long to wait before the next start. `before`: the wait before the last one, undefined when there was none; `ranMs`: how long it ran. */
export function nextWait(before: number | undefined, ranMs: number): number {
  return before === undefined || ranMs >= resetMs ? firstMs : Math.min(before * 2, lastMs)
}

type Judged = Pick<ContainerRecord, 'hostConfig' | 'restartCount'> & { state: Pick<ContainerRecord['state'], 'exitCode' | 'stoppedByUser' | 'status'> }

/** Whether the policy brings a container back that has just ended. What the user has stopped stays down, whatever the policy. */
export function restartsAfterExit({ hostConfig, restartCount, state }: Judged): boolean {
  if (state.stoppedByUser) return false
  const { Name: name, MaximumRetryCount: maximum } = hostConfig.RestartPolicy
  if (name === 'always' || name === 'unless-stopped') return true
  return name === 'on-failure' && state.exitCode !== 0 && (maximum === 0 || restartCount < maximum)
}

/**
 * Whether the policy starts a container that does not run when the daemon comes up. `always`: whatever was, if it was ever started;
 * `unless-stopped`: what nobody had stopped; `on-failure`: what ran until the host or its supervisor went (`wasUp`), as often as it may.
 */
export function restartsAtBoot(judged: Judged, wasUp: boolean): boolean {
  if (judged.state.status === 'created') return false
  const { Name: name } = judged.hostConfig.RestartPolicy
  if (name === 'always') return true
  if (name === 'on-failure' && !wasUp) return false
  return restartsAfterExit(judged)
}
