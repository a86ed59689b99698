import { close } from 'node:fs'
import { promisify } from 'node:util'
import { messageOf } from '../../base/errors.js'
import { log } from '../../base/log.js'

const closeOnThread = promisify(close)

/**
 * Taps of running machines. A tap is gone with its last descriptor, and its going takes the kernel some 40 ms, in close(2). QEMU's is not to be
 * the last, or its end would wait for that: so this daemon keeps one for longer, and closes it on a thread when nobody waits for the machine any more.
 */
export class Taps {
  readonly #closing = new Map<string, Promise<void>>()

  /** Keeps `fd`, which is now ours, until `over`. */
  keep(id: string, fd: number, over: Promise<unknown>): void {
    void over.then(() => {
      const closed = closeOnThread(fd)
        .catch((error: unknown) => log.error('cannot close a tap', { id, error: messageOf(error) }))
        .finally(() => {
          if (this.#closing.get(id) === closed) this.#closing.delete(id)
        })
      this.#closing.set(id, closed)
    })
  }

  /** Resolves when the tap of a machine that is over is gone: a container's next machine has one of the same name. */
  async gone(id: string): Promise<void> {
    await this.#closing.get(id)
  }
}
