import { connect, type Socket } from 'node:net'

/** Of the protocol, in HELLO. */
export const VERSION = 3

/** Frame types of guest/PROTOCOL.md. */
export const T = {
  HELLO: 1, READY: 2, STARTED: 3, FAILED: 4, STDOUT: 5, STDERR: 6, EXIT: 7, REPLY: 8, WINDOW: 9, REHEARSED: 10, SEEDED: 30,
  SEED: 16, CONFIG: 17, RUN: 18, EXEC: 19, STDIN: 20, STDIN_EOF: 21, RESIZE: 22, SIGNAL: 23, QUERY: 24, CLOSE: 25,
  WAIT_START: 26, RESIZE_MAIN: 27, HALT: 28, REHEARSE: 31, CLAIM: 32,
} as const

export interface Frame {
  type: number
  flags: number
  stream: number
  payload: Buffer
}

export type Pairs = [key: string, value: string | number][]

/** A text payload. */
export function text(pairs: Pairs): Buffer {
  return Buffer.concat(pairs.map(([key, value]) => Buffer.from(`${key}=${value}\0`)))
}

/** The entries of a text payload; of a repeated key the last. */
export function parse(payload: Buffer): Record<string, string> {
  const entries = payload.toString('utf8').split('\0').slice(0, -1)
  return Object.fromEntries(entries.map((entry) => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)]))
}

/** One frame, or several with the "more" flag when the payload is longer than a frame may be. */
export function encode(type: number, payload: Buffer = Buffer.alloc(0), stream = 0): Buffer {
  const parts: Buffer[] = []
  let rest = payload
  do {
    const part = rest.subarray(0, 65_536)
    rest = rest.subarray(part.length)
    const header = Buffer.alloc(12)
    header.writeUInt32LE(part.length, 0)
    header.writeUInt8(type, 4)
    header.writeUInt8(rest.length > 0 ? 1 : 0, 5)
    header.writeUInt32LE(stream, 8)
    parts.push(header, part)
  } while (rest.length > 0)
  return Buffer.concat(parts)
}

/** A client of ctl.sock: one connection, one stream. */
export class Client {
  private buffer = Buffer.alloc(0)
  private readonly waiting: Frame[] = []
  private wake: (() => void) | undefined
  private closed = false
  private handed = 0
  /** Gives back every byte of output by WINDOW frames, as a good reader does. */
  autoWindow = true

  private constructor(readonly socket: Socket) {
    socket.on('data', (data: Buffer) => this.take(data))
    socket.on('error', () => {})
    socket.on('close', () => {
      this.closed = true
      this.wake?.()
    })
  }

  static async open(path: string): Promise<Client> {
    for (let attempt = 0; ; attempt++) {
      const socket = connect(path)
      const ok = await new Promise<boolean>((resolve) => {
        socket.once('connect', () => resolve(true))
        socket.once('error', () => resolve(false))
      })
      if (ok) return new Client(socket)
      if (attempt > 200) throw new Error(`cannot connect to ${path}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }

  private take(data: Buffer) {
    this.buffer = Buffer.concat([this.buffer, data])
    while (this.buffer.length >= 12) {
      const length = this.buffer.readUInt32LE(0)
      if (this.buffer.length < 12 + length) break
      const frame = {
        type: this.buffer.readUInt8(4),
        flags: this.buffer.readUInt8(5),
        stream: this.buffer.readUInt32LE(8),
        payload: Buffer.from(this.buffer.subarray(12, 12 + length)),
      }
      this.buffer = this.buffer.subarray(12 + length)
      if (this.autoWindow && (frame.type === T.STDOUT || frame.type === T.STDERR)) this.acknowledge(length)
      this.waiting.push(frame)
    }
    this.wake?.()
  }

  acknowledge(bytes: number) {
    this.handed += bytes
    if (this.handed < 32_768) return
    const payload = Buffer.alloc(4)
    payload.writeUInt32LE(this.handed)
    this.handed = 0
    this.send(T.WINDOW, payload)
  }

  send(type: number, payload?: Buffer | Pairs): void {
    this.socket.write(encode(type, Array.isArray(payload) ? text(payload) : payload))
  }

  /** The next frame; undefined when the connection has ended. */
  async next(): Promise<Frame | undefined> {
    for (;;) {
      const frame = this.waiting.shift()
      if (frame || this.closed) return frame
      await new Promise<void>((resolve) => (this.wake = resolve))
    }
  }

  /** The next frame of one type; frames of other types before it are an error. */
  async expect(type: number): Promise<Frame> {
    for (;;) {
      const frame = await this.next()
      if (frame?.type === T.WINDOW && type !== T.WINDOW) continue
      if (frame?.type !== type) throw new Error(`wanted frame type ${type}, got ${frame ? `${frame.type}: ${frame.payload.toString()}` : 'the end'}`)
      return frame
    }
  }

  /** Reads until the stream ends. */
  async collect(): Promise<{ stdout: Buffer; stderr: Buffer; started?: Record<string, string>; exit?: Record<string, string>; failed?: Record<string, string> }> {
    const out: Buffer[] = []
    const err: Buffer[] = []
    let started: Record<string, string> | undefined
    for (;;) {
      const frame = await this.next()
      const result = { stdout: Buffer.concat(out), stderr: Buffer.concat(err), ...(started ? { started } : {}) }
      if (!frame) return result
      if (frame.type === T.STARTED) started = parse(frame.payload)
      if (frame.type === T.STDOUT) out.push(frame.payload)
      if (frame.type === T.STDERR) err.push(frame.payload)
      if (frame.type === T.EXIT) return { ...result, exit: parse(frame.payload) }
      if (frame.type === T.FAILED) return { ...result, failed: parse(frame.payload) }
    }
  }

  /** Reads output until it contains `wanted`. */
  async until(wanted: string): Promise<string> {
    let seen = ''
    while (!seen.includes(wanted)) {
      const frame = await this.next()
      if (!frame || frame.type === T.EXIT || frame.type === T.FAILED) throw new Error(`the stream ended before ${JSON.stringify(wanted)}: ${seen}`)
      if (frame.type === T.STDOUT) seen += frame.payload.toString()
    }
    return seen
  }

  async query(what: string): Promise<Buffer> {
    this.send(T.QUERY, [['what', what]])
    const parts: Buffer[] = []
    for (;;) {
      const frame = await this.expect(T.REPLY)
      parts.push(frame.payload)
      if ((frame.flags & 1) === 0) return Buffer.concat(parts)
    }
  }

  close(): void {
    this.socket.destroy()
  }
}
