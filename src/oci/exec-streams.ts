import { Duplex } from 'node:stream'
import type { Socket } from 'node:net'

/** How long output may stay open after the process has ended: something it left behind holds it. Docker waits as long. */
const LINGER = 2000

/** A source of output: our end of a pipe, or a terminal. `channel` 1 stdout, 2 stderr: framed; 0: as it is. */
interface Source {
  stream: Socket
  channel: 0 | 1 | 2
}

/**
 * The client's side of an exec session: reads output (in Docker's 8-byte framing, or raw with a terminal), writes stdin. Sources are
 * read only as fast as this is: a slow client slows the process, as Docker's does.
 */
export class ExecDuplex extends Duplex {
  #open: number
  #paused = false
  #ended = false
  #markDrained!: () => void
  /** Resolves when all output is in here, or this is destroyed. */
  readonly drained = new Promise<void>((resolve) => (this.#markDrained = resolve))

  constructor(
    private readonly sources: readonly Source[],
    private readonly stdin: Socket | undefined,
    /** What was read of stderr before. */
    early: readonly Buffer[] = [],
  ) {
    super({ allowHalfOpen: true })
    this.#open = sources.length
    for (const chunk of early) this.#take(chunk, 2)
    for (const { stream, channel } of sources) {
      let done = false
      const finish = () => {
        if (done) return
        done = true
        if (--this.#open === 0) this.#end()
      }
      if (stream.readableEnded || stream.destroyed) {
        finish()
        continue
      }
      stream.on('data', (chunk: Buffer) => this.#take(chunk, channel))
      stream.once('end', finish)
      stream.once('error', finish)
      stream.once('close', finish)
    }
    stdin?.on('error', () => {}) // EPIPE: the process does not read; what it says in its exit code
    if (sources.length === 0) this.#end()
    else if (!this.#paused) for (const { stream } of sources) stream.resume()
  }

  #take(chunk: Buffer, channel: 0 | 1 | 2): void {
    if (this.#ended) return
    let go: boolean
    if (channel === 0) go = this.push(chunk)
    else {
      const header = Buffer.alloc(8)
      header[0] = channel
      header.writeUInt32BE(chunk.length, 4)
      go = this.push(Buffer.concat([header, chunk]))
    }
    if (go) return
    this.#paused = true
    for (const { stream } of this.sources) stream.pause()
  }

  #end(): void {
    if (this.#ended) return
    this.#ended = true
    if (!this.destroyed) this.push(null)
    this.#markDrained()
  }

  /** The process has ended: output that stays open for no reason but a forgotten child is cut. */
  processEnded(): void {
    let waited = 0
    const step = 100
    const timer = setInterval(() => {
      if (this.#ended) return clearInterval(timer)
      if (!this.#paused) waited += step // a slow client is not a forgotten child
      if (waited < LINGER) return
      clearInterval(timer)
      this.#end()
      for (const { stream } of this.sources) stream.destroy()
    }, step)
    timer.unref()
  }

  override _read(): void {
    if (!this.#paused) return
    this.#paused = false
    for (const { stream } of this.sources) stream.resume()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const { stdin } = this
    if (!stdin || stdin.destroyed || stdin.writableEnded) return done()
    if (stdin.write(chunk)) return done()
    const go = () => {
      stdin.off('drain', go)
      stdin.off('close', go)
      done()
    }
    stdin.once('drain', go)
    stdin.once('close', go)
  }

  override _final(done: (error?: Error | null) => void): void {
    // A terminal has no half: its stream is both, and ends when the process does.
    if (this.stdin && !this.sources.some(({ stream }) => stream === this.stdin)) this.stdin.end()
    done()
  }

  /** The client has gone: stdin ends, output is read and dropped so that the process goes on (Docker's behaviour). */
  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#ended = true
    if (this.stdin && !this.sources.some(({ stream }) => stream === this.stdin)) this.stdin.destroy()
    for (const { stream } of this.sources) stream.resume()
    this.#markDrained()
    done(error)
  }
}
