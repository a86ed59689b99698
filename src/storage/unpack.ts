import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { UnpackError, type UnpackOptions, type UnpackResult } from './types.js'

/** Built by native/unpack/Makefile. */
const defaultBinary = fileURLToPath(new URL('../../build/hull-unpack', import.meta.url))

function parseResult(stdout: string): UnpackResult {
  const value = JSON.parse(stdout) as Partial<UnpackResult> & { error?: string; code?: string }
  if (value.error !== undefined) throw new UnpackError(value.error, value.code)
  if (typeof value.diffId !== 'string' || typeof value.size !== 'number' || typeof value.entries !== 'number' || typeof value.stream !== 'number') {
    throw new UnpackError(`hull-unpack answered ${stdout.slice(0, 200)}`, 'EPROTO')
  }
  return value as UnpackResult
}

/** Calls back with the file position that this process and the child share (proc(5), /proc/pid/fdinfo). */
function watchPosition(fd: number, onPosition: (bytes: number) => void): () => void {
  const timer = setInterval(() => {
    readFile(`/proc/self/fdinfo/${fd}`, 'latin1').then(
      (text) => onPosition(Number(/^pos:\s*(\d+)/m.exec(text)?.[1] ?? 0)),
      () => {}, // closed meanwhile: there is nothing to show
    )
  }, 100)
  return () => clearInterval(timer)
}

/**
 * Unpacks a tar (plain, gzip, zstd, xz, bzip2) into `target`, an existing empty directory, in a confined child that can reach
 * nothing else (native/unpack). A descriptor is read by the child itself from its present position: no byte passes
 * through JavaScript. Rejects with {@link UnpackError}; what was written until then stays for the caller to remove.
 */
export async function unpack(source: number | Readable, target: string, options: UnpackOptions): Promise<UnpackResult> {
  options.signal?.throwIfAborted()
  const args = [
    ...(options.layer ? ['--layer'] : []), ...(options.blobDigest ? ['--blob-digest'] : []),
    ...(options.maxEntries === undefined ? [] : ['--max-entries', String(options.maxEntries)]),
    ...(options.maxBytes === undefined ? [] : ['--max-bytes', String(options.maxBytes)]),
    target,
  ]
  const child = spawn(options.binary ?? defaultBinary, args, {
    stdio: [typeof source === 'number' ? source : 'pipe', 'pipe', 'pipe'], env: {}, cwd: '/',
  })
  const kill = () => child.kill('SIGKILL')
  options.signal?.addEventListener('abort', kill)
  const stopWatching = typeof source === 'number' && options.onPosition ? watchPosition(source, options.onPosition) : undefined
  let inputError: unknown
  try {
    let stdout = ''
    let stderr = ''
    child.stdout!.setEncoding('utf8').on('data', (text: string) => (stdout = (stdout + text).slice(0, 65536)))
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr = (stderr + text).slice(0, 4096)))
    // 'close' comes when the last holder of the pipes is gone: nothing writes into the target any more.
    const ended = new Promise<void>((resolve, reject) => {
      child.on('error', reject)
      child.on('close', () => resolve())
    })
    if (typeof source !== 'number') {
      pipeline(source, child.stdin!).catch((error: unknown) => {
        if ((error as { code?: string }).code === 'EPIPE') return // the child ended first, and says why
        inputError = error
        kill()
      })
    }
    await ended
    options.signal?.throwIfAborted()
    if (inputError !== undefined) throw new UnpackError('the archive could not be read to its end', undefined, { cause: inputError })
    if (stdout === '') throw new UnpackError(`unpacking was ended (${child.signalCode ?? `exit code ${child.exitCode}`}) ${stderr.trim()}`.trim(), 'ECHILD')
    return parseResult(stdout)
  } finally {
    stopWatching?.()
    options.signal?.removeEventListener('abort', kill)
  }
}
