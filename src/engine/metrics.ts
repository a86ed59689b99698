import { cpus, totalmem } from 'node:os'
import { counter, gauge, Histogram, type MetricFamily } from '../base/metrics.js'
import type { EventBus } from './events.js'
import type { HealthCounts } from './health-monitor.js'
import type { ContainerRegistry } from './registry.js'

const isolations = ['process', 'vm'] as const
const states = ['running', 'paused', 'stopped'] as const

/** What the engine counts. Names are dockerd's where it has them, so that its dashboards work; `isolation` is Hull's own label. */
export class EngineMetrics {
  /** From the request to the running workload. */
  readonly starts = new Histogram('engine_daemon_container_start_seconds', 'Time to start a container, by isolation.', [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60])
  readonly #events = new Map<string, number>()
  #eventCount = 0

  constructor(
    readonly registry: ContainerRegistry,
    events: EventBus,
  ) {
    events.subscribe(({ type, action }) => {
      this.#eventCount++
      // 'exec_start: sh -c …' is one action, whatever it started: labels must stay few.
      const key = `${type} ${action.split(':', 1)[0]}`
      this.#events.set(key, (this.#events.get(key) ?? 0) + 1)
    })
  }

  families(health: HealthCounts, eventListeners: number): MetricFamily[] {
    const count = new Map<string, number>()
    for (const { record } of this.registry.all()) {
      const state = record.state.status === 'running' || record.state.status === 'paused' ? record.state.status : 'stopped'
      const key = `${record.isolation} ${state}`
      count.set(key, (count.get(key) ?? 0) + 1)
    }
    const memory = process.memoryUsage()
    return [
      gauge('engine_daemon_container_states_containers', 'Containers by state and isolation.', isolations.flatMap((isolation) => states.map((state) => [{ state, isolation }, count.get(`${isolation} ${state}`) ?? 0] as const))),
      this.starts.family(),
      counter('engine_daemon_events', 'Events since the daemon started.', [[{}, this.#eventCount]]),
      counter('hull_events_by_action', 'Events since the daemon started, by type and action.', [...this.#events].map(([key, value]) => [{ type: key.split(' ')[0]!, action: key.slice(key.indexOf(' ') + 1) }, value] as const)),
      gauge('engine_daemon_events_subscribers', 'Clients that listen to events.', [[{}, eventListeners]]),
      counter('engine_daemon_health_checks', 'Health checks that were run.', [[{}, health.probes]]),
      counter('engine_daemon_health_checks_failed', 'Health checks that failed.', [[{}, health.failed]]),
      gauge('engine_daemon_engine_cpus_cpus', 'CPUs of the host.', [[{}, cpus().length]]),
      gauge('engine_daemon_engine_memory_bytes', 'Memory of the host.', [[{}, totalmem()]]),
      gauge('process_resident_memory_bytes', 'Memory of the daemon.', [[{}, memory.rss]]),
      gauge('hull_daemon_heap_bytes', 'JavaScript heap of the daemon in use.', [[{}, memory.heapUsed]]),
      gauge('process_start_time_seconds', 'When the daemon started, since the epoch.', [[{}, Math.round(Date.now() / 1000 - process.uptime())]]),
    ]
  }
}
