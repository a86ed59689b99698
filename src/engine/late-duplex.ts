import { Duplex } from 'node:stream'

/**
 * A duplex whose other side comes later: `docker run` attaches before it starts the container. What is written before
 * {@link connect} waits (one chunk, by back-pressure); {@link close} ends the output when there will be no other side.
 */
export class LateDuplex extends Duplex {
  #peer: Duplex | undefined
  readonly #waiting: (() => void)[] = []
  #ended = false

  constructor() {
    super({ allowHalfOpen: true })
  }

  /** Joins the real stream. If this one is gone already, the real one is destroyed. */
  connect(peer: Duplex): void {
    peer.on('error', () => {}) // also after we have let go of it
    if (this.destroyed || this.#peer) {
      peer.destroy()
      return
    }
    this.#peer = peer
    peer.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) peer.pause()
    })
    peer.once('end', () => this.#end())
    // A stream that breaks is, to the client, a stream that ends: the container's state tells why.
    peer.once('error', () => this.#end())
    peer.once('close', () => this.#end())
    for (const ready of this.#waiting.splice(0)) ready()
  }

  /** There will be no peer: output ends, input is dropped. */
  close(): void {
    if (this.#peer) return
    this.#end()
    for (const ready of this.#waiting.splice(0)) ready()
  }

  #end(): void {
    if (this.#ended) return
    this.#ended = true
    this.push(null)
  }

  override _read(): void {
    this.#peer?.resume()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const write = () => {
      const peer = this.#peer
      if (!peer || peer.destroyed || peer.writableEnded) return done()
      if (peer.write(chunk)) return done()
      const go = () => {
        peer.off('drain', go)
        peer.off('close', go)
        done()
      }
      peer.on('drain', go)
      peer.on('close', go)
    }
    if (this.#peer || this.#ended) write()
    else this.#waiting.push(write)
  }

  override _final(done: (error?: Error | null) => void): void {
    const finish = () => {
      if (this.#peer && !this.#peer.destroyed) this.#peer.end()
      done()
    }
    if (this.#peer || this.#ended) finish()
    else this.#waiting.push(finish)
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#peer?.destroy()
    for (const ready of this.#waiting.splice(0)) ready()
    done(error)
  }
}
