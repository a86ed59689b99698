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
/** The same of the table of family ip6, which is there when a network has IPv6. */
export const chainNames6 = ['postrouting', 'forward'] as const

/** What the rules need to know of a network. */
export interface SegmentRules {
  bridge: string
  /** Blocks in CIDR form; `subnet6` '' for none. */
  subnet: string
  subnet6: string
  gateway: string
  internal: boolean
  /** Containers on it may talk to one another: false is enable_icc=false. */
  icc: boolean
  masquerade: boolean
  /** Where the network's name server listens on the gateway's address; absent: it has none. */
  namePorts?: { udp: number; tcp: number }
}

const quoted = (words: readonly string[]) => words.map((word) => `"${word}"`)
const elementsLine = (items: readonly string[]) => (items.length > 0 ? `\n    elements = { ${items.join(', ')} }` : '')

/** Sets that both families' rules use. `within`: from a bridge to itself, also by our routing: its ports being isolated from one another is not all that icc=false needs. */
function commonSets(segments: readonly SegmentRules[]): string {
  const bridges = segments.map((segment) => segment.bridge)
  return `  set bridges {
    type ifname${elementsLine(quoted(bridges))}
  }
  set within {
    type ifname . ifname${elementsLine(segments.filter(({ icc }) => icc).map(({ bridge }) => `"${bridge}" . "${bridge}"`))}
  }
  set internal {
    type ifname${elementsLine(quoted(segments.filter((segment) => segment.internal).map((segment) => segment.bridge)))}
  }
`
}

// Only published ports can be reached from outside or from another network, also for who sets a route to the subnet.
const forwardChain = (published: string) => `  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname . oifname @within accept
    iifname @internal drop
    oifname @internal drop
    oifname != @bridges accept
    ct state established,related accept
${published}    drop
  }
`

/**
 * The whole table with the elements of `endpoints`, as one nft script: replaces what was there in one transaction, so a running
 * container's ports are never unreachable. Established connections live in conntrack and do not notice.
 */
export function tableText(owner: Names, segments: readonly SegmentRules[], endpoints: Iterable<Pick<Endpoint, 'address' | 'ports'>>): string {
  const { table } = owner
  const lines: Element[][] = names.map(() => [])
  for (const endpoint of endpoints) {
    const elements = elementsOf(endpoint)
    names.forEach((name, i) => lines[i]!.push(...elements[name]))
  }
  const filled = (i: number) => (lines[i]!.length > 0 ? `\n    elements = { ${list(lines[i]!, true)} }` : '')
  const nameServers = segments.flatMap(({ gateway, namePorts }) =>
    namePorts ? [`${gateway} . udp . 53 : ${gateway} . ${namePorts.udp}`, `${gateway} . tcp . 53 : ${gateway} . ${namePorts.tcp}`] : [],
  )
  return `add table ip ${table}
delete table ip ${table}
table ip ${table} {
${commonSets(segments)}  map ports {
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
  map gateways {
    type ifname : ipv4_addr${elementsLine(segments.map((segment) => `"${segment.bridge}" : ${segment.gateway}`))}
  }
  map nameServers {
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service${elementsLine(nameServers)}
  }
  chain raw {
    type filter hook prerouting priority raw; policy accept;
    # route_localnet is set on the bridges: without this a container could talk to services on the host's 127.0.0.1 (CVE-2020-8558).
    iifname @bridges ip daddr 127.0.0.0/8 drop
    # A tap that is no bridge's port belongs to a VM with several networks: what comes in by none of them is from an address it was not given.
    iifname "${owner.tapPrefix}*" drop
    # Nobody speaks to this host with an address of another network: its name server goes by who asks.
${segments.map(({ bridge, subnet }) => `    iifname @bridges iifname != "${bridge}" ip saddr ${subnet} fib daddr type local drop\n`).join('')}  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    iifname @bridges dnat ip to ip daddr . meta l4proto . th dport map @nameServers
    # What is published on 127.0.0.1 is for this host: a neighbour who sends to it gets no further than without us (moby 49325).
    iifname != "lo" ip daddr 127.0.0.0/8 return
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
    ip saddr . meta l4proto . th dport @own dnat to iifname map @gateways
    iifname @bridges ip saddr . meta l4proto . th dport @ownAddressed return
    dnat ip to ip daddr . meta l4proto . th dport map @addressed
    dnat ip to meta l4proto . th dport map @ports
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    # Answers must come back through us: to loopback sources, and to a container that reached its neighbour by a published port.
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
${segments.map(({ bridge, subnet }) => `    oifname "${bridge}" ip saddr ${subnet} ct status dnat masquerade\n`).join('')}${masquerades('ip', segments)}  }
${forwardChain('    ct status dnat accept\n')}}
${tableText6(owner, segments)}`
}

function masquerades(family: 'ip' | 'ip6', segments: readonly SegmentRules[]): string {
  return segments
    .filter((segment) => segment.masquerade && !segment.internal)
    .map(({ bridge, subnet, subnet6 }) => `    ${family} saddr ${family === 'ip' ? subnet : subnet6} oifname != "${bridge}" masquerade\n`)
    .join('')
}

function tableText6(owner: Names, all: readonly SegmentRules[]): string {
  const { table } = owner
  const segments = all.filter((segment) => segment.subnet6 !== '')
  const fresh = `add table ip6 ${table}\ndelete table ip6 ${table}\n`
  if (segments.length === 0) return fresh
  return `${fresh}table ip6 ${table} {
${commonSets(segments)}  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
${masquerades('ip6', segments)}  }
${forwardChain('')}}
`
}
