import { close as closeCallback, constants, fstat as fstatCallback, open as openCallback } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { promisify } from 'node:util'
import { codeOf } from '../../base/errors.js'
import { FrameParser, type Frame, encodeFrame, encodeFrames } from './protocol.js'

const open = promisify(openCallback)
const close = promisify(closeCallback)
const fstat = promisify(fstatCallback)

/** open(2) O_PATH, which Node does not name. x86-64 and arm64. */
const O_PATH = 0o10000000

/** The supervisor is not there (any more): no socket, nobody listening, or the connection ended. */
export class LinkClosed extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'LinkClosed'
  }
}

/**
 * Connects to a supervisor's socket. Its directory is writable by the jailed process, so the path is not trusted: it is opened
 * once with O_PATH | O_NOFOLLOW, must be a socket owned by `uid`, and is connected by /proc/self/fd, so that a symbolic link planted there
 * cannot lead us to another program's socket. That also lifts sun_path's limit of 107 bytes.
 */
export async function connectSocket(path: string, uid: number | undefined): Promise<Socket> {
  let fd: number
  try {
    fd = await open(path, O_PATH | constants.O_NOFOLLOW)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') throw new LinkClosed(`no socket at ${path}`, { cause: error })
    throw error
  }
  try {
    const stat = await fstat(fd)
    if (!stat.isSocket() || (uid !== undefined && stat.uid !== uid)) throw new Error(`${path} is not the supervisor's socket`)
    return await new Promise<Socket>((resolve, reject) => {
      const socket = createConnection({ path: `/proc/self/fd/${fd}`, allowHalfOpen: true })
      const fail = (error: Error) => {
        // ECONNRESET: it ended before it had accepted us.
        const gone = ['ECONNREFUSED', 'ECONNRESET', 'ENOENT'].includes(codeOf(error) ?? '')
        reject(gone ? new LinkClosed(`nobody listens on ${path}`, { cause: error }) : error)
      }
      socket.once('error', fail)
      socket.once('connect', () => {
        socket.removeListener('error', fail)
        socket.on('error', () => {}) // until a Link listens: without anybody it would end the daemon
        resolve(socket)
      })
    })
  } finally {
    await close(fd)
  }
}

/** One connection to the supervisor: frames out, frames in. A protocol error, an end or a socket error closes it, once. */
export class Link {
  private readonly parser = new FrameParser()
  private done = false

  constructor(
    private readonly socket: Socket,
    private readonly onFrame: (frame: Frame) => void,
    /** Called exactly once; `error` is absent when we closed it ourselves. */
    private readonly onClose: (error?: Error) => void,
  ) {
    socket.on('data', (chunk: Buffer) => {
      try {
        this.parser.push(chunk, (frame) => {
          if (!this.done) this.onFrame(frame)
        })
      } catch (error) {
        this.finish(error instanceof Error ? error : new Error(String(error)))
      }
    })
    socket.on('end', () => this.finish(new LinkClosed('the supervisor closed the connection')))
    socket.on('error', (error) => this.finish(new LinkClosed(`connection to the supervisor: ${error.message}`, { cause: error })))
    socket.on('close', () => this.finish(new LinkClosed('the connection to the supervisor is closed')))
    // What came before we listened does not come again: a supervisor that ends at once would be waited for for ever.
    if (socket.destroyed || socket.readableEnded) process.nextTick(() => this.finish(new LinkClosed('the supervisor closed the connection')))
  }

  /** Sends one frame; stream 0 is this connection (PROTOCOL.md). `written` is called when the kernel has it or the link is gone. */
  send(type: number, payload?: Uint8Array, written?: () => void): void {
    if (this.done) written?.()
    else this.socket.write(encodeFrame(type, 0, payload), () => written?.())
  }

  /** Sends a text that may need several frames. */
  sendLong(type: number, payload: Uint8Array): void {
    if (!this.done) this.socket.write(encodeFrames(type, 0, payload))
  }

  close(): void {
    this.finish()
  }

  private finish(error?: Error): void {
    if (this.done) return
    this.done = true
    // Frames that are still in our send buffer (CLOSE) go out; nothing more is read.
    this.socket.end()
    this.socket.destroySoon()
    this.onClose(error)
  }
}
