import { randomBytes } from 'node:crypto'
import { conflict, messageOf, notFound } from '../base/errors.js'
import { log } from '../base/log.js'
import { expectAttach } from '../host/cgroup-attach.js'
import type { ExecSession } from '../sandbox/types.js'
import type { AttachedStream, CreateExecRequest, ExecDetails, ExecEngine } from './api-types.js'
import type { Container } from './container.js'
import { execProcess } from './exec-process.js'
import type { Lifecycle } from './lifecycle.js'
import type { ContainerRegistry } from './registry.js'

interface Exec {
  id: string
  container: Container
  request: CreateExecRequest
  started: boolean
  session: ExecSession | undefined
  running: boolean
  exitCode: number | null
  pid: number
}

/** Ended sessions stay inspectable for a while (moby prunes them every five minutes). */
const keepEndedMs = 300_000

/** How long inspect waits for the exit of a session whose output has ended. A process may close its output and go on. */
const outputToExitMs = 1000

/** Docker's /exec: commands in running containers. Sessions live in memory, as Docker's do. */
export class Execs implements ExecEngine {
  readonly #execs = new Map<string, Exec>()
  /** Runs of containers at whose end their unstarted sessions go. */
  readonly #runs = new WeakSet<AbortSignal>()

  constructor(
    readonly registry: ContainerRegistry,
    readonly lifecycle: Lifecycle,
  ) {}

  async create(reference: string, request: CreateExecRequest): Promise<string> {
    const container = this.registry.get(reference)
    this.#mustRun(container)
    const id = randomBytes(32).toString('hex')
    this.#execs.set(id, { id, container, request, started: false, session: undefined, running: false, exitCode: null, pid: 0 })
    container.execs.add(id)
    this.#endWithRun(container)
    if (container.record.isolation === 'process') expectAttach()
    this.lifecycle.announce(container, `exec_create: ${request.cmd.join(' ')}`, { execID: id })
    return id
  }

  async inspect(id: string): Promise<ExecDetails> {
    const exec = this.#get(id)
    // The docker CLI asks for the exit code as soon as the output has ended: the answer must not be "still running".
    if (exec.running && exec.session?.duplex.readableEnded) {
      await Promise.race([exec.session.exited, new Promise((resolve) => setTimeout(resolve, outputToExitMs).unref())])
    }
    return details(exec)
  }

  async checkStart(id: string): Promise<ExecDetails> {
    const exec = this.#get(id)
    if (exec.exitCode !== null) throw conflict(`exec command ${id} has already run`)
    if (exec.started) throw conflict(`exec command ${id} is already running`)
    this.#mustRun(exec.container)
    return details(exec)
  }

  async start(id: string, options: { detach: boolean; consoleSize?: [rows: number, columns: number] }): Promise<AttachedStream | undefined> {
    await this.checkStart(id)
    const exec = this.#get(id)
    const { container, request } = exec
    exec.started = true
    this.lifecycle.announce(container, `exec_start: ${request.cmd.join(' ')}`, { execID: id })
    let session: ExecSession
    try {
      const { sandbox } = container
      if (!sandbox) throw conflict(`container ${container.id} is not running`)
      session = await sandbox.exec(execProcess(container.record, request, options.consoleSize ?? request.consoleSize), { stdin: request.attachStdin && !options.detach, detach: options.detach })
    } catch (error) {
      // It can be the container that is not there any more: that says nothing of the command.
      exec.exitCode = /permission denied|is a directory|exec format error|unable to find (user|group)|is not running/.test(messageOf(error)) ? 126 : 127
      this.#ended(exec, exec.exitCode)
      throw error
    }
    exec.session = session
    exec.running = true
    exec.pid = session.pid
    void session.exited
      .then((code) => this.#ended(exec, code))
      .catch((error: unknown) => {
        log.warn('an exec session was lost', { id, error: messageOf(error) })
        this.#ended(exec, 137)
      })
    if (options.detach) return undefined
    return {
      tty: request.tty,
      duplex: session.duplex,
      detach: () => {
        this.lifecycle.announce(container, 'exec_detach', { execID: id })
        session.duplex.destroy()
      },
    }
  }

  async resize(id: string, rows: number, columns: number): Promise<void> {
    const exec = this.#get(id)
    if (!exec.session || !exec.running) throw conflict(`exec process ${id} is not running`)
    await exec.session.resize(rows, columns)
  }

  /** A session that nobody has started goes with the run that it was made in, as moby's does: it would stay, and the container with it, for as long as the daemon lives. */
  #endWithRun(container: Container): void {
    const run = container.runEnded
    if (this.#runs.has(run)) return
    this.#runs.add(run)
    run.addEventListener('abort', () => {
      for (const id of container.execs) {
        if (this.#execs.get(id)?.started !== false) continue
        this.#execs.delete(id)
        container.execs.delete(id)
      }
    }, { once: true })
  }

  #ended(exec: Exec, code: number): void {
    if (exec.exitCode === null) exec.exitCode = code
    const wasRunning = exec.running
    exec.running = false
    exec.container.execs.delete(exec.id)
    if (wasRunning) this.lifecycle.announce(exec.container, 'exec_die', { execID: exec.id, exitCode: String(code) })
    setTimeout(() => this.#execs.delete(exec.id), keepEndedMs).unref()
  }

  #get(id: string): Exec {
    const exact = this.#execs.get(id)
    if (exact) return exact
    const found = [...this.#execs.values()].filter((exec) => id.length > 0 && exec.id.startsWith(id))
    if (found.length === 1) return found[0]!
    throw notFound(`No such exec instance: ${id}`)
  }

  #mustRun(container: Container): void {
    const { status } = container.record.state
    if (status === 'paused') throw conflict(`container ${container.record.name} is paused, unpause the container before exec`)
    if (status === 'restarting') throw conflict(`Container ${container.id} is restarting, wait until the container is running`)
    if (status !== 'running') throw conflict(`container ${container.id} is not running`)
  }
}

function details(exec: Exec): ExecDetails {
  return {
    id: exec.id,
    containerId: exec.container.id,
    running: exec.running,
    exitCode: exec.exitCode,
    pid: exec.pid,
    canRemove: exec.exitCode !== null,
    request: exec.request,
  }
}
