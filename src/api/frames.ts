import { Transform, type TransformCallback } from 'node:stream'

/** Docker's multiplexed stream (Engine API, "Stream format"): stream number, three zero bytes, big-endian length, payload. */
export const frameHeaderSize = 8
export const STDOUT = 1
export const STDERR = 2

/** One whole frame. */
export function frame(stream: number, payload: Buffer): Buffer {
  const result = Buffer.alloc(frameHeaderSize + payload.length)
  result[0] = stream
  result.writeUInt32BE(payload.length, 4)
  payload.copy(result, frameHeaderSize)
  return result
}

/**
 * Lets only frames of the wanted streams pass. Frames may be cut anywhere; payloads are passed on as they come, so that memory does not
 * depend on the length that a header claims. A header that is no header destroys the stream: after it nothing can be told apart.
 */
export class FrameFilter extends Transform {
  readonly #header = Buffer.alloc(frameHeaderSize)
  #have = 0
  #left = 0
  #passing = false

  constructor(readonly wanted: { stdout: boolean; stderr: boolean }) {
    super()
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#left === 0) {
        const take = Math.min(frameHeaderSize - this.#have, chunk.length - at)
        chunk.copy(this.#header, this.#have, at, at + take)
        this.#have += take
        at += take
        if (this.#have < frameHeaderSize) break
        const stream = this.#header[0]!
        if (stream > 3 || this.#header[1] !== 0 || this.#header[2] !== 0 || this.#header[3] !== 0) return done(new Error('output is not in frames'))
        this.#have = 0
        this.#left = this.#header.readUInt32BE(4)
        this.#passing = stream === STDOUT ? this.wanted.stdout : stream === STDERR ? this.wanted.stderr : true
        if (this.#passing) this.push(Buffer.from(this.#header))
        continue
      }
      const take = Math.min(this.#left, chunk.length - at)
      if (this.#passing) this.push(chunk.subarray(at, at + take))
      this.#left -= take
      at += take
    }
    done()
  }
}

/** Swallows everything (a terminal's output when stdout was not asked for). */
export class Nothing extends Transform {
  override _transform(_chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    done()
  }
}

/** The stage between the engine's output and the client for what the client asked for; `undefined`: none is needed. */
export function outputFilter(tty: boolean, wanted: { stdout: boolean; stderr: boolean }): Transform | undefined {
  if (tty) return wanted.stdout ? undefined : new Nothing()
  return wanted.stdout && wanted.stderr ? undefined : new FrameFilter(wanted)
}
