import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { ContainerDetails, ContainerState, ContainerSummary, EndpointInfo, MountPoint, PortInfo } from './api-types.js'
import { plainAttachment } from './attachment.js'
import type { Container } from './container.js'
import type { HealthState } from './health.js'
import { withDefaults } from './host-defaults.js'
import { commandOf, networkModeOf } from './spec.js'
import type { ContainerRecord } from './store.js'

const hash = (text: string) => createHash('sha256').update(text).digest('hex')

/** IDs of the three networks that every Docker engine has: stable for one data root. */
export function networkIds(dataRoot: string): Record<'bridge' | 'host' | 'none', string> {
  return { bridge: hash(`${dataRoot} bridge`), host: hash(`${dataRoot} host`), none: hash(`${dataRoot} none`) }
}

function endpoints(record: ContainerRecord, ids: ReturnType<typeof networkIds>): Record<string, EndpointInfo> {
  const mode = networkModeOf(record)
  if (mode === 'container') return {}
  const up = record.state.status === 'running' || record.state.status === 'paused'
  const list = mode === 'bridge' ? record.networks : [plainAttachment(ids[mode], mode)]
  return Object.fromEntries(
    list.map((attachment) => {
      const { endpoint: end } = attachment
      return [
        attachment.network,
        {
          networkId: attachment.networkId,
          endpointId: up ? hash(`${record.id} ${attachment.networkId}`) : '',
          gateway: end?.gateway ?? '',
          ipAddress: end?.address ?? '',
          prefixLength: end?.prefixLength ?? 0,
          ipv6: end?.ipv6 ?? { address: '', prefixLength: 0, gateway: '' },
          mac: end?.mac ?? attachment.requestedMac,
          aliases: attachment.aliases,
          links: attachment.links,
          dnsNames: end?.names ?? [],
          driverOptions: attachment.driverOptions,
          requestedAddress: attachment.requestedAddress,
          requestedAddress6: attachment.requestedAddress6,
        },
      ]
    }),
  )
}

function ports(record: ContainerRecord): PortInfo[] {
  const rows: PortInfo[] = record.networks.flatMap((attachment) => attachment.endpoint?.ports ?? []).map((port) => ({
    containerPort: port.containerPort,
    protocol: port.protocol,
    hostIp: port.hostIp || '0.0.0.0',
    hostPort: port.hostPort,
  }))
  for (const exposed of Object.keys(record.config.ExposedPorts)) {
    const [number, protocol = 'tcp'] = exposed.split('/')
    if (rows.some((row) => row.containerPort === Number(number) && row.protocol === protocol)) continue
    rows.push({ containerPort: Number(number), protocol: protocol === 'udp' ? 'udp' : protocol === 'sctp' ? 'sctp' : 'tcp', hostIp: '', hostPort: 0 })
  }
  return rows
}

/** As it stood in -v: Docker tells the options, and `z` for a volume that was mounted without any (moby, volume/mounts). */
function modeOf(mount: ContainerRecord['mounts'][number]): string {
  if (mount.from !== 'Binds' && mount.from !== 'VolumesFrom') return mount.from === 'Mounts' && mount.type === 'volume' ? 'z' : ''
  const words = [...(mount.readOnly ? ['ro'] : []), ...mount.options]
  return words.length === 0 && mount.type === 'volume' ? 'z' : words.join(',')
}

function mounts(record: ContainerRecord): MountPoint[] {
  return record.mounts
    .filter((mount) => mount.from !== 'Tmpfs')
    .map((mount) => ({
      type: mount.type,
      name: mount.name,
      source: mount.source,
      destination: mount.target,
      driver: mount.type === 'volume' ? 'local' : '',
      mode: modeOf(mount),
      rw: !mount.readOnly,
      propagation: mount.type === 'bind' ? (mount.options.find((option) => /^r?(private|shared|slave)$/.test(option)) ?? 'rprivate') : '',
    }))
}

const healthOf = ({ status, failingStreak, log }: HealthState): NonNullable<ContainerState['health']> => ({
  status,
  failingStreak,
  log: log.map(({ start, end, exitCode, output }) => ({ start: new Date(start), end: new Date(end), exitCode, output })),
})

const date = (text: string | undefined) => (text === undefined ? undefined : new Date(text))

/** A row of `docker ps`. */
export function summaryOf(container: Container, ids: ReturnType<typeof networkIds>): ContainerSummary {
  const { record } = container
  const started = date(record.state.startedAt)
  const finished = date(record.state.finishedAt)
  return {
    id: record.id,
    name: record.name,
    image: record.imageRef,
    imageId: record.imageId,
    command: commandOf(record),
    created: new Date(record.created),
    status: record.state.status,
    exitCode: record.state.exitCode,
    ...(started ? { startedAt: started } : {}),
    ...(finished ? { finishedAt: finished } : {}),
    ...(container.health ? { health: container.health.status } : {}),
    ports: container.isUp ? ports(record) : [],
    labels: record.config.Labels,
    networkMode: record.hostConfig.NetworkMode,
    networks: endpoints(record, ids),
    mounts: mounts(record),
    annotations: { ...record.hostConfig.Annotations, 'org.hull.isolation': record.isolation },
  }
}

/** `docker inspect`. */
export function detailsOf(
  container: Container,
  ids: ReturnType<typeof networkIds>,
  directories: { state: string; overlay: string; netns: string; layers: string[] },
  accelerator: string,
  defaultRuntime: string,
): ContainerDetails {
  const { record, sandbox } = container
  const [path = '', ...args] = commandOf(record)
  const started = date(record.state.startedAt)
  const finished = date(record.state.finishedAt)
  const up = container.isUp
  return {
    id: record.id,
    name: record.name,
    created: new Date(record.created),
    path,
    args,
    state: {
      status: record.state.status,
      oomKilled: record.state.oomKilled,
      pid: up ? (sandbox?.pid ?? 0) : 0,
      exitCode: record.state.exitCode,
      error: record.state.error,
      ...(started ? { startedAt: started } : {}),
      ...(finished ? { finishedAt: finished } : {}),
      ...(container.health ? { health: healthOf(container.health) } : {}),
    },
    imageId: record.imageId,
    platform: 'linux',
    resolvConfPath: join(directories.state, 'resolv.conf'),
    hostnamePath: join(directories.state, 'hostname'),
    hostsPath: join(directories.state, 'hosts'),
    logPath: record.hostConfig.LogConfig.Type === 'none' ? '' : join(directories.state, 'container.log'),
    restartCount: record.restartCount,
    storage:
      record.isolation === 'process'
        ? {
            driver: 'overlay2',
            data: {
              LowerDir: [...directories.layers].reverse().join(':'),
              MergedDir: join(directories.overlay, 'merged'),
              UpperDir: join(directories.overlay, 'upper'),
              WorkDir: join(directories.overlay, 'work'),
            },
          }
        : { driver: 'erofs', data: { Disk: join(directories.state, 'disk.img') } },
    appArmorProfile: '',
    execIds: [...container.execs],
    hostConfig: withDefaults(record.hostConfig, record.isolation, defaultRuntime),
    config: record.config,
    mounts: mounts(record),
    ports: ports(record),
    networks: endpoints(record, ids),
    sandboxKey: up && record.isolation === 'process' ? directories.netns : '',
    hull: { isolation: record.isolation, accelerator, warnings: record.warnings },
  }
}
