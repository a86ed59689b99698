import { once } from 'node:events'
import { get, type IncomingMessage, request } from 'node:http'
import type { Socket } from 'node:net'
import { mkdir, mkdtemp, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exec, sleep, TestDaemon, until } from '../../lib/daemon.js'
import { buildTestImage, testImage } from '../../lib/image.js'
import { tar } from '../../lib/tar.js'
import { remains } from '../../lib/traces.js'
import { upload } from '../../lib/upload.js'

/** `docker cp`, `diff`, `export`, `commit` and sizes, as a user of Docker sees them; once for each isolation. */
export function defineFiles(isolation: 'process' | 'vm'): void {
  const vm = isolation === 'vm'
  let daemon: TestDaemon
  let scratch: string
  const ok = (...args: string[]) => daemon.ok(...args)
  const docker = (...args: string[]) => daemon.docker(args)
  const create = (name: string, ...args: string[]) => ok('create', '--name', name, `--isolation=${isolation}`, ...args)
  const start = (name: string, script: string, ...options: string[]) => ok('run', '-d', '--name', name, `--isolation=${isolation}`, ...options, testImage, 'sh', '-c', script)
  const put = (name: string, path: string, body: Buffer, more = '') => upload(daemon.socket, `/containers/${name}/archive?path=${encodeURIComponent(path)}${more}`, body)

  beforeAll(async () => {
    daemon = await TestDaemon.start()
    await buildTestImage(daemon)
    scratch = await mkdtemp(join(tmpdir(), 'hull-files-'))
    await mkdir(join(scratch, 'd/sub'), { recursive: true })
    await writeFile(join(scratch, 'd/file'), 'hello\n')
    await writeFile(join(scratch, 'd/sub/run'), '#!/bin/sh\necho ran\n', { mode: 0o755 })
    await symlink('file', join(scratch, 'd/link'))
  })

  afterAll(async () => {
    await rm(scratch, { recursive: true, force: true })
    await daemon.destroy()
    expect(await remains(daemon)).toEqual([])
  })

  describe(`files, isolation ${isolation}`, () => {
    it('a created container takes files before its first start and keeps them after its end', async () => {
      await create('cold', '-u', 'user:0', testImage, 'sh', '-c', 'cat /tmp/d/link; /tmp/d/sub/run; stat -c %u:%g /home/user/f; echo more > /tmp/made')
      await ok('cp', join(scratch, 'd'), 'cold:/tmp/')
      // copyUIDGID: everything belongs to the container's user, by the container's own passwd.
      expect(await put('cold', '/home/user', tar([{ name: 'f', content: 'x', uid: 7, gid: 7 }]), '&copyUIDGID=1')).toMatchObject({ status: 200 })
      expect(await ok('start', '-a', 'cold')).toBe('hello\nran\n1000:0')
      await ok('cp', 'cold:/tmp/made', join(scratch, 'made'))
      expect(await readFile(join(scratch, 'made'), 'utf8')).toBe('more\n')
      const changes = (await ok('diff', 'cold')).split('\n')
      expect(changes).toEqual(['C /home/user', 'A /home/user/f', 'C /tmp', 'A /tmp/d', 'A /tmp/d/file', 'A /tmp/d/link', 'A /tmp/d/sub', 'A /tmp/d/sub/run', 'A /tmp/made'])
      await ok('rm', 'cold')
    })

    it('running: in and out, links followed or not, tar streams, owners', async () => {
      await start('warm', 'mkdir /t; echo one > /t/a; ln -s a /t/l; ln /t/a /t/hard; mkfifo /t/fifo; chown -R 1000:1000 /t; sleep 1000', '--tmpfs', '/scratch', '-u', '0')
      await until('the script has run', async () => (await docker('exec', 'warm', 'test', '-p', '/t/fifo')).code === 0)
      const out = join(scratch, 'out')
      await ok('cp', 'warm:/t/l', out)
      expect(await readlink(out)).toBe('a')
      await rm(out)
      await ok('cp', '-L', 'warm:/t/l', out)
      expect(await readFile(out, 'utf8')).toBe('one\n')
      const listed = await exec('sh', ['-c', `docker cp -a warm:/t - | tar tvf - --numeric-owner`], { env: { DOCKER_HOST: daemon.host } })
      expect(listed.stdout).toMatch(/^prw.* 1000\/1000 .* t\/fifo$/m)
      expect(listed.stdout).toMatch(/^hrw.* t\/hard link to t\/a$/m)
      expect(listed.stdout).toMatch(/^lrw.* t\/l -> a$/m)
      // In: a directory onto a directory, a file under a new name, a tar from stdin, a place that only the running container has.
      await ok('cp', `${scratch}/d/.`, 'warm:/t')
      await ok('cp', join(scratch, 'd/file'), 'warm:/t/renamed')
      await ok('cp', join(scratch, 'd/file'), 'warm:/scratch/here')
      const archive = tar([{ name: 'x/', type: 'dir', uid: 5, gid: 6 }, { name: 'x/y', content: 'stdin\n', uid: 1000, gid: 2000, mode: 0o4751 }])
      expect((await daemon.docker(['cp', '-', 'warm:/t'], { input: archive })).code).toBe(0)
      expect(await ok('exec', 'warm', 'sh', '-c', 'cat /t/file /t/renamed /scratch/here /t/x/y 2>&1; stat -c "%u:%g %a" /t/x/y; stat -c %u:%g /t/x')).toBe('hello\nhello\nhello\nstdin\n1000:2000 4751\n5:6')
    })

    it('refuses in Docker’s words', async () => {
      const to = (path: string) => docker('cp', join(scratch, 'd/file'), `warm:${path}`)
      expect((await docker('cp', 'warm:/nope', scratch)).stderr).toContain('Could not find the file /nope in container warm')
      expect((await to('/nope/x')).stderr).toContain('Could not find the file /nope in container warm')
      expect(await put('warm', '/nope', tar([]))).toMatchObject({ status: 404, message: 'Could not find the file /nope in container warm' })
      expect(await put('warm', '/etc/passwd', tar([]))).toMatchObject({ status: 400, message: 'extraction point is not a directory' })
      expect(await put('warm', '/t', Buffer.from('this is no archive, and long enough to be taken for a header: '.repeat(20)))).toMatchObject({ status: 400, message: 'invalid tar header' })
      expect(await put('warm', '/t', tar([{ name: 'cut', content: 'x'.repeat(5000) }]).subarray(0, 2000))).toMatchObject({ status: 400, message: 'unexpected EOF' })
      expect(await put('warm', '/t', tar([{ name: '../../etc/evil', content: 'x' }]))).toMatchObject({ status: 400, message: '"../../etc/evil" is outside of "/t"' })
      expect(await put('warm', '/t', tar([{ name: 'sub', content: 'x' }]), '&noOverwriteDirNonDir=1')).toMatchObject({ status: 400 })
      expect(await put('warm', '/t', tar([{ name: 'a/', type: 'dir' }]), '&noOverwriteDirNonDir=1')).toMatchObject({ status: 400 })
      expect(await put('warm', '/t', tar([{ name: 'h', type: 'hardlink', link: 'missing' }]))).toMatchObject({ status: 400, message: 'link h: No such file or directory' })
      expect(await put('warm', '/etc', tar([{ name: 'hosts', content: 'mounted' }]))).toMatchObject({ status: 400 })
      expect(await put('warm', '/t', Buffer.from('BZh91AY&SY0000'))).toMatchObject({ status: 400 })
      expect(await put('warm', '/t', gzipSync(tar([{ name: 'zipped', content: 'from gzip\n' }])))).toMatchObject({ status: 200 })
      expect(await ok('exec', 'warm', 'cat', '/t/zipped')).toBe('from gzip')
      expect((await daemon.api('GET', '/containers/warm/archive')).status).toBe(400)
      expect((await daemon.api('GET', '/containers/none/archive?path=/')).status).toBe(404)
      expect(await ok('exec', 'warm', 'ls', '/etc')).not.toContain('evil')
    })

    it('a read-only root is read-only for cp as well', async () => {
      await create('ro', '--read-only', testImage, 'true')
      expect((await docker('cp', join(scratch, 'd/file'), 'ro:/tmp/x')).stderr).toContain('container rootfs is marked read-only')
      expect((await docker('cp', 'ro:/etc/passwd', '-')).code).toBe(0)
      await ok('rm', 'ro')
    })

    it('a hostile container cannot lead cp out of it', async () => {
      // Links to everywhere, magic links, a FIFO and devices where files are expected, and a directory that is swapped for a link all the time.
      await start(
        'evil',
        'mkdir -p /e/dir /e/safe; ln -s / /e/abs; ln -s ../../../../../../../.. /e/up; ln -s /proc/1/root /e/magic; ln -s /proc/self/root/etc/passwd /e/self;' +
          'mkfifo /e/pipe; mknod /e/zero c 1 5; echo in > /e/safe/f;' +
          'while :; do mv /e/dir /e/was; ln -s / /e/dir; rm /e/dir; mv /e/was /e/dir; done',
      )
      await until('the race runs', async () => (await docker('exec', 'evil', 'test', '-e', '/e/safe/f')).code === 0)
      await writeFile(join(scratch, 'marker'), 'outside\n')
      // What a link names is the container's own file of that name: the host's scratch directory is not there.
      for (const way of ['abs', 'up']) {
        const said = await docker('cp', `evil:/e/${way}${scratch}/marker`, '-')
        expect(said.stderr).toContain('Could not find the file')
      }
      for (const path of ['/e/magic/', '/e/self/']) expect((await daemon.api('GET', `/containers/evil/archive?path=${encodeURIComponent(path + scratch)}`)).status).toBeGreaterThanOrEqual(400)
      expect((await docker('cp', '-L', 'evil:/e/abs/etc/passwd', join(scratch, 'theirs'))).code).toBe(0)
      expect(await readFile(join(scratch, 'theirs'), 'utf8')).toContain('user:x:1000')
      // Devices and FIFOs come as what they are: nothing is read from them.
      const listed = await exec('sh', ['-c', `docker cp evil:/e - | tar tvf -`], { env: { DOCKER_HOST: daemon.host }, timeoutMs: 20_000 })
      expect(listed.stdout).toMatch(/^p.* e\/pipe$/m)
      expect(listed.stdout).toMatch(/^c.* 1,5 .* e\/zero$/m)
      // Writing below the swapped directory: into the container, whatever it is just then, or refused; never outside.
      const name = `hull-escape-${process.pid}`
      for (let i = 0; i < (vm ? 10 : 40); i++) {
        const { status } = await put('evil', '/e/dir', tar([{ name: `${name}-${i}`, content: 'x' }, { name: `tmp/${name}-${i}`, content: 'x' }]))
        expect([200, 400, 404]).toContain(status)
      }
      const outside = await exec('sh', ['-c', `ls -d /${name}* /tmp/${name}* 2>/dev/null; true`])
      expect(outside.stdout).toBe('')
      // A tar that brings its own links.
      await put('evil', '/e/safe', tar([{ name: 'out', type: 'symlink', link: '/tmp' }, { name: `out/${name}-link`, content: 'x' }]))
      await expect(stat(join('/tmp', `${name}-link`))).rejects.toMatchObject({ code: 'ENOENT' })
      await ok('rm', '-f', 'evil')
    })

    it('diff and export', async () => {
      await ok('exec', 'warm', 'sh', '-c', 'rm -r /mnt; echo x >> /etc/passwd; mkdir /new; rm -rf /home/user; mkdir /home/user; echo y > /home/user/z')
      const changes = (await ok('diff', 'warm')).split('\n')
      expect(changes).toEqual(expect.arrayContaining(['D /mnt', 'C /etc', 'C /etc/passwd', 'A /new', 'C /home/user', 'A /home/user/z']))
      expect(changes.join()).not.toMatch(/hosts|resolv|hostname|console|\/proc|\/sys/)
      const listed = await exec('sh', ['-c', `docker export warm | tar tvf -`], { env: { DOCKER_HOST: daemon.host } })
      expect(listed.stdout).toMatch(/ new\/$/m)
      expect(listed.stdout).toMatch(/ bin\/busybox$/m)
      expect(listed.stdout).not.toMatch(/ mnt\/$/m)
      expect(listed.stdout).not.toMatch(/scratch\/here/) // what is mounted over the root is not exported
    })

    it('commit: an image with the changes, usable behind both walls', async () => {
      const id = await ok(
        'commit', '-a', 'Someone', '-m', 'a comment', '-c', 'CMD ["sh","-c","cat /t/renamed; ls -d /mnt /new; ls /home/user; stat -c %h /t/a; echo $WORD"]', '-c', 'ENV WORD=spoken',
        '-c', 'LABEL a=b', '-c', 'EXPOSE 80', '-c', 'WORKDIR /t', '-c', 'HEALTHCHECK --interval=5s --retries=2 CMD true', 'warm', 'committed:1',
      )
      const image = (JSON.parse(await ok('image', 'inspect', 'committed:1')) as { Id: string; Author: string; Comment: string; Config: Record<string, unknown>; RootFS: { Layers: string[] } }[])[0]!
      expect(image.Id).toBe(id)
      expect(image.Author).toBe('Someone')
      expect(image.RootFS.Layers).toHaveLength(2)
      expect(image.Config).toMatchObject({ Labels: { a: 'b' }, ExposedPorts: { '80/tcp': {} }, WorkingDir: '/t', Healthcheck: { Test: ['CMD-SHELL', 'true'], Interval: 5e9, Retries: 2 } })
      expect(await ok('history', '--format', '{{.Comment}}', 'committed:1')).toContain('a comment')
      for (const wall of ['process', 'vm']) {
        const said = await docker('run', '--rm', `--isolation=${wall}`, '--no-healthcheck', 'committed:1')
        expect(said.stdout).toBe('hello\n/new\nz\n2\nspoken\n')
      }
      expect((await docker('commit', '-c', 'FROM x', 'warm')).stderr).toContain('from is not a valid change command')
      expect((await docker('commit', 'warm', 'Bad:Name:1')).code).not.toBe(0)
      // It goes on afterwards.
      expect(await ok('exec', 'warm', 'echo', 'alive')).toBe('alive')
      expect(await ok('inspect', '-f', '{{.State.Status}}', 'warm')).toBe('running')
    })

    it('sizes', async () => {
      await ok('exec', 'warm', 'sh', '-c', 'dd if=/dev/zero of=/big bs=1024 count=3000 2>/dev/null')
      const [container] = JSON.parse(await ok('inspect', '-s', 'warm')) as { SizeRw: number; SizeRootFs: number }[]
      expect(container!.SizeRw).toBeGreaterThan(3_000_000)
      expect(container!.SizeRw).toBeLessThan(4_000_000)
      expect(container!.SizeRootFs).toBeGreaterThan(container!.SizeRw + 1_000_000)
      expect(await ok('ps', '-s', '--filter', 'name=warm', '--format', '{{.Size}}')).toMatch(/^3.*MB \(virtual/)
    })

    it(vm ? 'a paused machine says that it cannot' : 'works on a paused container', async () => {
      await ok('pause', 'warm')
      const said = await docker('cp', 'warm:/t/a', '-')
      if (vm) expect(said.stderr).toContain('is paused')
      else expect(said.code).toBe(0)
      await ok('unpause', 'warm')
    })

    it('200 MB in and out, and a client that leaves in the middle', async () => {
      const size = (vm ? 40 : 200) * 1024 * 1024
      const big = join(scratch, 'big')
      await exec('sh', ['-c', `head -c ${size} /dev/urandom > ${big}`])
      await ok('cp', big, 'warm:/t/big')
      await ok('cp', 'warm:/t/big', `${big}.back`)
      expect((await exec('cmp', [big, `${big}.back`])).code).toBe(0)
      const cut = await exec('sh', ['-c', 'docker cp warm:/t/big - | head -c 1000000 | wc -c'], { env: { DOCKER_HOST: daemon.host } })
      expect(cut.stdout.trim()).toBe('1000000')
      await ok('exec', 'warm', 'true')
      await ok('rm', '-f', 'warm') // does not wait for the client that left
    })

    it('a stopped container: in, out, diff and commit, and a start right after', async () => {
      await start('still', 'test -e /tmp/in && cat /tmp/in; echo kept > /kept')
      await ok('wait', 'still')
      await ok('cp', join(scratch, 'd/file'), 'still:/tmp/in')
      expect(await ok('diff', 'still')).toBe('A /kept\nC /tmp\nA /tmp/in')
      await ok('commit', 'still', 'committed:2')
      expect(await ok('start', '-a', 'still')).toBe('hello')
      expect((await docker('run', '--rm', '--isolation=process', 'committed:2', 'cat', '/kept', '/tmp/in')).stdout).toBe('kept\nhello\n')
      await ok('rm', 'still')
    })

    it.runIf(!vm)('a copy that nobody reads keeps its files when somebody attaches, which is how a start begins', async () => {
      await create('held', testImage, 'true')
      await writeFile(join(scratch, 'big'), Buffer.alloc(32 << 20))
      await ok('cp', join(scratch, 'big'), 'held:/tmp/big')
      const id = await ok('inspect', '-f', '{{.Id}}', 'held')
      const pid = (await readFile(join(daemon.directory, 'pid'), 'utf8')).trim()
      const mounted = async () => (await readFile(`/proc/${pid}/mounts`, 'utf8')).includes(id)
      const copy = await new Promise<IncomingMessage>((resolve, reject) => void get({ socketPath: daemon.socket, path: '/containers/held/archive?path=/tmp/big' }, resolve).on('error', reject))
      expect(await mounted()).toBe(true)
      const attach = request({ socketPath: daemon.socket, method: 'POST', path: '/containers/held/attach?stream=1&stdout=1', headers: { Connection: 'Upgrade', Upgrade: 'tcp' } }).end()
      const [, socket] = (await once(attach, 'upgrade')) as [unknown, Socket]
      await sleep(2500) // a start that does not come has been called off
      expect(await mounted()).toBe(true)
      let bytes = 0
      for await (const chunk of copy) bytes += (chunk as Buffer).length
      expect(bytes).toBeGreaterThan(32 << 20)
      socket.destroy()
      await expect.poll(mounted).toBe(false)
      await ok('rm', 'held')
    })

    it('volumes and binds of a container that does not run', async () => {
      await ok('volume', 'create', 'shelf')
      await create('shelved', '-v', 'shelf:/shelf', '-v', `${scratch}/d:/bound:ro`, '--mount', `type=bind,source=${scratch}/d,target=/etc/deep/er`, testImage, 'cat', '/shelf/in')
      await ok('cp', join(scratch, 'd/file'), 'shelved:/shelf/in')
      expect((await docker('cp', join(scratch, 'd/file'), 'shelved:/bound/in')).stderr).toContain('mounted volume is marked read-only')
      await ok('cp', join(scratch, 'd/file'), 'shelved:/etc/deep/er/landed')
      expect(await readFile(join(scratch, 'd/landed'), 'utf8')).toBe('hello\n')
      await ok('cp', 'shelved:/bound/landed', join(scratch, 'back'))
      expect(await readFile(join(scratch, 'back'), 'utf8')).toBe('hello\n')
      // The volume has it, not the container: also for another one, behind the other wall.
      expect((await docker('run', '--rm', '-v', 'shelf:/x', '--isolation=process', testImage, 'cat', '/x/in')).stdout).toBe('hello\n')
      expect(await ok('start', '-a', 'shelved')).toBe('hello')
      await ok('rm', 'shelved')
      await ok('volume', 'rm', 'shelf')
    })

    it('kill -9 of the daemon in the middle of a copy leaves nothing that is in the way', async () => {
      await create('crash', testImage, 'cat', '/tmp/in')
      const slow = daemon.docker(['cp', 'crash:/', '-'])
      await sleep(vm ? 700 : 30)
      await daemon.down('SIGKILL')
      await slow
      await daemon.up()
      await ok('cp', join(scratch, 'd/file'), 'crash:/tmp/in')
      expect(await ok('start', '-a', 'crash')).toBe('hello')
      await ok('rm', 'crash')
    })
  })
}
