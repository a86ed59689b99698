import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { exec } from '../../lib/daemon.js'
import { MS, mountTmpfs, unmount } from '../../../src/host/mount.js'
import { removeTree } from '../../../src/host/remove-tree.js'

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hull-tree-'))
})
afterAll(() => rm(directory, { recursive: true, force: true }))

it('removes all that is below, of whatever kind; follows no link; what is not there is no error', async () => {
  const tree = join(directory, 'tree')
  mkdirSync(join(tree, 'a/b/c'), { recursive: true })
  writeFileSync(join(directory, 'kept'), 'kept')
  mkdirSync(join(directory, 'kept-too'))
  writeFileSync(join(directory, 'kept-too/file'), '')
  symlinkSync(directory, join(tree, 'a/link'))
  symlinkSync('/nowhere', join(tree, 'dangling'))
  for (let n = 0; n < 300; n++) writeFileSync(join(tree, 'a/b', `file ${n}\n`), '')
  expect((await exec('mkfifo', [join(tree, 'fifo')])).code).toBe(0)
  expect((await exec('mknod', [join(tree, 'a/null'), 'c', '1', '3'])).code).toBe(0)
  chmodSync(join(tree, 'a'), 0)
  await removeTree(tree)
  expect(existsSync(tree)).toBe(false)
  expect([readFileSync(join(directory, 'kept'), 'utf8'), existsSync(join(directory, 'kept-too/file'))]).toEqual(['kept', true])
  await removeTree(tree)
  symlinkSync(join(directory, 'kept-too'), tree)
  await removeTree(tree)
  expect([existsSync(tree), existsSync(join(directory, 'kept-too/file'))]).toEqual([false, true])
  await removeTree(join(directory, 'kept'))
  expect(existsSync(join(directory, 'kept'))).toBe(false)
})

it('a tree deeper than a path name can be, and than fts(3) counts', async () => {
  for (const [depth, name] of [[300, 'x'.repeat(200)], [600, 'y'.repeat(200)]] as const) {
    const tree = join(directory, `deep-${depth}`)
    mkdirSync(tree)
    const made = await exec('perl', ['-e', 'chdir shift or die; for (1 .. $ARGV[0]) { mkdir $ARGV[1] or die; chdir $ARGV[1] or die }', tree, String(depth), name])
    expect(made).toMatchObject({ code: 0, stderr: '' })
    await removeTree(tree)
    expect(existsSync(tree)).toBe(false)
  }
})

it('a mount is not entered, and is told', async () => {
  const tree = join(directory, 'mounted')
  mkdirSync(join(tree, 'there'), { recursive: true })
  mountTmpfs(join(tree, 'there'), 'size=1m', MS.NOSUID)
  try {
    writeFileSync(join(tree, 'there/file'), 'kept')
    await expect(removeTree(tree)).rejects.toThrow(/skipping|busy/i)
    expect(readFileSync(join(tree, 'there/file'), 'utf8')).toBe('kept')
  } finally {
    unmount(join(tree, 'there'))
  }
  await removeTree(tree)
  expect(existsSync(tree)).toBe(false)
})
