import { spawn } from 'node:child_process'
import { chmod, chown, link, lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { exec } from '../../lib/daemon.js'
import { tar, type TarEntry } from '../../lib/tar.js'

const program = resolve(import.meta.dirname, '../../../build/hull-files')
let scratch: string
let root: string

beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'hull-hf-'))
  root = join(scratch, 'root')
  await mkdir(root)
})
afterEach(() => rm(scratch, { recursive: true, force: true }))

interface Said {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: Buffer
  reports: { error?: string; errno?: number; ok?: boolean; size?: number; mode?: number; link?: string; ready?: boolean }[]
}

function run(args: string[], input: Buffer = Buffer.alloc(0)): Promise<Said> {
  return new Promise((done, fail) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    const out: Buffer[] = []
    let text = ''
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()))
    child.stdin.on('error', () => {})
    child.once('error', fail)
    child.once('close', (code, signal) => done({ code, signal, stdout: Buffer.concat(out), reports: text.trim().split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Said['reports'][number]) }))
    child.stdin.end(input)
  })
}

const put = (entries: readonly TarEntry[] | Buffer, path = '/', ...more: string[]) => run(['--root', root, ...more, 'put', path, '0', ''], Buffer.isBuffer(entries) ? entries : tar(entries))
const list = async (archive: Buffer, ...flags: string[]) => {
  const file = join(scratch, 'list.tar')
  await writeFile(file, archive)
  const said = await exec('tar', ['-tvf', file, '--numeric-owner', ...flags])
  expect(said.stderr).toBe('')
  return said.stdout
}

describe('put', () => {
  it('restores kinds, owners, modes, times, links and attributes', async () => {
    const long = `${'d'.repeat(120)}/${'n'.repeat(200)}`
    const said = await put([
      { name: 'd/', type: 'dir', mode: 0o1750, uid: 7, gid: 8, mtime: 1_000_000_000 },
      { name: 'd/f', content: 'text', mode: 0o4711, uid: 1000, gid: 3_000_000_000, mtime: 1_100_000_000 },
      { name: 'd/hard', type: 'hardlink', link: 'd/f' },
      { name: 'd/soft', type: 'symlink', link: '/nowhere/at/all', uid: 5 },
      { name: 'fifo', type: 'fifo' },
      { name: 'zero', type: 'char', major: 1, minor: 5 },
      { name: long, content: 'deep' },
      { name: 'x', content: '', pax: { mtime: '-1.5', uid: '12' }, xattrs: { 'user.note': Buffer.from('kept'), 'trusted.overlay.opaque': Buffer.from('y'), 'user.overlay.redirect': Buffer.from('/') } },
    ])
    expect(said.reports).toEqual([{ ready: true }, { ok: true, size: 0 }])
    const at = (name: string) => lstat(join(root, name))
    expect(await at('d')).toMatchObject({ mode: 0o41750, uid: 7, gid: 8, mtimeMs: 1_000_000_000_000 })
    expect(await at('d/f')).toMatchObject({ mode: 0o104711, uid: 1000, gid: 3_000_000_000, mtimeMs: 1_100_000_000_000, nlink: 2 })
    expect(await at('d/soft')).toMatchObject({ uid: 5 })
    expect(await readlink(join(root, 'd/soft'))).toBe('/nowhere/at/all')
    expect((await at('fifo')).isFIFO()).toBe(true)
    expect((await at('zero')).rdev).toBe((1 << 8) + 5)
    expect(await readFile(join(root, long), 'utf8')).toBe('deep')
    expect(await at('x')).toMatchObject({ uid: 12, mtimeMs: -1500 })
    // Attributes as the archive that `get` makes of them tells; those that would steer an overlay have not come.
    const back = (await run(['--root', root, 'get', '/x', 'x'])).stdout.toString('latin1')
    expect(back).toContain('SCHILY.xattr.user.note=kept')
    expect(back).not.toContain('overlay')
  })

  it('replaces what is there, and does not write through it', async () => {
    await writeFile(join(scratch, 'outside'), 'safe')
    await writeFile(join(root, 'inside'), 'before')
    await symlink(join(scratch, 'outside'), join(root, 'a'))
    await symlink('inside', join(root, 'b'))
    await link(join(root, 'inside'), join(root, 'c'))
    await mkdir(join(root, 'e/full'), { recursive: true })
    await put(['a', 'b', 'c', 'e'].map((name) => ({ name, content: 'new' })))
    expect(await readFile(join(scratch, 'outside'), 'utf8')).toBe('safe')
    expect(await readFile(join(root, 'inside'), 'utf8')).toBe('before')
    for (const name of ['a', 'b', 'c', 'e']) expect(await readFile(join(root, name), 'utf8')).toBe('new')
  })

  it('cannot leave the root by links, dots or absolute names', async () => {
    await symlink('/', join(root, 'slash'))
    await symlink('../../../../../..', join(root, 'up'))
    await symlink('/proc/self/root', join(root, 'magic'))
    const name = `hull-hf-escape-${process.pid}`
    await put([{ name: `slash/tmp/${name}`, content: 'x' }, { name: `up/tmp/${name}-2`, content: 'x' }, { name: `/abs/${name}`, content: 'x' }])
    expect(await readdir(join(root, 'tmp'))).toEqual([name, `${name}-2`])
    expect((await readdir('/tmp')).filter((entry) => entry.startsWith(name))).toEqual([])
    const climbs = await put([{ name: `../${name}`, content: 'x' }])
    expect(climbs.reports.at(-1)!.error).toContain('is outside of')
    expect((await put([{ name: `magic/tmp/${name}`, content: 'x' }])).code).toBe(1)
    expect((await put([{ name: 'h', type: 'hardlink', link: '../../../../etc/passwd' }])).code).toBe(1)
  })

  it('says why it does not', async () => {
    await writeFile(join(root, 'file'), '')
    expect((await put([], '/none')).reports[0]).toMatchObject({ errno: 2 })
    expect((await put([], '/file')).reports[0]).toMatchObject({ errno: 20 })
    expect((await put([], '/', '--read-only')).reports[0]).toMatchObject({ errno: 30, error: expect.stringContaining('container rootfs is marked read-only') as string })
    for (const [what, archive] of [
      ['invalid tar header', Buffer.alloc(512, 'x')],
      ['unexpected EOF', tar([{ name: 'f', content: 'x'.repeat(2000) }]).subarray(0, 1500)],
      ['sparse', tar([{ name: 'f', content: 'x', pax: { 'GNU.sparse.major': '1' } }])],
      ['invalid tar header', tar([{ name: 'f', content: 'x', pax: { size: '-1' } }])],
      ['invalid tar header', tar([{ name: 'f', content: 'x', pax: { uid: '99999999999999' } }])],
      ['invalid hardlink', tar([{ name: 'f', type: 'hardlink', link: '..' }])],
    ] as const) {
      const said = await put(archive)
      expect(said.code).toBe(1)
      expect(said.reports.at(-1)!.error).toContain(what)
    }
  })

  it('survives mutated archives: it ends by itself, with words, and nothing outside has changed', { timeout: 120_000 }, async () => {
    const seed = tar([
      { name: 'dir/', type: 'dir' }, { name: 'dir/file', content: 'content '.repeat(100), xattrs: { 'user.a': Buffer.from('b') } }, { name: 'l', type: 'symlink', link: '/dir' },
      { name: 'l/through', content: 'x' }, { name: 'h', type: 'hardlink', link: 'dir/file' }, { name: 'n'.repeat(150), content: 'y', pax: { mtime: '1.5' } }, { name: 'c', type: 'char', major: 1, minor: 3 },
    ])
    let state = 20261125
    const random = (below: number) => (state = (state * 1103515245 + 12345) % 2147483648) % below
    const fixSum = (archive: Buffer, block: number) => {
      archive.fill(' ', block + 148, block + 156)
      let sum = 0
      for (let i = 0; i < 512; i++) sum += archive[block + i]!
      archive.write(sum.toString(8).padStart(6, '0') + '\0 ', block + 148, 'latin1')
    }
    await writeFile(join(scratch, 'canary'), 'alive')
    let refused = 0
    for (let round = 0; round < 400; round++) {
      const archive = Buffer.from(seed)
      for (let n = 1 + random(6); n > 0; n--) archive[random(archive.length)] = random(256)
      // Half of them with good checksums: past the first check.
      if (round % 2 === 0) for (let block = 0; block + 512 <= archive.length; block += 512) if (archive.toString('latin1', block + 257, block + 262) === 'ustar') fixSum(archive, block)
      const said = await put(round % 7 === 0 ? archive.subarray(0, random(archive.length)) : archive)
      expect(said.signal).toBeNull()
      expect([0, 1]).toContain(said.code)
      const last = said.reports.at(-1)!
      expect(said.code === 0 ? last.ok : typeof last.error === 'string').toBe(true)
      if (said.code === 1) refused++
    }
    expect(refused).toBeGreaterThan(50)
    expect(await readFile(join(scratch, 'canary'), 'utf8')).toBe('alive')
    expect((await readdir(scratch)).sort()).toEqual(['canary', 'root'])
  })
})

describe('get', () => {
  it('gives what tar(1) reads, with long names, large ids and old times', async () => {
    const deep = join(root, 'a'.repeat(90), 'b'.repeat(90), 'c'.repeat(90))
    await mkdir(deep, { recursive: true })
    await writeFile(join(deep, 'f'), 'x'.repeat(1000))
    await chown(join(deep, 'f'), 4_000_000_000, 100)
    await symlink('z'.repeat(300), join(root, 'long-link'))
    await writeFile(join(root, 'old'), '')
    await chmod(join(root, 'old'), 0o6755)
    await exec('touch', ['-d', '@-100', join(root, 'old')])
    const said = await run(['--root', root, 'get', '/', 'top'])
    const listed = await list(said.stdout, '--utc')
    expect(listed).toContain(`4000000000/100`)
    expect(listed).toContain(`${'c'.repeat(90)}/f\n`)
    expect(listed).toContain(`top/long-link -> ${'z'.repeat(300)}`)
    expect(listed).toMatch(/^-rwsr-sr-x .* 1969-12-31 23:58 top\/old$/m)
  })

  it('reads nothing from devices and FIFOs, and follows no link', async () => {
    await exec('mknod', [join(root, 'zero'), 'c', '1', '5'])
    await exec('mkfifo', [join(root, 'fifo')])
    await symlink('/etc/passwd', join(root, 'passwd'))
    expect((await run(['--root', root, 'get', '/zero', 'zero'])).stdout.length).toBe(1536)
    expect((await run(['--root', root, 'get', '/fifo', 'fifo'])).stdout.length).toBe(1536)
    expect(await list((await run(['--root', root, 'get', '/passwd', 'p'])).stdout)).toContain('p -> /etc/passwd')
    expect((await run(['--root', root, 'get', '/passwd/', 'p'])).reports[0]).toMatchObject({ errno: 2 })
    const stat = (await run(['--root', root, 'stat', '/passwd'])).reports[0]!
    expect(stat).toMatchObject({ link: '/etc/passwd' })
    expect(stat.mode! & 0o170000).toBe(0o120000)
  })

  it('does not end in loops of links', async () => {
    await symlink('loop', join(root, 'loop'))
    expect((await run(['--root', root, 'stat', '/loop'])).reports[0]).toMatchObject({ errno: 40 })
    expect((await run(['--root', root, 'stat', '/loop/x'])).reports[0]).toMatchObject({ errno: 40 })
  })

  it('takes a directory that changes all the time, and one that is too deep', async () => {
    await mkdir(join(root, 'busy'))
    const churn = spawn('sh', ['-c', `cd ${root}/busy; while :; do mkdir d; echo x > d/f; rm -rf d; ln -s / d; rm d; done`])
    try {
      for (let i = 0; i < 30; i++) {
        const said = await run(['--root', root, 'get', '/busy', 'b'])
        if (said.code === 0) await list(said.stdout)
        else expect(said.reports.at(-1)!.error).toBeTruthy()
      }
    } finally {
      churn.kill('SIGKILL')
    }
    await exec('python3', ['-c', `import os\nos.chdir(${JSON.stringify(root)})\nfor i in range(1500):\n os.mkdir("d"); os.chdir("d")`])
    expect((await run(['--root', root, 'get', '/', 'r'])).reports.at(-1)!.error).toContain('nested too deeply')
  })
})

describe('layer, changes and size', () => {
  it('whiteouts, opaque directories and our own mount points', async () => {
    const lower = [join(scratch, 'l0'), join(scratch, 'l1')]
    for (const directory of ['l0/gone', 'l0/kept', 'l0/opaque/old', 'l0/etc', 'l1/again']) await mkdir(join(scratch, directory), { recursive: true })
    await writeFile(join(scratch, 'l0/again'), 'hidden by a directory')
    await writeFile(join(scratch, 'l0/file'), '1')
    for (const directory of ['kept', 'opaque', 'etc', 'proc', 'dev', 'again']) await mkdir(join(root, directory))
    await exec('mknod', [join(root, 'gone'), 'c', '0', '0'])
    await exec('python3', ['-c', `import os; os.setxattr(${JSON.stringify(join(root, 'opaque'))}, "trusted.overlay.opaque", b"y")`])
    await writeFile(join(root, 'opaque/new'), 'n')
    await writeFile(join(root, 'etc/hosts'), '')
    await writeFile(join(root, 'file'), '22')
    await writeFile(join(root, 'again/x'), '333')
    const listed = await list((await run(['--root', root, 'layer'])).stdout)
    expect(listed.split('\n').map((line) => line.split(' ').at(-1)).filter((name) => name !== '')).toEqual(['again/', 'again/x', 'etc/', 'file', '.wh.gone', 'kept/', 'opaque/', 'opaque/.wh..wh..opq', 'opaque/new'])
    const changed = (await run(['--root', root, ...lower.flatMap((layer) => ['--lower', layer]), 'changes'])).stdout.toString().split('\0')
    expect(changed).toEqual(expect.arrayContaining(['D/gone', 'C/file', 'A/again/x', 'A/opaque/new', 'C/opaque']))
    expect(changed.join()).not.toMatch(/etc|proc|dev/)
    expect((await run(['--root', root, 'size'])).reports.at(-1)).toMatchObject({ ok: true, size: 6 })
  })

  it('refuses a layer that overlayfs would read differently', async () => {
    await mkdir(join(root, 'd'))
    await exec('python3', ['-c', `import os; os.setxattr(${JSON.stringify(join(root, 'd'))}, "trusted.overlay.redirect", b"/etc")`])
    expect((await run(['--root', root, 'layer'])).reports.at(-1)!.error).toContain('redirects')
  })
})

describe('the wall', () => {
  it('has no way out for mounts either: their places are found inside', async () => {
    await mkdir(join(scratch, 'volume'))
    await symlink('/', join(root, 'data'))
    const name = `hull-hf-mount-${process.pid}`
    const said = await put([{ name: 'f', content: 'x' }], `/data/${name}`, '--mount', 'rw', join(scratch, 'volume'), `/data/${name}`)
    expect(said.reports.at(-1)).toMatchObject({ ok: true })
    expect(await readdir(join(scratch, 'volume'))).toEqual(['f'])
    expect(await readdir(root)).toEqual([name, 'data'].sort())
    expect((await readdir('/')).includes(name)).toBe(false)
  })

  it('takes no wrong orders', async () => {
    for (const args of [[], ['stat', '/'], ['--root', root], ['--root', root, 'nope'], ['--root', root, 'stat'], ['--join', '77', 'stat', '/'], ['--root', root, 'changes'], ['--uid-map', 'x', '--root', root, 'size']]) {
      const said = await run(args)
      expect(said.code).toBe(1)
      expect(said.reports.at(-1)!.error).toBeTruthy()
    }
  })
})
