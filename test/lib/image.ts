import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { exec, type TestDaemon } from './daemon.js'

/** The name under which {@link buildTestImage} loads its image. */
export const testImage = 'test/busybox:1'

const passwd = 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nuser:x:1000:1000:user:/home/user:/bin/sh\n'
const group = 'root:x:0:\ndaemon:x:1:\nuser:x:1000:\nextra:x:2000:user\n'

/** Writes a busybox root file system (Debian's busybox-static, all its applets as links) into `root`. */
export async function busyboxRoot(root: string): Promise<void> {
  for (const directory of ['bin', 'etc', 'root', 'tmp', 'usr/sbin', 'home/user', 'mnt', 'proc', 'sys', 'dev']) await mkdir(join(root, directory), { recursive: true })
  await exec('chmod', ['1777', join(root, 'tmp')])
  await exec('cp', ['/bin/busybox', join(root, 'bin/busybox')])
  const applets = (await exec('/bin/busybox', ['--list'])).stdout.trim().split('\n').filter((name) => name !== 'busybox')
  await Promise.all(applets.map((name) => symlink('busybox', join(root, 'bin', name))))
  const compiled = await exec('gcc', ['-static', '-O2', '-o', join(root, 'bin/udp-echo'), join(import.meta.dirname, 'udp-echo.c')])
  if (compiled.code !== 0) throw new Error(compiled.stderr)
  await writeFile(join(root, 'etc/passwd'), passwd)
  await writeFile(join(root, 'etc/group'), group)
  await exec('chown', ['1000:1000', join(root, 'home/user')])
}

/** Makes a docker-archive of one layer from a directory. */
export async function dockerArchive(root: string, name: string, archive: string, config: object = {}): Promise<void> {
  const scratch = await mkdtemp(join(tmpdir(), 'hull-image-'))
  try {
    const layer = join(scratch, 'layer.tar')
    const made = await exec('tar', ['--numeric-owner', '-C', root, '-cf', layer, '.'])
    if (made.code !== 0) throw new Error(made.stderr)
    const diffId = `sha256:${createHash('sha256').update(await readFile(layer)).digest('hex')}`
    const image = JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      created: '2026-01-01T00:00:00Z',
      config: { Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: ['sh'], ...config },
      rootfs: { type: 'layers', diff_ids: [diffId] },
      history: [{ created: '2026-01-01T00:00:00Z', created_by: 'test/lib/image.ts' }],
    })
    const digest = createHash('sha256').update(image).digest('hex')
    await writeFile(join(scratch, `${digest}.json`), image)
    await writeFile(join(scratch, 'manifest.json'), JSON.stringify([{ Config: `${digest}.json`, RepoTags: [name], Layers: ['layer.tar'] }]))
    const packed = await exec('tar', ['-C', scratch, '-cf', archive, 'manifest.json', `${digest}.json`, 'layer.tar'])
    if (packed.code !== 0) throw new Error(packed.stderr)
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

/** Builds the busybox image that the behaviour suites use and loads it with `docker load`. */
export async function buildTestImage(daemon: TestDaemon, name = testImage): Promise<void> {
  const scratch = await mkdtemp(join(tmpdir(), 'hull-image-'))
  try {
    const root = join(scratch, 'root')
    await mkdir(root)
    await busyboxRoot(root)
    const archive = join(scratch, 'image.tar')
    await dockerArchive(root, name, archive)
    await daemon.ok('load', '-q', '-i', archive)
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}
