import { formatIPv6, parseIPv6 } from '../address6.js'
import type { Endpoint } from '../types.js'

interface NetworkNames {
  byName: Map<string, Set<Endpoint>>
  byAddress: Map<string, Endpoint>
}

const idOf = (endpoint: Endpoint) => endpoint.networkId ?? ''

/** Who is called what on which network. Only containers that run are in it. Names in any case. */
export class NameTable {
  readonly #networks = new Map<string, NetworkNames>()
  readonly #byContainer = new Map<string, Endpoint[]>()

  add(endpoint: Endpoint): void {
    const network = this.#networks.get(idOf(endpoint)) ?? { byName: new Map<string, Set<Endpoint>>(), byAddress: new Map<string, Endpoint>() }
    this.#networks.set(idOf(endpoint), network)
    for (const name of endpoint.names ?? []) {
      const key = name.toLowerCase()
      const there = network.byName.get(key)
      if (there) there.add(endpoint)
      else network.byName.set(key, new Set([endpoint]))
    }
    network.byAddress.set(endpoint.address, endpoint)
    if (endpoint.ipv6) network.byAddress.set(endpoint.ipv6.address, endpoint)
    this.#byContainer.set(endpoint.containerId, [...(this.#byContainer.get(endpoint.containerId) ?? []), endpoint])
  }

  /** By identity: the names that it was added with. */
  remove(endpoint: Endpoint): void {
    const network = this.#networks.get(idOf(endpoint))
    if (!network) return
    for (const name of endpoint.names ?? []) {
      const key = name.toLowerCase()
      const there = network.byName.get(key)
      there?.delete(endpoint)
      if (there?.size === 0) network.byName.delete(key)
    }
    for (const address of [endpoint.address, endpoint.ipv6?.address ?? '']) if (network.byAddress.get(address) === endpoint) network.byAddress.delete(address)
    if (network.byAddress.size === 0) this.#networks.delete(idOf(endpoint))
    const rest = (this.#byContainer.get(endpoint.containerId) ?? []).filter((other) => other !== endpoint)
    if (rest.length > 0) this.#byContainer.set(endpoint.containerId, rest)
    else this.#byContainer.delete(endpoint.containerId)
  }

  /** Who has an address on a network. IPv6 in any spelling. */
  at(networkId: string, address: string): Endpoint | undefined {
    const value = address.includes(':') ? parseIPv6(address) : undefined
    return this.#networks.get(networkId)?.byAddress.get(value === undefined ? address : formatIPv6(value))
  }

  endpointsOf(containerId: string): readonly Endpoint[] {
    return this.#byContainer.get(containerId) ?? []
  }

  /** Everybody on a network who goes by a name (lower case). */
  named(networkId: string, name: string): readonly Endpoint[] {
    return [...(this.#networks.get(networkId)?.byName.get(name) ?? [])]
  }
}
