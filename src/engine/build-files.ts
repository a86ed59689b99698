import { createHash } from 'node:crypto'
import { closeSync, createReadStream, readSync } from 'node:fs'
import { lstat, readdir, readlink } from 'node:fs/promises'
import { join, posix } from 'node:path'
import type { Readable } from 'node:stream'
import { setImmediate as immediate } from 'node:timers/promises'
import { badRequest, codeOf, HullError, messageOf } from '../base/errors.js'
import { tarBlock, tarEnd, tarHeader, tarPadding, type TarHeader } from '../base/tar.js'
import { openFileInRoot, readFileInRoot, statInRoot } from '../host/paths.js'
import { ignorePatterns, isIgnored, pathPattern, type IgnorePattern } from './build-patterns.js'

/** One file on its way into an image. */
export interface BuildFile {
  /** Head of its tar member; the name is the path in the image. */
  header: TarHeader
  /** Where it lies in the tree; files only. */
  source?: string
}

/** Files of one COPY or ADD. */
const fileLimit = 1_000_000

const notFoundText = (path: string) => `file not found in build context or excluded by .dockerignore: stat ${path}: file does not exist`

/** A path of a Dockerfile as one below the context: '..' stops at its root, as in Docker. */
export const contextPath = (path: string): string => posix.normalize(`/${path}`).replace(/^\/+/, '').replace(/\/+$/, '')

const ignoreFile = '.dockerignore'
const ignoreLimit = 1 << 20

const below = (directory: string, name: string): string => (directory === '' ? name : `${directory}/${name}`)

/** A name in `directory`, or what a link there says. What is not UTF-8 cannot go into a tar of ours. */
function utf8(name: Buffer, directory: string): string {
  const text = name.toString()
  if (!Buffer.from(text).equals(name)) throw badRequest(`the name of a file is not UTF-8: ${below(directory, text).slice(0, 300)}`)
  return text
}

/** A tree that a stranger wrote, unpacked where only we are. Names resolve inside of it; links in it lead nowhere else. */
export class BuildTree {
  /** Paths that are left out of all that is copied. */
  private readonly hidden = new Set<string>()

  constructor(readonly root: string) {}

  /**
   * Leaves the Dockerfile and .dockerignore out of what is copied, when .dockerignore says so: clients send them all the same, since the daemon
   * reads them (moby, builder/remotecontext/detect.go). Nothing is removed: a path in the tree may lead out of it on the host.
   */
  async hideIgnored(dockerfile: string): Promise<void> {
    let text: string
    try {
      text = (await readFileInRoot(this.root, ignoreFile, ignoreLimit)).toString('utf8')
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return
      throw badRequest(`cannot read ${ignoreFile}: ${messageOf(error)}`, error)
    }
    let patterns: IgnorePattern[]
    try {
      patterns = ignorePatterns(text)
    } catch {
      // Clients refuse a wrong pattern; the daemon takes none of them then, as Docker's.
      return
    }
    const ignored: string[] = []
    for (const path of [ignoreFile, dockerfile]) if (await isIgnored(path, patterns)) ignored.push(path)
    for (const path of ignored) {
      const parent = posix.dirname(path)
      this.hidden.add(below(parent === '.' ? '' : await this.resolve(parent), posix.basename(path)))
    }
  }

  /** The paths that a source names, wildcards resolved, sorted. 400 when there is none. */
  async match(source: string): Promise<string[]> {
    const path = contextPath(source)
    if (!/[*?[]/.test(path)) {
      if (path !== '' && !this.exists(path)) throw badRequest(notFoundText(source))
      if (this.hidden.size > 0) await this.resolve(path)
      return [path]
    }
    const parts = path.split('/')
    let found = ['']
    let looked = 0
    for (const part of parts) {
      const matches = pathPattern(part)
      const next: string[] = []
      for (const directory of found) {
        for (const name of await this.names(directory)) {
          // Others have the thread in between, however many names there are.
          if (++looked % 256 === 0) await immediate()
          if (matches(name.toString())) next.push(below(directory, utf8(name, directory)))
        }
      }
      found = next
    }
    if (found.length === 0) throw badRequest(notFoundText(source))
    return found.sort()
  }

  private exists(path: string): boolean {
    try {
      return statInRoot(this.root, path) !== undefined
    } catch (error) {
      if (codeOf(error) === 'ELOOP' || codeOf(error) === 'ENAMETOOLONG') throw badRequest(messageOf(error), error)
      throw error
    }
  }

  private async names(directory: string): Promise<Buffer[]> {
    const stat = directory === '' ? await lstat(this.root) : await lstat(join(this.root, directory)).catch(() => undefined)
    // A link to a directory is not walked into: that is what its target is for.
    return stat?.isDirectory() ? this.list(directory) : []
  }

  /** The names in a directory, which is none behind a link; as bytes, since a tar may have any. */
  private async list(directory: string): Promise<Buffer[]> {
    const names = (await readdir(join(this.root, directory), { encoding: 'buffer' })).sort(Buffer.compare)
    return this.hidden.size === 0 ? names : names.filter((name) => !this.hidden.has(below(directory, name.toString())))
  }

  isDirectory(path: string): boolean {
    return path === '' || (statInRoot(this.root, path)?.isDirectory() ?? false)
  }

  /** A file's first bytes. */
  head(path: string): Buffer {
    const fd = openFileInRoot(this.root, path)
    try {
      const buffer = Buffer.alloc(512)
      return buffer.subarray(0, readSync(fd, buffer, 0, 512, 0))
    } finally {
      closeSync(fd)
    }
  }

  /** What is at `path`, and all below it when it is a directory, under the name `target` in the image ('' is its root). `path` itself may be a link. */
  async collect(path: string, target: string, into: BuildFile[], options: { mode?: number; owned?: boolean } = {}): Promise<void> {
    if (this.isDirectory(path)) {
      // The directory's content; the place that it goes to is made by our caller.
      const real = await this.resolve(path)
      for (const bytes of await this.list(real)) {
        const name = utf8(bytes, real)
        await this.walk(below(real, name), below(target, name), into, options)
      }
      return
    }
    await this.walk(await this.resolve(path), target, into, options)
  }

  /** The path that `path` leads to, without links in it. */
  private async resolve(path: string, depth = 0): Promise<string> {
    if (depth > 40) throw badRequest(`too many levels of symbolic links: ${path.slice(0, 200)}`)
    let real = ''
    const parts = path.split('/').filter((part) => part !== '' && part !== '.')
    for (const [i, part] of parts.entries()) {
      if (part === '..') {
        real = posix.dirname(`/${real}`).slice(1)
        continue
      }
      const here = below(real, part)
      const stat = await lstat(join(this.root, here)).catch(() => undefined)
      if (stat === undefined || this.hidden.has(here)) throw badRequest(notFoundText(path))
      if (stat.isSymbolicLink()) {
        const link = await readlink(join(this.root, here))
        const rest = parts.slice(i + 1).join('/')
        return this.resolve(`${link.startsWith('/') ? '' : `${real}/`}${link}/${rest}`.replace(/\/+/g, '/'), depth + 1)
      }
      real = here
    }
    return real
  }

  private async walk(path: string, target: string, into: BuildFile[], options: { mode?: number; owned?: boolean }): Promise<void> {
    if (into.length >= fileLimit) throw badRequest(`more than ${fileLimit} files in one step of the build`)
    const full = join(this.root, path)
    const stat = await lstat(full)
    const header = {
      name: target, mode: options.mode ?? stat.mode & 0o7777, uid: options.owned ? stat.uid : 0, gid: options.owned ? stat.gid : 0, mtime: Math.floor(stat.mtimeMs / 1000),
    }
    if (stat.isDirectory()) {
      into.push({ header: { ...header, name: `${target}/`, type: 'dir' } })
      for (const bytes of await this.list(path)) {
        const name = utf8(bytes, path)
        await this.walk(below(path, name), below(target, name), into, options)
      }
    } else if (stat.isFile()) into.push({ header: { ...header, type: 'file', size: stat.size }, source: path })
    else if (stat.isSymbolicLink()) into.push({ header: { ...header, mode: 0o777, type: 'symlink', link: utf8(await readlink(full, { encoding: 'buffer' }), path) } })
    // Sockets, FIFOs and devices are left out: no builder copies them.
  }

  /** What identifies the files for the cache: everything but their times, as in Docker. */
  async digest(files: readonly BuildFile[], signal: AbortSignal): Promise<string> {
    const hash = createHash('sha256')
    for (const { header, source } of files) {
      signal.throwIfAborted()
      hash.update(JSON.stringify([header.name, header.type, header.mode, header.uid, header.gid, header.size ?? 0, header.link ?? '']))
      if (source !== undefined) for await (const chunk of this.open(source) as AsyncIterable<Buffer>) hash.update(chunk)
    }
    return hash.digest('hex')
  }

  /** A file's bytes. */
  open(path: string): Readable {
    // The stream closes the descriptor.
    return createReadStream('', { fd: openFileInRoot(this.root, path), highWaterMark: 1 << 18 })
  }

  /** The files as a tar; without `ends` another one may follow. */
  async *tar(files: readonly BuildFile[], ends = true): AsyncGenerator<Buffer> {
    for (const { header, source } of files) {
      yield tarHeader(header)
      if (source === undefined) continue
      let left = header.size ?? 0
      for await (const chunk of this.open(source) as AsyncIterable<Buffer>) {
        if (chunk.length > left) throw new HullError(500, `${source} grew while it was copied`)
        left -= chunk.length
        yield chunk
      }
      if (left > 0) throw new HullError(500, `${source} shrank while it was copied`)
      yield tarPadding(header.size ?? 0)
    }
    if (ends) yield tarEnd()
  }
}

/** True for what `ADD` unpacks: gzip, bzip2, xz, zstd, or a tar as it is. */
export function looksLikeArchive(head: Buffer): boolean {
  const magic = head.toString('latin1')
  return magic.startsWith('\x1f\x8b') || magic.startsWith('BZh') || magic.startsWith('\xfd7zXZ\0') || magic.startsWith('\x28\xb5\x2f\xfd') || isTarHeader(head)
}

/** By the checksum, which older tars have, too; its own eight bytes count as spaces (POSIX, ustar). Some summed up signed bytes. */
function isTarHeader(head: Buffer): boolean {
  const said = /^ *([0-7]+)[ \0]/.exec(head.toString('latin1', 148, 156))?.[1]
  if (said === undefined || head.length < tarBlock) return false
  let [sum, signed] = [0, 0]
  for (let i = 0; i < tarBlock; i++) {
    const byte = i >= 148 && i < 156 ? 0x20 : head[i]!
    sum += byte
    signed += byte > 127 ? byte - 256 : byte
  }
  return [sum, signed].includes(parseInt(said, 8))
}
