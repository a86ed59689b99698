/** What an event is about. */
export type EventType = 'container' | 'image' | 'network' | 'volume' | 'daemon' | 'builder'

/** An event in Docker's terms (Engine API, /events). */
export interface EngineEvent {
  type: EventType
  /** 'create', 'start', 'die', 'exec_start: sh -c …', … */
  action: string
  /** The object's ID (name for volumes, reference for images) and what is told about it. */
  actor: { id: string; attributes: Record<string, string> }
  /** Nanoseconds since the epoch. Strictly rising within one daemon. */
  timeNano: bigint
}

/** How many past events are kept for `--since` (moby keeps as many). */
const kept = 256

/** Publishes events to subscribers and remembers the last {@link kept}. */
export class EventBus {
  #past: EngineEvent[] = []
  readonly #subscribers = new Set<(event: EngineEvent) => void>()
  #last = 0n

  /** Sends an event to all subscribers, stamped now (strictly rising within one daemon). */
  publish(type: EventType, action: string, id: string, attributes: Record<string, string>): void {
    let timeNano = BigInt(Date.now()) * 1_000_000n
    if (timeNano <= this.#last) timeNano = this.#last + 1n
    this.#last = timeNano
    const event: EngineEvent = { type, action, actor: { id, attributes }, timeNano }
    this.#past.push(event)
    if (this.#past.length > 2 * kept) this.#past = this.#past.slice(-kept)
    for (const subscriber of this.#subscribers) subscriber(event)
  }

  /** Remembered events, oldest first. */
  past(): readonly EngineEvent[] {
    return this.#past.slice(-kept)
  }

  /** How many listen. */
  get listeners(): number {
    return this.#subscribers.size
  }

  /** Calls `subscriber` for each event from now on; the result ends that. */
  subscribe(subscriber: (event: EngineEvent) => void): () => void {
    this.#subscribers.add(subscriber)
    return () => this.#subscribers.delete(subscriber)
  }
}
