import { randomBytes } from 'node:crypto'
import { badRequest, forbidden, messageOf, notFound, notImplemented } from '../base/errors.js'
import { log } from '../base/log.js'
import { nameTaken } from '../network/plan.js'
import type { CreateNetworkRequest, EndpointRequest, Filters, NetworkDetails, NetworkEngine, NetworkFilter } from './api-types.js'
import { KeyedLock } from './lock.js'
import type { Lifecycle, LifecycleParts } from './lifecycle.js'
import { matchLabels } from './list.js'
import { parseMoment } from './images.js'
import type { NetworkName, NetworkRecord } from './network-directory.js'
import type { ContainerRecord } from './store.js'
import { summaryOf } from './views.js'

/** Docker's /networks: the three that every engine has, and user-defined bridge networks. */
export class Networks implements NetworkEngine {
  readonly #started = new Date()
  /** Names and subnets are given out by one request at a time. */
  readonly #lock = new KeyedLock()

  constructor(
    readonly parts: LifecycleParts,
    readonly lifecycle: Lifecycle,
  ) {}

  async list(filters: Filters<NetworkFilter>): Promise<NetworkDetails[]> {
    const any = (values: readonly string[] | undefined, test: (value: string) => boolean) => !values || values.length === 0 || values.some(test)
    for (const value of filters.type ?? []) if (value !== 'builtin' && value !== 'custom') throw badRequest(`invalid filter: 'type'='${value}'`)
    return this.parts.directory
      .all()
      .map((network) => ({ network, details: this.#details(network) }))
      .filter(
        ({ network, details }) =>
          any(filters.name, (value) => network.name.includes(value)) &&
          any(filters.id, (value) => network.id.startsWith(value)) &&
          any(filters.driver, (value) => network.driver === value) &&
          any(filters.scope, (value) => value === 'local') &&
          any(filters.type, (value) => (value === 'custom') === (network.record !== undefined)) &&
          any(filters.dangling, (value) => (['true', '1'].includes(value)) === (network.record !== undefined && Object.keys(details.containers).length === 0)) &&
          matchLabels(details.labels, filters.label),
      )
      .map(({ details }) => details)
  }

  async inspect(reference: string): Promise<NetworkDetails> {
    return this.#details(this.parts.directory.find(reference))
  }

  #details(network: NetworkName): NetworkDetails {
    const { directory, registry } = this.parts
    const containers: NetworkDetails['containers'] = {}
    for (const container of registry.all()) {
      if (!container.isUp) continue
      const end = summaryOf(container, directory.ids).networks[network.name]
      if (!end || end.networkId !== network.id) continue
      containers[container.id] = {
        name: container.record.name,
        endpointId: end.endpointId,
        mac: end.mac,
        ipv4: end.ipAddress ? `${end.ipAddress}/${end.prefixLength}` : '',
        ipv6: end.ipv6.address ? `${end.ipv6.address}/${end.ipv6.prefixLength}` : '',
      }
    }
    const common = { name: network.name, id: network.id, scope: 'local' as const, driver: network.driver, containers }
    const { record } = network
    if (record) {
      return {
        ...common, created: new Date(record.created), enableIPv6: record.spec.subnet6 !== '', internal: record.spec.internal, attachable: record.attachable,
        ipam: record.ipam, options: record.options, labels: record.labels,
      }
    }
    return {
      ...common, created: this.#started, enableIPv6: false, internal: false, attachable: false, labels: {},
      ...(network.name === 'bridge' ? this.#defaultBridge() : { ipam: { driver: 'default', options: {}, configs: [] }, options: {} }),
    }
  }

  #defaultBridge(): Pick<NetworkDetails, 'ipam' | 'options'> {
    const { bridge } = this.parts.network
    return {
      ipam: { driver: 'default', options: {}, configs: [{ subnet: bridge.subnet, gateway: bridge.gateway, ipRange: '', auxiliary: {} }] },
      options: {
        'com.docker.network.bridge.default_bridge': 'true',
        'com.docker.network.bridge.enable_icc': 'true',
        'com.docker.network.bridge.enable_ip_masquerade': 'true',
        'com.docker.network.bridge.host_binding_ipv4': '0.0.0.0',
        'com.docker.network.bridge.name': bridge.name,
        'com.docker.network.driver.mtu': String(bridge.mtu),
      },
    }
  }

  create(request: CreateNetworkRequest): Promise<{ id: string; warning: string }> {
    return this.#lock.run('create', async () => {
      const { directory, network, events } = this.parts
      checkRequest(request)
      if (directory.all().some((other) => other.name === request.name)) throw nameTaken(request.name)
      const id = randomBytes(32).toString('hex')
      const { configs } = request.ipam
      const { spec, warnings } = await network.plan({ id, name: request.name, internal: request.internal, ipv6: request.enableIPv6, configs, options: request.options })
      const record: NetworkRecord = {
        version: 1, id, name: request.name, created: new Date().toISOString(), attachable: request.attachable, labels: request.labels, options: request.options,
        ipam: { ...request.ipam, driver: request.ipam.driver || 'default', configs: configsOf(request, spec) }, chosen: configs.some((config) => config.subnet !== ''), spec,
      }
      // On disk first: what a crash leaves half made is made at the next start.
      await directory.add(record)
      try {
        await network.createNetwork(spec)
      } catch (error) {
        await directory.remove(id)
        throw error
      }
      events.publish('network', 'create', id, { name: request.name, type: 'bridge' })
      for (const warning of warnings) log.warn('network create', { network: request.name, warning })
      return { id, warning: warnings.join('\n') }
    })
  }

  remove(reference: string): Promise<void> {
    return this.#lock.run('create', async () => {
      const network = this.parts.directory.find(reference)
      if (!network.record) throw forbidden(`${network.name} is a pre-defined network and cannot be removed`)
      const users = this.#users(network)
      if (users.length > 0) {
        throw forbidden(`error while removing network: network ${network.name} has active endpoints (${users.map(({ name, id }) => `name:"${name}" id:"${id.slice(0, 12)}"`).join(', ')})`)
      }
      await this.#remove(network)
    })
  }

  /** Containers that run, or are about to, on a network. */
  #users(network: NetworkName): { name: string; id: string }[] {
    return this.parts.registry
      .all()
      .filter(({ record }) => record.networks.some((attachment) => attachment.networkId === network.id && attachment.endpoint))
      .map(({ record }) => ({ name: record.name, id: record.id }))
  }

  async #remove(network: NetworkName): Promise<void> {
    await this.parts.network.removeNetwork(network.id)
    await this.parts.directory.remove(network.id)
    this.parts.events.publish('network', 'destroy', network.id, { name: network.name, type: network.driver })
  }

  async connect(reference: string, containerReference: string, endpoint: EndpointRequest): Promise<void> {
    const container = this.parts.registry.get(containerReference)
    const network = this.parts.directory.find(reference)
    await this.lifecycle.exclusive(container, () => this.lifecycle.connections.connect(container, network, endpoint))
  }

  async disconnect(reference: string, containerReference: string): Promise<void> {
    const container = this.parts.registry.get(containerReference)
    const network = this.#goneNetwork(container.record, reference) ?? this.parts.directory.find(reference)
    await this.lifecycle.exclusive(container, () => this.lifecycle.connections.disconnect(container, network))
  }

  /** A network that was removed while a stopped container was on it: it can still be taken from the container, which could not start otherwise (moby DisconnectFromNetwork). */
  #goneNetwork(record: ContainerRecord, reference: string): NetworkName | undefined {
    const { directory } = this.parts
    const gone = record.networks.find(({ network, networkId }) => (network === reference || networkId === reference) && !directory.get(networkId))
    return gone && { id: gone.networkId, name: gone.network, driver: 'bridge' }
  }

  prune(filters: Filters<'until' | 'label' | 'label!'>): Promise<{ deleted: string[] }> {
    return this.#lock.run('create', async () => {
      const deleted: string[] = []
      const until = Math.min(Infinity, ...(filters.until ?? []).map(parseMoment))
      for (const network of this.parts.directory.all()) {
        const { record } = network
        if (!record || this.#users(network).length > 0 || Date.parse(record.created) >= until) continue
        if (!matchLabels(record.labels, filters.label) || filters['label!']?.some((label) => matchLabels(record.labels, [label]))) continue
        try {
          await this.#remove(network)
          deleted.push(network.name)
        } catch (error) {
          log.warn('cannot prune a network', { network: network.name, error: messageOf(error) })
        }
      }
      this.parts.events.publish('network', 'prune', '', { reclaimed: '0' })
      return { deleted }
    })
  }
}

function checkRequest(request: CreateNetworkRequest): void {
  const { name, driver } = request
  if (['bridge', 'host', 'none', 'default'].includes(name)) throw forbidden(`operation is not permitted on predefined ${name} network`)
  // A container's NetworkMode would mean something else; a slash would not pass through a path.
  if (name.startsWith('container:') || !/^[^\s/\p{Cc}]{1,255}$/u.test(name)) throw badRequest(`invalid network name: ${JSON.stringify(name)}`)
  if (driver === 'host' || driver === 'null') throw forbidden(`only one instance of "${driver}" network is allowed`)
  if (driver !== '' && driver !== 'bridge' && driver !== 'default') throw notFound(`could not find plugin ${driver} in v1 plugin registry: plugin not found`)
  if (!['', 'default'].includes(request.ipam.driver)) throw notFound(`could not find plugin ${request.ipam.driver} in v1 plugin registry: plugin not found`)
  if (request.ingress) throw notImplemented('an ingress network needs swarm mode, which Hull does not have')
}

/** What the user wrote, with what was chosen for them. */
function configsOf(request: CreateNetworkRequest, spec: NetworkRecord['spec']): CreateNetworkRequest['ipam']['configs'] {
  const given = (six: boolean) => request.ipam.configs.find((config) => config.subnet.includes(':') === six && (config.subnet !== '' || !six))
  const four = given(false)
  const six = given(true)
  return [
    { subnet: spec.subnet, gateway: four && four.gateway !== '' ? four.gateway : spec.gateway, ipRange: spec.ipRange, auxiliary: four?.auxiliary ?? {} },
    ...(spec.subnet6 === '' ? [] : [{ subnet: spec.subnet6, gateway: six && six.gateway !== '' ? six.gateway : spec.gateway6, ipRange: '', auxiliary: six?.auxiliary ?? {} }]),
  ]
}
