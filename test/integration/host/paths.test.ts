import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { O_PATH, openInRoot, readFileInRoot, statInRoot } from '../../../src/host/paths.js'
import { descriptors, temporary } from './support.js'

let base: string
let root: string
let fds: number
beforeEach(() => {
  base = temporary()
  root = join(base, 'root')
  mkdirSync(join(root, 'etc'), { recursive: true })
  writeFileSync(join(root, 'etc/passwd'), 'theirs')
  writeFileSync(join(base, 'secret'), 'ours')
  fds = descriptors()
})
afterEach(() => {
  expect(descriptors()).toBe(fds)
  rmSync(base, { recursive: true })
})
const read = async (path: string, max = 100) => (await readFileInRoot(root, path, max)).toString()

it('stays in the root whatever the links say', async () => {
  symlinkSync('/etc/passwd', join(root, 'absolute'))
  symlinkSync('../../../../../../etc/passwd', join(root, 'up'))
  symlinkSync('/', join(root, 'etc/top'))
  symlinkSync(join(base, 'secret'), join(root, 'out'))
  for (const path of ['etc/passwd', '/etc/passwd', 'absolute', 'up', '../etc/passwd', '/../../etc/../../etc/passwd', 'etc/top/etc/top/absolute']) expect(await read(path), path).toBe('theirs')
  for (const path of ['out', '../secret', '/etc/../../secret']) await expect(read(path), path).rejects.toMatchObject({ code: 'ENOENT' })
})

it('refuses magic links, loops and other errors by name', async () => {
  mkdirSync(join(root, 'proc'))
  symlinkSync('b', join(root, 'a'))
  symlinkSync('a', join(root, 'b'))
  await expect(read('a')).rejects.toMatchObject({ code: 'ELOOP', syscall: 'openat2' })
  expect(() => openInRoot('/', 'proc/self/root/etc', O_PATH)).toThrow(expect.objectContaining({ code: 'ELOOP' }))
  expect(() => openInRoot('/', 'proc/self/exe', O_PATH)).toThrow(expect.objectContaining({ code: 'ELOOP' }))
  await expect(read('etc/passwd/x')).rejects.toMatchObject({ code: 'ENOTDIR' })
  expect(() => openInRoot(join(base, 'none'), 'x')).toThrow(expect.objectContaining({ code: 'ENOENT', syscall: 'open' }))
  expect(() => openInRoot(root, 'etc/passwd', constants.O_RDONLY, 0o644)).toThrow(expect.objectContaining({ code: 'EINVAL' }))
})

it('makes files where a link leads inside the root', () => {
  symlinkSync('/etc/new', join(root, 'link'))
  closeSync(openInRoot(root, 'link', constants.O_WRONLY | constants.O_CREAT, 0o600))
  expect(readFileSync(join(root, 'etc/new'), 'utf8')).toBe('')
})

it('opens close-on-exec', () => {
  const fd = openInRoot(root, 'etc/passwd')
  try {
    expect(parseInt(/flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!, 8) & 0o2000000).not.toBe(0)
  } finally {
    closeSync(fd)
  }
})

it('reads regular files only, and not more than it may', async () => {
  execFileSync('mkfifo', [join(root, 'fifo')])
  execFileSync('mknod', [join(root, 'null'), 'c', '1', '3'])
  execFileSync('mknod', [join(root, 'nodriver'), 'c', '123', '45'])
  for (const path of ['fifo', 'null', 'nodriver']) await expect(read(path), path).rejects.toMatchObject({ code: 'EINVAL', message: `open: EINVAL: not a regular file, '${path}'` })
  await expect(read('etc')).rejects.toMatchObject({ code: 'EISDIR' })
  expect(await read('etc/passwd', 6)).toBe('theirs')
  await expect(read('etc/passwd', 5)).rejects.toMatchObject({ code: 'EFBIG' })
  writeFileSync(join(root, 'big'), Buffer.alloc(300_000, 7))
  expect(await readFileInRoot(root, 'big', 300_000)).toEqual(Buffer.alloc(300_000, 7))
  writeFileSync(join(root, 'empty'), '')
  expect(await read('empty', 0)).toBe('')
})

it('says what is there', () => {
  symlinkSync('/etc', join(root, 'link'))
  expect(statInRoot(root, 'link')?.isDirectory()).toBe(true)
  expect(statInRoot(root, 'etc/none')).toBeUndefined()
  expect(statInRoot(root, 'etc/passwd/x')).toBeUndefined()
})
