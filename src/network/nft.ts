import { spawn, type ChildProcessByStdio } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { codeOf } from '../base/errors.js'
import { log } from '../base/log.js'
import { run, type RunResult } from '../base/run.js'

type Interactive = ChildProcessByStdio<Writable, Readable, Readable>

/** One command line on its way through the interactive process. */
interface Pending {
  line: string
  resolve(): void
  reject(error: Error): void
}

/** A child that answers later than this is given up (milliseconds). */
const answerTimeoutMs = 5_000

/**
 * Talks to nftables. Scripts go to `nft -f -` (a process each, 3 to 16 ms); the few commands of a container's start and stop go through one
 * long-lived `nft -i` (0.2 ms), which reads a line, commits it as one transaction and prints errors on stderr. After each line a
 * word follows that nft cannot parse: its syntax error, which quotes the word, says that all before it is done. When the process does not behave
 * like that (another version of nft), every command gets a process of its own.
 */
export class Nft {
  #child: Interactive | undefined
  #usable = true
  #closed = false
  #queue: Pending[] = []
  #current: Pending | undefined
  #timer: NodeJS.Timeout | undefined
  #stderr = ''
  #serial = 0

  /** Which way {@link command} goes at present. */
  get mode(): 'interactive' | 'spawn' {
    return this.#usable ? 'interactive' : 'spawn'
  }

  /** The pid of the long-lived process, for tests and leak checks. */
  get pid(): number | undefined {
    return this.#child?.pid
  }

  /** Runs a script as one transaction. Rejects with nft's message. */
  async script(text: string): Promise<void> {
    const result = await nft(['-f', '-'], text)
    if (result.code !== 0) throw new Error(`nft: ${(result.stderr || `exit code ${result.code}`).trim().slice(0, 2000)}`)
  }

  /** Runs commands (one line each, no newline inside) as one transaction. Rejects with nft's message; then nothing was changed. */
  async command(commands: readonly string[]): Promise<void> {
    if (commands.length === 0) return
    const line = commands.join('; ')
    if (/[\n\t]/.test(line)) throw new Error('nft: newline in a command')
    if (!this.#usable || this.#closed) return this.script(line + '\n')
    return new Promise((resolve, reject) => {
      this.#queue.push({ line, resolve, reject })
      this.#pump()
    })
  }

  /** Starts the long-lived process ahead of its first use and tries it. Never rejects. */
  async warm(): Promise<void> {
    await this.command(['list tables']).catch((error: unknown) => log.debug('nft: not interactive', { error }))
  }

  /** Ends the long-lived process (end of its input). Commands after that get a process each. */
  close(): void {
    this.#closed = true
    this.#child?.stdin.end()
  }

  #pump(): void {
    if (this.#current) return
    const next = this.#queue.shift()
    if (!next) return
    this.#current = next
    if (!this.#usable) return this.#instead(next)
    const child = (this.#child ??= this.#spawn())
    this.#stderr = ''
    this.#serial++
    this.#timer = setTimeout(() => this.#giveUp(child, new Error(`no answer in ${answerTimeoutMs} ms`)), answerTimeoutMs)
    child.stdin.write(`${next.line}\n${this.#marker()}\n`)
  }

  #marker(): string {
    return `hulldone${this.#serial}`
  }

  #spawn(): Interactive {
    // No home: it would keep a history file there. Own session: Ctrl-C on a foreground daemon is not for it; it ends with our pipe.
    const env = { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/dev/null', INPUTRC: '/dev/null', TERM: 'dumb', LC_ALL: 'C' }
    const child = spawn('nft', ['-i'], { stdio: ['pipe', 'pipe', 'pipe'], env, detached: true })
    child.unref()
    child.stdin.on('error', () => {}) // 'close' tells
    child.stdout.resume()
    child.stderr.setEncoding('utf8')
    child.stderr.on('data', (text: string) => this.#answer(child, text))
    child.on('error', (error) => this.#giveUp(child, error))
    child.on('close', () => this.#giveUp(child, new Error('it ended')))
    for (const stream of [child.stdin, child.stdout, child.stderr]) (stream as Partial<{ unref(): void }>).unref?.()
    return child
  }

  #answer(child: Interactive, text: string): void {
    if (child !== this.#child) return
    this.#stderr = (this.#stderr + text).slice(-64 * 1024)
    // The error's last line points at the word: '^^^^^'. Up to it everything belongs to this command.
    const match = new RegExp(`^Error: [^\\n]*\\n${this.#marker()}\\n *\\^+\\n`, 'm').exec(this.#stderr)
    if (!match || !this.#current) return
    const message = this.#stderr.slice(0, match.index).trim()
    const { resolve, reject } = this.#current
    this.#finish()
    if (message === '') resolve()
    else reject(new Error(`nft: ${message.slice(0, 2000)}`))
    this.#pump()
  }

  #finish(): void {
    clearTimeout(this.#timer)
    this.#current = undefined
  }

  /** The process is gone or silent. What was under way may have been done: its caller repairs by writing the whole table again. */
  #giveUp(child: Interactive, error: Error): void {
    if (child !== this.#child) return
    this.#child = undefined
    if (!this.#closed) {
      // Killed by somebody: the next command starts another. Silent or not startable: this nft is not usable that way.
      this.#usable = error.message === 'it ended' && this.#serial > 1
      log.warn('nft: the interactive process failed', { error, next: this.mode })
    }
    child.kill('SIGKILL')
    const pending = this.#current
    if (!pending) return
    this.#finish()
    this.#instead(pending)
  }

  /** `pending` in a process of its own, then the rest of the queue. */
  #instead(pending: Pending): void {
    this.#current = pending
    this.script(pending.line + '\n')
      .then(pending.resolve, pending.reject)
      .finally(() => {
        this.#current = undefined
        this.#pump()
      })
  }
}

/** Runs nft to its end. A missing program is an error that says what to install. */
export async function nft(args: string[], input?: string): Promise<RunResult> {
  try {
    return await run('nft', args, { ...(input === undefined ? {} : { input }), maxBuffer: 16 << 20, timeoutMs: 30_000, env: { ...process.env, LC_ALL: 'C' } })
  } catch (error) {
    if (codeOf(error) === 'ENOENT') throw new Error('nft: program not found (Debian package nftables)', { cause: error })
    throw error
  }
}
