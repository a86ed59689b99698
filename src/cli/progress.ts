import type { Readable, Writable } from 'node:stream'
import { CliError } from './errors.js'
import { humanSize } from './format/units.js'

/** Docker's progress message (moby pkg/jsonmessage), as much of it as is shown. */
export interface Progress {
  id?: string
  status?: string
  stream?: string
  progressDetail?: { current?: number; total?: number }
  progress?: string
  error?: string
  errorDetail?: { message?: string }
  aux?: unknown
}

/** A terminal to draw on; a pipe has no columns. */
export type Screen = Writable & { isTTY?: boolean; columns?: number; rows?: number }

/** Time between two redraws in ms: what the eye follows, and a tenth of what a fast pull would write. */
const FRAME_MS = 60
/** States of a layer that change no more. */
const FINAL = /^(Pull complete|Already exists|Download complete but|Layer already exists|Pushed|Loaded)/

function bar(current: number, total: number, columns: number): string {
  const width = Math.min(50, columns - 60)
  const figures = total > 0 ? `${humanSize(current).padStart(8)}/${humanSize(total)}` : humanSize(current).padStart(8)
  if (width < 10 || total <= 0) return figures
  const done = Math.min(width, Math.floor((current / total) * width))
  return `[${'='.repeat(done)}>${' '.repeat(width - done)}] ${figures}`
}

/** One line for one layer, no wider than the screen (a wrapped line could not be redrawn). */
export function progressLine(id: string, message: Progress, columns: number): string {
  const detail = message.progressDetail
  const tail = detail?.current ? ` ${bar(detail.current, detail.total ?? 0, columns)}` : message.progress ? ` ${message.progress}` : ''
  return [...`${id}: ${message.status ?? ''}${tail}`].slice(0, Math.max(1, columns - 1)).join('')
}

/**
 * Shows a pull: on a terminal one line a layer, redrawn in place; otherwise one plain line for each change of state, as the docker CLI does.
 */
export class ProgressRenderer {
  private lines = new Map<string, Progress>()
  private drawn: string[] = []
  private timer: NodeJS.Timeout | undefined
  private dirty = false

  constructor(private readonly screen: Screen) {}

  /** Takes one message. Throws CliError for a message that is an error. */
  show(message: Progress): void {
    if (message.error !== undefined || message.errorDetail) {
      this.finish()
      throw new CliError(message.errorDetail?.message ?? message.error ?? 'unknown error')
    }
    if (message.stream !== undefined) return this.plain(message.stream)
    if (message.status === undefined) return
    const { id } = message
    if (!this.screen.isTTY) {
      if (message.progressDetail?.current !== undefined) return
      this.screen.write(id ? `${id}: ${message.status}\n` : `${message.status}\n`)
      return
    }
    // 'Pulling from …' carries the tag as its id and is a heading, no layer.
    if (!id || /^Pulling from /.test(message.status)) return this.plain(id ? `${id}: ${message.status}\n` : `${message.status}\n`)
    this.lines.set(id, message)
    this.dirty = true
    this.timer ??= setTimeout(() => {
      this.timer = undefined
      this.draw()
    }, FRAME_MS)
  }

  /** Draws what is still to be drawn and leaves the cursor below it. */
  finish(): void {
    if (this.timer) clearTimeout(this.timer)
    this.timer = undefined
    this.draw()
    this.lines.clear()
    this.drawn = []
  }

  private plain(text: string): void {
    if (this.screen.isTTY) this.finish()
    this.screen.write(text)
  }

  private draw(): void {
    if (!this.dirty) return
    this.dirty = false
    const columns = this.screen.columns ?? 80
    const room = Math.max(1, (this.screen.rows ?? 24) - 1)
    const all = [...this.lines]
    // More layers than the screen has rows: finished ones scroll away for good, the rest of the rest waits.
    let scroll = 0
    while (all.length - scroll > room && FINAL.test(all[scroll]![1].status ?? '')) scroll += 1
    const gone = all.slice(0, scroll)
    for (const [id] of gone) this.lines.delete(id)
    const visible = all.slice(scroll, scroll + room).map(([id, message]) => progressLine(id, message, columns))
    const top = gone.map(([id, message]) => progressLine(id, message, columns))
    const next = [...top, ...visible]
    let out = this.drawn.length > 0 ? `\x1b[${this.drawn.length}A` : ''
    for (const [i, line] of next.entries()) out += line === this.drawn[i] ? '\n' : `\r\x1b[2K${line}\n`
    if (this.drawn.length > next.length) out += '\x1b[J'
    this.screen.write(out)
    this.drawn = visible
  }
}

/** The JSON values of a stream of them, one a line or back to back. */
export async function* jsonValues<T>(stream: Readable): AsyncGenerator<T> {
  let rest = ''
  stream.setEncoding('utf8')
  for await (const chunk of stream as AsyncIterable<string>) {
    rest += chunk
    for (;;) {
      const end = endOfValue(rest)
      if (end < 0) break
      yield JSON.parse(rest.slice(0, end)) as T
      rest = rest.slice(end).trimStart()
    }
    if (rest.length > 16 << 20) throw new CliError('a message of the daemon is too long')
  }
  if (rest.trim() !== '') throw new CliError('the answer of the daemon ended in the middle of a message')
}

/** Where the object or array that `text` begins with ends; -1 when it is not all there. */
function endOfValue(text: string): number {
  const line = text.indexOf('\n')
  // The common case by far: one value a line.
  if (line > 0 && (text[line - 1] === '}' || text[line - 1] === '\r')) {
    try {
      JSON.parse(text.slice(0, line))
      return line + 1
    } catch {
      // a line break inside a value: counted below
    }
  }
  let depth = 0
  let inString = false
  for (let i = 0; i < text.length; i += 1) {
    const c = text[i]
    if (inString) {
      if (c === '\\') i += 1
      else if (c === '"') inString = false
    } else if (c === '"') inString = true
    else if (c === '{' || c === '[') depth += 1
    else if (c === '}' || c === ']') {
      depth -= 1
      if (depth === 0) return i + 1
    }
  }
  return -1
}

/** Shows a whole answer of progress messages; `quiet` shows only errors. Returns the last `aux`. */
export async function showProgress(stream: Readable, screen: Screen, quiet = false): Promise<void> {
  const renderer = new ProgressRenderer(screen)
  try {
    for await (const message of jsonValues<Progress>(stream)) {
      if (!quiet || message.error !== undefined || message.errorDetail) renderer.show(message)
    }
  } finally {
    renderer.finish()
  }
}
