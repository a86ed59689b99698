import { spawn } from 'node:child_process'

/** What a finished child process said. */
export interface RunResult {
  /** Exit code; `null` when a signal ended it. */
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

/** Options of {@link run}. */
export interface RunOptions {
  input?: string | Uint8Array
  env?: NodeJS.ProcessEnv
  cwd?: string
  signal?: AbortSignal
  /** Bytes of stdout and of stderr that are kept each (default 1 MiB); the rest is read and dropped. */
  maxBuffer?: number
  timeoutMs?: number
}

/** Runs a program to its end and returns what it said, whatever its exit code. Rejects only when it cannot be started. */
export function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    const limit = options.maxBuffer ?? 1 << 20
    const child = spawn(file, args, {
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      ...(options.env ? { env: options.env } : {}),
      ...(options.cwd ? { cwd: options.cwd } : {}),
      ...(options.signal ? { signal: options.signal } : {}),
      ...(options.timeoutMs ? { timeout: options.timeoutMs, killSignal: 'SIGKILL' } : {}),
    })
    const collect = (stream: NodeJS.ReadableStream) => {
      const chunks: Buffer[] = []
      let size = 0
      stream.on('data', (chunk: Buffer) => {
        if (size < limit) chunks.push(chunk.subarray(0, limit - size))
        size += chunk.length
      })
      return () => Buffer.concat(chunks).toString('utf8')
    }
    const stdout = collect(child.stdout!)
    const stderr = collect(child.stderr!)
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, stdout: stdout(), stderr: stderr() }))
    if (options.input !== undefined) {
      child.stdin!.on('error', () => {}) // the child may end without reading: its exit code says so
      child.stdin!.end(options.input)
    }
  })
}

/** Like {@link run}, but an exit code other than 0 is an error that carries the program's last words. */
export async function runOk(file: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const result = await run(file, args, options)
  if (result.code !== 0) {
    const why = result.signal ? `killed by ${result.signal}` : `exit code ${result.code}`
    throw new Error(`${file} ${args[0] ?? ''}: ${why}: ${(result.stderr || result.stdout).trim().slice(-2000)}`)
  }
  return result
}
