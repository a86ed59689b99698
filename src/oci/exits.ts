import { mkdirSync, watch, type FSWatcher } from 'node:fs'
import { log } from '../base/log.js'

/**
 * One inotify watch for all the containers of a daemon: each hull-monitor writes its exit file into one directory (by rename, so
 * a file that is seen is whole), and this tells the one whose id is the file's name.
 */
export class ExitDirectory {
  static readonly #all = new Map<string, ExitDirectory>()
  readonly #waiting = new Map<string, () => void>()
  #watcher: FSWatcher | undefined

  private constructor(readonly path: string) {}

  /** The directory's watch; made with the directory on first use. */
  static of(path: string): ExitDirectory {
    let directory = this.#all.get(path)
    if (!directory) this.#all.set(path, (directory = new ExitDirectory(path)))
    return directory
  }

  /** Calls `onExit` when the exit file of `id` appears from now on. The caller looks for one that was there before. */
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
    ExitDirectory.#all.delete(this.path)
  }

  #start(): void {
    if (this.#watcher) return
    mkdirSync(this.path, { recursive: true, mode: 0o700 })
    try {
      this.#watcher = watch(this.path, { persistent: false }, (_event, name) => {
        if (name !== null) this.#waiting.get(name)?.()
      })
    } catch (error) {
      // Out of inotify instances: the monitor's own death and the slow check still tell, later.
      log.warn('cannot watch the exit directory', { path: this.path, error })
      return
    }
    this.#watcher.on('error', (error) => log.warn('the watch of the exit directory broke', { path: this.path, error }))
  }
}
