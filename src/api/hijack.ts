import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { log } from '../base/log.js'
import { messageOf } from '../base/errors.js'
import type { AttachedStream } from '../engine/api-types.js'
import { DetachScanner } from './detach.js'
import type { Exchange } from './exchange.js'
import { frame, outputFilter, STDOUT } from './frames.js'

/** How long a client may take to end its side after the output has ended, milliseconds. */
const lingerMs = 2000
/** How often a half-closed connection is probed for a client that has gone altogether, milliseconds. */
const probeMs = 5000

/** A connection that a handler may take over. */
export interface Hijackable {
  /** True: the client sent `Upgrade`, the answer is 101; false: 200. */
  readonly upgrade: boolean
  /** Takes the connection over and sends the head of the answer. After this there are no HTTP errors. */
  take(contentType: string): HijackedConnection
}
export type HijackHandler = (exchange: Exchange, connection: Hijackable) => Promise<void>

/** What the client wants of a stream. */
export interface StreamWishes {
  stdin: boolean
  stdout: boolean
  stderr: boolean
  /** Watched for on a terminal's stdin. */
  detachKeys: Buffer
}

/**
 * A connection that is no longer HTTP: bytes of stdin come in, output goes out, each side ends by itself. The client's end of input
 * leaves output going; the end of output closes the connection.
 */
export class HijackedConnection {
  #probe: NodeJS.Timeout | undefined
  readonly #closed: Promise<void>

  constructor(readonly socket: Socket, head: Buffer) {
    socket.setTimeout(0)
    socket.setNoDelay?.(true)
    socket.on('error', () => {}) // a client that resets the connection: 'close' follows and says all there is to say
    this.#closed = new Promise((resolve) => (socket.destroyed ? resolve() : socket.once('close', () => resolve())))
    if (head.length > 0) socket.unshift(head)
  }

  /** The client has closed everything. */
  get closed(): Promise<void> {
    return this.#closed
  }

  /** Connects client and stream until one of them is done. */
  async pump(stream: AttachedStream, wishes: StreamWishes): Promise<void> {
    const { socket } = this
    const { duplex } = stream
    if (socket.destroyed) {
      duplex.destroy()
      return
    }
    const outputDone = new Promise<Error | undefined>((resolve) => {
      const filter = outputFilter(stream.tty, wishes)
      let source: Readable = duplex
      if (filter) {
        source = duplex.pipe(filter)
        filter.once('error', resolve)
      }
      source.pipe(socket, { end: false })
      source.once('end', () => resolve(undefined))
      duplex.once('error', resolve)
      // Destroyed before its end. After the end, `source` may still hold output that the client is slow to take.
      duplex.once('close', () => {
        if (!duplex.readableEnded) resolve(undefined)
      })
    })
    const detached = new Promise<'detached'>((resolve) => {
      if (!wishes.stdin) {
        socket.resume() // nothing is taken from the client, but its end must be seen
      } else if (stream.tty) {
        const scanner = new DetachScanner(wishes.detachKeys, () => resolve('detached'))
        socket.pipe(scanner).pipe(duplex)
      } else {
        socket.pipe(duplex)
      }
    })
    socket.once('end', () => this.#probeUntilClosed())
    const outcome = await Promise.race([outputDone, detached, this.#closed.then(() => 'gone' as const)])
    clearInterval(this.#probe)
    socket.unpipe()
    if (outcome === 'detached') stream.detach()
    else if (outcome instanceof Error) log.debug('stream ended in error', { error: outcome })
    duplex.on('error', () => {})
    duplex.destroy()
    await this.close()
  }

  /** Writes text as output: how Docker reports what fails after the connection was taken over. */
  async fail(error: unknown, tty: boolean): Promise<void> {
    const text = Buffer.from(`${messageOf(error)}\r\n`)
    if (!this.socket.destroyed) this.socket.write(tty ? text : frame(STDOUT, text))
    await this.close()
  }

  /**
   * Ends our side, when all output is out, and waits a little for the client to end its own. Closing at once would turn unread input into
   * ECONNRESET at the client (unix(7), Linux). A slow reader has all the time that it needs; its output is not cut.
   */
  async close(): Promise<void> {
    const { socket } = this
    clearInterval(this.#probe)
    if (socket.destroyed) return
    socket.resume()
    socket.once('end', () => socket.destroySoon())
    let timer: NodeJS.Timeout | undefined
    socket.end(() => {
      timer = setTimeout(() => socket.destroy(), lingerMs)
    })
    if (socket.readableEnded) socket.destroySoon()
    await this.#closed
    clearTimeout(timer)
  }

  /**
   * A client that has ended its input may have closed the connection altogether; reading cannot tell. Writing nothing can: on a unix socket
   * send(2) of no bytes fails with EPIPE when the peer is gone, and does nothing else.
   */
  #probeUntilClosed(): void {
    this.#probe = setInterval(() => {
      if (!this.socket.destroyed && !this.socket.writableEnded) this.socket.write(Buffer.alloc(0))
    }, probeMs)
    this.#probe.unref()
  }
}

