import { execFileSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { lstat, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { until } from '../../lib/daemon.js'
import { dockerArchive, image, layer, tar, type FixtureImage } from '../../lib/image-fixtures.js'
import { Disks } from '../../../src/storage/disk.js'
import { ErofsImages } from '../../../src/storage/erofs.js'
import { Snapshots } from '../../../src/storage/snapshots.js'
import { harness, type Harness } from './harness.js'

let h: Harness
beforeEach(async () => {
  h = await harness()
})
afterEach(() => h.close())

const load = async (fixture: FixtureImage) => {
  await h.images.load(Readable.from([dockerArchive([{ image: fixture }])]), { onProgress: h.onProgress })
  return h.images.rootfs(fixture.id)
}
const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex')
const shell = (script: string, ...args: string[]) => execFileSync('sh', ['-ec', script, 'sh', ...args], { encoding: 'utf8' })
const mounted = async (path: string) => (await readFile('/proc/self/mountinfo', 'utf8')).includes(` ${path} `)

/** Three layers: everything that a file system image must carry, whiteouts, an opaque directory. */
const rich = () => image([
  layer([
    { name: 'bin/', type: 'dir' }, { name: 'bin/su', content: 'elf', mode: 0o4755, uid: 0, gid: 0, mtime: 1_111_111_111 }, { name: 'bin/ping', content: 'x', mode: 0o755, xattrs: { 'security.capability': capability } },
    { name: 'home/', type: 'dir', uid: 1000, gid: 1001, mode: 0o750 }, { name: 'home/f', content: 'private', mode: 0o600, uid: 70_000, gid: 80_000 },
    { name: 'null', type: 'char', major: 1, minor: 3, mode: 0o666 }, { name: 'pipe', type: 'fifo', mode: 0o644 }, { name: 'link', type: 'symlink', link: '/home/f' },
    { name: 'gone', content: 'x' }, { name: 'opaque/', type: 'dir' }, { name: 'opaque/old', content: 'x' },
  ]),
  layer([{ name: '.wh.gone', content: '' }, { name: 'opaque/', type: 'dir' }, { name: 'opaque/.wh..wh..opq', content: '' }, { name: 'opaque/new', content: 'y' }]),
  layer([{ name: 'home/', type: 'dir', uid: 1000, gid: 1001, mode: 0o750 }, { name: 'home/f', content: 'changed', mode: 0o600, uid: 70_000, gid: 80_000 }]),
])

/** What must hold for the merged tree, wherever it is mounted. */
async function checkRich(root: string): Promise<void> {
  expect((await readdir(root)).filter((name) => name !== 'lost+found').sort()).toEqual(['bin', 'home', 'link', 'null', 'opaque', 'pipe'])
  expect(await readdir(join(root, 'opaque'))).toEqual(['new'])
  expect(await readFile(join(root, 'home/f'), 'utf8')).toBe('changed')
  const f = await stat(join(root, 'home/f'))
  expect([f.uid, f.gid, f.mode & 0o7777]).toEqual([70_000, 80_000, 0o600])
  const home = await stat(join(root, 'home'))
  expect([home.uid, home.gid, home.mode & 0o7777]).toEqual([1000, 1001, 0o750])
  const su = await stat(join(root, 'bin/su'))
  expect([su.mode & 0o7777, su.mtimeMs]).toEqual([0o4755, 1_111_111_111_000])
  const device = await lstat(join(root, 'null'))
  expect([device.isCharacterDevice(), device.rdev]).toEqual([true, 259])
  expect((await lstat(join(root, 'pipe'))).isFIFO()).toBe(true)
  const value = execFileSync('python3', ['-c', 'import os,sys;print(os.getxattr(sys.argv[1],"security.capability").hex())', join(root, 'bin/ping')], { encoding: 'utf8' })
  expect(value.trim()).toBe(capability.toString('hex'))
}

describe('EROFS images', () => {
  async function withImage(path: string, check: (root: string) => Promise<void>): Promise<void> {
    const point = join(h.root, 'point')
    await mkdir(point)
    execFileSync('mount', ['-t', 'erofs', '-o', 'loop,ro', path, point])
    try {
      await check(point)
    } finally {
      execFileSync('umount', [point])
      await rm(point, { recursive: true })
    }
  }

  it('hold the merged tree as it is; made once however many ask; kept until collected', async () => {
    const { layers, chainId } = await load(rich())
    const paths = await Promise.all([1, 2, 3].map(() => h.storage.erofs.erofsFor(chainId, layers)))
    expect(new Set(paths).size).toBe(1)
    const path = paths[0]!
    expect((await stat(path)).mode & 0o7777).toBe(0o444)
    await withImage(path, checkRich)
    const before = await stat(path)
    expect(await h.storage.erofs.erofsFor(chainId, layers)).toBe(path)
    await h.reopen()
    expect((await stat(await h.storage.erofs.erofsFor(chainId, layers))).ino).toBe(before.ino)
    await h.images.collectGarbage(new Set())
    expect((await stat(path)).ino).toBe(before.ino) // the image is still there
    await h.images.remove((await h.images.list())[0]!.id, { force: false, noprune: false, usedBy: () => [] })
    await h.images.collectGarbage(new Set())
    expect(await readdir(join(h.dataRoot, 'erofs'))).toEqual(['empty'])
    expect(await readdir(join(h.root, 'exec/erofs'))).toEqual([])
  })

  it('are as long as the first size that holds them, those of an older version as well, and as full as before', async () => {
    const { layers, chainId } = await load(rich())
    const short = await h.storage.erofs.erofsFor(chainId, layers)
    const before = await stat(short)
    const lengthened = async (...sizes: number[]) => {
      const images = await ErofsImages.open(h.dataRoot, join(h.root, 'exec'), h.storage.layers, sizes)
      const path = await images.erofsFor(chainId, layers)
      expect((await stat(path)).blocks).toBe(before.blocks)
      await withImage(path, checkRich)
      return (await stat(path)).size
    }
    expect(await lengthened(4096)).toBe(before.size) // larger than all sizes
    expect(await lengthened(4096, 16 << 20, 64 << 20)).toBe(16 << 20)
    await rm(short)
    expect(await lengthened(32 << 20)).toBe(32 << 20) // made anew
  })

  it('one layer with whiteouts, a layer without files, sixty layers', async () => {
    const one = await load(image([layer([{ name: '.wh.x', content: '' }, { name: 'd/', type: 'dir' }, { name: 'd/.wh..wh..opq', content: '' }, { name: 'a', content: '1' }])]))
    await withImage(await h.storage.erofs.erofsFor(one.chainId, one.layers), async (root) => expect((await readdir(root)).sort()).toEqual(['a', 'd']))
    const none = await load(image([layer([])]))
    await withImage(await h.storage.erofs.erofsFor(none.chainId, none.layers), async (root) => expect(await readdir(root)).toEqual([]))
    const many = await load(image(Array.from({ length: 60 }, (_, i) => layer([{ name: `f${i}`, content: String(i) }]))))
    await withImage(await h.storage.erofs.erofsFor(many.chainId, many.layers), async (root) => expect(await readdir(root)).toHaveLength(60))
  })

  it('a failure is an error and leaves nothing', async () => {
    const { chainId } = await load(image([layer([{ name: 'a', content: '' }])]))
    await expect(h.storage.erofs.erofsFor(chainId, [join(h.root, 'nosuch')])).rejects.toThrow(/ENOENT/)
    await expect(h.storage.erofs.erofsFor('sha256:../../x', [])).rejects.toThrow(/not a chain id/)
    expect(await readdir(join(h.dataRoot, 'erofs'))).toEqual(['empty'])
    expect(await readdir(join(h.root, 'exec/erofs'))).toEqual([])
  })
})

describe('snapshots', () => {
  it('prepare, mount, write, unmount, mount again, remove', async () => {
    const { layers } = await load(rich())
    const snapshot = await h.storage.snapshots.prepare('c1', layers)
    await h.storage.snapshots.mount(snapshot)
    try {
      await checkRich(snapshot.merged)
      await writeFile(join(snapshot.merged, 'mine'), 'written')
      await rm(join(snapshot.merged, 'bin'), { recursive: true })
      shell('mv "$1/opaque" "$1/moved"', snapshot.merged)
    } finally {
      expect(h.storage.snapshots.unmount('c1')).toBe(true)
    }
    expect(h.storage.snapshots.unmount('c1')).toBe(false)
    expect(await readFile(join(snapshot.upper, 'mine'), 'utf8')).toBe('written')
    await h.storage.snapshots.mount(await h.storage.snapshots.prepare('c1', layers))
    expect((await readdir(snapshot.merged)).sort()).toEqual(['home', 'link', 'mine', 'moved', 'null', 'pipe'])
    expect(await h.storage.snapshots.list()).toEqual(['c1'])
    await h.storage.snapshots.remove('c1')
    expect(await mounted(snapshot.merged)).toBe(false)
    expect(await h.storage.snapshots.list()).toEqual([])
    await h.storage.snapshots.remove('c1')
    // the layers are as they were
    expect(await readFile(join(layers[0]!, 'bin/su'), 'utf8')).toBe('elf')
  })

  it('what is removed later is out of the way at once, also twice; what a daemon left of it goes with the next', async () => {
    const { layers } = await load(rich())
    const { snapshots } = h.storage
    const aside = join(dirname(dirname(snapshots.paths('later', layers).upper)), '.removed')
    const gone = () => until('the files are gone', async () => (await readdir(aside)).length === 0)
    for (let time = 0; time < 3; time++) {
      const snapshot = await snapshots.prepare('later', layers)
      await snapshots.mount(snapshot)
      for (let n = 0; n < 500; n++) writeFileSync(join(snapshot.merged, `file${n}`), '')
      await snapshots.remove('later', true)
      expect([await mounted(snapshot.merged), existsSync(snapshot.upper), await snapshots.list()]).toEqual([false, false, []])
    }
    await snapshots.remove('later', true)
    await gone()
    await mkdir(join(aside, 'left/upper/a'), { recursive: true })
    await Snapshots.open(dirname(dirname(aside)), {} as never)
    await gone()
  })

  it('volatile: can be mounted again after an orderly end', async () => {
    const { layers } = await load(rich())
    const snapshot = await h.storage.snapshots.prepare('v', layers)
    for (const name of ['one', 'two']) {
      await h.storage.snapshots.mount(snapshot, { volatile: true })
      await writeFile(join(snapshot.merged, name), '')
      h.storage.snapshots.unmount('v')
    }
    expect(await readdir(snapshot.upper)).toEqual(expect.arrayContaining(['one', 'two']))
    await h.storage.snapshots.remove('v')
  })

  it('a layer that an image has several times: the tree is that of applying all, one after the other', async () => {
    const twice = layer([
      { name: 'file', content: 'twice' }, { name: '.wh.gone', content: '' }, { name: 'opaque/', type: 'dir' }, { name: 'opaque/.wh..wh..opq', content: '' }, { name: 'opaque/mine', content: '' },
      { name: 'plain/', type: 'dir', mode: 0o700 }, { name: 'plain/mine', content: '' },
    ])
    const others = (name: string) => layer([
      { name: 'file', content: name }, { name: 'gone', content: name }, { name: 'opaque/', type: 'dir' }, { name: `opaque/${name}`, content: '' }, { name: 'plain/', type: 'dir' }, { name: `plain/${name}`, content: '' },
    ])
    const empty = layer([])
    const fixture = image([empty, others('lower'), twice, empty, others('between'), twice, layer([{ name: '.wh.file', content: '' }]), empty])
    const { layers, chainId } = await load(fixture)
    const check = async (root: string) => {
      expect((await readdir(root)).filter((name) => name !== 'lost+found').sort()).toEqual(['opaque', 'plain'])
      expect(await readdir(join(root, 'opaque'))).toEqual(['mine'])
      expect((await readdir(join(root, 'plain'))).sort()).toEqual(['between', 'lower', 'mine'])
      expect((await stat(join(root, 'plain'))).mode & 0o7777).toBe(0o700)
    }
    const snapshot = await h.storage.snapshots.prepare('twice', layers)
    await h.storage.snapshots.mount(snapshot)
    try {
      await check(snapshot.merged)
    } finally {
      await h.storage.snapshots.remove('twice')
    }
    const point = join(h.root, 'point')
    await mkdir(point)
    execFileSync('mount', ['-t', 'erofs', '-o', 'loop,ro', await h.storage.erofs.erofsFor(chainId, layers), point])
    try {
      await check(point)
    } finally {
      execFileSync('umount', [point])
    }
    // the image has all of them, for who stands on it or sends it elsewhere
    expect((await h.images.get(fixture.id)).diffIds).toEqual(fixture.layers.map((l) => l.diffId))
    expect(layers).toHaveLength(5)
  })

  it('125 layers fit into the mount options', async () => {
    const layers: string[] = []
    for (let i = 0; i < 125; i++) {
      const path = join(h.root, 'in.tar')
      await writeFile(path, tar([{ name: `f${i}`, content: '' }]))
      layers.push((await h.storage.layers.addUnknown(path, 'x', 1)).dir)
    }
    const snapshot = await h.storage.snapshots.prepare('many', layers)
    await h.storage.snapshots.mount(snapshot)
    expect(await readdir(snapshot.merged)).toHaveLength(125)
    await h.storage.snapshots.remove('many')
  })

  it('odd ids and missing layers are errors', async () => {
    await expect(h.storage.snapshots.prepare('../x', [])).rejects.toThrow(/not a container id/)
    await expect(h.storage.snapshots.prepare('l', [])).rejects.toThrow(/not a container id/)
    const snapshot = await h.storage.snapshots.prepare('c2', [join(h.root, 'nosuch')])
    await expect(h.storage.snapshots.mount(snapshot)).rejects.toThrow(/ENOENT/)
    await h.storage.snapshots.remove('c2')
  })

  it('a tree deeper than path names is removed', async () => {
    const snapshot = await h.storage.snapshots.prepare('deep', [])
    execFileSync('python3', ['-c', 'import os,sys\nos.chdir(sys.argv[1])\nfor i in range(3000): os.mkdir("directory"); os.chdir("directory")', snapshot.upper])
    await h.storage.snapshots.remove('deep')
    expect(await h.storage.snapshots.list()).toEqual([])
  })
})

describe('disks', () => {
  it('an ext4 that mounts, is sound, is sparse, and belongs to its VM', async () => {
    const path = join(h.root, 'disk')
    await h.storage.disks.create(path, 10 * 2 ** 30, 12_345, 54_321)
    const made = await stat(path)
    expect([made.size, made.uid, made.gid, made.mode & 0o7777]).toEqual([10 * 2 ** 30, 12_345, 54_321, 0o600])
    expect(made.blocks * 512).toBeLessThan(4 << 20)
    shell('e2fsck -fn "$1"', path)
    const point = join(h.root, 'point')
    await mkdir(point)
    shell('mount -o loop "$1" "$2" && mkdir "$2/upper" "$2/work" && echo data >"$2/upper/file" && umount "$2" && e2fsck -fn "$1"', path, point)
    const times: number[] = []
    for (let i = 0; i < 5; i++) {
      const start = performance.now()
      await h.storage.disks.create(join(h.root, `disk${i}`), 10 * 2 ** 30, 1, 1)
      times.push(performance.now() - start)
    }
    expect(Math.min(...times)).toBeLessThan(50)
    console.log(`disk: ${times.map((t) => t.toFixed(1)).join(' ')} ms, ${made.blocks / 2} KiB`)
  })
  it.each([16 * 2 ** 20, 2 ** 29 + 1, 2 ** 40])('of %i bytes: sound, sparse, and of that size inside', async (size) => {
    const path = join(h.root, 'disk')
    await h.storage.disks.create(path, size, 12_345, 54_321)
    const made = await stat(path)
    expect([made.size, made.uid, made.gid, made.mode & 0o7777]).toEqual([size - (size % 4096), 12_345, 54_321, 0o600])
    expect(made.blocks * 512).toBeLessThan(16 << 20)
    const point = join(h.root, 'point')
    await mkdir(point)
    const inside = Number(shell('mount -o loop "$1" "$2" && echo data >"$2/file" && df -B1 --output=size "$2" | tail -n 1 && umount "$2" && e2fsck -fn "$1" >&2', path, point))
    expect(inside).toBeLessThanOrEqual(size)
    expect(inside).toBeGreaterThan(size * 0.65)
    expect(await readdir(join(h.root, 'data/disks'))).toEqual([])
  }, 60_000)

  it('what was made for another usual size is removed', async () => {
    await h.storage.disks.create(join(h.root, 'disk'), 10 * 2 ** 30, 1, 1)
    expect(await readdir(join(h.root, 'data/disks'))).toEqual([`ext4-${10 * 2 ** 30}`])
    await Disks.open(join(h.root, 'data'), 2 ** 30)
    expect(await readdir(join(h.root, 'data/disks'))).toEqual([])
  })

  it('errors leave nothing', async () => {
    await expect(h.storage.disks.create(join(h.root, 'small'), 1000, 0, 0)).rejects.toMatchObject({ statusCode: 400 })
    await expect(h.storage.disks.create(join(h.root, 'no/such/dir'), 1 << 30, 0, 0)).rejects.toThrow(/ENOENT/)
    await writeFile(join(h.root, 'taken'), 'x')
    await expect(h.storage.disks.create(join(h.root, 'taken'), 1 << 30, 0, 0)).rejects.toThrow(/EEXIST/)
    expect(await readFile(join(h.root, 'taken'), 'utf8')).toBe('x')
    const full = join(h.root, 'full')
    await mkdir(full)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', full])
    try {
      for (const size of [1 << 30, 10 * 2 ** 30]) {
        await expect(h.storage.disks.create(join(full, 'd'), size, 0, 0)).rejects.toMatchObject({ statusCode: 500, message: 'cannot make the disk: no space left on device' })
      }
      expect(await readdir(full)).toEqual([])
    } finally {
      execFileSync('umount', [full])
    }
  })
})
