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

/** A container's place on a bridge, kept in its config so that it survives restarts of the daemon. */
export interface Endpoint {
  containerId: string
  /** IPv4. */
  address: string
  prefixLength: number
  gateway: string
  mac: string
  /** With the host ports that were really taken. */
  ports: PortBinding[]
}

/** Driver-neutral facts for `docker network inspect bridge`. */
export interface BridgeInfo {
  name: string
  subnet: string
  gateway: string
  mtu: number
}

/** The default bridge, its addresses, NAT and published ports. */
export interface NetworkManager {
  readonly bridge: BridgeInfo
  /** Makes or repairs bridge, sysctls and nftables base; re-reserves and re-publishes `active` (running containers); drops all else of ours. */
  start(active: Endpoint[]): Promise<void>
  /** Workloads live on: only in-process things (pool, listening sockets, timers) are closed. `everything`: also bridge and tables (tests, uninstall). */
  stop(everything: boolean): Promise<void>
  /** Takes a free address and the host ports (409/500 in Docker's words: 'driver failed programming external connectivity … port is already allocated'). */
  allocate(containerId: string, options: { ports: PortBinding[]; mac?: string; address?: string; /** For messages. */ name?: string }): Promise<Endpoint>
  /** A ready namespace with eth0 configured for `endpoint`. */
  connectNamespace(endpoint: Endpoint): Promise<{ netnsPath: string }>
  /** An open tap that is a port of the bridge. */
  connectTap(endpoint: Endpoint): Promise<{ tapFd: number; name: string }>
  /** Published ports become elements of the nftables maps. */
  publish(endpoint: Endpoint): Promise<void>
  /** A namespace for `--network none`: only lo. */
  isolatedNamespace(containerId: string): Promise<{ netnsPath: string }>
  /** Frees namespace, veth, elements, address and ports of a container. Idempotent. */
  release(containerId: string): Promise<void>
  /** Adopted after a restart: mark the address and names as taken without touching the kernel. Part of {@link start}. */
  warnings(): string[]
}
