import { Writable } from 'node:stream'
import { CliError } from '../errors.js'

const HEADER = 8
/** The first byte of a frame's header (Engine API, "Attach to a container": stream format). 3 is the daemon's own error text. */
const STDOUT = 1
const STDERR = 2
const SYSTEM_ERROR = 3

function writeTo(destination: Writable, chunk: Buffer): Promise<void> {
  if (destination.write(chunk)) return Promise.resolve()
  return new Promise((resolve, reject) => {
    const done = (error?: unknown) => {
      destination.off('drain', done)
      destination.off('error', done)
      destination.off('close', done)
      if (error instanceof Error) reject(error)
      else resolve()
    }
    destination.on('drain', done)
    destination.on('error', done)
    destination.on('close', done)
  })
}

/**
 * Takes apart Docker's multiplexed stream: frames of an 8-byte header (stream, 0, 0, 0, length as u32 big-endian) and
 * a payload. Payload bytes are handed on as they come, so no frame is held in memory whatever length it claims.
 * The destinations are not ended. A stream that stops inside a frame is an error.
 */
export class Demultiplexer extends Writable {
  private header = Buffer.alloc(HEADER)
  private have = 0
  private left = 0
  private errorText: Buffer[] = []

  constructor(
    private readonly stdout: Writable,
    private readonly stderr: Writable,
  ) {
    super({ highWaterMark: 256 << 10 })
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.take(chunk).then(
      () => callback(),
      (error: unknown) => callback(error as Error),
    )
  }

  override _final(callback: (error?: Error | null) => void): void {
    if (this.have > 0 || this.left > 0) callback(new CliError('the stream from the daemon ended in the middle of a frame'))
    else callback()
  }

  private async take(chunk: Buffer): Promise<void> {
    let at = 0
    while (at < chunk.length) {
      if (this.left === 0) {
        const copied = chunk.copy(this.header, this.have, at, at + HEADER - this.have)
        at += copied
        this.have += copied
        if (this.have < HEADER) return
        this.have = 0
        this.left = this.header.readUInt32BE(4)
        continue
      }
      const part = chunk.subarray(at, at + this.left)
      at += part.length
      this.left -= part.length
      await this.deliver(part)
    }
  }

  private async deliver(part: Buffer): Promise<void> {
    const kind = this.header[0]
    if (kind === STDERR) await writeTo(this.stderr, part)
    else if (kind === STDOUT || kind === 0) await writeTo(this.stdout, part)
    else if (kind === SYSTEM_ERROR) {
      this.errorText.push(part)
      if (this.left === 0) throw new CliError(`error from daemon in stream: ${Buffer.concat(this.errorText).toString('utf8')}`)
    } else throw new CliError(`Unrecognized stream: ${kind}`)
  }
}
