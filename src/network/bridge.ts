import { closeSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { badRequest, forbidden, HullError, internal, messageOf, notFound } from '../base/errors.js'
import { log } from '../base/log.js'
import { deleteLink, deleteLinkAsync, linkInfo, listLinks, openTap, removeBridgePort } from '../host/link.js'
import { deleteNetnsLink, setNetnsRoute } from '../host/netns.js'
import { formatIPv4, formatSubnet, macOf, parseIPv4, parseMac, type Cidr } from './address.js'
import { formatIPv6 } from './address6.js'
import { forgetFlowsBefore, forgetFlowsTo } from './conntrack.js'
import { Forwarder, HostResolvers } from './dns/forward.js'
import { NameServer } from './dns/server.js'
import { NameTable } from './dns/table.js'
import { disableIPv6, isOurBridge, lockBridge, type BridgeLock } from './kernel.js'
import { namesOf, randomSuffix, type Names } from './names.js'
import { addCommands, deleteCommands, elementsOf, hasElements } from './nftText.js'
import { planNetwork } from './plan.js'
import { checkBinding, PortAllocator } from './ports.js'
import { RuleKeeper } from './rules.js'
import { Segment } from './segment.js'
import { type NamespaceOwners, SlotPool, tapName } from './slots.js'
import { chooseSubnet, hostBlocks, saveSubnet } from './subnet.js'
import type { BridgeInfo, Endpoint, EndpointWish, GuestInterface, NetworkManager, NetworkSpec, NetworkWish } from './types.js'
import { interfaceOf, Wires, type Place } from './wires.js'

/** Options of {@link BridgeNetwork}. */
export interface BridgeNetworkOptions {
  /** Name of the Linux bridge, unique on the host: all else of this daemon's in the kernel is named after it. */
  bridgeName: string
  /** Gateway in CIDR form (`--bip`, '172.29.0.1/16'); '' or absent: the remembered one or a default that collides with nothing. */
  bip?: string | undefined
  /** Bytes. */
  mtu: number
  /** Kept over boots: the chosen subnet. */
  stateDir: string
  /** Gone after a boot: files of network namespaces. */
  runDir: string
  /** Ready namespaces that are kept; 0: none. */
  poolSize: number
  /** 'nat' (default): the kernel forwards published ports. 'input': they are the daemon's sockets and nothing else, so the host's input rules decide about them. */
  publishedPorts?: 'nat' | 'input'
  /** User namespaces that own the containers' network namespaces (--userns-remap). */
  owners?: NamespaceOwners
}

/** What is known of a container's place on one network. */
interface Entry extends Place {
  /** Its ports are (or are about to be) in the nftables maps. */
  published: boolean
  /** The address is marked as taken for this container. */
  holdsAddress: boolean
}

const networkIdOf = (endpoint: Pick<Endpoint, 'networkId'>) => endpoint.networkId ?? ''
const keyOf = (endpoint: Pick<Endpoint, 'containerId' | 'networkId'>) => `${endpoint.containerId} ${networkIdOf(endpoint)}`

/** The bridged networks of one daemon: addresses, namespaces and taps, names, NAT and published ports. */
export class BridgeNetwork implements NetworkManager {
  readonly bridge: BridgeInfo
  readonly #names: Names
  readonly #wires: Wires
  readonly #rules: RuleKeeper
  readonly #ports = new PortAllocator()
  readonly #slots: SlotPool
  /** By container and network, see {@link keyOf}. */
  readonly #entries = new Map<string, Entry>()
  /** By network id; '' is the default bridge. */
  readonly #segments = new Map<string, Segment>()
  readonly #table = new NameTable()
  readonly #nameServers = new Map<string, { server: NameServer; ports: { udp: number; tcp: number } }>()
  readonly #nameParts = {
    table: this.#table,
    forwarder: new Forwarder(),
    hostResolvers: new HostResolvers(),
    networkName: (id: string) => this.#segments.get(id)?.spec.name,
    mayForward: (containerId: string, networkId: string) => {
      if (this.#segments.get(networkId)?.spec.internal === false) return true
      const outward = this.#table.endpointsOf(containerId).flatMap((endpoint) => this.#segments.get(networkIdOf(endpoint)) ?? []).filter((segment) => !segment.spec.internal)
      return outward.length > 0 && !outward.some((segment) => segment.hasNames)
    },
  }
  #subnet: Cidr | undefined
  /** Networks are made and removed one after the other. */
  #changing: Promise<unknown> = Promise.resolve()
  #stopped = false
  #lock: BridgeLock | undefined
  #startWarnings: string[] = []

  constructor(readonly options: BridgeNetworkOptions) {
    this.#names = namesOf(options.bridgeName)
    this.#wires = new Wires(this.#names)
    this.#rules = new RuleKeeper(this.#names, {
      segments: () => [...this.#segments.values()],
      namePorts: (id) => this.#nameServers.get(id)?.ports,
      published: () => [...this.#entries.values()].filter((entry) => entry.published).map((entry) => entry.endpoint),
    })
    if (!Number.isInteger(options.mtu) || options.mtu < 68 || options.mtu > 65535) throw badRequest(`invalid mtu: ${options.mtu}`)
    this.#slots = new SlotPool({ names: this.#names, runDir: options.runDir, mtu: options.mtu, size: options.poolSize, ...(options.owners ? { owners: options.owners } : {}) })
    this.bridge = { name: options.bridgeName, subnet: '', gateway: '', mtu: options.mtu }
  }

  get #byKernel(): boolean {
    return this.options.publishedPorts !== 'input'
  }

  /** Ready namespaces at this moment. */
  get ready(): { veth: number; isolated: number } {
    return this.#slots.ready
  }

  async start(active: Endpoint[], networks: NetworkSpec[] = []): Promise<void> {
    this.#lock = await lockBridge(this.#names.bridge)
    try {
      await this.#start(active, networks)
    } catch (error) {
      // A bridge with nobody on it must not stay because, say, nft is not installed.
      if (active.length === 0) for (const bridge of await this.#ourBridges()) deleteLink(bridge)
      await this.#closeInProcess()
      throw error
    }
  }

  async #start(active: Endpoint[], networks: NetworkSpec[]): Promise<void> {
    const { stateDir, runDir, bip, mtu } = this.options
    await mkdir(stateDir, { recursive: true, mode: 0o700 })
    await mkdir(runDir, { recursive: true, mode: 0o700 })
    const warnings: string[] = []
    await this.#removeStrayBridges(networks)
    // The user's networks first: what a default is chosen for must not be in their way.
    for (const spec of networks) {
      const segment = new Segment(spec, this.#names)
      this.#segments.set(spec.id, segment)
      try {
        await segment.ensure()
        if (segment.hasNames) await this.#startNames(segment)
      } catch (error) {
        // One network that cannot be must not keep the others down.
        warnings.push(`network ${spec.name}: ${messageOf(error)}`)
        log.error('network: cannot bring up', { network: spec.name, error })
      }
    }
    const { cidr, last, warning } = await chooseSubnet({
      stateDir, bridge: this.#names.bridge, bip, inUse: active.some((endpoint) => networkIdOf(endpoint) === ''),
    })
    if (warning !== undefined) warnings.push(warning)
    this.#subnet = cidr
    const segment = new Segment(defaultSpec(this.#names.bridge, cidr, mtu), this.#names)
    segment.addresses.last = last
    this.#segments.set('', segment)
    Object.assign(this.bridge, { subnet: formatSubnet(cidr), gateway: formatIPv4(cidr.address) })
    await segment.ensure()
    await this.#ports.start()
    for (const endpoint of active) warnings.push(...(await this.#adopt(endpoint)))
    await this.#rules.rewrite()
    await this.#slots.start(
      new Set(active.map((endpoint) => endpoint.containerId)),
      new Set(active.flatMap(({ link }) => (link === undefined ? [] : [this.#names.vethPrefix + link, this.#names.sourcePrefix + link]))),
    )
    for (const endpoint of active) {
      const entry = this.#entries.get(keyOf(endpoint))
      if (entry) await this.#wires.repairTap({ endpoint, segment: entry.segment }, tapName(this.#names, endpoint.containerId)).catch((error: unknown) => log.error('network: cannot repair a tap', { id: endpoint.containerId, error }))
    }
    this.#startWarnings = warnings
    await this.#rules.watch()
  }

  async stop(everything: boolean, networks: NetworkSpec[] = []): Promise<void> {
    // A clean-up without a start: the user's own names for bridges are in nobody's memory.
    for (const spec of networks) if (!this.#segments.has(spec.id)) this.#segments.set(spec.id, new Segment(spec, this.#names))
    this.#stopped = true
    await this.#changing.catch(() => {})
    await this.#rules.stop()
    try {
      await this.#slots.stop()
      if (everything) await this.#removeEverything()
      else if (this.#subnet) {
        const bip = `${formatIPv4(this.#subnet.address)}/${this.#subnet.prefixLength}`
        await saveSubnet(this.options.stateDir, { bip, last: this.#segments.get('')?.addresses.last ?? '' })
      }
    } finally {
      await this.#closeInProcess()
    }
  }

  /** Timers, sockets, the pool, the lock: all that lives in this process. */
  async #closeInProcess(): Promise<void> {
    this.#stopped = true
    await this.#slots.stop()
    await this.#ports.close()
    await Promise.all([...this.#nameServers.values()].map(({ server }) => server.close()))
    this.#rules.close()
    this.#entries.clear()
    await this.#lock?.release()
    this.#lock = undefined
  }

  // networks -----------------------------------------------------------------------------------------------

  networkSpec(id: string): NetworkSpec | undefined {
    return this.#segments.get(id)?.spec
  }

  async plan(wish: NetworkWish): Promise<{ spec: NetworkSpec; warnings: string[] }> {
    this.#started()
    const used = await hostBlocks(new Set([...this.#segments.values()].map((segment) => segment.bridge)))
    return planNetwork(wish, { names: this.#names, networks: [...this.#segments.values()].map((segment) => segment.spec), used, mtu: this.options.mtu })
  }

  createNetwork(spec: NetworkSpec): Promise<void> {
    return this.#change(async () => {
      const segment = new Segment(spec, this.#names)
      if ((await linkInfo(spec.bridge)) !== undefined && !(await isOurBridge(spec.bridge))) throw forbidden(`cannot make the bridge ${spec.bridge}: a link of that name exists`)
      this.#segments.set(spec.id, segment)
      try {
        await segment.ensure()
        await this.#startNames(segment)
        await this.#rules.rewrite()
        await this.#rules.lookNow()
      } catch (error) {
        await this.#dropSegment(segment).catch((failure: unknown) => log.error('network: cannot clean up', { network: spec.name, error: failure }))
        throw error instanceof HullError ? error : internal(messageOf(error), error)
      }
    })
  }

  removeNetwork(id: string): Promise<void> {
    return this.#change(async () => {
      const segment = this.#segments.get(id)
      if (!segment) return
      if ([...this.#entries.values()].some((entry) => entry.segment === segment)) throw forbidden(`network ${segment.spec.name} has active endpoints`)
      await this.#dropSegment(segment)
    })
  }

  async #dropSegment(segment: Segment): Promise<void> {
    this.#segments.delete(segment.id)
    const names = this.#nameServers.get(segment.id)
    this.#nameServers.delete(segment.id)
    await names?.server.close()
    await this.#rules.rewrite()
    await this.#rules.removeOf(segment.bridge)
    if (await isOurBridge(segment.bridge)) await deleteLinkAsync(segment.bridge)
  }

  #change<T>(step: () => Promise<T>): Promise<T> {
    const result = this.#changing.then(() => {
      this.#started()
      return step()
    })
    this.#changing = result.catch(() => {})
    return result
  }

  async #startNames(segment: Segment): Promise<void> {
    const server = new NameServer(segment.id, segment.gatewayText, this.#nameParts)
    this.#nameServers.set(segment.id, { server, ports: await server.start() })
  }

  /** Bridges with a name of ours that belong to no network: a daemon died while it made or removed one. */
  async #removeStrayBridges(networks: readonly NetworkSpec[]): Promise<void> {
    const known = new Set(networks.map((spec) => spec.bridge))
    for (const bridge of await listLinks(this.#names.userPrefix)) if (!known.has(bridge) && (await isOurBridge(bridge))) deleteLink(bridge)
  }

  async #ourBridges(): Promise<string[]> {
    const candidates = new Set([this.#names.bridge, ...(await listLinks(this.#names.userPrefix)), ...[...this.#segments.values()].map((segment) => segment.bridge)])
    const ours: string[] = []
    for (const bridge of candidates) if (await isOurBridge(bridge)) ours.push(bridge)
    return ours
  }

  // endpoints ----------------------------------------------------------------------------------------------

  async allocate(containerId: string, wish: EndpointWish): Promise<Endpoint> {
    this.#started()
    checkId(containerId)
    const networkId = wish.networkId ?? ''
    const segment = this.#segments.get(networkId)
    if (!segment) throw notFound(`network ${networkId} not found`)
    const name = wish.name ?? containerId.slice(0, 12)
    const key = keyOf({ containerId, networkId })
    if (this.#entries.has(key)) throw forbidden(`endpoint with name ${name} already exists in network ${segment.spec.name}`)
    const mac = wish.mac ? parseMac(wish.mac) : ''
    const address = segment.addresses.allocate(wish.address)
    let address6: string | undefined
    try {
      if (wish.address6 && !segment.addresses6) throw badRequest(`invalid address ${wish.address6}: It does not belong to any of this network's subnets`)
      address6 = segment.addresses6?.allocate(wish.address6)
    } catch (error) {
      segment.addresses.release(address)
      throw error
    }
    const { addresses6 } = segment
    const endpoint: Endpoint = {
      containerId, address, prefixLength: segment.cidr.prefixLength, gateway: segment.spec.internal ? '' : segment.gatewayText,
      mac: mac || macOf(parseIPv4(address)!), ports: [],
      ...(networkId === '' ? {} : { networkId }),
      ...(wish.interfaceName === undefined || wish.interfaceName === 'eth0' ? {} : { interfaceName: wish.interfaceName }),
      link: randomSuffix(),
      ...(address6 !== undefined && addresses6
        ? { ipv6: { address: address6, prefixLength: addresses6.subnet.prefixLength, gateway: segment.spec.internal ? '' : formatIPv6(addresses6.subnet.address) } }
        : {}),
      ...(wish.names && wish.names.length > 0 ? { names: wish.names } : {}),
      ...(wish.links && Object.keys(wish.links).length > 0 ? { links: wish.links } : {}),
      ...(wish.dns && wish.dns.length > 0 ? { dns: wish.dns } : {}),
    }
    this.#entries.set(key, { endpoint, segment, published: false, holdsAddress: true })
    try {
      const ports = wish.ports.map((binding) => (binding.hostIp === '' && segment.spec.hostBinding !== '' ? { ...binding, hostIp: segment.spec.hostBinding } : binding))
      endpoint.ports = await this.#ports.take(containerId, address, ports)
      this.#table.add(endpoint)
      return endpoint
    } catch (error) {
      this.#entries.delete(key)
      segment.addresses.release(address)
      if (address6 !== undefined) addresses6?.release(address6)
      throw externalError(name, containerId, error)
    }
  }

  async connectNamespace(endpoint: Endpoint, ...more: Endpoint[]): Promise<{ netnsPath: string }> {
    const entry = this.#entry(endpoint)
    const all = [endpoint, ...more]
    const gateway = this.gatewayEndpoint(all)
    // A namespace made ahead has an interface on the default bridge; another network's takes it over when nothing about it differs.
    const ready = interfaceOf(endpoint) === 'eth0' && entry.segment.spec.mtu === this.options.mtu
    const { name, netnsPath } = await this.#slots.take(endpoint.containerId, ready ? 's' : 'i')
    try {
      if (ready) this.#wires.takeVeth(this.#names.vethPrefix + name.slice(1), entry)
      else await this.#wires.makeVeth(this.#placeOf(endpoint), netnsPath)
      await this.#wires.configure(endpoint, netnsPath, endpoint === gateway)
      for (const other of more) {
        await this.#wires.makeVeth(this.#placeOf(other), netnsPath)
        await this.#wires.configure(other, netnsPath, other === gateway)
      }
    } catch (error) {
      await this.#slots.release(endpoint.containerId)
      throw internal(`cannot configure the network of ${endpoint.containerId.slice(0, 12)}: ${messageOf(error)}`, error)
    }
    return { netnsPath }
  }

  async tapAhead(containerId: string): Promise<number> {
    this.#started()
    checkId(containerId)
    const name = tapName(this.#names, containerId)
    const tapFd = openTap(name)
    try {
      await disableIPv6(name)
    } catch (error) {
      closeSync(tapFd)
      throw error
    }
    return tapFd
  }

  async connectTap(endpoint: Endpoint, ...more: Endpoint[]): Promise<{ tapFd: number; name: string }> {
    const tapFd = await this.tapAhead(endpoint.containerId)
    try {
      await this.plugTap(endpoint, ...more)
    } catch (error) {
      closeSync(tapFd)
      throw error
    }
    return { tapFd, name: tapName(this.#names, endpoint.containerId) }
  }

  async plugTap(endpoint: Endpoint, ...more: Endpoint[]): Promise<void> {
    const first = this.#placeOf(endpoint)
    try {
      await this.#wires.plugTap(tapName(this.#names, endpoint.containerId), [first, ...more.map((other) => this.#placeOf(other))])
    } catch (error) {
      throw internal(`cannot connect the tap of ${endpoint.containerId.slice(0, 12)}: ${messageOf(error)}`, error)
    }
  }

  async attach(endpoint: Endpoint, kind: 'process' | 'vm', others: Endpoint[]): Promise<void> {
    this.#entry(endpoint)
    if (kind === 'process') {
      const netnsPath = await this.#slots.pathOf(endpoint.containerId)
      if (netnsPath === undefined) throw internal(`container ${endpoint.containerId} has no network namespace`)
      await this.#wires.makeVeth(this.#placeOf(endpoint), netnsPath)
      await this.#wires.configure(endpoint, netnsPath, false)
      return
    }
    const tap = tapName(this.#names, endpoint.containerId)
    const info = await linkInfo(tap)
    if (!info) throw internal(`container ${endpoint.containerId} has no tap`)
    await this.#wires.attachTap(this.#placeOf(endpoint), tap, info.bridge !== undefined, others.map((other) => this.#placeOf(other)))
  }

  async detach(endpoint: Endpoint, kind: 'process' | 'vm'): Promise<void> {
    const key = keyOf(endpoint)
    const entry = this.#entries.get(key)
    this.#entries.delete(key)
    const results = await Promise.allSettled([
      entry ? this.#forget(entry) : undefined,
      entry && entry.endpoint.ports.length > 0 ? this.#ports.release(endpoint.containerId) : undefined,
      kind === 'process' ? this.#removeInterface(endpoint) : this.#removePort(endpoint),
    ])
    if (entry) this.#freeAddresses(entry)
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }

  async #removeInterface(endpoint: Endpoint): Promise<void> {
    const netnsPath = await this.#slots.pathOf(endpoint.containerId)
    if (netnsPath !== undefined) await deleteNetnsLink(netnsPath, interfaceOf(endpoint))
  }

  async #removePort(endpoint: Endpoint): Promise<void> {
    const tap = tapName(this.#names, endpoint.containerId)
    const bridge = (await linkInfo(tap))?.bridge
    if (bridge !== undefined && bridge === this.#segments.get(networkIdOf(endpoint))?.bridge) removeBridgePort(tap)
    if (endpoint.link !== undefined) await deleteLinkAsync(this.#names.sourcePrefix + endpoint.link)
  }

  gatewayEndpoint(endpoints: readonly Endpoint[]): Endpoint | undefined {
    const name = (endpoint: Endpoint) => this.#segments.get(networkIdOf(endpoint))?.spec.name ?? ''
    return endpoints.filter((endpoint) => endpoint.gateway !== '').sort((a, b) => (name(a) < name(b) ? -1 : 1))[0]
  }

  async setDefaultRoute(endpoints: readonly Endpoint[]): Promise<void> {
    const first = endpoints[0]
    const netnsPath = first && (await this.#slots.pathOf(first.containerId))
    if (netnsPath === undefined) return
    const gateway = this.gatewayEndpoint(endpoints)
    // The new one first: it replaces the old.
    if (gateway) await setNetnsRoute(netnsPath, interfaceOf(gateway), gateway.gateway, gateway.ipv6?.gateway ?? '')
    for (const endpoint of endpoints) if (endpoint !== gateway) await setNetnsRoute(netnsPath, interfaceOf(endpoint), '')
  }

  guestInterface(endpoint: Endpoint): GuestInterface {
    const { segment } = this.#entry(endpoint)
    const { mac, address, prefixLength, ipv6 } = endpoint
    return {
      name: interfaceOf(endpoint), mac, address, prefixLength, mtu: segment.spec.mtu,
      ...(ipv6 ? { ipv6: { address: ipv6.address, prefixLength: ipv6.prefixLength } } : {}),
    }
  }

  async publish(endpoint: Endpoint): Promise<void> {
    const entry = this.#entry(endpoint)
    if (!this.#byKernel || !hasElements(entry.endpoint.ports)) return
    entry.published = true
    try {
      await this.#rules.command(addCommands(this.#names.table, elementsOf(entry.endpoint)))
    } catch (error) {
      entry.published = false
      throw externalError(endpoint.containerId.slice(0, 12), endpoint.containerId, error)
    }
    void forgetFlowsBefore(entry.endpoint.ports)
    this.#rules.lookAtPublish()
  }

  async movePorts(from: Endpoint, to: Endpoint): Promise<void> {
    const [source, target] = [this.#entry(from), this.#entry(to)]
    const ports = source.endpoint.ports
    if (ports.length === 0) return
    if (source.published) await this.#unpublish(source.endpoint)
    source.published = false
    await this.#ports.release(from.containerId)
    source.endpoint.ports = from.ports = []
    target.endpoint.ports = to.ports = await this.#ports.take(to.containerId, to.address, ports)
    await this.publish(to)
  }

  rename(endpoint: Endpoint, names: string[]): void {
    const entry = this.#entries.get(keyOf(endpoint))
    if (entry) this.#table.remove(entry.endpoint)
    endpoint.names = names
    if (!entry) return
    entry.endpoint.names = names
    this.#table.add(entry.endpoint)
  }

  async isolatedNamespace(containerId: string): Promise<{ netnsPath: string }> {
    this.#started()
    checkId(containerId)
    const { netnsPath } = await this.#slots.take(containerId, 'i')
    return { netnsPath }
  }

  async release(containerId: string): Promise<void> {
    checkId(containerId)
    const entries = [...this.#table.endpointsOf(containerId)].flatMap((endpoint) => this.#entries.get(keyOf(endpoint)) ?? [])
    for (const entry of entries) this.#entries.delete(keyOf(entry.endpoint))
    // Each part is tried whatever happens to the others: nothing may stay because something else could not go.
    const results = await Promise.allSettled([...entries.map((entry) => this.#forget(entry)), this.#ports.release(containerId), this.#slots.release(containerId)])
    for (const entry of entries) this.#freeAddresses(entry)
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }

  /** Names and rules of an endpoint that is no more. */
  async #forget(entry: Entry): Promise<void> {
    this.#table.remove(entry.endpoint)
    if (entry.published) await this.#unpublish(entry.endpoint)
  }

  #freeAddresses({ endpoint, segment, holdsAddress }: Entry): void {
    if (!holdsAddress) return
    segment.addresses.release(endpoint.address)
    if (endpoint.ipv6) segment.addresses6?.release(endpoint.ipv6.address)
  }

  warnings(): string[] {
    return [...this.#startWarnings, ...this.#rules.warnings]
  }

  #started(): void {
    if (!this.#segments.has('') || this.#stopped) throw internal('the network is not started')
  }

  /** The endpoint as the caller has it: what becomes of it is in his record, too. */
  #placeOf(endpoint: Endpoint): Place {
    return { endpoint, segment: this.#entry(endpoint).segment }
  }

  #entry(endpoint: Endpoint): Entry {
    this.#started()
    const entry = this.#entries.get(keyOf(endpoint))
    if (!entry) throw notFound(`endpoint of ${endpoint.containerId} not found in network ${this.#segments.get(networkIdOf(endpoint))?.spec.name ?? networkIdOf(endpoint)}`)
    return entry
  }

  /** Takes a running container's place as it is. Returns what is wrong with it. */
  async #adopt(endpoint: Endpoint): Promise<string[]> {
    const who = `container ${endpoint.containerId.slice(0, 12)}`
    const segment = this.#segments.get(networkIdOf(endpoint))
    try {
      checkId(endpoint.containerId)
      if (!segment) throw notFound(`network ${networkIdOf(endpoint)} not found`)
      if (parseIPv4(endpoint.address) === undefined) throw badRequest(`invalid address ${endpoint.address}`)
      endpoint.ports.forEach(checkBinding)
    } catch (error) {
      return [`${who}: its network is not usable: ${messageOf(error)}`]
    }
    const holdsAddress = segment.addresses.mark(endpoint.address)
    if (endpoint.ipv6) segment.addresses6?.mark(endpoint.ipv6.address)
    const { ports, problems } = endpoint.ports.length > 0 ? await this.#ports.adopt(endpoint.containerId, endpoint.address, endpoint.ports) : { ports: [], problems: [] }
    const adopted = { ...endpoint, ports }
    this.#entries.set(keyOf(endpoint), { endpoint: adopted, segment, published: this.#byKernel, holdsAddress })
    this.#table.add(adopted)
    if (!holdsAddress) problems.push(`its address ${endpoint.address} is not in ${segment.subnetText} or used twice: restart it`)
    return problems.map((problem) => `${who}: ${problem}`)
  }

  async #unpublish(endpoint: Endpoint): Promise<void> {
    if (hasElements(endpoint.ports)) await this.#rules.command(deleteCommands(this.#names.table, elementsOf(endpoint)))
    await forgetFlowsTo(endpoint.address, endpoint.ports)
  }

  /** Never what another daemon holds, nor a bridge that is not ours. */
  async #removeEverything(): Promise<void> {
    this.#lock ??= await lockBridge(this.#names.bridge)
    await this.#slots.removeLeftovers(new Set())
    for (const bridge of await this.#ourBridges()) deleteLink(bridge)
    await this.#rules.removeAll()
    await rm(this.options.runDir, { recursive: true, force: true })
    await rm(join(this.options.stateDir, 'subnet.json'), { force: true })
  }
}

function defaultSpec(bridge: string, cidr: Cidr, mtu: number): NetworkSpec {
  return {
    id: '', name: 'bridge', bridge, subnet: formatSubnet(cidr), gateway: formatIPv4(cidr.address), ipRange: '', reserved: [], subnet6: '', gateway6: '',
    internal: false, icc: true, masquerade: true, hostBinding: '', mtu,
  }
}

/** Container ids become file and link names. */
function checkId(containerId: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/.test(containerId)) throw badRequest(`invalid container id ${JSON.stringify(containerId)}`)
}

/** Docker's frame around what went wrong with a port; a 400 is the caller's own and stays as it is. */
function externalError(name: string, containerId: string, error: unknown): HullError {
  if (error instanceof HullError && error.statusCode === 400) return error
  return internal(`driver failed programming external connectivity on endpoint ${name} (${containerId}): ${messageOf(error)}`, error)
}
