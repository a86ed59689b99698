/**
 * The two documents that a user writes about a container. They keep Docker's field names and units (Engine API 1.47, moby api/types/container),
 * because they are stored and shown by `inspect` as they were written. In here every field is present: `null` where Docker keeps "not said" apart
 * from a value, else Docker's zero value.
 */

/** Health check of an image or a container. Times in nanoseconds, 0: inherit. */
export interface HealthConfig {
  /** [] inherit, ['NONE'], ['CMD', …], ['CMD-SHELL', command] */
  Test: string[]
  Interval: number
  Timeout: number
  StartPeriod: number
  StartInterval: number
  Retries: number
}

/** Docker's `Config`: what would be portable to another host. */
export interface ContainerConfig {
  Hostname: string
  Domainname: string
  User: string
  AttachStdin: boolean
  AttachStdout: boolean
  AttachStderr: boolean
  /** '80/tcp' → {} */
  ExposedPorts: Record<string, object>
  Tty: boolean
  OpenStdin: boolean
  StdinOnce: boolean
  /** KEY=VALUE, or KEY alone to remove the image's. */
  Env: string[]
  /** null: the image's. */
  Cmd: string[] | null
  Healthcheck: HealthConfig | null
  ArgsEscaped: boolean
  Image: string
  Volumes: Record<string, object>
  WorkingDir: string
  /** null: the image's. [''] : none. */
  Entrypoint: string[] | null
  NetworkDisabled: boolean
  MacAddress: string
  OnBuild: string[]
  Labels: Record<string, string>
  /** '': the image's or SIGTERM. A signal that exists. */
  StopSignal: string
  /** Seconds; null: 10. */
  StopTimeout: number | null
  Shell: string[]
}

/** HostConfig.Mounts[] */
export interface MountConfig {
  Type: 'bind' | 'volume' | 'tmpfs' | 'image' | 'npipe' | 'cluster'
  Source: string
  Target: string
  ReadOnly: boolean
  Consistency: string
  BindOptions: { Propagation: string; NonRecursive: boolean; CreateMountpoint: boolean; ReadOnlyNonRecursive: boolean; ReadOnlyForceRecursive: boolean } | null
  VolumeOptions: { NoCopy: boolean; Labels: Record<string, string>; DriverConfig: { Name: string; Options: Record<string, string> } | null; Subpath: string } | null
  TmpfsOptions: { SizeBytes: number; Mode: number; Options: string[][] } | null
  ImageOptions: { Subpath: string } | null
}

export interface DeviceMapping {
  PathOnHost: string
  PathInContainer: string
  CgroupPermissions: string
}

export interface DeviceRequest {
  Driver: string
  Count: number
  DeviceIDs: string[]
  Capabilities: string[][]
  Options: Record<string, string>
}

export interface ThrottleDevice {
  Path: string
  Rate: number
}

/** Docker's `HostConfig`: what binds the container to this host. Bytes, microseconds (CpuPeriod, CpuQuota), 1e-9 CPUs (NanoCpus). */
export interface HostConfig {
  Binds: string[]
  ContainerIDFile: string
  /** Type '' : the daemon's default. */
  LogConfig: { Type: string; Config: Record<string, string> }
  /** 'default' when not said. */
  NetworkMode: string
  /** '80/tcp' → bindings, as written. */
  PortBindings: Record<string, { HostIp: string; HostPort: string }[]>
  RestartPolicy: { Name: '' | 'no' | 'always' | 'unless-stopped' | 'on-failure'; MaximumRetryCount: number }
  AutoRemove: boolean
  VolumeDriver: string
  VolumesFrom: string[]
  ConsoleSize: [rows: number, columns: number]
  Annotations: Record<string, string>
  CapAdd: string[]
  CapDrop: string[]
  /** '' | 'private' | 'host' */
  CgroupnsMode: string
  Dns: string[]
  DnsOptions: string[]
  DnsSearch: string[]
  ExtraHosts: string[]
  GroupAdd: string[]
  /** '' | 'none' | 'private' | 'shareable' | 'host' | 'container:ID' */
  IpcMode: string
  Cgroup: string
  Links: string[]
  OomScoreAdj: number
  /** '' | 'host' | 'container:ID' */
  PidMode: string
  Privileged: boolean
  PublishAllPorts: boolean
  ReadonlyRootfs: boolean
  SecurityOpt: string[]
  StorageOpt: Record<string, string>
  /** '/run' → 'rw,size=64m' */
  Tmpfs: Record<string, string>
  UTSMode: string
  UsernsMode: string
  /** 0: 64 MiB */
  ShmSize: number
  Sysctls: Record<string, string>
  Runtime: string
  /** In a request '' | 'default' | 'process' | 'hyperv' | 'vm'. */
  Isolation: string
  Mounts: MountConfig[]
  /** null: Docker's default list; []: none. */
  MaskedPaths: string[] | null
  ReadonlyPaths: string[] | null

  CpuShares: number
  Memory: number
  NanoCpus: number
  CgroupParent: string
  BlkioWeight: number
  BlkioWeightDevice: { Path: string; Weight: number }[]
  BlkioDeviceReadBps: ThrottleDevice[]
  BlkioDeviceWriteBps: ThrottleDevice[]
  BlkioDeviceReadIOps: ThrottleDevice[]
  BlkioDeviceWriteIOps: ThrottleDevice[]
  CpuPeriod: number
  CpuQuota: number
  CpuRealtimePeriod: number
  CpuRealtimeRuntime: number
  CpusetCpus: string
  CpusetMems: string
  Devices: DeviceMapping[]
  DeviceCgroupRules: string[]
  DeviceRequests: DeviceRequest[]
  KernelMemoryTCP: number
  MemoryReservation: number
  MemorySwap: number
  /** null or -1: not said; 0-100 */
  MemorySwappiness: number | null
  OomKillDisable: boolean | null
  /** null: the daemon's default. */
  Init: boolean | null
  /** null or 0 or -1: unlimited. */
  PidsLimit: number | null
  Ulimits: { Name: string; Soft: number; Hard: number }[]
  CpuCount: number
  CpuPercent: number
  IOMaximumIOps: number
  IOMaximumBandwidth: number
}
