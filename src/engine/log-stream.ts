import { join } from 'node:path'
import { Readable } from 'node:stream'
import { readLog } from '../oci/logs.js'
import type { Container } from './container.js'
import { detailsPrefix, logAttributes } from './log-config.js'

/** The log file below a container's directory. */
export const logFile = 'container.log'

/** What of the log. See LogsRequest. */
export interface LogStreamOptions {
  follow: boolean
  since?: bigint
  until?: bigint
  timestamps: boolean
  /** --details */
  details?: boolean
  tail?: number
  signal: AbortSignal
}

/** Docker's 8-byte header of multiplexed streams (Engine API, "Stream format"). */
function framed(stream: 'stdout' | 'stderr', payload: Buffer): Buffer {
  const header = Buffer.alloc(8)
  header[0] = stream === 'stdout' ? 1 : 2
  header.writeUInt32BE(payload.length, 4)
  return Buffer.concat([header, payload])
}

/** A container's log as the API sends it: raw with a TTY, else framed; destroying it stops following. */
export async function logStream(container: Container, directory: string, options: LogStreamOptions): Promise<{ output: Readable }> {
  const stop = new AbortController()
  if (options.signal.aborted) stop.abort()
  options.signal.addEventListener('abort', () => stop.abort(), { once: true })
  const tty = container.record.config.Tty
  const lines = readLog(join(directory, logFile), {
    stdout: true,
    stderr: true,
    follow: options.follow,
    ...(options.tail === undefined ? {} : { tail: options.tail }),
    ...(options.since === undefined ? {} : { since: options.since }),
    ...(options.until === undefined ? {} : { until: options.until }),
    ended: container.runEnded,
    stop: stop.signal,
  })
  const details = options.details ? detailsPrefix(logAttributes(container.record)) : ''
  async function* chunks(): AsyncGenerator<Buffer> {
    for await (const line of lines) {
      const before = line.continuation ? '' : `${options.timestamps ? `${line.time} ` : ''}${details}`
      const bytes = before === '' ? line.bytes : Buffer.concat([Buffer.from(before), line.bytes])
      yield tty ? bytes : framed(line.stream, bytes)
    }
  }
  const output = Readable.from(chunks(), { objectMode: false, highWaterMark: 64 * 1024 })
  output.once('close', () => stop.abort())
  return { output }
}
