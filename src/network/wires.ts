import { addBridgePort, createSourcePort, createVeth, deleteLink, isolateBridgePort, linkInfo, removeBridgePort, setLink } from '../host/link.js'
import { addNetnsAddress6, configureInterface, setNetnsRoute } from '../host/netns.js'
import { disableIPv6 } from './kernel.js'
import { randomSuffix, type Names } from './names.js'
import type { Segment } from './segment.js'
import type { Endpoint } from './types.js'

/** An endpoint and the network that it is on. */
export interface Place {
  endpoint: Endpoint
  segment: Segment
}

/** Name of an endpoint's interface inside. */
export const interfaceOf = (endpoint: Pick<Endpoint, 'interfaceName'>): string => endpoint.interfaceName ?? 'eth0'

/** What connects containers and machines with the bridges: veth pairs, taps, and ports behind a tap for each network when there are several. Links of the kernel, by the names of one daemon; no memory of its own. */
export class Wires {
  constructor(private readonly names: Names) {}

  /** The namespace's end of a pair that was made ahead on the default bridge. */
  takeVeth(veth: string, { segment }: Place): void {
    if (segment.id !== '') addBridgePort(segment.bridge, veth)
    if (!segment.spec.icc) isolateBridgePort(veth)
  }

  async makeVeth({ endpoint, segment }: Place, netnsPath: string): Promise<void> {
    const name = this.names.vethPrefix + endpoint.link
    await createVeth({ name, peer: interfaceOf(endpoint), netns: netnsPath, mtu: segment.spec.mtu, bridge: segment.bridge })
    await disableIPv6(name)
    if (!segment.spec.icc) isolateBridgePort(name)
  }

  /** Addresses and, for the endpoint that leads out, the default route. */
  async configure(endpoint: Endpoint, netnsPath: string, isGateway: boolean): Promise<void> {
    const name = interfaceOf(endpoint)
    const { mac, address, prefixLength, ipv6 } = endpoint
    await configureInterface(netnsPath, { name, mac, address, prefixLength, ...(isGateway ? { gateway: endpoint.gateway } : {}) })
    if (!ipv6) return
    await addNetnsAddress6(netnsPath, name, ipv6.address, ipv6.prefixLength)
    if (isGateway) await setNetnsRoute(netnsPath, name, endpoint.gateway, ipv6.gateway)
  }

  /** A tap on one network is that bridge's port; on several it has a port for each, told apart by the guest's hardware addresses. */
  async plugTap(tap: string, places: readonly [Place, ...Place[]]): Promise<void> {
    const [{ segment }] = places
    if (places.length === 1) {
      addBridgePort(segment.bridge, tap)
      if (!segment.spec.icc) isolateBridgePort(tap)
    }
    setLink(tap, { mtu: segment.spec.mtu })
    if (places.length > 1) for (const place of places) await this.makeSourcePort(place, tap)
  }

  async makeSourcePort({ endpoint, segment }: Place, tap: string): Promise<void> {
    endpoint.link ??= randomSuffix()
    const name = this.names.sourcePrefix + endpoint.link
    createSourcePort({ name, lower: tap, bridge: segment.bridge, mac: endpoint.mac })
    await disableIPv6(name)
    if (!segment.spec.icc) isolateBridgePort(name)
  }

  /** One more network for the machine behind a tap. `others`: those that it is on. */
  async attachTap(place: Place, tap: string, bridged: boolean, others: readonly Place[]): Promise<void> {
    if (bridged) {
      removeBridgePort(tap)
      try {
        for (const other of others) await this.makeSourcePort(other, tap)
      } catch (error) {
        for (const { endpoint } of others) deleteLink(this.names.sourcePrefix + (endpoint.link ?? ''))
        if (others[0]) addBridgePort(others[0].segment.bridge, tap)
        throw error
      }
    }
    await this.makeSourcePort(place, tap)
  }

  /** A daemon that died while it went from one network behind a tap to several may have left an endpoint without a port on its bridge. */
  async repairTap(place: Place, tap: string): Promise<void> {
    const info = await linkInfo(tap)
    if (!info || info.bridge !== undefined) return
    if (place.endpoint.link !== undefined && (await linkInfo(this.names.sourcePrefix + place.endpoint.link))) return
    await this.makeSourcePort(place, info.name)
  }
}
