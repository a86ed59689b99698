import { Duplex } from 'node:stream'
import type { Link } from './link.js'
import { OutputQueue } from './outputqueue.js'
import { FrameType, ProtocolError, WINDOW_SIZE, type Frame } from './protocol.js'

/** Bytes of one STDIN frame: small enough that a slow reader's neighbours on the agent link are not held up. */
const STDIN_CHUNK = 32_768

/**
 * An exec session's stdio as a stream: reads Docker's multiplexed framing (raw with a TTY), writes stdin with the sender's half of
 * the flow control; ending it is STDIN_EOF. Destroying it detaches: stdin ends, further output is thrown away, the process goes on (as in
 * Docker) and its exit code is still told; so it is not CLOSE, after which the supervisor forgets the session.
 */
export class ExecStream extends Duplex {
  private readonly queue: OutputQueue
  private wanted = false
  private ended = false
  private outputEnded = false
  private told = false
  private allowance = WINDOW_SIZE
  private blocked: { chunk: Buffer; callback: (error?: Error | null) => void } | undefined

  constructor(
    private readonly link: Link,
    private readonly tty: boolean,
    /** False: what is written is dropped, as Docker does without AttachStdin. */
    private readonly stdin: boolean,
  ) {
    super({ allowHalfOpen: true, autoDestroy: true })
    this.queue = new OutputQueue(tty)
  }

  /** STDOUT, STDERR and WINDOW frames of the session. */
  accept(frame: Frame): void {
    if (frame.type === FrameType.WINDOW) {
      this.allow(frame)
    } else if (this.outputEnded) {
      throw new ProtocolError('output after its end')
    } else if (!this.ended) {
      this.queue.add(frame.type, frame.payload)
      if (this.destroyed) this.grant(this.queue.discard())
      else this.pump()
    }
  }

  private grant(credit: number): void {
    if (credit === 0 || this.ended) return
    const payload = Buffer.allocUnsafe(4)
    payload.writeUInt32LE(credit)
    this.link.send(FrameType.WINDOW, payload)
  }

  /** No more output will come. What is queued is still delivered. */
  finish(): void {
    this.ended = true
    this.allowance = 0
    const blocked = this.blocked
    this.blocked = undefined
    blocked?.callback() // the process ended without reading it: not an error of the writer's
    this.pump()
  }

  /** The other side has ended its output and still reads. */
  endOutput(): void {
    this.outputEnded = true
    this.pump()
  }

  private allow(frame: Frame): void {
    if (frame.payload.length !== 4) throw new ProtocolError('WINDOW without a u32')
    this.allowance += frame.payload.readUInt32LE(0)
    if (this.allowance > WINDOW_SIZE) throw new ProtocolError('WINDOW for bytes that were not sent')
    const blocked = this.blocked
    this.blocked = undefined
    if (blocked) this.writeSome(blocked.chunk, blocked.callback)
  }

  private pump(): void {
    if (this.destroyed) return
    while (this.wanted && !this.queue.empty) {
      this.wanted = this.push(this.queue.take()!)
      this.grant(this.queue.grant())
    }
    if ((this.ended || this.outputEnded) && this.queue.empty && !this.told) {
      this.told = true
      this.push(null)
    }
  }

  private writeSome(chunk: Buffer, callback: (error?: Error | null) => void): void {
    if (this.ended || !this.stdin) return callback()
    let at = 0
    while (at < chunk.length && this.allowance > 0) {
      const size = Math.min(STDIN_CHUNK, chunk.length - at, this.allowance)
      this.allowance -= size
      const last = at + size === chunk.length
      this.link.send(FrameType.STDIN, chunk.subarray(at, at + size), last ? () => callback() : undefined)
      at += size
    }
    if (at < chunk.length) this.blocked = { chunk: chunk.subarray(at), callback }
    else if (chunk.length === 0) callback()
  }

  override _read(): void {
    this.wanted = true
    this.pump()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.writeSome(chunk, callback)
  }

  override _final(callback: (error?: Error | null) => void): void {
    if (!this.ended && this.stdin) this.link.send(FrameType.STDIN_EOF)
    callback()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.blocked?.callback(error)
    this.blocked = undefined
    this.grant(this.queue.discard())
    // A terminal has no end of input; the others see the end of their pipe.
    if (!this.ended && this.stdin && !this.tty && !this.writableFinished) this.link.send(FrameType.STDIN_EOF)
    callback(error)
  }
}
