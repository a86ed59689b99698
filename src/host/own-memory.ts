import { performance, type EventLoopUtilization } from 'node:perf_hooks'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { log } from '../base/log.js'
import { native } from './native.js'

/** Less than this share of an interval spent on work is nothing to do. */
const IDLE = 0.05
/** Less garbage than this is not worth 15 ms, bytes. */
const WORTH = 4 << 20

/**
 * Keeps this process from growing with what it has done, as far as V8 allows: objects that die young are collected in 1 MiB and not, after some work, in 16 (three times that of the host's memory; V8 gives none of it back).
 * To be called before any work. A V8 that does not know the flag ignores it.
 */
export function keepYoungGenerationSmall(): void {
  setFlagsFromString('--semi-space-growth-factor=1')
}

/** V8's collector: Node gives it to nobody who has not asked for it on the command line. */
function fullCollection(): () => void {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc') as () => void
}

/** Bytes that the collector answers for, live or not. */
const held = (): number => {
  const { used_heap_size: used, external_memory: external } = getHeapStatistics()
  return used + external
}

/**
 * Gives memory back to the host while there is nothing to do: V8 collects when it needs room, and a daemon that has started a hundred containers and then waits needs none for days. A collection and a trim of the C library's
 * heap (malloc_trim(3)) take some 15 ms, once after each time of work.
 */
export class IdleCollector {
  readonly #collect = fullCollection()
  #timer: NodeJS.Timeout | undefined
  #seen: EventLoopUtilization = performance.eventLoopUtilization()
  #left = 0

  /** `interval`: how often is looked whether there is nothing to do, ms. */
  constructor(private readonly interval = 5000) {}

  start(): void {
    this.#timer ??= setInterval(() => this.#look(), this.interval).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #look(): void {
    const now = performance.eventLoopUtilization()
    const { utilization } = performance.eventLoopUtilization(now, this.#seen)
    this.#seen = now
    if (utilization > IDLE || held() - this.#left < WORTH) return
    const before = process.memoryUsage.rss()
    const begun = performance.now()
    this.#collect()
    native.trimHeap()
    this.#left = held()
    log.debug('gave memory back', { before, after: process.memoryUsage.rss(), ms: Math.round(performance.now() - begun) })
  }
}
