import { spawnSync } from 'node:child_process'
import { type Duplex, type Readable, Writable } from 'node:stream'
import { finished, pipeline } from 'node:stream/promises'
import { codeOf } from '../../base/errors.js'
import type { Client } from '../client.js'
import { Demultiplexer } from './demultiplex.js'
import { DetachFilter } from './detach-keys.js'

/** The streams of this process, or those of a test. */
export interface Streams {
  stdin: Readable & { isTTY?: boolean; setRawMode?: (on: boolean) => unknown }
  stdout: Writable & { isTTY?: boolean; rows?: number; columns?: number }
  stderr: Writable & { isTTY?: boolean }
}

/** How a session is wired. */
export interface SessionOptions {
  tty: boolean
  /** Send our stdin. */
  stdin: boolean
  stdout: boolean
  stderr: boolean
  /** See parseDetachKeys; looked for only when our stdin is a terminal of a workload with one, as in the docker CLI. */
  detachKeys: Buffer
}

/** Raw mode for the length of a session; returns the undoing, which may be called twice. */
export function rawTerminal(streams: Streams): () => void {
  const { stdin } = streams
  if (!stdin.isTTY || !stdin.setRawMode) return () => {}
  stdin.setRawMode(true)
  // Node's raw mode leaves output processing on (libuv keeps ONLCR): each \n of the workload's own terminal would get a second \r, which spoils
  // full-screen programs. Where there is no stty the rest of raw mode is still there. Node restores all of it.
  if (stdin === process.stdin) spawnSync('stty', ['-opost'], { stdio: ['inherit', 'ignore', 'ignore'] })
  const restore = () => { stdin.setRawMode?.(false) }
  // Whatever ends this process, the user's terminal must be usable again.
  process.once('exit', restore)
  return () => {
    process.off('exit', restore)
    restore()
  }
}

/**
 * Connects our stdio to a hijacked stream until the workload's output ends or the user types the detach keys.
 * Our end of input is passed on as a half-close; output is then still read to its end.
 */
export async function runSession(connection: Duplex, streams: Streams, options: SessionOptions): Promise<'ended' | 'detached'> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
  const stdout = options.stdout ? streams.stdout : nowhere
  const stderr = options.stderr ? streams.stderr : nowhere
  let detached = false
  let input: Readable | undefined
  let filter: DetachFilter | undefined

  if (options.stdin) {
    input = streams.stdin
    filter = new DetachFilter(options.tty && streams.stdin.isTTY ? options.detachKeys : Buffer.alloc(0), () => {
      detached = true
      connection.destroy()
    })
    // Not `pipeline`: its clean-up would destroy our stdin, and a dead connection is no error of the input.
    filter.on('error', () => {})
    connection.on('error', () => {})
    input.pipe(filter).pipe(connection)
  }
  try {
    if (options.tty) {
      connection.pipe(stdout, { end: false })
      await finished(connection, { writable: false })
    } else {
      await pipeline(connection, new Demultiplexer(stdout, stderr))
    }
  } catch (error) {
    const code = codeOf(error)
    if (!detached && code !== 'ECONNRESET' && code !== 'EPIPE' && code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error
  } finally {
    if (input && filter) {
      input.unpipe(filter)
      input.pause()
    }
    connection.destroy()
  }
  return detached ? 'detached' : 'ended'
}

/** Tells the daemon the size of our terminal now and at each change. Returns the undoing. Errors do not matter: the workload may be gone. */
export function followTerminalSize(client: Client, path: string, streams: Streams): () => void {
  const { stdout } = streams
  if (!stdout.isTTY) return () => {}
  const send = async (attempts: number): Promise<void> => {
    const { rows, columns } = stdout
    if (!rows || !columns) return
    for (let attempt = 0; attempt < attempts; attempt += 1) {
      try {
        return await client.call('POST', `${path}/resize`, { query: { h: rows, w: columns } })
      } catch {
        // An exec is known a moment before its terminal is there; the docker CLI tries again as well.
        await new Promise((resolve) => { setTimeout(resolve, 10 * (attempt + 1)) })
      }
    }
  }
  const onResize = () => void send(1)
  void send(5)
  stdout.on('resize', onResize)
  return () => { stdout.off('resize', onResize) }
}

/** Signals that a container may want to have; SIGKILL and SIGSTOP cannot be caught, SIGCHLD, SIGPIPE, SIGURG and SIGWINCH are our own. */
const forwarded: NodeJS.Signals[] = [
  'SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGALRM', 'SIGCONT', 'SIGTSTP', 'SIGTTIN', 'SIGTTOU',
]

/** --sig-proxy: passes the signals that this process gets to the container. Returns the undoing. */
export function proxySignals(client: Client, id: string): () => void {
  const handlers = forwarded.map((signal) => {
    const handler = () => { client.call('POST', `/containers/${id}/kill`, { query: { signal } }).catch(() => {}) }
    process.on(signal, handler)
    return [signal, handler] as const
  })
  return () => {
    for (const [signal, handler] of handlers) process.off(signal, handler)
  }
}
