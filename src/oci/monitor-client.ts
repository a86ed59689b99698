import { closeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { connectSaying, streamOf } from '../host/streams.js'

/** Flags of an attach (native/monitor/monitor.h). */
const FRAMED = 1
const INPUT = 2

/** What a client says first: six bytes. */
function hello(what: 'A' | 'W', flags: number, rows: number, columns: number): Uint8Array {
  const bytes = Buffer.alloc(6)
  bytes.write(what, 'latin1')
  bytes[1] = flags
  bytes.writeUInt16BE(rows & 0xffff, 2) // a terminal's sizes have 16 bits: Docker cuts what is larger
  bytes.writeUInt16BE(columns & 0xffff, 4)
  return bytes
}

/**
 * Attaches to a container's stdio through the socket of its hull-monitor. Output from now on, in the Engine API's multiplexed framing or as it is (`raw`); all of it for who is attached before the container is started. With
 * `input` what is written is the container's stdin, and `end()` (or leaving) its end where it has one; the output goes on. All output has been read when the stream ends. A stream that nobody reads holds up the
 * container. Rejects with ENOENT or ECONNREFUSED when the container has ended.
 */
export async function attachMonitor(path: string, options: { raw: boolean; input: boolean }): Promise<Socket> {
  return streamOf(await connectSaying(path, hello('A', (options.raw ? 0 : FRAMED) | (options.input ? INPUT : 0), 0, 0)))
}

/** Sets the size of the container's terminal. Rejects as {@link attachMonitor}. */
export async function resizeMonitor(path: string, rows: number, columns: number): Promise<void> {
  closeSync(await connectSaying(path, hello('W', 0, rows, columns)))
}
