import { createHash, type Hash } from 'node:crypto'
import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf, HullError } from '../base/errors.js'
import { Flights, Slots } from '../base/flights.js'
import type { ContentStore } from './content.js'
import type { Descriptor } from './manifests.js'
import { isTransient, type RegistryClient } from './registry/client.js'
import { TransportError } from './registry/http.js'

/** What happens to a blob, for the progress stream. */
export type FetchProgress =
  | { phase: 'downloading'; current: number; total: number }
  | { phase: 'retrying'; seconds: number }
  | { phase: 'verifying' }

/** Tries without any byte in between before giving up; Docker's max-download-attempts. */
const attempts = 5
/** Bytes that are written at once. */
const batchBytes = 1 << 20

/** A download under way: how much of the file is there, and its digest so far. */
interface Download {
  file: FileHandle
  hash: Hash
  size: number
  /** The bytes come from more than one answer: a wrong digest may be the seam's fault. */
  pieced: boolean
}

export interface FetcherOptions {
  /** Downloads at a time, over all pulls (Docker's max-concurrent-downloads). */
  concurrency?: number
  /** First pause before another try, milliseconds; doubles. */
  backoffMs?: number
}

/** Downloads blobs to `ingest/<hex>.partial`, verified; one download per blob however many callers wait. */
export class BlobFetcher {
  private readonly flights = new Flights<string, FetchProgress>()
  private readonly slots: Slots
  private readonly backoffMs: number

  constructor(private readonly content: ContentStore, options: FetcherOptions = {}) {
    this.slots = new Slots(options.concurrency ?? 3)
    this.backoffMs = options.backoffMs ?? 500
  }

  /** True when a new download would have to wait for its turn. */
  get busy(): boolean {
    return this.slots.busy
  }

  /** Resolves with the path of the verified file. What was there already, of an earlier daemon too, is not fetched again. */
  fetch(client: RegistryClient, blob: Descriptor, options: { signal?: AbortSignal; onProgress?: (progress: FetchProgress) => void } = {}): Promise<string> {
    return this.flights.run(
      blob.digest,
      (signal, notify) => this.slots.run(() => this.download(client, blob, signal, notify), signal),
      options,
    )
  }

  private async download(client: RegistryClient, blob: Descriptor, signal: AbortSignal, notify: (progress: FetchProgress) => void): Promise<string> {
    const path = this.content.partialPath(blob.digest)
    const download: Download = { file: await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600), hash: createHash('sha256'), size: 0, pieced: false }
    try {
      await this.resume(download, blob, signal)
      for (let failures = 0; ; ) {
        const before = download.size
        try {
          if (download.size < blob.size || blob.size === 0) await this.transfer(client, download, blob, signal, notify)
          if (await this.verify(download, blob, notify)) return path
          continue // what was pieced together is wrong: once more, from the start
        } catch (error) {
          signal.throwIfAborted()
          failures = download.size > before ? 1 : failures + 1
          if (!isTransient(error) || failures >= attempts) throw error
          const pause = this.backoffMs * 2 ** (failures - 1)
          notify({ phase: 'retrying', seconds: Math.ceil(pause / 1000) })
          await sleep(pause, undefined, { signal })
        }
      }
    } catch (error) {
      // The disk is full, or the content is wrong: nothing that could be resumed stays. After a network failure it does.
      if (!signal.aborted && !isTransient(error)) await this.content.removePartial(blob.digest)
      if (codeOf(error) === 'ENOSPC') throw new HullError(500, `failed to store layer ${blob.digest}: no space left on device`, { cause: error })
      throw error
    } finally {
      await download.file.close()
    }
  }

  /** Hashes what an earlier download left. */
  private async resume(download: Download, blob: Descriptor, signal: AbortSignal): Promise<void> {
    const { size } = await download.file.stat()
    if (size > blob.size) return this.restart(download)
    const buffer = Buffer.allocUnsafe(batchBytes)
    while (download.size < size) {
      signal.throwIfAborted()
      const { bytesRead } = await download.file.read(buffer, 0, buffer.length, download.size)
      if (bytesRead === 0) break
      download.hash.update(buffer.subarray(0, bytesRead))
      download.size += bytesRead
    }
    download.pieced = download.size > 0
  }

  private async restart(download: Download): Promise<void> {
    await download.file.truncate(0)
    download.hash = createHash('sha256')
    download.size = 0
    download.pieced = false
  }

  /** Appends one answer of the registry to the file. */
  private async transfer(client: RegistryClient, download: Download, blob: Descriptor, signal: AbortSignal, notify: (progress: FetchProgress) => void): Promise<void> {
    if (download.size > 0) download.pieced = true
    const { response, offset } = await client.blob(blob.digest, download.size, signal)
    try {
      if (offset !== download.size) await this.restart(download)
      let writing: Promise<unknown> = Promise.resolve()
      try {
        for await (const batch of batches(response, client.blobUrl(blob.digest))) {
          await writing // one batch is being written while the next one arrives
          const position = download.size
          for (const chunk of batch) {
            download.hash.update(chunk)
            download.size += chunk.length
          }
          if (download.size > blob.size) throw new HullError(500, `layer ${blob.digest} is larger than the ${blob.size} bytes that its manifest says`)
          writing = download.file.writev(batch, position).then(({ bytesWritten }) => {
            if (bytesWritten !== batch.reduce((sum, chunk) => sum + chunk.length, 0)) throw Object.assign(new Error('ENOSPC: short write'), { code: 'ENOSPC' })
          })
          writing.catch(() => {}) // awaited above or below
          notify({ phase: 'downloading', current: download.size, total: blob.size })
        }
      } finally {
        await writing
      }
    } finally {
      response.destroy()
    }
    if (download.size < blob.size) throw new TransportError('GET', client.blobUrl(blob.digest), new Error('unexpected EOF'))
  }

  /** True: whole and right. False: was pieced together, and has been emptied for another try. */
  private async verify(download: Download, blob: Descriptor, notify: (progress: FetchProgress) => void): Promise<boolean> {
    notify({ phase: 'verifying' })
    if (`sha256:${download.hash.digest('hex')}` === blob.digest) return true
    if (!download.pieced) throw new HullError(500, `filesystem layer verification failed for digest ${blob.digest}`)
    await this.restart(download)
    return false
  }
}

/** Groups a response's chunks; failures of the connection become {@link TransportError}s. */
async function* batches(response: IncomingMessage, url: URL): AsyncGenerator<Buffer[]> {
  let batch: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      batch.push(chunk)
      size += chunk.length
      if (size < batchBytes) continue
      yield batch
      batch = []
      size = 0
    }
  } catch (error) {
    // What did arrive is kept: the next try goes on behind it.
    if (batch.length > 0) yield batch
    throw new TransportError('GET', url, error)
  }
  if (batch.length > 0) yield batch
}
