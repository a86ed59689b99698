/** One published port. */
export interface PortBinding {
  /** In the container. */
  containerPort: number
  protocol: 'tcp' | 'udp'
  /** '' or '0.0.0.0': all addresses; '::' IPv6. */
  hostIp: string
  /** 0: choose one from the ephemeral range. */
  hostPort: number
}

/** A container's place on a network, kept in its config so that it survives restarts of the daemon. */
export interface Endpoint {
  containerId: string
  /** '' or absent (configs of older versions): the default bridge. */
  networkId?: string
  /** 'eth0', 'eth1', … in the container; absent: eth0. */
  interfaceName?: string
  /** IPv4. */
  address: string
  prefixLength: number
  /** '' on an internal network. */
  gateway: string
  /** On a network with IPv6. */
  ipv6?: { address: string; prefixLength: number; gateway: string }
  mac: string
  /** With the host ports that were really taken. */
  ports: PortBinding[]
  /** Link on the host that is the bridge's port, where its name does not follow from the container's id. */
  link?: string
  /** What its network's name server calls it. Lower case. */
  names?: string[]
  /** Names that only this container knows (--link): name → id of the container that is meant. */
  links?: Record<string, string>
  /** Resolvers that it asked for (--dns), for what the network's name server does not know itself. */
  dns?: string[]
}

/** Driver-neutral facts for `docker network inspect bridge`. */
export interface BridgeInfo {
  name: string
  subnet: string
  gateway: string
  mtu: number
}

/** A user-defined network as the network floor needs it; kept on disk by the engine. */
export interface NetworkSpec {
  /** 64 hexadecimal digits; '' is the default bridge. */
  id: string
  name: string
  /** The Linux bridge. */
  bridge: string
  /** '172.18.0.0/16' */
  subnet: string
  /** '172.18.0.1' */
  gateway: string
  /** '' or a block inside the subnet. */
  ipRange: string
  /** --aux-address: never given out. */
  reserved: string[]
  /** '' : no IPv6. */
  subnet6: string
  gateway6: string
  /** No way out and none in. */
  internal: boolean
  /** Containers on it may talk to each other. */
  icc: boolean
  masquerade: boolean
  /** Host address of published ports that name none; '' : all. */
  hostBinding: string
  mtu: number
}

/** What a container asks for on one network. */
export interface EndpointWish {
  networkId?: string
  interfaceName?: string
  ports: PortBinding[]
  mac?: string
  address?: string
  address6?: string
  /** For messages. */
  name?: string
  names?: string[]
  links?: Record<string, string>
  dns?: string[]
}

/** What `POST /networks/create` asks for, as far as addresses and links go. */
export interface NetworkWish {
  id: string
  name: string
  internal: boolean
  ipv6: boolean
  configs: { subnet: string; gateway: string; ipRange: string; auxiliary: Record<string, string> }[]
  options: Record<string, string>
}

/** An interface of a VM, in words that its guest understands. */
export interface GuestInterface {
  name: string
  mac: string
  address: string
  prefixLength: number
  mtu: number
  ipv6?: { address: string; prefixLength: number }
}

/** The interface with the default route. */
export interface DefaultRoute {
  interfaceName: string
  gateway: string
  gateway6: string
}

/** The bridges of one daemon, their addresses, names, NAT and published ports. */
export interface NetworkManager {
  readonly bridge: BridgeInfo
  /** Makes or repairs bridges, sysctls and nftables base; re-reserves and re-publishes `active` (running containers); drops all else of ours. */
  start(active: Endpoint[], networks?: NetworkSpec[]): Promise<void>
  /** Workloads live on: only in-process things (pool, listening sockets, timers) are closed. `everything`: also bridges and tables (tests, uninstall), those of `networks` too. */
  stop(everything: boolean, networks?: NetworkSpec[]): Promise<void>

  /** Decides subnet, gateway and bridge of a network that is to be; changes nothing. 400 and 403 in Docker's words. */
  plan(wish: NetworkWish): Promise<{ spec: NetworkSpec; warnings: string[] }>
  /** Makes its bridge, rules and name server. Nothing is left on failure. */
  createNetwork(spec: NetworkSpec): Promise<void>
  /** Removes them. Nobody may be on it. */
  removeNetwork(id: string): Promise<void>
  networkSpec(id: string): NetworkSpec | undefined

  /** Takes a free address and the host ports (409/500 in Docker's words: 'driver failed programming external connectivity … port is already allocated'). */
  allocate(containerId: string, wish: EndpointWish): Promise<Endpoint>
  /** A ready namespace with an interface for each endpoint; the default route is the one of {@link defaultRoute}. */
  connectNamespace(endpoint: Endpoint, ...more: Endpoint[]): Promise<{ netnsPath: string }>
  /** An open tap that is a port of the bridge, or of all bridges of several endpoints. */
  connectTap(endpoint: Endpoint, ...more: Endpoint[]): Promise<{ tapFd: number; name: string }>
  /** A tap for a container that does not exist yet. Whoever holds the descriptor keeps it: {@link plugTap} makes it what {@link connectTap} does. */
  tapAhead(containerId: string): Promise<number>
  plugTap(endpoint: Endpoint, ...more: Endpoint[]): Promise<void>
  /** Another interface for a container that runs already. `vm`: on the host's side only, the guest is asked by its sandbox. `others`: where it is already. */
  attach(endpoint: Endpoint, kind: 'process' | 'vm', others: Endpoint[]): Promise<void>
  /** Undoes {@link attach} or one interface of {@link connectNamespace}, and frees address, names and ports. */
  detach(endpoint: Endpoint, kind: 'process' | 'vm'): Promise<void>
  /** Which of a container's endpoints has its default route: of those with a way out the first by its network's name, as in Docker. */
  gatewayEndpoint(endpoints: readonly Endpoint[]): Endpoint | undefined
  /** Sets the default route in the namespace of a running container. */
  setDefaultRoute(endpoints: readonly Endpoint[]): Promise<void>
  guestInterface(endpoint: Endpoint): GuestInterface
  /** Published ports become elements of the nftables maps. */
  publish(endpoint: Endpoint): Promise<void>
  /** A container's published ports lead to another of its endpoints from now on; the same host ports. Both endpoints' `ports` change. */
  movePorts(from: Endpoint, to: Endpoint): Promise<void>
  /** The container goes by other names now. */
  rename(endpoint: Endpoint, names: string[]): void
  /** A namespace for `--network none`: only lo. */
  isolatedNamespace(containerId: string): Promise<{ netnsPath: string }>
  /** Frees namespace, veth, elements, addresses and ports of a container. Idempotent. */
  release(containerId: string): Promise<void>
  /** Sentences about what is not as it should be. */
  warnings(): string[]
}
