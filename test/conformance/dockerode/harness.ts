import { PassThrough } from 'node:stream'
import Docker from 'dockerode'
import { exec, sleep, until } from '../../lib/daemon.js'
import { testImage } from '../../lib/image.js'
import { tar } from '../../lib/tar.js'

export { sleep, testImage, until }

/** What a check runs against. */
export interface Target {
  /** Path of the daemon's socket. */
  socket: string
  /** HOST:PORT of a registry that both the daemon and the client reach, with `remote` in it. */
  registry: string
  /** NAME of an image there, its tag is 1. */
  remote: string
}

export interface Check {
  name: string
  run: (c: Context) => Promise<void>
}

/** Every check, in the order of declaration. */
export const checks: Check[] = []

export function check(area: string, name: string, run: (c: Context) => Promise<void>): void {
  checks.push({ name: `${area}/${name}`, run })
}

/** One check for each row of a table. */
export function cases<Row extends unknown[]>(area: string, name: string, rows: [string, ...Row][], run: (c: Context, ...row: Row) => Promise<void>): void {
  for (const [row, ...values] of rows) check(area, `${name}: ${row}`, (c) => run(c, ...values))
}

export interface Options extends Docker.ContainerCreateOptions {
  /** Runs as `sh -c`. */
  script?: string
}

const shared = new Map<string, Promise<Docker.Container>>()
let numbers = 0

/** A client for one check, and what is taken away after it. */
export class Context {
  readonly docker: Docker
  readonly #later: (() => Promise<unknown>)[] = []

  constructor(readonly target: Target) {
    this.docker = new Docker({ socketPath: target.socket })
  }

  name(): string {
    return `node${process.pid}-${++numbers}`
  }

  later(work: () => Promise<unknown>): void {
    this.#later.push(work)
  }

  async create({ script, ...options }: Options = {}): Promise<Docker.Container> {
    const made = await this.docker.createContainer({ Image: testImage, ...(script === undefined ? {} : { Cmd: ['sh', '-c', script] }), ...options })
    this.later(() => made.remove({ force: true, v: true }))
    return made
  }

  async start(options: Options = {}): Promise<Docker.Container> {
    // Another image starts as it likes to.
    const made = await this.create({ ...(options.Image === undefined ? { script: 'trap "exit 0" TERM; while :; do sleep 0.2; done' } : {}), ...options })
    await made.start()
    return made
  }

  /** Runs to the end: exit code and both outputs. */
  async run(script: string, options: Options = {}): Promise<{ code: number; out: string; err: string }> {
    const made = await this.start({ script, ...options })
    const { StatusCode: code } = (await made.wait()) as { StatusCode: number }
    const log = demuxed(await made.logs({ stdout: true, stderr: true }))
    return { code, ...log }
  }

  /** A running container that nobody changes. */
  async shared(): Promise<Docker.Container> {
    let made = shared.get(this.target.socket)
    if (!made) {
      made = (async () => {
        const container = await this.docker.createContainer({ name: this.name(), Image: testImage, Labels: { shared: 'yes' }, Cmd: ['sh', '-c', 'echo ready; trap "exit 0" TERM; while :; do sleep 0.2; done'] })
        await container.start()
        await until('it is ready', async () => demuxed(await container.logs({ stdout: true })).out === 'ready\n')
        return container
      })()
      shared.set(this.target.socket, made)
    }
    return made
  }

  async network(options: Partial<Docker.NetworkCreateOptions> = {}): Promise<Docker.Network> {
    const made = await this.docker.createNetwork({ Name: this.name(), ...options })
    this.later(() => made.remove())
    return made
  }

  async volume(options: Docker.VolumeCreateOptions = {}): Promise<Docker.Volume> {
    const name = options.Name ?? this.name()
    await this.docker.createVolume({ Name: name, ...options })
    const made = this.docker.getVolume(name)
    this.later(() => made.remove())
    return made
  }

  /** Takes away what the check made, newest first. What is gone already is fine. */
  async end(): Promise<void> {
    for (const work of this.#later.reverse()) await work().catch(() => undefined)
  }

  /** After the last check. */
  static async endShared(socket: string): Promise<void> {
    const made = shared.get(socket)
    if (made) await (await made).remove({ force: true, v: true }).catch(() => undefined)
    shared.delete(socket)
  }

  /** One exec: exit code and outputs. */
  async exec(container: Docker.Container, words: string[], options: Docker.ExecCreateOptions = {}, input?: string): Promise<{ code: number | null; out: string; err: string }> {
    const exec = await container.exec({ Cmd: words, AttachStdout: true, AttachStderr: true, AttachStdin: input !== undefined, ...options })
    const stream = await exec.start({ hijack: true, stdin: input !== undefined, Tty: options.Tty ?? false })
    if (input !== undefined) stream.end(input)
    const said = options.Tty ? { out: (await text(stream)).toString(), err: '' } : await this.demux(stream)
    return { code: (await exec.inspect()).ExitCode, ...said }
  }

  /** Both outputs of a framed stream, to its end. */
  async demux(stream: NodeJS.ReadableStream): Promise<{ out: string; err: string }> {
    const out = new PassThrough()
    const err = new PassThrough()
    this.docker.modem.demuxStream(stream, out, err)
    stream.on('end', () => {
      out.end()
      err.end()
    })
    const [first, second] = await Promise.all([text(out), text(err)])
    return { out: first.toString(), err: second.toString() }
  }

  /** The lines of a progress stream. */
  progress(stream: NodeJS.ReadableStream): Promise<Record<string, unknown>[]> {
    return new Promise((resolve, reject) => this.docker.modem.followProgress(stream, (error, lines) => (error ? reject(error) : resolve(lines as Record<string, unknown>[]))))
  }
}

/** Both outputs of a framed log that came whole. */
export function demuxed(data: Buffer): { out: string; err: string } {
  const parts: [string[], string[], string[]] = [[], [], []]
  for (let at = 0; at + 8 <= data.length; ) {
    const length = data.readUInt32BE(at + 4)
    parts[data[at]! as 0 | 1 | 2].push(data.subarray(at + 8, at + 8 + length).toString())
    at += 8 + length
  }
  return { out: parts[1].join(''), err: parts[2].join('') }
}

/** A stream, whole. */
export async function text(stream: NodeJS.ReadableStream): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

/** A tar of names and texts. */
export const tarOf = (files: Record<string, string>): Buffer => tar(Object.entries(files).map(([name, content]) => ({ name, content, mtime: 1_700_000_000 })))

/** Names and texts of a tar, read by the system's own; directories have null. */
export async function untar(data: Buffer): Promise<Record<string, string | null>> {
  const found: Record<string, string | null> = {}
  for (const name of (await exec('tar', ['-tf', '-'], { input: data })).stdout.split('\n').filter((line) => line !== '')) {
    found[name] = name.endsWith('/') ? null : (await exec('tar', ['-xOf', '-', name], { input: data })).stdout
  }
  return found
}

/** The call must fail with this status and these words in Docker's message. */
export async function refused(status: number, words: RegExp, call: Promise<unknown>): Promise<void> {
  const error = await call.then(
    () => undefined,
    (caught: unknown) => caught as { statusCode?: number; json?: { message?: string }; message: string },
  )
  if (!error) throw new Error(`no error, where ${status} ${String(words)} should be`)
  const message = error.json?.message ?? error.message
  if (error.statusCode !== status || !words.test(message)) throw new Error(`${String(error.statusCode)} ${JSON.stringify(message)}, not ${status} ${String(words)}`)
}
