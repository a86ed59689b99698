import { Writable } from 'node:stream'
import type { Client } from '../../cli/client.js'
import { ApiError } from '../../cli/errors.js'
import { Demultiplexer } from '../../cli/terminal/demultiplex.js'

/** Bytes of each of a tool's two streams; what says more is none of ours. */
export const LONGEST_OUTPUT = 1 << 18

/** What a tool said. `code` is that of a shell: 127 where there is no such program. */
export interface ToolOutput { code: number; stdout: string; stderr: string }

/** Keeps the first bytes of a stream that may be a hostile guest's. */
class Kept extends Writable {
  readonly #chunks: Buffer[] = []
  #size = 0

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    if (this.#size < LONGEST_OUTPUT) this.#chunks.push(chunk.subarray(0, LONGEST_OUTPUT - this.#size))
    this.#size += chunk.length
    done()
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString('latin1')
  }
}

/** Runs a program in a container to its end, for at most `seconds`; rejects then, and leaves it to the container's end. */
export async function execute(client: Client, aborted: AbortSignal, id: string, Cmd: readonly string[], seconds: number): Promise<ToolOutput> {
  const late = AbortSignal.timeout(seconds * 1000)
  const signal = AbortSignal.any([aborted, late])
  try {
    const { Id } = await client.json<{ Id: string }>('POST', `/containers/${id}/exec`, { body: { AttachStdout: true, AttachStderr: true, Cmd }, signal })
    const { stream } = await client.hijack('POST', `/exec/${Id}/start`, { body: { Detach: false, Tty: false }, signal })
    const stop = () => stream.destroy(signal.reason as Error)
    signal.addEventListener('abort', stop, { once: true })
    try {
      const [stdout, stderr] = [new Kept(), new Kept()]
      const parts = new Demultiplexer(stdout, stderr)
      await new Promise<void>((resolve, reject) => {
        stream.on('error', reject).on('close', () => {
          if (!stream.readableEnded) reject(new Error('the connection to the daemon ended'))
        })
        parts.on('error', reject).on('finish', resolve)
        stream.pipe(parts)
      })
      const { ExitCode } = await client.json<{ ExitCode: number | null }>('GET', `/exec/${Id}/json`, { signal })
      return { code: ExitCode ?? -1, stdout: stdout.text, stderr: stderr.text }
    } finally {
      signal.removeEventListener('abort', stop)
      stream.destroy()
    }
  } catch (error) {
    aborted.throwIfAborted()
    if (late.aborted) throw new Error(`${Cmd[0]} did not end within ${seconds} s`, { cause: error })
    if (error instanceof ApiError && /executable file not found|no such file or directory/.test(error.message)) return { code: 127, stdout: '', stderr: '' }
    throw error
  }
}

/** Starts a program in a container that stays there until the container's end. Its failing to start is told by 127, as by {@link execute}. */
export async function executeDetached(client: Client, signal: AbortSignal, id: string, Cmd: readonly string[]): Promise<void> {
  const { Id } = await client.json<{ Id: string }>('POST', `/containers/${id}/exec`, { body: { Cmd }, signal })
  try {
    await client.call('POST', `/exec/${Id}/start`, { body: { Detach: true }, signal })
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof ApiError)) throw error
  }
}
