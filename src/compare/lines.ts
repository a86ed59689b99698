import { Writable, type Readable } from 'node:stream'
import { Demultiplexer } from '../cli/terminal/demultiplex.js'

/** Lines that may wait to be asked for. */
const MOST_WAITING = 16
/** ms in which what was on its way when the stream ended comes out of its parts. */
const LAST_WORDS = 100

/** The lines of a container's stdout, of an attached (multiplexed) stream, as a hostile container may write them. stderr is dropped. */
export class Lines {
  #text = ''
  #over = false
  readonly #waiting: string[] = []
  #ask: ((line: string | undefined) => void) | undefined

  /** `longest`: characters of a line. */
  constructor(stream: Readable, longest: number) {
    const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
    const stdout = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        if (!this.#over) this.#take(chunk.toString('latin1'), longest)
        done()
      },
    })
    const parts = new Demultiplexer(stdout, nowhere)
    const end = () => setTimeout(() => this.#end(), LAST_WORDS)
    parts.on('error', () => {
      this.#end()
      stream.destroy()
    })
    stream.on('error', () => this.#end()).once('close', end).once('end', end)
    stream.pipe(parts)
  }

  /** The next one, without its end; undefined: it ended, or was not worth the name, before one. One call at a time. */
  next(): Promise<string | undefined> {
    const line = this.#waiting.shift()
    if (line !== undefined || this.#over) return Promise.resolve(line)
    return new Promise((resolve) => (this.#ask = resolve))
  }

  #take(more: string, longest: number): void {
    const lines = (this.#text + more).split('\n')
    this.#text = lines.pop() ?? ''
    for (const line of lines) {
      if (line.length > longest || this.#waiting.length >= MOST_WAITING) return this.#end()
      if (this.#ask) this.#answer(line)
      else this.#waiting.push(line)
    }
    if (this.#text.length > longest) this.#end()
  }

  #answer(line: string | undefined): void {
    const ask = this.#ask
    this.#ask = undefined
    ask?.(line)
  }

  #end(): void {
    this.#over = true
    this.#text = ''
    this.#answer(undefined)
  }
}
