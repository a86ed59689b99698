import type { ExecSession } from '../types.js'
import { ExecStream } from './execstream.js'
import { connectSocket, Link, LinkClosed } from './link.js'
import { decodeFailure, decodeText, encodeText, Joiner, ProtocolError, textMap, textNumber, FrameType, type Failure, type Frame, type TextEntry } from './protocol.js'

/** Milliseconds that a guest gets for an answer that needs no work (a signal, a resize, a table of processes). */
const ANSWER_TIMEOUT = 10_000
/** Milliseconds until a process in the guest has started, or could not: a guest that thrashes is slow, one whose kernel hangs never answers. */
const EXEC_TIMEOUT = 60_000
/** What is said of either. */
const NO_ANSWER = 'the virtual machine does not answer'

/** The guest could not start the process: FAILED. `code` is 125, 126 or 127. */
export class StartFailure extends Error {
  constructor(readonly failure: Failure) {
    super(failure.message)
    this.name = 'StartFailure'
  }
}

/** A connection of the guest to a socket of the host: raw bytes both ways, half-closes passed on. */
export interface Connection extends Pick<ExecSession, 'duplex'> {
  /** Resolves when both directions are over, or the machine is. */
  exited: Promise<number>
  /** Breaks it off, whatever the guest says: it has `exited` then. */
  close(): void
}

/** Talks to one VM's supervisor (hull-vmm) over its ctl.sock: a connection for every question or exec session. */
export class VmClient {
  constructor(
    private readonly socketPath: string,
    /** Owner that the socket must have. */
    private readonly uid: number | undefined,
  ) {}

  /** Resolves when the workload runs (its pid in the guest); rejects with {@link StartFailure} when it cannot, {@link LinkClosed} when the VM ended. */
  async waitStart(): Promise<number> {
    return this.started(FrameType.WAIT_START)
  }

  /** Gives a machine that was made ahead its workload, which must be in its directory. As {@link waitStart}. */
  async claim(): Promise<number> {
    return this.started(FrameType.CLAIM)
  }

  private started(question: number): Promise<number> {
    return this.once<number>(
      (link) => link.send(question),
      (frame, resolve, reject) => {
        if (frame.type === FrameType.STARTED) resolve(startedPid(frame))
        else if (frame.type === FrameType.FAILED) reject(new StartFailure(decodeFailure(frame.payload)))
      },
      0,
    )
  }

  /** Sends a signal to the workload's main process. False: it is not running. */
  async signal(signal: number): Promise<boolean> {
    return this.acknowledged(FrameType.SIGNAL, [['signal', String(signal)]])
  }

  /** Sets the size of the workload's own terminal. */
  async resize(rows: number, columns: number): Promise<boolean> {
    return this.acknowledged(FrameType.RESIZE_MAIN, sizeEntries(rows, columns))
  }

  /** Asks the guest (`top`, `stats`) or the supervisor (`status`). */
  async query(what: 'top' | 'stats' | 'status' | 'update', more: readonly TextEntry[] = []): Promise<Buffer> {
    const joiner = new Joiner()
    return this.once<Buffer>(
      (link) => link.send(FrameType.QUERY, encodeText([['what', what], ...more])),
      (frame, resolve, reject) => {
        if (frame.type === FrameType.REPLY) {
          const whole = joiner.add(frame)
          if (whole) resolve(whole)
        } else if (frame.type === FrameType.FAILED) reject(new StartFailure(decodeFailure(frame.payload)))
      },
      ANSWER_TIMEOUT,
    )
  }

  /** New limits for the container's cgroup in the guest. Resolves with '' when they are in force, else with the reason why none is. */
  async update(limits: readonly TextEntry[]): Promise<string> {
    const answer = textMap(decodeText(await this.query('update', limits)))
    return answer.get('ok') === '1' ? '' : (answer.get('error') ?? 'no reason given')
  }

  /** {@link query} for the answers that are text. */
  async queryText(what: 'stats' | 'status'): Promise<Map<string, string>> {
    return textMap(decodeText(await this.query(what)))
  }

  /** Changes the guest's interfaces, default route and files (guest/PROTOCOL.md, `what=network`). Rejects with the guest's reason. */
  async changeNetwork(entries: readonly TextEntry[]): Promise<void> {
    const answer = await this.once<Buffer>(
      (link) => link.send(FrameType.QUERY, encodeText([['what', 'network'], ...entries])),
      (frame, resolve, reject) => {
        if (frame.type === FrameType.REPLY) resolve(frame.payload)
        else if (frame.type === FrameType.FAILED) reject(new StartFailure(decodeFailure(frame.payload)))
      },
      ANSWER_TIMEOUT,
    )
    const said = textMap(decodeText(answer))
    // A guest that was started by an older version knows nothing of this and answers with nothing.
    if (said.get('ok') !== '1') throw new Error(said.get('error') ?? 'the guest is of a version that cannot change networks while it runs: restart the container')
  }

  /** Starts a process in the container; resolves when it runs. Rejects with {@link StartFailure} when the guest does not answer within a minute; should the process start after all, nobody is at its ends. */
  async exec(spec: readonly TextEntry[], options: { tty: boolean; stdin: boolean; detach: boolean }): Promise<ExecSession & Connection> {
    return this.session(FrameType.EXEC, encodeText(spec), options, EXEC_TIMEOUT)
  }

  /** Waits for the guest's next connection to one of the host's sockets. */
  async accept(index: number): Promise<Connection> {
    return this.session(FrameType.ACCEPT, encodeText([['socket', String(index)]]), { tty: true, stdin: true, detach: false }, 0)
  }

  /** `timeoutMs`: until the session has started; 0: for as long as it takes. */
  private async session(type: number, payload: Buffer, options: { tty: boolean; stdin: boolean; detach: boolean }, timeoutMs: number): Promise<ExecSession & Connection> {
    const socket = await connectSocket(this.socketPath, this.uid)
    let timer: NodeJS.Timeout | undefined
    return new Promise<ExecSession & Connection>((resolve, reject) => {
      let started = false
      let ended = false
      let tellExit: (code: number) => void = () => {}
      const exited = new Promise<number>((done) => (tellExit = done))
      const end = (code: number) => {
        if (ended) return
        ended = true
        stream.finish()
        tellExit(code)
      }
      const link = new Link(
        socket,
        (frame) => {
          switch (frame.type) {
            case FrameType.STARTED: {
              if (started) throw new ProtocolError('STARTED twice')
              const pid = startedPid(frame)
              started = true
              if (options.detach) stream.destroy()
              resolve({
                pid,
                duplex: stream,
                exited,
                close: () => link.close(),
                resize: async (rows, columns) => link.send(FrameType.RESIZE, encodeText(sizeEntries(rows, columns))),
                signal: async (signal) => link.send(FrameType.SIGNAL, encodeText([['signal', String(signal)]])),
              })
              break
            }
            case FrameType.FAILED:
              reject(new StartFailure(decodeFailure(frame.payload)))
              link.close()
              break
            case FrameType.STDOUT:
            case FrameType.STDERR:
            case FrameType.WINDOW:
              if (type === FrameType.ACCEPT && frame.type === FrameType.STDERR) stream.endOutput()
              else stream.accept(frame)
              break
            case FrameType.EXIT:
              end(textNumber(textMap(decodeText(frame.payload)), 'code', 0, 255) ?? 255)
              link.close()
              break
            default: // a later version's frame
          }
        },
        (error) => {
          reject(error ?? new LinkClosed('the exec session was closed'))
          // The VM has gone, and the process with it: killed, as seen from outside.
          end(137)
        },
      )
      const stream = new ExecStream(link, options.tty, options.stdin)
      stream.on('error', () => {}) // an unread error must not end the daemon; the reader has its own listener
      if (timeoutMs > 0) {
        timer = setTimeout(() => {
          reject(new StartFailure({ code: 125, message: NO_ANSWER }))
          link.close()
        }, timeoutMs)
      }
      link.sendLong(type, payload)
    }).finally(() => clearTimeout(timer))
  }

  private async acknowledged(type: number, entries: readonly TextEntry[]): Promise<boolean> {
    try {
      return await this.once<boolean>(
        (link) => link.send(type, encodeText(entries)),
        (frame, resolve) => {
          if (frame.type === FrameType.REPLY) resolve(textMap(decodeText(frame.payload)).get('ok') === '1')
        },
        ANSWER_TIMEOUT,
      )
    } catch (error) {
      if (error instanceof LinkClosed) return false
      throw error
    }
  }

  /** One connection, one answer. `timeoutMs` 0: for as long as it takes. */
  private async once<T>(
    ask: (link: Link) => void,
    answer: (frame: Frame, resolve: (value: T) => void, reject: (error: Error) => void) => void,
    timeoutMs: number,
  ): Promise<T> {
    const socket = await connectSocket(this.socketPath, this.uid)
    let timer: NodeJS.Timeout | undefined
    let link: Link | undefined
    try {
      return await new Promise<T>((resolve, reject) => {
        if (timeoutMs > 0) timer = setTimeout(() => reject(new Error(NO_ANSWER)), timeoutMs)
        link = new Link(socket, (frame) => answer(frame, resolve, reject), (error) => reject(error ?? new LinkClosed('closed')))
        ask(link)
      })
    } finally {
      clearTimeout(timer)
      link?.close()
    }
  }
}

function startedPid(frame: Frame): number {
  return textNumber(textMap(decodeText(frame.payload)), 'pid', 1, 2 ** 31) ?? 0
}

/** Of a terminal's size the lower 16 bits count, as in Docker. */
const sizeEntries = (rows: number, columns: number): TextEntry[] => [['rows', String(rows & 0xffff)], ['columns', String(columns & 0xffff)]]
