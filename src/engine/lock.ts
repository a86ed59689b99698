/**
 * Runs asynchronous sections one after the other per key. The life cycle of one container is a sequence; different
 * containers never wait for each other.
 */
export class KeyedLock {
  readonly #tails = new Map<string, Promise<void>>()

  /** Runs `section` when all earlier sections of `key` have ended, whatever their outcome. */
  async run<T>(key: string, section: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve()
    let release!: () => void
    const mine = new Promise<void>((resolve) => (release = resolve))
    const tail = before.then(() => mine)
    this.#tails.set(key, tail)
    await before
    try {
      return await section()
    } finally {
      release()
      if (this.#tails.get(key) === tail) this.#tails.delete(key)
    }
  }
}
