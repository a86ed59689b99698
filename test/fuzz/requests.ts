import { tar } from '../lib/tar.js'
import type { Random } from './random.js'

/** One request as it goes out. */
export interface Sent {
  method: string
  path: string
  headers: Record<string, string>
  body?: Buffer
  /** The endpoint it was made for, as the router has it. */
  endpoint: string
  /** Its answer may rightly not end by itself. */
  endless: boolean
}

/** What the requests may speak of. */
export interface World {
  image: string
  /** A directory of the host's that may be bind-mounted. */
  scratch: string
  /** Ids of execs that were made. */
  execs: string[]
}

/*
 * What is not generated, since it would do harm rather than show it: binds of anything but the scratch directory, commands that change anything, subnets of the machine's
 * own, and names of registries anywhere but on this machine's loopback (nobody listens on its port 1).
 */
const containers = ['f0', 'f1', 'f2', 'f3', 'f4', 'f5', 'f6', 'f7', 'nosuch', 'f', '%2e%2e', 'a%00b', '-', 'x'.repeat(300), '%F0%9F%98%80', 'f0%2F..%2Ff1', '__proto__', 'constructor']
const networks = ['bridge', 'host', 'none', 'n0', 'n1', 'n2', 'nosuch', 'toString', 'n%20x']
const volumes = ['v0', 'v1', 'v2', 'v3', 'nosuch', '..', '%2e%2e%2fv0', '__proto__', 'x'.repeat(300)]
const words = [
  '', '0', '1', '-1', 'true', 'no', '99999999999999999999', '1e9', 'NaN', '\0', '\n', '../../etc/passwd', '{}', '{"label":["a"]}', '{"label":{"a":true}}', '[[[', '{"__proto__":["x"]}', 'null', 'ctrl-p,ctrl-q',
  'SIGKILL', '9', 'a/b/c', 'sha256:', '😀', '<script>', "'; drop", '1700000000.999999999999999', '-', 'removed', 'next-exit', 'linux/amd64', 'x'.repeat(500), '/', '/etc', '/tmp', '/etc/passwd', '/nosuch/..', '2026-01-01T00:00:00Z',
]
const queries: Record<string, readonly string[]> = {
  filters: [
    '{"status":["running"]}', '{"status":["nosuch"]}', '{"label":["a=b"]}', '{"name":["f"]}', '{"name":["("]}', '{"id":["0"]}', '{"before":["f0"]}', '{"since":["nosuch"]}', '{"ancestor":["nosuch"]}', '{"until":["1h"]}', '{"until":["x"]}',
    '{"dangling":["true"]}', '{"dangling":["maybe"]}', '{"reference":["*"]}', '{"reference":["[["]}', '{"type":["container"]}', '{"driver":["bridge"]}', '{"exited":["0"]}', '{"health":["none"]}', '{"publish":["80"]}', '{"expose":["1-x/tcp"]}', '{"volume":["v0"]}', '{"network":["n0"]}',
  ],
  tail: ['0', '1', 'all', '-1', 'x'], limit: ['0', '1', '-1', 'x'], t: ['0', '0', '1', '-1', 'x'], h: ['24', '0', '-1', '65536', '4294967296'], w: ['80', 'x'], path: ['/', '/etc', '/etc/passwd', '/tmp', '/nosuch', '..', '\0', '/proc/1/root', '/dev/null', '/sys'],
  signal: ['SIGKILL', 'KILL', '15', '0', '-9', '65', 'RTMIN+3', 'NOSUCH'], condition: ['not-running', 'next-exit', 'removed', 'x'], name: ['f0', 'f3', 'f7', 'f9', '/f2', 'a b', ''], tag: ['1', '2', 'bad tag'], repo: ['i0', 'i1', 'Upper', 'a/b'],
  stdout: ['1'], stderr: ['1'], stream: ['0', '1'], follow: ['0'], force: ['1', '0'], v: ['1'], all: ['1'], size: ['1'], since: ['0', '1700000000', 'x'], until: ['1', '1700000000', 'x'], timestamps: ['1'], details: ['1'], logs: ['1'], stdin: ['1'],
  detachKeys: ['ctrl-p', 'ctrl-@', 'x,y', 'ctrl-'], ps_args: ['aux', '-o pid', '-o comm', '; id', '--nosuch'], changes: ['CMD ["x"]', 'ENV A=b', 'RUN x', 'LABEL', '{'], pause: ['0'], comment: ['c'], author: ['a'], container: ['f0', 'f1', 'nosuch'], verbose: ['1'],
  type: ['container', 'image', 'volume', 'build-cache', 'x'], 'one-shot': ['1'], noOverwriteDirNonDir: ['1'], copyUIDGID: ['1'], link: ['1'], names: ['test/busybox:1', 'nosuch', 'i0'], quiet: ['1'], fromSrc: ['-'], noprune: ['1'], platform: ['linux/amd64', 'x/y/z/w', 'linux'], scope: ['local'], digests: ['1'],
}
const keys = Object.keys(queries)

/** The endpoints that would ask a registry: their names are made to be of this machine's loopback. */
const asksRegistry = /\/push$|^\S+ \/distribution\/|\/images\/search$|\/images\/create$|\/auth$/

const paths = ['/data', '/etc', '/x/y', 'relative', '/', '', '/a/../b', '/proc', '/dev/shm', '/etc/resolv.conf']
const env = ['A=b', 'A', '=x', '', 'PATH=', 'X='.padEnd(3000, 'y'), 'N=\n']
const commands = [['true'], ['sleep', '3'], ['echo', 'hi'], ['nosuch'], ['sh', '-c', 'exit 3'], ['cat'], [], [''], ['/etc'], ['true', 'x'.repeat(5000)]]

function container(random: Random, world: World): Record<string, unknown> {
  const body: Record<string, unknown> = { Image: random.one(12) ? random.pick(['nosuch', '', 'a b', 'sha256:00', world.image.toUpperCase()]) : world.image, Cmd: random.pick(commands) }
  const host: Record<string, unknown> = { Isolation: random.one(40) ? 'vm' : random.pick(['process', 'process', 'default', '', 'nosuch', 'process']) }
  const config: (() => void)[] = [
    () => (body.Env = [random.pick(env), random.pick(env)]), () => (body.User = random.pick(['0', '1000:1000', 'daemon', 'nosuch', '4294967296', '-1', 'a:b:c', '\0'])), () => (body.Tty = true), () => (body.OpenStdin = true), () => (body.StdinOnce = true),
    () => (body.WorkingDir = random.pick(paths)), () => (body.Hostname = random.pick(['box', 'x'.repeat(64), '-', 'a.b', '\n'])), () => (body.Domainname = random.pick(['example.test', '..'])), () => (body.Labels = { [random.pick(words)]: random.pick(words) }),
    () => (body.Entrypoint = random.pick([['sh'], [], 'sh', [''], ['nosuch']])), () => (body.StopSignal = random.pick(['SIGINT', '0', 'x', '99'])), () => (body.StopTimeout = random.pick([0, 1, -1])), () => (body.Volumes = { [random.pick(paths)]: {} }),
    () => (body.ExposedPorts = { [random.pick(['80/tcp', '80', '0/tcp', '70000/udp', '1-5/tcp', '5-1/tcp', 'x', '80/sctp', '1-65535/tcp'])]: {} }),
    () => (body.Healthcheck = { Test: random.pick([['CMD', 'true'], ['CMD-SHELL', 'exit 1'], ['NONE'], [], ['CMD'], ['x', 'y']]), Interval: random.pick([0, 1e9, 1, -5, 1e18]), Timeout: random.pick([0, 1e9, -1]), Retries: random.pick([0, 1, -1]), StartPeriod: random.pick([0, 1e9]) }),
    () => (body.MacAddress = random.pick(['02:42:ac:11:00:02', 'x', 'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00'])), () => (body.NetworkDisabled = true), () => (body.Shell = ['sh']), () => (body.OnBuild = ['x']),
    () => (body.NetworkingConfig = { EndpointsConfig: { [random.pick(['n0', 'n1', 'bridge', 'nosuch'])]: random.pick([null, {}, { Aliases: ['a', ''] }, { IPAMConfig: { IPv4Address: random.pick(['10.215.0.9', '1.2.3.4', 'x', '::1']) } }, { Links: ['f0:x', ':'] }, { MacAddress: 'x' }]) } }),
    () => (host.Memory = random.pick([0, 6 << 20, 64 << 20, 1, -1, 2 ** 53, 2 ** 62])), () => (host.MemorySwap = random.pick([-1, 0, 1, 1 << 30])), () => (host.MemoryReservation = random.pick([0, 1, 32 << 20, 2 ** 50])), () => (host.NanoCpus = random.pick([0, 5e8, 1, -1, 1e15])),
    () => (host.CpuShares = random.pick([0, 2, 1024, -1, 1e9])), () => (host.CpuQuota = random.pick([0, 1000, 10, -1])), () => (host.CpuPeriod = random.pick([0, 1e5, 1, 1e9])), () => (host.CpusetCpus = random.pick(['0', '0-1', '99', 'x', '0-', ','])), () => (host.CpusetMems = random.pick(['0', '9'])),
    () => (host.PidsLimit = random.pick([0, -1, 10, 1, 2 ** 40])), () => (host.BlkioWeight = random.pick([0, 10, 500, 5000])), () => (host.OomKillDisable = true), () => (host.OomScoreAdj = random.pick([0, 500, 1000, 5000, -5000])), () => (host.ShmSize = random.pick([0, 1, -1, 1 << 20])),
    () => (host.Binds = [`${random.pick([`${world.scratch}/a`, `${world.scratch}/new/b`, 'v0', 'v1', 'v'])}:${random.pick(paths)}${random.pick(['', ':ro', ':rw,z', ':nosuch', ':ro,rw', ':rshared'])}`]),
    () => (host.Mounts = [{ Type: random.pick(['bind', 'volume', 'tmpfs', 'image', 'npipe', 'x']), Source: random.pick([`${world.scratch}/a`, 'v0', '', 'v1']), Target: random.pick(paths), ReadOnly: random.one(2), VolumeOptions: random.pick([null, { Subpath: random.pick(['..', 'x', '/']) }, { NoCopy: true }]), TmpfsOptions: random.pick([null, { SizeBytes: 1 << 20, Mode: 0o1777 }, { Mode: 1e12 }]) }]),
    () => (host.Tmpfs = { [random.pick(paths)]: random.pick(['', 'size=1m', 'size=-1', 'nosuch=1', 'exec,mode=0', 'size=1m,uid=x']) }), () => (host.PortBindings = { [random.pick(['80/tcp', '53/udp', '0/tcp', '99999/tcp', 'x'])]: random.pick([null, [], [{ HostIp: '127.0.0.1', HostPort: '' }], [{ HostIp: '127.0.0.1', HostPort: random.pick(['41811', '41812', '70000', 'x', '41820-41822']) }], [{ HostIp: 'x' }], [{ HostIp: '::1' }]]) }),
    () => (host.PublishAllPorts = true), () => (host.NetworkMode = random.pick(['none', 'bridge', 'default', 'host', 'n0', 'n1', 'nosuch', 'container:f0', 'container:', 'container:nosuch'])), () => (host.RestartPolicy = { Name: random.pick(['', 'no', 'on-failure', 'always', 'unless-stopped', 'x']), MaximumRetryCount: random.pick([0, 1, -1]) }),
    () => (host.AutoRemove = true), () => (host.Init = random.one(2)), () => (host.ReadonlyRootfs = true), () => (host.CapAdd = [random.pick(['ALL', 'NET_ADMIN', 'CAP_SYS_TIME', 'nosuch', ''])]), () => (host.CapDrop = [random.pick(['ALL', 'chown', 'x'])]),
    () => (host.SecurityOpt = [random.pick(['no-new-privileges', 'seccomp=unconfined', 'seccomp={}', 'seccomp=x', 'apparmor=x', 'label=disable', 'nosuch', 'no-new-privileges=maybe'])]), () => (host.Sysctls = { [random.pick(['net.core.somaxconn', 'kernel.shmmax', 'kernel.panic', 'x', '../x'])]: random.pick(['1', '128', 'x']) }),
    () => (host.Ulimits = [{ Name: random.pick(['nofile', 'nproc', 'x']), Soft: random.pick([1, 100, -1, 1e12]), Hard: random.pick([100, 10, -1]) }]), () => (host.Devices = [{ PathOnHost: random.pick(['/dev/null', '/dev/nosuch']), PathInContainer: random.pick(['/dev/x', 'x', '/dev/null']), CgroupPermissions: random.pick(['rwm', 'r', 'x']) }]),
    () => (host.DeviceCgroupRules = [random.pick(['c 1:3 r', 'x', 'a *:* rwm'])]), () => (host.ExtraHosts = [random.pick(['a:1.2.3.4', 'a', ':', 'a:x', 'b:host-gateway'])]), () => (host.Dns = [random.pick(['127.0.0.1', 'x'])]), () => (host.DnsSearch = [random.pick(['a', '.', '\n'])]), () => (host.DnsOptions = [random.pick(['ndots:1', '\n'])]),
    () => (host.GroupAdd = [random.pick(['1', 'daemon', 'nosuch', '-1'])]), () => (host.IpcMode = random.pick(['private', 'none', 'shareable', 'host', 'container:f0', 'x'])), () => (host.PidMode = random.pick(['', 'container:f0', 'container:nosuch', 'x'])), () => (host.UTSMode = random.pick(['', 'x'])), () => (host.UsernsMode = random.pick(['', 'host', 'x'])),
    () => (host.CgroupnsMode = random.pick(['private', 'host', 'x'])), () => (host.CgroupParent = random.pick(['fuzz-parent', '/fuzz-parent/x', '../../x', 'a b'])), () => (host.LogConfig = { Type: random.pick(['json-file', 'none', 'local', 'syslog', 'x']), Config: random.pick([{}, { 'max-size': '1k' }, { 'max-size': 'x' }, { 'max-file': '0' }, { nosuch: '1' }]) }),
    () => (host.Runtime = random.pick(['crun', 'nosuch', '../x', '/bin/true'])), () => (host.Links = [random.pick(['f0:x', 'nosuch', ':', 'f0'])]), () => (host.VolumesFrom = [random.pick(['f0', 'f1:ro', 'nosuch', 'f0:x'])]), () => (host.VolumeDriver = random.pick(['local', 'x'])), () => (host.StorageOpt = { size: '1g' }), () => (host.ConsoleSize = random.pick([[24, 80], [0], ['x', 1], [-1, 1]])),
    () => (host.MaskedPaths = random.pick([[], ['/proc/x'], ['..'], ['relative']])), () => (host.ReadonlyPaths = random.pick([[], ['/nosuch'], ['relative']])), () => (host.Annotations = { a: 'b', '': '' }), () => (host.ContainerIDFile = '/x'),
  ]
  for (let n = random.below(5); n > 0; n--) random.pick(config)()
  return { ...body, HostConfig: host }
}

/** A body that the endpoint would take, more or less. */
function plausible(random: Random, world: World, endpoint: string): unknown {
  if (endpoint === 'POST /containers/create') return container(random, world)
  if (endpoint.endsWith('/update')) return { ...(container(random, world).HostConfig as object), RestartPolicy: { Name: random.pick(['no', 'on-failure', 'x']), MaximumRetryCount: 1 } }
  if (endpoint.endsWith('/exec')) return { Cmd: random.pick(commands), AttachStdout: random.one(2), AttachStdin: random.one(3), Tty: random.one(3), User: random.pick(['', '1000', 'nosuch']), Env: [random.pick(env)], WorkingDir: random.pick(paths), Privileged: random.one(5), DetachKeys: random.pick(['', 'ctrl-x', 'x']) }
  if (endpoint.startsWith('POST /exec/')) return { Detach: random.one(2), Tty: random.one(3), ConsoleSize: random.pick([null, [1, 2], [1], 'x']) }
  if (endpoint === 'POST /networks/create') {
    const config = { Subnet: random.pick(['10.215.0.0/24', '10.215.1.0/28', '10.215.2.0/31', 'fd00:215::/64', 'x', '10.215.0.0/99', '']), Gateway: random.pick(['', '10.215.0.1', '10.99.0.1', 'x']), IPRange: random.pick(['', '10.215.0.128/25', '1.1.1.0/24']) }
    return { Name: random.pick(['n0', 'n1', 'n2', '', 'a/b', 'host', 'n'.repeat(300), '\0', '__proto__']), Driver: random.pick(['bridge', '', 'host', 'macvlan', 'x']), Internal: random.one(3), EnableIPv6: random.one(4), Labels: { a: 'b' }, CheckDuplicate: random.one(2), Options: random.pick([{}, { 'com.docker.network.bridge.name': 'x'.repeat(30) }, { nosuch: '1' }]), IPAM: random.pick([null, { Driver: random.pick(['default', 'x']), Config: random.one(3) ? [] : [config] }]) }
  }
  if (endpoint.endsWith('connect')) return { Container: random.pick(['f0', 'f1', 'f2', 'nosuch', '']), Force: random.one(2), EndpointConfig: random.pick([null, {}, { Aliases: ['x', ''] }, { IPAMConfig: { IPv4Address: random.pick(['10.215.0.77', 'x']) } }]) }
  if (endpoint === 'POST /volumes/create') return { Name: random.pick(['v0', 'v1', 'v2', '', 'a/b', '..', 'x'.repeat(300)]), Driver: random.pick(['local', '', 'x']), DriverOpts: random.pick([{}, { type: 'tmpfs', device: 'tmpfs' }, { o: 'size=x' }, { nosuch: '1' }]), Labels: { a: 'b' } }
  if (endpoint === 'POST /auth') return { username: random.pick(['u', '']), password: 'p', serveraddress: '127.0.0.1:1' }
  return random.pick([{}, null, [], { a: 1 }])
}

/** Any JSON at all. */
function anything(random: Random, depth: number): unknown {
  switch (random.below(depth > 3 ? 6 : 9)) {
    case 0: return null
    case 1: return random.one(2)
    case 2: return random.pick([0, -1, 1.5, 1e308, 2 ** 53, -(2 ** 63), 80])
    case 3: case 4: return random.pick(words)
    case 5: return random.one(2) ? [] : {}
    case 6: return Array.from({ length: random.below(4) }, () => anything(random, depth + 1))
    default: return Object.fromEntries(Array.from({ length: random.below(5) }, () => [random.pick([...words, 'Image', 'Cmd', 'HostConfig', 'Name', '__proto__']), anything(random, depth + 1)]))
  }
}

/** Turns something inside a value into something else. Names of images, hosts and paths of the host's are left as they are, for the reason given above. */
function mutate(random: Random, value: unknown): unknown {
  if (Array.isArray(value)) {
    if (value.length === 0 || random.one(4)) return anything(random, 3)
    const at = random.below(value.length)
    return value.map((item, index) => (index === at ? mutate(random, item) : item))
  }
  if (typeof value === 'object' && value !== null) {
    const fields = Object.keys(value).filter((field) => !['Binds', 'Mounts', 'Image', 'serveraddress', 'IPAM', 'Devices'].includes(field))
    if (fields.length === 0) return value
    const field = random.pick(fields)
    return { ...value, [field]: random.one(3) ? anything(random, 2) : mutate(random, (value as Record<string, unknown>)[field]) }
  }
  return anything(random, 3)
}

const archives = [Buffer.alloc(0), Buffer.alloc(1024), Buffer.from('no tar at all'), tar([{ name: 'x', content: 'y' }]), tar([{ name: '../x', content: 'y' }, { name: '/abs', type: 'symlink', link: '/etc' }]), tar([{ name: 'manifest.json', content: '[{"Config":"x","Layers":["../y"]}]' }]), tar([{ name: 'Dockerfile', content: 'NOSUCH\n' }])]

/** Request number `index` of a run. */
export function makeRequest(random: Random, world: World, endpoints: readonly string[]): Sent {
  const endpoint = random.one(4) ? 'POST /containers/create' : random.pick(endpoints)
  const [usual = 'GET', pattern = '/'] = endpoint.split(' ')
  const registry = asksRegistry.test(endpoint)
  const object = (name: string): string => {
    if (registry) return random.pick(['127.0.0.1:1/a', '127.0.0.1:1/a/b:1', '127.0.0.1:1/A'])
    if (name === ':name' && pattern.startsWith('/images')) return random.pick([world.image, 'i0:1', 'i1', 'nosuch', 'a/b/c', 'sha256:', 'Upper', '%2e%2e', '@', 'a@sha256:00', '__proto__'])
    if (pattern.startsWith('/networks')) return random.pick(networks)
    if (pattern.startsWith('/volumes')) return random.pick(volumes)
    if (pattern.startsWith('/exec')) return random.pick([...world.execs.slice(-5), 'nosuch', '-', '%00'])
    return random.pick(containers)
  }
  let path = pattern.replace(/:\w+/g, (name) => object(name)).replace('*', 'x')
  const query: [string, string][] = []
  for (let n = random.below(5); n > 0; n--) {
    const key = random.pick(keys)
    query.push([key, random.one(4) ? random.pick(words) : random.pick(queries[key]!)])
  }
  if (endpoint === 'POST /containers/create' && random.one(2)) query.push(['name', `f${random.below(8)}`])
  if (/\/logs$|\/attach$/.test(pattern)) query.push(['stdout', '1'])
  if (registry) query.splice(0, query.length, ...query.filter(([key]) => !['term', 'fromImage', 'fromSrc', 'repo', 'tag'].includes(key)))
  if (pattern === '/images/create') query.unshift(random.one(2) ? ['fromImage', `127.0.0.1:1/${random.pick(['a', 'A', 'a/b'])}`] : ['fromSrc', '-'])
  if (pattern === '/images/search') query.unshift(['term', '127.0.0.1:1/x'])
  if (pattern === '/events' && !random.one(4)) query.push(['until', '1'])
  const version = random.pick(['', '', '', '/v1.47', '/v1.41', '/v1.24', '/v1.30', '/v9.9', '/v1.x', '/v1.'])
  // The search and pull of names that are not on loopback would leave the machine.
  const safe = query.filter(([key]) => !(pattern === '/build' && ['remote', 'pull'].includes(key)))
  const method = random.one(12) && !registry ? random.pick(['GET', 'POST', 'DELETE', 'PUT', 'HEAD', 'PATCH', 'OPTIONS']) : usual
  const headers: Record<string, string> = {}
  let body: Buffer | undefined
  if (['POST', 'PUT', 'PATCH', 'DELETE'].includes(method) && !(method === 'DELETE' && random.one(2))) {
    const archive = /archive$|load$|build$/.test(pattern) || (pattern === '/images/create' && safe.some(([key, value]) => key === 'fromSrc' && value === '-'))
    if (archive) {
      body = random.pick(archives)
      headers['content-type'] = random.pick(['application/x-tar', 'application/json', ''])
    } else {
      const value = registry ? plausible(random, world, endpoint) : random.one(3) ? mutate(random, plausible(random, world, endpoint)) : random.one(8) ? anything(random, 0) : plausible(random, world, endpoint)
      let text = JSON.stringify(value)
      if (!registry && random.one(12)) text = text.slice(0, random.below(text.length + 1))
      if (!registry && random.one(20)) text = random.pick(['', 'null', '"x"', '[]', '{"a":', `{"a":"${'x'.repeat(100_000)}"}`, '['.repeat(5000), '{"Image":"a","Image":"b"}', '\ufeff{}', '{"__proto__":{"x":1}}'])
      body = Buffer.from(text)
      headers['content-type'] = random.one(15) ? random.pick(['text/plain', '', 'application/json; charset=utf-8', 'APPLICATION/JSON', 'application/x-tar']) : 'application/json'
    }
  }
  if (headers['content-type'] === '') delete headers['content-type']
  if (random.one(15)) headers['x-registry-auth'] = random.pick(['e30=', 'x', '', Buffer.from('{"username":"u","password":"p"}').toString('base64'), 'bnVsbA==', '[]'])
  if (random.one(25)) headers['x-registry-config'] = random.pick(['e30=', 'x', 'W10='])
  if (random.one(20)) Object.assign(headers, { connection: 'Upgrade', upgrade: random.pick(['tcp', 'h2c', 'websocket']) })
  if (random.one(30)) headers.expect = '100-continue'
  if (random.one(30)) path = path.replace('/', random.pick(['//', '/./', '/%2e/', '/%', '/%zz/']))
  const search = safe.map(([key, value]) => `${encodeURIComponent(key)}=${!registry && random.one(30) ? '%' : encodeURIComponent(value)}`).join('&')
  // Raw bytes in a URL are Node's to refuse, on the client's side already.
  const url = `${version}${path}${search === '' ? '' : `?${search}`}`.replace(/[^\x21-\x7e]/g, '')
  const endless = /\/(events|logs|attach|stats|wait|session|grpc)$|^\/exec\/.*\/start$/.test(pattern) || headers.upgrade !== undefined
  return { method, path: url, headers, ...(body ? { body } : {}), endpoint, endless }
}
