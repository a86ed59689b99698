import { readFile } from 'node:fs/promises'
import { hostname as hostHostname } from 'node:os'
import { join } from 'node:path'
import { badRequest } from '../base/errors.js'
import { readNowIfExists } from '../base/files.js'
import type { ImageRoot } from '../image/types.js'
import { maskedPaths, readonlyPaths } from '../sandbox/hidden-paths.js'
import type { MountSpec, Resources, SandboxNetwork, WorkloadSpec } from '../sandbox/types.js'
import type { HostConfig } from './api-types.js'
import { parseSecurityOptions } from './checks.js'
import { logLimits } from './log-config.js'
import { namespaceChoice } from './namespaces.js'
import { diskSize } from './storage-opt.js'
import type { ContainerRecord } from './store.js'

/** Docker's PATH for a container whose image sets none (moby system.DefaultPathEnv). */
const defaultPath = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Where the engine keeps things; from the daemon's flags. */
export interface SpecPaths {
  containersDir: string
  execRoot: string
  cgroupParent: string
  /** For process isolation, where the user names none. */
  defaultRuntime: string
}

/** The host's resolvers without those that only the host itself can reach (libnetwork resolvconf.FilterResolvDNS). */
export function hostResolvers(): { nameservers: string[]; rest: string[] } {
  let text = readNowIfExists('/etc/resolv.conf') ?? ''
  // systemd-resolved's stub is on the host's loopback; its real upstream servers stand in another file.
  if (/^nameserver\s+127\.0\.0\.53/m.test(text)) text = readNowIfExists('/run/systemd/resolve/resolv.conf') ?? text
  const nameservers: string[] = []
  const rest: string[] = []
  for (const line of text.split('\n')) {
    const server = /^nameserver\s+(\S+)/.exec(line)
    if (server) nameservers.push(server[1]!)
    else if (/^(search|domain|options)\s/.test(line)) rest.push(line.trim())
  }
  return { nameservers, rest }
}

/** /etc/resolv.conf. `nameServer`: the gateway that answers for names, '' for the host's resolvers. */
export async function resolvConf(host: HostConfig, networkMode: SandboxNetwork['mode'], nameServer: string): Promise<string> {
  const found = hostResolvers()
  if (nameServer !== '') return namesResolvConf(host, nameServer, found.rest)
  let servers = host.Dns.length > 0 ? host.Dns : found.nameservers
  if (networkMode !== 'host' && host.Dns.length === 0) {
    servers = servers.filter((server) => !server.startsWith('127.') && server !== '::1')
    if (servers.length === 0) servers = ['8.8.8.8', '8.8.4.4']
  }
  const lines = servers.map((server) => `nameserver ${server}`)
  const search = host.DnsSearch.filter((domain) => domain !== '.')
  if (search.length > 0) lines.push(`search ${search.join(' ')}`)
  else if (host.DnsSearch.length === 0) lines.push(...found.rest.filter((line) => !line.startsWith('options')))
  if (host.DnsOptions.length > 0) lines.push(`options ${host.DnsOptions.join(' ')}`)
  else lines.push(...found.rest.filter((line) => line.startsWith('options')))
  return lines.join('\n') + '\n'
}

/** As Docker writes it on user-defined networks: its own name server alone, and names without a dot go there as they are. */
function namesResolvConf(host: HostConfig, nameServer: string, rest: readonly string[]): string {
  const lines = [`nameserver ${nameServer}`]
  const search = host.DnsSearch.filter((domain) => domain !== '.')
  if (search.length > 0) lines.push(`search ${search.join(' ')}`)
  else if (host.DnsSearch.length === 0) lines.push(...rest.filter((line) => !line.startsWith('options')))
  const options = host.DnsOptions.length > 0 ? host.DnsOptions : rest.filter((line) => line.startsWith('options')).flatMap((line) => line.split(/\s+/).slice(1))
  lines.push(`options ${[...options, ...(options.some((option) => option.startsWith('ndots:')) ? [] : ['ndots:0'])].join(' ')}`)
  return lines.join('\n') + '\n'
}

/** A line of /etc/hosts for one of the container's own addresses. */
export function endpointHostsLine(address: string, { config }: Pick<ContainerRecord, 'config'>): string {
  const { Hostname: hostname, Domainname: domainname } = config
  return `${address}\t${domainname ? `${hostname}.${domainname} ` : ''}${hostname}`
}

function hostsFile(record: ContainerRecord, place: NetworkPlace): string {
  const lines = [
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
    'fe00::0\tip6-localnet',
    'ff00::0\tip6-mcastprefix',
    'ff02::1\tip6-allnodes',
    'ff02::2\tip6-allrouters',
  ]
  for (const extra of record.hostConfig.ExtraHosts) {
    const separator = /[:=]/.exec(extra)
    if (!separator) throw badRequest(`invalid host entry "${extra}": want NAME:ADDRESS`)
    const name = extra.slice(0, separator.index)
    const address = extra.slice(separator.index + 1).replace(/^\[(.*)\]$/, '$1')
    lines.push(`${address === 'host-gateway' ? place.hostGateway : address}\t${name}`)
  }
  lines.push(...(place.linkHosts ?? []))
  for (const address of place.hosts) lines.push(endpointHostsLine(address, record))
  return lines.join('\n') + '\n'
}

function mountsOf(record: ContainerRecord, execRoot: string): MountSpec[] {
  return record.mounts.map((mount, index) => ({
    type: mount.type,
    // A part of a volume was found and bound by Volumes.mount; by its name it could be another by now.
    source: mount.subpath ? join(execRoot, 'volumes', record.id, String(index)) : mount.source,
    target: mount.target,
    readOnly: mount.readOnly,
    options: mount.options,
  }))
}

/** HostConfig's limits in the sandbox's words. */
export function resourcesOf(host: HostConfig): Resources {
  return {
    memory: host.Memory,
    memorySwap: host.MemorySwap,
    memoryReservation: host.MemoryReservation,
    nanoCpus: host.NanoCpus,
    cpuShares: host.CpuShares,
    cpuPeriod: host.CpuPeriod,
    cpuQuota: host.CpuQuota,
    cpusetCpus: host.CpusetCpus,
    cpusetMems: host.CpusetMems,
    pidsLimit: host.PidsLimit ?? 0,
    ulimits: host.Ulimits.map(({ Name, Soft, Hard }) => ({ name: Name, soft: Soft, hard: Hard })),
    oomKillDisable: host.OomKillDisable ?? false,
    oomScoreAdj: host.OomScoreAdj,
    blkioWeight: host.BlkioWeight,
    ...blkioDevices(host),
    ...(host.MemorySwappiness === null || host.MemorySwappiness === -1 ? {} : { memorySwappiness: host.MemorySwappiness }),
  }
}

function blkioDevices(host: HostConfig): Pick<Resources, 'blkioDevices'> {
  const throttle = (list: HostConfig['BlkioDeviceReadBps']) => list.map(({ Path, Rate }) => ({ path: Path, rate: Rate }))
  const limits = {
    weight: host.BlkioWeightDevice.map(({ Path, Weight }) => ({ path: Path, weight: Weight })),
    readBps: throttle(host.BlkioDeviceReadBps), writeBps: throttle(host.BlkioDeviceWriteBps),
    readIops: throttle(host.BlkioDeviceReadIOps), writeIops: throttle(host.BlkioDeviceWriteIOps),
  }
  return Object.values(limits).some((list) => list.length > 0) ? { blkioDevices: limits } : {}
}

/** Which kind of network a container has: its own namespace on bridged networks, or none, the host's or another container's. */
export function networkModeOf(record: Pick<ContainerRecord, 'hostConfig' | 'config'>): 'none' | 'host' | 'container' | 'bridge' {
  if (record.config.NetworkDisabled) return 'none'
  const mode = record.hostConfig.NetworkMode
  if (mode.startsWith('container:')) return 'container'
  return mode === 'none' || mode === 'host' ? mode : 'bridge'
}

/** argv: entrypoint, then command. */
export function commandOf(record: Pick<ContainerRecord, 'config'>): string[] {
  return [...(record.config.Entrypoint ?? []), ...(record.config.Cmd ?? [])]
}

/** The network's part of a workload's specification. */
export interface NetworkPlace {
  /** What `host-gateway` means in --add-host. */
  hostGateway: string
  network: SandboxNetwork
  /** The container's own addresses, for /etc/hosts. */
  hosts: string[]
  /** Lines for /etc/hosts, and variables, from --link on the default bridge. */
  linkHosts?: string[]
  env: string[]
  /** '' : the host's resolvers. */
  nameServer: string
  /** --network container:ID: the other's files. */
  shared?: { hosts: string; hostname: string; resolvConf: string }
}

/** Everything that a sandbox has to know, from the record on disk and the addresses of this start. */
export async function workloadSpec(
  record: ContainerRecord,
  root: ImageRoot,
  paths: SpecPaths,
  place: NetworkPlace,
): Promise<WorkloadSpec> {
  const { config, hostConfig: host } = record
  const { network, shared } = place
  const mode = networkModeOf(record)
  const hostname = config.Hostname || shared?.hostname || (mode === 'host' || host.UTSMode === 'host' ? hostHostname() : record.id.slice(0, 12))
  const namespaces = namespaceChoice(host)
  const env = [...place.env, ...config.Env]
  const has = (name: string) => env.some((line) => line.startsWith(`${name}=`))
  const base: string[] = []
  if (!has('PATH')) base.push(defaultPath)
  if (!has('HOSTNAME')) base.push(`HOSTNAME=${hostname}`)
  if (config.Tty && !has('TERM')) base.push('TERM=xterm')
  const security = parseSecurityOptions(host.SecurityOpt, host.Privileged)
  const directory = join(paths.containersDir, record.id)
  const [rows, columns] = host.ConsoleSize
  const limits = logLimits(host.LogConfig)
  const disk = diskSize(host.StorageOpt, record.isolation)
  return {
    id: record.id,
    name: record.name,
    process: {
      args: commandOf(record),
      env: [...base, ...env],
      cwd: config.WorkingDir || '/',
      user: config.User,
      groupAdd: host.GroupAdd,
      tty: config.Tty,
      ...(rows > 0 && columns > 0 ? { consoleSize: [rows, columns] as [number, number] } : {}),
      privileged: host.Privileged,
    },
    openStdin: config.OpenStdin,
    stdinOnce: config.StdinOnce,
    hostname,
    domainname: config.Domainname,
    layers: root.layers,
    chainId: root.chainId,
    readOnlyRootfs: host.ReadonlyRootfs,
    ephemeral: host.AutoRemove,
    ...(disk === undefined ? {} : { diskBytes: disk }),
    mounts: mountsOf(record, paths.execRoot),
    resources: resourcesOf(host),
    network,
    init: host.Init ?? false,
    privileged: host.Privileged,
    capAdd: host.CapAdd,
    capDrop: host.CapDrop,
    noNewPrivileges: security.noNewPrivileges,
    seccomp: security.seccomp,
    sysctls: host.Sysctls,
    ...(namespaces ? { namespaces } : {}),
    devices: host.Devices.map(({ PathOnHost, PathInContainer, CgroupPermissions }) => ({ hostPath: PathOnHost, path: PathInContainer, permissions: CgroupPermissions })),
    deviceRules: host.DeviceCgroupRules,
    annotations: host.Annotations,
    shmSize: host.ShmSize,
    files: {
      hosts: shared?.hosts ?? (mode === 'host' ? await readFile('/etc/hosts', 'utf8') : hostsFile(record, place)),
      hostname: `${hostname}\n`,
      resolvConf: shared?.resolvConf ?? (await resolvConf(host, network.mode, place.nameServer)),
    },
    ...(record.idMap ? { idMap: record.idMap } : {}),
    runtime: host.Runtime || (record.isolation === 'process' ? paths.defaultRuntime : ''),
    maskedPaths: host.MaskedPaths ?? (host.Privileged ? [] : maskedPaths),
    readonlyPaths: host.ReadonlyPaths ?? (host.Privileged ? [] : readonlyPaths),
    cgroupParent: host.CgroupParent || paths.cgroupParent,
    logPath: host.LogConfig.Type === 'none' ? '' : join(directory, 'container.log'),
    ...(limits ? { logLimits: limits } : {}),
    stateDir: directory,
    runDir: join(paths.execRoot, 'containers', record.id),
  }
}
