import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { tarEnd, tarHeader, tarPadding } from '../../base/tar.js'
import { ApiError } from '../../cli/errors.js'
import type { CompareContext, Way } from '../context.js'
import { Lines } from '../lines.js'
import type { DrillName } from '../types.js'
import { usageOf, type Usage } from './limits.js'
import { LONGEST_LINE, parseReport, type DrillReport } from './report.js'
import { program } from './stage.js'

/** Where the program lies in a container: where no image, however hostile, can have put another one, a link, or a volume. */
const placeOf = () => `.hull-drills-${randomBytes(8).toString('hex')}`
export const PIDS_LIMIT = 64
/** Bytes. A VM keeps its own size: of another one there is no template. */
export const MEMORY_LIMIT = 64 << 20
/** ms until a drill has said something; the program gives itself as long. */
const SAYS_WITHIN = 120_000
const ENDS_WITHIN = 10_000
const CRASHES_WITHIN = 60_000

export const isVm = (way: Way): boolean => way.name === 'vm' || way.name === 'vm-cold'

/** A container of the image that runs nothing of the image's: our program, which waits. It ends with our connection to its stdin, and is removed by the daemon then, or by {@link Instances}. */
export class DrillContainer {
  private constructor(
    private readonly context: CompareContext,
    readonly id: string,
    private readonly path: string,
    private readonly stdin: { destroy: () => void },
  ) {}

  /** The host's view of its cgroup before any drill; null: it cannot be read. */
  before: Usage | null = null

  static async start(context: CompareContext, way: Way, privileged: boolean): Promise<DrillContainer> {
    const { client, instances, signal } = context
    const place = placeOf()
    const id = await instances.create({
      Image: context.image, Entrypoint: [`/${place}/drill`], Cmd: ['wait'], User: '0:0', WorkingDir: '/', Healthcheck: { Test: ['NONE'] },
      OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true,
      HostConfig: {
        ...way.hostConfig, Privileged: privileged, AutoRemove: true, PidsLimit: PIDS_LIMIT, ...(isVm(way) ? {} : { Memory: MEMORY_LIMIT, MemorySwap: MEMORY_LIMIT }),
      },
    })
    try {
      await putProgram(context, id, place, 'drill', program)
      const { stream } = await client.hijack('POST', `/containers/${id}/attach`, { query: { stream: true, stdin: true, stdout: true }, signal })
      stream.on('error', () => {}).resume()
      await client.call('POST', `/containers/${id}/start`, { signal })
      const container = new DrillContainer(context, id, `/${place}/drill`, stream)
      container.before = await usageOf((await container.state()).Pid)
      return container
    } catch (error) {
      await instances.remove(id)
      throw error
    }
  }

  /** As `docker inspect` has it; one that the daemon has removed does not run. */
  async state(): Promise<{ Running: boolean; Pid: number }> {
    try {
      const { State } = await this.context.client.json<{ State: { Running: boolean; Pid: number } }>('GET', `/containers/${this.id}/json`)
      return State
    } catch (error) {
      if (error instanceof ApiError && error.statusCode === 404) return { Running: false, Pid: 0 }
      throw error
    }
  }

  /** Tries a drill. `meanwhile` is called when it has said what came of it, and still holds what it got. Undefined: it ended without a word that can be understood. */
  async try(drill: DrillName, words: readonly string[], meanwhile: () => Promise<void> = () => Promise.resolve()): Promise<DrillReport | undefined> {
    const { client } = this.context
    const signal = AbortSignal.any([this.context.signal, AbortSignal.timeout(SAYS_WITHIN)])
    const { Id } = await client.json<{ Id: string }>('POST', `/containers/${this.id}/exec`, { body: { AttachStdin: true, AttachStdout: true, AttachStderr: true, Cmd: [this.path, drill, ...words] }, signal })
    const { stream } = await client.hijack('POST', `/exec/${Id}/start`, { body: { Detach: false, Tty: false }, signal })
    const stop = () => stream.destroy()
    signal.addEventListener('abort', stop, { once: true })
    try {
      const ended = new Promise<void>((resolve) => stream.once('close', resolve).once('end', resolve))
      const line = await new Lines(stream, LONGEST_LINE).next()
      this.context.signal.throwIfAborted()
      await meanwhile()
      stream.end()
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, ENDS_WITHIN).unref())])
      return line === undefined ? undefined : parseReport(line, drill)
    } finally {
      signal.removeEventListener('abort', stop)
      stream.destroy()
    }
  }

  /** Tries a drill that may end the whole container. */
  async tryToEnd(drill: DrillName, words: readonly string[]): Promise<{ report: DrillReport | undefined; running: boolean; exitCode: number }> {
    const { client, signal } = this.context
    const giveUp = new AbortController()
    // The daemon removes it when it ends: its exit code is asked for before.
    const exit = client.json<{ StatusCode: number }>('POST', `/containers/${this.id}/wait`, { query: { condition: 'removed' }, signal: AbortSignal.any([signal, giveUp.signal]) }).catch(() => undefined)
    try {
      const report = await this.try(drill, words).catch(() => undefined) // the connection may go with it
      signal.throwIfAborted()
      const timer = setTimeout(() => giveUp.abort(), report ? 0 : CRASHES_WITHIN)
      const ended = await exit
      clearTimeout(timer)
      signal.throwIfAborted()
      return { report, running: !ended, exitCode: ended?.StatusCode ?? 0 }
    } finally {
      giveUp.abort()
    }
  }

  async remove(): Promise<void> {
    await this.context.instances.remove(this.id)
    this.stdin.destroy()
  }
}

/** Puts a program into a container that has not started, as /PLACE/NAME, in a directory of its own. */
export async function putProgram({ client, signal }: CompareContext, id: string, place: string, name: string, program: string): Promise<void> {
  const bytes = await readFile(program)
  const owner = { uid: 0, gid: 0, mtime: 0 }
  const archive = Buffer.concat([
    tarHeader({ name: `${place}/`, type: 'dir', mode: 0o755, ...owner }), tarHeader({ name: `${place}/${name}`, type: 'file', mode: 0o755, size: bytes.length, ...owner }),
    bytes, tarPadding(bytes.length), tarEnd(),
  ])
  const headers = { 'Content-Type': 'application/x-tar', 'Content-Length': archive.length }
  await client.call('PUT', `/containers/${id}/archive`, { query: { path: '/' }, upload: Readable.from([archive]), headers, signal })
}
