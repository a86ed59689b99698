import { formatIPv4, formatSubnet, type Cidr } from './address.js'
import type { Names } from './names.js'
import type { Endpoint, PortBinding } from './types.js'

// Everything that is put into nft's text comes from Names, Cidr and endpoints that were checked before (addresses parsed, ports in range,
// protocol one of two words): no user string reaches nft.

/** Elements of one container in our maps and set, as nft writes them. */
export interface Elements {
  /** Map `ports`: published on every IPv4 address of the host. */
  ports: Element[]
  /** Map `addressed`: published on one address. */
  addressed: Element[]
  /** Sets: the container's own ports in `ports`, and those in `addressed`. */
  own: Element[]
  ownAddressed: Element[]
}

/** A key, and for maps the value. */
export interface Element {
  key: string
  value?: string
}

/** Whether a binding's host address means every IPv4 address of the host. */
export function isAnyIPv4(hostIp: string): boolean {
  return hostIp === '' || hostIp === '0.0.0.0'
}

/** The elements that publish `endpoint`'s ports. IPv6 host addresses have none: the daemon's proxy carries them. */
export function elementsOf(endpoint: Pick<Endpoint, 'address' | 'ports'>): Elements {
  const elements: Elements = { ports: [], addressed: [], own: [], ownAddressed: [] }
  const ownAddressed = new Set<string>()
  for (const binding of endpoint.ports) {
    if (binding.hostIp.includes(':')) continue
    const port = `${binding.protocol} . ${binding.hostPort}`
    const value = `${endpoint.address} . ${binding.containerPort}`
    const own = `${endpoint.address} . ${port}`
    if (isAnyIPv4(binding.hostIp)) {
      elements.ports.push({ key: port, value })
      elements.own.push({ key: own })
    } else {
      elements.addressed.push({ key: `${binding.hostIp} . ${port}`, value })
      ownAddressed.add(own) // the same port on two addresses is one element
    }
  }
  elements.ownAddressed = [...ownAddressed].map((key) => ({ key }))
  return elements
}

/** Whether a port needs elements at all. */
export function hasElements(ports: readonly PortBinding[]): boolean {
  return ports.some((binding) => !binding.hostIp.includes(':'))
}

const names = ['ports', 'addressed', 'own', 'ownAddressed'] as const

function list(elements: readonly Element[], withValue: boolean): string {
  return elements.map((element) => (withValue && element.value !== undefined ? `${element.key} : ${element.value}` : element.key)).join(', ')
}

/** nft commands that add a container's elements: one each for the maps and the set that get any. */
export function addCommands(table: string, elements: Elements): string[] {
  return names.filter((name) => elements[name].length > 0).map((name) => `add element ip ${table} ${name} { ${list(elements[name], true)} }`)
}

/** nft commands that remove exactly what {@link addCommands} added. */
export function deleteCommands(table: string, elements: Elements): string[] {
  return names.filter((name) => elements[name].length > 0).map((name) => `delete element ip ${table} ${name} { ${list(elements[name], false)} }`)
}

/** Names of the chains of our table: when one is missing somebody flushed it. */
export const chainNames = ['raw', 'prerouting', 'output', 'published', 'postrouting', 'forward'] as const

/**
 * The whole table with the elements of `endpoints`, as one nft script: replaces what was there in one transaction, so a running
 * container's ports are never unreachable. Established connections live in conntrack and do not notice.
 */
export function tableText(owner: Names, subnet: Cidr, endpoints: Iterable<Pick<Endpoint, 'address' | 'ports'>>): string {
  const { table } = owner
  const bridge = `"${owner.bridge}"`
  const block = formatSubnet(subnet)
  const lines: Element[][] = names.map(() => [])
  for (const endpoint of endpoints) {
    const elements = elementsOf(endpoint)
    names.forEach((name, i) => lines[i]!.push(...elements[name]))
  }
  const filled = (i: number) => (lines[i]!.length > 0 ? `\n    elements = { ${list(lines[i]!, true)} }` : '')
  return `add table ip ${table}
delete table ip ${table}
table ip ${table} {
  map ports {
    type inet_proto . inet_service : ipv4_addr . inet_service${filled(0)}
  }
  map addressed {
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service${filled(1)}
  }
  set own {
    type ipv4_addr . inet_proto . inet_service${filled(2)}
  }
  set ownAddressed {
    type ipv4_addr . inet_proto . inet_service${filled(3)}
  }
  # route_localnet is set on the bridge: without this a container could talk to services on the host's 127.0.0.1 (CVE-2020-8558).
  chain raw {
    type filter hook prerouting priority raw; policy accept;
    iifname ${bridge} ip daddr 127.0.0.0/8 drop
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump published
  }
  chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump published
  }
  chain published {
    # A container that calls its own published port: with bridge netfilter the frame would have to leave by the port that it came in
    # by, which a bridge does not do. It reaches the daemon's listening socket instead, and the proxy behind it. A socket of every address
    # answers UDP from the address nearest to the caller, so the call goes to that one.
    iifname ${bridge} ip saddr . meta l4proto . th dport @own dnat to ${formatIPv4(subnet.address)}
    iifname ${bridge} ip saddr . meta l4proto . th dport @ownAddressed return
    dnat ip to ip daddr . meta l4proto . th dport map @addressed
    dnat ip to meta l4proto . th dport map @ports
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${block} oifname != ${bridge} masquerade
    # Answers must come back through us: to loopback sources, and to a container that reached its neighbour by a published port.
    oifname ${bridge} ip saddr 127.0.0.0/8 masquerade
    oifname ${bridge} ip saddr ${block} ct status dnat masquerade
  }
  # Only published ports can be reached from outside, also for who sets a route to the subnet.
  chain forward {
    type filter hook forward priority filter; policy accept;
    oifname != ${bridge} accept
    iifname ${bridge} accept
    ct state established,related accept
    ct status dnat accept
    drop
  }
}
`
}
