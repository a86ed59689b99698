import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exec, TestDaemon } from '../lib/daemon.js'
import { buildTestImage, busyboxRoot, dockerArchive, testImage } from '../lib/image.js'
import { remaining, type Snapshot, snapshot } from '../lib/leaks.js'

let daemon: TestDaemon
let before: Snapshot

const message = (body: string) => (JSON.parse(body) as { message: string }).message
const create = (body: object, name = '') => daemon.api('POST', `/containers/create${name ? `?name=${name}` : ''}`, { Image: testImage, Cmd: ['true'], ...body })

beforeAll(async () => {
  before = await snapshot()
  daemon = await TestDaemon.start()
  await buildTestImage(daemon)
})

afterAll(async () => {
  await daemon.destroy()
  expect(await remaining(before)).toEqual([])
})

describe('requests that cannot be', () => {
  it('an unknown image: 404', async () => {
    const answer = await create({ Image: 'nosuch/image:1' })
    expect(answer.status).toBe(404)
    expect(message(answer.body)).toBe('No such image: nosuch/image:1')
  })

  it('an unknown isolation: 400, by the docker CLI exit code 125', async () => {
    const answer = await create({ HostConfig: { Isolation: 'chroot' } })
    expect(answer.status).toBe(400)
    expect(message(answer.body)).toContain('invalid isolation "chroot"')
    const said = await daemon.docker(['run', '--rm', '--isolation=chroot', testImage, 'true'])
    expect(said.code).toBe(125)
    expect(said.stderr).toContain('invalid isolation')
  })

  it('an unknown runtime: 400', async () => {
    const answer = await create({ HostConfig: { Runtime: 'nosuchruntime' } })
    expect(answer.status).toBe(400)
    expect(message(answer.body)).toContain('unknown or invalid runtime name: nosuchruntime')
  })

  for (const isolation of ['process', 'vm']) {
    describe(isolation, () => {
      it('a name that is taken: 409, one that is none: 400', async () => {
        expect((await create({ HostConfig: { Isolation: isolation } }, 'taken')).status).toBe(201)
        const answer = await create({ HostConfig: { Isolation: isolation } }, 'taken')
        expect(answer.status).toBe(409)
        expect(message(answer.body)).toMatch(/^Conflict\. The container name "\/taken" is already in use by container "[0-9a-f]{64}"/)
        expect((await create({ HostConfig: { Isolation: isolation } }, 'bad%20name')).status).toBe(400)
        await daemon.ok('rm', 'taken')
      })

      it('a removal in the middle of the creation waits for it', async () => {
        for (let round = 0; round < 10; round++) {
          const created = create({ HostConfig: { Isolation: isolation } }, 'hasty')
          let removed = 404
          while (removed === 404) removed = (await daemon.api('DELETE', '/containers/hasty')).status
          expect([(await created).status, removed]).toEqual([201, 204])
        }
        expect(await daemon.ok('ps', '-aq')).toBe('')
        expect(await readdir(join(daemon.dataRoot, 'containers'))).toEqual([])
      })

      it('memory under the minimum: 400', async () => {
        const answer = await create({ HostConfig: { Isolation: isolation, Memory: 1024 * 1024 } })
        expect(answer.status).toBe(400)
        expect(message(answer.body)).toBe('Minimum memory limit allowed is 6MB')
      })

      it('more CPUs than there are: 400', async () => {
        const answer = await create({ HostConfig: { Isolation: isolation, NanoCpus: 999e9 } })
        expect(answer.status).toBe(400)
        expect(message(answer.body)).toContain('range of CPUs is from 0.01 to')
      })

      it('a port that somebody else has: a clear error, and the container is not lost', async () => {
        const server = createServer()
        const port = await new Promise<number>((resolve) => server.listen(0, '0.0.0.0', () => resolve((server.address() as { port: number }).port)))
        const said = await daemon.docker(['run', '-d', '--name', 'blocked', `--isolation=${isolation}`, '-p', `${port}:80`, testImage, 'sleep', '100'])
        expect(said.code).toBe(125)
        expect(said.stderr).toMatch(/address already in use|port is already allocated/)
        await new Promise((resolve) => server.close(resolve))
        await daemon.ok('start', 'blocked')
        const second = await daemon.docker(['run', '-d', '--name', 'second', `--isolation=${isolation}`, '-p', `${port}:80`, testImage, 'sleep', '100'])
        expect(second.code).toBe(125)
        expect(second.stderr).toContain('port is already allocated')
        await daemon.ok('rm', '-f', 'blocked', 'second')
      })

      it('an option that Hull does not have is refused by name', async () => {
        const answer = await create({ HostConfig: { Isolation: isolation, LogConfig: { Type: 'syslog', Config: {} } } })
        expect(answer.status).toBe(501)
        expect(message(answer.body)).toContain('--log-driver syslog')
      })

      it('a storage option that it cannot have: refused in Docker\'s words', async () => {
        for (const [option, words] of [[{ nosuch: '1' }, 'Unknown option nosuch'], [{ size: 'x' }, 'invalid size: \'x\''], [{ size: '1k' }, 'invalid size: \'1k\': the disk of a virtual machine has between 16 MiB and 1 TiB']] as const) {
          const answer = await create({ HostConfig: { Isolation: isolation, StorageOpt: option } })
          expect([answer.status, message(answer.body)]).toEqual(isolation === 'vm' ? [400, words] : [500, '--storage-opt is supported only for overlay over xfs with \'pquota\' mount option'])
        }
        expect(await daemon.ok('ps', '-aq')).toBe('')
      })

      it('an unknown security option: 400', async () => {
        const answer = await create({ HostConfig: { Isolation: isolation, SecurityOpt: ['nosuch=1'] } })
        expect(answer.status).toBe(400)
      })
    })
  }
})

describe('images that attack or are broken', () => {
  let scratch: string
  beforeAll(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'hull-bad-'))
  })
  afterAll(async () => {
    await rm(scratch, { recursive: true, force: true })
  })

  /** A docker-archive whose only layer is `layer`. */
  async function archiveOf(name: string, layer: string, diffId?: string): Promise<string> {
    const directory = await mkdtemp(join(scratch, 'archive-'))
    const sum = (await exec('sha256sum', [layer])).stdout.slice(0, 64)
    await exec('cp', [layer, join(directory, 'layer.tar')])
    await writeFile(join(directory, 'c.json'), JSON.stringify({ architecture: 'amd64', os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: [diffId ?? `sha256:${sum}`] } }))
    await writeFile(join(directory, 'manifest.json'), JSON.stringify([{ Config: 'c.json', RepoTags: [name], Layers: ['layer.tar'] }]))
    const archive = `${directory}.tar`
    await exec('tar', ['-C', directory, '-cf', archive, '.'])
    return archive
  }

  /** A tar with hostile entries, made with Python's tarfile, which writes what it is told. */
  async function hostileTar(entries: string): Promise<string> {
    const path = join(scratch, `${Math.random().toString(36).slice(2)}.tar`)
    const script = `import tarfile,io\nt=tarfile.open(${JSON.stringify(path)},'w')\ndef f(n,d=b'owned'):\n i=tarfile.TarInfo(n); i.size=len(d); t.addfile(i,io.BytesIO(d))\ndef l(n,k,to):\n i=tarfile.TarInfo(n); i.type=k; i.linkname=to; t.addfile(i)\ndef dev(n,k,a,b):\n i=tarfile.TarInfo(n); i.type=k; i.devmajor=a; i.devminor=b; t.addfile(i)\n${entries}\nt.close()\n`
    const said = await exec('/usr/bin/python3', ['-c', script])
    if (said.code !== 0) throw new Error(said.stderr)
    return path
  }

  const tricks: Record<string, (target: string) => string> = {
    'dot dot': (target) => `f('../../../../../../../../..${target}/escaped')`,
    'an absolute path': (target) => `f('${target}/escaped')`,
    'a symbolic link to the outside, then a file through it': (target) => `l('link',tarfile.SYMTYPE,'${target}')\nf('link/escaped')`,
    'a relative symbolic link up and out': (target) => `l('a',tarfile.SYMTYPE,'../../../../../../../../../..${target}')\nf('a/escaped')`,
    'a hard link to a file outside': (target) => `l('hard',tarfile.LNKTYPE,'${target}/victim')\nf('hard',b'overwritten')`,
    'a chain of links': (target) => `l('x',tarfile.SYMTYPE,'/')\nl('y',tarfile.SYMTYPE,'x${target}')\nf('y/escaped')`,
  }
  for (const [what, entries] of Object.entries(tricks)) {
    it(`${what}: stays inside or is refused`, async () => {
      const target = await mkdtemp(join(scratch, 'target-'))
      await writeFile(join(target, 'victim'), 'untouched')
      const archive = await archiveOf('test/hostile:1', await hostileTar(entries(target)))
      await daemon.docker(['load', '-i', archive])
      expect(await readdir(target)).toEqual(['victim'])
      expect((await exec('cat', [join(target, 'victim')])).stdout).toBe('untouched')
      expect((await stat(join(target, 'victim'))).nlink).toBe(1)
      await daemon.docker(['rmi', '-f', 'test/hostile:1'])
    })
  }

  it('a device node of the host in a layer gives no access to the device', async () => {
    const root = join(scratch, 'devroot')
    await mkdir(root)
    await busyboxRoot(root)
    const device = (await exec('stat', ['-c', '%t %T', '/dev/kmsg'])).stdout.trim().split(' ')
    await exec('mknod', ['-m', '666', join(root, 'kmsg'), 'c', String(parseInt(device[0]!, 16)), String(parseInt(device[1]!, 16))])
    const archive = join(scratch, 'dev.tar')
    await dockerArchive(root, 'test/device:1', archive)
    await daemon.ok('load', '-q', '-i', archive)
    for (const isolation of ['process', 'vm']) {
      const said = await daemon.docker(['run', '--rm', `--isolation=${isolation}`, 'test/device:1', 'sh', '-c', 'ls -l /kmsg; head -c 1 /kmsg'])
      expect(said.code, isolation).not.toBe(0)
      expect(said.stderr).toMatch(/not permitted|denied/)
    }
    await daemon.ok('rmi', 'test/device:1')
  })

  it('a corrupt layer, a wrong diff ID, a manifest without layers: an error, and no image', async () => {
    const garbage = join(scratch, 'garbage')
    await writeFile(garbage, Buffer.concat([Buffer.from([0x1f, 0x8b, 8, 0]), Buffer.alloc(5000, 7)]))
    const corrupt = await daemon.docker(['load', '-i', await archiveOf('test/corrupt:1', garbage)])
    expect(corrupt.code).not.toBe(0)
    const good = await hostileTar(`f('file')`)
    const wrong = await daemon.docker(['load', '-i', await archiveOf('test/wrong:1', good, `sha256:${'0'.repeat(64)}`)])
    expect(wrong.code).not.toBe(0)
    expect(`${wrong.stderr}${wrong.stdout}`).toMatch(/corrupt/)
    const empty = await mkdtemp(join(scratch, 'empty-'))
    await writeFile(join(empty, 'c.json'), JSON.stringify({ architecture: 'amd64', os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: [] } }))
    await writeFile(join(empty, 'manifest.json'), JSON.stringify([{ Config: 'c.json', RepoTags: ['test/empty:1'], Layers: [] }]))
    await exec('tar', ['-C', empty, '-cf', `${empty}.tar`, '.'])
    const none = await daemon.docker(['load', '-i', `${empty}.tar`])
    expect(none.code).not.toBe(0)
    expect(await daemon.ok('images', '--format', '{{.Repository}}')).toBe(testImage.split(':')[0])
  })

  it('what is no archive at all', async () => {
    const said = await daemon.docker(['load'], { input: Buffer.alloc(100_000, 0x41) })
    expect(said.code).not.toBe(0)
  })
})

describe('a full disk', () => {
  it('fails a load with a clear message and leaves nothing behind', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'hull-full-'))
    await exec('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', directory])
    const small = await TestDaemon.start(['--data-root', join(directory, 'd')])
    try {
      const scratch = await mkdtemp(join(tmpdir(), 'hull-big-'))
      const root = join(scratch, 'root')
      await mkdir(root)
      await busyboxRoot(root)
      await exec('dd', ['if=/dev/urandom', `of=${join(root, 'big')}`, 'bs=1M', 'count=8'])
      await dockerArchive(root, 'test/big:1', join(scratch, 'big.tar'))
      const said = await small.docker(['load', '-i', join(scratch, 'big.tar')])
      expect(said.code).not.toBe(0)
      expect(`${said.stdout}${said.stderr}`).toMatch(/no space left on device|ENOSPC/i)
      expect(await small.ok('images', '-q')).toBe('')
      const used = Number((await exec('du', ['-sk', directory])).stdout.split('\t')[0])
      expect(used).toBeLessThan(1024)
      await rm(scratch, { recursive: true, force: true })
    } finally {
      await small.destroy()
      await exec('umount', ['-l', directory])
      await rm(directory, { recursive: true, force: true })
    }
  })
})
