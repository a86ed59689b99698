import { randomBytes } from 'node:crypto'
import { messageOf } from '../base/errors.js'
import type { ExecSession, ProcessSpec } from '../sandbox/types.js'
import type { Container } from './container.js'
import { execProcess } from './exec-process.js'
import type { ProbeResult } from './health.js'

/** Bytes of output that are kept of one probe (moby maxOutputLen). */
const outputLimit = 4096
/** Starting may take long on a host under load, and does not count as the probe's own time (moby). Milliseconds. */
const startTimeoutMs = 30_000
/** Milliseconds that a killed probe gets to be gone, so that dying probes do not pile up. */
const killWaitMs = 10_000

/** What events a probe causes; Docker announces it as it does any exec session. */
export type Announce = (action: string, attributes: Record<string, string>) => void

/** Go's time.Duration.String for whole milliseconds: '1.5s', '1m30s', '250ms'. Clients show it. */
export function goDuration(ms: number): string {
  if (ms < 1000) return `${ms}ms`
  const hours = Math.floor(ms / 3_600_000)
  const minutes = Math.floor(ms / 60_000) % 60
  return `${hours > 0 ? `${hours}h` : ''}${hours > 0 || minutes > 0 ? `${minutes}m` : ''}${(ms % 60_000) / 1000}s`
}

/** The first bytes of an exec session's output, stdout and stderr in the order in which they came, read from Docker's 8-byte framing. */
export class ProbeOutput {
  readonly #kept: Buffer[] = []
  #length = 0
  #cut = false
  #header = Buffer.alloc(0)
  #payload = 0

  add(chunk: Buffer): void {
    let rest = chunk
    while (rest.length > 0) {
      if (this.#payload === 0) {
        const missing = 8 - this.#header.length
        this.#header = Buffer.concat([this.#header, rest.subarray(0, missing)])
        rest = rest.subarray(missing)
        if (this.#header.length < 8) return
        this.#payload = this.#header.readUInt32BE(4)
        this.#header = Buffer.alloc(0)
        continue
      }
      const part = rest.subarray(0, this.#payload)
      this.#payload -= part.length
      rest = rest.subarray(part.length)
      this.#keep(part)
    }
  }

  #keep(part: Buffer): void {
    const room = outputLimit - this.#length
    if (part.length > room) this.#cut = true
    if (room <= 0) return
    // A copy: the chunk may be a small view of a large buffer.
    const kept = Buffer.from(part.subarray(0, room))
    this.#kept.push(kept)
    this.#length += kept.length
  }

  /** '...' at the end says that something is missing. Bytes that are no UTF-8 come as U+FFFD. */
  get text(): string {
    return Buffer.concat(this.#kept).toString('utf8') + (this.#cut ? '...' : '')
  }
}

/** Resolves with 'late' when it takes too long, with 'aborted' when `signal` fires first. */
async function within<T>(ms: number, promise: Promise<T>, signal: AbortSignal): Promise<T | 'late' | 'aborted'> {
  let timer: NodeJS.Timeout | undefined
  let abort: (() => void) | undefined
  try {
    return await Promise.race([
      promise,
      new Promise<'late'>((resolve) => (timer = setTimeout(() => resolve('late'), ms))),
      new Promise<'aborted'>((resolve) => {
        abort = () => resolve('aborted')
        if (signal.aborted) abort()
        else signal.addEventListener('abort', abort, { once: true })
      }),
    ])
  } finally {
    clearTimeout(timer)
    if (abort) signal.removeEventListener('abort', abort)
  }
}

/** Kills a session with all that it started and waits until it is gone, for a while. */
async function end(session: ExecSession): Promise<void> {
  await session.signal(9).catch(() => {})
  await Promise.race([session.exited.catch(() => 0), new Promise((resolve) => setTimeout(resolve, killWaitMs).unref())])
}

/**
 * Runs a probe in its sandbox: as the container's user, without a terminal and input. A probe that takes longer than `timeoutMs` is killed
 * there. Never rejects: what goes wrong is a result with exit code -1, in Docker's words. `undefined`: `signal` fired.
 */
export async function runProbe(container: Container, command: string[], timeoutMs: number, signal: AbortSignal, announce: Announce): Promise<ProbeResult | undefined> {
  const start = new Date().toISOString()
  const result = (exitCode: number, output: string): ProbeResult => ({ start, end: new Date().toISOString(), exitCode, output })
  const { sandbox } = container
  if (!sandbox || signal.aborted) return undefined
  const execID = randomBytes(32).toString('hex')
  const process: ProcessSpec = execProcess(container.record, { cmd: command, env: [], tty: false, privileged: false, user: '', workingDir: '' })
  announce(`exec_create: ${command.join(' ')}`, { execID })
  container.execs.add(execID)
  let session: ExecSession | undefined
  try {
    announce(`exec_start: ${command.join(' ')}`, { execID })
    const starting = sandbox.exec(process, { stdin: false, detach: false })
    const started = await within(startTimeoutMs, starting, signal)
    if (started === 'late' || started === 'aborted') {
      // It may still come up: then it is ended.
      starting.then(end, () => {})
      return started === 'late' ? result(-1, `timed out starting health check for container ${container.id}`) : undefined
    }
    session = started
    const output = new ProbeOutput()
    session.duplex.on('data', (chunk: Buffer) => output.add(chunk))
    session.duplex.on('error', () => {})
    session.duplex.end()
    // All output is in the stream when `exited` resolves, but not yet out of it.
    const read = new Promise((resolve) => session!.duplex.once('end', resolve).once('close', resolve))
    const ended = session.exited.then(async (code) => {
      await read
      return code
    })
    ended.catch(() => {})
    const code = await within(timeoutMs, ended, signal)
    if (typeof code === 'number') {
      announce('exec_die', { execID, exitCode: String(code) })
      return result(code, output.text)
    }
    await end(session)
    announce('exec_die', { execID, exitCode: '137' })
    if (code === 'aborted') return undefined
    const said = output.text
    return result(-1, `Health check exceeded timeout (${goDuration(timeoutMs)})${said === '' ? '' : `: ${said}`}`)
  } catch (error) {
    return signal.aborted ? undefined : result(-1, messageOf(error))
  } finally {
    session?.duplex.destroy()
    container.execs.delete(execID)
  }
}
