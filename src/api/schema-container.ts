import { z } from 'zod'
import { badRequest } from '../base/errors.js'
import type { ContainerConfig, CreateContainerRequest, EndpointRequest, HostConfig } from '../engine/api-types.js'
import { parseSignal } from '../engine/signals.js'
import { checkHostConfig, cleanPath, mountsOf, portsOf, portKey } from './parse-host-config.js'
import {
  dictionary, fields, fieldsOrNull, fieldsOrZero, flag, flagOrNull, integer, integerOrNull, labels, list, names, natural, text, texts,
  textsOrNull, word, words,
} from './schema.js'

const healthcheck = fieldsOrNull({ Test: texts, Interval: integer, Timeout: integer, StartPeriod: integer, StartInterval: integer, Retries: integer })

const config = {
  Hostname: text, Domainname: text, User: text, AttachStdin: flag, AttachStdout: flag, AttachStderr: flag, ExposedPorts: names, Tty: flag,
  OpenStdin: flag, StdinOnce: flag, Env: texts, Cmd: words, Healthcheck: healthcheck, ArgsEscaped: flag, Image: text, Volumes: names,
  WorkingDir: text, Entrypoint: words, NetworkDisabled: flag, MacAddress: text, OnBuild: texts, Labels: labels, StopSignal: text,
  StopTimeout: integerOrNull, Shell: texts,
}

const throttle = list(fields({ Path: text, Rate: natural }))
const resources = {
  CpuShares: integer, Memory: integer, NanoCpus: integer, CgroupParent: text, BlkioWeight: natural,
  BlkioWeightDevice: list(fields({ Path: text, Weight: natural })), BlkioDeviceReadBps: throttle, BlkioDeviceWriteBps: throttle,
  BlkioDeviceReadIOps: throttle, BlkioDeviceWriteIOps: throttle, CpuPeriod: integer, CpuQuota: integer, CpuRealtimePeriod: integer,
  CpuRealtimeRuntime: integer, CpusetCpus: text, CpusetMems: text,
  Devices: list(fields({ PathOnHost: text, PathInContainer: text, CgroupPermissions: text })), DeviceCgroupRules: texts,
  DeviceRequests: list(fields({ Driver: text, Count: integer, DeviceIDs: texts, Capabilities: list(z.array(z.string())), Options: labels })),
  KernelMemoryTCP: integer, MemoryReservation: integer, MemorySwap: integer, MemorySwappiness: integerOrNull, OomKillDisable: flagOrNull,
  Init: flagOrNull, PidsLimit: integerOrNull, Ulimits: list(fields({ Name: text, Soft: integer, Hard: integer })), CpuCount: integer,
  CpuPercent: integer, IOMaximumIOps: natural, IOMaximumBandwidth: natural,
}

const mount = fields({
  Type: word(['bind', 'volume', 'tmpfs', 'image', 'npipe', 'cluster'], (type) => `invalid mount config for type ${JSON.stringify(type ?? '')}: mount type unknown`),
  Source: text, Target: text, ReadOnly: flag, Consistency: text,
  BindOptions: fieldsOrNull({ Propagation: text, NonRecursive: flag, CreateMountpoint: flag, ReadOnlyNonRecursive: flag, ReadOnlyForceRecursive: flag }),
  VolumeOptions: fieldsOrNull({ NoCopy: flag, Labels: labels, DriverConfig: fieldsOrNull({ Name: text, Options: labels }), Subpath: text }),
  TmpfsOptions: fieldsOrNull({ SizeBytes: natural, Mode: natural, Options: list(z.array(z.string()).min(1).max(2)) }),
  ImageOptions: fieldsOrNull({ Subpath: text }),
})

const policies = ['', 'no', 'always', 'unless-stopped', 'on-failure'] as const
const restartPolicyShape = {
  Name: z.preprocess(
    (name) => name ?? '',
    word(policies, (name) => `invalid restart policy: unknown policy '${String(name)}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'`),
  ),
  MaximumRetryCount: integer,
}
const restartPolicy = fieldsOrZero(restartPolicyShape)

const hostConfig = {
  ...resources,
  Binds: texts, ContainerIDFile: text, LogConfig: fieldsOrZero({ Type: text, Config: labels }), NetworkMode: text,
  PortBindings: dictionary(list(fields({ HostIp: text, HostPort: text }))), RestartPolicy: restartPolicy, AutoRemove: flag, VolumeDriver: text,
  VolumesFrom: texts, ConsoleSize: z.tuple([z.number().int().min(0).max(0xffff), z.number().int().min(0).max(0xffff)]).nullish().transform((value): [number, number] => value ?? [0, 0]),
  Annotations: labels, CapAdd: words.transform((value) => value ?? []), CapDrop: words.transform((value) => value ?? []), CgroupnsMode: text, Dns: texts,
  DnsOptions: texts, DnsSearch: texts, ExtraHosts: texts, GroupAdd: texts, IpcMode: text, Cgroup: text, Links: texts, OomScoreAdj: integer, PidMode: text,
  Privileged: flag, PublishAllPorts: flag, ReadonlyRootfs: flag, SecurityOpt: texts, StorageOpt: labels, Tmpfs: labels, UTSMode: text, UsernsMode: text,
  ShmSize: integer, Sysctls: labels, Runtime: text, Isolation: text, Mounts: list(mount), MaskedPaths: textsOrNull, ReadonlyPaths: textsOrNull,
}

const endpointShape = {
  IPAMConfig: fieldsOrNull({ IPv4Address: text, IPv6Address: text, LinkLocalIPs: texts }),
  Links: texts, Aliases: texts, MacAddress: text, DriverOpts: labels,
}
/** NetworkingConfig.EndpointsConfig's values, and the body of /networks/{id}/connect. */
export const endpoint = fieldsOrZero(endpointShape)

/** Typed form of an endpoint. */
export function endpointOf(value: z.output<typeof endpoint>): EndpointRequest {
  const mac = value.MacAddress
  if (mac !== '' && !/^([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}$/.test(mac)) throw badRequest(`invalid MAC address: address ${mac}: invalid MAC address`)
  return {
    aliases: value.Aliases, links: value.Links, ipv4Address: value.IPAMConfig?.IPv4Address ?? '', ipv6Address: value.IPAMConfig?.IPv6Address ?? '',
    macAddress: mac, driverOptions: value.DriverOpts,
  }
}

/** POST /containers/create: Config with HostConfig and NetworkingConfig inside. */
export const createBody = fields({
  ...config,
  HostConfig: fieldsOrZero(hostConfig),
  NetworkingConfig: fieldsOrZero({ EndpointsConfig: dictionary(endpoint) }),
})

/** POST /containers/{id}/update: only what is there is to change. */
export const updateBody = fields({ ...resources, RestartPolicy: fieldsOrNull(restartPolicyShape) })
/** Names of the fields of an update, for telling which were sent. */
export const resourceFields = Object.keys(resources) as (keyof typeof resources & keyof HostConfig)[]

const ms = 1_000_000

/** What moby's verifyContainerSettings checks of Config, in its words. */
function checkConfig(config: ContainerConfig): void {
  if (config.WorkingDir !== '') {
    if (!config.WorkingDir.startsWith('/')) throw badRequest(`the working directory '${config.WorkingDir}' is invalid, it needs to be an absolute path`)
    config.WorkingDir = cleanPath(config.WorkingDir)
  }
  if (config.StopSignal !== '') parseSignal(config.StopSignal)
  for (const line of config.Env) if (line === '' || line.startsWith('=')) throw badRequest(`invalid environment variable: ${line}`)
  const health = config.Healthcheck
  if (health) {
    for (const name of ['Interval', 'Timeout', 'StartPeriod', 'StartInterval'] as const) {
      if (health[name] !== 0 && health[name] < ms) throw badRequest(`${name} in Healthcheck cannot be less than 1ms`)
    }
    if (health.Retries < 0) throw badRequest('Retries in Healthcheck cannot be negative')
  }
  config.ExposedPorts = Object.fromEntries(Object.keys(config.ExposedPorts).map((port) => [portKey(port), {}]))
}

/** A validated body to the engine's request, with the differences between API versions evened out (moby, container_routes.go). */
export function createRequest(body: z.output<typeof createBody>, name: string, platform: string, minor: number): CreateContainerRequest {
  const { HostConfig: host, NetworkingConfig: networking, ...rest } = body
  const config: ContainerConfig = rest
  const hostConfig: HostConfig = host
  checkConfig(config)
  if (minor < 25) hostConfig.AutoRemove = false
  if (minor < 40 && hostConfig.IpcMode === '') hostConfig.IpcMode = 'shareable'
  if (minor < 42) hostConfig.ConsoleSize = [0, 0]
  if (minor < 43) hostConfig.Annotations = {}
  if (minor < 44 && config.Healthcheck) config.Healthcheck.StartInterval = 0
  if (hostConfig.NetworkMode === '') hostConfig.NetworkMode = 'default'
  if (hostConfig.PidsLimit !== null && hostConfig.PidsLimit <= 0) hostConfig.PidsLimit = null
  checkHostConfig(hostConfig)
  const names = Object.keys(networking.EndpointsConfig)
  if (minor < 44 && names.length > 1) throw badRequest(`Container cannot be created with multiple network endpoints: ${names.join(', ')}`)
  const endpoints = Object.fromEntries(Object.entries(networking.EndpointsConfig).map(([network, value]) => [network, endpointOf(value)]))
  return { name: name.replace(/^\//, ''), platform, config, hostConfig, ports: portsOf(hostConfig), mounts: mountsOf(hostConfig), endpoints }
}

/** POST /containers/{id}/exec */
export const execBody = fields({
  AttachStdin: flag, AttachStdout: flag, AttachStderr: flag, Tty: flag, DetachKeys: text, Env: texts, Cmd: words, Privileged: flag, User: text,
  WorkingDir: text, ConsoleSize: z.tuple([z.number().int().min(0).max(0xffff), z.number().int().min(0).max(0xffff)]).nullish(),
})

/** POST /exec/{id}/start */
export const execStartBody = fields({
  Detach: flag, Tty: flag, ConsoleSize: z.tuple([z.number().int().min(0).max(0xffff), z.number().int().min(0).max(0xffff)]).nullish(),
})
