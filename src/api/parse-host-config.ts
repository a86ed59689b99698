import { posix } from 'node:path'
import { badRequest } from '../base/errors.js'
import type { HostConfig, MountConfig, MountRequest, PublishedPort } from '../engine/api-types.js'

/** An absolute path without '.', '..', doubled and trailing slashes (Go's path.Clean). */
export function cleanPath(path: string): string {
  const normal = posix.normalize(path)
  return normal.length > 1 && normal.endsWith('/') ? normal.slice(0, -1) : normal
}

const badPort = (text: string) => badRequest(`invalid port specification: ${JSON.stringify(text)}`)

function portNumber(text: string, whole: string): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65535) throw badPort(whole)
  return Number(text)
}

/** '80', '80/tcp', '53/UDP' → number and protocol. 400 in Docker's words. */
export function containerPort(key: string): { port: number; protocol: 'tcp' | 'udp' | 'sctp' } {
  const [number = '', protocol = 'tcp', ...more] = key.split('/')
  const lower = protocol.toLowerCase()
  if (more.length > 0 || (lower !== 'tcp' && lower !== 'udp' && lower !== 'sctp')) throw badPort(key)
  const port = portNumber(number, number)
  if (port === 0) throw badPort(number)
  return { port, protocol: lower }
}

/** A port key in the form in which it is stored: '80/tcp'. */
export function portKey(key: string): string {
  const { port, protocol } = containerPort(key)
  return `${port}/${protocol}`
}

/** HostConfig.PortBindings, with its keys normalised in place, as a list. An empty list of bindings is one binding to any port, as Docker has it. */
export function portsOf(host: HostConfig): PublishedPort[] {
  const result: PublishedPort[] = []
  const normal: HostConfig['PortBindings'] = {}
  for (const [key, bindings] of Object.entries(host.PortBindings)) {
    const { port, protocol } = containerPort(key)
    const all = bindings.length > 0 ? bindings : [{ HostIp: '', HostPort: '' }]
    normal[`${port}/${protocol}`] = [...(normal[`${port}/${protocol}`] ?? []), ...all]
    for (const { HostIp: hostIp, HostPort: range } of all) {
      const [first = '', last = first, ...more] = range.split('/')[0]!.split('-')
      if (more.length > 0) throw badPort(range)
      const hostPortStart = first === '' ? 0 : portNumber(first, range)
      const hostPortEnd = last === '' ? 0 : portNumber(last, range)
      if (hostPortEnd < hostPortStart) throw badPort(range)
      if (hostIp !== '' && !/^[0-9a-fA-F:.]{2,45}$/.test(hostIp)) throw badRequest(`invalid IP address: ${hostIp}`)
      result.push({ containerPort: port, protocol, hostIp, hostPortStart, hostPortEnd })
    }
  }
  host.PortBindings = normal
  return result
}

const propagations = new Set(['private', 'rprivate', 'slave', 'rslave', 'shared', 'rshared'])
const groups = [new Set(['rw', 'ro']), new Set(['z', 'Z']), propagations, new Set(['nocopy']), new Set(['consistent', 'cached', 'delegated', 'default'])]

/** A mode is valid when each of its words is known and no two are of one kind (moby, linuxValidMountMode). */
function validMode(mode: string): boolean {
  if (mode === '') return true
  const seen = new Set<number>()
  return mode.split(',').every((option) => {
    const group = groups.findIndex((words) => words.has(option))
    if (group < 0 || seen.has(group)) return false
    seen.add(group)
    return true
  })
}

/** Absolute, clean, and not the root itself. */
function target(path: string, error: (why: string) => Error): string {
  if (path === '') throw error('field Target must not be empty')
  if (!path.startsWith('/')) throw error(`invalid mount path: '${path}' mount path must be absolute`)
  const clean = cleanPath(path)
  if (clean === '/') throw error("invalid specification: destination can't be '/'")
  return clean
}

function volumeName(name: string, error: (why: string) => Error): string {
  if (name !== '' && !/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/.test(name)) {
    throw error(`create ${name}: ${JSON.stringify(name)} includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`)
  }
  return name
}

/** 'source:target:mode' (moby, volume/mounts/linux_parser.go). */
function bindOf(spec: string, driver: string): MountRequest {
  const plain = badRequest(`invalid volume specification: '${spec}'`)
  const error = (why: string) => badRequest(`invalid volume specification: '${spec}': ${why}`)
  const parts = spec.split(':')
  if (parts[0] === '' || parts.length > 3) throw plain
  if (parts.length === 2 && validMode(parts[1]!)) throw plain // '/foo:rw'; and 'x:' too
  const [source, path, mode] = parts.length === 1 ? ['', parts[0]!, ''] : [parts[0]!, parts[1]!, parts[2] ?? '']
  if (!validMode(mode)) throw badRequest(`invalid mode: ${mode}`)
  const options = mode === '' ? [] : mode.split(',').filter((option) => option !== 'rw' && option !== 'ro')
  const common = { target: target(path, error), readOnly: mode.split(',').includes('ro'), createSource: true, options, from: 'Binds' as const }
  if (source.startsWith('/')) return { type: 'bind', source: cleanPath(source), ...common }
  return {
    type: 'volume', source: volumeName(source, (why) => badRequest(why)), ...common,
    volume: { noCopy: options.includes('nocopy'), labels: {}, driver, driverOptions: {}, subpath: '' },
  }
}

function mountOf(mount: MountConfig): MountRequest {
  const error = (why: string) => badRequest(`invalid mount config for type "${mount.Type}": ${why}`)
  const stray = { bind: ['VolumeOptions', 'TmpfsOptions', 'ImageOptions'], volume: ['BindOptions', 'TmpfsOptions', 'ImageOptions'], tmpfs: ['BindOptions', 'VolumeOptions', 'ImageOptions'], image: ['BindOptions', 'VolumeOptions', 'TmpfsOptions'], npipe: [], cluster: [] } as const
  for (const field of stray[mount.Type]) if (mount[field]) throw badRequest(`${field} must not be specified on mount type "${mount.Type}"`)
  const common = { type: mount.Type, source: mount.Source, target: target(mount.Target, error), readOnly: mount.ReadOnly, createSource: false, options: [] as string[], from: 'Mounts' as const }
  if (mount.Type === 'bind') {
    if (mount.Source === '') throw error('field Source must not be empty')
    if (!mount.Source.startsWith('/')) throw error(`invalid mount path: '${mount.Source}' mount path must be absolute`)
    const bind = mount.BindOptions
    if (bind && bind.Propagation !== '' && !propagations.has(bind.Propagation)) throw error(`invalid propagation mode: ${bind.Propagation}`)
    const options = bind ? [bind.Propagation, bind.NonRecursive ? 'nonrecursive' : '', bind.ReadOnlyNonRecursive ? 'ro-nonrecursive' : '', bind.ReadOnlyForceRecursive ? 'ro-force-recursive' : ''].filter((option) => option !== '') : []
    return { ...common, source: cleanPath(mount.Source), createSource: bind?.CreateMountpoint ?? false, options }
  }
  if (mount.Type === 'volume') {
    const volume = mount.VolumeOptions
    if (mount.ReadOnly && mount.Source === '') throw error('must not set ReadOnly mode when using anonymous volumes')
    const subpath = volume?.Subpath ?? ''
    if (subpath !== '' && mount.Source === '') throw error('must not set Subpath when using anonymous volumes')
    if (subpath.startsWith('/') || subpath.split('/').includes('..')) throw error('subpath must be a relative path within the volume')
    return {
      ...common, source: volumeName(mount.Source, (why) => badRequest(why)),
      volume: { noCopy: volume?.NoCopy ?? false, labels: volume?.Labels ?? {}, driver: volume?.DriverConfig?.Name ?? '', driverOptions: volume?.DriverConfig?.Options ?? {}, subpath },
    }
  }
  if (mount.Type === 'tmpfs') {
    if (mount.Source !== '') throw error('field Source must not be specified')
    const tmpfs = mount.TmpfsOptions
    const options = (tmpfs?.Options ?? []).map(([name = '', ...value]) => {
      if (name !== 'exec' && name !== 'noexec') throw error(`invalid option: ${name}`)
      return [name, ...value].join('=')
    })
    if (tmpfs?.SizeBytes) options.push(`size=${tmpfs.SizeBytes}`)
    if (tmpfs?.Mode) {
      if (tmpfs.Mode > 0o7777) throw error('invalid tmpfs mode')
      options.push(`mode=${tmpfs.Mode.toString(8)}`)
    }
    return { ...common, options }
  }
  return common
}

/** Binds, Mounts and Tmpfs in one list. 400 for two mounts on one target ('Duplicate mount point: /x'). */
export function mountsOf(host: HostConfig): MountRequest[] {
  const result = [
    ...host.Binds.map((spec) => bindOf(spec, host.VolumeDriver)),
    ...host.Mounts.map(mountOf),
    ...Object.entries(host.Tmpfs).map(([path, options]): MountRequest => ({
      type: 'tmpfs', source: '', target: target(path, (why) => badRequest(`invalid tmpfs mount '${path}': ${why}`)), readOnly: options.split(',').includes('ro'),
      createSource: false, options: options === '' ? [] : options.split(','), from: 'Tmpfs',
    })),
  ]
  const seen = new Set<string>()
  for (const mount of result) {
    if (seen.has(mount.target)) throw badRequest(`Duplicate mount point: ${mount.target}`)
    seen.add(mount.target)
  }
  return result
}

const namespaceModes = { IpcMode: ['', 'none', 'private', 'shareable', 'host'], PidMode: ['', 'host'], CgroupnsMode: ['', 'private', 'host'], UTSMode: ['', 'host'], UsernsMode: ['', 'host'] } as const
const namespaceWords = { IpcMode: 'IPC mode', PidMode: 'PID mode', CgroupnsMode: 'cgroup namespace mode', UTSMode: 'UTS mode', UsernsMode: 'user namespace mode' } as const

/** What moby's validateHostConfig and runconfig check of the request's form, in their words. Limits and what is supported are the engine's to judge. */
export function checkHostConfig(host: HostConfig): void {
  const { Name: policy, MaximumRetryCount: retries } = host.RestartPolicy
  if (host.AutoRemove && policy !== '' && policy !== 'no') throw badRequest("can't create 'AutoRemove' container with restart policy")
  if (retries < 0) throw badRequest('invalid restart policy: maximum retry count cannot be negative')
  if (retries > 0 && policy !== 'on-failure' && policy !== '') throw badRequest("invalid restart policy: maximum retry count can only be used with 'on-failure'")
  for (const line of host.ExtraHosts) {
    const mark = line.search(/[:=]/)
    if (mark <= 0 || mark === line.length - 1) throw badRequest(`bad format for add-host: ${JSON.stringify(line)}`)
  }
  if ('' in host.Annotations) throw badRequest('invalid Annotations: the empty string is not permitted as an annotation key')
  for (const [field, known] of Object.entries(namespaceModes) as [keyof typeof namespaceModes, readonly string[]][]) {
    const mode = host[field]
    const shared = (field === 'IpcMode' || field === 'PidMode') && /^container:./.test(mode)
    if (!shared && !known.includes(mode)) throw badRequest(`invalid ${namespaceWords[field]}: ${mode}`)
  }
  if (host.IOMaximumBandwidth !== 0) throw badRequest('invalid option: QoS maximum bandwidth configuration is not supported on linux')
  if (host.IOMaximumIOps !== 0) throw badRequest('invalid option: QoS maximum IOPs configuration is not supported on linux')
  for (const { Name: name } of host.Ulimits) if (!/^[a-z]{1,20}$/.test(name)) throw badRequest(`invalid ulimit type: ${name}`)
}
