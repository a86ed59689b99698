import type { EngineEvent, EngineInfo, NetworkDetails, VolumeDetails } from '../engine/api-types.js'
import { maxMinor, minMinor } from './exchange.js'
import { timeText } from './time.js'

/** What the build knows of itself. */
export interface VersionInfo {
  version: string
  gitCommit: string
  /** RFC 3339 */
  buildTime: string
  os: string
  /** Go's name: 'amd64'. */
  arch: string
  kernelVersion: string
}

/** GET /version. `parts`: crun, tini and their versions. */
export function versionJson(version: VersionInfo, parts: Record<string, string>): object {
  const api = `1.${maxMinor}`
  const min = `1.${minMinor}`
  const { gitCommit, buildTime, os, arch, kernelVersion } = version
  return {
    Platform: { Name: 'Hull' },
    Components: [
      {
        Name: 'Engine',
        Version: version.version,
        Details: {
          ApiVersion: api, MinAPIVersion: min, Arch: arch, BuildTime: buildTime, Experimental: 'false', GitCommit: gitCommit, GoVersion: `node-${process.version}`,
          KernelVersion: kernelVersion, Os: os,
        },
      },
      ...Object.entries(parts).map(([name, text]) => ({ Name: name, Version: text, Details: {} })),
    ],
    Version: version.version,
    ApiVersion: api,
    MinAPIVersion: min,
    GitCommit: gitCommit,
    GoVersion: `node-${process.version}`,
    Os: os,
    Arch: arch,
    KernelVersion: kernelVersion,
    BuildTime: buildTime,
  }
}

/** GET /info. */
export function infoJson(info: EngineInfo, version: VersionInfo, now = new Date()): object {
  const commit = (id: string | undefined) => ({ ID: id ?? '', Expected: id ?? '' })
  return {
    ID: info.id,
    Containers: info.containers.running + info.containers.paused + info.containers.stopped,
    ContainersRunning: info.containers.running,
    ContainersPaused: info.containers.paused,
    ContainersStopped: info.containers.stopped,
    Images: info.images,
    Driver: info.storageDriver,
    // The one list of free lines that `docker info` prints; Hull's own come after the storage driver's.
    DriverStatus: [...info.storageStatus, ...info.details],
    Plugins: { Volume: ['local'], Network: info.networkPlugins, Authorization: null, Log: ['json-file', 'local'] },
    MemoryLimit: info.limits.memory,
    SwapLimit: info.limits.swap,
    KernelMemoryTCP: false,
    CpuCfsPeriod: info.limits.cpuCfs,
    CpuCfsQuota: info.limits.cpuCfs,
    CPUShares: info.limits.cpuShares,
    CPUSet: info.limits.cpuset,
    PidsLimit: info.limits.pids,
    IPv4Forwarding: info.ipv4Forwarding,
    BridgeNfIptables: false,
    BridgeNfIp6tables: false,
    Debug: false,
    NFd: -1,
    OomKillDisable: info.limits.oomKillDisable,
    NGoroutines: -1,
    SystemTime: now.toISOString(),
    LoggingDriver: info.loggingDriver,
    CgroupDriver: info.cgroupDriver,
    CgroupVersion: info.cgroupVersion,
    NEventsListener: info.eventsListeners,
    KernelVersion: info.kernelVersion,
    OperatingSystem: info.operatingSystem,
    OSVersion: info.osVersion,
    OSType: 'linux',
    Architecture: info.architecture,
    IndexServerAddress: 'https://index.docker.io/v1/',
    RegistryConfig: {
      AllowNondistributableArtifactsCIDRs: null,
      AllowNondistributableArtifactsHostnames: null,
      InsecureRegistryCIDRs: info.insecureRegistries.filter((registry) => registry.includes('/')),
      IndexConfigs: Object.fromEntries<object>([
        ['docker.io', { Name: 'docker.io', Mirrors: [], Secure: true, Official: true }],
        ...info.insecureRegistries.filter((registry) => !registry.includes('/')).map((registry) => [registry, { Name: registry, Mirrors: [], Secure: false, Official: false }] as [string, object]),
      ]),
      Mirrors: [],
    },
    NCPU: info.cpus,
    MemTotal: info.memory,
    GenericResources: null,
    DockerRootDir: info.dataRoot,
    HttpProxy: info.httpProxy,
    HttpsProxy: info.httpsProxy,
    NoProxy: info.noProxy,
    Name: info.name,
    Labels: info.labels,
    ExperimentalBuild: false,
    ServerVersion: version.version,
    Runtimes: Object.fromEntries(Object.entries(info.runtimes).map(([name, { path }]) => [name, { path }])),
    DefaultRuntime: info.defaultRuntime,
    Swarm: { NodeID: '', NodeAddr: '', LocalNodeState: 'inactive', ControlAvailable: false, Error: '', RemoteManagers: null },
    LiveRestoreEnabled: true,
    Isolation: info.defaultIsolation,
    InitBinary: 'tini',
    ContainerdCommit: commit(version.version), // what stands in its place is ours
    RuncCommit: commit(info.components[info.defaultRuntime]),
    InitCommit: commit(info.components.tini),
    SecurityOptions: info.securityOptions,
    CDISpecDirs: [],
    Warnings: info.warnings.length > 0 ? info.warnings : null,
  }
}

/** A line of GET /events. Written by hand: nanoseconds do not fit a JavaScript number. */
export function eventLine(event: EngineEvent): string {
  const old =
    event.type === 'container'
      ? { status: event.action, id: event.actor.id, ...(event.actor.attributes.image ? { from: event.actor.attributes.image } : {}) }
      : event.type === 'image'
        ? { status: event.action, id: event.actor.id }
        : {}
  const body = JSON.stringify({
    ...old,
    Type: event.type,
    Action: event.action,
    Actor: { ID: event.actor.id, Attributes: event.actor.attributes },
    scope: 'local',
    time: Number(event.timeNano / 1_000_000_000n),
  })
  return `${body.slice(0, -1)},"timeNano":${event.timeNano}}\n`
}

/** GET /networks/{id}; rows of the list are the same. */
export const networkJson = (network: NetworkDetails): object => ({
  Name: network.name,
  Id: network.id,
  Created: timeText(network.created),
  Scope: network.scope,
  Driver: network.driver,
  EnableIPv4: true,
  EnableIPv6: network.enableIPv6,
  IPAM: {
    Driver: network.ipam.driver,
    Options: Object.keys(network.ipam.options).length > 0 ? network.ipam.options : null,
    Config: network.ipam.configs.map((config) => ({
      Subnet: config.subnet,
      ...(config.ipRange === '' ? {} : { IPRange: config.ipRange }),
      ...(config.gateway === '' ? {} : { Gateway: config.gateway }),
      ...(Object.keys(config.auxiliary).length === 0 ? {} : { AuxiliaryAddresses: config.auxiliary }),
    })),
  },
  Internal: network.internal,
  Attachable: network.attachable,
  Ingress: false,
  ConfigFrom: { Network: '' },
  ConfigOnly: false,
  Containers: Object.fromEntries(
    Object.entries(network.containers).map(([id, end]) => [id, { Name: end.name, EndpointID: end.endpointId, MacAddress: end.mac, IPv4Address: end.ipv4, IPv6Address: end.ipv6 }]),
  ),
  Options: network.options,
  Labels: network.labels,
})

/** GET /volumes/{name}. */
export const volumeJson = (volume: VolumeDetails): object => ({
  CreatedAt: timeText(volume.created),
  Driver: volume.driver,
  Labels: Object.keys(volume.labels).length > 0 ? volume.labels : null,
  Mountpoint: volume.mountpoint,
  Name: volume.name,
  Options: Object.keys(volume.options).length > 0 ? volume.options : null,
  Scope: volume.scope,
  ...(volume.usage ? { UsageData: { Size: volume.usage.size, RefCount: volume.usage.refCount } } : {}),
})
