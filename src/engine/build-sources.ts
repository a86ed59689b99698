import { mkdir, mkdtemp, rename } from 'node:fs/promises'
import { posix } from 'node:path'
import { Readable } from 'node:stream'
import { badRequest, codeOf, HullError } from '../base/errors.js'
import { tarEnd } from '../base/tar.js'
import type { ImageService } from '../image/types.js'
import { BuildTree, contextPath, looksLikeArchive, type BuildFile } from './build-files.js'
import type { BuildWork } from './build-work.js'

/** What is to be given back when a step is over, in the order in which it was taken. */
export type Releases = (() => Promise<void>)[]

/** Files of one tree. */
export interface BuildPart {
  tree: BuildTree
  files: BuildFile[]
}

/** Where COPY and ADD copy to: as it was written, which tells whether a directory is meant, and as an absolute path. */
export interface Destination {
  target: string
  path: string
}

/** Where COPY and ADD take files from, and which: the context, an image, an earlier stage, archives that ADD unpacks. */
export class BuildSources {
  constructor(
    private readonly images: Pick<ImageService, 'unpackTree'>,
    private readonly signal: AbortSignal,
  ) {}

  /** `sources` of an image or an earlier stage, unpacked beside the context. `work` is open on it, and closed with the releases. */
  async ofImage(work: BuildWork, sources: readonly string[], releases: Releases): Promise<BuildTree> {
    releases.push(() => work.close())
    const place = await this.images.unpackTree(Readable.from([tarEnd()]), this.signal)
    releases.push(place.release)
    for (const source of sources) {
      // The part before any wildcard; below it the tree is whole.
      const path = contextPath(source)
      const fixed = /[*?[]/.test(path) ? path.split('/').slice(0, path.split('/').findIndex((part) => /[*?[]/.test(part))).join('/') : path
      if (fixed !== '' && (await work.kind(`/${fixed}`)) === 'nothing') throw badRequest(`COPY failed: stat ${source}: file does not exist`)
      const isDirectory = fixed === '' || (await work.kind(`/${fixed}`)) === 'directory'
      const job = await work.get(isDirectory ? `/${fixed}/.` : (await work.target(`/${fixed}`)), 'x')
      const part = await this.images.unpackTree(job.output, this.signal)
      try {
        await job.done
        if (fixed === '') {
          // The whole root: it takes the place of the empty tree.
          releases.push(part.release)
          return new BuildTree(`${part.root}/x`)
        }
        const parent = posix.join(place.root, posix.dirname(fixed))
        await mkdir(parent, { recursive: true })
        await rename(`${part.root}/x`, posix.join(place.root, fixed)).catch(async (error: unknown) => {
          // Named twice, or below what is there already.
          if (codeOf(error) !== 'ENOTEMPTY' && codeOf(error) !== 'EEXIST') throw error
          await rename(posix.join(place.root, fixed), await mkdtemp(`${place.root}/.old-`))
          await rename(`${part.root}/x`, posix.join(place.root, fixed))
        })
      } finally {
        job.cancel()
        await part.release()
      }
    }
    return new BuildTree(place.root)
  }

  /** What goes where. More than one part when ADD unpacks archives. `name`: of the instruction. `work`: what the destination is looked up in; undefined: there is nothing yet. */
  async files(
    name: string, tree: BuildTree, sources: readonly string[], to: Destination, work: BuildWork | undefined, options: { mode?: number; owned: boolean }, releases: Releases,
  ): Promise<BuildPart[]> {
    const failed = (error: unknown) => (error instanceof HullError ? new HullError(error.statusCode, `${name} failed: ${error.message}`, { cause: error }) : error)
    const found: string[] = []
    try {
      for (const source of sources) found.push(...(await tree.match(source)))
    } catch (error) {
      throw failed(error)
    }
    const { target, path: destination } = to
    const there = work === undefined ? (destination === '/' ? 'directory' : 'nothing') : await work.kind(destination)
    const wantsDirectory = target.endsWith('/') || target === '.' || target.endsWith('/.') || destination === '/'
    if (found.length > 1 && !wantsDirectory && there !== 'directory') throw badRequest(`When using ${name} with more than one source file, the destination must be a directory and end with a /`)
    const into = destination.slice(1)
    const parts: BuildPart[] = []
    const files: BuildFile[] = []
    const needDirectory = () => {
      if (there === 'file') throw badRequest(`cannot copy to non-directory: ${destination}`)
      if (there === 'nothing' && into !== '' && files.every((file) => file.header.name !== `${into}/`)) {
        files.unshift({ header: { name: `${into}/`, type: 'dir', mode: 0o755, uid: 0, gid: 0, mtime: Math.floor(Date.now() / 1000) } })
      }
    }
    for (const path of found) {
      if (tree.isDirectory(path)) {
        needDirectory()
        await tree.collect(path, into, files, options)
        continue
      }
      const archive = name === 'ADD' ? await this.#archive(tree, path, releases) : undefined
      if (archive !== undefined) {
        needDirectory()
        const inside: BuildFile[] = []
        await archive.collect('', into, inside, { owned: true })
        parts.push({ tree: archive, files: inside })
        continue
      }
      if (wantsDirectory || there === 'directory' || found.length > 1) {
        needDirectory()
        await tree.collect(path, into === '' ? posix.basename(path) : `${into}/${posix.basename(path)}`, files, options)
      } else await tree.collect(path, into, files, options)
    }
    return [{ tree, files }, ...parts]
  }

  async #archive(tree: BuildTree, path: string, releases: Releases): Promise<BuildTree | undefined> {
    if (!looksLikeArchive(tree.head(path))) return undefined
    try {
      const unpacked = await this.images.unpackTree(tree.open(path), this.signal)
      releases.push(unpacked.release)
      return new BuildTree(unpacked.root)
    } catch (error) {
      // A compressed file that is no tar is copied as it is.
      if (error instanceof HullError && error.statusCode === 400) return undefined
      throw error
    }
  }
}

/** Several trees' files as one tar: all but the last end without their end mark. */
export async function* joined(parts: readonly BuildPart[]): AsyncGenerator<Buffer> {
  for (const [i, { tree, files }] of parts.entries()) yield* tree.tar(files, i === parts.length - 1)
}
