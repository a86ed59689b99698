import { FrameType, ProtocolError, WINDOW_SIZE, WINDOW_STEP } from './protocol.js'

/** Small frames are gathered into buffers of this size, so that a peer that sends single bytes cannot make us keep an object for each. */
const GATHER = 16_384
/** Docker's stream header: stream type, three zeros, length as u32 big-endian (Engine API, "Stream format"). */
const DOCKER_HEADER = 8

interface Entry {
  buffer: Buffer
  /** Bytes of `buffer` in use, headers included. */
  used: number
  /** Payload bytes: what the sender's window counts. */
  payload: number
  /** Where the last header begins, and what it says. */
  headerAt: number
  type: number
  length: number
}

/**
 * Output of one stream between the link and its reader: frames become Docker's multiplexed framing (or raw bytes with a TTY), and the
 * receiver's half of the flow control is kept: at most {@link WINDOW_SIZE} bytes of payload are ever here, in few buffers whatever
 * the frames look like.
 */
export class OutputQueue {
  private readonly entries: Entry[] = []
  private readonly header: number
  private outstanding = 0
  private credit = 0

  constructor(raw: boolean) {
    this.header = raw ? 0 : DOCKER_HEADER
  }

  get empty(): boolean {
    return this.entries.length === 0
  }

  /** Takes the payload of a STDOUT or STDERR frame. Throws when the sender has no window left. */
  add(type: number, payload: Buffer): void {
    if (payload.length === 0) return
    this.outstanding += payload.length
    if (this.outstanding > WINDOW_SIZE) throw new ProtocolError('more output than the window allows')
    let entry = this.entries.at(-1)
    if (!entry || entry.used + this.header + payload.length > entry.buffer.length) {
      // The first frame of a quiet stream gets a buffer of its own size; when frames queue up, they share one.
      const size = Math.max(this.header + payload.length, entry ? GATHER : 0)
      entry = { buffer: Buffer.allocUnsafe(size), used: 0, payload: 0, headerAt: -1, type, length: 0 }
      this.entries.push(entry)
    }
    if (this.header > 0 && (entry.headerAt < 0 || entry.type !== type)) {
      entry.headerAt = entry.used
      entry.type = type
      entry.length = 0
      entry.buffer.writeUInt32BE(type === FrameType.STDERR ? 0x02000000 : 0x01000000, entry.used)
      entry.used += DOCKER_HEADER
    }
    payload.copy(entry.buffer, entry.used)
    entry.used += payload.length
    entry.payload += payload.length
    entry.length += payload.length
    if (this.header > 0) entry.buffer.writeUInt32BE(entry.length, entry.headerAt + 4)
  }

  /** The oldest bytes, framed; the caller hands them on and then asks {@link grant}. */
  take(): Buffer | undefined {
    const entry = this.entries.shift()
    if (!entry) return undefined
    this.credit += entry.payload
    return entry.buffer.subarray(0, entry.used)
  }

  /** Throws everything away; returns the bytes to announce in a WINDOW frame. */
  discard(): number {
    const credit = this.outstanding
    this.entries.length = 0
    this.outstanding = 0
    this.credit = 0
    return credit
  }

  /** Bytes to announce in a WINDOW frame now; 0: not yet. */
  grant(): number {
    if (this.credit === 0 || (this.credit < WINDOW_STEP && !this.empty)) return 0
    const credit = this.credit
    this.credit = 0
    this.outstanding -= credit
    return credit
  }
}
