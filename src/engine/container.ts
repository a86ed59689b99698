import type { Duplex } from 'node:stream'
import type { ExitStatus, Sandbox } from '../sandbox/types.js'
import type { WaitCondition } from './api-types.js'
import { FileJobs } from './file-jobs.js'
import type { HealthState } from './health.js'
import { LateDuplex } from './late-duplex.js'
import type { ContainerRecord } from './store.js'

/** Why a wait ended. */
export interface WaitResult {
  exitCode: number
  error?: string
}

/** One container in memory: its record on disk, and what hangs on it while the daemon lives. */
export class Container {
  sandbox: Sandbox | undefined
  /** Resolves when the present run has ended and everything about it is written down and cleaned up. */
  ended: Promise<void> = Promise.resolve()
  /** `docker restart` is ending it: --rm does not apply. */
  keep = false
  /** Pending restart of the restart policy. */
  restartTimer: NodeJS.Timeout | undefined
  /** Of its health check, since its first start. */
  health: HealthState | undefined
  /** Exec sessions by ID. */
  readonly execs = new Set<string>()
  /** `docker cp` and the like that go on. */
  readonly fileJobs = new FileJobs()
  #runEnd = new AbortController()
  #attaches = new Map<LateDuplex, boolean>()
  #waiters = new Set<{ condition: WaitCondition; resolve: (result: WaitResult) => void }>()

  constructor(readonly record: ContainerRecord) {}

  get id(): string {
    return this.record.id
  }

  /** A process of it exists: running or paused. */
  get isUp(): boolean {
    return this.record.state.status === 'running' || this.record.state.status === 'paused'
  }

  /** It does not run, and nothing but a request is needed for it to. */
  get mayStart(): boolean {
    return !this.record.state.starting && (this.record.state.status === 'created' || this.record.state.status === 'exited')
  }

  /** Aborted when the present (or first) run has ended and its log is complete; already so when nothing runs any more. */
  get runEnded(): AbortSignal {
    const { status, starting } = this.record.state
    return this.isUp || starting || status === 'created' ? this.#runEnd.signal : AbortSignal.abort()
  }

  /** Tells the followers of the log that this run is over. */
  endRun(): void {
    this.#runEnd.abort()
    this.#runEnd = new AbortController()
  }

  // attach -------------------------------------------------------------------------------------------------

  /** A stream to the container's stdio (`input`: also to its stdin): joined now when it runs, else at its next start. */
  async attach(input: boolean): Promise<Duplex> {
    const late = new LateDuplex()
    if (this.sandbox && this.isUp) {
      late.connect((await this.sandbox.attach(input)).duplex)
      return late
    }
    this.#attaches.set(late, input)
    late.once('close', () => this.#attaches.delete(late))
    return late
  }

  /** Joins all waiting streams to a sandbox whose workload does not run yet, so that they miss nothing. */
  async connectAttaches(sandbox: Sandbox): Promise<void> {
    const waiting = [...this.#attaches]
    this.#attaches.clear()
    await Promise.all(waiting.map(async ([late, input]) => late.connect((await sandbox.attach(input)).duplex)))
  }

  /** The start failed or the container is gone: waiting streams end. */
  closeAttaches(): void {
    for (const late of this.#attaches.keys()) late.close()
    this.#attaches.clear()
  }

  // wait ---------------------------------------------------------------------------------------------------

  /** Registers a waiter at once. `signal` forgets it. */
  wait(condition: WaitCondition, signal: AbortSignal): Promise<WaitResult> {
    return new Promise((resolve) => {
      if (condition === 'not-running' && !this.isUp && this.record.state.status !== 'restarting' && !this.record.state.starting) {
        resolve({ exitCode: this.record.state.exitCode })
        return
      }
      const waiter = { condition, resolve }
      this.#waiters.add(waiter)
      signal.addEventListener('abort', () => this.#waiters.delete(waiter), { once: true })
    })
  }

  /** Wakes the waiters of some conditions. */
  notify(conditions: readonly WaitCondition[], result: WaitResult): void {
    for (const waiter of [...this.#waiters]) {
      if (!conditions.includes(waiter.condition)) continue
      this.#waiters.delete(waiter)
      waiter.resolve(result)
    }
  }
}

/** What an exit means for the record. */
export function recordExit(record: ContainerRecord, exit: ExitStatus): void {
  record.state.status = 'exited'
  record.state.starting = false
  delete record.state.ending
  record.state.exitCode = exit.code
  record.state.oomKilled = exit.oomKilled
  // The supervisor's clock is coarser than ours: nothing ends before it began.
  const finished = exit.finishedAt.toISOString()
  record.state.finishedAt = record.state.startedAt !== undefined && finished < record.state.startedAt ? record.state.startedAt : finished
}
