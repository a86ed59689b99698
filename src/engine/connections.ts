import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { badRequest, conflict, forbidden, HullError, messageOf, notFound, notImplemented } from '../base/errors.js'
import { log } from '../base/log.js'
import type { Endpoint, NetworkManager, PortBinding } from '../network/types.js'
import type { NetworkChange, SandboxAttachments } from '../sandbox/types.js'
import type { CreateContainerRequest, EndpointRequest } from './api-types.js'
import { attachmentOf, dnsNames, parseLink, plainAttachment, type NetworkAttachment } from './attachment.js'
import type { Container } from './container.js'
import type { EventBus } from './events.js'
import { legacyLinks } from './links.js'
import type { NetworkDirectory, NetworkName } from './network-directory.js'
import type { ContainerRegistry } from './registry.js'
import { endpointHostsLine, networkModeOf, resolvConf, type NetworkPlace, type SpecPaths } from './spec.js'
import type { ContainerRecord, ContainerStore } from './store.js'

export interface ConnectionParts {
  network: NetworkManager
  directory: NetworkDirectory
  registry: ContainerRegistry
  store: ContainerStore
  events: EventBus
  paths: SpecPaths
}

const endpointsOf = (record: Pick<ContainerRecord, 'networks'>): Endpoint[] => record.networks.flatMap((attachment) => attachment.endpoint ?? [])

/** Moby's words for networks that cannot be combined (runconfig/errors.go). */
const hostConflict = () => badRequest('container cannot be disconnected from host network or connected to host network')
const noneConflict = () => badRequest('container cannot be connected to multiple networks with one of the networks in private (none) mode')
const sharedConflict = () => badRequest('container sharing network namespace with another container or host cannot be connected to any other network')

/** What containers have to do with networks: which they are on, what a start takes from them, and changes while they run. Callers hold the container's lock. */
export class Connections {
  constructor(readonly parts: ConnectionParts) {}

  // create -------------------------------------------------------------------------------------------------

  /** Fills in the record's networks from the request. 404, 400. Also rewrites NetworkMode 'container:NAME' to the ID. */
  resolve(record: ContainerRecord, request: CreateContainerRequest): void {
    const { directory, registry } = this.parts
    const mode = networkModeOf(record)
    const wanted = record.hostConfig.NetworkMode
    if (mode === 'container') {
      const target = registry.get(wanted.slice('container:'.length))
      if (target.id === record.id) throw badRequest('cannot join own network')
      this.#checkShared(record)
      if (target.record.isolation === 'vm') throw badRequest(`--network container:${target.record.name} is not possible: it runs in a virtual machine, whose network is inside`)
      record.hostConfig.NetworkMode = `container:${target.id}`
      record.ports = []
      return
    }
    if (mode !== 'bridge') {
      record.ports = []
      const others = Object.keys(request.endpoints).filter((name) => name !== wanted && directory.find(name).name !== mode)
      if (others.length > 0) throw mode === 'host' ? hostConflict() : noneConflict()
      return
    }
    const main = directory.find(wanted === 'default' || wanted === '' ? 'bridge' : wanted)
    const byId = new Map<string, EndpointRequest>()
    for (const [name, endpoint] of Object.entries(request.endpoints)) byId.set(directory.find(name === 'default' ? 'bridge' : name).id, endpoint)
    const ids = [main.id, ...[...byId.keys()].filter((id) => id !== main.id)]
    record.networks = ids.map((id) => {
      const network = directory.get(id)!
      if (network.driver !== 'bridge') throw network.name === 'host' ? hostConflict() : noneConflict()
      return attachmentOf(network, byId.get(id))
    })
    const first = record.networks[0]!
    first.requestedMac ||= record.config.MacAddress
    const links = record.hostConfig.Links.map(parseLink)
    for (const { target } of links) registry.get(target)
    if (main.record) first.links = [...first.links, ...links.map(({ target, alias }) => `${target}:${alias}`)]
    for (const attachment of record.networks) for (const link of attachment.links) registry.get(parseLink(link).target)
  }

  /** What makes no sense in somebody else's network (moby runconfig, validateNetContainerMode). */
  #checkShared(record: ContainerRecord): void {
    const { config, hostConfig: host } = record
    const refuse = (present: boolean, what: string) => {
      if (present) throw badRequest(`conflicting options: ${what}`)
    }
    refuse(config.Hostname !== '', 'hostname and the network mode')
    refuse(host.Links.length > 0, "container type network can't be used with links. This would result in undefined behavior")
    refuse(host.Dns.length > 0, 'dns and the network mode')
    refuse(host.ExtraHosts.length > 0, 'custom host-to-IP mapping and the network mode')
    refuse(config.MacAddress !== '', 'mac-address and the network mode')
    refuse(record.ports.length > 0 || host.PublishAllPorts, 'port publishing and the container type network mode')
    refuse(Object.keys(config.ExposedPorts).length > 0 && Object.keys(host.PortBindings).length > 0, 'port exposing and the container type network mode')
  }

  // start --------------------------------------------------------------------------------------------------

  /** Addresses, names and host ports for a start. The caller writes the record before anything comes to be in the kernel, and releases all when this fails. */
  async allocate(record: ContainerRecord): Promise<void> {
    if (networkModeOf(record) !== 'bridge') return
    const { network, directory } = this.parts
    const specs = record.networks.map((attachment) => network.networkSpec(directory.floorId(attachment.networkId)))
    const missing = record.networks[specs.findIndex((spec) => spec === undefined)]
    if (missing) throw notFound(`network ${missing.networkId} not found`)
    // Published ports lead to where the default route is.
    const outer = specs.filter((spec) => !spec!.internal).sort((a, b) => (a!.name < b!.name ? -1 : 1))[0]
    for (const [index, attachment] of record.networks.entries()) {
      attachment.endpoint = await this.#allocate(record, attachment, `eth${index}`, specs[index] === outer)
    }
  }

  async #allocate(record: ContainerRecord, attachment: NetworkAttachment, interfaceName: string, withPorts: boolean): Promise<Endpoint> {
    const { network, directory, registry } = this.parts
    const links: Record<string, string> = {}
    for (const text of attachment.links) {
      const { target, alias } = parseLink(text)
      links[alias.toLowerCase()] = registry.get(target).id
    }
    const published = withPorts ? record.ports : []
    const ranged = Math.max(0, ...published.map((port) => port.hostPortEnd - port.hostPortStart))
    for (let offset = 0; ; offset++) {
      const ports: PortBinding[] = published.map((port) => ({
        containerPort: port.containerPort, protocol: port.protocol === 'udp' ? 'udp' : 'tcp', hostIp: port.hostIp,
        hostPort: Math.min(port.hostPortStart + offset, port.hostPortEnd),
      }))
      try {
        return await network.allocate(record.id, {
          networkId: directory.floorId(attachment.networkId), interfaceName, ports, name: record.name, mac: attachment.requestedMac,
          address: attachment.requestedAddress, address6: attachment.requestedAddress6, names: dnsNames(record, attachment, directory), links,
          dns: record.hostConfig.Dns,
        })
      } catch (error) {
        // A range of host ports means "the first that is free"; any other failure is final.
        if (offset >= ranged || !/already (allocated|in use)/.test(messageOf(error))) throw error
      }
    }
  }

  /** What a start's sandbox is plugged into. `ahead`: it was made ahead, with a tap. */
  async plug(record: ContainerRecord, ahead = false): Promise<SandboxAttachments> {
    const { network } = this.parts
    const mode = networkModeOf(record)
    const [first, ...more] = endpointsOf(record)
    if (ahead && first) {
      await network.plugTap(first, ...more)
      return {}
    }
    if (record.isolation === 'vm') return first ? { tapFd: (await network.connectTap(first, ...more)).tapFd } : {}
    if (mode === 'container') return { netnsPath: `/proc/${this.#joined(record).sandbox!.pid}/ns/net` }
    if (mode === 'host') return {}
    return { netnsPath: (first ? await network.connectNamespace(first, ...more) : await network.isolatedNamespace(record.id)).netnsPath }
  }

  #joined(record: ContainerRecord): Container {
    const target = this.parts.registry.get(record.hostConfig.NetworkMode.slice('container:'.length))
    if (!target.isUp || !target.sandbox) throw conflict(`cannot join network of a non running container: ${target.id}`)
    if (target.sandbox.ownKernel) throw badRequest(`cannot join network of ${target.id}: it is inside a kernel of its own (gVisor)`)
    return target
  }

  async publish(record: ContainerRecord): Promise<void> {
    for (const endpoint of endpointsOf(record)) if (endpoint.ports.length > 0) await this.parts.network.publish(endpoint)
  }

  /** The network's part of what a sandbox is told. */
  async place(record: ContainerRecord, starting: boolean): Promise<NetworkPlace> {
    const { network, directory } = this.parts
    const mode = networkModeOf(record)
    const place: NetworkPlace = { hostGateway: network.bridge.gateway, network: { mode: mode === 'host' ? 'host' : 'none' }, hosts: [], nameServer: this.#nameServer(record), env: [] }
    if (mode === 'container') return starting ? { ...place, ...(await this.#sharedFiles(record)) } : place
    const endpoints = endpointsOf(record)
    const [first] = endpoints
    if (mode !== 'bridge' || !first) return place
    const route = this.#route(endpoints)
    const interfaces = starting ? endpoints.map((endpoint) => network.guestInterface(endpoint)) : []
    place.network = {
      mode: 'bridge', address: first.address, prefixLength: first.prefixLength, gateway: network.gatewayEndpoint(endpoints) === first ? first.gateway : '', mac: first.mac,
      mtu: network.networkSpec(first.networkId ?? '')?.mtu ?? network.bridge.mtu, interfaces, ...(route ? { route } : {}),
    }
    place.hosts = endpoints.flatMap((endpoint) => [endpoint.address, ...(endpoint.ipv6 ? [endpoint.ipv6.address] : [])])
    if (starting && record.networks.some((attachment) => attachment.networkId === directory.ids.bridge)) {
      const links = legacyLinks({ ...record, hostConfig: { ...record.hostConfig, Links: this.#isMain(record, directory.ids.bridge) ? record.hostConfig.Links : [] } }, this.parts.registry, directory.ids.bridge)
      place.linkHosts = links.hosts
      place.env = links.env
    }
    return place
  }

  #isMain(record: ContainerRecord, id: string): boolean {
    return record.networks[0]?.networkId === id
  }

  async #sharedFiles(record: ContainerRecord): Promise<Pick<NetworkPlace, 'shared'>> {
    const target = this.#joined(record)
    const directory = join(this.parts.paths.execRoot, 'containers', target.id)
    const [hosts, hostname, resolv] = await Promise.all(['hosts', 'hostname', 'resolv.conf'].map((name) => readFile(join(directory, name), 'utf8')))
    return { shared: { hosts: hosts!, hostname: hostname!.trim(), resolvConf: resolv! } }
  }

  /** The gateway that answers for names: that of the first user-defined network, of those with a way out if there is one (an internal network's server asks nobody outside for it); '' when there is none. */
  #nameServer(record: ContainerRecord): string {
    const { network, directory } = this.parts
    const named = record.networks.filter((attachment) => attachment.endpoint && directory.get(attachment.networkId)?.record)
    const first = named.find(({ networkId }) => network.networkSpec(networkId)?.internal === false) ?? named[0]
    return first ? (network.networkSpec(first.networkId)?.gateway ?? '') : ''
  }

  #route(endpoints: readonly Endpoint[]): { interfaceName: string; gateway: string; gateway6: string } | undefined {
    const gateway = this.parts.network.gatewayEndpoint(endpoints)
    return gateway && { interfaceName: gateway.interfaceName ?? 'eth0', gateway: gateway.gateway, gateway6: gateway.ipv6?.gateway ?? '' }
  }

  // end ----------------------------------------------------------------------------------------------------

  /** Frees everything of a run. Never rejects. */
  async release(record: ContainerRecord): Promise<void> {
    try {
      await this.parts.network.release(record.id)
    } catch (error) {
      log.error('cannot release a network endpoint', { id: record.id, error: messageOf(error) })
    }
    this.forget(record)
  }

  /** The record has no endpoints any more. */
  forget(record: ContainerRecord): void {
    for (const attachment of record.networks) {
      if (attachment.endpoint) this.#announce('disconnect', attachment.networkId, record.id)
      delete attachment.endpoint
    }
    record.networks = record.networks.filter((attachment) => !attachment.pending)
  }

  announceConnects(record: ContainerRecord): void {
    for (const { networkId } of record.networks) this.#announce('connect', networkId, record.id)
  }

  #announce(action: string, networkId: string, containerId: string): void {
    const network = this.parts.directory.get(networkId)
    if (network) this.parts.events.publish('network', action, networkId, { container: containerId, name: network.name, type: network.driver })
  }

  active(record: ContainerRecord): Endpoint[] {
    return endpointsOf(record)
  }

  /** The container has another name. */
  renamed(record: ContainerRecord): void {
    for (const attachment of record.networks) {
      if (attachment.endpoint?.names) this.parts.network.rename(attachment.endpoint, dnsNames(record, attachment, this.parts.directory))
    }
  }

  // while it runs ------------------------------------------------------------------------------------------

  async connect(container: Container, network: NetworkName, request: EndpointRequest): Promise<void> {
    const { record } = container
    this.#checkChangeable(container)
    const mode = networkModeOf(record)
    if (mode === 'host' || network.name === 'host') throw hostConflict()
    if (mode === 'none' || network.name === 'none') throw noneConflict()
    if (mode === 'container') throw sharedConflict()
    const attachment = attachmentOf(network, request)
    for (const link of attachment.links) this.parts.registry.get(parseLink(link).target)
    const there = record.networks.findIndex((other) => other.networkId === network.id)
    if (!container.isUp) {
      if (there >= 0) record.networks[there] = attachment
      else record.networks.push(attachment)
      await this.parts.store.save(record)
      return
    }
    if (there >= 0) throw forbidden(`endpoint with name ${record.name} already exists in network ${network.name}`)
    await this.#plugIn(container, attachment)
    this.#announce('connect', network.id, record.id)
  }

  #checkChangeable(container: Container): void {
    const { status } = container.record.state
    if (status === 'removing' || status === 'dead') throw conflict('container is marked for removal and cannot be connected or disconnected to the network')
    if (status === 'paused' && container.record.isolation === 'vm') throw conflict(`container ${container.id} is paused, unpause the container before its networks change`)
    if (container.isUp && container.sandbox?.ownKernel) throw notImplemented('the networks of a container in gVisor cannot change while it runs: gVisor takes its interfaces when it starts')
  }

  async #plugIn(container: Container, attachment: NetworkAttachment): Promise<void> {
    const { network, store } = this.parts
    const { record } = container
    const others = endpointsOf(record)
    const nameServer = this.#nameServer(record)
    // A container that had no way out, or lost it with its last network, gets its published ports with the next one (moby buildPortsRelatedCreateEndpointOptions).
    const withPorts = !(network.networkSpec(this.parts.directory.floorId(attachment.networkId))?.internal ?? false) && others.every(({ ports }) => ports.length === 0)
    const endpoint = await this.#allocate(record, attachment, freeInterface(others), withPorts)
    attachment.endpoint = endpoint
    attachment.pending = true
    record.networks.push(attachment)
    try {
      await store.save(record)
      await network.attach(endpoint, record.isolation, others)
      if (endpoint.ports.length > 0) await network.publish(endpoint)
      const change: NetworkChange = { add: network.guestInterface(endpoint), hosts: hostsLines(record, endpoint), forget: [] }
      await this.#settle(container, change, nameServer)
    } catch (error) {
      await this.#pullOut(container, attachment).catch((failure: unknown) => log.error('cannot undo a connect', { id: record.id, error: messageOf(failure) }))
      throw error instanceof HullError ? error : conflict(`cannot connect ${record.name} to network ${attachment.network}: ${messageOf(error)}`, error)
    }
    delete attachment.pending
    await store.save(record)
  }

  async disconnect(container: Container, network: NetworkName): Promise<void> {
    const { record } = container
    this.#checkChangeable(container)
    if (network.name === 'host') throw hostConflict()
    const attachment = record.networks.find((other) => other.networkId === network.id)
    if (!attachment) throw forbidden(`container ${record.id} is not connected to network ${network.name}`)
    if (container.isUp) {
      attachment.pending = true
      await this.parts.store.save(record)
      await this.#pullOut(container, attachment)
      this.#announce('disconnect', network.id, record.id)
      return
    }
    record.networks = record.networks.filter((other) => other !== attachment)
    await this.parts.store.save(record)
  }

  async #pullOut(container: Container, attachment: NetworkAttachment): Promise<void> {
    const { network, store } = this.parts
    const { record } = container
    const { endpoint } = attachment
    const nameServer = this.#nameServer(record)
    record.networks = record.networks.filter((other) => other !== attachment)
    const rest = endpointsOf(record)
    const gateway = network.gatewayEndpoint(rest)
    if (endpoint && gateway && endpoint.ports.length > 0) await network.movePorts(endpoint, gateway)
    if (endpoint) {
      const change: NetworkChange = { remove: endpoint.interfaceName ?? 'eth0', hosts: [], forget: [endpoint.address, ...(endpoint.ipv6 ? [endpoint.ipv6.address] : [])] }
      // The guest first: a default route by an interface that is gone would take its connections with it.
      await this.#settle(container, change, nameServer).catch((error: unknown) => log.warn('cannot take a network from a container in order', { id: record.id, error: messageOf(error) }))
      await network.detach(endpoint, record.isolation)
      if (record.isolation === 'process') await network.setDefaultRoute(rest)
    }
    await store.save(record)
  }

  /** Default route, ports, /etc/hosts and /etc/resolv.conf after a change. */
  async #settle(container: Container, change: NetworkChange, nameServerBefore: string): Promise<void> {
    const { network } = this.parts
    const { record, sandbox } = container
    const endpoints = endpointsOf(record)
    const nameServer = this.#nameServer(record)
    if (nameServer !== nameServerBefore) change.resolvConf = await resolvConf(record.hostConfig, 'bridge', nameServer)
    const route = this.#route(endpoints)
    if (route) change.route = route
    await sandbox?.changeNetwork(change)
    if (record.isolation === 'process') await network.setDefaultRoute(endpoints)
    const gateway = network.gatewayEndpoint(endpoints)
    const holder = endpoints.find((endpoint) => endpoint.ports.length > 0)
    if (gateway && holder && holder !== gateway) await network.movePorts(holder, gateway)
  }

  /** After a restart of the daemon: what was being connected or disconnected when the last one died is taken away. */
  async finishPending(container: Container): Promise<void> {
    for (const attachment of container.record.networks.filter((other) => other.pending)) {
      await this.#pullOut(container, attachment).catch((error: unknown) => log.error('cannot finish a disconnect', { id: container.id, error: messageOf(error) }))
    }
  }
}

/** The first of eth0, eth1, … that nobody has. */
function freeInterface(endpoints: readonly Endpoint[]): string {
  const taken = new Set(endpoints.map((endpoint) => endpoint.interfaceName ?? 'eth0'))
  for (let i = 0; ; i++) if (!taken.has(`eth${i}`)) return `eth${i}`
}

function hostsLines(record: ContainerRecord, endpoint: Endpoint): string[] {
  return [endpoint.address, ...(endpoint.ipv6 ? [endpoint.ipv6.address] : [])].map((address) => endpointHostsLine(address, record))
}

/** Records of versions that knew one network only. */
export function upgradeNetworks(record: ContainerRecord & { endpoint?: Endpoint; requestedAddress?: string; requestedMac?: string }, bridgeId: string): void {
  if (record.networks) return
  record.networks = []
  if (networkModeOf(record) === 'bridge') {
    record.networks.push({
      ...plainAttachment(bridgeId, 'bridge'), requestedMac: record.requestedMac ?? '', requestedAddress: record.requestedAddress ?? '',
      ...(record.endpoint ? { endpoint: record.endpoint } : {}),
    })
  }
  delete record.endpoint
}
