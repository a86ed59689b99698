import { randomBytes } from 'node:crypto'
import { renameSync, symlinkSync } from 'node:fs'
import { mkdir, open, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { HullError, codeOf, internal } from '../base/errors.js'
import { readIfExists } from '../base/files.js'
import { log } from '../base/log.js'
import { runOk } from '../base/run.js'
import { Flights } from '../base/flights.js'
import { removeTree } from '../host/remove-tree.js'
import { UnpackError, type AddOptions, type Layer, type LayerBlob, type LayerStore, type UnpackLimits } from './types.js'
import { unpack } from './unpack.js'

interface LayerRecord {
  diffId: string
  short: string
  size: number
  blob: LayerBlob
  /** Of the host's boot in which it was unpacked: until `synced` exists, only then are its files sure to be whole. */
  bootId: string
}

/** Pause after the last new layer before they are all written out, milliseconds. */
const syncDelay = 3000

const diffIdPattern = /^sha256:[0-9a-f]{64}$/
const hex = (diffId: string) => diffId.slice('sha256:'.length)

/**
 * Unpacked layers below `dataRoot/layers`, keyed by diff id: `<hex>/diff` is the content, `<hex>/layer.json` the record,
 * `<hex>/synced` says that all of it has reached the disk. A layer appears by one rename and is never changed again.
 */
export class Layers implements LayerStore {
  private readonly layers = new Map<string, Layer>()
  private readonly references = new Map<string, number>()
  private readonly flights = new Flights<Layer, number>()
  private readonly unsynced = new Set<string>()
  private syncing: Promise<void> | undefined
  private timer: NodeJS.Timeout | undefined

  private constructor(
    readonly root: string,
    /** Where the short links are: the working directory for overlay mounts. */
    readonly linkDir: string,
    private readonly bootId: string,
    private readonly limits: UnpackLimits,
  ) {}

  /** Reads what is on the disk. Layers that a host crash may have left half-written are removed: they are unpacked again when needed. */
  static async open(dataRoot: string, limits: UnpackLimits = {}): Promise<Layers> {
    const root = join(dataRoot, 'layers')
    const linkDir = join(dataRoot, 'overlay', 'l')
    await mkdir(join(root, 'tmp'), { recursive: true, mode: 0o700 })
    await mkdir(linkDir, { recursive: true, mode: 0o700 })
    const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    const self = new Layers(root, linkDir, bootId, limits)
    for (const name of await readdir(root)) {
      if (name !== 'tmp') await self.read(name)
    }
    if (self.unsynced.size > 0) self.scheduleSync()
    return self
  }

  private async read(name: string): Promise<void> {
    const path = join(this.root, name)
    let record: LayerRecord
    let synced: boolean
    try {
      record = JSON.parse(await readFile(join(path, 'layer.json'), 'utf8')) as LayerRecord
      synced = (await readIfExists(join(path, 'synced'))) !== undefined
      if (!diffIdPattern.test(record.diffId) || hex(record.diffId) !== name) throw new Error('the record is of another layer')
      if (!synced && record.bootId !== this.bootId) throw new Error('the host went down before it was on the disk')
    } catch (error) {
      log.warn('layer removed: it will be unpacked again when it is needed', { layer: name, error })
      await removeTree(path)
      return
    }
    if (!synced) this.unsynced.add(record.diffId)
    this.admit(record)
  }

  private admit(record: LayerRecord): Layer {
    const dir = join(this.root, hex(record.diffId), 'diff')
    try {
      symlinkSync(`../../layers/${hex(record.diffId)}/diff`, join(this.linkDir, record.short))
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
    }
    const layer: Layer = { diffId: record.diffId, dir, short: record.short, size: record.size, blob: record.blob }
    this.layers.set(record.diffId, layer)
    return layer
  }

  get(diffId: string): Layer | undefined {
    return this.layers.get(diffId)
  }

  all(): Layer[] {
    return [...this.layers.values()]
  }

  /** A layer's directory by its short link; undefined when it is none of ours. */
  linkOf(dir: string): string | undefined {
    const name = dir.startsWith(`${this.root}/`) && dir.endsWith('/diff') ? dir.slice(this.root.length + 1, -'/diff'.length) : ''
    const layer = this.layers.get(`sha256:${name}`)
    return layer && join(this.linkDir, layer.short)
  }

  retain(diffId: string): void {
    this.references.set(diffId, (this.references.get(diffId) ?? 0) + 1)
  }

  async release(diffId: string): Promise<boolean> {
    const left = (this.references.get(diffId) ?? 0) - 1
    if (left > 0) {
      this.references.set(diffId, left)
      return false
    }
    this.references.delete(diffId)
    return this.remove(diffId)
  }

  dropReference(diffId: string): void {
    const left = (this.references.get(diffId) ?? 0) - 1
    if (left > 0) this.references.set(diffId, left)
    else this.references.delete(diffId)
  }

  isReferenced(diffId: string): boolean {
    return this.references.has(diffId)
  }

  /** Removes a layer that nobody uses: first out of sight by a rename, then its files. */
  async remove(diffId: string): Promise<boolean> {
    const layer = this.layers.get(diffId)
    if (layer === undefined || this.references.has(diffId)) return false
    this.layers.delete(diffId)
    this.unsynced.delete(diffId)
    const doomed = join(this.root, 'tmp', `removed-${randomBytes(8).toString('hex')}`)
    renameSync(join(this.root, hex(diffId)), doomed) // at once: whoever adds the layer anew must find its place free
    await rm(join(this.linkDir, layer.short), { force: true })
    await removeTree(doomed)
    return true
  }

  async add(diffId: string, path: string, blob: LayerBlob, options: AddOptions = {}): Promise<Layer> {
    return (
      this.layers.get(diffId) ??
      this.flights.run(
        diffId,
        async (signal, onPosition) => this.layers.get(diffId) ?? this.unpackInto(diffId, path, blob, { ...options, signal, onPosition }),
        { signal: options.signal, onProgress: options.onPosition },
      )
    )
  }

  async addUnknown(path: string, mediaType: string, size: number, options: Pick<AddOptions, 'signal' | 'adopt'> = {}): Promise<Layer> {
    return this.unpackInto(undefined, path, { digest: '', size, mediaType }, { ...options, verifyBlob: true })
  }

  private async unpackInto(diffId: string | undefined, path: string, blob: LayerBlob, options: AddOptions): Promise<Layer> {
    const work = join(this.root, 'tmp', randomBytes(8).toString('hex'))
    const file = await open(path, 'r')
    try {
      await mkdir(work, { mode: 0o700 })
      await mkdir(join(work, 'diff'), { mode: 0o755 })
      await utimes(join(work, 'diff'), 0, 0)
      const result = await unpack(file.fd, join(work, 'diff'), {
        ...this.limits, layer: true, blobDigest: (options.verifyBlob ?? false) || blob.digest === '', signal: options.signal, onPosition: options.onPosition,
      })
      if (diffId !== undefined && result.diffId !== diffId) {
        throw internal(`layer ${blob.digest || diffId} is corrupt: its content is ${result.diffId}, the image says ${diffId}`)
      }
      if (options.verifyBlob && blob.digest !== '' && result.blobDigest !== blob.digest) throw internal(`layer ${blob.digest} is corrupt: its digest is ${result.blobDigest}`)
      const record: LayerRecord = {
        diffId: result.diffId, short: randomBytes(6).toString('hex').toUpperCase(), size: result.size,
        blob: { ...blob, digest: blob.digest || result.blobDigest! }, bootId: this.bootId,
      }
      await writeFile(join(work, 'layer.json'), JSON.stringify(record), { mode: 0o600 }) // reaches the disk with the rest, before its marker
      if (diffId === undefined) this.retain(result.diffId)
      try {
        if (!this.layers.has(result.diffId)) await options.adopt?.(record.blob.digest)
        const present = this.layers.get(result.diffId)
        if (present !== undefined) {
          await removeTree(work)
          return present
        }
        // From the look to the rename without a pause: of two that unpacked the same layer, one comes first.
        renameSync(work, join(this.root, hex(result.diffId)))
        this.unsynced.add(result.diffId)
        const layer = this.admit(record)
        this.scheduleSync()
        return layer
      } catch (error) {
        if (diffId === undefined) this.dropReference(result.diffId)
        throw error
      }
    } catch (error) {
      await removeTree(work)
      // Without a system call's code it is the archive that is wrong, and whoever sent it.
      if (error instanceof UnpackError) throw new HullError(error.code === undefined ? 400 : 500, `failed to register layer: ${error.message}`, { cause: error })
      if (codeOf(error) === 'ENOSPC') throw new HullError(500, 'failed to register layer: no space left on device', { cause: error })
      throw error
    } finally {
      await file.close()
    }
  }

  /** Soon, when no more layers have come for a while: writing out one layer would slow the unpacking of the next. */
  private scheduleSync(): void {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => void this.sync(), syncDelay).unref()
  }

  /**
   * Brings new layers to the disk behind the caller's back: syncfs(2) by sync(1), one at a time, then their markers. Waiting
   * for the disk would double the time of a pull; after a crash, layers without a marker are unpacked again.
   */
  private sync(): Promise<void> {
    clearTimeout(this.timer)
    this.syncing ??= (async () => {
      while (this.unsynced.size > 0) {
        const batch = [...this.unsynced]
        await runOk('sync', ['-f', this.root], { env: { PATH: '/usr/bin:/bin' } })
        for (const diffId of batch) {
          // One that was removed meanwhile needs no marker.
          await writeFile(join(this.root, hex(diffId), 'synced'), '').catch((error: unknown) => {
            if (codeOf(error) !== 'ENOENT') throw error
          })
          this.unsynced.delete(diffId)
        }
      }
    })()
      .catch((error: unknown) => log.warn('layers could not be synced to the disk', { error }))
      .finally(() => (this.syncing = undefined))
    return this.syncing
  }

  async settled(): Promise<void> {
    if (this.unsynced.size > 0) await this.sync()
  }

  async collectGarbage(): Promise<void> {
    for (const layer of this.all()) {
      if (!this.references.has(layer.diffId) && !this.flights.has(layer.diffId)) await this.remove(layer.diffId)
    }
    const shorts = new Set(this.all().map((layer) => layer.short))
    for (const name of await readdir(this.linkDir)) {
      if (!shorts.has(name)) await rm(join(this.linkDir, name), { force: true })
    }
  }

  /** At start, before anything is added: what a former daemon's unpacks left. */
  async removeInterrupted(): Promise<void> {
    for (const name of await readdir(join(this.root, 'tmp'))) await removeTree(join(this.root, 'tmp', name))
  }
}
