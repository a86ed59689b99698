import { constants, mkdirSync, readFileSync, renameSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { codeOf, conflict } from '../base/errors.js'
import { log } from '../base/log.js'
import type { DetachedChild } from '../host/child.js'
import { identify, isAlive, signalProcess, waitGone, type ProcessIdentity } from '../host/process.js'
import { attachConmon } from '../host/streams.js'
import { oomKilled } from './cgroups.js'
import { spawnConmon, type ConmonOptions, type Spawned } from './conmon-spawn.js'
import { ExitDirectory } from './exits.js'
import { LogRotator } from './log-rotation.js'
import { ResizeQueue } from './resize.js'
import type { Runtime } from './runtime.js'

/** {@link ConmonOptions} and what is needed to clean up. */
export interface SupervisedOptions extends ConmonOptions {
  /** linux.cgroupsPath of config.json, '/parent/id': removed with the container. */
  cgroupPath: string
}

/** How it ended. */
export interface SupervisedExit {
  /** 0-255; 128 + signal. 137 when its supervisor was killed and it with it; 255 when nobody knows. */
  code: number
  oomKilled: boolean
  finishedAt: Date
}

/** A container whose supervisor runs already. */
export interface Begun {
  create(): Promise<Supervised>
  /** Leaves nothing but the caller's own files. Without effect once {@link create} has been called. */
  callOff(): Promise<void>
}

interface BegunConmon {
  spawned: Spawned
  conmon: ProcessIdentity
}

/** supervised.json in the run directory: what a later daemon needs to find the container again. */
interface Record1 {
  version: 1
  conmon: ProcessIdentity
  /** Absent while the runtime still makes it. */
  container?: ProcessIdentity
}

const RECORD = 'supervised.json'
/** Everything that conmon and this class put into the run directory. */
const FILES = [RECORD, `${RECORD}.tmp`, 'attach', 'ctl', 'winsz', 'container.pid', 'conmon.err', 'oom', 'exit']
/** Files of an earlier life of the same container that would be mistaken for this one's. */
const STALE = [RECORD, 'oom', 'exit']
/** How often a container that an earlier daemon started is looked at, ms: only to notice a killed conmon. Its exit is told by inotify. */
const CHECK_INTERVAL = 2000

const isIdentity = (value: unknown): value is ProcessIdentity =>
  typeof value === 'object' && value !== null && 'pid' in value && Number.isInteger(value.pid) && 'startTime' in value && Number.isInteger(value.startTime)

async function readRecord(runDir: string): Promise<Record1 | undefined> {
  try {
    const parsed: unknown = JSON.parse(readFileSync(join(runDir, RECORD), 'utf8'))
    if (typeof parsed === 'object' && parsed !== null && 'conmon' in parsed && isIdentity(parsed.conmon)) {
      const container = 'container' in parsed && isIdentity(parsed.container) ? { container: parsed.container } : {}
      return { version: 1, conmon: parsed.conmon, ...container }
    }
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') log.warn('unreadable record of a container', { runDir, error })
  }
  return undefined
}

function writeRecord(runDir: string, record: Record1): void {
  const path = join(runDir, RECORD)
  // No fsync: the file tells of processes, and does not outlive them through a crash of the host.
  writeFileSync(`${path}.tmp`, JSON.stringify(record), { mode: 0o600 })
  renameSync(`${path}.tmp`, path)
}

const named = async (pid: number): Promise<ProcessIdentity> => (await identify(pid)) ?? { pid, startTime: Number.MAX_SAFE_INTEGER } // killed meanwhile: matches no process

/**
 * Of the run directory, and the exit file. At once, as all that is done with these few files: they are in /run, which is memory, and the way through a thread for each step is most of what a step takes.
 */
function removeFiles(options: SupervisedOptions, names: readonly string[]): void {
  for (const path of [join(options.exitDir, options.id), ...names.map((name) => join(options.runDir, name))]) {
    try {
      unlinkSync(path)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
    }
  }
}

/**
 * A process under conmon and an OCI runtime: a container, or the jail of a VMM. Whoever calls prepares the run directory
 * with config.json (and the root file system that it names) before {@link create}, and removes it after {@link destroy}.
 * conmon keeps stdio, log and exit code whether this daemon lives or not.
 */
export class Supervised {
  /** Resolves once, when the container has ended and its log is complete. Never rejects. */
  readonly exited: Promise<SupervisedExit>
  #exit!: (exit: SupervisedExit) => void
  #ended: SupervisedExit | undefined
  #finishing = false
  #again = false
  #check: NodeJS.Timeout | undefined
  #destroyed: Promise<void> | undefined
  readonly #exits: ExitDirectory
  readonly #resizes: ResizeQueue
  readonly #rotator: LogRotator | undefined

  private constructor(
    private readonly options: SupervisedOptions,
    private readonly container: ProcessIdentity,
    private readonly conmon: ProcessIdentity,
    private readonly child: DetachedChild | undefined,
  ) {
    this.exited = new Promise((resolve) => (this.#exit = resolve))
    this.#exits = ExitDirectory.of(options.exitDir)
    this.#resizes = new ResizeQueue(join(options.runDir, 'ctl'))
    if (options.logPath !== '' && options.logLimits) this.#rotator = new LogRotator(options.logPath, options.logLimits, () => this.reopenLog())
  }

  /** Host pid of the container's init. */
  get pid(): number {
    return this.container.pid
  }

  /** Host pid of conmon. */
  get conmonPid(): number {
    return this.conmon.pid
  }

  get runtime(): Runtime {
    return this.options.runtime
  }

  /** True until the container's init has ended. */
  async isRunning(): Promise<boolean> {
    return !this.#ended && (await isAlive(this.container))
  }

  /**
   * Starts conmon, and the runtime as far as it comes without the bundle's config.json and what that names: {@link Begun.create} is called when these are there. A runtime that cannot wait is started then.
   * {@link Begun.callOff} where it does not come to that.
   */
  static begin(options: SupervisedOptions): Begun {
    mkdirSync(options.exitDir, { recursive: true, mode: 0o700 })
    removeFiles(options, STALE)
    let spawned: Promise<BegunConmon> | undefined
    let settled = false
    const spawn = (ahead: boolean) => (spawned ??= Supervised.#spawn(options, ahead))
    if (options.runtime.waits !== undefined) spawn(true).catch(() => {}) // told by create
    return {
      create: () => {
        settled = true
        return Supervised.#create(options, () => spawn(false))
      },
      callOff: async () => {
        if (settled) return
        settled = true
        const begun = await spawned?.catch(() => undefined)
        begun?.spawned.callOff()
        await begun?.spawned.created.catch(() => {})
        if (spawned) await Supervised.removeLeftovers(options)
      },
    }
  }

  /**
   * Up to "created". Rejects in Docker's words when the runtime refuses, and leaves nothing but the caller's own files.
   */
  static create(options: SupervisedOptions): Promise<Supervised> {
    mkdirSync(options.exitDir, { recursive: true, mode: 0o700 })
    removeFiles(options, STALE)
    return Supervised.#create(options, () => Supervised.#spawn(options, false))
  }

  static async #spawn(options: SupervisedOptions, ahead: boolean): Promise<BegunConmon> {
    const spawned = spawnConmon(options, ahead)
    // While the runtime works: if we die now, the next daemon knows whom to clean up after.
    const conmon = await named(spawned.child.pid)
    writeRecord(options.runDir, { version: 1, conmon })
    return { spawned, conmon }
  }

  static async #create(options: SupervisedOptions, begin: () => Promise<BegunConmon>): Promise<Supervised> {
    let child: DetachedChild | undefined
    try {
      const { spawned, conmon } = await begin()
      child = spawned.child
      spawned.go()
      const container = await named(await spawned.created)
      const self = new Supervised(options, container, conmon, child)
      self.#watch()
      writeRecord(options.runDir, { version: 1, conmon, container })
      return self
    } catch (error) {
      child?.kill('SIGKILL')
      await Supervised.removeLeftovers(options).catch((failure: unknown) => log.error('cannot clean up after a failed start', { id: options.id, error: failure }))
      throw error
    }
  }

  /**
   * The container of an earlier daemon, from the files in its run directory: running, or ended with its exit status still
   * there. `undefined` when there was none. One whose conmon was killed is killed too: nobody reads its output any more.
   */
  static async adopt(options: SupervisedOptions): Promise<Supervised | undefined> {
    const record = await readRecord(options.runDir)
    if (!record?.container) return undefined
    const self = new Supervised(options, record.container, record.conmon, undefined)
    self.#watch()
    return self
  }

  #watch(): void {
    this.#rotator?.start()
    this.#exits.add(this.options.id, () => void this.#finish())
    if (this.child?.ended) void this.#finish()
    else if (this.child) this.child.once('exit', () => void this.#finish())
    else {
      this.#check = setInterval(() => {
        void isAlive(this.conmon).then((alive) => (alive ? undefined : this.#finish()))
      }, CHECK_INTERVAL)
      this.#check.unref()
      void this.#finish() // it may have ended while no daemon was there
    }
  }

  /** The exit file, if it is there. */
  async #readExit(): Promise<SupervisedExit | undefined> {
    const path = join(this.options.exitDir, this.options.id)
    try {
      const code = Number(readFileSync(path, 'utf8'))
      if (!Number.isInteger(code)) return undefined
      return { code: code < 0 ? 255 : code & 255, oomKilled: await this.#oomKilled(), finishedAt: statSync(path).mtime }
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  async #oomKilled(): Promise<boolean> {
    // On v1 conmon may leave before it has seen the event that came together with the death: the kernel counts as well.
    if (await oomKilled(this.options.cgroupPath)) return true
    try {
      statSync(join(this.options.runDir, 'oom'))
      return true
    } catch {
      return false
    }
  }

  async #finish(): Promise<void> {
    if (this.#ended) return
    if (this.#finishing) {
      this.#again = true // what we are reading may be older than what woke us
      return
    }
    this.#finishing = true
    try {
      let exit = await this.#readExit()
      if (!exit && !(await isAlive(this.conmon))) {
        exit = await this.#readExit() // it may have been written just before conmon went
        exit ??= await this.#abandoned()
      }
      if (!exit) return
      await this.#rotator?.stop()
      this.#ended = exit
      this.#exits.remove(this.options.id)
      clearInterval(this.#check)
      this.#exit(exit)
    } catch (error) {
      log.error('cannot read how a container ended', { id: this.options.id, error })
    } finally {
      this.#finishing = false
      if (this.#again) {
        this.#again = false
        void this.#finish()
      }
    }
  }

  /** conmon is dead and left no exit code. */
  async #abandoned(): Promise<SupervisedExit> {
    const wasRunning = signalProcess(this.container, 9)
    log.warn('the supervisor of a container was killed', { id: this.options.id, containerWasRunning: wasRunning })
    if (wasRunning) await waitGone(this.container, 10_000)
    return { code: wasRunning ? 137 : 255, oomKilled: await this.#oomKilled(), finishedAt: new Date() }
  }

  /** Lets the created container run. */
  async start(): Promise<void> {
    await this.options.runtime.start(this.options.id)
  }

  /**
   * A connection to the container's stdio: raw with a tty, else in Docker's multiplexed framing. Output from now on; when it was
   * opened before {@link start}, all of it (conmon's loop serves the attach socket before the container's pipes).
   * Without `input` nothing is written, and leaving does not end the container's stdin.
   */
  async attach(input = true): Promise<Duplex> {
    try {
      return await attachConmon(join(this.options.runDir, 'attach'), { raw: this.options.tty, silent: !input && this.options.stdin && !this.options.leaveStdinOpen })
    } catch (error) {
      const code = codeOf(error)
      if (code === 'ENOENT' || code === 'ECONNREFUSED') throw conflict(`container ${this.options.id} is not running`, error)
      throw error
    }
  }

  /** Signal to the container's init. False: it is not running. */
  signal(signal: number): boolean {
    return !this.#ended && signalProcess(this.container, signal)
  }

  /** Size of the terminal. No effect without one. */
  async resize(rows: number, columns: number): Promise<void> {
    if (!this.options.tty) return
    await this.#resizes.set(rows, columns)
  }

  /** Makes conmon open the log file anew, after it has been renamed. */
  async reopenLog(): Promise<void> {
    const file = await open(join(this.options.runDir, 'ctl'), constants.O_WRONLY | constants.O_NONBLOCK)
    try {
      await file.write('2 0 0\n')
    } finally {
      await file.close()
    }
  }

  /** Kills what still runs; removes conmon, the runtime's state, the cgroup and our files in the run directory. Idempotent. */
  destroy(): Promise<void> {
    this.#destroyed ??= this.#destroy().catch((error: unknown) => {
      this.#destroyed = undefined // may be tried again
      throw error
    })
    return this.#destroyed
  }

  async #destroy(): Promise<void> {
    if (!this.#ended) {
      signalProcess(this.container, 9)
      await waitGone(this.container, 10_000)
    }
    // conmon leaves by itself within a millisecond of the exit file.
    if (!(await waitGone(this.conmon, 2000))) {
      signalProcess(this.conmon, 9)
      await waitGone(this.conmon, 2000)
    }
    await this.#finish()
    await this.#rotator?.stop()
    this.#exits.remove(this.options.id)
    clearInterval(this.#check)
    if (!this.#ended) {
      this.#ended = { code: 137, oomKilled: false, finishedAt: new Date() }
      this.#exit(this.#ended)
    }
    await Supervised.removeLeftovers(this.options)
  }

  /** Removes what a start that was cut off left: the runtime's state, whatever runs in the cgroup (conmon then ends by itself), our files. */
  static async removeLeftovers(options: SupervisedOptions): Promise<void> {
    const runtime = await Promise.allSettled([options.runtime.delete(options.id, options.cgroupPath)])
    const record = await readRecord(options.runDir)
    // It leaves when its container does; it must not write an exit file after we have looked.
    if (record && !(await waitGone(record.conmon, 2000))) signalProcess(record.conmon, 9)
    removeFiles(options, FILES)
    const [failed] = runtime.filter((result) => result.status === 'rejected')
    if (failed) throw failed.reason
  }
}
