import { lstat, mkdir, mkdtemp, rename } from 'node:fs/promises'
import { posix } from 'node:path'
import { badRequest, HullError } from '../base/errors.js'
import type { ImageService } from '../image/types.js'
import { BuildTree, contextPath, looksLikeArchive, type BuildFile } from './build-files.js'
import type { BuildWork } from './build-work.js'

/** What is said of a file that is no tar from its beginning (native/unpack/extract.c). */
const notTar = 'invalid archive: not a tar archive: '

/** What is to be given back when a step is over, in the order in which it was taken. */
export type Releases = (() => Promise<void>)[]

/** Files of one tree. */
export interface BuildPart {
  tree: BuildTree
  files: BuildFile[]
}

/** One source of COPY or ADD, and the tree that it is looked up in. */
export interface BuildPick {
  tree: BuildTree
  source: string
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

  /**
   * `sources` of an image or an earlier stage, unpacked beside the context, each in a tree of its own: a path below another source's tree
   * would lead through that one's links, and on the host. `work` is open on the image, and closed with the releases.
   */
  async ofImage(work: BuildWork, sources: readonly string[], releases: Releases): Promise<BuildPick[]> {
    releases.push(() => work.close())
    const picks: BuildPick[] = []
    for (const source of sources) {
      // The part before any wildcard; below it the tree is whole.
      const path = contextPath(source)
      const fixed = /[*?[]/.test(path) ? path.split('/').slice(0, path.split('/').findIndex((part) => /[*?[]/.test(part))).join('/') : path
      if (fixed !== '' && (await work.kind(`/${fixed}`)) === 'nothing') throw badRequest(`COPY failed: stat ${source}: file does not exist`)
      const isDirectory = fixed === '' || (await work.kind(`/${fixed}`)) === 'directory'
      const job = await work.get(isDirectory ? `/${fixed}/.` : (await work.target(`/${fixed}`)), 'x')
      try {
        const part = await this.images.unpackTree(job.output, this.signal)
        releases.push(part.release)
        await job.done
        picks.push({ tree: await placed(part.root, fixed), source })
      } finally {
        job.cancel()
      }
    }
    return picks
  }

  /** What goes where. More than one part when ADD unpacks archives, and when the sources lie in several trees. `name`: of the instruction. `work`: what the destination is looked up in; undefined: there is nothing yet. */
  async files(
    name: string, picks: readonly BuildPick[], to: Destination, work: BuildWork | undefined, options: { mode?: number; owned: boolean }, releases: Releases,
  ): Promise<BuildPart[]> {
    const failed = (error: unknown) => (error instanceof HullError ? new HullError(error.statusCode, `${name} failed: ${error.message}`, { cause: error }) : error)
    const found: { tree: BuildTree; path: string }[] = []
    try {
      for (const { tree, source } of picks) for (const path of await tree.match(source)) found.push({ tree, path })
    } catch (error) {
      throw failed(error)
    }
    const { target, path: destination } = to
    const there = work === undefined ? (destination === '/' ? 'directory' : 'nothing') : await work.kind(destination)
    const wantsDirectory = target.endsWith('/') || target === '.' || target.endsWith('/.') || destination === '/'
    if (found.length > 1 && !wantsDirectory && there !== 'directory') throw badRequest(`When using ${name} with more than one source file, the destination must be a directory and end with a /`)
    const into = destination.slice(1)
    const parts: BuildPart[] = []
    /** The files that come next, out of `tree`: what is named later lies over what was named before. */
    const filesOf = (tree: BuildTree): BuildFile[] => {
      const last = parts.at(-1)
      if (last?.tree === tree) return last.files
      parts.push({ tree, files: [] })
      return parts.at(-1)!.files
    }
    let made = false
    const needDirectory = (tree: BuildTree) => {
      if (there === 'file') throw badRequest(`cannot copy to non-directory: ${destination}`)
      if (there === 'nothing' && into !== '' && !made) filesOf(tree).push({ header: { name: `${into}/`, type: 'dir', mode: 0o755, uid: 0, gid: 0, mtime: Math.floor(Date.now() / 1000) } })
      made = true
    }
    for (const { tree, path } of found) {
      if (tree.isDirectory(path)) {
        needDirectory(tree)
        await tree.collect(path, into, filesOf(tree), options)
        continue
      }
      const archive = name === 'ADD' ? await this.#archive(tree, path, releases) : undefined
      if (archive !== undefined) {
        needDirectory(tree)
        await archive.collect('', into, filesOf(archive), { owned: true })
        continue
      }
      if (wantsDirectory || there === 'directory' || found.length > 1) {
        needDirectory(tree)
        await tree.collect(path, into === '' ? posix.basename(path) : `${into}/${posix.basename(path)}`, filesOf(tree), options)
      } else await tree.collect(path, into, filesOf(tree), options)
    }
    return parts
  }

  async #archive(tree: BuildTree, path: string, releases: Releases): Promise<BuildTree | undefined> {
    if (!looksLikeArchive(tree.head(path))) return undefined
    try {
      const unpacked = await this.images.unpackTree(tree.open(path), this.signal)
      releases.push(unpacked.release)
      return new BuildTree(unpacked.root)
    } catch (error) {
      // A compressed file that is no tar is copied as it is: its first header tells. What is wrong after it is the archive's own damage.
      if (error instanceof HullError && error.message.startsWith(notTar)) return undefined
      throw error instanceof HullError ? new HullError(error.statusCode, `ADD failed: ${path}: ${error.message}`, { cause: error }) : error
    }
  }
}

/** The tree of an image in which `x` below `root`, just unpacked, lies at `fixed`. Nothing but directories of ours is on the way there. */
async function placed(root: string, fixed: string): Promise<BuildTree> {
  if (fixed === '') {
    // The whole root. It is no link, whoever packed it: the host would follow it.
    if (!(await lstat(`${root}/x`)).isDirectory()) throw new HullError(500, 'the root of an image is no directory')
    return new BuildTree(`${root}/x`)
  }
  const place = await mkdtemp(`${root}/place-`)
  await mkdir(posix.join(place, posix.dirname(fixed)), { recursive: true })
  await rename(`${root}/x`, posix.join(place, fixed))
  return new BuildTree(place)
}

/** Several trees' files as one tar: all but the last end without their end mark. */
export async function* joined(parts: readonly BuildPart[]): AsyncGenerator<Buffer> {
  for (const [i, { tree, files }] of parts.entries()) yield* tree.tar(files, i === parts.length - 1)
}
