import { closeSync, constants, openSync } from 'node:fs'
import { connect, Socket } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { codeOf } from '../base/errors.js'
import { native } from './native.js'
import { O_PATH } from './paths.js'

/**
 * A stream socket of ours, which it takes over, as a stream. When the far side ends, so does ours (allowHalfOpen is false); `end()` passes end of input on and leaves the output open; `destroy()` leaves.
 */
export function streamOf(fd: number): Socket {
  try {
    return new Socket({ fd, readable: true, writable: true, allowHalfOpen: false })
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** How long {@link connectSaying} waits for somebody to accept, and between two tries, ms. */
const PATIENCE = 10_000
const RETRY = 20

/**
 * Connects to a stream socket and says `first`: both done when the promise resolves, with the descriptor. What is called first is said first, unless more connections wait than the socket has room for. Rejects with ENOENT,
 * ECONNREFUSED, EAGAIN (nobody accepts), ….
 */
export async function connectSaying(path: string, first: Uint8Array): Promise<number> {
  for (const deadline = performance.now() + PATIENCE; ; ) {
    try {
      return native.connectSaying(path, first)
    } catch (error) {
      if (codeOf(error) !== 'EAGAIN' || performance.now() > deadline) throw error
    }
    await setTimeout(RETRY)
  }
}

/** The master side of a pseudo-terminal. */
export class Terminal {
  #master: number
  /** What the terminal shows and what the user types. It ends when the last process has closed the terminal. */
  readonly stream: Socket

  /** Takes ownership of the descriptor. */
  constructor(master: number) {
    this.#master = master
    try {
      this.stream = streamOf(native.bridgePty(master))
    } catch (error) {
      closeSync(master)
      throw error
    }
  }

  /** Sets the size, of which the lower 16 bits count, as in Docker; the foreground processes get SIGWINCH. No effect after {@link close}. */
  resize(rows: number, columns: number): void {
    if (this.#master >= 0) native.ttyResize(this.#master, rows & 0xffff, columns & 0xffff)
  }

  /** Hangs up: the processes of the terminal get SIGHUP. Idempotent. */
  close(): void {
    this.stream.destroy()
    if (this.#master >= 0) closeSync(this.#master)
    this.#master = -1
  }
}

/**
 * Waits for the terminal that an OCI runtime sends to `--console-socket PATH`. The socket exists when the call returns: start the runtime then,
 * and await the promise. Abort `signal` when the runtime failed. Rejects with ETIMEDOUT, EADDRINUSE, EPROTO (no descriptor came),
 * ENOTTY (not a terminal's) or the signal's reason; the path is gone afterwards in each case.
 */
export async function receiveTerminal(path: string, options: { timeoutMs: number; signal?: AbortSignal }): Promise<Terminal> {
  const { signal } = options
  signal?.throwIfAborted()
  const pending = native.receiveConsole(path, options.timeoutMs)
  const abort = () => sayNothing(path)
  signal?.addEventListener('abort', abort, { once: true })
  try {
    const master = await pending
    if (!signal?.aborted) return new Terminal(master)
    closeSync(master)
    throw signal.reason
  } catch (error) {
    if (signal?.aborted && codeOf(error) === 'EPROTO') throw signal.reason
    throw error
  } finally {
    signal?.removeEventListener('abort', abort)
  }
}

/** Connects and closes, which ends a wait for a message. By descriptor, because the path may be longer than a socket's may be. */
function sayNothing(path: string): void {
  let directory: number
  try {
    directory = openSync(dirname(path), O_PATH | constants.O_DIRECTORY)
  } catch {
    return // the directory is gone, and the socket with it: the timeout ends the wait
  }
  connect(`/proc/self/fd/${directory}/${basename(path)}`)
    .on('error', () => {}) // it was not waiting any more
    .on('close', () => closeSync(directory))
    .end()
}

/**
 * A listening socket for a server that insists on one, and its client, connected already: a socket pair for programs that want accept(2). Nobody else can connect: the name in
 * `directory` (root's alone) is gone when this returns. Both close on exec; the caller closes them.
 */
export function connectedListener(directory: string): { listener: number; client: number } {
  const [listener, client] = native.listenConnected(join(directory, 'listen'))
  return { listener, client }
}

/** A real pipe (pipe(7)) between us and a child: Node's own are sockets, and a program that opens /dev/stdout gets ENXIO from a socket. */
export interface ChildPipe {
  /** Our end. */
  stream: Socket
  /** The child's end, for spawn's stdio. Call {@link ChildPipe.closeChild} once the child has it. */
  fd: number
  closeChild(): void
}

/** Both ends of a pipe (read, write), the caller's to close. */
export const pipe = (): [number, number] => native.pipe()

/** 'read': we read what the child writes; 'write': the other way round. */
export function childPipe(direction: 'read' | 'write'): ChildPipe {
  const [read, write] = native.pipe()
  const [ours, fd] = direction === 'read' ? [read, write] : [write, read]
  let stream: Socket
  try {
    stream = new Socket({ fd: ours, readable: direction === 'read', writable: direction === 'write' })
  } catch (error) {
    closeSync(ours)
    closeSync(fd)
    throw error
  }
  let open = true
  const closeChild = () => {
    if (open) closeSync(fd)
    open = false
  }
  return { stream, fd, closeChild }
}
