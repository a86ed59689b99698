import { watch, type FSWatcher } from 'node:fs'
import { link, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { codeOf, messageOf } from '../base/errors.js'
import { log } from '../base/log.js'
import { trim } from './log-trim.js'

/** How large a container's log may become. */
export interface LogLimits {
  /** bytes of one file */
  maxSize: number
  /** files, the one that is written to included; at least 1 */
  maxFiles: number
}

/** Bytes that conmon writes into one file before it replaces it, at least, where the daemon rotates: far more than it leaves unread, even on a busy machine. */
const UNREAD = 8 << 20

/**
 * What conmon is told (`--log-size-max`): at so many bytes it begins a new file in place of the old one, whether a daemon lives or not. With one
 * file that is the whole rotation; else it is the bound for the time without a daemon, which would have rotated much earlier. Not less than
 * UNREAD then: what conmon replaces twice between two looks of a daemon on a busy machine is lost to every reader.
 */
export const conmonLogLimit = ({ maxSize, maxFiles }: LogLimits): number => (maxFiles > 1 ? Math.max(maxSize * maxFiles, UNREAD) : maxSize)

/** Milliseconds between two looks at a file that is written to all the time; and at one of which inotify says nothing. */
const PAUSE = 50
const IDLE = 5000

/** Our hard link to the file that conmon writes: what conmon replaces by itself is not lost while we hold it. Between path.1 and path in age, or path itself. */
export const keptName = (path: string) => `${path}.kept`

/** Numbers N of the files PATH.N that are there, ascending: the higher, the older. */
export async function rotatedNumbers(path: string): Promise<number[]> {
  const prefix = `${basename(path)}.`
  const names = await readdir(dirname(path)).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return []
    throw error
  })
  return names
    .filter((name) => name.startsWith(prefix) && /^[1-9]\d{0,5}$/.test(name.slice(prefix.length)))
    .map((name) => Number(name.slice(prefix.length)))
    .sort((a, b) => a - b)
}

const inodeOf = async (path: string): Promise<{ ino: bigint; size: number } | undefined> => {
  try {
    const { ino, size } = await stat(path, { bigint: true })
    return { ino, size: Number(size) }
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

/**
 * Rotates the log of one container: path becomes path.1, path.1 becomes path.2, …, and conmon is told to open path anew. Every step is a rename, so
 * whoever dies in between leaves files that the next one, and every reader, still takes in the right order.
 */
export class LogRotator {
  #watcher: FSWatcher | undefined
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #again = false
  #stopped = false

  constructor(
    private readonly path: string,
    private readonly limits: LogLimits,
    /** Makes conmon open the log anew. */
    private readonly reopen: () => Promise<void>,
  ) {}

  start(): void {
    this.#look()
  }

  /** The container has ended: no more is written. Resolves when the files are as they stay. */
  async stop(): Promise<void> {
    if (this.#stopped) return
    this.#stopped = true
    clearTimeout(this.#timer)
    this.#watcher?.close()
    await this.#running
    await this.#check(false).catch((error: unknown) => log.warn('cannot rotate a log', { path: this.path, error: messageOf(error) }))
    await rm(keptName(this.path), { force: true })
  }

  #watch(): void {
    this.#watcher?.close()
    this.#watcher = undefined
    try {
      // One event, then a pause: a busy workload costs a look each PAUSE and not one each line.
      const watcher = watch(this.path, { persistent: false }, () => {
        watcher.close()
        if (this.#watcher !== watcher) return
        this.#watcher = undefined
        this.#later(PAUSE)
      })
      watcher.on('error', () => {})
      this.#watcher = watcher
    } catch {
      // not there just now, or out of watches: the next look comes by time
    }
  }

  #later(ms: number): void {
    clearTimeout(this.#timer)
    if (!this.#stopped) this.#timer = setTimeout(() => this.#look(), ms).unref()
  }

  #look(): void {
    if (this.#running) {
      this.#again = true
      return
    }
    this.#running = this.#check(true)
      .catch((error: unknown) => log.warn('cannot rotate a log', { path: this.path, error: messageOf(error) }))
      .finally(() => {
        this.#running = undefined
        if (this.#stopped) return
        const again = this.#again
        this.#again = false
        if (again) return this.#later(PAUSE)
        this.#watch()
        this.#later(this.#watcher ? IDLE : PAUSE)
      })
  }

  /** One look. `live`: conmon still writes. */
  async #check(live: boolean): Promise<void> {
    const { path, limits } = this
    const kept = keptName(path)
    const [now, held] = await Promise.all([inodeOf(path), inodeOf(kept)])
    const first = await inodeOf(`${path}.1`)
    if (held && held.ino !== now?.ino) {
      // conmon has begun a new file by itself; what it replaced is ours to keep, unless it has its number already.
      if (held.ino !== first?.ino) {
        await this.#shift()
        await rename(kept, `${path}.1`)
      } else await rm(kept, { force: true })
    }
    if (!now) {
      if (live && first) await this.reopen() // renamed by a daemon that died before it could say so
      return
    }
    if (now.size >= limits.maxSize && live) {
      if (limits.maxFiles > 1) {
        await this.#shift()
        await rename(path, `${path}.1`)
        await rm(kept, { force: true })
      } else await rm(path, { force: true })
      await this.reopen()
      this.#again = true
      // A burst made it larger than all files together may be.
      if (limits.maxFiles > 1) await trim(path, `${path}.1`, limits.maxSize * (limits.maxFiles - 1))
      return
    }
    if (!live && limits.maxFiles > 1 && now.size > limits.maxSize * limits.maxFiles) await this.#trimLast()
    if (live && limits.maxFiles > 1 && held?.ino !== now.ino) {
      await link(path, kept).catch((error: unknown) => {
        if (codeOf(error) !== 'ENOENT' && codeOf(error) !== 'EEXIST') throw error // replaced just now: the next look
      })
    }
  }

  /** The workload ended before a look: what it wrote last is all that may be kept. */
  async #trimLast(): Promise<void> {
    if (!(await trim(this.path, this.path, this.limits.maxSize * this.limits.maxFiles))) return
    for (const number of await rotatedNumbers(this.path)) await rm(`${this.path}.${number}`, { force: true })
  }

  /** Makes the number 1 free: each file one number up, as far as there is no hole (left by a crash), and the oldest away. */
  async #shift(): Promise<void> {
    const numbers = await rotatedNumbers(this.path)
    const budget = this.limits.maxSize * this.limits.maxFiles
    let sum = this.limits.maxSize
    let hole = 1
    while (numbers.includes(hole)) hole++
    for (const number of numbers) {
      const size = (await inodeOf(`${this.path}.${number}`))?.size ?? 0
      // Too many, or enough without it: files that a burst made larger than they should be make up for it.
      const moves = number < hole ? number + 1 : number
      if (moves >= this.limits.maxFiles || sum >= budget) await rm(`${this.path}.${number}`, { force: true })
      sum += size
    }
    for (let number = hole - 1; number >= 1; number--) {
      await rename(`${this.path}.${number}`, `${this.path}.${number + 1}`).catch((error: unknown) => {
        if (codeOf(error) !== 'ENOENT') throw error
      })
    }
  }
}
