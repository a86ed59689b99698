import { lstat, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exec, TestDaemon } from '../../lib/daemon.js'
import { buildTestImage, busyboxRoot, dockerArchive, testImage } from '../../lib/image.js'
import { remaining, type Snapshot, snapshot } from '../../lib/leaks.js'

interface Mount { Type: string; Name?: string; Source: string; Destination: string; Driver?: string; Mode: string; RW: boolean; Propagation: string }

/** An image with content under its VOLUMEs: owners, modes, a hard link, a symbolic link, an attribute; and a trap. */
const contentImage = 'test/volumes:1'

async function buildContentImage(daemon: TestDaemon): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), 'hull-image-'))
  try {
    await busyboxRoot(root)
    await mkdir(join(root, 'data/sub'), { recursive: true })
    await writeFile(join(root, 'data/file'), 'from the image\n')
    await writeFile(join(root, 'data/sub/deep'), 'deep\n')
    const made = await exec('sh', ['-c', `cd ${root} && ln data/file data/hard && ln -s /etc/passwd data/link && chown -R 1000:1000 data && chown 0:2000 data/sub/deep \
      && chmod 0640 data/file && chmod 0770 data && mkdir none && ln -s /../../../etc trap && mkfifo data/pipe`])
    if (made.code !== 0) throw new Error(made.stderr)
    const archive = join(daemon.directory, 'content.tar')
    await dockerArchive(root, contentImage, archive, { Volumes: { '/data': {}, '/none': {} } })
    await daemon.ok('load', '-i', archive)
  } finally {
    await rm(root, { recursive: true, force: true })
  }
}

/** Volumes and mounts as a Docker user has them, once for each isolation. */
export function volumesSuite(isolation: 'process' | 'vm'): void {
  let daemon: TestDaemon
  let before: Snapshot
  let host: string

  const docker = (...args: string[]) => daemon.docker(args)
  const ok = (...args: string[]) => daemon.ok(...args)
  const run = (...args: string[]) => daemon.docker(['run', '--rm', '--network=none', `--isolation=${isolation}`, ...args])
  /** Output of a run that must end well. */
  const out = async (...args: string[]) => {
    const said = await run(...args)
    if (said.code !== 0) throw new Error(`exit code ${said.code}: ${said.stderr}${said.stdout}`)
    return said.stdout
  }
  const sh = (script: string) => [testImage, 'sh', '-c', script]
  const mountsOf = async (name: string) => (JSON.parse(await ok('inspect', name)) as { Mounts: Mount[] }[])[0]!.Mounts
  const volumes = async (...filters: string[]) => (await ok('volume', 'ls', '-q', ...filters.flatMap((filter) => ['--filter', filter]))).split('\n').filter(Boolean).sort()

  beforeAll(async () => {
    before = await snapshot()
    daemon = await TestDaemon.start()
    host = join(daemon.directory, 'host')
    await mkdir(host)
    await Promise.all([buildTestImage(daemon), buildContentImage(daemon)])
  })

  afterAll(async () => {
    await daemon.destroy()
    expect(await remaining(before)).toEqual([])
  })

  describe(`named volumes (${isolation})`, () => {
    it('keep data from one container to the next, and show themselves in inspect', async () => {
      expect(await ok('volume', 'create', '--label', 'a=b', 'keep')).toBe('keep')
      await out('-v', 'keep:/v', ...sh('echo first > /v/x; mkdir /v/d; chown 1000:2000 /v/d; chmod 2750 /v/d'))
      expect(await out('-v', 'keep:/v', ...sh('cat /v/x; stat -c "%u %g %a" /v/d'))).toBe('first\n1000 2000 2750\n')
      const id = await ok('create', `--isolation=${isolation}`, '-v', 'keep:/v:ro', '--mount', 'type=volume,src=keep,dst=/w', testImage, 'true')
      const point = join(daemon.dataRoot, 'volumes/keep/_data')
      expect((await mountsOf(id)).sort((a, b) => (a.Destination < b.Destination ? -1 : 1))).toEqual([
        { Type: 'volume', Name: 'keep', Source: point, Destination: '/v', Driver: 'local', Mode: 'ro', RW: false, Propagation: '' },
        { Type: 'volume', Name: 'keep', Source: point, Destination: '/w', Driver: 'local', Mode: 'z', RW: true, Propagation: '' },
      ])
      expect(await ok('ps', '-aq', '--no-trunc', '--filter', 'volume=keep')).toBe(id)
      const refused = await docker('volume', 'rm', 'keep')
      expect(refused.code).toBe(1)
      expect(refused.stderr).toContain(`remove keep: volume is in use - [${id}]`)
      await ok('rm', id)
      await ok('volume', 'rm', 'keep')
      expect((await docker('volume', 'inspect', 'keep')).stderr).toContain('get keep: no such volume')
    })

    it('take what the image has at their place, once, as it is', async () => {
      const look = 'cd /data; cat file; stat -c "%u:%g %a %h" . file sub/deep; readlink link; [ file -ef hard ] && echo linked; [ -p pipe ] && echo pipe'
      const seen = await out('-v', 'copied:/data', contentImage, 'sh', '-c', look)
      expect(seen).toBe('from the image\n1000:1000 770 3\n1000:1000 640 2\n0:2000 644 1\n/etc/passwd\nlinked\npipe\n')
      await out('-v', 'copied:/data', contentImage, 'sh', '-c', 'rm /data/file; echo mine > /data/sub/deep')
      expect(await out('-v', 'copied:/data', contentImage, 'sh', '-c', 'ls /data; cat /data/sub/deep')).toBe('hard\nlink\npipe\nsub\nmine\n')
      expect(await out('-v', 'bare:/data:nocopy', contentImage, 'ls', '/data')).toBe('')
      // A link of the image leads nowhere but into the image.
      expect(await out('-v', 'trapped:/trap', contentImage, 'cat', '/trap/passwd')).toContain('user:x:1000')
      expect(await readFile(join(daemon.dataRoot, 'volumes/trapped/_data/passwd'), 'utf8')).not.toBe(await readFile('/etc/passwd', 'utf8'))
      await ok('volume', 'rm', 'copied', 'bare', 'trapped')
    })

    it('without a name go with --rm and rm -v, and stay otherwise', async () => {
      expect(await out(contentImage, 'cat', '/data/file')).toBe('from the image\n')
      expect(await volumes()).toEqual([])
      const id = await ok('create', `--isolation=${isolation}`, '-v', '/extra', '-v', 'named:/named', contentImage, 'true')
      const found = await mountsOf(id)
      expect(found.map((mount) => mount.Destination).sort()).toEqual(['/data', '/extra', '/named', '/none'])
      const anonymous = found.filter((mount) => /^[0-9a-f]{64}$/.test(mount.Name ?? '')).map((mount) => mount.Name!).sort()
      expect(anonymous).toHaveLength(3)
      await ok('rm', '-v', id)
      expect(await volumes()).toEqual(['named'])
      const stays = await ok('create', `--isolation=${isolation}`, contentImage, 'true')
      await ok('rm', stays)
      expect(await volumes('dangling=true')).toHaveLength(3)
      const pruned = await ok('volume', 'prune', '-f')
      expect(pruned).toMatch(/Deleted Volumes:\n[0-9a-f]{64}\n[0-9a-f]{64}\n/)
      expect(await volumes()).toEqual(['named'])
      await ok('volume', 'prune', '-af')
      expect(await volumes()).toEqual([])
    })

    it('come from another container with --volumes-from', async () => {
      const first = await ok('create', `--isolation=${isolation}`, '-v', 'lent:/lent', '-v', `${host}:/host`, contentImage, 'true')
      await out('--volumes-from', first, testImage, 'sh', '-c', 'echo x > /lent/x; echo y > /host/y; cat /data/file')
      const refused = await run('--volumes-from', `${first}:ro`, testImage, 'sh', '-c', 'cat /lent/x /host/y; echo z > /lent/z')
      expect(refused.stdout).toBe('x\ny\n')
      expect(refused.stderr).toContain('Read-only file system')
      const unknown = await daemon.api('POST', '/containers/create', { Image: testImage, HostConfig: { VolumesFrom: ['nobody'], Isolation: isolation } })
      expect(unknown).toMatchObject({ status: 404, body: expect.stringContaining('No such container: nobody') as string })
      await ok('rm', '-v', first)
      await ok('volume', 'rm', 'lent')
    })

    it('give a part of themselves, found without leaving the volume', async () => {
      await out('-v', 'parts:/v', ...sh('mkdir -p /v/a/b; echo in > /v/a/b/f; ln -s a/b /v/inner; ln -s /../../../../etc /v/outer; echo file > /v/one'))
      const part = (subpath: string, ...command: string[]) => run('--mount', `type=volume,src=parts,dst=/p,volume-subpath=${subpath}`, testImage, ...command)
      expect((await part('a/b', 'cat', '/p/f')).stdout).toBe('in\n')
      expect((await part('inner', 'cat', '/p/f')).stdout).toBe('in\n')
      expect((await part('one', 'cat', '/p')).stdout).toBe('file\n')
      expect((await part('outer', 'true')).stderr).toMatch(/cannot access path .*\/outer: no such file or directory/)
      expect((await part('missing', 'true')).stderr).toMatch(/cannot access path .*\/missing: no such file or directory/)
      await ok('volume', 'rm', 'parts')
    })

    it('of the local driver take tmpfs and bind options', async () => {
      await ok('volume', 'create', '-o', 'type=tmpfs', '-o', 'device=tmpfs', '-o', 'o=size=1m,uid=1000', 'small')
      const said = await run('-v', 'small:/v', ...sh('stat -c %u /v; dd if=/dev/zero of=/v/big bs=64k count=64 2>&1 | grep -o "No space left on device"'))
      expect(said.stdout).toBe('1000\nNo space left on device\n')
      await writeFile(join(host, 'there'), 'yes\n')
      await ok('volume', 'create', '-o', 'type=none', '-o', `device=${host}`, '-o', 'o=bind', 'bound')
      expect(await out('-v', 'bound:/v', testImage, 'cat', '/v/there')).toBe('yes\n')
      await ok('volume', 'rm', 'small', 'bound')
      expect(await readFile(join(host, 'there'), 'utf8')).toBe('yes\n') // what was bound is not the volume's to delete
      const refused: [string[], string][] = [
        [['-o', 'type=nfs', '-o', 'device=:/x', 'n1'], 'volumes of type nfs are not supported by Hull'],
        [['-o', 'color=red', 'n1'], 'create n1: invalid option: "color"'],
        [['-o', 'type=tmpfs', 'n1'], 'create n1: missing required option: "device"'],
        [['-d', 'flocker', 'n1'], 'error looking up volume plugin flocker: plugin "flocker" not found'],
        [['a/b'], 'includes invalid characters for a local volume name'],
      ]
      for (const [args, words] of refused) expect((await docker('volume', 'create', ...args)).stderr).toContain(words)
      expect(await volumes()).toEqual([])
    })
  })

  describe(`bind mounts (${isolation})`, () => {
    it('are live, on either side', async () => {
      await writeFile(join(host, 'ping'), 'one\n')
      const id = await ok('run', '-d', '--network=none', `--isolation=${isolation}`, '-v', `${host}:/h`, ...sh('while :; do sleep 1; done'))
      expect(await ok('exec', id, 'cat', '/h/ping')).toBe('one')
      await writeFile(join(host, 'ping'), 'two\n')
      expect(await ok('exec', id, 'cat', '/h/ping')).toBe('two')
      await ok('exec', id, 'sh', '-c', 'echo pong > /h/pong; mkdir /h/new; chown 1000:1000 /h/pong; mv /h/pong /h/new/pong; ln -s pong /h/new/link; chmod 604 /h/new/pong')
      expect(await readFile(join(host, 'new/link'), 'utf8')).toBe('pong\n')
      const status = await stat(join(host, 'new/pong'))
      expect([status.uid, status.gid, status.mode & 0o7777]).toEqual([1000, 1000, 0o604])
      await rm(join(host, 'new'), { recursive: true })
      expect((await docker('exec', id, 'ls', '/h/new')).stderr).toContain('No such file or directory')
      await ok('rm', '-f', id)
    })

    it('read-only are read-only, and a file is a file', async () => {
      await writeFile(join(host, 'conf'), 'a=1\n', { mode: 0o600 })
      const said = await run('-v', `${host}/conf:/etc/app/conf:ro`, '-v', `${host}:/ro:ro`, ...sh('cat /etc/app/conf; echo x >> /etc/app/conf; touch /ro/new; rm /ro/conf; chmod 777 /ro/conf; echo end'))
      expect(said.stdout).toBe('a=1\nend\n')
      expect(said.stderr.match(/Read-only file system/g)).toHaveLength(4)
      expect((await stat(join(host, 'conf'))).mode & 0o777).toBe(0o600)
      expect(await out('-v', `${host}/conf:/etc/hosts`, testImage, 'cat', '/etc/hosts')).toBe('a=1\n')
    })

    it('-v makes a missing source, --mount refuses it', async () => {
      await out('-v', `${host}/made/for/me:/m`, ...sh('touch /m/x'))
      expect((await lstat(join(host, 'made/for/me/x'))).isFile()).toBe(true)
      const refused = await run('--mount', `type=bind,src=${host}/absent,dst=/m`, testImage)
      expect(refused.code).toBe(125)
      expect(refused.stderr).toContain(`invalid mount config for type "bind": bind source path does not exist: ${host}/absent`)
    })

    it('lie in one another in the order of their depth', async () => {
      await mkdir(join(host, 'outer'), { recursive: true })
      await writeFile(join(host, 'outer/o'), 'o\n')
      expect(await out('-v', 'deep:/a/b/c', '--tmpfs', '/a/b', '-v', `${host}/outer:/a`, ...sh('cat /a/o; touch /a/b/t; touch /a/b/c/v; mount | grep -c " /a"'))).toBe('o\n3\n')
      expect((await lstat(join(daemon.dataRoot, 'volumes/deep/_data/v'))).isFile()).toBe(true)
      await ok('volume', 'rm', 'deep')
    })
  })

  describe(`a unix socket of the host (${isolation})`, () => {
    let server: Server
    let cat: string

    beforeAll(async () => {
      cat = join(daemon.directory, 'unix-cat')
      const compiled = await exec('gcc', ['-static', '-O2', '-o', cat, join(import.meta.dirname, '../../lib/unix-cat.c')])
      if (compiled.code !== 0) throw new Error(compiled.stderr)
      // Answers when the client has half-closed: with how much there was, and its end.
      server = createServer({ allowHalfOpen: true }, (socket) => {
        let size = 0
        let end = ''
        socket.on('error', () => {})
        socket.on('data', (chunk: Buffer) => {
          size += chunk.length
          end = (end + chunk.toString('latin1')).slice(-10)
        })
        socket.on('end', () => socket.end(`${size} ${end}`))
      })
      await new Promise<void>((resolve) => server.listen(join(host, 'echo.sock'), resolve))
    })

    afterAll(() => server.close())

    it('carries connections, many and large, and lives through a new daemon', async () => {
      const id = await ok('run', '-d', '--network=none', `--isolation=${isolation}`, '-v', `${join(host, 'echo.sock')}:/run/echo.sock`, '-v', `${daemon.socket}:/var/run/docker.sock`, '-v', `${cat}:/cat:ro`, ...sh('while :; do sleep 1; done'))
      const inside = (script: string) => ok('exec', id, 'sh', '-c', script)
      expect(await inside('echo hello | /cat /run/echo.sock')).toBe('6 hello')
      expect(await inside('(dd if=/dev/zero bs=64k count=48 2>/dev/null; printf 0123456789) | /cat /run/echo.sock')).toBe('3145738 0123456789')
      expect(await inside('for i in 1 2 3 4 5 6 7 8; do (echo $i | /cat /run/echo.sock; echo) & done; wait')).toMatch(/^(2 \d\s+){8}$/)
      expect(await inside('printf "GET /_ping HTTP/1.0\\r\\n\\r\\n" | /cat /var/run/docker.sock')).toMatch(/^HTTP\/1.1 200 OK[^]*OK$/)
      await daemon.down('SIGKILL')
      await daemon.up()
      expect(await inside('echo again | /cat /run/echo.sock')).toBe('6 again')
      await ok('rm', '-f', id)
    })
  })

  if (isolation === 'vm') {
    it('a container and a virtual machine share a volume and see each other\'s writes', async () => {
      const start = (wall: string) => ok('run', '-d', '--network=none', `--isolation=${wall}`, '-v', 'both:/both', ...sh('while :; do sleep 1; done'))
      const [inVm, inProcess] = [await start('vm'), await start('process')]
      for (const [from, to] of [[inVm, inProcess], [inProcess, inVm]] as const) {
        await ok('exec', from, 'sh', '-c', `echo from ${from} > /both/letter; mkdir -p /both/d; chown 1000:1000 /both/d`)
        expect(await ok('exec', to, 'sh', '-c', 'cat /both/letter; stat -c %u:%g /both/d')).toBe(`from ${from}\n1000:1000`)
        await ok('exec', to, 'rm', '-r', '/both/d', '/both/letter')
        expect(await ok('exec', from, 'ls', '/both')).toBe('')
      }
      expect((await docker('volume', 'rm', 'both')).stderr).toContain('volume is in use')
      await ok('rm', '-f', inVm, inProcess)
      await ok('volume', 'rm', 'both')
    })
  }

  it('a volume is told in events, and weighed in system df', async () => {
    const since = String(Date.now() / 1000)
    await out('-v', 'told:/v', ...sh('dd if=/dev/zero of=/v/f bs=1000 count=3 2>/dev/null; ln /v/f /v/g'))
    const usage = JSON.parse((await daemon.api('GET', '/system/df?type=volume')).body) as { Volumes: { Name: string; UsageData: { Size: number; RefCount: number } }[] }
    expect(usage.Volumes.find((volume) => volume.Name === 'told')!.UsageData).toEqual({ Size: 3000, RefCount: 0 })
    await ok('volume', 'rm', 'told')
    const events = (await ok('events', '--since', since, '--until', String(Date.now() / 1000 + 0.5), '--filter', 'type=volume', '--format', '{{.Action}} {{.Actor.ID}}')).split('\n')
    expect(events).toEqual(['create told', 'mount told', 'unmount told', 'destroy told'])
  })

  it('kill -9 of the daemon loses nothing and leaves nothing', async () => {
    await ok('volume', 'create', '-o', 'type=tmpfs', '-o', 'device=tmpfs', 'held')
    await out('-v', 'parts2:/all', ...sh('mkdir /all/p'))
    const id = await ok('run', '-d', '--network=none', `--isolation=${isolation}`, '-v', 'held:/v', '-v', '/anonymous', '-v', 'parts2:/all', ...sh('echo alive > /v/x; while :; do sleep 1; done'))
    const part = await ok('run', '-d', '--rm', '--network=none', `--isolation=${isolation}`, '--mount', 'type=volume,src=parts2,dst=/p,volume-subpath=p', '-v', '/gone', ...sh('while :; do sleep 1; done'))
    await daemon.down('SIGKILL')
    await daemon.up()
    expect(await ok('exec', id, 'sh', '-c', 'until [ -s /v/x ]; do sleep 0.1; done; cat /v/x')).toBe('alive')
    expect(await ok('exec', part, 'sh', '-c', 'echo ok > /p/ok; cat /p/ok')).toBe('ok')
    expect((await docker('volume', 'rm', 'held')).stderr).toContain('volume is in use')
    await ok('rm', '-f', part)
    await ok('rm', '-fv', id)
    expect(await volumes()).toEqual(['held', 'parts2'])
    expect(await readFile('/proc/self/mounts', 'utf8')).not.toContain(`${daemon.dataRoot}/volumes`)
    await ok('volume', 'rm', 'held', 'parts2')
  })
}
