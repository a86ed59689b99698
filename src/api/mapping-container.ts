import type {
  ContainerConfig, ContainerDetails, ContainerState, ContainerSummary, EndpointInfo, ExecDetails, MountPoint, PortInfo, StatsSample,
} from '../engine/api-types.js'
import { humanDuration, timeText, unixSeconds, zeroTime } from './time.js'

/** The words in the STATUS column of `docker ps` (moby, container/state.go). */
export function statusText(summary: Pick<ContainerSummary, 'status' | 'exitCode' | 'startedAt' | 'finishedAt' | 'health'>, now = Date.now()): string {
  const since = (date: Date | undefined) => humanDuration(date ? Math.max(0, now - date.getTime()) : 0)
  switch (summary.status) {
    case 'running': {
      const health = summary.health === undefined ? '' : summary.health === 'starting' ? ' (health: starting)' : ` (${summary.health})`
      return `Up ${since(summary.startedAt)}${health}`
    }
    case 'paused':
      return `Up ${since(summary.startedAt)} (Paused)`
    case 'restarting':
      return `Restarting (${summary.exitCode}) ${since(summary.finishedAt)} ago`
    case 'removing':
      return 'Removal In Progress'
    case 'dead':
      return 'Dead'
    case 'created':
      return 'Created'
    case 'exited':
      return summary.finishedAt ? `Exited (${summary.exitCode}) ${since(summary.finishedAt)} ago` : ''
  }
}

const endpointJson = (info: EndpointInfo) => ({
  IPAMConfig:
    info.requestedAddress === '' && info.requestedAddress6 === ''
      ? null
      : { ...(info.requestedAddress === '' ? {} : { IPv4Address: info.requestedAddress }), ...(info.requestedAddress6 === '' ? {} : { IPv6Address: info.requestedAddress6 }) },
  Links: info.links.length > 0 ? info.links : null,
  Aliases: info.aliases.length > 0 ? info.aliases : null,
  MacAddress: info.mac,
  DriverOpts: Object.keys(info.driverOptions).length > 0 ? info.driverOptions : null,
  NetworkID: info.networkId,
  EndpointID: info.endpointId,
  Gateway: info.gateway,
  IPAddress: info.ipAddress,
  IPPrefixLen: info.prefixLength,
  IPv6Gateway: info.ipv6.gateway,
  GlobalIPv6Address: info.ipv6.address,
  GlobalIPv6PrefixLen: info.ipv6.prefixLength,
  DNSNames: info.dnsNames.length > 0 ? info.dnsNames : null,
})

const networksJson = (networks: Record<string, EndpointInfo>) =>
  Object.fromEntries(Object.entries(networks).map(([name, info]) => [name, endpointJson(info)]))

const mountJson = (mount: MountPoint) => ({
  Type: mount.type,
  ...(mount.name === '' ? {} : { Name: mount.name }),
  Source: mount.source,
  Destination: mount.destination,
  ...(mount.driver === '' ? {} : { Driver: mount.driver }),
  Mode: mount.mode,
  RW: mount.rw,
  Propagation: mount.propagation,
})

/** Docker's form of a command: arguments with blanks in single quotes. */
const commandText = (words: string[]): string => words.map((word, index) => (index > 0 && word.includes(' ') ? `'${word}'` : word)).join(' ')

/** A row of GET /containers/json. */
export function summaryJson(summary: ContainerSummary, minor: number, now?: number): object {
  return {
    Id: summary.id,
    Names: [`/${summary.name}`],
    Image: summary.image,
    ImageID: summary.imageId,
    Command: commandText(summary.command),
    Created: unixSeconds(summary.created),
    Ports: summary.ports.map((port) => ({
      ...(port.hostIp === '' ? {} : { IP: port.hostIp }),
      PrivatePort: port.containerPort,
      ...(port.hostPort === 0 ? {} : { PublicPort: port.hostPort }),
      Type: port.protocol,
    })),
    ...(summary.sizeRw === undefined ? {} : { SizeRw: summary.sizeRw }),
    ...(summary.sizeRootFs === undefined ? {} : { SizeRootFs: summary.sizeRootFs }),
    Labels: summary.labels,
    State: summary.status,
    Status: statusText(summary, now),
    HostConfig: { NetworkMode: summary.networkMode, ...(minor >= 46 ? { Annotations: summary.annotations } : {}) },
    NetworkSettings: { Networks: networksJson(summary.networks) },
    Mounts: summary.mounts.map(mountJson),
  }
}

/** 'NetworkSettings.Ports': exposed ports without a host port are null. */
function portsJson(ports: PortInfo[]): Record<string, { HostIp: string; HostPort: string }[] | null> {
  const result: Record<string, { HostIp: string; HostPort: string }[] | null> = {}
  for (const port of ports) {
    const key = `${port.containerPort}/${port.protocol}`
    if (port.hostPort === 0) result[key] ??= null
    else (result[key] ??= []).push({ HostIp: port.hostIp, HostPort: String(port.hostPort) })
  }
  return result
}

function stateJson(state: ContainerState): object {
  const { status } = state
  return {
    Status: status,
    Running: status === 'running' || status === 'paused' || status === 'restarting',
    Paused: status === 'paused',
    Restarting: status === 'restarting',
    OOMKilled: state.oomKilled,
    Dead: status === 'dead',
    Pid: state.pid,
    ExitCode: state.exitCode,
    Error: state.error,
    StartedAt: timeText(state.startedAt),
    FinishedAt: timeText(state.finishedAt),
    ...(state.health
      ? {
          Health: {
            Status: state.health.status,
            FailingStreak: state.health.failingStreak,
            Log: state.health.log.map((entry) => ({ Start: timeText(entry.start), End: timeText(entry.end), ExitCode: entry.exitCode, Output: entry.output })),
          },
        }
      : {}),
  }
}

/** Null where Docker writes null for an empty list or map. */
const orNull = <T>(list: T[]): T[] | null => (list.length > 0 ? list : null)
const orNullMap = <T>(map: Record<string, T>): Record<string, T> | null => (Object.keys(map).length > 0 ? map : null)

/** Docker leaves out what is zero. */
function healthcheckJson(check: ContainerConfig['Healthcheck']): object | undefined {
  return check ? Object.fromEntries(Object.entries(check).filter(([, value]) => value !== 0 && !(Array.isArray(value) && value.length === 0))) : undefined
}

/** GET /containers/{id}/json. */
export function detailsJson(details: ContainerDetails, minor: number): object {
  const { hostConfig: host, config } = details
  // Docker's top-level address fields are those of the network named by NetworkMode, for clients from before there were several.
  // (Since Docker 1.9: the default bridge's, empty for containers that are not on it.)
  const main = details.networks.bridge
  return {
    Id: details.id,
    Created: timeText(details.created),
    Path: details.path,
    Args: details.args,
    State: stateJson(details.state),
    Image: details.imageId,
    ResolvConfPath: details.resolvConfPath,
    HostnamePath: details.hostnamePath,
    HostsPath: details.hostsPath,
    LogPath: details.logPath,
    Name: `/${details.name}`,
    RestartCount: details.restartCount,
    Driver: details.storage.driver,
    Platform: details.platform,
    MountLabel: '',
    ProcessLabel: '',
    AppArmorProfile: details.appArmorProfile,
    ExecIDs: orNull(details.execIds),
    HostConfig: {
      ...host,
      Binds: orNull(host.Binds),
      VolumesFrom: orNull(host.VolumesFrom),
      CapAdd: orNull(host.CapAdd),
      CapDrop: orNull(host.CapDrop),
      ExtraHosts: orNull(host.ExtraHosts),
      GroupAdd: orNull(host.GroupAdd),
      Links: orNull(host.Links),
      SecurityOpt: orNull(host.SecurityOpt),
      StorageOpt: orNullMap(host.StorageOpt),
      Sysctls: orNullMap(host.Sysctls),
      Annotations: minor >= 43 ? host.Annotations : undefined,
      Tmpfs: Object.keys(host.Tmpfs).length > 0 ? host.Tmpfs : undefined,
      Mounts: host.Mounts.length > 0 ? host.Mounts : undefined,
      Init: host.Init ?? undefined,
      DeviceCgroupRules: orNull(host.DeviceCgroupRules),
      DeviceRequests: orNull(host.DeviceRequests),
      BlkioDeviceReadBps: orNull(host.BlkioDeviceReadBps),
      BlkioDeviceWriteBps: orNull(host.BlkioDeviceWriteBps),
      BlkioDeviceReadIOps: orNull(host.BlkioDeviceReadIOps),
      BlkioDeviceWriteIOps: orNull(host.BlkioDeviceWriteIOps),
    },
    GraphDriver: { Name: details.storage.driver, Data: details.storage.data },
    ...(details.sizeRw === undefined ? {} : { SizeRw: details.sizeRw }),
    ...(details.sizeRootFs === undefined ? {} : { SizeRootFs: details.sizeRootFs }),
    Mounts: details.mounts.map(mountJson),
    Config: {
      ...config,
      ExposedPorts: Object.keys(config.ExposedPorts).length > 0 ? config.ExposedPorts : undefined,
      Volumes: orNullMap(config.Volumes),
      OnBuild: orNull(config.OnBuild),
      Healthcheck: healthcheckJson(config.Healthcheck),
      ArgsEscaped: config.ArgsEscaped || undefined,
      NetworkDisabled: config.NetworkDisabled || undefined,
      MacAddress: config.MacAddress || undefined,
      StopSignal: config.StopSignal || undefined,
      StopTimeout: config.StopTimeout ?? undefined,
      Shell: config.Shell.length > 0 ? config.Shell : undefined,
    },
    NetworkSettings: {
      Bridge: '',
      SandboxID: details.sandboxKey === '' ? '' : details.id,
      SandboxKey: details.sandboxKey,
      Ports: portsJson(details.ports),
      HairpinMode: false,
      LinkLocalIPv6Address: '',
      LinkLocalIPv6PrefixLen: 0,
      SecondaryIPAddresses: null,
      SecondaryIPv6Addresses: null,
      EndpointID: main?.endpointId ?? '',
      Gateway: main?.gateway ?? '',
      GlobalIPv6Address: main?.ipv6.address ?? '',
      GlobalIPv6PrefixLen: main?.ipv6.prefixLength ?? 0,
      IPAddress: main?.ipAddress ?? '',
      IPPrefixLen: main?.prefixLength ?? 0,
      IPv6Gateway: main?.ipv6.gateway ?? '',
      MacAddress: main?.mac ?? '',
      Networks: networksJson(details.networks),
    },
    Hull: { Isolation: details.hull.isolation, Accelerator: details.hull.accelerator, Warnings: details.hull.warnings },
  }
}

/** GET /exec/{id}/json. */
export function execJson(exec: ExecDetails): object {
  const { request } = exec
  const [entrypoint = '', ...args] = request.cmd
  return {
    ID: exec.id,
    Running: exec.running,
    ExitCode: exec.exitCode,
    ProcessConfig: { tty: request.tty, entrypoint, arguments: args, privileged: request.privileged, ...(request.user === '' ? {} : { user: request.user }) },
    OpenStdin: request.attachStdin,
    OpenStderr: request.attachStderr,
    OpenStdout: request.attachStdout,
    CanRemove: exec.canRemove,
    ContainerID: exec.containerId,
    DetachKeys: request.detachKeys,
    Pid: exec.pid,
  }
}

const noCpu = { cpu_usage: { total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0 }, throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 } }

function cpuJson(sample: StatsSample | undefined): object {
  if (!sample?.stats) return noCpu
  const { stats } = sample
  return {
    cpu_usage: { total_usage: stats.cpuTotal, usage_in_kernelmode: stats.cpuKernel, usage_in_usermode: stats.cpuUser },
    system_cpu_usage: sample.systemCpu,
    online_cpus: stats.onlineCpus,
    throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
  }
}

/** A body of GET /containers/{id}/stats. `before`: the sample before it, for the percentages that clients compute. */
export function statsJson(sample: StatsSample, before: StatsSample | undefined): object {
  const { stats } = sample
  const network = stats?.network
  const block = (op: string, value: number) => ({ major: 0, minor: 0, op, value })
  return {
    name: `/${sample.name}`,
    id: sample.id,
    read: stats ? timeText(sample.read) : zeroTime,
    preread: before?.stats ? timeText(before.read) : zeroTime,
    pids_stats: stats ? { current: stats.pids, ...(stats.pidsLimit > 0 ? { limit: stats.pidsLimit } : {}) } : {},
    blkio_stats: {
      io_service_bytes_recursive: stats ? [block('read', stats.blockRead), block('write', stats.blockWrite)] : null,
      io_serviced_recursive: null, io_queue_recursive: null, io_service_time_recursive: null, io_wait_time_recursive: null, io_merged_recursive: null,
      io_time_recursive: null, sectors_recursive: null,
    },
    num_procs: 0,
    storage_stats: {},
    cpu_stats: cpuJson(sample),
    precpu_stats: cpuJson(before),
    memory_stats: stats ? { usage: stats.memoryUsage, limit: stats.memoryLimit, stats: stats.memoryStats } : {},
    // Hull's own: a VM's other half, which Docker has no words for.
    ...(stats?.host
      ? { hull: { memory_usage: stats.host.memoryUsage, memory_limit: stats.host.memoryLimit, cpu_total_usage: stats.host.cpuTotal, pids: stats.host.pids } }
      : {}),
    ...(network
      ? {
          networks: {
            [network.name]: {
              rx_bytes: network.rxBytes, rx_packets: network.rxPackets, rx_errors: network.rxErrors, rx_dropped: network.rxDropped,
              tx_bytes: network.txBytes, tx_packets: network.txPackets, tx_errors: network.txErrors, tx_dropped: network.txDropped,
            },
          },
        }
      : {}),
  }
}
