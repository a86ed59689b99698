import { internal } from '../base/errors.js'
import { within } from '../base/timers.js'
import type { FileJob } from '../sandbox/files.js'

/** Milliseconds that a start or a removal waits for `docker cp` and the like before it ends them. */
const PATIENCE = 10_000
/** Milliseconds that the ended ones get: more than a guest has to tell of it, and its machine to be known to have gone. */
const LAST_PATIENCE = 10_000

/**
 * The work that goes on on one container's files. Its writable layer must not be in use twice (by an overlay or a virtual machine that a job made
 * and by the container itself), so what makes or removes the container waits here first.
 */
export class FileJobs {
  readonly #jobs = new Set<FileJob>()

  add(job: FileJob): FileJob {
    this.#jobs.add(job)
    const gone = () => this.#jobs.delete(job)
    job.done.then(gone, gone)
    return job
  }

  get idle(): boolean {
    return this.#jobs.size === 0
  }

  /** Resolves when none is left; those that take too long are ended. 500 when one does not end even so: the container's lock is not held for it for ever. */
  async settled(): Promise<void> {
    if (this.#jobs.size === 0) return
    const all = Promise.allSettled([...this.#jobs].map((job) => job.done))
    if ((await within(all, PATIENCE)) !== 'timeout') return
    for (const job of this.#jobs) job.cancel()
    if ((await within(all, LAST_PATIENCE)) === 'timeout') throw internal("the work on the container's files (docker cp and the like) does not end")
  }
}
