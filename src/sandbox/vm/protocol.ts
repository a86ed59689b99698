/**
 * The guest protocol, version 2 (guest/PROTOCOL.md): frames on ctl.sock and in the files that hull-vmm reads.
 * Everything that is decoded here comes from a jailed process that itself relays a hostile guest: every length is bounded,
 * every text is checked, and an error ends the link.
 */

/** Frame types, by the numbers of PROTOCOL.md. */
export const FrameType = {
  HELLO: 1,
  READY: 2,
  STARTED: 3,
  FAILED: 4,
  STDOUT: 5,
  STDERR: 6,
  EXIT: 7,
  REPLY: 8,
  WINDOW: 9,
  REHEARSED: 10,
  SEED: 16,
  CONFIG: 17,
  RUN: 18,
  EXEC: 19,
  STDIN: 20,
  STDIN_EOF: 21,
  RESIZE: 22,
  SIGNAL: 23,
  QUERY: 24,
  CLOSE: 25,
  WAIT_START: 26,
  RESIZE_MAIN: 27,
  HALT: 28,
  ACCEPT: 29,
  SEEDED: 30,
  REHEARSE: 31,
  CLAIM: 32,
} as const

/** Bytes of a frame's header. */
export const HEADER_SIZE = 12
/** Bytes of a frame's payload, at most. */
export const MAX_PAYLOAD = 65_536
/** Bytes of a text or reply that came in several frames, at most. */
export const MAX_JOINED = 1 << 20
/** Bytes that may be outstanding on a stream beyond what WINDOW frames allowed. */
export const WINDOW_SIZE = 262_144
/** A receiver grants credit in steps of at least this many bytes, or when its queue is empty. */
export const WINDOW_STEP = 32_768
/** Flag 1: more frames of this type follow and belong to the same text or reply. */
export const FLAG_MORE = 1

/** One frame. `payload` is a view: copy it to keep it beyond the call that handed it over. */
export interface Frame {
  type: number
  flags: number
  stream: number
  payload: Buffer
}

/** The peer broke the protocol: the link must be closed. */
export class ProtocolError extends Error {
  constructor(message: string) {
    super(`guest protocol: ${message}`)
    this.name = 'ProtocolError'
  }
}

/** One frame as bytes. */
export function encodeFrame(type: number, stream: number, payload: Uint8Array = new Uint8Array(0), flags = 0): Buffer {
  if (payload.length > MAX_PAYLOAD) throw new ProtocolError(`payload of ${payload.length} bytes`)
  const frame = Buffer.allocUnsafe(HEADER_SIZE + payload.length)
  frame.writeUInt32LE(payload.length, 0)
  frame.writeUInt8(type, 4)
  frame.writeUInt8(flags, 5)
  frame.writeUInt16LE(0, 6)
  frame.writeUInt32LE(stream, 8)
  frame.set(payload, HEADER_SIZE)
  return frame
}

/** A payload of any length up to {@link MAX_JOINED} as one frame or several with {@link FLAG_MORE}. */
export function encodeFrames(type: number, stream: number, payload: Uint8Array): Buffer {
  if (payload.length > MAX_JOINED) throw new ProtocolError(`message of ${payload.length} bytes; at most ${MAX_JOINED}`)
  if (payload.length <= MAX_PAYLOAD) return encodeFrame(type, stream, payload)
  const frames: Buffer[] = []
  for (let at = 0; at < payload.length; at += MAX_PAYLOAD) {
    const end = Math.min(at + MAX_PAYLOAD, payload.length)
    frames.push(encodeFrame(type, stream, payload.subarray(at, end), end < payload.length ? FLAG_MORE : 0))
  }
  return Buffer.concat(frames)
}

/** Key and value of a text payload, in order; keys may repeat. */
export type TextEntry = readonly [key: string, value: string]

/** `key=value` strings, each ended by a NUL byte. A NUL byte in a value cannot be sent and is an error. */
export function encodeText(entries: readonly TextEntry[]): Buffer {
  const parts: Buffer[] = []
  for (const [key, value] of entries) {
    if (key === '' || /[=\0]/.test(key)) throw new ProtocolError(`bad key ${JSON.stringify(key)}`)
    if (value.includes('\0')) throw new ProtocolError(`the value of ${key} holds a NUL byte`)
    parts.push(Buffer.from(`${key}=${value}\0`, 'utf8'))
  }
  return Buffer.concat(parts)
}

/** The entries of a text payload. Throws when it is not one. */
export function decodeText(payload: Uint8Array): TextEntry[] {
  const text = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength)
  const entries: TextEntry[] = []
  let at = 0
  while (at < text.length) {
    const end = text.indexOf(0, at)
    if (end < 0) throw new ProtocolError('text without a final NUL')
    const equals = text.indexOf(0x3d, at)
    if (equals <= at || equals > end) throw new ProtocolError('text without key=value')
    entries.push([text.toString('utf8', at, equals), text.toString('utf8', equals + 1, end)])
    at = end + 1
  }
  return entries
}

/** The entries as a map; of a repeated key the last one counts. Never an object: keys are hostile (`__proto__`). */
export function textMap(entries: readonly TextEntry[]): Map<string, string> {
  return new Map(entries)
}

/** A whole number from a text map, `undefined` when it is absent, malformed or out of range. */
export function textNumber(map: ReadonlyMap<string, string>, key: string, minimum = 0, maximum = Number.MAX_SAFE_INTEGER): number | undefined {
  const value = map.get(key)
  if (value === undefined || !/^-?[0-9]{1,16}$/.test(value)) return undefined
  const number = Number(value)
  return Number.isSafeInteger(number) && number >= minimum && number <= maximum ? number : undefined
}

/**
 * Cuts a byte stream into frames. Holds at most one incomplete frame, so at most 64 KiB + 12 bytes, however the peer slices
 * or floods: a whole frame goes straight from the received chunk to the callback without a copy.
 */
export class FrameParser {
  private readonly held = Buffer.allocUnsafe(HEADER_SIZE + MAX_PAYLOAD)
  private size = 0
  private broken = false

  /** Bytes of an incomplete frame that wait for their rest. */
  get pending(): number {
    return this.size
  }

  /** Feeds bytes; calls `onFrame` for every frame that is now complete. Throws {@link ProtocolError} once and for ever. */
  push(chunk: Uint8Array, onFrame: (frame: Frame) => void): void {
    if (this.broken) throw new ProtocolError('the link is closed')
    try {
      this.consume(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength), onFrame)
    } catch (error) {
      this.broken = true
      throw error
    }
  }

  private consume(chunk: Buffer, onFrame: (frame: Frame) => void): void {
    let at = 0
    while (at < chunk.length) {
      if (this.size === 0) {
        const total = frameSize(chunk, at, chunk.length)
        if (total !== undefined && at + total <= chunk.length) {
          onFrame(frameAt(chunk, at, total))
          at += total
          continue
        }
      }
      // Incomplete: first the header, so that its length is checked before a payload byte is kept.
      const wanted = this.size < HEADER_SIZE ? HEADER_SIZE : frameSize(this.held, 0, this.size)!
      const take = Math.min(wanted - this.size, chunk.length - at)
      chunk.copy(this.held, this.size, at, at + take)
      this.size += take
      at += take
      const total = frameSize(this.held, 0, this.size)
      if (total === this.size) {
        // A copy: the callback may keep the payload, and `held` is written again.
        const whole = Buffer.from(this.held.subarray(0, total))
        this.size = 0
        onFrame(frameAt(whole, 0, total))
      }
    }
  }
}

/** Header and payload of the frame at `at`, in bytes; `undefined` when the header is not complete. */
function frameSize(buffer: Buffer, at: number, end: number): number | undefined {
  if (end - at < HEADER_SIZE) return undefined
  const length = buffer.readUInt32LE(at)
  if (length > MAX_PAYLOAD) throw new ProtocolError(`payload of ${length} bytes`)
  return HEADER_SIZE + length
}

function frameAt(buffer: Buffer, at: number, total: number): Frame {
  return {
    type: buffer.readUInt8(at + 4),
    flags: buffer.readUInt8(at + 5),
    stream: buffer.readUInt32LE(at + 8),
    payload: buffer.subarray(at + HEADER_SIZE, at + total),
  }
}

/**
 * Joins a message that comes in several frames ({@link FLAG_MORE}), up to {@link MAX_JOINED} bytes. Into one buffer that grows: a list of parts would cost
 * a hundred bytes for each byte that a guest sends in a frame of its own.
 */
export class Joiner {
  private held = Buffer.alloc(0)
  private size = 0

  /** Bytes of memory that wait for the rest of their message. */
  get pending(): number {
    return this.held.length
  }

  /** The whole message when this frame ends it, else `undefined`. */
  add(frame: Frame): Buffer | undefined {
    const { payload } = frame
    const size = this.size + payload.length
    if (size > MAX_JOINED) throw new ProtocolError(`message of more than ${MAX_JOINED} bytes`)
    if (size > this.held.length) {
      const larger = Buffer.alloc(Math.min(MAX_JOINED, Math.max(size, 2 * this.held.length)))
      this.held.copy(larger, 0, 0, this.size)
      this.held = larger
    }
    payload.copy(this.held, this.size)
    this.size = size
    if (frame.flags & FLAG_MORE) return undefined
    const whole = this.held.subarray(0, size)
    this.held = Buffer.alloc(0)
    this.size = 0
    return whole
  }
}

/** How a workload failed to start, as FAILED and the supervisor's status file say it. */
export interface Failure {
  code: number
  message: string
}

/** The content of a FAILED frame. The message is shown to people: control characters are taken out, its length is bounded. */
export function decodeFailure(payload: Uint8Array): Failure {
  const text = textMap(decodeText(payload))
  return { code: textNumber(text, 'code', 0, 255) ?? 125, message: cleanMessage(text.get('message') ?? 'the guest gave no reason') }
}

/** A guest's words as one line of at most 1,000 characters: it must not be able to write to a terminal or a log at will. */
export function cleanMessage(message: string): string {
   
  return message.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trim().slice(0, 1000)
}
