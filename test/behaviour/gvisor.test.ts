import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exec, TestDaemon, until } from '../lib/daemon.js'
import { buildTestImage, testImage } from '../lib/image.js'
import { remains } from '../lib/traces.js'

const installed = (await exec('runsc', ['--version']).catch(() => ({ code: 1 }))).code === 0
// `make setup-test` installs it.
const title = installed ? '--runtime runsc' : '--runtime runsc (skipped: runsc is not installed)'

let daemon: TestDaemon

beforeAll(async () => {
  daemon = await TestDaemon.start()
  await buildTestImage(daemon)
}, 60_000)

afterAll(async () => {
  await daemon.destroy()
  expect(await remains(daemon)).toEqual([])
})

it('a runtime that is not there, or that does not work, is refused when the container is made', async () => {
  expect((await daemon.docker(['create', '--runtime', 'nosuch', testImage])).stderr).toContain('unknown or invalid runtime name: nosuch')
  const place = await mkdtemp(join(tmpdir(), 'hull-runsc-'))
  try {
    // gVisor where ptrace(2) is forbidden says such a thing, and its version all the same.
    const broken = join(place, 'runsc')
    await writeFile(broken, '#!/bin/sh\n[ "$1" = --version ] && exec echo "runsc version 1.0"\necho "starting sandbox: operation not permitted" >&2\nexit 1\n')
    await chmod(broken, 0o755)
    expect((await daemon.docker(['create', '--runtime', broken, testImage])).stderr).toContain(`runtime ${broken} does not work on this host: starting sandbox: operation not permitted`)
  } finally {
    await rm(place, { recursive: true })
  }
})

describe.skipIf(!installed)(title, () => {
  const run = (...args: string[]) => daemon.docker(['run', '--rm', '--runtime', 'runsc', ...args])
  const sh = (script: string) => [testImage, 'sh', '-c', script]
  const start = async (name: string, script: string, ...args: string[]) => daemon.ok('run', '-d', '--name', name, '--runtime', 'runsc', ...args, ...sh(script))

  it('is listed, and gives a kernel that is not the host\'s, output and exit code', async () => {
    expect(Object.keys(JSON.parse(await daemon.ok('info', '--format', '{{json .Runtimes}}')) as object)).toContain('runsc')
    const said = await run('-m', '64m', ...sh('cat /proc/version; echo err >&2; free -m | head -2 | tail -1 | tr -s " "; exit 3'))
    expect(said.stdout).toMatch(/^Linux version 4\.4\.0 #1 SMP Sun Jan 10 15:06:54 PST 2016\nMem: 64 /)
    expect([said.stderr.trim(), said.code]).toEqual(['err', 3])
    const missing = await run(testImage, 'nosuch')
    expect(missing.stderr).toContain('OCI runtime start failed: starting container: starting root container: starting sandbox: error finding executable "nosuch" in PATH')
    expect(missing.code).toBe(127)
    expect((await run(testImage, '/etc')).code).toBe(126)
    expect((await run('--privileged', '--cap-add', 'BPF', ...sh('grep CapEff /proc/self/status'))).stdout).toMatch(/CapEff:\s+0000003f[ef]{8}\n/)
  }, 60_000)

  it('runs commands in it: exit codes, stdin, a terminal, a kill', async () => {
    const id = await start('box', 'trap "echo pipe" PIPE; trap "echo term; exit 7" TERM; echo up; while :; do sleep 0.2; done')
    expect((await daemon.docker(['exec', 'box', 'sh', '-c', 'exit 5'])).code).toBe(5)
    expect((await daemon.docker(['exec', 'box', 'nosuch'])).code).toBe(127)
    expect((await daemon.docker(['exec', '-i', 'box', 'cat'], { input: 'piped' })).stdout).toBe('piped')
    const terminal = await exec('script', ['-qec', `docker -H ${daemon.host} exec -it box sh -c 'test -t 0 && echo terminal; exit 4'`, '/dev/null'])
    // script(1) echoes its own end of input.
    expect(terminal.stdout).toMatch(/terminal\r?\n/)
    expect(terminal.code).toBe(4)
    // The processes inside, not gVisor's own.
    expect(await daemon.ok('top', 'box')).toMatch(/^UID +PID +PPID[^]*\n0 +1 +0 [^]*\n?0 +\d+ +1 .*sleep/)
    expect((await daemon.docker(['top', 'box', 'aux'])).stderr).toContain('gVisor shows its processes as ps -ef does')
    expect((await daemon.hull(['explain', id])).stdout).toMatch(/wall +gVisor: [^]*runtime +\S*runsc 0\./)
    // A signal that Go's runtime would keep, and one that is passed on.
    await daemon.ok('kill', '-s', 'PIPE', 'box')
    await until('the signal', async () => (await daemon.ok('logs', 'box')) === 'up\npipe')
    await daemon.ok('pause', 'box')
    await daemon.ok('unpause', 'box')
    await daemon.down()
    await daemon.up()
    await daemon.ok('stop', 'box')
    expect(await daemon.ok('wait', 'box')).toBe('7')
    expect(await daemon.ok('logs', 'box')).toBe('up\npipe\nterm')
    await daemon.ok('rm', 'box')
  }, 60_000)

  it('shares the files with the host that has to copy them', async () => {
    await start('files', 'echo in > /etc/inner; sleep 100')
    await until('the file', async () => (await daemon.docker(['exec', 'files', 'cat', '/etc/inner'])).stdout === 'in\n')
    expect((await daemon.docker(['cp', 'files:/etc/inner', '-'])).stdout).toContain('in\n')
    expect(await daemon.ok('diff', 'files')).toContain('A /etc/inner')
    await daemon.ok('rm', '-f', 'files')
    const volume = ['-v', 'gvisor:/data']
    expect((await run(...volume, ...sh('echo kept > /data/x'))).code).toBe(0)
    expect((await run(...volume, ...sh('cat /data/x'))).stdout).toBe('kept\n')
    await daemon.ok('volume', 'rm', 'gvisor')
  }, 60_000)

  it('has its addresses, names and published ports by gVisor\'s own network stack', async () => {
    await daemon.ok('network', 'create', 'gv')
    await start('web', 'while :; do echo served | nc -l -p 80; done', '--network', 'gv', '-p', '127.0.0.1:0:80')
    const port = (await daemon.ok('port', 'web', '80')).split(':').at(-1)!
    await until('it serves', async () => (await exec('/bin/busybox', ['nc', '-w', '2', '127.0.0.1', port]).catch(() => undefined))?.stdout === 'served\n')
    // A container of the host's kernel finds it by name, and the other way round.
    expect((await daemon.docker(['run', '--rm', '--network', 'gv', ...sh('nc -w 2 web 80 < /dev/null')])).stdout).toBe('served\n')
    expect((await run('--network', 'gv', ...sh('nc -w 2 web 80 < /dev/null'))).stdout).toBe('served\n')
    expect((await run('--network', 'none', ...sh('tail -n +3 /proc/net/dev | cut -d: -f1'))).stdout.trim()).toBe('lo')
    expect((await run('--network', 'host', ...sh('cat /proc/net/dev'))).stdout).toContain('hull')
    expect((await daemon.docker(['network', 'connect', 'bridge', 'web'])).stderr).toContain('networks of a container in gVisor cannot change while it runs')
    expect((await daemon.docker(['run', '--rm', '--network', 'container:web', testImage, 'true'])).stderr).toContain('it is inside a kernel of its own (gVisor)')
    expect((await daemon.docker(['run', '--rm', '--pid', 'container:web', testImage, 'true'])).stderr).toContain('it has a kernel of its own (gVisor)')
    await daemon.ok('rm', '-f', 'web')
    await daemon.ok('network', 'rm', 'gv')
  }, 60_000)

  it.each<[string, ...string[]]>([
    ['--pid host', '--pid=host'], ['--ipc host', '--ipc=host'], ['--uts host', '--uts=host'], ['--device', '--device=/dev/null'], ['--sysctl net.ipv4.ip_forward', '--sysctl=net.ipv4.ip_forward=1'],
    ['--device-cgroup-rule', '--device-cgroup-rule=c 1:3 r'],
  ])('refuses %s by its name', async (option, ...args) => {
    expect((await daemon.docker(['create', '--runtime', 'runsc', ...args, testImage])).stderr).toContain(`${option} is not possible with runtime runsc: gVisor`)
  })

  it('a container that uses up its memory is killed, and says so', async () => {
    await start('big', 'dd if=/dev/zero of=/tmp/x bs=8M count=30; sleep 1', '-m', '64m')
    expect(await daemon.ok('wait', 'big')).toBe('137')
    expect(await daemon.ok('inspect', '-f', '{{.State.OOMKilled}}', 'big')).toBe('true')
    await daemon.ok('rm', 'big')
  }, 60_000)
})
