import { watch, type FSWatcher } from 'node:fs'
import { open, stat, type FileHandle } from 'node:fs/promises'
import { codeOf } from '../base/errors.js'
import { formatTime, RecordParser, type LogRecord } from './log-records.js'
import { rotatedNumbers } from './log-files.js'
import { findTail, type Segment } from './log-tail.js'

/** A line of a container's output, or a part of one. */
export interface LogEntry {
  stream: 'stdout' | 'stderr'
  /** RFC 3339, UTC, nine digits: when hull-monitor read it. */
  time: string
  /** Exactly what the program wrote: with its newline at the end, if it wrote one. */
  bytes: Buffer
  /** This goes on where the stream's entry before it stopped without a newline: no timestamp before it. */
  continuation: boolean
}

/** Which lines. */
export interface LogOptions {
  stdout: boolean
  stderr: boolean
  /** The last N lines of both streams together, counted before the other filters, as Docker does. Absent: all. */
  tail?: number
  /** Nanoseconds since the epoch; the bounds themselves are in. */
  since?: bigint
  until?: bigint
  /** Goes on until `ended` says that the container has ended (and its log is complete). */
  follow: boolean
  /** Aborted: no more will be written. Without it `follow` ends only when the reader is closed or `stop` is aborted. */
  ended?: AbortSignal
  /** Aborted: the client has gone. The iterator ends at once. */
  stop?: AbortSignal
}

const CHUNK = 64 << 10
/** How often a followed file is looked at when inotify says nothing (it was replaced, or there is no watch), ms. */
const IDLE = 1000
/** How long the new file of a rotation takes to appear, ms. */
const BETWEEN = 10

async function openIfExists(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

/** Files that a follower keeps open, the one that it reads included, to know what it has read. */
const HELD = 32
/** Times that the files are opened anew because they were rotated meanwhile. */
const ATTEMPTS = 50

const inodeAt = async (path: string): Promise<bigint | undefined> => (await stat(path, { bigint: true }).catch(() => undefined))?.ino

/** path.N, …, path.1, path: those that are there, oldest first. Open at once, so that a rotation later on loses nothing. */
async function openSegments(path: string): Promise<Segment[]> {
  for (let attempt = 1; ; attempt++) {
    const before = await inodeAt(path)
    const opened: FileHandle[] = []
    const open = async (name: string) => {
      const file = await openIfExists(name)
      if (file) opened.push(file)
    }
    await open(path)
    // Newest first, each after the one that it could become, and one more: files that move up meanwhile are seen twice rather than not at all.
    const numbers = await rotatedNumbers(path)
    for (const n of numbers.length > 0 ? [...numbers, numbers.at(-1)! + 1] : []) await open(`${path}.${n}`)
    const segments: Segment[] = []
    const inodes = new Set<bigint>()
    for (const file of opened) {
      const { ino, size } = await file.stat({ bigint: true })
      if (inodes.has(ino)) await file.close()
      else segments.unshift({ file, size: Number(size) })
      inodes.add(ino)
    }
    // The newest has become an older one while we opened the others: one may have slipped past us.
    if (before === (await inodeAt(path)) || attempt === ATTEMPTS) return segments
    await Promise.all(segments.map(({ file }) => file.close()))
  }
}

/** Wakes the follower: the file has changed, time has passed, the container has ended, the client has gone. */
class Waker {
  #wake: (() => void) | undefined
  #woken = false
  #watcher: FSWatcher | undefined
  readonly #signals: AbortSignal[]
  readonly #poke = () => this.poke()

  constructor(...signals: (AbortSignal | undefined)[]) {
    this.#signals = signals.filter((signal) => signal !== undefined)
    for (const signal of this.#signals) signal.addEventListener('abort', this.#poke, { once: true })
  }

  poke(): void {
    this.#woken = true
    this.#wake?.()
  }

  watch(path: string): void {
    this.#watcher?.close()
    this.#watcher = undefined
    try {
      this.#watcher = watch(path, { persistent: false }, this.#poke)
      this.#watcher.on('error', () => {})
    } catch {
      // not there yet, or out of watches: the idle check finds it
    }
  }

  /** Resolves at the next poke, at once when there was one since the last wait, or after `ms`. */
  async wait(ms: number): Promise<void> {
    if (!this.#woken) {
      let timer: NodeJS.Timeout | undefined
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        timer = setTimeout(resolve, ms)
      })
      clearTimeout(timer)
      this.#wake = undefined
    }
    this.#woken = false
  }

  close(): void {
    this.#watcher?.close()
    for (const signal of this.#signals) signal.removeEventListener('abort', this.#poke)
  }
}

/** Applies the filters and knows where lines go on. */
class Selection {
  readonly #open = { stdout: false, stderr: false }
  finished = false

  constructor(private readonly options: LogOptions) {}

  take(record: LogRecord): LogEntry | undefined {
    const { stream, time, full, bytes } = record
    const continuation = this.#open[stream]
    this.#open[stream] = !full
    const { since, until } = this.options
    if (until !== undefined && time > until) {
      this.finished = true
      return undefined
    }
    if (!this.options[stream] || (since !== undefined && time < since)) return undefined
    return { stream, time: formatTime(time), bytes, continuation }
  }
}

/**
 * The lines of a container's log, each exactly once, in the order in which they were written. Follows across rotations (path → path.1). A log that does not exist is empty. Lines that are not records are skipped.
 */
export async function* readLog(path: string, options: LogOptions): AsyncGenerator<LogEntry, void, void> {
  const selection = new Selection(options)
  const parser = new RecordParser()
  const buffer = Buffer.allocUnsafe(CHUNK)
  const waker = new Waker(options.ended, options.stop)
  let segments: Segment[] = []
  let untilTimer: NodeJS.Timeout | undefined
  const stopped = () => options.stop?.aborted === true || selection.finished
  try {
    segments = await openSegments(path)
    if (options.follow) waker.watch(path)
    let current = 0
    let position = 0
    if (options.tail !== undefined && segments.length > 0) {
      const start = await findTail(segments, Math.max(0, options.tail))
      current = start.segment
      position = start.offset
      for (const record of start.carried) {
        const entry = selection.take(record)
        if (entry) yield entry
      }
    }
    if (options.follow && options.until !== undefined) {
      const left = Number((options.until - BigInt(Date.now()) * 1_000_000n) / 1_000_000n)
      if (left < 2 ** 31 - 1) untilTimer = setTimeout(() => waker.poke(), Math.max(0, left + 2)) // timers may be a millisecond early
    }
    for (;;) {
      // Asked before reading: what was written before the end is then surely read.
      const over = !options.follow || options.ended?.aborted === true || (options.until !== undefined && BigInt(Date.now()) * 1_000_000n > options.until)
      // Likewise: once another file is in place, the monitor writes no more to this one.
      const newer = current >= segments.length - 1 && options.follow ? await newerSegments(path, segments) : []
      const replaced = newer !== undefined && newer.length > 0
      segments.push(...(newer ?? []))
      if (replaced) waker.watch(path)
      for (; current < segments.length; current++) {
        for (;;) {
          if (stopped()) return
          const { bytesRead } = await segments[current]!.file.read(buffer, 0, CHUNK, position)
          if (bytesRead === 0) break
          position += bytesRead
          for (const record of parser.push(buffer.subarray(0, bytesRead))) {
            const entry = selection.take(record)
            if (selection.finished) return
            if (entry) yield entry
            if (options.stop?.aborted) return
          }
        }
        if (current === segments.length - 1) break
        position = 0
      }
      if (over) break
      // Who follows for days holds no descriptor for each rotation of these days.
      for (; segments.length > HELD && current > 0; current--) await segments.shift()!.file.close()
      if (!replaced) await waker.wait(newer ? IDLE : BETWEEN)
    }
    const last = parser.end()
    const entry = last && selection.take(last)
    if (entry && !selection.finished) yield entry
  } finally {
    clearTimeout(untilTimer)
    waker.close()
    await Promise.all(segments.map((segment) => segment.file.close().catch(() => {})))
  }
}

const inodesOf = (segments: readonly Segment[]): Promise<bigint[]> => Promise.all(segments.map(async ({ file }) => (await file.stat({ bigint: true })).ino))

/** The files that were begun since those of `read`, oldest first; none when the last of them is still the one that is written to; undefined in the middle of a rotation. */
async function newerSegments(path: string, read: readonly Segment[]): Promise<Segment[] | undefined> {
  const now = await stat(path, { bigint: true }).catch(() => undefined)
  if (!now) return read.length > 0 ? undefined : []
  const known = await inodesOf(read) // still open: no other file has their numbers
  if (known.at(-1) === now.ino) return []
  const all = await openSegments(path)
  const inodes = await inodesOf(all)
  // Behind the last that has been read. Not necessarily the one that was read last: that may be gone by now, and older ones are held open.
  const from = inodes.findLastIndex((inode) => known.includes(inode)) + 1
  await Promise.all(all.slice(0, from).map(({ file }) => file.close()))
  return all.slice(from)
}
