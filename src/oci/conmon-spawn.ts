import { closeSync, openSync, writeSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Readable } from 'node:stream'
import { codeOf, internal, messageOf } from '../base/errors.js'
import { DetachedChild } from '../host/child.js'
import { childPipe, pipe } from '../host/streams.js'
import { locateConmon } from './locate-conmon.js'
import { conmonLogLimit, type LogLimits } from './log-rotation.js'
import { createError, type Attempt } from './runtime-errors.js'
import type { Runtime } from './runtime.js'

/** What conmon needs to know of a container. */
export interface ConmonOptions {
  /** Name of the container for the runtime, and of its exit file. */
  id: string
  /** The OCI bundle, holding config.json. conmon's sockets, FIFOs and files are made in it. Absolute. */
  runDir: string
  /** Directory of exit files: one for all containers of a daemon. */
  exitDir: string
  runtime: Runtime
  /** CRI log file, appended to; '' for none. Absolute, without ':' (conmon's option syntax). */
  logPath: string
  /** How large the log may become; absent: without bound. */
  logLimits?: LogLimits
  /** As process.terminal in config.json. */
  tty: boolean
  /** The container has a stdin that clients may write to (else /dev/null). */
  stdin: boolean
  /** stdin stays open when a client half-closes or leaves. False: the first that does so ends it. */
  leaveStdinOpen: boolean
  /** Open descriptors of ours that become 3, 4, … in the container. The caller closes its own. conmon holds copies until the container ends. */
  preserveFds?: readonly number[]
  /** What is run, for error messages. */
  attempt: Attempt
}

/** TMPDIR for the socket that the runtime sends a terminal to: a sun_path has 107 bytes, "/conmon-term.XXXXXX" takes 19. */
function socketDirectory(options: ConmonOptions): string {
  return [options.runDir, dirname(options.exitDir), options.exitDir].find((path) => path.length <= 80) ?? '/run'
}

function conmonArguments(options: ConmonOptions): string[] {
  const command = options.runtime.command()
  const args = [
    '--cid', options.id, '--cuuid', options.id, '--name', options.id,
    '--bundle', options.runDir,
    '--runtime', command.file,
    ...command.args.flatMap((arg) => ['--runtime-arg', arg]),
    '--container-pidfile', join(options.runDir, 'container.pid'),
    '--exit-dir', options.exitDir,
    '--persist-dir', options.runDir,
    '--log-path', options.logPath === '' ? 'none' : `k8s-file:${options.logPath}`,
    '--log-level', 'error',
    // One fork less, and its death is a SIGCHLD to us. It makes a session of its own all the same and outlives us.
    '--sync',
    '--full-attach',
    '--no-sync-log', // as dockerd: fsync of a log costs milliseconds and saves it from power cuts alone
  ]
  if (options.logPath !== '' && options.logLimits) args.push('--log-size-max', String(conmonLogLimit(options.logLimits)))
  if (options.tty) args.push('--terminal')
  if (options.stdin) args.push('--stdin')
  if (options.leaveStdinOpen) args.push('--leave-stdin-open')
  const preserve = options.preserveFds?.length ?? 0
  if (preserve > 0) args.push('--runtime-opt', `--preserve-fds=${preserve}`)
  return args
}

/** The sync pipe's one line: `{"pid": N}` or `{"pid": -1, "message": "…"}` (conmon parent_pipe_fd.c). */
function parseSync(text: string): { pid: number; message: string } | undefined {
  // conmon leaves 0x1f as it is, and whatever bytes the runtime printed: none of them may spoil the parse.
  const line = (text.split('\n', 1)[0] ?? '').replace(/[\u0000-\u001f]/g, ' ')
  try {
    const parsed: unknown = JSON.parse(line)
    if (typeof parsed === 'object' && parsed !== null && 'pid' in parsed && typeof parsed.pid === 'number') {
      return { pid: parsed.pid, message: 'message' in parsed && typeof parsed.message === 'string' ? parsed.message : '' }
    }
  } catch {
    // falls through
  }
  return undefined
}

function readSync(stream: Readable): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    stream.setEncoding('utf8')
    stream.on('data', (chunk: string) => {
      text += chunk
      if (text.includes('\n') || text.length > 1 << 20) finish()
    })
    stream.on('end', finish)
    stream.on('error', finish)
    stream.on('close', finish)
    function finish(): void {
      resolve(text)
      stream.destroy()
    }
  })
}

/** conmon, and the runtime that it calls. */
export interface Spawned {
  readonly child: DetachedChild
  /**
   * Pid of the container's init, which waits to be started. Rejects in Docker's words when the runtime refuses; then conmon has gone, but what the runtime left is the caller's to remove.
   */
  readonly created: Promise<number>
  /** Lets a runtime that waits go on. */
  go(): void
  /** Ends one that still waits, and conmon with it: {@link created} rejects. */
  callOff(): void
}

/** The daemon's end of the pipe that a runtime waits at (native/crun-wrap/gate.c). */
class Gate {
  readonly fd: number
  #ours: number | undefined

  constructor() {
    const [read, write] = pipe()
    this.fd = read
    this.#ours = write
  }

  close(open: boolean): void {
    if (this.#ours === undefined) return
    try {
      if (open) writeSync(this.#ours, new Uint8Array(1))
    } catch (error) {
      if (codeOf(error) !== 'EPIPE') throw error // nobody waits any more: `created` says why
    } finally {
      closeSync(this.#ours)
      this.#ours = undefined
    }
  }
}

async function createdBy(child: DetachedChild, sync: Promise<string>, options: ConmonOptions, errors: string): Promise<number> {
  const answer = parseSync(await sync)
  if (answer && answer.pid > 0) return answer.pid
  if (!child.ended) await new Promise<void>((resolve) => child.once('exit', () => resolve()))
  if (answer && answer.message) throw createError(options.runtime.kind, options.runtime.name, answer.message, options.attempt)
  const said = (await readFile(errors, 'utf8').catch(() => '')).trim()
  throw createError(options.runtime.kind, options.runtime.name, said || (child.signalCode === null ? `conmon ended with code ${child.exitCode} and no message` : `conmon was killed by ${child.signalCode}`), options.attempt)
}

/** Starts conmon, which calls `RUNTIME create`. `ahead`: what the bundle names need not be there yet; the runtime waits for {@link Spawned.go}. Only where {@link Runtime.waits}. */
export function spawnConmon(options: ConmonOptions, ahead: boolean): Spawned {
  if (options.logPath.includes(':')) throw internal(`log path ${options.logPath}: conmon cannot use a path with ':'`)
  const { waits, environment } = options.runtime
  const errors = join(options.runDir, 'conmon.err')
  const preserved = [...(options.preserveFds ?? [])]
  const syncFd = 3 + preserved.length
  // A file for stderr, not a pipe of ours: nothing of conmon may break when we end.
  const ours: number[] = []
  const opened = (fd: number) => (ours.push(fd), fd)
  let child: DetachedChild
  const sync = childPipe('read')
  const gate = ahead && waits !== undefined ? new Gate() : undefined
  if (gate) ours.push(gate.fd)
  try {
    const stderr = opened(openSync(errors, 'w', 0o600))
    const nothing = opened(openSync('/dev/null', 'r+'))
    try {
      child = DetachedChild.spawn({
        file: locateConmon(),
        args: ['conmon', ...conmonArguments(options)],
        cwd: options.runDir, // it writes `oom` there
        fds: [nothing, nothing, stderr, ...preserved, sync.fd, ...(gate ? [gate.fd] : [])],
        env: {
          PATH: process.env.PATH ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
          _OCI_SYNCPIPE: String(syncFd),
          TMPDIR: socketDirectory(options),
          ...environment,
          ...(gate && waits !== undefined ? { HULL_GATE: String(syncFd + 1), HULL_GATE_LIBRARY: waits } : {}),
          ...(process.env.TZ === undefined ? {} : { TZ: process.env.TZ }),
        },
      })
    } catch (error) {
      throw internal(`cannot start conmon: ${messageOf(error)}`, error)
    }
  } catch (error) {
    sync.stream.destroy()
    gate?.close(false)
    throw error
  } finally {
    sync.closeChild()
    for (const fd of ours) closeSync(fd)
  }
  const created = createdBy(child, readSync(sync.stream), options, errors)
  created.catch(() => {}) // whoever began it may find out late
  return { child, created, go: () => gate?.close(true), callOff: () => gate?.close(false) }
}
