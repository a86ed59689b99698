interface Flight<T, P> {
  promise: Promise<T>
  controller: AbortController
  listeners: Set<(progress: P) => void>
}

/**
 * One run of a piece of work however many ask for it at the same time. The work is aborted when the last of them
 * has given up; everybody who waits hears its progress.
 */
export class Flights<T, P = never> {
  private readonly flights = new Map<string, Flight<T, P>>()

  has(key: string): boolean {
    return this.flights.has(key)
  }

  /** Joins the run under `key`, or starts `work`. */
  async run(
    key: string,
    work: (signal: AbortSignal, notify: (progress: P) => void) => Promise<T>,
    options: { signal?: AbortSignal | undefined; onProgress?: ((progress: P) => void) | undefined } = {},
  ): Promise<T> {
    options.signal?.throwIfAborted()
    let flight = this.flights.get(key)
    while (flight?.controller.signal.aborted) {
      await flight.promise.catch(() => {}) // everybody left: it is on its way down
      options.signal?.throwIfAborted()
      flight = this.flights.get(key)
    }
    return this.wait(flight ?? this.start(key, work), options)
  }

  private start(key: string, work: (signal: AbortSignal, notify: (progress: P) => void) => Promise<T>): Flight<T, P> {
    const controller = new AbortController()
    const listeners = new Set<(progress: P) => void>()
    const promise = work(controller.signal, (progress) => {
      for (const listener of listeners) listener(progress)
    }).finally(() => this.flights.delete(key))
    promise.catch(() => {}) // those who wait hear of it; nobody may be left to
    const flight = { promise, controller, listeners }
    this.flights.set(key, flight)
    return flight
  }

  private async wait(flight: Flight<T, P>, { signal, onProgress }: { signal?: AbortSignal | undefined; onProgress?: ((progress: P) => void) | undefined }): Promise<T> {
    const listener = (progress: P) => onProgress?.(progress)
    flight.listeners.add(listener)
    let stop: (() => void) | undefined
    try {
      if (signal === undefined) return await flight.promise
      const aborted = new Promise<never>((_, reject) => {
        const abort = () => reject(signal.reason as Error)
        signal.addEventListener('abort', abort)
        stop = () => signal.removeEventListener('abort', abort)
      })
      return await Promise.race([flight.promise, aborted])
    } finally {
      stop?.()
      flight.listeners.delete(listener)
      if (flight.listeners.size === 0) {
        flight.controller.abort(new DOMException('nobody waits for it any more', 'AbortError'))
        await flight.promise.catch(() => {}) // our caller may clean up only after the work has let go
      }
    }
  }
}

/** At most `limit` pieces of work at a time, first come first served. */
export class Slots {
  private readonly waiting: (() => void)[] = []
  private free: number

  constructor(limit: number) {
    this.free = limit
  }

  /** True when {@link run} would have to wait. */
  get busy(): boolean {
    return this.free === 0
  }

  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (this.free > 0) this.free--
    else await this.queue(signal)
    try {
      return await work()
    } finally {
      const next = this.waiting.shift()
      if (next === undefined) this.free++
      else next()
    }
  }

  private queue(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const start = () => {
        signal?.removeEventListener('abort', abort)
        resolve()
      }
      const abort = () => {
        this.waiting.splice(this.waiting.indexOf(start), 1)
        reject(signal!.reason as Error)
      }
      signal?.throwIfAborted()
      this.waiting.push(start)
      signal?.addEventListener('abort', abort, { once: true })
    })
  }
}
