import { createHash, randomBytes } from 'node:crypto'
import { renameSync, rmSync, statSync } from 'node:fs'
import { link, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, internal } from '../base/errors.js'
import { sweepTemporaries, writeFileAtomic } from '../base/files.js'
import { removeTree } from '../host/remove-tree.js'
import { digestOf, hexOf, isDigest, type Digest } from './digest.js'
import { documentLimit } from './manifests.js'

/** How long an interrupted download waits to be resumed, milliseconds. */
const partialLifetime = 7 * 24 * 3600 * 1000

/**
 * Blobs by digest below `dataRoot/image`: `blobs/sha256/<hex>` whole and verified, `ingest/<hex>.partial` downloads that
 * may be resumed, `ingest/tmp-*` scratch. A blob appears by one rename.
 */
export class ContentStore {
  private constructor(private readonly root: string) {}

  static async open(dataRoot: string): Promise<ContentStore> {
    const root = join(dataRoot, 'image')
    await mkdir(join(root, 'blobs', 'sha256'), { recursive: true, mode: 0o700 })
    await mkdir(join(root, 'ingest'), { recursive: true, mode: 0o700 })
    await Promise.all([root, join(root, 'blobs', 'sha256')].map(sweepTemporaries))
    return new ContentStore(root)
  }

  path(digest: Digest): string {
    return join(this.root, 'blobs', 'sha256', hexOf(digest))
  }

  /** Where the download of `digest` is kept until its layer is registered. */
  partialPath(digest: Digest): string {
    return join(this.root, 'ingest', `${hexOf(digest)}.partial`)
  }

  async has(digest: Digest): Promise<boolean> {
    return (await this.size(digest)) !== undefined
  }

  /** bytes; undefined when it is not there */
  async size(digest: Digest): Promise<number | undefined> {
    try {
      return (await stat(this.path(digest))).size
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined
      throw error
    }
  }

  /** Stores a small blob (config, manifest), synced. */
  async put(bytes: Uint8Array): Promise<Digest> {
    const digest = digestOf(bytes)
    if (!(await this.has(digest))) await writeFileAtomic(this.path(digest), bytes)
    return digest
  }

  /** A small blob, verified; undefined when it is not there. */
  async read(digest: Digest): Promise<Buffer | undefined> {
    const size = await this.size(digest)
    if (size === undefined) return undefined
    if (size > documentLimit) throw internal(`blob ${digest} is larger than ${documentLimit} bytes`)
    const bytes = await readFile(this.path(digest))
    if (digestOf(bytes) !== digest) throw internal(`blob ${digest} is corrupt on the disk`)
    return bytes
  }

  /** Makes a verified file of this store's file system a blob; the file is gone afterwards. */
  async adopt(path: string, digest: Digest): Promise<void> {
    await rename(path, this.path(digest))
  }

  /** The same for a file that keeps its name. */
  async adoptLink(path: string, digest: Digest): Promise<void> {
    await link(path, this.path(digest)).catch((error: unknown) => {
      if (codeOf(error) !== 'EEXIST') throw error
    })
  }

  /** Out of sight when this returns its promise, without a pause; then its bytes, which may take a while. */
  async remove(digest: Digest): Promise<void> {
    const doomed = join(this.root, 'ingest', `tmp-${randomBytes(8).toString('hex')}`)
    try {
      renameSync(this.path(digest), doomed)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') rmSync(this.path(digest), { force: true }) // a full disk may have no room for another name
      return
    }
    await rm(doomed, { force: true })
  }

  /** Removes a blob whose content is not what its name says: the disk, or a host that went down. Whole ones stay. */
  async removeDamaged(digest: Digest, signal: AbortSignal): Promise<void> {
    const file = await open(this.path(digest), 'r')
    try {
      const hash = createHash('sha256')
      for await (const chunk of file.createReadStream({ autoClose: false, highWaterMark: 1 << 20, signal }) as AsyncIterable<Buffer>) hash.update(chunk)
      if (`sha256:${hash.digest('hex')}` === digest) return
      const { dev, ino } = await file.stat()
      // Somebody else may have found the same meanwhile, and have put a whole one here.
      const there = statSync(this.path(digest), { throwIfNoEntry: false })
      if (there?.dev === dev && there.ino === ino) await this.remove(digest)
    } finally {
      await file.close()
    }
  }

  async removePartial(digest: Digest): Promise<void> {
    await rm(this.partialPath(digest), { force: true })
  }

  /** A new directory, mode 0700, on the same file system as the blobs. The caller removes it. */
  async scratch(): Promise<string> {
    const path = join(this.root, 'ingest', `tmp-${randomBytes(8).toString('hex')}`)
    await mkdir(path, { mode: 0o700 })
    return path
  }

  /** At start: what interrupted work left, and downloads that nobody came back for. */
  async removeInterrupted(): Promise<void> {
    const ingest = join(this.root, 'ingest')
    for (const name of await readdir(ingest)) {
      const path = join(ingest, name)
      const isPartial = name.endsWith('.partial')
      if (isPartial && Date.now() - (await stat(path)).mtimeMs < partialLifetime) continue
      await removeTree(path)
    }
  }

  /** Removes every blob for which `isUsed` is false. For the start, when no pull is under way that has put a blob and not yet named it. */
  async collectGarbage(isUsed: (digest: Digest) => boolean): Promise<void> {
    const directory = join(this.root, 'blobs', 'sha256')
    for (const name of await readdir(directory)) {
      const path = join(directory, name)
      const digest = `sha256:${name}`
      if (isDigest(digest) && isUsed(digest)) continue
      await rm(path, { force: true })
    }
  }
}
