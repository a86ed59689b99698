import type { ProgressMessage } from '../engine/api-types.js'
import { HullError, messageOf } from '../base/errors.js'
import { log } from '../base/log.js'
import type { Exchange } from './exchange.js'

/** Lines that wait for a slow client, beyond progress figures, before the work is told to stop. */
const maxWaiting = 10_000

/**
 * A stream of Docker's JSON messages, one a line. It begins with the first message, so that an error before it is an ordinary HTTP error;
 * a later one is written into the stream. When the client is slow, progress figures of one layer replace each other instead of queueing.
 */
export class ProgressStream {
  readonly #waiting: { key: string | undefined; line: string }[] = []
  #begun = false
  #draining: Promise<void> | undefined

  /** `quiet`: leave out progress figures. */
  constructor(readonly exchange: Exchange, readonly quiet = false) {}

  /** To be given to the engine as `onProgress`. */
  readonly send = (message: ProgressMessage): void => {
    const figures = message.progressDetail !== undefined && message.progressDetail.current !== undefined
    if (this.quiet && figures) return
    if (!this.#begun) {
      this.#begun = true
      this.exchange.begin('application/json')
    }
    const key = figures && message.id !== undefined ? `${message.id} ${message.status ?? ''}` : undefined
    const line = JSON.stringify(message) + '\r\n'
    const last = key === undefined ? undefined : this.#waiting.find((item) => item.key === key)
    if (last) last.line = line
    else if (this.#waiting.length < maxWaiting) this.#waiting.push({ key, line })
    this.#draining ??= this.#drain()
  }

  async #drain(): Promise<void> {
    await Promise.resolve() // messages of one tick go out in one write
    while (this.#waiting.length > 0) {
      const lines = this.#waiting.splice(0).map((item) => item.line)
      if (!(await this.exchange.write(lines.join('')))) {
        this.#waiting.length = 0
        break
      }
    }
    this.#draining = undefined
  }

  /** Runs `work` and ends the stream with its outcome. */
  async run(work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (!this.#begun) throw error
      if (!(error instanceof HullError) && !this.exchange.signal.aborted) log.error('stream failed', { id: this.exchange.requestId, error })
      const message = messageOf(error)
      this.send({ errorDetail: { message }, error: message })
    }
    if (!this.#begun) this.exchange.begin('application/json')
    await this.#draining
    this.exchange.response.end()
  }
}
