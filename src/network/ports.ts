import { readFile } from 'node:fs/promises'
import { isIPv4, isIPv6 } from 'node:net'
import { badRequest, codeOf, internal, messageOf } from '../base/errors.js'
import { reserve, type Reservation } from './proxy.js'
import type { PortBinding } from './types.js'

/** One socket of a published port. */
interface Listen {
  family: 4 | 6
  /** Canonical host address. */
  ip: string
}

/** What one container holds. */
interface Holding {
  keys: { key: string; listen: Listen }[]
  reservations: Reservation[]
}

/** The addresses a binding listens on: '' is every address of both families, as with Docker. */
function listens(hostIp: string): Listen[] {
  if (hostIp === '') return [{ family: 4, ip: '0.0.0.0' }, { family: 6, ip: '::' }]
  return [{ family: isIPv4(hostIp) ? 4 : 6, ip: hostIp }]
}

const isUnspecified = (ip: string) => ip === '0.0.0.0' || ip === '::'

/** Two sockets of one protocol, port and family cannot both be when they share an address. */
function collide(a: Listen, b: Listen): boolean {
  return a.family === b.family && (a.ip === b.ip || isUnspecified(a.ip) || isUnspecified(b.ip))
}

const hostPort = (ip: string, port: number) => (ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`)

/** How often the search for a free port may meet ports of other programs before it gives up. */
const maxForeign = 2_000

/**
 * Host ports: who has which, and the sockets that hold them. A port is taken by really listening on it, so that other programs
 * cannot take it too and what they have is seen. Messages are Docker's.
 */
export class PortAllocator {
  /** 'tcp 8080' → sockets of ours on it. */
  readonly #taken = new Map<string, Listen[]>()
  readonly #holdings = new Map<string, Holding>()
  #range: [number, number] = [32768, 60999]
  #next = { tcp: 0, udp: 0 }

  /** Reads the ephemeral port range (ip(7), ip_local_port_range): ports for `hostPort: 0` come from it. */
  async start(): Promise<void> {
    const text = await readFile('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').catch(() => '')
    const [low, high] = text.trim().split(/\s+/).map(Number)
    if (low !== undefined && high !== undefined && low >= 1 && high <= 65535 && low < high) this.#range = [low, high]
  }

  /**
   * Takes all of a container's ports, or none. Connections that reach the sockets themselves are passed on to `address`.
   * Returns the bindings with the host ports that were taken, canonical.
   * @throws HullError 400 for a binding that makes no sense, 500 in Docker's words when a port is taken.
   */
  async take(owner: string, address: string, bindings: readonly PortBinding[]): Promise<PortBinding[]> {
    if (bindings.length === 0) return []
    const checked = bindings.map(checkBinding)
    if (this.#holdings.has(owner)) throw internal(`ports of ${owner} are taken already`)
    const holding: Holding = { keys: [], reservations: [] }
    this.#holdings.set(owner, holding)
    try {
      const taken: PortBinding[] = []
      // Fixed ports first: one that is chosen for another binding must not be among them.
      for (const binding of checked) if (binding.hostPort !== 0) await this.#takeFixed(holding, address, binding)
      for (const binding of checked) {
        taken.push(binding.hostPort !== 0 ? binding : { ...binding, hostPort: await this.#takeAny(holding, address, binding) })
      }
      return taken
    } catch (error) {
      await this.release(owner)
      throw error
    }
  }

  /**
   * Ports of a container that runs already (restart of the daemon): they stay its own when another program listens on them meanwhile, because
   * the kernel forwards them. Returns the bindings that are its own, and sentences about what is wrong.
   */
  async adopt(owner: string, address: string, bindings: readonly PortBinding[]): Promise<{ ports: PortBinding[]; problems: string[] }> {
    const ports: PortBinding[] = []
    const problems: string[] = []
    const holding: Holding = { keys: [], reservations: [] }
    this.#holdings.set(owner, holding)
    for (const binding of bindings.map(checkBinding)) {
      const sockets = listens(binding.hostIp)
      const name = (listen: Listen) => `published port ${hostPort(listen.ip, binding.hostPort)}/${binding.protocol}`
      const taken = sockets.find((listen) => this.#isTaken(binding.protocol, binding.hostPort, listen))
      if (taken || binding.hostPort === 0) {
        problems.push(`${name(taken ?? sockets[0]!)}: ${taken ? 'belongs to another container' : 'was never chosen'}`)
        continue
      }
      ports.push(binding)
      for (const listen of sockets) {
        this.#note(holding, binding.protocol, binding.hostPort, listen)
        await this.#listen(holding, address, binding, listen).catch((error: unknown) => problems.push(`${name(listen)}: ${messageOf(error)}`))
      }
    }
    return { ports, problems }
  }

  /** Closes and forgets a container's ports. Resolves when they can be bound again. Idempotent. */
  async release(owner: string): Promise<void> {
    const holding = this.#holdings.get(owner)
    if (!holding) return
    this.#holdings.delete(owner)
    await Promise.all(holding.reservations.map((reservation) => reservation.close()))
    for (const { key, listen } of holding.keys) {
      const rest = this.#taken.get(key)?.filter((other) => other !== listen) ?? []
      if (rest.length === 0) this.#taken.delete(key)
      else this.#taken.set(key, rest)
    }
  }

  /** Closes everything (the daemon stops). */
  async close(): Promise<void> {
    await Promise.all([...this.#holdings.keys()].map((owner) => this.release(owner)))
  }

  #isTaken(protocol: string, port: number, listen: Listen): boolean {
    return this.#taken.get(`${protocol} ${port}`)?.some((other) => collide(listen, other)) ?? false
  }

  #note(holding: Holding, protocol: string, port: number, listen: Listen): void {
    const key = `${protocol} ${port}`
    const sockets = this.#taken.get(key)
    if (sockets) sockets.push(listen)
    else this.#taken.set(key, [listen])
    holding.keys.push({ key, listen })
  }

  #forget(holding: Holding, protocol: string, port: number, listen: Listen): void {
    const key = `${protocol} ${port}`
    const rest = this.#taken.get(key)?.filter((other) => other !== listen) ?? []
    if (rest.length === 0) this.#taken.delete(key)
    else this.#taken.set(key, rest)
    holding.keys = holding.keys.filter((entry) => entry.listen !== listen)
  }

  async #takeFixed(holding: Holding, address: string, binding: PortBinding): Promise<void> {
    const sockets = listens(binding.hostIp)
    for (const listen of sockets) {
      if (this.#isTaken(binding.protocol, binding.hostPort, listen)) {
        throw internal(`Bind for ${hostPort(listen.ip, binding.hostPort)} failed: port is already allocated`)
      }
    }
    for (const listen of sockets) this.#note(holding, binding.protocol, binding.hostPort, listen)
    for (const listen of sockets) {
      try {
        await this.#listen(holding, address, binding, listen)
      } catch (error) {
        throw internal(listenMessage(error, binding, listen), error)
      }
    }
  }

  async #takeAny(holding: Holding, address: string, binding: PortBinding): Promise<number> {
    const [low, high] = this.#range
    const count = high - low + 1
    const sockets = listens(binding.hostIp)
    let foreign = 0
    for (let turn = 0; turn < count && foreign < maxForeign; turn++) {
      const port = low + (this.#next[binding.protocol]++ % count)
      if (sockets.some((listen) => this.#isTaken(binding.protocol, port, listen))) continue
      for (const listen of sockets) this.#note(holding, binding.protocol, port, listen)
      const before = holding.reservations.length
      try {
        for (const listen of sockets) await this.#listen(holding, address, { ...binding, hostPort: port }, listen)
        return port
      } catch (error) {
        await Promise.all(holding.reservations.splice(before).map((reservation) => reservation.close()))
        for (const listen of sockets) this.#forget(holding, binding.protocol, port, listen)
        if (codeOf(error) !== 'EADDRINUSE') throw internal(listenMessage(error, { ...binding, hostPort: port }, listens(binding.hostIp)[0]!), error)
        foreign++
      }
    }
    throw internal('all ports are allocated')
  }

  async #listen(holding: Holding, address: string, binding: PortBinding, listen: Listen): Promise<void> {
    try {
      holding.reservations.push(
        await reserve(binding.protocol, { family: listen.family, address: listen.ip, port: binding.hostPort }, { address, port: binding.containerPort }),
      )
    } catch (error) {
      // A host without IPv6: '' means what there is.
      if (listen.ip === '::' && binding.hostIp === '' && ['EAFNOSUPPORT', 'EADDRNOTAVAIL', 'EINVAL'].includes(codeOf(error) ?? '')) return
      throw error
    }
  }
}

/** What Docker says when the kernel refuses the socket. */
function listenMessage(error: unknown, binding: PortBinding, listen: Listen): string {
  const words: Record<string, string> = {
    EADDRINUSE: 'address already in use',
    EADDRNOTAVAIL: 'cannot assign requested address',
    EACCES: 'permission denied',
    EAFNOSUPPORT: 'address family not supported by protocol',
    EMFILE: 'too many open files',
    ENFILE: 'too many open files in system',
  }
  const why = words[codeOf(error) ?? ''] ?? messageOf(error)
  return `Error starting userland proxy: listen ${binding.protocol}${listen.family} ${hostPort(listen.ip, binding.hostPort)}: bind: ${why}`
}

/** Refuses what no caller should have let through (HullError 400); rewrites the address to one spelling. */
export function checkBinding(binding: PortBinding): PortBinding {
  const { containerPort, protocol, hostIp, hostPort: port } = binding
  if (protocol !== 'tcp' && protocol !== 'udp') throw badRequest(`invalid proto: ${String(protocol)}`)
  if (!Number.isInteger(containerPort) || containerPort < 1 || containerPort > 65535) throw badRequest(`invalid port: ${containerPort}`)
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw badRequest(`invalid hostPort: ${port}`)
  if (hostIp === '') return { ...binding }
  if (isIPv4(hostIp)) return { ...binding }
  if (!isIPv6(hostIp) || hostIp.includes('%')) throw badRequest(`invalid IP address: ${hostIp}`)
  // One spelling an address ('::0' is '::'), and IPv4-mapped ones are IPv4.
  const canonical = new URL(`http://[${hostIp}]/`).hostname.slice(1, -1)
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(canonical)
  if (!mapped) return { ...binding, hostIp: canonical }
  const [high, low] = [parseInt(mapped[1]!, 16), parseInt(mapped[2]!, 16)]
  return { ...binding, hostIp: `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}` }
}
