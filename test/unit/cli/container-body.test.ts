import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { runCommand, type CommandDefinition, type Context, type Flags } from '../../../src/cli/command.js'
import { Client } from '../../../src/cli/client.js'
import { startExitCode, runDefinition } from '../../../src/cli/commands/run.js'
import { canonicalName, splitReference } from '../../../src/cli/commands/pull.js'
import { containerBody } from '../../../src/cli/options/container.js'

const scratch = mkdtempSync(join(tmpdir(), 'hull-cli-unit-'))
afterAll(() => { rmSync(scratch, { recursive: true }) })
const file = (name: string, text: string) => { writeFileSync(join(scratch, name), text); return join(scratch, name) }

/** What `hull run ARGV` would send, by way of the whole command line. */
async function body(...argv: string[]): Promise<Record<string, unknown> & { HostConfig: Record<string, unknown> }> {
  let seen: Record<string, unknown> | undefined
  const definition: CommandDefinition = {
    ...runDefinition,
    run: (_context: Context, flags: Flags, [image, ...args]: string[]) => {
      seen = containerBody(flags, image!, args, { HOME: '/root', EMPTY: '' }, '/work/dir')
      return Promise.resolve(0)
    },
  }
  await runCommand('run', definition, argv, { client: new Client('unix:///nowhere'), streams: process })
  return seen as Record<string, unknown> & { HostConfig: Record<string, unknown> }
}

describe('the body of create', () => {
  it('is small when nothing is said', async () => {
    expect(await body('busybox')).toEqual({
      AttachStdout: true, AttachStderr: true, Image: 'busybox', HostConfig: { NetworkMode: 'default', RestartPolicy: { Name: 'no', MaximumRetryCount: 0 } }, NetworkingConfig: { EndpointsConfig: {} },
    })
  })
  // The expectations below are what the docker CLI 28.2.2 sent for the same command lines (fields that it sends empty are left out here).
  it('has the common flags', async () => {
    expect(await body('-it', '--rm', '--name', 'n1', '-e', 'A=1', '-e', 'HOME', '-e', 'UNSET', '-w', '/x', '-u', '1:2', '-h', 'hh', '--domainname', 'dd', '--entrypoint', '/e', '-l', 'a=b', '-l', 'c',
      '-m', '64m', '--cpus', '1.5', '--pids-limit', '10', '--read-only', '--tmpfs', '/t:size=1m', '--tmpfs', '/u', 'busybox', 'sh', '-c', 'x y')).toMatchObject({
      Hostname: 'hh', Domainname: 'dd', User: '1:2', AttachStdin: true, AttachStdout: true, AttachStderr: true, Tty: true, OpenStdin: true, StdinOnce: true, Env: ['A=1', 'HOME=/root', 'UNSET'],
      Cmd: ['sh', '-c', 'x y'], Image: 'busybox', WorkingDir: '/x', Entrypoint: ['/e'], Labels: { a: 'b', c: '' },
      HostConfig: { AutoRemove: true, ReadonlyRootfs: true, Tmpfs: { '/t': 'size=1m', '/u': '' }, Memory: 67108864, NanoCpus: 1500000000, PidsLimit: 10 },
    })
  })
  it('has ports, ulimits and isolation', async () => {
    const sent = await body('-p', '80', '-p', '8080:80', '-p', '127.0.0.1:90:91/udp', '-p', '3000-3002:4000-4002', '--expose', '99', '-P', '--network', 'none', '--init', '--stop-signal', 'USR1',
      '--stop-timeout', '3', '--ulimit', 'nofile=10:20', '--ulimit', 'core=0', '--isolation', 'vm', 'busybox')
    expect(sent).toMatchObject({
      ExposedPorts: { '4000/tcp': {}, '4001/tcp': {}, '4002/tcp': {}, '80/tcp': {}, '91/udp': {}, '99/tcp': {} }, StopSignal: 'USR1', StopTimeout: 3, NetworkingConfig: { EndpointsConfig: {} },
      HostConfig: { NetworkMode: 'none', PublishAllPorts: true, Isolation: 'vm', Init: true, Ulimits: [{ Name: 'core', Hard: 0, Soft: 0 }, { Name: 'nofile', Hard: 20, Soft: 10 }] },
    })
    expect(sent.HostConfig.PortBindings).toEqual({
      '4000/tcp': [{ HostIp: '', HostPort: '3000' }], '4001/tcp': [{ HostIp: '', HostPort: '3001' }], '4002/tcp': [{ HostIp: '', HostPort: '3002' }],
      '80/tcp': [{ HostIp: '', HostPort: '' }, { HostIp: '', HostPort: '8080' }], '91/udp': [{ HostIp: '127.0.0.1', HostPort: '90' }],
    })
  })
  it('has volumes and mounts', async () => {
    const sent = await body('-v', '/a:/b:ro', '-v', 'named:/c', '-v', '/anon', '-v', './rel:/d', '--mount', 'type=bind,src=/x,dst=/y,readonly', '--mount', 'type=tmpfs,dst=/tt,tmpfs-size=1m,tmpfs-mode=1777',
      '--mount', 'type=volume,src=v1,dst=/vv,volume-nocopy', 'busybox')
    expect(sent.Volumes).toEqual({ '/anon': {} })
    expect(sent.HostConfig.Binds).toEqual(['/a:/b:ro', 'named:/c', '/work/dir/rel:/d'])
    expect(sent.HostConfig.Mounts).toEqual([
      { Type: 'bind', Source: '/x', Target: '/y', ReadOnly: true }, { Type: 'tmpfs', Target: '/tt', TmpfsOptions: { SizeBytes: 1048576, Mode: 1023 } },
      { Type: 'volume', Source: 'v1', Target: '/vv', VolumeOptions: { NoCopy: true } },
    ])
  })
  it('has networks in both forms', async () => {
    const want = { IPAMConfig: { IPv4Address: '1.2.3.4' }, Aliases: ['q'] }
    expect((await body('--network', 'foo', '--ip', '1.2.3.4', '--network-alias', 'q', 'busybox')).NetworkingConfig).toEqual({ EndpointsConfig: { foo: want } })
    expect((await body('--network', 'name=foo,ip=1.2.3.4,alias=q', 'busybox')).NetworkingConfig).toEqual({ EndpointsConfig: { foo: want } })
    expect((await body('--net=host', 'busybox')).HostConfig.NetworkMode).toBe('host')
  })
  it('gives --ip and --network-alias to the first network, and the rest to its own', async () => {
    expect((await body('--network', 'one', '--network', 'name=two,alias=b', '--ip', '1.2.3.4', '--network-alias', 'q', 'busybox')).NetworkingConfig)
      .toEqual({ EndpointsConfig: { one: { IPAMConfig: { IPv4Address: '1.2.3.4' }, Aliases: ['q'] }, two: { Aliases: ['b'] } } })
    expect((await body('--network', 'one', '--network', 'two', '--network-alias', 'q', 'busybox')).NetworkingConfig).toEqual({ EndpointsConfig: { one: { Aliases: ['q'] }, two: {} } })
    expect((await body('--network-alias', 'q', 'busybox')).NetworkingConfig).toEqual({ EndpointsConfig: { default: { Aliases: ['q'] } } })
    expect((await body('--network', 'name=foo,mac-address=02:00:00:00:00:01,driver-opt=Com.x=a=b,driver-opt=c=', 'busybox')).NetworkingConfig)
      .toEqual({ EndpointsConfig: { foo: { MacAddress: '02:00:00:00:00:01', DriverOpts: { 'com.x': 'a=b', c: '' } } } })
    await expect(body('--network', 'name=foo,driver-opt=x', 'busybox')).rejects.toThrow('invalid key value pair format in driver options')
    await expect(body('--network', 'name=foo,gw-priority=1', 'busybox')).rejects.toThrow('gw-priority is not supported')
    await expect(body('--network', 'name=foo,nonsense=1', 'busybox')).rejects.toThrow('invalid field nonsense')
  })
  it('has security, resources and the rest', async () => {
    const profile = file('seccomp.json', '{ "defaultAction": "SCMP_ACT_ALLOW" }\n')
    expect(await body('--cap-add', 'NET_ADMIN', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges', '--security-opt', `seccomp=${profile}`, '--security-opt', 'seccomp=unconfined', '--privileged',
      '--restart', 'on-failure:3', '--add-host', 'a:1.2.3.4', '--dns', '1.1.1.1', '--group-add', '5', '--sysctl', 'a.b=c', '--shm-size', '32m', '--log-opt', 'max-size=1m', '--oom-score-adj', '-5',
      '--device', '/dev/null', '--device', '/dev/zero:/dev/z:r', '--memory-swap', '-1', '--memory-reservation', '5m', '-c', '5', '--cpuset-cpus', '0-1', '--runtime', 'runc', '--entrypoint', '',
      '--health-cmd', 'x y', '--health-interval', '3s', '--annotation', 'a=b', 'busybox')).toMatchObject({
      Entrypoint: [''], Healthcheck: { Test: ['CMD-SHELL', 'x y'], Interval: 3e9 },
      HostConfig: {
        CapAdd: ['NET_ADMIN'], CapDrop: ['ALL'], SecurityOpt: ['no-new-privileges', 'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}', 'seccomp=unconfined'], Privileged: true,
        RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 3 }, ExtraHosts: ['a:1.2.3.4'], Dns: ['1.1.1.1'], GroupAdd: ['5'], Sysctls: { 'a.b': 'c' }, ShmSize: 33554432,
        LogConfig: { Config: { 'max-size': '1m' } }, OomScoreAdj: -5, MemorySwap: -1, MemoryReservation: 5242880, CpuShares: 5, CpusetCpus: '0-1', Runtime: 'runc', Annotations: { a: 'b' },
        Devices: [{ PathOnHost: '/dev/null', PathInContainer: '/dev/null', CgroupPermissions: 'rwm' }, { PathOnHost: '/dev/zero', PathInContainer: '/dev/z', CgroupPermissions: 'r' }],
      },
    })
    expect((await body('--no-healthcheck', 'busybox')).Healthcheck).toEqual({ Test: ['NONE'] })
  })
  it('reads env and label files', async () => {
    const env = file('env', '\uFEFF# comment\n\nA=1\n  B = spaced \nHOME\nUNSET\nQ="kept"\r\n'.replace('  B = spaced ', '  B=a b '))
    const labels = file('labels', 'x=1\ny\n')
    expect(await body('--env-file', env, '-e', 'A=2', '--label-file', labels, '-l', 'x=2', 'busybox')).toMatchObject({ Env: ['A=1', 'B=a b ', 'HOME=/root', 'Q="kept"', 'A=2'], Labels: { x: '2', y: '' } })
    await expect(body('--env-file', file('bad', 'A B=1\n'), 'busybox')).rejects.toThrow("variable 'A B' contains whitespaces")
    await expect(body('--env-file', file('none', '=1\n'), 'busybox')).rejects.toThrow('no variable name on line')
    await expect(body('--env-file', join(scratch, 'absent'), 'busybox')).rejects.toThrow(`open ${join(scratch, 'absent')}: no such file or directory`)
  })
  it('attaches what it is told to', async () => {
    expect(await body('-a', 'stdout', '-i', 'busybox')).toMatchObject({ AttachStdin: true, AttachStdout: true, OpenStdin: true, StdinOnce: true })
    expect(await body('-a', 'stdout', '-i', 'busybox')).not.toHaveProperty('AttachStderr')
    expect(await body('-a', 'stdout', 'busybox')).not.toHaveProperty('AttachStdin')
    expect(await body('-d', '-i', 'busybox')).toMatchObject({ OpenStdin: true })
    expect(await body('-d', '-i', 'busybox')).not.toHaveProperty('AttachStdout')
    await expect(body('-a', 'stdfoo', 'busybox')).rejects.toThrow('valid streams are')
    await expect(body('-d', '-a', 'stdout', 'busybox')).rejects.toThrow('cannot specify both --attach and --detach')
  })
})

describe('the command line', () => {
  it('stops at the image: what follows belongs to the workload', async () => {
    expect(await body('busybox', 'ls', '-l', '--rm', '--', '-x')).toMatchObject({ Cmd: ['ls', '-l', '--rm', '--', '-x'] })
    expect((await body('busybox', 'ls', '--rm')).HostConfig).not.toHaveProperty('AutoRemove')
    expect(await body('-e', 'image', '--', 'busybox', '--rm=true', '-e=x')).toMatchObject({ Image: 'busybox', Env: ['image'], Cmd: ['--rm=true', '-e=x'] })
  })
  it("takes pflag's spellings", async () => {
    expect((await body('--rm=true', '-t=false', '-m=5m', '--memory-swap=-1', 'busybox')).HostConfig).toMatchObject({ AutoRemove: true, Memory: 5242880, MemorySwap: -1 })
    expect(await body('-t=false', 'busybox')).not.toHaveProperty('Tty')
    expect(await body('-e', '--rm=x', 'busybox')).toMatchObject({ Env: ['--rm=x'] })
    expect(await body('-ite', 'A=1', 'busybox')).toMatchObject({ Tty: true, Env: ['A=1'] })
    expect(await body('-p8080:80', 'busybox')).toMatchObject({ ExposedPorts: { '80/tcp': {} } })
  })
  it('believes --flag=false, and the last of several spellings', async () => {
    const flagsOf = async (...argv: string[]) => {
      let seen: Flags = {}
      await runCommand('run', { ...runDefinition, run: (_context, flags) => { seen = flags; return Promise.resolve(0) } }, [...argv, 'busybox'], { client: new Client('unix:///nowhere'), streams: process })
      return seen
    }
    expect((await flagsOf()).sigProxy).toBe(true)
    expect((await flagsOf('--sig-proxy=false')).sigProxy).toBe(false)
    expect((await flagsOf('--sig-proxy=false', '--sig-proxy=1')).sigProxy).toBe(true)
    expect((await flagsOf('--no-sig-proxy=false')).sigProxy).toBe(true)
    expect((await flagsOf('--rm', '--rm=false')).rm).toBe(false)
    expect((await flagsOf('--rm=false', '--rm')).rm).toBe(true)
    expect(await flagsOf('-it', '-t=false')).toMatchObject({ tty: false, interactive: true })
    expect(await flagsOf('-t=0', '-i=0', '-it')).toMatchObject({ tty: true, interactive: true })
    // The letters after -e are its value, and a value is no flag.
    expect(await flagsOf('-t=false', '-et')).toMatchObject({ tty: false, env: ['t'] })
    expect(await flagsOf('--rm=false', '-e', '--rm')).toMatchObject({ rm: false, env: ['--rm'] })
    expect((await flagsOf('--no-healthcheck', '--no-healthcheck=false')).healthcheck).toBe(true)
  })
  it.each<[string[], RegExp]>([
    [['--foo', 'x'], /^unknown flag: --foo\n\nUsage: {2}hull run \[OPTIONS\] IMAGE \[COMMAND\] \[ARG\.\.\.\]\n\nRun 'hull run --help' for more information$/],
    [['-Z', 'x'], /^unknown shorthand flag: 'Z' in -Z/],
    [['-m'], /^flag needs an argument: --memory/],
    [['-m', '3q', 'x'], /^invalid argument "3q" for "-m, --memory" flag: invalid suffix: 'q'/],
    [['--rm=maybe', 'x'], /^invalid argument "maybe" for "--rm" flag: strconv\.ParseBool/],
    [['--pids-limit', 'x', 'x'], /^invalid argument "x" for "--pids-limit" flag: strconv/],
    [[], /^hull: 'hull run' requires at least 1 argument/],
    [['-p', 'abc', 'x'], /^invalid containerPort: abc/],
    [['-p', '80/foo', 'x'], /^invalid proto: foo/],
    [['-p', '99999', 'x'], /^invalid containerPort: 99999/],
    [['-p', '5-3:80', 'x'], /^invalid hostPort: 5-3/],
    [['-p', '1-2:1-3', 'x'], /^invalid ranges specified/],
    [['-p', 'nohost:80:80', 'x'], /^invalid IP address: nohost/],
    [['--expose', '1:2', 'x'], /^invalid port format for --expose/],
    [['--ulimit', 'nofile', 'x'], /^invalid ulimit argument: nofile/],
    [['--ulimit', 'foo=1', 'x'], /^invalid ulimit type: foo/],
    [['--ulimit', 'nofile=5:1', 'x'], /^ulimit soft limit must be less than or equal/],
    [['--restart', 'on-failure:x', 'x'], /^invalid restart policy format/],
    [['--restart', 'always', '--rm', 'x'], /^conflicting options: cannot specify both --restart and --rm/],
    [['-v', 'a:b:c:d', 'x'], /^invalid volume specification/],
    [['--mount', 'type=bind,src=/x', 'x'], /target is required/],
    [['--mount', 'nonsense=1,dst=/x', 'x'], /unexpected key 'nonsense'/],
    [['--device', '/a:/b:zz', 'x'], /^invalid device mode: zz/],
    [['--env', '=1', 'x'], /^invalid environment variable: =1/],
    [['--cpus', 'many', 'x'], /^invalid argument "many" for "--cpus" flag/],
    [['--memory-swappiness', '101', 'x'], /Valid memory swappiness range is 0-100/],
  ])('%j is refused', async (argv, why) => { await expect(body(...argv)).rejects.toThrow(why) })
  it('takes IPv6 addresses and host port ranges', async () => {
    expect((await body('-p', '[::1]:80:80', '-p', '9000-9010:81', 'busybox')).HostConfig.PortBindings)
      .toEqual({ '80/tcp': [{ HostIp: '::1', HostPort: '80' }], '81/tcp': [{ HostIp: '', HostPort: '9000-9010' }] })
  })
})

describe('small readings', () => {
  it('makes exit codes of start errors', () => {
    expect(startExitCode('… exec: "foo": executable file not found in $PATH: unknown')).toBe(127)
    expect(startExitCode('… stat /x: no such file or directory')).toBe(127)
    expect(startExitCode('… exec: "/etc/passwd": permission denied')).toBe(126)
    expect(startExitCode('… exec: "/tmp": is a directory')).toBe(126)
    expect(startExitCode('port is already allocated')).toBe(125)
  })
  it('splits references', () => {
    expect(splitReference('host:5000/a/b')).toEqual({ name: 'host:5000/a/b', tag: '' })
    expect(splitReference('host:5000/a/b:1')).toEqual({ name: 'host:5000/a/b', tag: '1' })
    expect(splitReference('a@sha256:12')).toEqual({ name: 'a', tag: 'sha256:12' })
    expect([canonicalName('busybox'), canonicalName('a/b'), canonicalName('localhost/x'), canonicalName('h:5000/x')]).toEqual(['docker.io/library/busybox', 'docker.io/a/b', 'localhost/x', 'h:5000/x'])
  })
})
