import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { listMounts } from '../../../src/host/mountinfo.js'
import { bindMount, unmount } from '../../../src/host/mount.js'
import { type StoredVolume, VolumeStore } from '../../../src/storage/volumes.js'

let directory: string
let store: VolumeStore
const layers = { linkOf: () => undefined }
const open = () => VolumeStore.open(join(directory, 'data'), join(directory, 'exec'), layers)
const volume = (name: string, options: Record<string, string> = {}): StoredVolume => ({ version: 1, name, created: new Date().toISOString(), labels: { a: 'b' }, options })
const root = () => join(directory, 'data/volumes')

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hull-volumes-'))
  await mkdir(join(directory, 'data'))
  store = await open()
})

afterEach(async () => {
  expect((await listMounts(directory)).map((entry) => entry.target)).toEqual([])
  await rm(directory, { recursive: true })
})

/** An image of two layers. */
async function image(): Promise<string[]> {
  const [low, high] = [join(directory, 'low'), join(directory, 'high')]
  execFileSync('sh', ['-ec', `mkdir -p ${low}/data/sub ${high}/data ${low}/etc && echo low > ${low}/data/f && echo kept > ${low}/data/sub/g && echo high > ${high}/data/f && chown 7:8 ${low}/data/sub ${high}/data
    chmod 2711 ${high}/data && ln -s / ${low}/escape && ln -s data ${low}/inner && echo file > ${low}/file && setcap cap_net_raw+ep ${high}/data/f 2>/dev/null || true
    python3 -c 'import os,sys; os.setxattr(sys.argv[1], "user.note", b"kept")' ${low}/data/sub/g`])
  return [low, high]
}

describe('volumes on the disk', () => {
  it('are there again for the next daemon, and what was half done is not', async () => {
    await store.create(volume('one'))
    await writeFile(join(store.mountpoint('one'), 'file'), 'data')
    // What a daemon that was killed in the middle leaves.
    await mkdir(join(root(), '.new-00/_data'), { recursive: true })
    await mkdir(join(root(), '.old-00/_data/deep'), { recursive: true })
    await mkdir(join(root(), 'one/.copy-00/half'), { recursive: true })
    store = await open()
    expect(store.all().map(({ name, labels }) => [name, labels])).toEqual([['one', { a: 'b' }]])
    expect((await readdir(root())).sort()).toEqual(['.empty', 'one'])
    expect((await readdir(join(root(), 'one'))).sort()).toEqual(['_data', 'volume.json'])
    await store.remove('one')
    expect(await readdir(root())).toEqual(['.empty'])
  })

  it('with an unreadable record keep their data', async () => {
    await mkdir(join(root(), 'odd/_data'), { recursive: true })
    await writeFile(join(root(), 'odd/_data/file'), 'precious')
    await writeFile(join(root(), 'odd/volume.json'), '{')
    store = await open()
    expect(store.get('odd')).toBeUndefined()
    expect(await readFile(join(root(), 'odd/_data/file'), 'utf8')).toBe('precious')
  })

  it('never take with them what is mounted in them', async () => {
    const precious = join(directory, 'precious')
    await mkdir(precious)
    await writeFile(join(precious, 'file'), 'x')
    await store.create(volume('bound', { type: 'none', device: precious, o: 'bind' }))
    await store.mount('bound')
    await store.mount('bound')
    expect(await readdir(store.mountpoint('bound'))).toEqual(['file'])
    await store.remove('bound')
    expect(existsSync(join(precious, 'file'))).toBe(true)
    // Somebody else's mount inside: the removal stops there.
    await store.create(volume('stubborn'))
    await mkdir(join(store.mountpoint('stubborn'), 'in'))
    bindMount(precious, join(store.mountpoint('stubborn'), 'in'))
    await expect(store.remove('stubborn')).rejects.toThrow(/still mounted/)
    expect(existsSync(join(precious, 'file'))).toBe(true)
    for (const { target } of await listMounts(root())) unmount(target)
    store = await open()
    expect(await readdir(root())).toEqual(['.empty'])
  })

  it('tell why they cannot be mounted', async () => {
    await store.create(volume('nowhere', { type: 'none', device: '/nonexistent', o: 'bind' }))
    await expect(store.mount('nowhere')).rejects.toThrow(/failed to mount local volume: mount \/nonexistent:.*ENOENT/)
  })
})

describe('a new volume', () => {
  it('takes what the layers have together, with owners, modes and attributes', async () => {
    const both = await image()
    for (const idle of [true, false]) {
      const name = `filled-${idle}`
      await store.create(volume(name))
      await store.populate(name, both, '/data', { bound: undefined, idle })
      const data = store.mountpoint(name)
      expect([await readFile(join(data, 'f'), 'utf8'), await readFile(join(data, 'sub/g'), 'utf8')]).toEqual(['high\n', 'kept\n'])
      const own = await stat(data)
      expect([own.uid, own.gid, own.mode & 0o7777]).toEqual([7, 8, 0o2711])
      expect(execFileSync('python3', ['-c', 'import os,sys; print(os.getxattr(sys.argv[1], "user.note").decode())', join(data, 'sub/g')], { encoding: 'utf8' })).toBe('kept\n')
      // Filled once: what its owner removes does not come back.
      await rm(join(data, 'f'))
      await store.populate(name, both, '/data', { bound: undefined, idle })
      expect(await readdir(data)).toEqual(['sub'])
      await store.remove(name)
    }
  })

  it('takes nothing from outside of the image', async () => {
    const both = await image()
    const taken = async (path: string) => {
      await store.create(volume('target'))
      await store.populate('target', both, path, { bound: undefined, idle: true })
      const names = await readdir(store.mountpoint('target'))
      await store.remove('target')
      return names.sort()
    }
    expect(await taken('/escape/../../data')).toEqual(['f', 'sub'])
    expect(await taken('/escape')).toEqual(['data', 'escape', 'etc', 'file', 'inner'])
    expect(await taken('/inner')).toEqual(['f', 'sub'])
    expect(await taken('/file')).toEqual([])
    expect(await taken('/missing')).toEqual([])
  })
})

describe('a part of a volume', () => {
  it('is what was found, whatever its name means later', async () => {
    await store.create(volume('v1'))
    const data = store.mountpoint('v1')
    await mkdir(join(data, 'a'))
    await writeFile(join(data, 'a/f'), 'inside')
    await symlink('/etc', join(data, 'out'))
    await store.bindSubpath('v1', 'a', 'c1', 0)
    await rm(join(data, 'a'), { recursive: true })
    await symlink('/etc', join(data, 'a'))
    expect(await readdir(store.subpathTarget('c1', 0))).toEqual([])
    await expect(store.bindSubpath('v1', 'out', 'c1', 1)).rejects.toMatchObject({ code: 'ENOENT' })
    expect(await store.subpathOwners()).toEqual(['c1'])
    await store.releaseSubpaths('c1')
    expect(await store.subpathOwners()).toEqual([])
    await store.releaseSubpaths('c1')
  })
})
