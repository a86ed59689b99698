import type { FileHandle } from 'node:fs/promises'
import { parseRecord, type LogRecord } from './log-records.js'

const BLOCK = 64 << 10
const NEWLINE = 10

/** An open log file, of several that follow one another. */
export interface Segment {
  file: FileHandle
  /** Bytes that count. */
  size: number
}

/** Where to begin, and the beginnings of lines that are open there. */
export interface TailStart {
  segment: number
  offset: number
  /** Parts of lines that end after the start, but began before it among lines of the other stream. */
  carried: LogRecord[]
}

/** Record lines of a file from its end to its beginning, block by block. `end` is false for a last line without newline. */
async function* backwards(segment: Segment): AsyncGenerator<{ line: Buffer; offset: number; ended: boolean }> {
  let position = segment.size
  let rest = Buffer.alloc(0)
  let ended = false // is there a newline after `rest`?
  while (position > 0) {
    const length = Math.min(BLOCK, position)
    const block = Buffer.allocUnsafe(length)
    const { bytesRead } = await segment.file.read(block, 0, length, position - length)
    if (bytesRead < length) return // truncated under our hands: what is left is not ours to guess
    position -= length
    let data = rest.length > 0 ? Buffer.concat([block, rest]) : block
    for (let newline = data.lastIndexOf(NEWLINE); newline >= 0; newline = data.lastIndexOf(NEWLINE)) {
      const line = data.subarray(newline + 1)
      if (line.length > 0 || ended) yield { line, offset: position + newline + 1, ended }
      ended = true
      data = data.subarray(0, newline)
    }
    // A "line" of many blocks is not the monitor's; do not gather it.
    rest = data.length > 1 << 20 ? Buffer.alloc(0) : Buffer.from(data)
  }
  if (rest.length > 0 || ended) yield { line: rest, offset: 0, ended }
}

/** How far back the beginning of an interleaved line is looked for, bytes. */
const CARRY_LIMIT = 4 << 20

/**
 * Finds where the last `count` lines begin, reading from the end and no more than it must. A line is what the program ended with a
 * newline, in however many records; one that is still open counts as well.
 */
export async function findTail(segments: readonly Segment[], count: number): Promise<TailStart> {
  let lines = 0
  let start: { segment: number; offset: number } | undefined
  /** Streams whose earliest record seen so far may be the middle of a line that counts. */
  const open = new Set<'stdout' | 'stderr'>()
  const seen = new Set<'stdout' | 'stderr'>()
  const carried: LogRecord[] = []
  let searched = 0
  for (let i = segments.length - 1; i >= 0; i--) {
    for await (const { line, offset, ended } of backwards(segments[i]!)) {
      const record = parseRecord(line, ended)
      if (!record) continue
      const { stream } = record
      if (!start) {
        const endsLine = record.full || !seen.has(stream) // the last one of a stream may be open
        if (endsLine) {
          if (lines === count) {
            // This line is the first that does not count. Its stream's later line began after it; the other's may have begun before.
            start = { segment: i, offset: offset + line.length + (ended ? 1 : 0) }
            open.delete(stream)
            if (open.size === 0) return { ...start, carried }
            continue
          }
          lines++
        }
        seen.add(stream)
        open.add(stream)
        continue
      }
      searched += line.length
      if (searched > CARRY_LIMIT) return { ...start, carried }
      if (!open.has(stream)) continue
      if (record.full) open.delete(stream)
      else carried.unshift(record)
      if (open.size === 0) return { ...start, carried }
    }
  }
  return start ? { ...start, carried } : { segment: 0, offset: 0, carried: [] }
}
