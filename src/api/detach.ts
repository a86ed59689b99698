import { Transform, type TransformCallback } from 'node:stream'
import { badRequest } from '../base/errors.js'

/** ctrl-p, ctrl-q: Docker's own when a client names none. */
export const defaultDetachKeys = Buffer.from([0x10, 0x11])
const control = '@abcdefghijklmnopqrstuvwxyz[\\]^_'
const maxKeys = 64

/** 'ctrl-p,ctrl-q', 'a', 'ctrl-@', 'DEL' → the bytes that a terminal sends. 400 in Docker's words. (moby/term, ascii.go) */
export function parseDetachKeys(text: string): Buffer {
  if (text === '') return defaultDetachKeys
  const keys = text.split(',')
  if (keys.length > maxKeys) throw badRequest(`Invalid detach keys (${text.slice(0, 80)}…) provided`)
  return Buffer.from(keys.map((key) => {
    if (key === 'DEL') return 127
    if (key.length === 1 && key.charCodeAt(0) < 128) return key.charCodeAt(0)
    const code = key.startsWith('ctrl-') && key.length === 6 ? control.indexOf(key[5]!) : -1
    if (code < 0) throw badRequest(`Invalid detach keys (${text}) provided`)
    return code
  }))
}

/**
 * Passes a terminal's input on and watches for the detach keys, which may come in pieces. A begun sequence is held back until it is
 * complete (then it is swallowed, `onDetach` is called and nothing more passes) or turns out to be something else (then it passes).
 */
export class DetachScanner extends Transform {
  /** Knuth-Morris-Pratt: where a failed match of n keys may still go on. */
  readonly #fallback: number[]
  #matched = 0
  #detached = false

  constructor(readonly keys: Buffer, readonly onDetach: () => void) {
    super()
    this.#fallback = [0]
    for (let i = 1, length = 0; i < keys.length; i++) {
      while (length > 0 && keys[i] !== keys[length]) length = this.#fallback[length - 1]!
      if (keys[i] === keys[length]) length++
      this.#fallback.push(length)
    }
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    if (this.#detached) return done()
    const held = this.#matched
    const input = held > 0 ? Buffer.concat([this.keys.subarray(0, held), chunk]) : chunk
    for (let i = held; i < input.length; i++) {
      while (this.#matched > 0 && input[i] !== this.keys[this.#matched]) this.#matched = this.#fallback[this.#matched - 1]!
      if (input[i] === this.keys[this.#matched]) this.#matched++
      if (this.#matched < this.keys.length) continue
      this.#detached = true
      if (i + 1 > this.keys.length) this.push(input.subarray(0, i + 1 - this.keys.length))
      this.onDetach()
      return done()
    }
    if (input.length > this.#matched) this.push(input.subarray(0, input.length - this.#matched))
    done()
  }

  override _flush(done: TransformCallback): void {
    if (!this.#detached && this.#matched > 0) this.push(this.keys.subarray(0, this.#matched))
    done()
  }
}
