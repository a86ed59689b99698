import { closeSync, existsSync, openSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { codeOf, internal, messageOf } from '../base/errors.js'
import { DetachedChild } from '../host/child.js'
import { childPipe, pipe } from '../host/streams.js'
import type { LogLimits } from './log-files.js'
import { oomScoreFor } from './oom-score.js'
import { createError, type Attempt } from './runtime-errors.js'
import type { Runtime } from './runtime.js'

/** What hull-monitor needs to know of a container. */
export interface MonitorOptions {
  /** Name of the container for the runtime, and of its exit file. */
  id: string
  /** The OCI bundle, holding config.json. The monitor's socket and files are made in it. Absolute. */
  runDir: string
  /** Directory of exit files: one for all containers of a daemon. */
  exitDir: string
  runtime: Runtime
  /** CRI log file, appended to; '' for none. Absolute. */
  logPath: string
  /** How large the log may become; absent: without bound. */
  logLimits?: LogLimits
  /** As process.terminal in config.json. */
  tty: boolean
  /** The container has a stdin that clients may write to (else /dev/null). */
  stdin: boolean
  /** stdin stays open when a client half-closes or leaves. False: the first that does so ends it. */
  leaveStdinOpen: boolean
  /** Open descriptors of ours that become 3, 4, … in the container. The caller closes its own. */
  preserveFds?: readonly number[]
  /** oom_score_adj of all that runs under it ({@link oomScoreFor}); default 0. Not left to the runtime: crun 1.8 takes a 0 in config.json for nothing said, and what runs then has the daemon's. */
  oomScoreAdj?: number
  /** What is run, for error messages. */
  attempt: Attempt
}

const MONITOR = fileURLToPath(new URL('../../build/hull-monitor', import.meta.url))

/** Where the runtime sends a terminal to: a sun_path has 107 bytes, and runtimes know no way around that. */
function consoleSocket(options: MonitorOptions): string {
  const directory = [options.runDir, dirname(options.exitDir), options.exitDir].find((path) => Buffer.byteLength(path) <= 60)
  return directory === undefined ? `/run/hull-console.${process.pid}.${options.id.slice(0, 12)}` : join(directory, `console.${options.id.slice(0, 12)}`)
}

function monitorArguments(options: MonitorOptions, syncFd: number): string[] {
  const command = options.runtime.command()
  const args = ['--id', options.id, '--bundle', options.runDir, '--exit-dir', options.exitDir, '--sync', String(syncFd)]
  if (options.logPath !== '') args.push('--log', options.logPath)
  if (options.logPath !== '' && options.logLimits) {
    // What is beyond these is never reached, and the numbers of rotated files have six digits (rotatedNumbers).
    const { maxSize, maxFiles } = options.logLimits
    args.push('--log-size', String(Math.min(maxSize, Number.MAX_SAFE_INTEGER)), '--log-files', String(Math.min(maxFiles, 999_999)))
  }
  if (options.tty) args.push('--console', consoleSocket(options))
  if (options.stdin) args.push(options.leaveStdinOpen ? '--stdin' : '--stdin-once')
  const preserve = options.preserveFds?.length ?? 0
  const { oomScoreAdj } = oomScoreFor(options.oomScoreAdj ?? 0)
  if (oomScoreAdj !== undefined) args.push(`--oom-score-adj=${oomScoreAdj}`)
  if (preserve > 0) args.push('--preserve-fds', String(preserve))
  return [...args, '--', command.file, ...command.args]
}

/** What the monitor says on its pipe until it closes it: "+PID", or "-" and why there is no container. */
function readSync(stream: Readable): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    stream.setEncoding('utf8')
    stream.on('data', (chunk: string) => {
      text += chunk
      if (text.length > 1 << 20) finish()
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

/** hull-monitor, and the runtime that it calls. */
export interface Spawned {
  readonly child: DetachedChild
  /**
   * Pid of the container's init, which waits to be started. Rejects in Docker's words when the runtime refuses; then the monitor has gone, but what the runtime left is the caller's to remove.
   */
  readonly created: Promise<number>
  /** Lets a runtime that waits go on. */
  go(): void
  /** Ends one that still waits, and the monitor with it: {@link created} rejects. */
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

async function createdBy(child: DetachedChild, sync: Promise<string>, options: MonitorOptions): Promise<number> {
  const said = await sync
  const pid = /^\+(\d+)$/.exec(said)
  if (pid) return Number(pid[1])
  if (!child.ended) await new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const ended = child.signalCode === null ? `hull-monitor ended with code ${child.exitCode} and no message` : `hull-monitor was killed by ${child.signalCode}`
  throw createError(options.runtime.kind, options.runtime.name, (said.startsWith('-') && said.slice(1).trim()) || ended, options.attempt)
}

/** Starts hull-monitor, which calls `RUNTIME create`. `ahead`: what the bundle names need not be there yet; the runtime waits for {@link Spawned.go}. Only where {@link Runtime.waits}. */
export function spawnMonitor(options: MonitorOptions, ahead: boolean): Spawned {
  if (!existsSync(MONITOR)) throw internal(`${MONITOR} is missing: run make build`)
  const { waits, environment } = options.runtime
  const preserved = [...(options.preserveFds ?? [])]
  const syncFd = 3 + preserved.length
  const ours: number[] = []
  const opened = (fd: number) => (ours.push(fd), fd)
  let child: DetachedChild
  let gate: Gate | undefined
  const sync = childPipe('read')
  try {
    if (ahead && waits !== undefined) opened((gate = new Gate()).fd)
    const nothing = opened(openSync('/dev/null', 'r+'))
    try {
      child = DetachedChild.spawn({
        file: MONITOR,
        args: ['hull-monitor', ...monitorArguments(options, syncFd)],
        cwd: '/',
        fds: [nothing, nothing, nothing, ...preserved, sync.fd, ...(gate ? [gate.fd] : [])],
        env: {
          PATH: process.env.PATH ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
          ...environment,
          ...(gate && waits !== undefined ? { HULL_GATE: String(syncFd + 1), HULL_GATE_LIBRARY: waits } : {}),
        },
      })
    } catch (error) {
      throw internal(`cannot start hull-monitor: ${messageOf(error)}`, error)
    }
  } catch (error) {
    sync.stream.destroy()
    gate?.close(false)
    throw error
  } finally {
    sync.closeChild()
    for (const fd of ours) closeSync(fd)
  }
  const created = createdBy(child, readSync(sync.stream), options)
  created.catch(() => {}) // whoever began it may find out late
  return { child, created, go: () => gate?.close(true), callOff: () => gate?.close(false) }
}
