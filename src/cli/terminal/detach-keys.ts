import { Transform, type TransformCallback } from 'node:stream'
import { CliError } from '../errors.js'

/** Docker's default: Ctrl-P Ctrl-Q. */
export const DEFAULT_DETACH_KEYS = 'ctrl-p,ctrl-q'

/**
 * The bytes of a key sequence such as `ctrl-p,ctrl-q` or `ctrl-a,x`: single characters and `ctrl-` with one of
 * `a`-`z @ [ \ ] ^ _` (docs.docker.com, "Override the detach sequence"). '' is no sequence at all.
 */
export function parseDetachKeys(text: string): Buffer {
  if (text === '') return Buffer.alloc(0)
  const bytes: number[] = []
  for (const key of text.split(',')) {
    const control = /^ctrl-([a-z@[\\\]^_])$/.exec(key)
    if (control) bytes.push(control[1]!.toUpperCase().charCodeAt(0) & 0x1f)
    else if (key === 'DEL') bytes.push(0x7f)
    else if (key.length === 1 && key.charCodeAt(0) < 0x80) bytes.push(key.charCodeAt(0))
    else throw new CliError(`invalid detach keys (${text}): Unknown character: '${key}'`, 125)
  }
  return Buffer.from(bytes)
}

/**
 * Passes keys on until the detach sequence is typed; then calls `onDetach` and swallows the rest. A begun sequence is held back
 * until it is clear that it is not one, as the docker CLI does: the workload never sees half of it.
 */
export class DetachFilter extends Transform {
  private matched = 0
  private detached = false

  constructor(
    private readonly keys: Buffer,
    private readonly onDetach: () => void,
  ) {
    super()
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, callback: TransformCallback): void {
    if (this.keys.length === 0) return callback(null, chunk)
    const out: number[] = []
    for (const byte of chunk) {
      if (this.detached) break
      if (byte === this.keys[this.matched]) {
        this.matched += 1
        if (this.matched === this.keys.length) {
          this.detached = true
          this.onDetach()
        }
        continue
      }
      // Not the sequence after all. What was held back goes out, except for an end of it that may begin the sequence anew
      // (Ctrl-P Ctrl-P Ctrl-Q).
      const held = Buffer.concat([this.keys.subarray(0, this.matched), Buffer.of(byte)])
      let keep = Math.min(held.length - 1, this.keys.length - 1)
      while (keep > 0 && !held.subarray(held.length - keep).equals(this.keys.subarray(0, keep))) keep -= 1
      out.push(...held.subarray(0, held.length - keep))
      this.matched = keep
    }
    callback(null, out.length > 0 ? Buffer.from(out) : undefined)
  }

  override _flush(callback: TransformCallback): void {
    // End of input in the middle of a sequence: those keys were meant for the workload.
    callback(null, this.detached || this.matched === 0 ? undefined : this.keys.subarray(0, this.matched))
  }
}
