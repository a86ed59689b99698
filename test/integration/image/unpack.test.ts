import { execFileSync } from 'node:child_process'
import { chmod, lstat, mkdir, mkdtemp, open, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { UnpackError, type UnpackOptions } from '../../../src/storage/types.js'
import { unpack } from '../../../src/storage/unpack.js'
import { climbingTars, layer, sha256, tar, type TarEntry } from '../../lib/image-fixtures.js'

let directory: string
let target: string

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hull-unpack-'))
  target = join(directory, 'target')
  await mkdir(target)
})
afterEach(() => rm(directory, { recursive: true, force: true }))

/** Unpacks bytes through a file, as layers are. */
async function unpackBytes(bytes: Uint8Array, options: Partial<UnpackOptions> = {}) {
  const path = join(directory, 'archive')
  await writeFile(path, bytes)
  const file = await open(path, 'r')
  try {
    return await unpack(file.fd, target, { layer: true, ...options })
  } finally {
    await file.close()
  }
}

const xattr = (path: string, name: string) =>
  execFileSync('python3', ['-c', 'import os,sys;sys.stdout.write(os.getxattr(sys.argv[1],sys.argv[2],follow_symlinks=False).hex())', path, name], { encoding: 'utf8' })
const xattrs = (path: string) => execFileSync('python3', ['-c', 'import os,sys;print("\\n".join(os.listxattr(sys.argv[1],follow_symlinks=False)))', path], { encoding: 'utf8' }).trim()

/** struct vfs_cap_data, revision 2: cap_net_raw+ep */
const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex')

describe('what a layer holds comes out as it was', () => {
  it('owners, modes, times, links, devices, FIFOs and attributes', async () => {
    const bytes = tar([
      { name: './', type: 'dir', mode: 0o711, uid: 7, gid: 8, mtime: 1_000_000_000 },
      { name: 'dir/', type: 'dir', mode: 0o1755, uid: 10, gid: 20, mtime: 1_100_000_000 },
      { name: 'dir/file', content: 'hello', mode: 0o640, uid: 1000, gid: 2000, mtime: 1_200_000_000 },
      { name: 'dir/readonly', content: 'x', mode: 0o400, uid: 4_000_000_000, gid: 3_000_000_000 },
      { name: 'su', content: 'elf', mode: 0o4755, uid: 0, gid: 0, xattrs: { 'security.capability': capability, 'user.note': Buffer.from('hi') } },
      { name: 'sg', content: 'elf', mode: 0o6711, uid: 5, gid: 6 },
      { name: 'sym', type: 'symlink', link: '/no/where', uid: 3, gid: 4, mtime: 1_300_000_000 },
      { name: 'hard', type: 'hardlink', link: 'dir/file' },
      { name: 'null', type: 'char', major: 1, minor: 3, mode: 0o666 },
      { name: 'disk', type: 'block', major: 8, minor: 17, mode: 0o660, gid: 6 },
      { name: 'pipe', type: 'fifo', mode: 0o622, uid: 9 },
      { name: 'made/by/need', content: '' },
    ])
    const result = await unpackBytes(gzipSync(bytes))
    expect(result.diffId).toBe(sha256(bytes))
    expect(result.entries).toBe(12)
    expect(result.size).toBe('hello'.length + 1 + 3 + 3)
    const at = (name: string) => lstat(join(target, name))
    const brief = async (name: string) => {
      const s = await at(name)
      return [(s.mode & 0o7777).toString(8), s.uid, s.gid, Math.round(s.mtimeMs / 1000)]
    }
    expect(await brief('')).toEqual(['711', 7, 8, 1_000_000_000])
    expect(await brief('dir')).toEqual(['1755', 10, 20, 1_100_000_000])
    expect(await brief('dir/file')).toEqual(['640', 1000, 2000, 1_200_000_000])
    expect((await brief('dir/readonly')).slice(0, 3)).toEqual(['400', 4_000_000_000, 3_000_000_000])
    expect((await brief('su')).slice(0, 3)).toEqual(['4755', 0, 0])
    expect((await brief('sg')).slice(0, 3)).toEqual(['6711', 5, 6])
    expect((await brief('sym')).slice(1)).toEqual([3, 4, 1_300_000_000])
    expect((await brief('made/by')).slice(0, 3)).toEqual(['755', 0, 0])
    expect(await readlink(join(target, 'sym'))).toBe('/no/where')
    expect((await at('hard')).ino).toBe((await at('dir/file')).ino)
    const chr = await at('null')
    expect([chr.isCharacterDevice(), chr.rdev, chr.mode & 0o777]).toEqual([true, (1 << 8) | 3, 0o666])
    const blk = await at('disk')
    expect([blk.isBlockDevice(), blk.rdev, blk.gid]).toEqual([true, (8 << 8) | 17, 6])
    const fifo = await at('pipe')
    expect([fifo.isFIFO(), fifo.mode & 0o777, fifo.uid]).toEqual([true, 0o622, 9])
    expect(xattr(join(target, 'su'), 'security.capability')).toBe(capability.toString('hex'))
    expect(xattr(join(target, 'su'), 'user.note')).toBe(Buffer.from('hi').toString('hex'))
  })

  it.each(['gzip', 'zstd', 'none'] as const)('%s, with the blob\'s own digest', async (compression) => {
    const made = layer([{ name: 'a', content: 'a'.repeat(3_000_000) }], compression)
    const result = await unpackBytes(made.blob, { blobDigest: true })
    expect(result).toMatchObject({ diffId: made.diffId, blobDigest: made.digest, size: 3_000_000, stream: made.tar.length })
  })

  it.each(['xz', 'bzip2'])('%s', async (program) => {
    const bytes = tar([{ name: 'a', content: 'b' }])
    expect((await unpackBytes(execFileSync(program, ['-c'], { input: bytes }))).diffId).toBe(sha256(bytes))
  })

  it('several gzip members, and bytes after the end of the archive, belong to the digest', async () => {
    const bytes = tar([{ name: 'a', content: 'b' }])
    const padding = Buffer.alloc(10_240, 7)
    const result = await unpackBytes(Buffer.concat([gzipSync(bytes), gzipSync(padding)]))
    expect(result.diffId).toBe(sha256(Buffer.concat([bytes, padding])))
  })

  it('an archive without entries, and one without bytes', async () => {
    expect(await unpackBytes(tar([]))).toMatchObject({ entries: 0, diffId: sha256(tar([])) })
    expect(await unpackBytes(Buffer.alloc(0))).toMatchObject({ entries: 0, diffId: sha256('') })
  })

  it('names stay the bytes that they are: decomposed accents, long, not UTF-8', async () => {
    const decomposed = 'e\u0301'.repeat(80)
    const long = `${'d'.repeat(200)}/${'f'.repeat(200)}`
    const entries: TarEntry[] = [
      { name: decomposed, content: '1' }, { name: long, content: '2' }, { name: 'l', type: 'symlink', link: decomposed },
      { name: 'raw', content: '3', pax: { path: Buffer.from([0x66, 0xff, 0xfe, 0x66]) } }, { name: 'e\u0301', content: '4' },
    ]
    await unpackBytes(tar(entries))
    const names = (await readdir(target, { encoding: 'buffer' })).map((name) => name.toString('latin1'))
    expect(names).toContain(Buffer.from(decomposed).toString('latin1'))
    expect(names).toContain(Buffer.from('e\u0301').toString('latin1'))
    expect(names).toContain('f\xff\xfef')
    expect(await readFile(join(target, long), 'utf8')).toBe('2')
    expect(await readlink(join(target, 'l'))).toBe(decomposed)
  })

  it('sparse files of GNU tar keep their holes', async () => {
    execFileSync('sh', ['-c', 'truncate -s 64M sparse && printf end | dd of=sparse bs=1 seek=50000000 conv=notrunc status=none && tar -cSf sparse.tar sparse'], { cwd: directory })
    await unpackBytes(await readFile(join(directory, 'sparse.tar')))
    const made = await stat(join(target, 'sparse'))
    expect(made.size).toBe(64 << 20)
    expect(made.blocks * 512).toBeLessThan(1 << 20)
    expect((await readFile(join(target, 'sparse'))).subarray(50_000_000, 50_000_003).toString()).toBe('end')
  })

  it('the later of two entries with one name wins, whatever they are', async () => {
    await unpackBytes(tar([
      { name: 'a', content: 'old' }, { name: 'a', content: 'new', mode: 0o600 },
      { name: 'b/', type: 'dir' }, { name: 'b/c/d', content: 'x' }, { name: 'b', content: 'file now' },
      { name: 'e', content: 'file' }, { name: 'e/', type: 'dir' }, { name: 'e/f', content: 'below' },
      { name: 'g', content: 'file' }, { name: 'g/h', content: 'below' },
      { name: 'i/', type: 'dir' }, { name: 'i/k', content: 'kept' }, { name: 'i/', type: 'dir', mode: 0o700 },
    ]))
    expect(await readFile(join(target, 'a'), 'utf8')).toBe('new')
    expect(await readFile(join(target, 'b'), 'utf8')).toBe('file now')
    expect(await readFile(join(target, 'e/f'), 'utf8')).toBe('below')
    expect(await readFile(join(target, 'g/h'), 'utf8')).toBe('below')
    expect(await readFile(join(target, 'i/k'), 'utf8')).toBe('kept')
    expect((await stat(join(target, 'i'))).mode & 0o777).toBe(0o700)
  })
})

describe('whiteouts become overlayfs\' own', () => {
  const isWhiteout = async (name: string) => {
    const s = await lstat(join(target, name))
    return s.isCharacterDevice() && s.rdev === 0
  }
  const opaque = (name: string) => xattr(join(target, name), 'trusted.overlay.opaque')

  it('files, directories, opaque directories', async () => {
    await unpackBytes(tar([
      { name: 'd/', type: 'dir' }, { name: 'd/.wh.gone', content: '' }, { name: 'o/', type: 'dir' }, { name: 'o/.wh..wh..opq', content: '' },
      { name: 'o/new', content: 'x' }, { name: '.wh.top', content: '' }, { name: '.wh..wh.plnk', content: '' },
    ]))
    expect(await isWhiteout('d/gone')).toBe(true)
    expect(await isWhiteout('top')).toBe(true)
    expect(opaque('o')).toBe(Buffer.from('y').toString('hex'))
    expect((await readdir(target)).sort()).toEqual(['d', 'o', 'top'])
    expect(await readdir(join(target, 'o'))).toEqual(['new'])
  })

  it('a name that the layer both hides and has is new and hides what is below, in either order', async () => {
    await unpackBytes(tar([
      { name: '.wh.a', content: '' }, { name: 'a/', type: 'dir' }, { name: 'a/x', content: '1' },
      { name: 'b/', type: 'dir' }, { name: 'b/x', content: '2' }, { name: '.wh.b', content: '' },
      { name: '.wh.c', content: '' }, { name: 'c', content: '3' }, { name: 'd', content: '4' }, { name: '.wh.d', content: '' },
    ]))
    expect(opaque('a')).toBe('79')
    expect(opaque('b')).toBe('79')
    expect(await readFile(join(target, 'b/x'), 'utf8')).toBe('2')
    expect(await readFile(join(target, 'c'), 'utf8')).toBe('3')
    expect(await readFile(join(target, 'd'), 'utf8')).toBe('4')
  })

  it.each(['.wh.', '.wh..', '.wh...'])('%s is refused', async (name) => {
    await expect(unpackBytes(tar([{ name: `d/${name}`, content: '' }]))).rejects.toThrow(/whiteout of no name/)
  })

  it('overlayfs\' own attributes cannot be smuggled in', async () => {
    await unpackBytes(tar([{
      name: 'd/', type: 'dir',
      xattrs: { 'trusted.overlay.redirect': Buffer.from('/etc'), 'trusted.overlay.metacopy': Buffer.alloc(0), 'user.overlay.opaque': Buffer.from('y'), 'trusted.mine': Buffer.from('x'), 'security.selinux': Buffer.from('x'), 'user.ok': Buffer.from('1') },
    }]))
    expect(xattrs(join(target, 'd'))).toBe('user.ok')
  })
})

describe('an archive that climbs out lands inside or is an error, and touches nothing outside', () => {
  let outside: string
  beforeEach(async () => {
    outside = join(directory, 'outside')
    await mkdir(outside, { mode: 0o700 })
    await writeFile(join(outside, 'victim'), 'precious', { mode: 0o600 })
  })

  for (const [name, entries] of Object.entries(climbingTars('/VICTIM/victim'))) {
    for (const asLayer of [true, false]) {
      it(`${name} (${asLayer ? 'layer' : 'scratch'})`, async () => {
        const here = (text: string | undefined) => text?.replaceAll('/VICTIM', outside).replaceAll('VICTIM', outside.slice(1))
        const aimed = entries.map((entry) => ({
          ...entry, name: here(entry.name)!, ...(entry.link === undefined ? {} : { link: here(entry.link)! }),
          ...(entry.pax === undefined ? {} : { pax: Object.fromEntries(Object.entries(entry.pax).map(([k, v]) => [k, here(String(v))!])) }),
        }))
        const before = await stat(outside)
        await unpackBytes(tar(aimed), { layer: asLayer }).catch((error: unknown) => {
          expect(error).toBeInstanceOf(UnpackError)
          expect((error as Error).message).not.toMatch(/signal/)
        })
        expect(await readFile(join(outside, 'victim'), 'utf8')).toBe('precious')
        expect(await readdir(outside)).toEqual(['victim'])
        const after = await stat(outside)
        expect([after.mode, after.mtimeMs, after.ctimeMs]).toEqual([before.mode, before.mtimeMs, before.ctimeMs])
        const victim = await stat(join(outside, 'victim'))
        expect([victim.mode & 0o777, victim.nlink]).toEqual([0o600, 1])
      })
    }
  }

  it('says which entry and why', async () => {
    await expect(unpackBytes(tar([{ name: '../x', content: '' }]))).rejects.toThrow('archive entry "../x": the name is outside of the archive')
    await expect(unpackBytes(tar([{ name: 'h', type: 'hardlink', link: '../../x' }]))).rejects.toThrow('hard link to a name outside')
    await expect(unpackBytes(tar([{ name: 'h', type: 'hardlink', link: 'missing' }]))).rejects.toThrow(/archive entry "h": cannot make the hard link: No such file/)
  })
})

describe('bad archives are clear errors', () => {
  it('not a tar, cut short, broken compression', async () => {
    await expect(unpackBytes(Buffer.from('this is no tar at all'.repeat(100)))).rejects.toThrow(/not a (whole )?tar archive/)
    const bytes = tar([{ name: 'a', content: 'x'.repeat(100_000) }])
    await expect(unpackBytes(bytes.subarray(0, 50_000))).rejects.toThrow(/archive entry "a": Truncated/)
    const zipped = gzipSync(Buffer.concat([...Array(200)].map((_, i) => Buffer.from(sha256(String(i))))))
    await expect(unpackBytes(zipped.subarray(0, zipped.length / 2))).rejects.toThrow(/decompress|truncated/)
    const flipped = Buffer.from(layer([{ name: 'a', content: Buffer.from([...Array(5000)].map((_, i) => sha256(String(i))).join('')) }]).blob)
    flipped.fill(0xff, 1000, 1100)
    await expect(unpackBytes(flipped)).rejects.toBeInstanceOf(UnpackError)
  })

  it('limits: entries, bytes of the stream, lengths that lie, owners out of range', async () => {
    await expect(unpackBytes(tar([...Array(20)].map((_, i) => ({ name: `f${i}`, content: '' }))), { maxEntries: 10 })).rejects.toThrow('more than 10 entries')
    await expect(unpackBytes(gzipSync(Buffer.alloc(50 << 20)), { maxBytes: 1 << 20 })).rejects.toThrow()
    await expect(unpackBytes(gzipSync(tar([{ name: 'bomb', content: Buffer.alloc(50 << 20) }])), { maxBytes: 1 << 20 })).rejects.toThrow(/larger than/)
    await expect(unpackBytes(tar([{ name: 'liar', content: 'x', size: 2 ** 40 }]))).rejects.toThrow(/larger than/)
    await expect(unpackBytes(tar([{ name: 'who', content: 'x', uid: 2 ** 33 }]))).rejects.toThrow(/owner is out of range/)
    await expect(unpackBytes(tar([{ name: 'x'.repeat(300), content: 'x' }]))).rejects.toThrow(/File name too long/)
    await expect(unpackBytes(tar([{ name: 'x/'.repeat(4000), content: 'x' }]))).rejects.toThrow(/too long/)
  })

  it('devices in a scratch tree', async () => {
    await expect(unpackBytes(tar([{ name: 'null', type: 'char', major: 1, minor: 3 }]), { layer: false })).rejects.toThrow(/not a file, directory or link/)
  })

  it('the target must be a directory, not a link to one', async () => {
    const { symlink } = await import('node:fs/promises')
    await symlink(target, join(directory, 'link'))
    await expect(unpack(Readable.from([tar([])]), join(directory, 'link'), { layer: true })).rejects.toThrow(/Not a directory|symbolic/)
  })
})

describe('damaged archives', () => {
  /** Small, repeatable randomness (mulberry32). */
  function random(seed: number): () => number {
    return () => {
      seed = (seed + 0x6d2b79f5) | 0
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296
    }
  }
  /** Header checksums made right again, so that the damage gets past them. */
  function mend(bytes: Buffer): void {
    for (let at = 0; at + 512 <= bytes.length; at += 512) {
      if (bytes.toString('latin1', at + 257, at + 262) !== 'ustar') continue
      bytes.fill(0x20, at + 148, at + 156)
      const sum = bytes.subarray(at, at + 512).reduce((total, byte) => total + byte, 0)
      bytes.write(sum.toString(8).padStart(6, '0') + '\0 ', at + 148, 'latin1')
    }
  }

  it('300 mutations: each is unpacked or an error in words, never a crash or a forbidden system call, and nothing outside changes', async () => {
    const next = random(42)
    const outside = join(directory, 'outside')
    await writeFile(outside, 'precious')
    const good = tar([
      { name: './', type: 'dir' }, { name: 'd/', type: 'dir', mode: 0o1777 }, { name: 'd/f', content: 'x'.repeat(1500), xattrs: { 'user.a': Buffer.from('b'), 'security.capability': capability } },
      { name: 'd/l', type: 'symlink', link: '../d/f' }, { name: 'd/h', type: 'hardlink', link: 'd/f' }, { name: 'n', type: 'char', major: 1, minor: 3 }, { name: '.wh.w', content: '' }, { name: 'o/.wh..wh..opq', content: '' },
      { name: `${'long/'.repeat(30)}f`, content: 'y' }, { name: 'p', type: 'fifo' }, { name: 'sp', content: '1\n0\n4\n'.padEnd(512, '\0') + 'data', pax: { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '4096' } },
    ])
    const forms = [good, gzipSync(good), layer(good, 'zstd').blob]
    let accepted = 0
    for (let i = 0; i < 300; i++) {
      const bytes = Buffer.from(forms[i % 5 < 3 ? 0 : (i % 5) - 2]!)
      for (let n = 1 + Math.floor(next() * 6); n > 0; n--) {
        const at = Math.floor(next() * bytes.length)
        if (next() < 0.5) bytes[at] = Math.floor(next() * 256)
        else bytes.write(['../', '/', '\xff\xff\xff\xff', '77777777777', '-1', '\0'][Math.floor(next() * 6)]!, at, 'latin1')
      }
      if (i % 5 < 3) mend(bytes)
      await rm(target, { recursive: true, force: true })
      await mkdir(target)
      try {
        await unpackBytes(next() < 0.1 ? bytes.subarray(0, Math.floor(next() * bytes.length)) : bytes, { layer: next() < 0.7, maxBytes: 8 << 20 })
        accepted++
      } catch (error) {
        expect(error).toBeInstanceOf(UnpackError)
        expect((error as Error).message).not.toMatch(/signal|was ended|answered/)
      }
    }
    expect(await readFile(outside, 'utf8')).toBe('precious')
    expect((await readdir(directory)).sort()).toEqual(['archive', 'outside', 'target'])
    expect(accepted).toBeGreaterThan(20)
    expect(accepted).toBeLessThan(290)
  })
})

describe('the child', () => {
  it('scratch trees: files 0600 of root, no owners, no attributes', async () => {
    await unpackBytes(tar([{ name: 'd/', type: 'dir', mode: 0o777, uid: 5 }, { name: 'd/f', content: 'x', mode: 0o4777, uid: 5, xattrs: { 'user.a': Buffer.from('1') } }]), { layer: false })
    const s = await stat(join(target, 'd/f'))
    expect([s.mode & 0o7777, s.uid, (await stat(join(target, 'd'))).mode & 0o7777]).toEqual([0o600, 0, 0o700])
    expect(xattrs(join(target, 'd/f'))).toBe('')
  })

  it('reads a stream too, and says when the stream breaks', async () => {
    const bytes = tar([{ name: 'a', content: 'x' }])
    expect((await unpack(Readable.from([bytes.subarray(0, 700), bytes.subarray(700)]), target, { layer: true })).diffId).toBe(sha256(bytes))
    const broken = new Readable({ read() { this.destroy(new Error('connection lost')) } })
    await expect(unpack(broken, target, { layer: true })).rejects.toThrow(/could not be read to its end/)
  })

  it('is gone after an abort', async () => {
    const controller = new AbortController()
    const endless = new Readable({ read() { setTimeout(() => this.push(Buffer.alloc(512)), 5) } })
    const unpacking = unpack(endless, target, { layer: true, signal: controller.signal })
    setTimeout(() => controller.abort(new Error('enough')), 100)
    await expect(unpacking).rejects.toThrow('enough')
    endless.destroy()
  })

  it('runs confined: namespaces of its own, few capabilities, no new privileges, seccomp, nothing else mounted', async () => {
    const controller = new AbortController()
    const endless = new Readable({ read() { setTimeout(() => this.push(Buffer.alloc(512)), 5) } })
    endless.push(tar([{ name: 'a', content: 'x' }]).subarray(0, 1024))
    const { readdirSync, readFileSync, readlinkSync } = await import('node:fs')
    const unpacking = unpack(endless, target, { layer: true, signal: controller.signal }).catch(() => {})
    let pid: string | undefined
    for (let i = 0; pid === undefined && i < 100; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20))
      // The inner child: its arguments name our directory, and it filters its system calls already.
      pid = readdirSync('/proc').filter((name) => /^\d+$/.test(name)).find((name) => {
        try {
          return readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(target) && /^Seccomp:\t2$/m.test(readFileSync(`/proc/${name}/status`, 'latin1'))
        } catch {
          return false
        }
      })
    }
    try {
      expect(pid).toBeDefined()
      const status = readFileSync(`/proc/${pid}/status`, 'latin1')
      const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1]
      const allowed = [0, 1, 3, 4, 21, 27, 31].reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n)
      for (const set of ['CapPrm', 'CapEff', 'CapBnd']) expect(BigInt(`0x${field(set)}`)).toBe(allowed)
      expect([field('CapInh'), field('CapAmb'), field('NoNewPrivs')]).toEqual(['0000000000000000', '0000000000000000', '1'])
      for (const ns of ['mnt', 'pid', 'net', 'ipc', 'uts', 'cgroup']) expect(readlinkSync(`/proc/${pid}/ns/${ns}`)).not.toBe(readlinkSync(`/proc/self/ns/${ns}`))
      const mounts = readFileSync(`/proc/${pid}/mountinfo`, 'utf8').trim().split('\n')
      expect(mounts).toHaveLength(1)
      expect(mounts[0]).toMatch(/ \/ rw,nosuid,nodev,noexec/)
      expect(readdirSync(`/proc/${pid}/fd`).map(Number).filter((fd) => fd > 2).length).toBeLessThanOrEqual(1)
    } finally {
      controller.abort()
      await unpacking
      endless.destroy()
    }
  })

  it('a full disk is ENOSPC', async () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', target])
    try {
      await chmod(target, 0o755)
      const error: unknown = await unpackBytes(tar([{ name: 'big', content: Buffer.alloc(4 << 20, 1) }])).catch((e: unknown) => e)
      expect(error).toMatchObject({ code: 'ENOSPC', message: 'archive entry "big": cannot write: No space left on device' })
    } finally {
      execFileSync('umount', [target])
    }
  })
})
