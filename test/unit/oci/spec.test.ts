import { describe, expect, it } from 'vitest'
import { buildMounts, tmpfsOptions, type MountInput } from '../../../src/oci/mounts.js'
import { buildResources, type ResourceInput } from '../../../src/oci/resources.js'
import { createError, execError, lastWords } from '../../../src/oci/runtime-errors.js'
import { atLeast, judge } from '../../../src/oci/runtime-floor.js'
import { buildProcess, buildSpec, type ProcessInput, type SpecInput } from '../../../src/oci/spec.js'
import { serialize } from '../../../src/oci/spec-types.js'

const process: ProcessInput = {
  args: ['sh'], env: ['PATH=/bin'], cwd: '/', user: { uid: 0, gid: 0, additionalGids: [0], home: '/root' }, tty: false, capabilities: ['CAP_CHOWN'],
  noNewPrivileges: false, ulimits: [],
}
const input: SpecInput = {
  process, rootfs: '/r', readOnlyRootfs: false, hostname: 'h', domainname: '', mounts: [], files: { '/etc/hosts': '/run/hosts' }, init: undefined, network: 'new', namespaces: { pid: 'new', ipc: 'new', uts: 'new', cgroup: 'new' }, shm: undefined, annotations: {},
  cgroupPath: '/hull/x', resources: {}, seccomp: undefined, sysctls: {}, shmSize: 1024, privileged: false, devices: [], recursiveReadOnly: true, maskedPaths: ['/proc/kcore'], readonlyPaths: [],
}
const mount = (target: string, extra: Partial<MountInput> = {}): MountInput => ({ type: 'bind', source: '/s', target, readOnly: false, options: [], ...extra })
const mounts = (list: MountInput[]) => buildMounts({ mounts: list, files: { '/etc/hosts': '/run/hosts' }, filesReadOnly: false, init: undefined, shmSize: 1, writableSystem: false, recursiveReadOnly: true })

describe('the process', () => {
  it('has capabilities as root, and a bounding set as another', () => {
    expect(buildProcess(process).capabilities).toEqual({ bounding: ['CAP_CHOWN'], effective: ['CAP_CHOWN'], permitted: ['CAP_CHOWN'] })
    expect(buildProcess({ ...process, user: { ...process.user, uid: 1 } }).capabilities).toEqual({ bounding: ['CAP_CHOWN'] })
  })

  it('has a home, unless it says otherwise', () => {
    expect(buildProcess(process).env).toEqual(['PATH=/bin', 'HOME=/root'])
    expect(buildProcess({ ...process, env: ['HOME=/x'] }).env).toEqual(['HOME=/x'])
  })

  it('writes "unlimited" as the number that it is', () => {
    const text = serialize(buildProcess({ ...process, ulimits: [{ name: 'core', soft: 0, hard: -1 }] }))
    expect(text).toContain('"rlimits":[{"type":"RLIMIT_CORE","soft":0,"hard":18446744073709551615}]')
  })

  it.each([[{ args: [] }], [{ args: [''] }], [{ args: ['a\0b'] }], [{ env: ['A=\0'] }], [{ cwd: 'relative' }]] as Partial<ProcessInput>[][])('refuses %j', (wrong) => {
    expect(() => buildProcess({ ...process, ...wrong })).toThrow(expect.objectContaining({ statusCode: 400 }) as Error)
  })
})

describe('config.json', () => {
  it('has every namespace of its own', () => {
    expect(buildSpec(input).linux.namespaces.map(({ type }) => type).sort()).toEqual(['cgroup', 'ipc', 'mount', 'network', 'pid', 'uts'])
    expect(buildSpec({ ...input, network: { path: '/run/netns/x' } }).linux.namespaces).toContainEqual({ type: 'network', path: '/run/netns/x' })
    const host = buildSpec({ ...input, network: 'host' })
    expect(host.linux.namespaces.map(({ type }) => type)).not.toContain('network')
    expect(host.linux.sysctl).toBeUndefined() // they would be the host's own
    expect(buildSpec(input).linux.sysctl).toHaveProperty(['net.ipv4.ip_unprivileged_port_start'], '0')
  })

  it('puts an init before the command', () => {
    const spec = buildSpec({ ...input, init: '/usr/bin/tini-static' })
    expect(spec.process.args).toEqual(['/sbin/docker-init', '--', 'sh'])
    expect(spec.mounts).toContainEqual({ destination: '/sbin/docker-init', type: 'bind', source: '/usr/bin/tini-static', options: ['bind', 'rprivate', 'ro'] })
  })

  it('maps users when it is told to', () => {
    const spec = buildSpec({ ...input, userns: { path: '/run/userns', uids: [{ containerID: 0, hostID: 100_000, size: 65_536 }], gids: [{ containerID: 0, hostID: 200_000, size: 65_536 }] } })
    expect(spec.linux.namespaces).toContainEqual({ type: 'user', path: '/run/userns' })
    expect(spec.linux.uidMappings).toEqual([{ containerID: 0, hostID: 100_000, size: 65_536 }])
  })
})

describe('mounts', () => {
  it('come parents first, and system mounts read-only', () => {
    const list = mounts([mount('/a/b/c'), mount('/a'), mount('/a/b')]).map(({ destination }) => destination)
    expect(list.slice(0, 7)).toEqual(['/proc', '/dev', '/dev/pts', '/sys', '/sys/fs/cgroup', '/dev/mqueue', '/dev/shm'])
    expect(list.slice(7)).toEqual(['/a', '/a/b', '/etc/hosts', '/a/b/c'])
    expect(mounts([]).find(({ destination }) => destination === '/sys')!.options).toContain('ro')
    expect(mounts([]).find(({ destination }) => destination === '/sys/fs/cgroup')!.options).toContain('ro')
  })

  it('of the user replace ours', () => {
    expect(mounts([mount('/dev/shm/'), mount('/etc/hosts')]).filter(({ destination }) => /shm|hosts/.test(destination)).map(({ source }) => source)).toEqual(['/s', '/s'])
    expect(mounts([mount('/sys')]).map(({ destination }) => destination)).not.toContain('/sys/fs/cgroup')
  })

  it('take bind and tmpfs options', () => {
    expect(mounts([mount('/x', { readOnly: true, options: ['rshared', 'z'] })]).at(-2)!.options).toEqual(['rbind', 'rshared', 'rro'])
    expect(mounts([mount('/x', { readOnly: true, options: ['nonrecursive'] })]).at(-2)!.options).toEqual(['bind', 'rprivate', 'ro'])
    expect(mounts([mount('/x', { readOnly: true, options: ['ro-nonrecursive'] })]).at(-2)!.options).toEqual(['rbind', 'rprivate', 'ro'])
    expect(() => mounts([mount('/x', { options: ['ro-force-recursive'] })])).toThrow(/mount options conflict/)
    expect(tmpfsOptions([])).toEqual(['noexec', 'nosuid', 'nodev'])
    expect(tmpfsOptions(['size=64m,mode=1777', 'exec'])).toEqual(['nosuid', 'nodev', 'size=64m', 'mode=1777', 'exec'])
    expect(tmpfsOptions(['size=1m', 'size=2m', 'ro'])).toEqual(['noexec', 'nosuid', 'nodev', 'size=2m', 'ro'])
    expect(() => tmpfsOptions(['context=x'])).toThrow(/Invalid tmpfs option/)
  })

  it.each(['relative', '/', '/a/../b', ''])('are refused on %j', (target) => expect(() => mounts([mount(target)])).toThrow(expect.objectContaining({ statusCode: 400 }) as Error))
})

describe('resources', () => {
  const none: ResourceInput = {
    memory: 0, memorySwap: 0, memoryReservation: 0, nanoCpus: 0, cpuShares: 0, cpuPeriod: 0, cpuQuota: 0, cpusetCpus: '', cpusetMems: '', pidsLimit: 0, oomKillDisable: false, blkioWeight: 0,
  }
  const support = { v2: false, swap: true, blkioWeight: true }

  it('are Docker’s numbers', () => {
    expect(Object.keys(buildResources(none, support, false).resources)).toEqual(['devices'])
    expect(buildResources({ ...none, cpuQuota: -1 }, support, false).resources.cpu).toBeUndefined()
    expect(buildResources({ ...none, memory: 1 << 26, nanoCpus: 1.5e9, pidsLimit: 9, cpusetCpus: '0-1' }, support, false).resources).toMatchObject({
      memory: { limit: 1 << 26, swap: 1 << 27 }, cpu: { period: 100_000, quota: 150_000, cpus: '0-1' }, pids: { limit: 9 },
    })
    expect(buildResources({ ...none, memory: 1 << 26, memorySwap: -1, cpuPeriod: 50_000, cpuQuota: 25_000, pidsLimit: -1 }, support, false).resources).toMatchObject({ memory: { swap: -1 }, cpu: { period: 50_000, quota: 25_000 } })
  })

  it('come with warnings where the host cannot', () => {
    // Twice 2^62 is no 64-bit integer: crun could not read its file.
    expect(BigInt(JSON.stringify(buildResources({ ...none, memory: 2 ** 62 }, support, false).resources.memory?.swap))).toBeLessThan(2n ** 63n)
    const poor = buildResources({ ...none, memory: 1, memorySwap: 2, oomKillDisable: true, blkioWeight: 500 }, { v2: true, swap: false, blkioWeight: false }, false)
    expect(poor.warnings).toHaveLength(3)
    expect(poor.resources.memory).toEqual({ limit: 1 })
  })

  it('let nobody open the host’s devices', () => {
    const { devices } = buildResources(none, support, false).resources
    expect(devices![0]).toEqual({ allow: false, access: 'rwm' })
    expect(devices!.slice(1).filter((rule) => rule.type === 'b')).toEqual([{ allow: true, type: 'b', access: 'm' }])
    expect(devices!.some((rule) => rule.allow && rule.major === undefined && rule.access !== 'm')).toBe(false)
    expect(buildResources(none, support, true).resources.devices).toEqual([{ allow: true, access: 'rwm' }])
  })
})

describe('a runtime’s words', () => {
  const attempt = { command: 'x', cwd: '/' }
  it('are found among others', () => {
    expect(lastWords('time="t" level=warning msg="w"\ntime="t" level=error msg="say \\"x\\""\n')).toBe('say "x"')
    expect(lastWords('{"msg":"plain","level":"error"}\n')).toBe('plain')
    expect(lastWords('')).toBe('')
  })

  it.each([
    ['executable file `x` not found in $PATH: No such file or directory', 'x', 400, 'exec: "x": executable file not found in $PATH'],
    ['executable file `/x` not found in $PATH: No such file or directory', '/x', 400, 'exec: "/x": stat /x: no such file or directory'],
    ['open executable: Permission denied', '/x', 400, 'exec: "/x": permission denied'],
    ['open executable: Operation not permitted', '/x', 400, 'exec: "/x": is a directory'],
    ['chdir `/x`: Not a directory', 'y', 400, 'chdir to cwd ("/x") set in config.json failed: not a directory'],
  ])('%s', (text, command, status, words) => {
    const error = createError('crun', 'crun', text, { command, cwd: '/' })
    expect(error.statusCode).toBe(status)
    expect(error.message).toBe(`failed to create task for container: failed to create shim task: OCI runtime create failed: crun create failed: unable to start container process: error during container init: ${words}: unknown`)
    expect(execError('crun', text, { command, cwd: '/' }).error.message).toBe(`OCI runtime exec failed: exec failed: unable to start container process: ${words}: unknown`)
  })

  it('that are ours to answer for are a 500', () => {
    expect(createError('crun', 'crun', 'opening file `/proc/self/setgroups`: Too many open files', attempt)).toMatchObject({ statusCode: 400 })
    expect(createError('crun', 'crun', 'write to /proc/sys/net/core/somaxconn: Invalid argument', attempt)).toMatchObject({ statusCode: 400 })
    expect(createError('crun', 'crun', 'writing file `memory.limit_in_bytes`: Device or resource busy', attempt)).toMatchObject({ statusCode: 500 })
    expect(createError('crun', 'crun', '', attempt).message).toContain('no message')
  })

  it('give the exit codes of docker exec', () => {
    expect(execError('crun', 'executable file `x` not found in $PATH: No such file or directory', attempt).exitCode).toBe(127)
    expect(execError('crun', 'open executable: Permission denied', attempt).exitCode).toBe(126)
    expect(execError('runc', 'exec failed: unable to start container process: exec: "x": executable file not found in $PATH', attempt).error.message).toBe(
      'OCI runtime exec failed: exec failed: unable to start container process: exec: "x": executable file not found in $PATH: unknown')
  })
})

describe('version floors', () => {
  it('compare numbers', () => {
    expect(atLeast('1.10.0', '1.9')).toBe(true)
    expect(atLeast('1.4', '1.4.4')).toBe(false)
    expect(atLeast('1.4.4-rc1', '1.4.4')).toBe(true)
  })

  it('refuse what is broken, know Debian’s fixes, and warn', () => {
    expect(judge('crun', '1.4.3', 'crun version 1.4.3').refuse).toContain('CVE-2022-27650')
    expect(judge('crun', '1.8.1', 'crun version 1.8.1')).toEqual({})
    expect(judge('runc', '1.1.11', 'runc version 1.1.11').refuse).toContain('CVE-2024-21626')
    const debian = judge('runc', '1.1.5+ds1', 'runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\n')
    expect(debian.refuse).toBeUndefined()
    expect(debian.warn).toContain('CVE-2025-31133')
    expect(judge('runc', '1.1.5+ds1', 'commit: 1.1.5+ds1-1').refuse).toBeDefined()
    expect(judge('runc', '1.3.3', 'runc version 1.3.3')).toEqual({})
    expect(judge('runsc', '', '')).toEqual({})
  })
})
