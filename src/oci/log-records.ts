/** One record of a CRI log file, as hull-monitor writes it (native/monitor/log.c): `TIME STREAM TAG BYTES\n` (kubernetes CRI logging format). */
export interface LogRecord {
  stream: 'stdout' | 'stderr'
  /** Nanoseconds since the epoch. */
  time: bigint
  /** F: the line ends here; P: it goes on in the stream's next record. */
  full: boolean
  /** What the program wrote; with its newline when `full`. */
  bytes: Buffer
}

const NEWLINE = 10
const SPACE = 32
/** The monitor reads 32 KiB at a time: a longer record is not its. Kept out of memory. */
const MAX_RECORD = 1 << 20

let cachedText = ''
let cachedSeconds: bigint | undefined

/** `2026-11-23T09:11:26.424123456+01:00`, or with Z: nanoseconds since the epoch; undefined when it is none. */
export function parseTime(text: string): bigint | undefined {
  const match = /^(\d{4,5}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text)
  if (!match) return undefined
  const key = match[1]! + match[3]!
  // Lines come by the thousand in one second: parse that once.
  if (key !== cachedText) {
    const milliseconds = Date.parse(key)
    cachedText = key
    cachedSeconds = Number.isNaN(milliseconds) ? undefined : BigInt(milliseconds) * 1_000_000n
  }
  return cachedSeconds === undefined ? undefined : cachedSeconds + BigInt((match[2] ?? '').padEnd(9, '0'))
}

let formattedSecond = -1n
let formattedText = ''

/** RFC 3339 in UTC with nine digits, as `docker logs --timestamps` prints. */
export function formatTime(time: bigint): string {
  const second = time / 1_000_000_000n
  if (second !== formattedSecond) {
    formattedSecond = second
    formattedText = new Date(Number(second) * 1000).toISOString().slice(0, 19)
  }
  return `${formattedText}.${String(time % 1_000_000_000n).padStart(9, '0')}Z`
}

/** Parses one line of the file. `line` has no newline at its end unless the file has: `ended` says so. undefined: not a record. */
export function parseRecord(line: Buffer, ended: boolean): LogRecord | undefined {
  const first = line.indexOf(SPACE)
  if (first < 20 || first > 40) return undefined
  const time = parseTime(line.toString('latin1', 0, first))
  if (time === undefined) return undefined
  const name = line.toString('latin1', first + 1, first + 8)
  if (name !== 'stdout ' && name !== 'stderr ') return undefined
  const tag = line[first + 8]
  // CRI allows more tags after a colon (`F:x`); the monitor writes one letter.
  if ((tag !== 0x46 && tag !== 0x50) || line[first + 9] !== SPACE) return undefined
  const body = line.subarray(first + 10)
  const full = tag === 0x46 && ended
  // One copy, for what outlives the read buffer. The file's newline is the program's own in F records, the record's in P records.
  const bytes = Buffer.allocUnsafe(body.length + (full ? 1 : 0))
  body.copy(bytes)
  if (full) bytes[body.length] = NEWLINE
  return { stream: name === 'stdout ' ? 'stdout' : 'stderr', time, full, bytes }
}

/** Cuts a byte stream into records. What is not a record is skipped; memory is bounded whatever comes. */
export class RecordParser {
  #rest: Buffer[] = []
  #length = 0
  #skipping = false

  /** The records that end in this chunk. The chunk may be reused afterwards. */
  push(chunk: Buffer): LogRecord[] {
    const records: LogRecord[] = []
    let at = 0
    for (;;) {
      const end = chunk.indexOf(NEWLINE, at)
      if (end < 0) break
      const piece = chunk.subarray(at, end)
      at = end + 1
      if (this.#skipping) {
        this.#skipping = false
        continue
      }
      const line = this.#length > 0 ? Buffer.concat([...this.#rest, piece]) : piece
      this.#clear()
      const record = parseRecord(line, true)
      if (record) records.push(record)
    }
    if (at === chunk.length || this.#skipping) return records
    this.#length += chunk.length - at
    if (this.#length > MAX_RECORD) {
      this.#clear()
      this.#skipping = true
    } else this.#rest.push(Buffer.from(chunk.subarray(at)))
    return records
  }

  /** The file has ended for good: a record without its newline (a full disk) counts as far as it goes. */
  end(): LogRecord | undefined {
    const line = Buffer.concat(this.#rest)
    this.#clear()
    this.#skipping = false
    return line.length > 0 ? parseRecord(line, false) : undefined
  }

  #clear(): void {
    this.#rest = []
    this.#length = 0
  }
}
