import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { CreateContainerRequest, HostConfig } from '../../../src/engine/api-types.js'
import { Harness } from './harness.js'

let h: Harness
beforeEach(async () => {
  h = await Harness.start()
})
afterEach(() => h.stop())

const create = (body: unknown, query = '', version = '') => h.call('POST', `${version}/containers/create${query}`, body)
const created = (): CreateContainerRequest => h.engine.calls.filter(([name]) => name === 'create').at(-1)![1] as CreateContainerRequest
async function refused(body: unknown, query = ''): Promise<string> {
  const answer = await create(body, query)
  expect(answer.status).toBe(400)
  return (answer.json() as { message: string }).message
}
const host = (hostConfig: unknown) => ({ Image: 'busybox', HostConfig: hostConfig })

describe('create', () => {
  it('fills in zero values, takes null for them, ignores unknown fields, and matches names in any case, as Go does', async () => {
    expect((await create({ image: 'busybox', Cmd: 'ls', Env: null, Labels: { a: 'b' }, Nonsense: { x: 1 }, HostConfig: { memory: 1, PidsLimit: 0, NoSuch: true } })).status).toBe(201)
    const { config, hostConfig } = created()
    expect(config).toMatchObject({ Image: 'busybox', Cmd: ['ls'], Entrypoint: null, Env: [], Tty: false, StopTimeout: null, Labels: { a: 'b' }, Healthcheck: null })
    expect(hostConfig).toMatchObject({ Memory: 1, PidsLimit: null, NetworkMode: 'default', Isolation: '', ConsoleSize: [0, 0], MaskedPaths: null, Mounts: [] })
    expect(config).not.toHaveProperty('Nonsense')
    expect(hostConfig).not.toHaveProperty('NoSuch')
  })

  it('gives everything typed to the engine, so that nothing that is not honoured can be lost', async () => {
    const wanted = {
      Privileged: true, UsernsMode: 'host', CgroupParent: '/x', Devices: [{ PathOnHost: '/dev/kvm', PathInContainer: '/dev/kvm', CgroupPermissions: 'rwm' }],
      DeviceCgroupRules: ['c 1:1 rwm'], DeviceRequests: [{ Driver: 'nvidia', Count: -1, DeviceIDs: [], Capabilities: [['gpu']], Options: {} }], ReadonlyPaths: [],
      MaskedPaths: ['/proc/x'], SecurityOpt: ['no-new-privileges'], Sysctls: { 'net.x': '1' }, Ulimits: [{ Name: 'nofile', Soft: 1, Hard: 2 }], MemorySwappiness: 0,
      OomKillDisable: false, Init: true, VolumesFrom: ['a'], Links: ['a:b'], StorageOpt: { size: '1G' }, Runtime: 'runc', IpcMode: 'container:x', BlkioWeightDevice: [{ Path: '/dev/sda', Weight: 5 }],
    }
    await create(host(wanted))
    expect(created().hostConfig).toMatchObject(wanted)
  })

  it.each([
    [{ Memory: '1g' }, /^invalid JSON: HostConfig\.Memory: .*expected number/],
    [{ Memory: 1.5 }, /^invalid JSON: HostConfig\.Memory: expected a 64-bit integer/],
    [{ Binds: 'x' }, /^invalid JSON: HostConfig\.Binds: /],
    [{ Privileged: 'yes' }, /^invalid JSON: HostConfig\.Privileged: /],
    [{ PortBindings: { 'x/tcp': [] } }, 'invalid port specification: "x"'],
    [{ PortBindings: { '80/tcp': [{ HostPort: 'y' }] } }, 'invalid port specification: "y"'],
    [{ PortBindings: { '80/tcp': [{ HostPort: '70000' }] } }, 'invalid port specification: "70000"'],
    [{ PortBindings: { '80/tcp': [{ HostPort: '9-8' }] } }, 'invalid port specification: "9-8"'],
    [{ PortBindings: { '80/icmp': [] } }, 'invalid port specification: "80/icmp"'],
    [{ RestartPolicy: { Name: 'bogus' } }, "invalid restart policy: unknown policy 'bogus'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"],
    [{ RestartPolicy: { Name: 'always' }, AutoRemove: true }, "can't create 'AutoRemove' container with restart policy"],
    [{ RestartPolicy: { Name: 'always', MaximumRetryCount: 2 } }, "invalid restart policy: maximum retry count can only be used with 'on-failure'"],
    [{ Binds: ['/a:/b:bogus'] }, 'invalid mode: bogus'],
    [{ Binds: ['/a:/b:ro,rw'] }, 'invalid mode: ro,rw'],
    [{ Binds: ['/a:b'] }, "invalid volume specification: '/a:b': invalid mount path: 'b' mount path must be absolute"],
    [{ Binds: ['/a:/'] }, "invalid volume specification: '/a:/': invalid specification: destination can't be '/'"],
    [{ Binds: ['/a:ro'] }, "invalid volume specification: '/a:ro'"],
    [{ Binds: ['/a:/b:ro:x'] }, "invalid volume specification: '/a:/b:ro:x'"],
    [{ Binds: ['a/b:/c'] }, /includes invalid characters for a local volume name/],
    [{ Binds: ['/a:/x', '/b:/x/'] }, 'Duplicate mount point: /x'],
    [{ Mounts: [{ Type: 'bogus', Target: '/x' }] }, 'invalid mount config for type "bogus": mount type unknown'],
    [{ Mounts: [{ Type: 'bind', Target: '/x' }] }, 'invalid mount config for type "bind": field Source must not be empty'],
    [{ Mounts: [{ Type: 'tmpfs', Target: '/x', BindOptions: {} }] }, 'BindOptions must not be specified on mount type "tmpfs"'],
    [{ Mounts: [{ Type: 'volume', Source: 'v', Target: '/x', VolumeOptions: { Subpath: '../..' } }] }, /subpath must be a relative path/],
    [{ Tmpfs: { run: '' } }, /mount path must be absolute/],
    [{ ExtraHosts: ['nope'] }, 'bad format for add-host: "nope"'],
    [{ IpcMode: 'bogus' }, 'invalid IPC mode: bogus'],
    [{ PidMode: 'container:' }, 'invalid PID mode: container:'],
    [{ Isolation: 'bogus' }, /^invalid isolation "bogus": /],
    [{ Annotations: { '': 'x' } }, 'invalid Annotations: the empty string is not permitted as an annotation key'],
    [{ Ulimits: [{ Name: '../x', Soft: 1, Hard: 1 }] }, 'invalid ulimit type: ../x'],
  ])('refuses HostConfig %j', async (hostConfig, expected) => {
    const message = await refused(host(hostConfig))
    if (typeof expected === 'string') expect(message).toBe(expected)
    else expect(message).toMatch(expected)
    expect(h.engine.all.size).toBe(0)
  })

  it.each([
    [{ Env: ['=x'] }, 'invalid environment variable: =x'],
    [{ Env: [1] }, /^invalid JSON: Env\.0: /],
    [{ Cmd: 5 }, /^invalid JSON: Cmd: /],
    [{ Cmd: ['a\0b'] }, /NUL byte|Invalid input/],
    [{ WorkingDir: 'rel' }, "the working directory 'rel' is invalid, it needs to be an absolute path"],
    [{ StopSignal: 'BOGUS' }, 'Invalid signal: BOGUS'],
    [{ Healthcheck: { Interval: 5 } }, 'Interval in Healthcheck cannot be less than 1ms'],
    [{ ExposedPorts: { '80-90/tcp': {} } }, 'invalid port specification: "80-90"'],
  ])('refuses Config %j', async (config, expected) => {
    const message = await refused({ Image: 'busybox', ...config })
    if (typeof expected === 'string') expect(message).toBe(expected)
    else expect(message).toMatch(expected)
  })

  it('refuses a bad name, a bad platform, and a name in use with 409', async () => {
    expect(await refused({ Image: 'busybox' }, '?name=%2F!x')).toBe('Invalid container name (!x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed')
    expect(await refused({ Image: 'busybox' }, '?platform=a/b/c/d')).toMatch(/is an invalid OS component/)
    expect((await create({ Image: 'busybox' }, '?name=x1')).status).toBe(201)
    expect((await create({ Image: 'busybox' }, '?name=x1')).status).toBe(409)
    expect((await create({ Image: 'missing' })).status).toBe(404)
  })

  it('reads ports', async () => {
    await create(host({ PortBindings: { '80': [{ HostIp: '127.0.0.1', HostPort: '8080' }, { HostPort: '9000-9010' }], '53/UDP': null } }))
    expect(created().ports).toEqual([
      { containerPort: 80, protocol: 'tcp', hostIp: '127.0.0.1', hostPortStart: 8080, hostPortEnd: 8080 },
      { containerPort: 80, protocol: 'tcp', hostIp: '', hostPortStart: 9000, hostPortEnd: 9010 },
      { containerPort: 53, protocol: 'udp', hostIp: '', hostPortStart: 0, hostPortEnd: 0 },
    ])
    expect(Object.keys(created().hostConfig.PortBindings)).toEqual(['80/tcp', '53/udp'])
  })

  it('reads mounts from all three places', async () => {
    await create(host({
      Binds: ['/a/../b:/c/:ro,rslave', 'vol:/v:nocopy', '/anon'], Tmpfs: { '/t': 'size=1m,ro' },
      Mounts: [{ Type: 'tmpfs', Target: '/m', TmpfsOptions: { SizeBytes: 4096, Mode: 0o1777 } }, { Type: 'bind', Source: '/s', Target: '/d', BindOptions: { Propagation: 'rshared', CreateMountpoint: true } }],
    } satisfies Partial<Record<keyof HostConfig, unknown>>))
    expect(created().mounts).toEqual([
      { type: 'bind', source: '/b', target: '/c', readOnly: true, createSource: true, options: ['rslave'], from: 'Binds' },
      { type: 'volume', source: 'vol', target: '/v', readOnly: false, createSource: true, options: ['nocopy'], from: 'Binds', volume: expect.objectContaining({ noCopy: true }) },
      { type: 'volume', source: '', target: '/anon', readOnly: false, createSource: true, options: [], from: 'Binds', volume: expect.objectContaining({ noCopy: false }) },
      { type: 'tmpfs', source: '', target: '/m', readOnly: false, createSource: false, options: ['size=4096', 'mode=1777'], from: 'Mounts' },
      { type: 'bind', source: '/s', target: '/d', readOnly: false, createSource: true, options: ['rshared'], from: 'Mounts' },
      { type: 'tmpfs', source: '', target: '/t', readOnly: true, createSource: false, options: ['size=1m', 'ro'], from: 'Tmpfs' },
    ])
  })

  it('does not let a body reach the prototype of anything', async () => {
    const answer = await h.call('POST', '/containers/create', '{"Image":"busybox","Labels":{"__proto__":"x","a":"b"},"__proto__":{"Tty":true},"HostConfig":{"__proto__":{"Privileged":true}}}', { 'Content-Type': 'application/json' })
    expect(answer.status).toBe(201)
    expect(created().config.Tty).toBe(false)
    expect(created().hostConfig.Privileged).toBe(false)
    expect(({} as Record<string, unknown>).Privileged).toBeUndefined()
  })

  it('older APIs: what they do not know is not taken from them', async () => {
    await create({ Image: 'busybox', HostConfig: { Annotations: { a: 'b' }, ConsoleSize: [1, 2] } }, '?platform=linux/arm64', '/v1.39')
    expect(created()).toMatchObject({ platform: '', hostConfig: { Annotations: {}, ConsoleSize: [0, 0], IpcMode: 'shareable' } })
  })

  it('answers with warnings', async () => {
    expect((await create(host({ Isolation: 'vm' }))).json()).toEqual({ Id: expect.stringMatching(/^[0-9a-f]{64}$/) as string, Warnings: ['emulation'] })
  })
})

describe('life cycle', () => {
  it('start and stop say 204, and 304 when there is nothing to do', async () => {
    const { Id: id } = (await create({ Image: 'busybox' })).json() as { Id: string }
    expect((await h.call('POST', `/containers/${id}/stop`)).status).toBe(304)
    expect((await h.call('POST', `/containers/${id}/start`)).status).toBe(204)
    expect((await h.call('POST', `/containers/${id.slice(0, 12)}/start`)).status).toBe(304)
    expect((await h.call('POST', `/containers/${id}/start`, { Binds: [] })).status).toBe(400)
    expect((await h.call('POST', `/containers/${id}/stop?t=5&signal=SIGINT`)).status).toBe(204)
    expect(h.engine.calls.at(-1)).toEqual(['stop', { timeout: 5, signal: 2 }])
    expect((await h.call('POST', `/v1.41/containers/${id}/restart?t=-1&signal=SIGINT`)).status).toBe(204)
    expect(h.engine.calls.at(-1)).toEqual(['restart', { timeout: -1 }])
    expect((await h.call('POST', `/containers/${id}/stop?t=soon`)).status).toBe(400)
    expect((await h.call('POST', '/containers/nosuch/start')).json()).toEqual({ message: 'No such container: nosuch' })
  })

  it('kill takes names and numbers', async () => {
    const id = await h.running()
    for (const [signal, status] of [['SIGUSR1', 204], ['usr2', 204], ['15', 204], ['RTMIN+1', 204], ['0', 400], ['65', 400], ['SIGBOGUS', 400], ['RTMAX+1', 400]] as const) {
      expect([signal, (await h.call('POST', `/containers/${id}/kill?signal=${encodeURIComponent(signal)}`)).status]).toEqual([signal, status])
    }
    expect(h.engine.find(id).signals).toEqual([10, 12, 15, 35])
    await h.call('POST', `/containers/${id}/kill`)
    const again = await h.call('POST', `/containers/${id}/kill`)
    expect([again.status, again.json()]).toEqual([409, { message: `cannot kill container: ${id}: container ${id} is not running` }])
  })

  it('list: filters, limit and their errors', async () => {
    const id = await h.running({ Labels: { a: 'b' } }, '?name=web')
    const rows = (await h.call('GET', '/containers/json?size=0&limit=3')).json() as Record<string, unknown>[]
    expect(rows).toMatchObject([{ Id: id, Names: ['/web'], Image: 'busybox', State: 'running', Status: 'Up Less than a second', Labels: { a: 'b' }, HostConfig: { NetworkMode: 'default' } }])
    expect(h.engine.calls.at(-1)).toEqual(['list', { all: true, limit: 3, size: false, filters: {} }])
    const filters = encodeURIComponent(JSON.stringify({ label: { a: true, b: false }, status: ['running'] }))
    expect((await h.call('GET', `/containers/json?all=1&filters=${filters}`)).status).toBe(200)
    expect(h.engine.calls.at(-1)).toEqual(['list', { all: true, limit: 0, size: false, filters: { label: ['a'], status: ['running'] } }])
    for (const [query, expected] of [
      ['filters={', 'invalid filter'], ['filters=[]', 'invalid filter'], ['filters={"label":"x"}', 'invalid filter'], ['filters={"bogus":["x"]}', "invalid filter 'bogus'"],
      ['filters={"status":["bogus"]}', "invalid filter 'status=bogus'"], ['filters={"is-task":["maybe"]}', 'invalid filter \'is-task=["maybe"]\''],
      ['limit=many', 'invalid value for "limit": strconv.Atoi: parsing "many": invalid syntax'],
    ] as const) {
      const answer = await h.call('GET', `/containers/json?${encodeURI(query)}`)
      expect([answer.status, answer.json()]).toEqual([400, { message: expected }])
    }
  })

  it('the rest of the verbs', async () => {
    const id = await h.running({}, '?name=web')
    expect((await h.call('GET', '/containers/web/top?ps_args=-o%20pid,cmd')).json()).toEqual({ Titles: ['PID', 'CMD'], Processes: [['1', 'sh']] })
    expect(h.engine.calls.at(-1)).toEqual(['top', ['-o', 'pid,cmd']])
    expect((await h.call('GET', '/containers//web/json')).json()).toMatchObject({ Id: id })
    expect((await h.call('POST', '/containers/web/pause')).status).toBe(204)
    expect((await h.call('POST', '/containers/web/unpause')).status).toBe(204)
    expect((await h.call('POST', '/containers/web/rename?name=other')).status).toBe(204)
    expect((await h.call('POST', '/containers/other/rename')).status).toBe(400)
    expect((await h.call('POST', '/containers/other/resize?h=24&w=80')).status).toBe(200)
    expect(h.engine.find(id).size).toEqual([24, 80])
    expect((await h.call('POST', '/containers/other/resize?h=-1&w=80')).json()).toEqual({ message: 'invalid resize height "-1": value out of range' })
    expect((await h.call('POST', '/containers/other/resize?h=1')).json()).toEqual({ message: 'invalid resize width "": invalid syntax' })
    expect((await h.call('POST', '/containers/other/update', { Memory: 5, PidsLimit: -1, RestartPolicy: { Name: 'no' } })).status).toBe(200)
    expect(h.engine.calls.at(-1)).toEqual(['update', { resources: { Memory: 5, PidsLimit: 0 }, restartPolicy: { Name: 'no', MaximumRetryCount: 0 } }])
    expect((await h.call('GET', '/containers/other/hull/explain')).json()).toMatchObject({ Id: id, Name: '/other', Isolation: 'process', Sections: [{ Title: 'namespaces', Rows: [['pid', 'own']] }] })
    expect((await h.call('GET', '/containers/other/changes')).json()).toBeNull()
    expect(h.engine.calls.at(-1)).toEqual(['changes', { leaves: true }])
    expect((await h.call('GET', '/containers/other/export')).text).toBe('tar')
    const stat = await h.call('HEAD', '/containers/other/archive?path=/etc/x')
    expect(JSON.parse(Buffer.from(String(stat.headers['x-docker-container-path-stat']), 'base64').toString())).toMatchObject({ name: '/etc/x', size: 1 })
    expect((await h.call('GET', '/containers/other/archive')).status).toBe(400)
    expect((await h.call('PUT', '/containers/other/archive?path=/', 'tar')).status).toBe(501)
    expect((await h.call('POST', '/commit?container=other')).status).toBe(501)
    expect((await h.call('POST', '/containers/prune')).json()).toEqual({ ContainersDeleted: null, SpaceReclaimed: 0 })
    expect((await h.call('DELETE', '/containers/other')).status).toBe(409)
    expect((await h.call('DELETE', '/containers/other?force=1&v=1')).status).toBe(204)
    expect((await h.call('GET', '/containers/other/json')).status).toBe(404)
  })

  it('inspect has the shape that clients expect', async () => {
    const id = await h.running({ ExposedPorts: { '80': {} } })
    const body = (await h.call('GET', `/containers/${id}/json`)).json() as Record<string, Record<string, unknown>>
    expect(body).toMatchObject({
      Id: id, Path: 'sh', Args: [], State: { Status: 'running', Running: true, Pid: 42, FinishedAt: '0001-01-01T00:00:00Z' }, Driver: 'overlay2', ExecIDs: null,
      HostConfig: { Binds: null, NetworkMode: 'default', RestartPolicy: { Name: '', MaximumRetryCount: 0 }, LogConfig: { Type: '', Config: {} } },
      Config: { Image: 'busybox', Cmd: ['sh'], ExposedPorts: { '80/tcp': {} }, Entrypoint: null, Volumes: null }, NetworkSettings: { Ports: {}, IPAddress: '', Networks: {} },
      Hull: { Isolation: 'process', Accelerator: '', Warnings: [] },
    })
  })
})
