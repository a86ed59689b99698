import { EventEmitter } from 'node:events'
import { constants } from 'node:os'
import { codeOf } from '../base/errors.js'
import { native } from './native.js'

/** How a program is started that outlives this daemon. */
export interface DetachedOptions {
  /** Absolute. */
  file: string
  /** With argv[0]. */
  args: readonly string[]
  env: Readonly<Record<string, string>>
  /** Absolute. */
  cwd: string
  /** Open descriptors of ours: the one at N is the child's N. It has no other. They stay the caller's. */
  fds: readonly number[]
}

const running = new Map<number, DetachedChild>()

/** SIGCHLD says that somebody has ended, not who, and once for several. */
function reap(): void {
  for (const child of running.values()) child.look()
}

/**
 * A child in a session of its own, started without a copy of our page tables (native/spawn.c), which takes Node's spawn some milliseconds. Emits 'exit' once, when it has ended; does not keep this process alive.
 */
export class DetachedChild extends EventEmitter<{ exit: [code: number | null, signal: NodeJS.Signals | null] }> {
  exitCode: number | null = null
  signalCode: NodeJS.Signals | null = null

  private constructor(readonly pid: number) {
    super()
  }

  /** Throws when the program cannot be started (ENOENT, EACCES, ENOEXEC, …). */
  static spawn({ file, args, env, cwd, fds }: DetachedOptions): DetachedChild {
    if (running.size === 0) process.on('SIGCHLD', reap)
    try {
      const child = new DetachedChild(native.spawn(file, [...args], Object.entries(env).map(([name, value]) => `${name}=${value}`), cwd, [...fds]))
      running.set(child.pid, child)
      return child
    } finally {
      forgetNobody()
    }
  }

  get ended(): boolean {
    return this.exitCode !== null || this.signalCode !== null
  }

  /** False: it has ended. */
  kill(signal: NodeJS.Signals): boolean {
    return !this.ended && native.kill(this.pid, constants.signals[signal]) // not reaped yet: the number is still its own
  }

  /** Whether it has ended, from the kernel. */
  look(): void {
    let status: number | undefined
    try {
      status = native.waitpid(this.pid)
    } catch (error) {
      if (codeOf(error) !== 'ECHILD') throw error
      status = 255 // somebody else has asked: it has ended, nobody knows how
    }
    if (status === undefined) return
    running.delete(this.pid)
    forgetNobody()
    if (status >= 0) this.exitCode = status
    else this.signalCode = signalName(-status)
    this.emit('exit', this.exitCode, this.signalCode)
  }
}

function forgetNobody(): void {
  if (running.size === 0) process.off('SIGCHLD', reap)
}

const signalName = (number: number): NodeJS.Signals => (Object.keys(constants.signals) as NodeJS.Signals[]).find((name) => constants.signals[name] === number) ?? 'SIGKILL'
