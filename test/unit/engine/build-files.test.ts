import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { tarHeader } from '../../../src/base/tar.js'
import { BuildTree, contextPath, looksLikeArchive, type BuildFile } from '../../../src/engine/build-files.js'

let outside: string
let root: string
let tree: BuildTree
beforeEach(async () => {
  outside = await mkdtemp(join(tmpdir(), 'hull-tree-'))
  root = join(outside, 'tree')
  await mkdir(join(root, 'dir/sub'), { recursive: true })
  await writeFile(join(outside, 'secret'), 'secret')
  await writeFile(join(root, 'a1.txt'), 'one', { mode: 0o755 })
  await writeFile(join(root, 'a2.txt'), 'two')
  await writeFile(join(root, 'dir/sub/deep'), 'deep')
  await symlink('sub/deep', join(root, 'dir/inner'))
  await symlink(join(outside, 'secret'), join(root, 'absolute'))
  await symlink('../secret', join(root, 'relative'))
  await symlink(outside, join(root, 'out'))
  await symlink('loop', join(root, 'loop'))
  tree = new BuildTree(root)
})
afterEach(() => rm(outside, { recursive: true, force: true }))

const names = (files: readonly BuildFile[]) => files.map((file) => [file.header.name, file.header.type])
async function collected(path: string, target: string): Promise<BuildFile[]> {
  const files: BuildFile[] = []
  await tree.collect(path, target, files)
  return files
}

describe('a build context', () => {
  it('names: wildcards stop at a slash, dot-dot at the root', async () => {
    expect(await tree.match('a*.txt')).toEqual(['a1.txt', 'a2.txt'])
    expect(await tree.match('a[12].t?t')).toEqual(['a1.txt', 'a2.txt'])
    expect(await tree.match('/dir/*/de\\ep')).toEqual(['dir/sub/deep'])
    expect(await tree.match('../../a1.txt')).toEqual(['a1.txt'])
    expect(contextPath('../..//x/./y/')).toBe('x/y')
    for (const none of ['nothing', 'a*.md', '*/deep', '../secret', 'a1.txt/x']) await expect(tree.match(none), none).rejects.toMatchObject({ statusCode: 400, message: expect.stringContaining('file not found in build context') as unknown })
    await expect(tree.match('a[1')).rejects.toMatchObject({ statusCode: 400 })
  })

  it('files, directories and links in them; a link that is named itself is followed, inside', async () => {
    expect(names(await collected('dir', 'opt')).sort()).toEqual([['opt/inner', 'symlink'], ['opt/sub/', 'dir'], ['opt/sub/deep', 'file']])
    expect(names(await collected('dir/inner', 'x'))).toEqual([['x', 'file']])
    expect((await collected('a1.txt', 'x'))[0]!.header).toMatchObject({ mode: 0o755, uid: 0, gid: 0, size: 3 })
  })

  it('links that lead out lead nowhere', async () => {
    for (const link of ['absolute', 'out/secret', 'loop']) {
      const reading = async () => {
        for (const path of await tree.match(link)) for await (const chunk of tree.tar(await collected(path, 'x'))) if (chunk.includes('secret')) throw new Error('read the secret')
      }
      await expect(reading(), link).rejects.not.toThrow('read the secret')
    }
    await expect(tree.match('loop')).rejects.toMatchObject({ statusCode: 400 })
    // 'relative' stops at the root, where there is no such file.
    await expect(tree.match('relative')).rejects.toMatchObject({ statusCode: 400 })
    expect(await tree.match('out/*').catch(() => [])).toEqual([])
    expect(names(await collected('', ''))).toContainEqual(['absolute', 'symlink'])
  })

  it('an ignored Dockerfile and .dockerignore are not copied', async () => {
    await writeFile(join(root, '.dockerignore'), '.docker*\nout\ndir/sub/deep\n')
    await symlink('.dockerignore', join(root, 'to'))
    expect(names(await collected('', ''))).toContainEqual(['.dockerignore', 'file'])
    await tree.hideIgnored('dir/sub/deep')
    const seen = names(await collected('', '')).map(([name]) => name)
    expect(seen).toContain('a1.txt')
    expect(seen).toContain('dir/sub/')
    // The client leaves out the others.
    expect(seen).toContain('out')
    for (const gone of ['.dockerignore', 'dir/sub/deep']) expect(seen).not.toContain(gone)
    for (const gone of ['.dockerignore', 'dir/sub/deep', 'dir/inner', 'to', '.d*', 'dir/*/deep']) await expect(tree.match(gone), gone).rejects.toMatchObject({ statusCode: 400, message: expect.stringContaining('excluded by .dockerignore') as unknown })
    // On the disk they stay, wherever a path leads.
    tree = new BuildTree(root)
    await writeFile(join(root, '.dockerignore'), '*\n[\n')
    await tree.hideIgnored('a1.txt')
    expect(await tree.match('a1.txt')).toEqual(['a1.txt'])
    await writeFile(join(root, '.dockerignore'), 'out\n')
    await tree.hideIgnored('out/secret').catch(() => {})
    expect(await readFile(join(outside, 'secret'), 'utf8')).toBe('secret')
    expect(await tree.match('.dockerignore')).toEqual(['.dockerignore'])
  })

  it('a name that is not UTF-8 is told', async () => {
    await writeFile(Buffer.concat([Buffer.from(join(root, 'dir/n')), Buffer.from([0xe9])]), '')
    for (const path of ['', 'dir']) await expect(collected(path, 'x'), path).rejects.toMatchObject({ statusCode: 400, message: 'the name of a file is not UTF-8: dir/n\ufffd' })
    await expect(tree.match('dir/n*')).rejects.toMatchObject({ statusCode: 400 })
    expect(await tree.match('dir/i*')).toEqual(['dir/inner'])
    expect(names(await collected('dir/sub', 'x'))).toEqual([['x/deep', 'file']])
  })

  it('the digest knows content, name and mode, and no times', async () => {
    const digest = async (path: string, target: string) => tree.digest(await collected(path, target), new AbortController().signal)
    const first = await digest('a1.txt', 'x')
    await writeFile(join(root, 'a1.txt'), 'one')
    expect(await digest('a1.txt', 'x')).toBe(first)
    expect(await digest('a1.txt', 'y')).not.toBe(first)
    await writeFile(join(root, 'a1.txt'), 'eno')
    expect(await digest('a1.txt', 'x')).not.toBe(first)
  })

  it('what ADD unpacks', () => {
    for (const head of ['\x1f\x8b\x08', 'BZh9', '\xfd7zXZ\0', '\x28\xb5\x2f\xfd']) expect(looksLikeArchive(Buffer.from(head, 'latin1'))).toBe(true)
    const header = tarHeader({ name: 'x', type: 'file', mode: 0o644, uid: 0, gid: 0, mtime: 0 })
    expect(looksLikeArchive(header)).toBe(true)
    header[0]! += 1
    expect(looksLikeArchive(header)).toBe(false)
    for (const head of ['', 'PK\x03\x04', 'text', '\0'.repeat(512), `${'\0'.repeat(257)}ustar${'\0'.repeat(250)}`]) expect(looksLikeArchive(Buffer.from(head, 'latin1'))).toBe(false)
  })
})
