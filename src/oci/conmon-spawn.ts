import { closeSync, existsSync, openSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Readable } from 'node:stream'
import { internal, messageOf } from '../base/errors.js'
import { DetachedChild } from '../host/child.js'
import { childPipe } from '../host/streams.js'
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

const CONMON = ['/usr/bin/conmon', '/usr/libexec/podman/conmon', '/usr/local/bin/conmon', '/usr/local/libexec/podman/conmon']
let conmonPath: string | undefined

/** Absolute path of conmon. */
export function locateConmon(): string {
  conmonPath ??= CONMON.find((path) => existsSync(path))
  if (!conmonPath) throw internal('conmon is not installed: apt-get install conmon')
  return conmonPath
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

/**
 * Starts conmon, which calls `RUNTIME create`. Resolves with conmon and the pid of the container's init, which waits to be started.
 * `onSpawn` is called as soon as conmon runs. Rejects in Docker's words when the runtime refuses; then conmon has gone, but what the runtime left is the caller's to remove.
 */
export async function spawnConmon(options: ConmonOptions, onSpawn: (conmonPid: number) => void): Promise<{ child: DetachedChild; pid: number }> {
  if (options.logPath.includes(':')) throw internal(`log path ${options.logPath}: conmon cannot use a path with ':'`)
  const errors = join(options.runDir, 'conmon.err')
  const preserved = [...(options.preserveFds ?? [])]
  const syncFd = 3 + preserved.length
  // A file for stderr, not a pipe of ours: nothing of conmon may break when we end.
  const ours: number[] = []
  const opened = (fd: number) => (ours.push(fd), fd)
  let child: DetachedChild
  const sync = childPipe('read')
  try {
    const stderr = opened(openSync(errors, 'w', 0o600))
    const nothing = opened(openSync('/dev/null', 'r+'))
    try {
      child = DetachedChild.spawn({
        file: locateConmon(),
        args: ['conmon', ...conmonArguments(options)],
        cwd: options.runDir, // it writes `oom` there
        fds: [nothing, nothing, stderr, ...preserved, sync.fd],
        env: {
          PATH: process.env.PATH ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
          _OCI_SYNCPIPE: String(syncFd),
          TMPDIR: socketDirectory(options),
          ...(process.env.TZ === undefined ? {} : { TZ: process.env.TZ }),
        },
      })
    } catch (error) {
      throw internal(`cannot start conmon: ${messageOf(error)}`, error)
    }
  } catch (error) {
    sync.stream.destroy()
    throw error
  } finally {
    sync.closeChild()
    for (const fd of ours) closeSync(fd)
  }
  onSpawn(child.pid)
  const text = await readSync(sync.stream)
  const answer = parseSync(text)
  if (answer && answer.pid > 0) return { child, pid: answer.pid }
  if (!child.ended) await new Promise<void>((resolve) => child.once('exit', () => resolve()))
  if (answer && answer.message) throw createError(options.runtime.kind, options.runtime.name, answer.message, options.attempt)
  const said = (await readFile(errors, 'utf8').catch(() => '')).trim()
  throw createError(options.runtime.kind, options.runtime.name, said || (child.signalCode === null ? `conmon ended with code ${child.exitCode} and no message` : `conmon was killed by ${child.signalCode}`), options.attempt)
}
