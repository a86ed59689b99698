import { randomBytes } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { badRequest, codeOf, messageOf } from '../base/errors.js'
import { log } from '../base/log.js'
import { FileError, type FileJob, type FileOperation } from '../sandbox/files.js'
import type { WorkloadSpec } from '../sandbox/types.js'
import type { ContainerEngine, CreateContainerRequest } from './api-types.js'
import type { LifecycleParts, Lifecycle } from './lifecycle.js'
import { workloadSpec } from './spec.js'
import type { ContainerRecord } from './store.js'

const ENOENT = 2
/** Marks what belongs to a build, so that the next daemon can take it away when this one dies. */
const annotation = 'hull.build'
const workPrefix = 'build'

/** A writable view of an image on which files are put, without a container: hull-files does the work behind its wall (decision 0008). */
export class BuildWork {
  private constructor(
    private readonly parts: LifecycleParts,
    private readonly spec: WorkloadSpec,
  ) {}

  static async open(parts: LifecycleParts, image: string, template: CreateContainerRequest): Promise<BuildWork> {
    const id = `${workPrefix}${randomBytes(16).toString('hex')}`
    const record: ContainerRecord = {
      version: 1, id, name: id, created: new Date().toISOString(), imageId: image, imageRef: image, isolation: 'process',
      config: { ...structuredClone(template.config), Cmd: ['true'] }, hostConfig: { ...structuredClone(template.hostConfig), NetworkMode: 'none', ExtraHosts: [] }, ports: [], mounts: [], networks: [],
      warnings: [], restartCount: 0, state: { status: 'created', starting: false, exitCode: 0, error: '', oomKilled: false, stoppedByUser: false },
    }
    const root = await parts.images.rootfs(image)
    return new BuildWork(parts, await workloadSpec(record, root, parts.paths, { hostGateway: '', network: { mode: 'none' }, hosts: [], nameServer: '', env: [] }))
  }

  /** 'directory', 'file' or 'nothing': what `path` (absolute) leads to. */
  async kind(path: string, depth = 0): Promise<'directory' | 'file' | 'nothing'> {
    const job = await this.job({ op: 'stat', path })
    job.output.resume()
    try {
      await job.done
      const { mode, link } = (await job.head)!
      if ((mode & 0o170000) === 0o040000) return 'directory'
      if ((mode & 0o170000) === 0o120000 && depth === 0) return link === '' || link === path ? 'nothing' : await this.kind(link, 1)
      return 'file'
    } catch (error) {
      if (error instanceof FileError && error.errno === ENOENT) return 'nothing'
      throw asRequest(error)
    }
  }

  /** The path behind a symbolic link; the path itself when it is none. */
  async target(path: string): Promise<string> {
    const job = await this.job({ op: 'stat', path })
    job.output.resume()
    try {
      await job.done
      return (await job.head)!.link || path
    } catch (error) {
      throw asRequest(error)
    }
  }

  /** A tar of `path`, for another image. */
  async get(path: string, name: string): Promise<FileJob> {
    const job = await this.job({ op: 'get', path, name })
    try {
      await job.head
      return job
    } catch (error) {
      job.output.destroy()
      throw asRequest(error)
    }
  }

  /** Unpacks a tar over the root. `owner`: 'user:group' that gets everything, '' for what the tar says. */
  async put(tar: AsyncIterable<Buffer>, owner: string): Promise<void> {
    const job = await this.job({ op: 'put', path: '/', noOverwrite: false, owner })
    job.output.resume()
    try {
      await job.head
      // When the job ends first it says why; the pipe's own error says nothing.
      const sent = pipeline(Readable.from(tar, { objectMode: false }), job.input).catch((error: unknown) => {
        if (codeOf(error) !== 'EPIPE' && codeOf(error) !== 'ERR_STREAM_PREMATURE_CLOSE') {
          job.cancel()
          throw error
        }
      })
      const [result, input] = await Promise.allSettled([job.done, sent])
      if (input.status === 'rejected') throw input.reason
      if (result.status === 'rejected') throw result.reason
    } catch (error) {
      throw asRequest(error)
    }
  }

  /** What was put, as a layer. */
  layer(): Promise<FileJob> {
    return this.job({ op: 'layer', freeze: false })
  }

  private job(operation: FileOperation): Promise<FileJob> {
    return this.parts.drivers.process.files(this.spec, operation)
  }

  close(): Promise<void> {
    return this.parts.drivers.process.removeState(this.spec)
  }
}

const asRequest = (error: unknown): unknown => (error instanceof FileError ? badRequest(error.message, error) : error)

/** The text of a stream in Docker's 8-byte framing, both streams as they come. Bytes that are no UTF-8 become U+FFFD. */
async function* framedText(source: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest: Buffer = Buffer.alloc(0)
  for await (const chunk of source) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    while (rest.length >= 8 && rest.length >= 8 + rest.readUInt32BE(4)) {
      const end = 8 + rest.readUInt32BE(4)
      const text = decoder.decode(rest.subarray(8, end), { stream: true })
      if (text !== '') yield text
      rest = rest.subarray(end)
    }
  }
}

/** Runs a step's command in a container and hands its changes to `onChanges`. Whatever happens the container is gone afterwards, unless `keep` and it succeeded. */
export async function runStep(
  containers: ContainerEngine, lifecycle: Lifecycle, request: CreateContainerRequest,
  options: { keep: boolean; signal: AbortSignal; onStart: (id: string) => void; onOutput: (text: string) => void; onChanges: (job: FileJob) => Promise<void> },
): Promise<number> {
  const { signal } = options
  signal.throwIfAborted()
  const marked = options.keep ? request : { ...request, hostConfig: { ...request.hostConfig, Annotations: { ...request.hostConfig.Annotations, [annotation]: 'step' } } }
  const { id } = await containers.create(marked)
  const remove = () => containers.remove(id, { volumes: true, force: true, link: false })
  let succeeded = false
  try {
    options.onStart(id)
    const { duplex } = await containers.attach(id, { logs: false, stream: true, stdin: false, stdout: true, stderr: true })
    const stop = () => {
      duplex.destroy()
      void remove().catch(() => {}) // again below, where it counts
    }
    signal.addEventListener('abort', stop, { once: true })
    try {
      const { exit } = await containers.wait(id, 'next-exit', signal)
      await containers.start(id)
      signal.throwIfAborted()
      try {
        for await (const text of framedText(duplex as AsyncIterable<Buffer>)) options.onOutput(text)
      } catch (error) {
        signal.throwIfAborted()
        throw error
      }
      const aborted = new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true }))
      aborted.catch(() => {})
      signal.throwIfAborted()
      const { exitCode } = await Promise.race([exit, aborted])
      if (exitCode !== 0) return exitCode
      const job = await lifecycle.openFiles(lifecycle.parts.registry.get(id), { op: 'layer', freeze: false })
      try {
        await options.onChanges(job)
        await job.done
      } finally {
        job.cancel()
      }
      succeeded = true
      return 0
    } finally {
      signal.removeEventListener('abort', stop)
      duplex.destroy()
    }
  } finally {
    if (!succeeded || !options.keep) await remove().catch((error: unknown) => log.warn('cannot remove the container of a build step', { id, error: messageOf(error) }))
  }
}

/** At start: what the builds of a daemon that died left. Nobody waits for them any more. */
export async function removeInterruptedBuilds(parts: LifecycleParts, containers: ContainerEngine, dataRoot: string): Promise<void> {
  for (const container of parts.registry.all()) {
    if (container.record.hostConfig.Annotations[annotation] === undefined) continue
    await containers.remove(container.id, { volumes: true, force: true, link: false }).catch((error: unknown) => log.warn('cannot remove the container of a build', { id: container.id, error: messageOf(error) }))
  }
  const names = await readdir(join(dataRoot, 'overlay')).catch(() => [])
  for (const name of names) {
    if (name.startsWith(workPrefix)) await parts.drivers.process.removeState({ id: name, stateDir: '', runDir: join(parts.paths.execRoot, 'containers', name) })
  }
}
