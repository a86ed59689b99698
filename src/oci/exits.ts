import { mkdirSync, readdirSync, watch, type FSWatcher } from 'node:fs'
import { codeOf } from '../base/errors.js'
import { log } from '../base/log.js'

/** How often the directory is read, ms: once for all who wait, to find what the watch did not tell. */
const LOOK_INTERVAL = 2000

/**
 * One inotify watch for all the containers of a daemon: each hull-monitor writes its exit file into one directory (by rename, so
 * a file that is seen is whole), and this tells the one whose id is the file's name.
 */
export class ExitDirectory {
  static readonly #all = new Map<string, ExitDirectory>()
  readonly #waiting = new Map<string, () => void>()
  #watcher: FSWatcher | undefined
  #looking: NodeJS.Timeout | undefined
  #failing = false

  private constructor(readonly path: string) {}

  /** The directory's watch; made with the directory on first use. */
  static of(path: string): ExitDirectory {
    let directory = this.#all.get(path)
    if (!directory) this.#all.set(path, (directory = new ExitDirectory(path)))
    return directory
  }

  /** Calls `onExit` when the exit file of `id` appears from now on, and again while it is there and `id` not removed. The caller looks for one that was there before. */
  add(id: string, onExit: () => void): void {
    this.#waiting.set(id, onExit)
    this.#start()
  }

  /** Forgets `id`; the watch ends with the last. */
  remove(id: string): void {
    this.#waiting.delete(id)
    if (this.#waiting.size > 0) return
    this.#watcher?.close()
    this.#watcher = undefined
    clearInterval(this.#looking)
    this.#looking = undefined
    ExitDirectory.#all.delete(this.path)
  }

  #start(): void {
    this.#looking ??= setInterval(() => this.#look(), LOOK_INTERVAL).unref()
    if (this.#watcher) return
    mkdirSync(this.path, { recursive: true, mode: 0o700 })
    try {
      const watcher = watch(this.path, { persistent: false }, (_event, name) => {
        if (name !== null) this.#waiting.get(name)?.()
      })
      watcher.on('error', (error) => {
        log.warn('the watch of the exit directory broke', { path: this.path, error })
        watcher.close()
        if (this.#watcher === watcher) this.#watcher = undefined // a look makes another
      })
      this.#watcher = watcher
      this.#failing = false
    } catch (error) {
      // Out of inotify instances: the monitor's own death and the next look still tell, later.
      if (!this.#failing) log.warn('cannot watch the exit directory', { path: this.path, error })
      this.#failing = true
    }
  }

  #look(): void {
    try {
      this.#start()
      for (const name of readdirSync(this.path)) this.#waiting.get(name)?.()
    } catch (error) {
      log.warn('cannot read the exit directory', { path: this.path, code: codeOf(error) }) // out of descriptors, say: the next look may
    }
  }
}
