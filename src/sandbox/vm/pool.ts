import { messageOf } from '../../base/errors.js'
import { log } from '../../base/log.js'

/** A machine that waits for its workload. */
export interface Member {
  /** The container that it is made for: one that does not exist yet. */
  readonly id: string
  /** Resolves when it has ended, whyever. */
  readonly gone: Promise<unknown>
  destroy(): Promise<void>
}

/** Options of {@link WarmPool}. `S` is what a member is made from. */
export interface PoolOptions<S, M extends Member> {
  /** Machines of one shape that wait while it is started now and then; 0: no pool. Up to {@link GROWTH} times as many while it is started often. */
  size: number
  /** Makes a machine of this shape. Undefined: not possible now (there is no template yet). */
  make: (shape: S) => Promise<M | undefined>
  /** True: the host needs its memory for others. */
  memoryIsShort: () => Promise<boolean>
}

/** A shape is recent for so long after a start, ms. */
const RECENT = 600_000
/** Starts within {@link RECENT} that make a shape worth a machine that waits: a workload that is run once is not. */
const WORTHWHILE = 2
/** While a shape is started faster than machines are made, this many times the size wait. */
const GROWTH = 4
/** Machines that wait, of all shapes together; or twice the size, when that is more. */
const MOST = 8
/** Milliseconds without a start before the pool makes one: the processors belong to those that are starting. */
const QUIET = 250
/** … but not longer than this, ms: who starts all the time has the most use of it. */
const PATIENCE = 1500
/** The window in which the rate of starts is measured, ms. */
const RATE_WINDOW = 10_000
/** A machine that a created container holds, and that is not started, is let go after this, ms. */
const HOLD = 15_000
/** How often shapes grow old and memory is looked at, ms. */
const LOOK = 15_000
/** After a machine could not be made, ms. */
const RETRY = 60_000

interface Shape<S, M> {
  shape: S
  /** performance.now() of its starts, oldest first. */
  starts: number[]
  waiting: M[]
  /** No new one before. */
  notBefore: number
}

/**
 * Virtual machines that are restored, seeded and rehearsed before anyone asks: a start is then a claim. Each is made for one shape (all that cannot be changed later) under a container's id chosen ahead,
 * which the next fitting container gets at its creation. Nobody's data is in a machine that waits. docs/decisions/0015-warm-pool.md.
 */
export class WarmPool<S, M extends Member> {
  readonly #shapes = new Map<string, Shape<S, M>>()
  /** Promised to a container that is being created or has not been started yet. */
  readonly #reserved = new Map<string, { key: string; member: M; timer: NodeJS.Timeout }>()
  /** Those that are being ended, by the container that they were made for: until then what is the container's is theirs. */
  readonly #ending = new Map<string, Promise<void>>()
  #timer: NodeJS.Timeout | undefined
  #looking: NodeJS.Timeout | undefined
  #making: Promise<void> | undefined
  #lastStart = 0
  #firstWish = 0
  #closed = false
  /** How long making one takes, ms; measured. */
  #effort = 1000

  constructor(private readonly options: PoolOptions<S, M>) {}

  get enabled(): boolean {
    return this.options.size > 0 && !this.#closed
  }

  /** Machines that wait, for tests and figures. */
  get waiting(): number {
    return [...this.#shapes.values()].reduce((sum, { waiting }) => sum + waiting.length, 0)
  }

  /** A machine of this shape has been started, from the pool or not. */
  used(key: string, shape: S): void {
    if (!this.enabled) return
    const now = performance.now()
    const known = this.#shapes.get(key) ?? { shape, starts: [], waiting: [], notBefore: 0 }
    this.#shapes.delete(key)
    this.#shapes.set(key, known) // the one that was used last is the last
    known.shape = shape
    known.starts = [...known.starts.filter((at) => now - at < RECENT), now].slice(-64)
    this.#lastStart = now
    this.#looking ??= setInterval(() => void this.#look(), LOOK).unref()
    this.#schedule()
  }

  /** The id that a container of this shape is to have: a machine waits under it. */
  reserve(key: string): string | undefined {
    const member = this.#shapes.get(key)?.waiting.shift()
    if (!member) return undefined
    const timer = setTimeout(() => void this.drop(member.id), HOLD)
    timer.unref()
    this.#reserved.set(member.id, { key, member, timer })
    this.#lastStart = performance.now()
    return member.id
  }

  /** The machine that waits for this container, now the caller's; undefined: none, or it has become another shape's. */
  claim(id: string, key: string): M | undefined {
    const held = this.#reserved.get(id)
    if (held?.key !== key) return undefined
    clearTimeout(held.timer)
    this.#reserved.delete(id)
    return held.member
  }

  /** A machine waits for this container, and fits: {@link claim} follows at once. */
  keep(id: string, key: string): boolean {
    const held = this.#reserved.get(id)
    if (held?.key !== key) return false
    clearTimeout(held.timer)
    return true
  }

  /** Lets go of the machine that waits for this container, if there is one; resolves when nothing of it is left, whoever ended it. */
  async drop(id: string): Promise<void> {
    const held = this.#reserved.get(id)
    if (!held) return this.#ending.get(id)
    clearTimeout(held.timer)
    this.#reserved.delete(id)
    await this.#destroy(held.member)
  }

  #destroy(member: M): Promise<void> {
    const ending = member
      .destroy()
      .catch((error: unknown) => log.error('cannot end a virtual machine that was made ahead', { id: member.id, error: messageOf(error) }))
      .finally(() => this.#ending.delete(member.id))
    this.#ending.set(member.id, ending)
    return ending
  }

  /** All machines end that are nobody's. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    clearInterval(this.#looking)
    await this.#making
    await Promise.all([...[...this.#reserved.keys()].map((id) => this.drop(id)), ...[...this.#shapes.values()].map((shape) => this.#empty(shape))])
    this.#shapes.clear()
    await Promise.all(this.#ending.values())
  }

  /** Resolves when every shape has what it should have, or cannot have it now. For tests. */
  async full(): Promise<void> {
    while (!this.#closed && (this.#timer || this.#making)) await (this.#making ?? new Promise((resolve) => setTimeout(resolve, 20)))
  }

  #wanted({ starts, notBefore }: Shape<S, M>): number {
    const now = performance.now()
    const recent = starts.filter((at) => now - at < RECENT)
    if (recent.length < WORTHWHILE || now < notBefore) return 0
    const rate = recent.filter((at) => now - at < RATE_WINDOW).length / RATE_WINDOW
    return this.options.size * Math.max(1, Math.min(GROWTH, Math.ceil(rate * this.#effort)))
  }

  /** The shape that is to get the next machine: of those that lack one, the one that was used last. */
  #lacking(): [string, Shape<S, M>] | undefined {
    if (this.waiting + this.#reserved.size >= Math.max(MOST, 2 * this.options.size)) return undefined
    return [...this.#shapes].reverse().find(([, shape]) => shape.waiting.length < this.#wanted(shape))
  }

  #schedule(): void {
    if (!this.enabled || this.#timer || this.#making || !this.#lacking()) return
    this.#firstWish ||= performance.now()
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      const now = performance.now()
      if (now - this.#lastStart < QUIET && now - this.#firstWish < PATIENCE) return this.#schedule()
      this.#firstWish = 0
      this.#making = this.#make().finally(() => {
        this.#making = undefined
        this.#schedule()
      })
    }, QUIET)
    this.#timer.unref()
  }

  /** One. Never rejects. */
  async #make(): Promise<void> {
    const [key, shape] = this.#lacking() ?? []
    if (key === undefined || !shape) return
    const begun = performance.now()
    try {
      const member = (await this.options.memoryIsShort()) ? undefined : await this.options.make(shape.shape)
      if (!member) {
        shape.notBefore = performance.now() + LOOK
        return
      }
      this.#effort = (this.#effort + performance.now() - begun) / 2
      if (this.#closed || this.#shapes.get(key) !== shape) return await this.#destroy(member)
      shape.waiting.push(member)
      void member.gone.then(() => this.#gone(shape, member))
    } catch (error) {
      shape.notBefore = performance.now() + RETRY
      log.warn('cannot make a virtual machine ahead', { error: messageOf(error) })
    }
  }

  /** It ended while it waited (the host ran out of memory, somebody killed it). */
  #gone(shape: Shape<S, M>, member: M): void {
    const at = shape.waiting.indexOf(member)
    if (at >= 0) {
      shape.waiting.splice(at, 1)
      shape.notBefore = performance.now() + RETRY
      void this.#destroy(member)
    } else if (this.#reserved.get(member.id)?.member === member) void this.drop(member.id)
  }

  /** Old shapes go; all go when memory is short; those that grew shrink. */
  async #look(): Promise<void> {
    const short = this.waiting > 0 && (await this.options.memoryIsShort())
    for (const [key, shape] of this.#shapes) {
      const wanted = short ? 0 : this.#wanted(shape)
      if (short) shape.notBefore = performance.now() + RETRY
      while (shape.waiting.length > wanted) await this.#destroy(shape.waiting.pop()!)
      if (!short && shape.waiting.length === 0 && shape.starts.every((at) => performance.now() - at >= RECENT)) this.#shapes.delete(key)
    }
    this.#schedule()
  }

  async #empty(shape: Shape<S, M>): Promise<void> {
    await Promise.all(shape.waiting.splice(0).map((member) => this.#destroy(member)))
  }
}
