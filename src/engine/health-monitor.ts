import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, messageOf } from '../base/errors.js'
import { log } from '../base/log.js'
import { LONGEST_TIMER } from '../base/timers.js'
import type { Container } from './container.js'
import { afterProbe, delayOf, type HealthState, parseHealth, type Probe, probeOf } from './health.js'
import { type Announce, runProbe } from './health-probe.js'

/** Below the container's directory: kept apart from the record, which is written by the steps of the life cycle under their lock. */
const file = 'health.json'

/** Counts for /metrics. */
export interface HealthCounts {
  probes: number
  failed: number
}

interface Watch {
  stop: AbortController
  /** Resolves when the loop has ended and nothing more is written. */
  done: Promise<void>
}

/** Runs the health checks of all containers: a loop for each that runs and has one, never two. */
export class HealthMonitor {
  readonly #watches = new Map<string, Watch>()
  readonly counts: HealthCounts = { probes: 0, failed: 0 }

  constructor(
    readonly directoryOf: (id: string) => string,
    readonly announce: (container: Container, ...event: Parameters<Announce>) => void,
  ) {}

  /** The workload has just started: 'starting', whatever was before; earlier results stay readable. */
  begin(container: Container): void {
    const probe = this.#probe(container)
    if (!probe) return
    container.health = { status: 'starting', failingStreak: 0, log: container.health?.log ?? [] }
    this.#watch(container, probe)
  }

  /** After `unpause`: the state stays as the pause left it until the next probe has said something. */
  resume(container: Container): void {
    const probe = this.#probe(container)
    if (probe && container.health) this.#watch(container, probe)
  }

  /** After a start of the daemon: what the last one knew still holds, and the next probe comes one interval from now. `running`: and is not paused. */
  async restore(container: Container, running: boolean): Promise<void> {
    const probe = this.#probe(container)
    if (!probe) return
    container.health = await readFile(join(this.directoryOf(container.id), file), 'utf8').then(parseHealth, () => undefined)
    if (!running) return
    container.health ??= { status: 'starting', failingStreak: 0, log: [] }
    this.#watch(container, probe)
  }

  /** Ended or paused: a probe that runs is killed, and Docker calls the container unhealthy from then on. Resolves when nothing of it is left. */
  async end(container: Container): Promise<void> {
    const watch = this.#watches.get(container.id)
    if (!watch) return
    this.#watches.delete(container.id)
    if (container.health) container.health = { ...container.health, status: 'unhealthy' }
    watch.stop.abort()
    await watch.done
    await this.#save(container)
  }

  /** The daemon leaves: no more probes, and what is known stays as it is. */
  leave(): void {
    for (const watch of this.#watches.values()) watch.stop.abort()
    this.#watches.clear()
  }

  #probe(container: Container): Probe | undefined {
    const { Healthcheck, Shell } = container.record.config
    return probeOf(Healthcheck, Shell)
  }

  #watch(container: Container, probe: Probe): void {
    this.#watches.get(container.id)?.stop.abort()
    const stop = new AbortController()
    const done = this.#run(container, probe, stop.signal).catch((error: unknown) => {
      log.error('a health check ended', { id: container.id, error: messageOf(error) })
    })
    this.#watches.set(container.id, { stop, done })
  }

  async #run(container: Container, probe: Probe, signal: AbortSignal): Promise<void> {
    await this.#save(container)
    const startedAt = Date.parse(container.record.state.startedAt ?? '') || Date.now()
    const announce: Announce = (action, attributes) => this.announce(container, action, attributes)
    while (!signal.aborted) {
      await pause(delayOf(probe, container.health?.status ?? 'starting', startedAt, Date.now()), signal)
      if (signal.aborted) return
      const result = await runProbe(container, probe.command, probe.timeout, signal, announce)
      const before = container.health
      if (!result || signal.aborted || !before) return
      this.counts.probes++
      if (result.exitCode !== 0) this.counts.failed++
      const after = afterProbe(before, probe, result, startedAt)
      container.health = after
      // First on disk, then told: a client that hears of it may stop the daemon.
      await this.#save(container)
      if (signal.aborted) return
      if (after.status !== before.status) this.announce(container, `health_status: ${after.status}`, {})
    }
  }

  async #save(container: Container): Promise<void> {
    if (!container.health) return
    const path = join(this.directoryOf(container.id), file)
    try {
      await writeFile(`${path}.tmp`, JSON.stringify(container.health satisfies HealthState), { mode: 0o600 })
      await rename(`${path}.tmp`, path)
    } catch (error) {
      // Gone with its container, or a full disk: the check itself goes on.
      if (codeOf(error) !== 'ENOENT') log.warn('cannot save the state of a health check', { id: container.id, error: messageOf(error) })
    }
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  for (let left = ms; left > 0 && !signal.aborted; left -= LONGEST_TIMER) {
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, Math.min(left, LONGEST_TIMER))
      signal.addEventListener('abort', done, { once: true })
      if (signal.aborted) done()
    })
  }
}
