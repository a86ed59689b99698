import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { bindMount, mount, mountOverlay, mountTmpfs, MS, remountReadOnly, setPropagation, unmount, unmountAsync, unmountBelow } from '../../../src/host/mount.js'
import { listMounts } from '../../../src/host/mountinfo.js'
import { native } from '../../../src/host/native.js'
import { descriptors, temporary } from './support.js'

let base: string
beforeEach(() => { base = temporary(); mountTmpfs(base) })
afterEach(async () => {
  await unmountBelow(base)
  expect(await listMounts(base)).toEqual([])
  rmSync(base, { recursive: true })
})
const dir = (...names: string[]) => {
  const path = join(base, ...names)
  mkdirSync(path, { recursive: true })
  return path
}
const code = (code: string) => expect.objectContaining({ code }) as unknown as Error

describe('overlay', () => {
  const layer = (name: string, files: Record<string, string>) => {
    const path = dir('layers', name)
    for (const [file, text] of Object.entries(files)) writeFileSync(join(path, file), text)
    return path
  }

  it('puts the last layer on top, and writes into upper', async () => {
    const lower = [layer('one', { a: '1', b: '1' }), layer('two', { b: '2' })]
    await mountOverlay({ lower, upper: dir('containers', 'u'), work: dir('containers', 'w'), target: dir('m') })
    expect(readFileSync(join(base, 'm/a'), 'utf8') + readFileSync(join(base, 'm/b'), 'utf8')).toBe('12')
    writeFileSync(join(base, 'm/c'), '3')
    expect(readFileSync(join(base, 'containers/u/c'), 'utf8')).toBe('3')
    expect((await listMounts(join(base, 'm')))[0]).toMatchObject({ fstype: 'overlay', target: join(base, 'm') })
  })

  it('takes 127 layers with names of 64 digits: more than a page of paths', async () => {
    const lower = Array.from({ length: 127 }, (_, i) => layer(String(i).padStart(64, '0'), { [`f${i}`]: '', top: String(i) }))
    const fds = descriptors()
    await mountOverlay({ lower, upper: dir('u'), work: dir('w'), target: dir('m') })
    expect(descriptors()).toBe(fds)
    expect(readFileSync(join(base, 'm/top'), 'utf8')).toBe('126')
    expect(existsSync(join(base, 'm/f0'))).toBe(true)
  })

  it.each(['a,b', 'a:b', 'a\\b', 'a"b', 'a\\,b'])('takes a path with separators in it: %s', async (name) => {
    await mountOverlay({ lower: [layer(name, { x: name })], upper: dir('o:,', 'u'), work: dir('o:,', 'w'), target: dir('m') })
    expect(readFileSync(join(base, 'm/x'), 'utf8')).toBe(name)
    writeFileSync(join(base, 'm/y'), '')
    expect(existsSync(join(base, 'o:,/u/y'))).toBe(true)
  })

  it('is read-only without upper', async () => {
    await mountOverlay({ lower: [layer('1', { x: '' }), layer('2', {})], target: dir('m') })
    expect(() => { writeFileSync(join(base, 'm/y'), '') }).toThrow(code('EROFS'))
  })

  it('rejects with the reason and leaves nothing', async () => {
    const fds = descriptors()
    const lower = [layer('1', {})]
    await expect(mountOverlay({ lower: [join(base, 'none')], upper: dir('u'), work: dir('w'), target: dir('m') })).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(mountOverlay({ lower: [...lower, join(base, 'no,ne')], upper: dir('u'), work: dir('w'), target: dir('m') })).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(mountOverlay({ lower, upper: dir('u'), work: dir('w'), target: join(base, 'none') })).rejects.toMatchObject({ code: 'ENOENT', syscall: 'mount', path: join(base, 'none') })
    await expect(mountOverlay({ lower: [], target: dir('m') })).rejects.toThrow(TypeError)
    await expect(mountOverlay({ lower, upper: dir('u'), target: dir('m') })).rejects.toThrow(TypeError)
    await expect(mountOverlay({ lower: ['relative'], target: dir('m') })).rejects.toThrow('not absolute')
    expect(await listMounts(join(base, 'm'))).toEqual([])
    expect(descriptors()).toBe(fds)
  })

  it('does not move the process', async () => {
    const before = process.cwd()
    await Promise.all(Array.from({ length: 20 }, (_, i) => mountOverlay({ lower: [layer(`l${i}`, { i: String(i) })], upper: dir('u', String(i)), work: dir('w', String(i)), target: dir('m', String(i)) })))
    expect(process.cwd()).toBe(before)
    for (let i = 0; i < 20; i++) expect(readFileSync(join(base, 'm', String(i), 'i'), 'utf8')).toBe(String(i))
  })
})

describe('bind', () => {
  it('read-only keeps other attributes, and the source writable', async () => {
    mountTmpfs(dir('s'), 'size=1m', MS.NOSUID | MS.NOEXEC)
    bindMount(join(base, 's'), dir('t'), { readOnly: true })
    expect(() => { writeFileSync(join(base, 't/x'), '') }).toThrow(code('EROFS'))
    writeFileSync(join(base, 's/x'), '')
    expect((await listMounts(join(base, 't')))[0]?.options).toEqual(expect.arrayContaining(['ro', 'nosuid', 'noexec']))
  })

  it('recursive read-only reaches the mounts below', () => {
    dir('s', 'below')
    mountTmpfs(join(base, 's/below'))
    bindMount(join(base, 's'), dir('t'), { readOnly: true, recursive: true })
    expect(() => { writeFileSync(join(base, 't/below/x'), '') }).toThrow(code('EROFS'))
    writeFileSync(join(base, 's/below/x'), '')
  })

  it('file on file; a file on a directory is an error', () => {
    writeFileSync(join(base, 'f'), 'f')
    writeFileSync(join(base, 'g'), 'g')
    bindMount(join(base, 'f'), join(base, 'g'))
    expect(readFileSync(join(base, 'g'), 'utf8')).toBe('f')
    expect(() => { bindMount(join(base, 'f'), dir('d')) }).toThrow(code('ENOTDIR'))
    expect(() => { remountReadOnly(join(base, 'd')) }).toThrow(code('EINVAL'))
  })
})

describe('unmount', () => {
  it('tells whether there was something, detaches what is busy', () => {
    mountTmpfs(dir('m'))
    const here = process.cwd() // shared with the other test files
    process.chdir(join(base, 'm'))
    try {
      expect(unmount(join(base, 'm'))).toBe(true)
    } finally {
      process.chdir(here)
    }
    expect(unmount(join(base, 'm'))).toBe(false)
    expect(unmount(join(base, 'none'))).toBe(false)
    expect(unmount(join(base, 'none/none'))).toBe(false)
  })

  it('the same on a thread', async () => {
    mountTmpfs(dir('m'))
    const here = process.cwd() // shared with the other test files
    process.chdir(join(base, 'm'))
    try {
      expect(await unmountAsync(join(base, 'm'))).toBe(true)
    } finally {
      process.chdir(here)
    }
    expect(await unmountAsync(join(base, 'm'))).toBe(false)
    expect(await unmountAsync(join(base, 'none/none'))).toBe(false)
    await expect(unmountAsync('x'.repeat(5000))).rejects.toMatchObject({ code: 'ENAMETOOLONG', syscall: 'umount' })
  })

  it('takes down what is below, also mounted over and with odd names, and nothing beside it', async () => {
    for (const name of ['p', 'p/a b', 'p/a b/ü\n', 'pq']) mountTmpfs(dir(name))
    mountTmpfs(join(base, 'p'))
    setPropagation(join(base, 'pq'), MS.PRIVATE)
    expect(await unmountBelow(join(base, 'p'))).toEqual([join(base, 'p'), join(base, 'p/a b/ü\n'), join(base, 'p/a b'), join(base, 'p')])
    expect(await listMounts(join(base, 'pq'))).toHaveLength(1)
  })
})

describe('arguments', () => {
  it('are checked, and errors look like Node\'s', () => {
    expect(() => { mount('none', join(base, 'x'), 'tmpfs') }).toThrow(expect.objectContaining({
      name: 'Error', code: 'ENOENT', errno: -2, syscall: 'mount', path: join(base, 'x'), message: `mount: ENOENT: no such file or directory, '${join(base, 'x')}'`,
    }))
    expect(() => { mount('none', base, 'nosuchfs') }).toThrow(code('ENODEV'))
    expect(() => { mount('none', base, 'tmpfs', 0, 'x'.repeat(4096)) }).toThrow(code('E2BIG'))
    expect(() => { mount('a\0b', base, 'tmpfs') }).toThrow(code('ERR_INVALID_ARG_VALUE'))
    const loose = native as unknown as Record<string, (...args: unknown[]) => unknown>
    expect(() => loose['mount']!('none', base)).toThrow(code('ERR_INVALID_ARG_TYPE'))
    expect(() => loose['mountAt']!(1)).toThrow(code('ERR_INVALID_ARG_TYPE'))
    expect(() => loose['umount']!(base, 1.5)).toThrow(code('ERR_OUT_OF_RANGE'))
    expect(() => loose['umount']!(base, NaN)).toThrow(code('ERR_OUT_OF_RANGE'))
    expect(() => loose['umount']!(base, '8')).toThrow(code('ERR_INVALID_ARG_TYPE'))
  })
})
