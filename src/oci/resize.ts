import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { codeOf } from '../base/errors.js'

/** conmon 2.1 reads several lines that wait in its FIFO as the first of them again and again (ctrl.c): one at a time. */
const GAP = 20

/** Terminal sizes on their way to conmon: spaced out, and of those that wait only the last counts. */
export class ResizeQueue {
  #last = 0
  #next: { rows: number; columns: number } | undefined
  #pending: Promise<void> | undefined

  constructor(private readonly fifo: string) {}

  /** Resolves when this size, or a later one, has been handed over. No error when conmon has gone. */
  set(rows: number, columns: number): Promise<void> {
    this.#next = { rows, columns }
    this.#pending ??= this.#send()
    return this.#pending
  }

  async #send(): Promise<void> {
    try {
      for (let size = this.#next; size; size = this.#next) {
        const wait = this.#last + GAP - Date.now()
        if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait))
        const { rows, columns } = this.#next!
        this.#next = undefined
        this.#last = Date.now()
        await this.#write(`1 ${rows} ${columns}\n`)
      }
    } finally {
      this.#next = undefined
      this.#pending = undefined
    }
  }

  async #write(line: string): Promise<void> {
    try {
      const file = await open(this.fifo, constants.O_WRONLY | constants.O_NONBLOCK)
      try {
        await file.write(line)
      } finally {
        await file.close()
      }
    } catch (error) {
      const code = codeOf(error)
      if (code !== 'ENOENT' && code !== 'ENXIO' && code !== 'EPIPE') throw error
    }
  }
}
