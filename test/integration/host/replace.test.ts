import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { MS, mountTmpfs, unmount } from '../../../src/host/mount.js'
import { native } from '../../../src/host/native.js'

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hull-replace-'))
})
afterAll(() => rm(directory, { recursive: true, force: true }))

it('replaces a file as a whole, with its mode, over what was left of another try', async () => {
  const [path, temporary] = [join(directory, 'record'), join(directory, 'record.tmp')]
  writeFileSync(path, 'old', { mode: 0o644 })
  writeFileSync(temporary, 'left, and longer than what comes', { mode: 0o600 })
  for (const text of ['{"name":"ünï"}', '', 'x'.repeat(5 << 20)]) {
    await native.replaceFile(path, temporary, text, 0o600)
    expect(readFileSync(path, 'utf8') === text).toBe(true)
    expect([statSync(path).mode & 0o777, existsSync(temporary)]).toEqual([0o600, false])
  }
})

it('says what failed, leaves the old file and nothing else', async () => {
  const path = join(directory, 'kept')
  writeFileSync(path, 'old')
  await expect(native.replaceFile(path, join(directory, 'none/tmp'), 'new', 0o600)).rejects.toMatchObject({ code: 'ENOENT', syscall: 'open' })
  mkdirSync(join(directory, 'in-the-way'))
  await expect(native.replaceFile(path, join(directory, 'in-the-way'), 'new', 0o600)).rejects.toMatchObject({ code: 'EISDIR', path: join(directory, 'in-the-way') })
  symlinkSync(path, join(directory, 'link'))
  await expect(native.replaceFile(path, join(directory, 'link'), 'new', 0o600)).rejects.toMatchObject({ code: 'ELOOP' })
  const temporary = join(directory, 'kept.tmp')
  await expect(native.replaceFile(join(directory, 'in-the-way'), temporary, 'new', 0o600)).rejects.toMatchObject({ syscall: 'rename' })
  expect(existsSync(temporary)).toBe(false)
  const small = join(directory, 'small')
  mkdirSync(small)
  mountTmpfs(small, 'size=64k', MS.NOSUID | MS.NODEV | MS.NOEXEC)
  try {
    await expect(native.replaceFile(join(small, 'a'), join(small, 'tmp'), 'x'.repeat(1 << 20), 0o600)).rejects.toMatchObject({ code: 'ENOSPC', syscall: 'write' })
    expect(readdirSync(small)).toEqual([])
  } finally {
    unmount(small)
  }
  expect(readFileSync(path, 'utf8')).toBe('old')
  expect(() => native.replaceFile(path, temporary, 'a\0b', 0o600)).toThrow(/NUL/i)
  expect(() => native.replaceFile(path, temporary, 'a', 0o10000)).toThrow(RangeError)
})
