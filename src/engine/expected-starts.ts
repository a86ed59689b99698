import { messageOf } from '../base/errors.js'
import { log } from '../base/log.js'
import type { Container } from './container.js'

/** Milliseconds: a start that has been prepared for so long does not come. */
const PATIENCE = 2000
/** Starts that are prepared at the same time. */
const MOST = 8

/** What an expected start is made of. `begin` and `callOff` are called within `exclusive`: nothing else goes on in this container's life. */
export interface Preparation {
  /** Whether it can still come to a start. */
  possible(container: Container): boolean
  begin(container: Container): Promise<void>
  callOff(container: Container): Promise<void>
  exclusive(container: Container, section: () => Promise<void>): Promise<void>
}

/** Starts that nobody has asked for yet, and that will be asked for in some milliseconds. What needs nothing of the request is begun, and called off when none comes. */
export class ExpectedStarts {
  readonly #until = new Map<string, NodeJS.Timeout>()

  constructor(private readonly preparation: Preparation) {}

  expect(container: Container): void {
    const { possible, begin, callOff, exclusive } = this.preparation
    if (this.#until.has(container.id) || this.#until.size >= MOST || !possible(container)) return
    const whilePossible = (section: (container: Container) => Promise<void>) => exclusive(container, async () => {
      if (possible(container)) await section(container)
    })
    const giveUp = () => {
      this.#until.delete(container.id)
      void whilePossible(callOff).catch((error: unknown) => log.error('cannot call off a start', { id: container.id, error: messageOf(error) }))
    }
    this.#until.set(container.id, setTimeout(giveUp, PATIENCE).unref())
    // First the client gets its answer. An error is the start's to tell.
    setImmediate(() => void whilePossible(begin).catch((error: unknown) => log.debug('cannot begin a start', { id: container.id, error: messageOf(error) })))
  }

  /** It has come. */
  come(container: Container): void {
    clearTimeout(this.#until.get(container.id))
    this.#until.delete(container.id)
  }
}
