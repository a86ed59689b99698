import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, conflict, internal } from '../base/errors.js'
import { identify, killGroupOf, signalProcess, type ProcessIdentity } from '../host/process.js'
import { childPipe, receiveTerminal, type ChildPipe, type Terminal } from '../host/streams.js'
import { ExecDuplex } from './exec-streams.js'
import { execError } from './runtime-errors.js'
import type { Runtime } from './runtime.js'
import { serialize, type OciProcess } from './spec-types.js'

/** What to run in which container. */
export interface ExecOptions {
  runtime: Runtime
  /** The container's id for the runtime. */
  id: string
  /** A directory for files of the session's start. */
  directory: string
  /** A short path (at most 80 bytes) for the terminal's socket. */
  socketDirectory: string
  process: OciProcess
  stdin: boolean
  /** No streams, and the process goes on when this daemon ends. */
  detach: boolean
}

/** A command that runs in a container: the runtime is our child and ends with the command's exit code. */
export interface ExecHandle {
  /** Host pid. */
  pid: number
  duplex: ExecDuplex
  /** The exit code, when all output is in `duplex`. */
  exited: Promise<number>
  resize(rows: number, columns: number): Promise<void>
  signal(signal: number): Promise<void>
}

const SIGKILL = 9
/** Starting takes 10 ms; a host that needs a minute has other trouble. */
const START_TIMEOUT = 60_000

class Collected {
  #text = ''
  /** Keeps a runtime's last words, which come before the process has begun. */
  constructor(readonly limit: number) {}
  add(chunk: Buffer): void {
    if (this.#text.length < this.limit) this.#text += chunk.toString('utf8')
  }
  get text(): string {
    return this.#text
  }
}

const exitOf = (child: ChildProcess) =>
  new Promise<number>((resolve) => {
    const code = () => child.exitCode ?? (child.signalCode === null ? undefined : 137)
    const now = code()
    if (now !== undefined) resolve(now)
    else child.once('exit', () => resolve(code() ?? 137))
  })

/** The pid file: crun and runc write it when the process is about to execute, and not when it cannot. */
async function waitStarted(pidFile: string, exit: Promise<number>): Promise<number | undefined> {
  let ended = false
  void exit.then(() => (ended = true))
  const deadline = Date.now() + START_TIMEOUT
  for (;;) {
    const last = ended
    const text = await readFile(pidFile, 'utf8').catch(() => '')
    if (/^\d+\s*$/.test(text)) return Number(text)
    if (last) return undefined
    if (Date.now() > deadline) throw internal('the runtime did not start the command in time')
    await Promise.race([exit, new Promise((resolve) => setTimeout(resolve, 1))])
  }
}

/** crun's exec takes no score from the process that it is given (1.8 does not look at it): the command has what crun has, some milliseconds before it is forked. */
function giveOomScore(pid: number, score: number): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(score))
  } catch (error) {
    if (codeOf(error) !== 'ENOENT' && codeOf(error) !== 'ESRCH') throw error // it has ended: what it said tells why
  }
}

interface Stdio {
  duplex: ExecDuplex
  terminal: Terminal | undefined
}

/** Runs a command in a running container. Rejects in Docker's words when it cannot be run (126, 127), and with 409 when the container has ended. */
export async function execInContainer(options: ExecOptions): Promise<ExecHandle> {
  const { runtime, process: spec } = options
  const name = `exec-${randomBytes(6).toString('hex')}`
  const specFile = join(options.directory, `${name}.json`)
  const pidFile = join(options.directory, `${name}.pid`)
  const logFile = join(options.directory, `${name}.log`)
  const insideFile = join(options.directory, `${name}.inside`)
  const socket = join(options.socketDirectory, name)
  const tty = spec.terminal && !options.detach
  const pipes: ChildPipe[] = []
  const pipe = (direction: 'read' | 'write') => {
    const made = childPipe(direction)
    pipes.push(made)
    return made
  }
  const abort = new AbortController()
  const words = new Collected(8192)
  let terminalPromise: Promise<Terminal> | undefined
  let child: ChildProcess | undefined
  try {
    await writeFile(specFile, serialize(options.detach ? { ...spec, terminal: false } : spec), { mode: 0o600 })
    const gvisor = runtime.kind === 'runsc'
    const command = tty && gvisor ? runtime.commandWithTerminal(socket) : runtime.command()
    // The runtime's words go to a file: stderr is the command's, which may be a terminal that we do not read yet, or nowhere.
    const args = [...command.args, '--log', logFile, '--log-format', 'json', 'exec', '--process', specFile, '--pid-file', pidFile]
    if (gvisor) args.push('--internal-pid-file', insideFile)
    if (tty) {
      if (!gvisor) args.push('--console-socket', socket)
      terminalPromise = receiveTerminal(socket, { timeoutMs: START_TIMEOUT, signal: abort.signal })
      terminalPromise.catch(() => {}) // awaited below, or aborted
    }
    const stderr = options.detach ? undefined : pipe('read')
    const stdin = !tty && options.stdin ? pipe('write') : undefined
    const stdout = tty || options.detach ? undefined : pipe('read')
    child = spawn(command.file, [...args, options.id], {
      // Its own session: a signal to the daemon's process group is not for the command.
      detached: true,
      stdio: [stdin?.fd ?? 'ignore', stdout?.fd ?? 'ignore', stderr?.fd ?? 'ignore'],
      env: { PATH: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin', ...runtime.environment },
    })
    const failed = new Promise<never>((_resolve, reject) => child!.once('error', (error) => reject(internal(`cannot start ${runtime.name}: ${error.message}`, error))))
    failed.catch(() => {})
    for (const made of pipes) made.closeChild()
    if (spec.oomScoreAdj !== undefined && child.pid !== undefined) giveOomScore(child.pid, spec.oomScoreAdj)
    if (options.detach) child.unref()
    const exit = exitOf(child)
    // Until the command runs, stderr is the runtime's own. Held back, not lost.
    const early: Buffer[] = []
    const hold = (chunk: Buffer) => {
      early.push(chunk)
      words.add(chunk)
    }
    stderr?.stream.on('data', hold)
    const pid = await Promise.race([waitStarted(pidFile, exit), failed])
    if (pid === undefined) {
      if (stderr) await drain(stderr)
      throw startError(options, (await readFile(logFile, 'utf8').catch(() => '')).trim() || words.text)
    }
    const terminal = await terminalPromise
    stderr?.stream.off('data', hold)
    const stdio = connect(terminal, stdin, stdout, stderr, early)
    if (gvisor && spec.consoleSize) terminal?.resize(spec.consoleSize.height, spec.consoleSize.width)
    // Written before the other one. The pid on the host is runsc's own, which passes nothing on.
    const inside = gvisor ? Number(await readFile(insideFile, 'utf8')) : undefined
    const signalInside = inside === undefined ? undefined : (signal: number) => runtime.killInside(options.id, inside, signal)
    return handle(child, exit, (await identify(pid)) ?? { pid, startTime: Number.MAX_SAFE_INTEGER }, stdio, signalInside)
  } catch (error) {
    abort.abort(error)
    void terminalPromise?.then((terminal) => terminal.close()).catch(() => {})
    for (const made of pipes) {
      made.closeChild()
      made.stream.destroy()
    }
    if (child && child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    throw error
  } finally {
    await Promise.all([specFile, pidFile, logFile, insideFile].map((file) => rm(file, { force: true })))
  }
}

async function drain(made: ChildPipe): Promise<void> {
  if (made.stream.readableEnded || made.stream.destroyed) return
  await Promise.race([
    new Promise((resolve) => made.stream.once('end', resolve).once('error', resolve).once('close', resolve)),
    new Promise((resolve) => setTimeout(resolve, 500)),
  ])
}

function startError(options: ExecOptions, text: string): Error {
  if (/is not running|does not exist|container not running|cannot exec (in|into) a stopped container/i.test(text)) return conflict(`container ${options.id} is not running`)
  if (/is paused|cannot exec (in|into) a paused container/i.test(text)) return conflict(`container ${options.id} is paused, unpause the container before exec`)
  return execError(options.runtime.kind, text, { command: options.process.args[0] ?? '', cwd: options.process.cwd }).error
}

function connect(terminal: Terminal | undefined, stdin: ChildPipe | undefined, stdout: ChildPipe | undefined, stderr: ChildPipe | undefined, early: Buffer[]): Stdio {
  if (!stderr) return { duplex: new ExecDuplex([], undefined), terminal: undefined }
  if (terminal) {
    stderr.stream.resume()
    return { duplex: new ExecDuplex([{ stream: terminal.stream, channel: 0 }], terminal.stream), terminal }
  }
  stderr.stream.pause() // until the duplex listens
  return { duplex: new ExecDuplex([{ stream: stdout!.stream, channel: 1 }, { stream: stderr.stream, channel: 2 }], stdin?.stream, early), terminal: undefined }
}

function handle(child: ChildProcess, exit: Promise<number>, identity: ProcessIdentity, { duplex, terminal }: Stdio, signalInside?: (signal: number) => Promise<void>): ExecHandle {
  const exited = exit.then(async (code) => {
    duplex.processEnded()
    await duplex.drained
    terminal?.close()
    return code & 255
  })
  return {
    pid: identity.pid,
    duplex,
    exited,
    resize: async (rows, columns) => {
      if (child.exitCode === null) terminal?.resize(rows, columns)
    },
    signal: async (signal) => {
      if (signalInside) return child.exitCode === null && child.signalCode === null ? signalInside(signal) : undefined
      // What a shell has started is not to outlive it.
      if (signal === SIGKILL) await killGroupOf(identity)
      signalProcess(identity, signal)
    },
  }
}
