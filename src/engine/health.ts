import type { HealthConfig } from './config-types.js'

/** One run of a probe, as `docker inspect` shows it. */
export interface ProbeResult {
  /** ISO 8601 */
  start: string
  end: string
  /** 0 healthy; -1: it could not be run, or took too long. */
  exitCode: number
  output: string
}

/** State.Health. */
export interface HealthState {
  status: 'starting' | 'healthy' | 'unhealthy'
  failingStreak: number
  /** The last {@link keptResults}, oldest first. */
  log: ProbeResult[]
}

/** Docker's numbers (moby daemon/health.go). Times in milliseconds. */
const defaults = { interval: 30_000, timeout: 30_000, startPeriod: 0, startInterval: 5_000, retries: 3 }
/** Results that are kept. */
const keptResults = 5

/** A health check that is to be run: what, how often, how patiently. Times in milliseconds. */
export interface Probe {
  command: string[]
  interval: number
  timeout: number
  startPeriod: number
  startInterval: number
  retries: number
}

/** The probe of a container; undefined when it has none, or `NONE`. `shell` is its SHELL, for CMD-SHELL. */
export function probeOf(config: HealthConfig | null, shell: readonly string[]): Probe | undefined {
  const [kind, ...rest] = config?.Test ?? []
  if (!config || rest.length === 0 || (kind !== 'CMD' && kind !== 'CMD-SHELL')) return undefined
  const ms = (nanoseconds: number, fallback: number) => (nanoseconds === 0 ? fallback : nanoseconds / 1e6)
  return {
    command: kind === 'CMD' ? rest : [...(shell.length > 0 ? shell : ['/bin/sh', '-c']), ...rest],
    interval: ms(config.Interval, defaults.interval),
    timeout: ms(config.Timeout, defaults.timeout),
    startPeriod: ms(config.StartPeriod, defaults.startPeriod),
    startInterval: ms(config.StartInterval, defaults.startInterval),
    retries: config.Retries > 0 ? config.Retries : defaults.retries,
  }
}

/** Milliseconds from now to the next probe: the start interval only while the start period lasts and nothing was ever healthy. */
export function delayOf(probe: Probe, status: HealthState['status'], startedAt: number, now: number): number {
  return now - startedAt < probe.startPeriod && status === 'starting' ? probe.startInterval : probe.interval
}

/** What a result makes of the state. A failure within the start period is written down and does not count, until the first success. */
export function afterProbe(state: HealthState, probe: Probe, result: ProbeResult, startedAt: number): HealthState {
  const log = [...state.log, result].slice(-keptResults)
  if (result.exitCode === 0) return { status: 'healthy', failingStreak: 0, log }
  if (state.status === 'starting' && Date.parse(result.start) - startedAt < probe.startPeriod) return { ...state, log }
  const failingStreak = state.failingStreak + 1
  return { status: failingStreak >= probe.retries ? 'unhealthy' : state.status, failingStreak, log }
}

const isResult = (value: unknown): value is ProbeResult =>
  typeof value === 'object' && value !== null && 'start' in value && typeof value.start === 'string' && 'end' in value && typeof value.end === 'string' &&
  'exitCode' in value && typeof value.exitCode === 'number' && 'output' in value && typeof value.output === 'string'

/** Reads what an earlier daemon wrote; undefined when it is none. */
export function parseHealth(text: string): HealthState | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  const { status, failingStreak, log } = value as Record<string, unknown>
  if ((status !== 'starting' && status !== 'healthy' && status !== 'unhealthy') || typeof failingStreak !== 'number' || !Array.isArray(log)) return undefined
  return { status, failingStreak, log: log.filter(isResult).slice(-keptResults) }
}
