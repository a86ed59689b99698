import { existsSync, mkdirSync, readFileSync, readlinkSync, renameSync, rmSync, statSync, symlinkSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { codeOf, conflict } from '../base/errors.js'
import { log } from '../base/log.js'
import type { DetachedChild } from '../host/child.js'
import { identify, isAlive, signalProcess, waitGone, type ProcessIdentity } from '../host/process.js'
import { oomKilled } from './cgroups.js'
import { ExitDirectory } from './exits.js'
import { attachMonitor, resizeMonitor } from './monitor-client.js'
import { spawnMonitor, type MonitorOptions, type Spawned } from './monitor-spawn.js'
import type { Runtime } from './runtime.js'

/** {@link MonitorOptions} and what is needed to clean up. */
export interface SupervisedOptions extends MonitorOptions {
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

interface BegunMonitor {
  spawned: Spawned
  monitor: ProcessIdentity
}

/** `supervised` in the run directory: what a later daemon needs to find the container again. The target of a symbolic link, which is read and replaced as one and lies in the inode, where a file's content would take a page of memory. */
interface Record1 {
  version: 1
  monitor: ProcessIdentity
  /** Absent while the runtime still makes it. */
  container?: ProcessIdentity
}

const RECORD = 'supervised'
/** The monitor's socket. */
const ATTACH = 'attach'
/** What it has to complain of. */
const ERRORS = 'monitor.err'
/** Everything that the monitor and this class put into the run directory. */
const FILES = [RECORD, `${RECORD}.tmp`, ATTACH, 'container.pid', ERRORS]
/** Files of an earlier life of the same container that would be mistaken for this one's. */
const STALE = [RECORD, ATTACH, ERRORS]
/** How often a container that an earlier daemon started is looked at, ms: only to notice a killed monitor. Its exit is told by inotify. */
const CHECK_INTERVAL = 2000
/** How long until an end that could not be read is read again, ms. */
const RETRY = 1000
/** How long a monitor may take to write the exit file when its container has been killed, ms. */
const PATIENCE = 2000
/** How long a monitor that has written it may take to go before it is left alone, ms. */
const LEAVING = 100

const isIdentity = (value: unknown): value is ProcessIdentity =>
  typeof value === 'object' && value !== null && 'pid' in value && Number.isInteger(value.pid) && 'startTime' in value && Number.isInteger(value.startTime)

async function readRecord(runDir: string): Promise<Record1 | undefined> {
  try {
    const parsed: unknown = JSON.parse(readlinkSync(join(runDir, RECORD)))
    if (typeof parsed === 'object' && parsed !== null && 'monitor' in parsed && isIdentity(parsed.monitor)) {
      const container = 'container' in parsed && isIdentity(parsed.container) ? { container: parsed.container } : {}
      return { version: 1, monitor: parsed.monitor, ...container }
    }
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') log.warn('unreadable record of a container', { runDir, error })
  }
  return undefined
}

function writeRecord(runDir: string, record: Record1): void {
  const path = join(runDir, RECORD)
  // No fsync: the file tells of processes, and does not outlive them through a crash of the host.
  rmSync(`${path}.tmp`, { force: true })
  symlinkSync(JSON.stringify(record), `${path}.tmp`)
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

const exitWritten = (options: SupervisedOptions): boolean => existsSync(join(options.exitDir, options.id))

/** The monitor does not listen any more. */
const gone = (error: unknown): boolean => ['ENOENT', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE'].includes(codeOf(error) ?? '')

/**
 * A process under hull-monitor and an OCI runtime: a container, or the jail of a VMM. Whoever calls prepares the run directory
 * with config.json (and the root file system that it names) before {@link create}, and removes it after {@link destroy}.
 * The monitor keeps stdio, log and exit code whether this daemon lives or not.
 */
export class Supervised {
  /** Resolves once, when the container has ended and its log is complete. Never rejects. */
  readonly exited: Promise<SupervisedExit>
  #exit!: (exit: SupervisedExit) => void
  #ended: SupervisedExit | undefined
  #finishing = false
  #again = false
  #check: NodeJS.Timeout | undefined
  #retry: NodeJS.Timeout | undefined
  #destroyed: Promise<void> | undefined
  readonly #exits: ExitDirectory

  private constructor(
    private readonly options: SupervisedOptions,
    private readonly container: ProcessIdentity,
    private readonly monitor: ProcessIdentity,
    private readonly child: DetachedChild | undefined,
  ) {
    this.exited = new Promise((resolve) => (this.#exit = resolve))
    this.#exits = ExitDirectory.of(options.exitDir)
  }

  /** Host pid of the container's init. */
  get pid(): number {
    return this.container.pid
  }

  /** Host pid of hull-monitor. */
  get monitorPid(): number {
    return this.monitor.pid
  }

  get runtime(): Runtime {
    return this.options.runtime
  }

  /** True until the container's init has ended. */
  async isRunning(): Promise<boolean> {
    return !this.#ended && (await isAlive(this.container))
  }

  /**
   * Starts the monitor, and the runtime as far as it comes without the bundle's config.json and what that names: {@link Begun.create} is called when these are there. A runtime that cannot wait is started then.
   * {@link Begun.callOff} where it does not come to that.
   */
  static begin(options: SupervisedOptions): Begun {
    mkdirSync(options.exitDir, { recursive: true, mode: 0o700 })
    removeFiles(options, STALE)
    let spawned: Promise<BegunMonitor> | undefined
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

  static async #spawn(options: SupervisedOptions, ahead: boolean): Promise<BegunMonitor> {
    const spawned = spawnMonitor(options, ahead)
    try {
      // While the runtime works: if we die now, the next daemon knows whom to clean up after.
      const monitor = await named(spawned.child.pid)
      writeRecord(options.runDir, { version: 1, monitor })
      return { spawned, monitor }
    } catch (error) {
      // Nobody else knows of it.
      spawned.callOff()
      spawned.child.kill('SIGKILL')
      await spawned.created.catch(() => {})
      throw error
    }
  }

  static async #create(options: SupervisedOptions, begin: () => Promise<BegunMonitor>): Promise<Supervised> {
    let child: DetachedChild | undefined
    try {
      const { spawned, monitor } = await begin()
      child = spawned.child
      spawned.go()
      const container = await named(await spawned.created)
      const self = new Supervised(options, container, monitor, child)
      self.#watch()
      writeRecord(options.runDir, { version: 1, monitor, container })
      return self
    } catch (error) {
      child?.kill('SIGKILL')
      await Supervised.removeLeftovers(options).catch((failure: unknown) => log.error('cannot clean up after a failed start', { id: options.id, error: failure }))
      throw error
    }
  }

  /**
   * The container of an earlier daemon, from the files in its run directory: running, or ended with its exit status still
   * there. `undefined` when there was none. One whose monitor was killed is killed too: nobody reads its output any more.
   */
  static async adopt(options: SupervisedOptions): Promise<Supervised | undefined> {
    const record = await readRecord(options.runDir)
    if (!record?.container) return undefined
    const self = new Supervised(options, record.container, record.monitor, undefined)
    self.#watch()
    return self
  }

  #watch(): void {
    this.#exits.add(this.options.id, () => void this.#finish())
    if (this.child?.ended) void this.#finish()
    else if (this.child) this.child.once('exit', () => void this.#finish())
    else {
      this.#check = setInterval(() => {
        void isAlive(this.monitor).then((alive) => (alive ? undefined : this.#finish()))
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
      return { code: code < 0 ? 255 : code & 255, oomKilled: await oomKilled(this.options.cgroupPath), finishedAt: statSync(path).mtime }
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined
      throw error
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
      if (!exit && !(await isAlive(this.monitor))) {
        exit = await this.#readExit() // it may have been written just before it went
        exit ??= await this.#abandoned()
      }
      if (!exit) return
      this.#hear()
      this.#ended = exit
      this.#exits.remove(this.options.id)
      clearInterval(this.#check)
      this.#exit(exit)
    } catch (error) {
      if (!this.#retry) log.error('cannot read how a container ended', { id: this.options.id, error })
      // Nobody tells us again.
      clearTimeout(this.#retry)
      this.#retry = setTimeout(() => void this.#finish(), RETRY).unref()
    } finally {
      this.#finishing = false
      if (this.#again) {
        this.#again = false
        void this.#finish()
      }
    }
  }

  /** What the monitor had to say while nobody listened: a log that could not be written. */
  #hear(): void {
    try {
      log.warn('from the supervisor of a container', { id: this.options.id, said: readFileSync(join(this.options.runDir, ERRORS), 'utf8').trim() })
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
    }
  }

  /** The monitor is dead and left no exit code. */
  async #abandoned(): Promise<SupervisedExit> {
    const wasRunning = signalProcess(this.container, 9)
    log.warn('the supervisor of a container was killed', { id: this.options.id, containerWasRunning: wasRunning })
    if (wasRunning) await waitGone(this.container, 10_000)
    return { code: wasRunning ? 137 : 255, oomKilled: await oomKilled(this.options.cgroupPath), finishedAt: new Date() }
  }

  /** Lets the created container run. */
  async start(): Promise<void> {
    await this.options.runtime.start(this.options.id)
  }

  /**
   * A connection to the container's stdio: raw with a tty, else in Docker's multiplexed framing. Output from now on; when it was opened before {@link start}, all of it. Without `input` what is written is dropped, and leaving
   * does not end the container's stdin. `raw`: as if it had a tty.
   */
  async attach(input = true, raw = this.options.tty): Promise<Duplex> {
    try {
      return await attachMonitor(join(this.options.runDir, ATTACH), { raw, input: input && this.options.stdin })
    } catch (error) {
      if (gone(error)) throw conflict(`container ${this.options.id} is not running`, error)
      throw error
    }
  }

  /** Signal to the container's init. False: it is not running. */
  signal(signal: number): boolean {
    return !this.#ended && signalProcess(this.container, signal)
  }

  /** Size of the terminal. No effect without one, and none when the container has ended. */
  async resize(rows: number, columns: number): Promise<void> {
    if (!this.options.tty) return
    try {
      await resizeMonitor(join(this.options.runDir, ATTACH), rows, columns)
    } catch (error) {
      if (!gone(error)) throw error
    }
  }

  /** Kills what still runs; removes the monitor, the runtime's state, the cgroup and our files in the run directory. Idempotent. */
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
    // It leaves within a millisecond of the exit file, or stays for as long as a slow client takes for the rest of the output: that is nobody's wait.
    if (!(await waitGone(this.monitor, this.#ended ? LEAVING : PATIENCE))) {
      await this.#finish()
      if (!this.#ended && signalProcess(this.monitor, 9)) await waitGone(this.monitor, PATIENCE)
    }
    await this.#finish()
    this.#exits.remove(this.options.id)
    clearInterval(this.#check)
    if (!this.#ended) {
      this.#ended = { code: 137, oomKilled: false, finishedAt: new Date() }
      this.#exit(this.#ended)
    }
    await Supervised.removeLeftovers(this.options)
  }

  /** Removes what a start that was cut off left: the runtime's state, whatever runs in the cgroup (the monitor then ends by itself), our files. */
  static async removeLeftovers(options: SupervisedOptions): Promise<void> {
    const runtime = await Promise.allSettled([options.runtime.delete(options.id, options.cgroupPath)])
    const record = await readRecord(options.runDir)
    // It leaves when its container does; it must not write an exit file after we have looked.
    if (record && !exitWritten(options) && !(await waitGone(record.monitor, PATIENCE)) && !exitWritten(options)) signalProcess(record.monitor, 9)
    removeFiles(options, FILES)
    const [failed] = runtime.filter((result) => result.status === 'rejected')
    if (failed) throw failed.reason
  }
}
