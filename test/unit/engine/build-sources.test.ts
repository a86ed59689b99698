import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { access, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { badRequest } from '../../../src/base/errors.js'
import { tarEnd, tarHeader, tarPadding } from '../../../src/base/tar.js'
import { BuildTree } from '../../../src/engine/build-files.js'
import { BuildSources, type BuildPick, type Releases } from '../../../src/engine/build-sources.js'
import type { BuildWork } from '../../../src/engine/build-work.js'
import { statInRoot } from '../../../src/host/paths.js'
import { unpack } from '../../../src/storage/unpack.js'

const run = promisify(execFile)
const signal = new AbortController().signal

let scratch: string
let image: string
let releases: Releases
beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'hull-sources-'))
  image = join(scratch, 'image')
  await mkdir(image)
  releases = []
})
afterEach(() => rm(scratch, { recursive: true, force: true }))

/** An image whose files lie in `image`; a "tar" is the path of what is in it. */
function work(): BuildWork {
  const kind = (path: string) => {
    const stat = statInRoot(image, path)
    return Promise.resolve(stat === undefined ? 'nothing' : stat.isDirectory() ? 'directory' : 'file')
  }
  const get = (path: string) => Promise.resolve({ output: Readable.from([path]), done: Promise.resolve(), cancel: () => {} })
  const close = () => Promise.resolve()
  const target = (path: string) => Promise.resolve(path)
  return { kind, get, target, close } as unknown as BuildWork
}
const sources = () => new BuildSources({
  unpackTree: async (tar) => {
    const root = await mkdtemp(join(scratch, 'part-'))
    // An archive of bytes is an empty one.
    for await (const path of tar) if (typeof path === 'string') await run('cp', ['-a', `${image}${path}`, `${root}/x`])
    return { root, release: () => rm(root, { recursive: true }) }
  },
}, signal)

async function copied(picks: readonly BuildPick[], target: string): Promise<Record<string, string>> {
  const parts = await sources().files('COPY', picks, { target, path: target.replace(/(?<=.)\/$/, '') }, undefined, { owned: true }, releases)
  const seen: Record<string, string> = {}
  for (const { tree, files } of parts) for (const { header, source } of files) seen[header.name] = source === undefined ? header.type : (await tree.open(source).toArray()).join('')
  return seen
}

describe('COPY --from', () => {
  it('a source below the links of another one stays off the host', async () => {
    const host = join(scratch, 'host')
    for (const directory of [join(image, 'a'), join(image, host), join(image, host, 'full'), join(host, 'full')]) await mkdir(directory, { recursive: true })
    await symlink(host, join(image, 'a/link'))
    await writeFile(join(image, host, 'evil'), 'evil')
    await writeFile(join(image, host, 'full/new'), 'new')
    await writeFile(join(host, 'full/mine'), 'mine')
    // As hull-files resolves them.
    const links = { ...work(), target: () => Promise.resolve(join(host, 'evil')) } as unknown as BuildWork
    const resolved = { ...links, get: (path: string) => work().get(path.replace('/a/link', host), 'x') } as unknown as BuildWork
    const picks = await sources().ofImage(resolved, ['/a', '/a/link/evil', '/a/link/full', '/a/link/full'], releases)
    await expect(access(join(host, 'evil'))).rejects.toMatchObject({ code: 'ENOENT' })
    expect(await readFile(join(host, 'full/mine'), 'utf8')).toBe('mine')
    expect(await copied(picks, '/dst/')).toEqual({ 'dst/': 'dir', 'dst/link': 'symlink', 'dst/evil': 'evil', 'dst/new': 'new' })
  })

  it('the whole root, a wildcard at its top, links with an absolute target', async () => {
    await mkdir(join(image, 'etc/sub'), { recursive: true })
    for (const name of ['a.conf', 'b.conf', 'c', 'etc/one.conf']) await writeFile(join(image, name), name)
    await symlink('/etc/one.conf', join(image, 'etc/two.conf'))
    const from = async (...wanted: string[]) => copied(await sources().ofImage(work(), wanted, releases), '/x/')
    expect(Object.keys(await from('/')).sort()).toEqual(['x/', 'x/a.conf', 'x/b.conf', 'x/c', 'x/etc/', 'x/etc/one.conf', 'x/etc/sub/', 'x/etc/two.conf'])
    expect(await from('/*.conf')).toEqual({ 'x/': 'dir', 'x/a.conf': 'a.conf', 'x/b.conf': 'b.conf' })
    expect(await from('/etc/*.conf', 'c')).toEqual({ 'x/': 'dir', 'x/one.conf': 'etc/one.conf', 'x/two.conf': 'etc/one.conf', 'x/c': 'c' })
    for (const release of releases.reverse()) await release()
    await expect(run('sh', ['-c', `ls -d ${scratch}/part-*`])).rejects.toThrow()
  })

  it('a root that is a link is none', async () => {
    const linked = new BuildSources({
      unpackTree: async () => {
        const root = await mkdtemp(join(scratch, 'part-'))
        await symlink('/', join(root, 'x'))
        return { root, release: () => Promise.resolve() }
      },
    }, signal)
    await expect(linked.ofImage(work(), ['/'], releases)).rejects.toMatchObject({ statusCode: 500 })
  })

  it('what is named later lies over what was named before', async () => {
    for (const name of ['one', 'two']) {
      await mkdir(join(image, name))
      await writeFile(join(image, name, 'same'), name)
    }
    const tree = new BuildTree(image)
    expect(await copied([{ tree, source: 'one' }, { tree, source: 'two' }], '/x/')).toEqual({ 'x/': 'dir', 'x/same': 'two' })
    expect(await copied(await sources().ofImage(work(), ['two', 'one'], releases), '/x/')).toEqual({ 'x/': 'dir', 'x/same': 'one' })
  })
})

describe('ADD of an archive', () => {
  const member = Buffer.concat([tarHeader({ name: 'inside', type: 'file', mode: 0o644, uid: 0, gid: 0, mtime: 0, size: 100_000 }), randomBytes(100_000), tarPadding(100_000), tarEnd()])
  const add = async (content: Buffer) => {
    await writeFile(join(image, 'file'), content)
    const real = new BuildSources({
      unpackTree: async (tar) => {
        const root = await mkdtemp(join(scratch, 'part-'))
        await unpack(tar, root, { layer: true }).catch((error: unknown) => {
          throw badRequest(`invalid archive: ${(error as Error).message}`, error)
        })
        return { root, release: () => rm(root, { recursive: true }) }
      },
    }, signal)
    const parts = await real.files('ADD', [{ tree: new BuildTree(image), source: 'file' }], { target: '/x/', path: '/x' }, undefined, { owned: false }, releases)
    return parts.flatMap((part) => part.files.map((file) => file.header.name))
  }

  it('is unpacked; what is no tar is copied', async () => {
    expect(await add(member)).toEqual(['x/', 'x/inside'])
    expect(await add(gzipSync(member))).toEqual(['x/', 'x/inside'])
    for (const other of [gzipSync('text'), gzipSync(randomBytes(5000)), Buffer.from('BZh no bzip2'), Buffer.from('\x1f\x8bno gzip', 'latin1')]) expect(await add(other)).toEqual(['x/', 'x/file'])
  })

  it('that is damaged fails the build', async () => {
    for (const damaged of [member.subarray(0, 50_000), gzipSync(member).subarray(0, 50_000), Buffer.concat([member.subarray(0, 512 + 100_352), Buffer.alloc(512, 'damaged')])]) {
      await expect(add(damaged)).rejects.toMatchObject({ statusCode: 400, message: expect.stringContaining('ADD failed: file: invalid archive') as unknown })
    }
  })
})
