import { forbidden, notFound, notImplemented } from '../base/errors.js'
import type { NetworkManager } from '../network/types.js'
import type { CreateNetworkRequest, Filters, NetworkDetails, NetworkEngine, NetworkFilter } from './api-types.js'
import { matchLabels } from './list.js'
import type { ContainerRegistry } from './registry.js'
import { networkModeOf } from './spec.js'
import { type networkIds, summaryOf } from './views.js'

const predefined = ['bridge', 'host', 'none'] as const

/** The three networks that every Docker engine has. User-defined ones are not there yet: 501. */
export class Networks implements NetworkEngine {
  readonly #created = new Date()

  constructor(
    readonly manager: NetworkManager,
    readonly registry: ContainerRegistry,
    readonly ids: ReturnType<typeof networkIds>,
  ) {}

  async list(filters: Filters<NetworkFilter>): Promise<NetworkDetails[]> {
    const any = (values: readonly string[] | undefined, test: (value: string) => boolean) => !values || values.length === 0 || values.some(test)
    return predefined
      .map((name) => this.#details(name))
      .filter(
        (network) =>
          any(filters.name, (value) => network.name.includes(value)) &&
          any(filters.id, (value) => network.id.startsWith(value)) &&
          any(filters.driver, (value) => network.driver === value) &&
          any(filters.scope, (value) => network.scope === value) &&
          any(filters.type, (value) => value === 'builtin') &&
          any(filters.dangling, (value) => value === 'false') &&
          matchLabels(network.labels, filters.label),
      )
  }

  async inspect(reference: string): Promise<NetworkDetails> {
    return this.#details(this.#find(reference))
  }

  #find(reference: string): (typeof predefined)[number] {
    const name = predefined.find((known) => known === reference) ?? predefined.find((known) => reference.length > 0 && this.ids[known].startsWith(reference))
    if (!name) throw notFound(`network ${reference} not found`)
    return name
  }

  #details(name: (typeof predefined)[number]): NetworkDetails {
    const { bridge } = this.manager
    const containers: NetworkDetails['containers'] = {}
    for (const container of this.registry.all()) {
      if (!container.isUp || networkModeOf(container.record) !== name) continue
      const end = summaryOf(container, this.ids).networks[name]
      if (!end) continue
      containers[container.id] = {
        name: container.record.name,
        endpointId: end.endpointId,
        mac: end.mac,
        ipv4: end.ipAddress ? `${end.ipAddress}/${end.prefixLength}` : '',
        ipv6: '',
      }
    }
    return {
      name,
      id: this.ids[name],
      created: this.#created,
      scope: 'local',
      driver: name === 'none' ? 'null' : name,
      enableIPv6: false,
      internal: false,
      attachable: false,
      ipam: { driver: 'default', configs: name === 'bridge' ? [{ subnet: bridge.subnet, gateway: bridge.gateway, ipRange: '' }] : [] },
      options:
        name === 'bridge'
          ? {
              'com.docker.network.bridge.default_bridge': 'true',
              'com.docker.network.bridge.enable_icc': 'true',
              'com.docker.network.bridge.enable_ip_masquerade': 'true',
              'com.docker.network.bridge.host_binding_ipv4': '0.0.0.0',
              'com.docker.network.bridge.name': bridge.name,
              'com.docker.network.driver.mtu': String(bridge.mtu),
            }
          : {},
      labels: {},
      containers,
    }
  }

  async create(request: CreateNetworkRequest): Promise<{ id: string; warning: string }> {
    throw notImplemented(`user-defined networks are not supported by Hull yet: ${request.name}`)
  }

  async remove(reference: string): Promise<void> {
    throw forbidden(`${this.#find(reference)} is a pre-defined network and cannot be removed`)
  }

  async connect(network: string): Promise<void> {
    throw notImplemented(`connecting a container to network ${this.#find(network)} is not supported by Hull yet`)
  }

  async disconnect(network: string): Promise<void> {
    throw notImplemented(`disconnecting a container from network ${this.#find(network)} is not supported by Hull yet`)
  }

  async prune(): Promise<{ deleted: string[] }> {
    return { deleted: [] }
  }
}
