/** A stream of numbers that one seed decides (xorshift32): a failure is run again by its seed. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1
  }

  /** 0 to n-1. */
  below(n: number): number {
    this.#state ^= this.#state << 13
    this.#state ^= this.#state >>> 17
    this.#state ^= this.#state << 5
    return (this.#state >>> 0) % n
  }

  one(inN: number): boolean {
    return this.below(inN) === 0
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!
  }

  /** A generator for one request, so that requests do not depend on how many numbers those before them took. */
  fork(index: number): Random {
    const random = new Random(Math.imul(this.#state ^ (index + 1), 0x9e3779b1))
    random.below(2)
    random.below(2)
    return random
  }
}
