import { PassThrough, Transform, type Readable, type Writable } from 'node:stream'

/**
 * Work on the files of one container, done by `hull-files` (native/files) where nothing but the container's own files can be reached: in
 * a confined child on this host (process), or in the guest (vm).
 */
export type FileOperation =
  /** A path's kind, as lstat(2). `path` is absolute; a slash or '/.' at its end means the directory behind it. */
  | { op: 'stat'; path: string }
  /** A tar of `path`, whose top entry is called `name`. */
  | { op: 'get'; path: string; name: string }
  /** A tar into the directory `path`. `noOverwrite`: directories and other things do not replace one another. `owner`: '' or the user that gets everything. `flush`: done when it is on the disk. */
  | { op: 'put'; path: string; noOverwrite: boolean; owner: string; flush?: boolean }
  /** A tar of the whole root, without what is mounted over it. */
  | { op: 'export' }
  /** The writable layer as an OCI layer. `freeze`: the container's processes stand still meanwhile. */
  | { op: 'layer'; freeze: boolean }
  /** The writable layer's changes: a kind letter and a path each, NUL-ended. */
  | { op: 'changes' }
  /** Bytes of the writable layer. */
  | { op: 'size' }

/** The arguments of hull-files for an operation. */
export function fileArguments(operation: FileOperation): string[] {
  switch (operation.op) {
    case 'stat':
      return ['stat', operation.path]
    case 'get':
      return ['get', operation.path, operation.name]
    case 'put':
      return ['put', operation.path, operation.noOverwrite ? '1' : '0', operation.owner, ...(operation.flush ? ['flush'] : [])]
    default:
      return [operation.op]
  }
}

/** What hull-files refused, in its words. `errno` is Linux's number; 0: the request or the archive itself is wrong. */
export class FileError extends Error {
  constructor(
    message: string,
    readonly errno: number,
  ) {
    super(message)
    this.name = 'FileError'
  }
}

/** lstat(2) of a path in a container. */
export interface FileStat {
  /** st_mode */
  mode: number
  /** bytes */
  size: number
  mtime: Date
  /** Where a symbolic link leads in the end; '' for everything else. */
  link: string
}

/** An operation that goes on. */
export interface FileJob {
  /** stat and get: the path was found. put: the destination is a directory that can be written to (undefined). Others: undefined at once. */
  head: Promise<FileStat | undefined>
  /** get, export, layer, changes: the result. It fails when the job does, so that half a result is not taken for a whole one. Must be read or cancelled. */
  output: Readable
  /** put: the archive. */
  input: Writable
  /** Resolves when all is done; rejects with {@link FileError}, or with what ended the work from outside. */
  done: Promise<{ size: number }>
  /** Ends it now. Idempotent. */
  cancel(): void
}

/** The two ends of a running hull-files, wherever it runs. */
export interface FileProcess {
  stdin: Writable
  stdout: Readable
  stderr: Readable
  /** Resolves with how it ended ('exit code 1', 'SIGSYS') when all output has been delivered to the streams. */
  ended: Promise<string>
  /** Asked when it ended without a word of its own: what has happened, if more is known than that. */
  why?: () => Promise<Error | undefined>
  kill(): void
}

interface ReportLine {
  mode?: number
  size?: number
  mtime?: number
  link?: string
  ready?: boolean
  ok?: boolean
  error?: string
  errno?: number
}

/** Characters of one report line: two paths, escaped. From a guest they may be anything. */
const LINE_LIMIT = 65_536

function parseLine(text: string): ReportLine | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value) : undefined
  } catch {
    return undefined
  }
}

const finite = (value: unknown): number => (typeof value === 'number' && Number.isFinite(value) ? value : 0)

/** Names from a guest go into messages and headers: no control characters. */
const clean = (text: unknown): string => (typeof text === 'string' ? text.replace(/[\u0000-\u001f\u007f]/g, '?').slice(0, 8192) : '')

/** Reads the reports of a hull-files and makes a job of it. */
export function fileJob(process: FileProcess, operation: FileOperation): FileJob {
  const awaitsHead = operation.op === 'stat' || operation.op === 'get' || operation.op === 'put'
  let tellHead!: (stat: FileStat | undefined) => void
  let failHead!: (error: Error) => void
  const head = new Promise<FileStat | undefined>((resolve, reject) => {
    tellHead = resolve
    failHead = reject
  })
  head.catch(() => {}) // whoever waits for `done` alone learns of it there
  if (!awaitsHead) tellHead(undefined)

  let result: { size: number } | undefined
  let failure: FileError | undefined
  let text = ''
  const takeLine = (line: ReportLine): void => {
    if (line.ok === true) result = { size: finite(line.size) }
    else if (line.ready === true) tellHead(undefined)
    else if (typeof line.error === 'string') failure ??= new FileError(clean(line.error), finite(line.errno))
    else if (typeof line.mode === 'number') {
      const milliseconds = Math.max(-8.64e15, Math.min(8.64e15, finite(line.mtime) * 1000))
      tellHead({ mode: finite(line.mode), size: finite(line.size), mtime: new Date(milliseconds), link: clean(line.link) })
    }
  }
  process.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      const line = parseLine(text.slice(0, end))
      text = text.slice(end + 1)
      if (line) takeLine(line)
    }
    if (text.length > LINE_LIMIT) text = ''
  })
  process.stderr.on('error', () => {})
  process.stdin.on('error', () => {}) // it ended without reading: `done` says why

  const done = process.ended.then(async (how) => {
    if (result && !failure) return result
    const error = failure ?? (await process.why?.()) ?? new FileError(`hull-files ended early (${how}) ${clean(text)}`.trim(), 5)
    failHead(error)
    throw error
  })
  done.catch(() => {})

  // The end of the output waits for the verdict on it.
  const output = new Transform({
    transform: (chunk: Buffer, _encoding, give) => give(null, chunk),
    flush: (give) => {
      done.then(() => give(), give)
    },
  })
  output.on('error', () => {})
  process.stdout.on('error', (error) => output.destroy(error))
  process.stdout.pipe(output)
  const cancel = (): void => {
    process.kill()
    // A process has ended when its output has been read, and its reader is gone or has never come.
    process.stdout.unpipe(output)
    process.stdout.resume()
    void done.catch((error: unknown) => output.destroy(error as Error))
  }
  output.once('close', () => {
    if (!output.readableEnded) cancel() // the reader has gone before the end
  })
  return { head, output, input: process.stdin, done, cancel }
}

/** Takes Docker's 8-byte framing (Engine API, "Stream format") apart. */
export function splitFrames(framed: Readable): { stdout: Readable; stderr: Readable } {
  const stdout = new PassThrough({ highWaterMark: 1 << 18 })
  const stderr = new PassThrough()
  let rest = Buffer.alloc(0)
  let target: PassThrough = stdout
  let left = 0
  framed.on('data', (chunk: Buffer) => {
    let room = true
    for (let at = 0; at < chunk.length; ) {
      if (left === 0) {
        const take = Math.min(8 - rest.length, chunk.length - at)
        rest = Buffer.concat([rest, chunk.subarray(at, at + take)])
        at += take
        if (rest.length < 8) break
        target = rest[0] === 2 ? stderr : stdout
        left = rest.readUInt32BE(4)
        rest = Buffer.alloc(0)
        continue
      }
      const take = Math.min(left, chunk.length - at)
      room = target.write(chunk.subarray(at, at + take)) && room
      at += take
      left -= take
    }
    // stderr is read at once, always: only the other can hold us up.
    if (!room && stdout.writableNeedDrain) {
      framed.pause()
      stdout.once('drain', () => framed.resume())
    }
  })
  const end = () => {
    stdout.end()
    stderr.end()
  }
  framed.once('end', end)
  framed.once('close', end)
  framed.once('error', end)
  return { stdout, stderr }
}
