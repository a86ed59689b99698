import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CATALOG } from '../../src/compare/drills/catalog.js'
import { parseComparison } from '../../src/compare/schema.js'
import { exec, TestDaemon, until } from '../lib/daemon.js'
import { buildTestImage, testImage } from '../lib/image.js'
import { tar } from '../lib/tar.js'
import { remains } from '../lib/traces.js'

/** The first subordinate id of dockremap, whom `--userns-remap default` makes. */
async function firstId(file: string): Promise<number> {
  return Number(/^dockremap:(\d+):/m.exec(await readFile(file, 'utf8'))![1])
}

describe('--userns-remap default', () => {
  let daemon: TestDaemon
  let userWasThere = false
  let uid = 0
  let gid = 0

  beforeAll(async () => {
    userWasThere = (await exec('id', ['dockremap'])).code === 0
    daemon = await TestDaemon.start(['--userns-remap', 'default'])
    ;[uid, gid] = [await firstId('/etc/subuid'), await firstId('/etc/subgid')]
    await buildTestImage(daemon)
  })

  afterAll(async () => {
    await daemon.destroy()
    if (!userWasThere) await exec('userdel', ['dockremap'])
    expect(await remains(daemon)).toEqual([])
  })

  const run = (...args: string[]) => daemon.docker(['run', '--rm', ...args])
  const sh = (script: string) => [testImage, 'sh', '-c', script]

  it('gives a container other ids on the host, and its image the ids that it has everywhere', async () => {
    const said = await run(...sh('id -u; cat /proc/self/uid_map /proc/self/gid_map | tr -s " "; stat -c "%u:%g %n" / /bin/busybox /home/user /etc/hosts /proc/1; touch /new && chown 5:6 /new && stat -c %u:%g /new; echo x > /dev/shm/y && echo shm; echo > /dev/stderr && echo stdio'))
    expect(said.stderr.trim()).toBe('')
    expect(said.stdout).toBe(`0\n 0 ${uid} 65536\n 0 ${gid} 65536\n0:0 /\n0:0 /bin/busybox\n1000:1000 /home/user\n0:0 /etc/hosts\n0:0 /proc/1\n5:6\nshm\nstdio\n`)
  })

  it('keeps what it wrote under its host ids, over restarts of container and daemon', async () => {
    const id = await daemon.ok('run', '-d', '--name', 'kept', '-p', '0:80', ...sh('echo once >> /log; while :; do echo served | nc -l -p 80; done'))
    const { pid } = (JSON.parse(await daemon.ok('inspect', id)) as { State: { Pid: number } }[]).map((row) => ({ pid: row.State.Pid }))[0]!
    expect((await exec('stat', ['-c', '%u:%g', `/proc/${pid}`])).stdout).toBe(`${uid}:${gid}\n`)
    expect((await exec('stat', ['-c', '%u:%g', `${daemon.dataRoot}/overlay/${id}/upper/log`])).stdout).toBe(`${uid}:${gid}\n`)
    expect(await daemon.ok('exec', 'kept', 'sh', '-c', 'id -u; cat /log')).toBe('0\nonce')
    expect(await daemon.ok('exec', '-u', '1000', 'kept', 'id', '-u')).toBe('1000')
    await daemon.down('SIGKILL')
    await daemon.up()
    expect(await daemon.ok('exec', 'kept', 'cat', '/log')).toBe('once')
    await daemon.ok('restart', '-t', '0', 'kept')
    expect(await daemon.ok('exec', 'kept', 'cat', '/log')).toBe('once\nonce')
    const port = (await daemon.ok('port', 'kept', '80/tcp')).split('\n')[0]!.split(':').pop()!
    await until('the port answers', async () => (await exec('bash', ['-c', `cat < /dev/tcp/127.0.0.1/${port}`])).stdout === 'served\n')
    const explained = await daemon.hull(['explain', 'kept'])
    expect(explained.stdout).toContain(`0 ${uid} 65536`)
    expect(explained.stdout).toMatch(/\n +user +\d+ \(its own/)
    await daemon.ok('rm', '-f', 'kept')
  })

  it('cp, diff and commit speak of the container’s ids', async () => {
    const archive = (name: string) => tar([{ name, content: 'copied\n', uid: 5, gid: 6, mode: 0o4755 }])
    await daemon.ok('volume', 'create', 'mapped')
    await daemon.ok('create', '--name', 'copied', '-v', 'mapped:/vol', ...sh('stat -c "%u:%g %a" /tmp/cold /vol/cold; while :; do sleep 1; done'))
    for (const place of ['/tmp', '/vol']) expect((await daemon.docker(['cp', '-', `copied:${place}`], { input: archive('cold') })).stderr).toBe('')
    await daemon.ok('start', 'copied')
    await until('it has said', async () => (await daemon.ok('logs', 'copied')) === '5:6 4755\n5:6 4755')
    for (const place of ['/tmp', '/vol']) expect((await daemon.docker(['cp', '-', `copied:${place}`], { input: archive('warm') })).stderr).toBe('')
    expect(await daemon.ok('exec', 'copied', 'stat', '-c', '%u:%g', '/tmp/warm', '/vol/warm')).toBe('5:6\n5:6')
    const list = (from: string) => exec('sh', ['-c', `${from} | tar tvf - --numeric-owner | grep -E '(cold|warm)$' | awk '{print $2}'`], { env: { DOCKER_HOST: daemon.host } })
    for (const from of ['docker cp copied:/tmp -', 'docker cp copied:/vol -', 'docker export copied']) expect((await list(from)).stdout).toBe('5/6\n5/6\n')
    expect(await daemon.ok('diff', 'copied')).toBe('C /tmp\nA /tmp/cold\nA /tmp/warm\nA /vol')
    await daemon.ok('commit', 'copied', 'mapped:1')
    expect((await run('mapped:1', 'stat', '-c', '%u:%g', '/tmp/cold', '/tmp')).stdout).toBe('5:6\n0:0\n')
    expect((await run('--userns=host', 'mapped:1', 'stat', '-c', '%u:%g', '/tmp/cold', '/tmp')).stdout).toBe('5:6\n0:0\n')
    await daemon.ok('rm', '-fv', 'copied')
    await daemon.ok('volume', 'rm', 'mapped')
  })

  it('lets root of the container rule its own network, and not the host', async () => {
    const said = await run('--cap-add', 'NET_ADMIN', ...sh('ip link set lo down && echo down; ping -c1 -W5 $(ip route | sed -n "s/default via \\([^ ]*\\).*/\\1/p") > /dev/null && echo ping; ls /sys/class/net | tr "\\n" " "; mknod /x b 8 0 || echo no-devices; cat /proc/kcore | wc -c'))
    expect(said.stdout).toMatch(/^down\nping\neth0 lo no-devices\n0\n$/)
    expect((await run('--network', 'none', ...sh('ls /sys/class/net'))).stdout).toBe('lo\n')
  })

  it('shares named volumes with containers that keep the host ids', async () => {
    expect((await run('-v', 'shared:/data', ...sh('echo remapped > /data/a; chown 7:8 /data/a; stat -c %u:%g /data /data/a'))).stdout).toBe('0:0\n7:8\n')
    expect((await run('--userns', 'host', '-v', 'shared:/data', ...sh('stat -c %u:%g /data/a; cat /data/a; echo host > /data/b'))).stdout).toBe('7:8\nremapped\n')
    expect((await run('-v', 'shared:/data', ...sh('stat -c %u:%g /data/b; cat /data/b'))).stdout).toBe('0:0\nhost\n')
    await daemon.ok('volume', 'rm', 'shared')
  })

  it('is left out by --userns host, and by a VM, which has ids of its own anyway', async () => {
    expect((await run('--userns', 'host', ...sh('cat /proc/self/uid_map'))).stdout.trim().split(/\s+/)).toEqual(['0', '0', '4294967295'])
    expect((await run('--isolation=vm', ...sh('cat /proc/self/uid_map'))).stdout.trim().split(/\s+/)).toEqual(['0', '0', '4294967295'])
  })

  it('is refused with what it would make meaningless, in words of Docker', async () => {
    for (const [args, message] of [
      [['--privileged'], 'privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode'],
      [['--network', 'host'], "cannot share the host's network namespace when user namespaces are enabled"],
    ] as const) {
      const said = await run(...args, testImage, 'true')
      expect(said.code).toBe(125)
      expect(said.stderr).toContain(message)
    }
    expect((await run('--privileged', '--userns', 'host', testImage, 'true')).code).toBe(0)
    expect(await daemon.ok('info', '--format', '{{json .SecurityOptions}}')).toContain('"name=userns"')
  })

  it('says when it starts what it cannot do', async () => {
    const wrong = await exec('bin/hull', ['daemon', '-H', `unix://${daemon.directory}/other`, '--data-root', `${daemon.directory}/other-d`, '--exec-root', `${daemon.directory}/other-e`, '--userns-remap', 'nosuchuser'])
    expect(wrong.code).toBe(1)
    expect(wrong.stderr).toContain('there is no user nosuchuser')
    const none = await exec('bin/hull', ['daemon', '-H', `unix://${daemon.directory}/other`, '--data-root', `${daemon.directory}/other-d`, '--exec-root', `${daemon.directory}/other-e`, '--userns-remap', 'root:daemon'])
    expect(none.stderr).toContain(`Can't create ID mappings: No subuid ranges found for user "root"`)
  })

  it('holds every escape drill of hull compare, and is not there with --privileged', async () => {
    const state = await mkdtemp(join(tmpdir(), 'hull-state-'))
    try {
      const said = await exec(join(import.meta.dirname, '../../bin/hull'), ['-H', daemon.host, 'compare', '--isolation', 'process,process-userns', '--sections', 'drills', '--format', 'json', testImage], { env: { XDG_STATE_HOME: state } })
      const { drills } = parseComparison(said.stdout).sections.drills!
      for (const { name, expected } of CATALOG) {
        const [plain, privileged] = [false, true].map((one) => drills.find((drill) => drill.drill === name && drill.privileged === one)!.results)
        expect([name, plain!.process?.outcome, plain!['process-userns']?.outcome]).toEqual([name, expected.container[0], expected.container[0]])
        expect([name, privileged!['process-userns']]).toMatchObject([name, { outcome: 'missing', detail: expect.stringContaining(name === 'panic' ? 'never tried' : 'privileged mode is incompatible with user namespaces') as string }])
      }
      expect(drills.filter((drill) => drill.privileged && drill.results.process?.outcome === 'host').length).toBeGreaterThanOrEqual(4)
    } finally {
      await rm(state, { recursive: true, force: true })
    }
  })
})
