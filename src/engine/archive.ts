import { posix } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { badRequest, HullError, internal, messageOf, notFound } from '../base/errors.js'
import { FileError, type FileJob, type FileOperation, type FileStat } from '../sandbox/files.js'
import type { ArchiveStat } from './api-types.js'
import type { Container } from './container.js'
import type { Lifecycle } from './lifecycle.js'
import type { ContainerRecord } from './store.js'

/** Linux's numbers (errno(3)). */
const ENOENT = 2
const ENOTDIR = 20
const EROFS = 30
/** EIO, ENOMEM, ENFILE, EMFILE, ENOSPC, EDQUOT: the host's fault. Everything else is what the archive or the path asks for and cannot have. */
const HOST_FAULTS: readonly number[] = [5, 12, 23, 24, 28, 122]

/** What the answer to `docker diff` may have, since all of it is in memory at once and a guest may say anything. hull-files knows no longer paths than 32 KiB. */
const CHANGES = { bytes: 64 << 20, paths: 1_000_000, path: 65_536 }
const KINDS: Record<string, 0 | 1 | 2> = { C: 0, A: 1, D: 2 }

/** Bits of Go's os.FileMode beyond the permissions (pkg.go.dev/io/fs#FileMode), by the kind in st_mode. */
const GO_KIND: Record<number, number> = {
  0o040000: 2 ** 31, 0o120000: 2 ** 27, 0o060000: 2 ** 26, 0o020000: 2 ** 26 + 2 ** 21, 0o010000: 2 ** 25, 0o140000: 2 ** 24,
}

/** st_mode in Go's form, which Docker's API uses. */
export function goFileMode(mode: number): number {
  let result = (mode & 0o777) + (GO_KIND[mode & 0o170000] ?? 0)
  if (mode & 0o4000) result += 2 ** 23
  if (mode & 0o2000) result += 2 ** 22
  if (mode & 0o1000) result += 2 ** 20
  return result
}

/** The absolute, clean path; a slash or '/.' at the end stays, since it means "the directory behind the link" (moby PreserveTrailingDotOrSeparator). */
export function archivePathOf(path: string): string {
  if (path.includes('\0')) throw badRequest('invalid path: it contains a NUL byte')
  let clean = posix.normalize(`/${path}`).replace(/(?<=.)\/+$/, '')
  const base = path.slice(path.lastIndexOf('/') + 1)
  if (base === '.') clean += clean.endsWith('/') ? '.' : '/.'
  else if (path.endsWith('/') && !clean.endsWith('/')) clean += '/'
  return clean
}

/** Go's filepath.Base: the name of a path in the API and in the archive. */
const baseOf = (path: string): string => posix.basename(path) || '/'

function statOf(path: string, stat: FileStat): ArchiveStat {
  return { name: baseOf(path), size: stat.size, mode: goFileMode(stat.mode), mtime: stat.mtime, linkTarget: stat.link }
}

/** A failure in Docker's words. `reference`: the container as the client named it. */
function translated(error: unknown, path: string, reference: string, found: boolean): Error {
  if (!(error instanceof FileError)) return error instanceof Error ? error : internal(messageOf(error), error)
  const { errno, message } = error
  if (!found && errno === ENOENT) return notFound(`Could not find the file ${path} in container ${reference}`, error)
  if (errno === EROFS) return badRequest(message.replace(/: Read-only file system$/, ''), error)
  return HOST_FAULTS.includes(errno) ? internal(message, error) : badRequest(message, error)
}

/** The bind or volume that `path` lies in, by names, as moby looks (checkIfPathIsInAVolume). */
function volumeOf(record: ContainerRecord, path: string): ContainerRecord['mounts'][number] | undefined {
  const clean = posix.normalize(`${path}/`)
  return record.mounts
    .filter((mount) => mount.type !== 'tmpfs' && clean.startsWith(`${posix.normalize(mount.target).replace(/\/$/, '')}/`))
    .sort((a, b) => b.target.length - a.target.length)[0]
}

/** Docker takes compressed archives as well. */
async function decompressed(tar: Readable): Promise<Readable> {
  const first = await new Promise<Buffer>((resolve, reject) => {
    const look = () => {
      const chunk = tar.read() as Buffer | null
      if (chunk === null) return tar.readableEnded ? finish(Buffer.alloc(0)) : undefined
      tar.unshift(chunk)
      finish(chunk)
    }
    const finish = (chunk: Buffer) => {
      tar.off('readable', look).off('end', ended).off('error', reject)
      resolve(chunk)
    }
    const ended = () => finish(Buffer.alloc(0))
    tar.on('readable', look).once('end', ended).once('error', reject)
  })
  if (first[0] === 0x1f && first[1] === 0x8b) {
    const gunzip = createGunzip()
    pipeline(tar, gunzip).catch(() => {}) // the reader of gunzip learns of it
    return gunzip
  }
  const magic = first.subarray(0, 6).toString('latin1')
  if (magic.startsWith('BZh') || magic.startsWith('\xfd7zXZ') || magic.startsWith('\x28\xb5\x2f\xfd')) {
    throw badRequest('Hull takes archives that are not compressed, or compressed with gzip')
  }
  return tar
}

/** `docker cp` and `docker export`: the files of a container, whether it runs or not. */
export class Archive {
  constructor(private readonly lifecycle: Lifecycle) {}

  async stat(container: Container, reference: string, rawPath: string): Promise<ArchiveStat> {
    const path = archivePathOf(rawPath)
    const job = await this.lifecycle.openFiles(container, { op: 'stat', path })
    job.output.resume()
    try {
      await job.done
      return statOf(path, (await job.head)!)
    } catch (error) {
      throw translated(error, rawPath, reference, false)
    }
  }

  async get(container: Container, reference: string, rawPath: string, signal: AbortSignal): Promise<{ stat: ArchiveStat; tar: Readable }> {
    const path = archivePathOf(rawPath)
    const job = await this.#open(container, { op: 'get', path, name: baseOf(path) }, signal)
    try {
      const stat = (await job.head)!
      this.lifecycle.announce(container, 'archive-path')
      return { stat: statOf(path, stat), tar: job.output }
    } catch (error) {
      throw translated(error, rawPath, reference, false)
    }
  }

  async put(container: Container, reference: string, rawPath: string, tar: Readable, options: { noOverwriteDirNonDir: boolean; copyUidGid: boolean }): Promise<void> {
    const path = archivePathOf(rawPath)
    const { record } = container
    const gone = new AbortController()
    tar.once('close', () => (tar.readableEnded ? undefined : gone.abort()))
    try {
      if (record.hostConfig.ReadonlyRootfs && !volumeOf(record, path)) {
        await this.stat(container, reference, rawPath)
        throw badRequest('container rootfs is marked read-only')
      }
      if (volumeOf(record, path)?.readOnly) throw badRequest('mounted volume is marked read-only')
      const job = await this.#open(container, { op: 'put', path, noOverwrite: options.noOverwriteDirNonDir, owner: options.copyUidGid ? record.config.User : '' }, gone.signal)
      await job.head.catch((error: unknown) => {
        if (error instanceof FileError && error.errno === ENOTDIR) throw badRequest('extraction point is not a directory', error)
        throw translated(error, rawPath, reference, false)
      })
      await this.#send(tar, job)
    } finally {
      tar.destroy() // the rest of the body is dropped
    }
    this.lifecycle.announce(container, 'extract-to-dir')
  }

  async #send(tar: Readable, job: FileJob): Promise<void> {
    job.output.resume()
    let cut: unknown
    try {
      await pipeline(await decompressed(tar), job.input)
    } catch (error) {
      cut = error
      // The job may have ended first, and says why; else it waits for the rest of an archive that will not come.
      const ended = await Promise.race([job.done.then(() => true, () => true), new Promise<false>((resolve) => setTimeout(resolve, 200, false))])
      if (!ended) job.cancel()
    }
    try {
      await job.done
    } catch (error) {
      if (cut instanceof HullError) throw cut
      if (error instanceof FileError && error.errno === 5 && cut !== undefined) throw badRequest(`the archive could not be read to its end: ${messageOf(cut)}`, cut)
      throw translated(error, '', '', true)
    }
    if (cut instanceof HullError) throw cut
  }

  /** `docker export`. */
  async export(container: Container, signal: AbortSignal): Promise<Readable> {
    const job = await this.#open(container, { op: 'export' }, signal)
    this.lifecycle.announce(container, 'export')
    return job.output
  }

  /** `docker diff`. */
  async changes(container: Container, signal: AbortSignal): Promise<{ path: string; kind: 0 | 1 | 2 }[]> {
    const job = await this.#open(container, { op: 'changes' }, signal)
    const found: { path: string; kind: 0 | 1 | 2 }[] = []
    let [bytes, paths] = [0, 0]
    let rest: Buffer = Buffer.alloc(0) // of a path whose end has not come yet
    for await (const chunk of job.output) {
      bytes += (chunk as Buffer).length
      const text = Buffer.concat([rest, chunk as Buffer])
      let at = 0
      for (let end = text.indexOf(0); end >= 0 && paths <= CHANGES.paths; end = text.indexOf(0, at)) {
        const kind = KINDS[String.fromCharCode(text[at]!)]
        if (kind !== undefined && end > at + 1) found.push({ kind, path: text.toString('utf8', at + 1, end) })
        at = end + 1
        paths++
      }
      rest = text.subarray(at)
      if (bytes > CHANGES.bytes || paths > CHANGES.paths || rest.length > CHANGES.path) {
        job.cancel()
        throw internal(`container ${container.id} has more changes than can be listed (${CHANGES.paths} paths, ${CHANGES.bytes >> 20} MiB)`)
      }
    }
    await job.done
    return found
  }

  /** Bytes that the container wrote to its own layer. */
  async size(container: Container, signal?: AbortSignal): Promise<number> {
    const job = await this.#open(container, { op: 'size' }, signal)
    job.output.resume()
    const { size } = await job.done
    // A guest may say anything, and one number that Go's int64 does not take costs a client the whole list.
    if (!Number.isSafeInteger(size) || size < 0) throw internal(`container ${container.id} does not tell its size`)
    return size
  }

  async #open(container: Container, operation: FileOperation, signal?: AbortSignal): Promise<FileJob> {
    const job = await this.lifecycle.openFiles(container, operation)
    if (signal?.aborted) job.cancel()
    else signal?.addEventListener('abort', job.cancel, { once: true })
    return job
  }
}
