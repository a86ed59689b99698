import { createHash } from 'node:crypto'
import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { createServer, type Server, type Socket } from 'node:net'
import { codeOf, internal, messageOf } from '../../base/errors.js'
import { log } from '../../base/log.js'
import type { Endpoint } from '../types.js'
import { framed, type Forwarder, type HostResolvers } from './forward.js'
import { resolveLocal } from './resolve.js'
import type { NameTable } from './table.js'
import { BadQuery, encodeFailure, encodeResponse, parseQuery, Rcode } from './wire.js'

/** Seconds for which an answer holds. Docker says 600; a container that is replaced has another address at once, so it is short here. */
const ttl = 5
/** TCP: connections at once in all and of one container, and how long one may say nothing (milliseconds). */
const maxConnections = 256
const maxConnectionsOfOne = 16
const idleMs = 10_000
/** Ports that are tried for a name server: below the ephemeral ones, so that no client has them by accident. */
const firstPort = 20_000
const portCount = 12_000
const portTries = 64

/** What all name servers of a daemon share. */
export interface NameServerParts {
  table: NameTable
  forwarder: Forwarder
  hostResolvers: HostResolvers
  networkName: (id: string) => string | undefined
  /**
   * Whether a container may ask outside by the server of this network: one that is inside only asks nobody outside, by no detour (CVE-2024-29018). Nor by the server of an internal network when it has another: on that network it could be
   * a neighbour, with its address.
   */
  mayForward: (containerId: string, networkId: string) => boolean
}

/**
 * The name server of one network, on its gateway's address. It listens on a port that follows from the network's id, and nftables leads the
 * containers' port 53 there: whoever holds port 53 of this host (dnsmasq on every address, say) is not in the way, and a daemon that was
 * killed and started again has the port that remembered UDP flows lead to.
 */
export class NameServer {
  #udp: UdpSocket | undefined
  #tcp: Server | undefined
  readonly #sockets = new Map<Socket, string>()

  constructor(
    readonly networkId: string,
    readonly gateway: string,
    private readonly parts: NameServerParts,
  ) {}

  /** Listens; resolves with the ports. @throws HullError 500 */
  async start(): Promise<{ udp: number; tcp: number }> {
    const seed = createHash('sha256').update(`names ${this.networkId}`).digest().readUInt32BE(0)
    for (let turn = 0; turn < portTries; turn++) {
      const port = firstPort + ((seed + turn * 7) % portCount)
      try {
        await this.#listen(port)
        return { udp: port, tcp: port }
      } catch (error) {
        await this.close()
        if (codeOf(error) !== 'EADDRINUSE') throw internal(`cannot start the name server of ${this.gateway}: ${messageOf(error)}`, error)
      }
    }
    throw internal(`cannot start the name server of ${this.gateway}: no free port`)
  }

  async #listen(port: number): Promise<void> {
    const udp = createSocket('udp4')
    this.#udp = udp
    await new Promise<void>((resolve, reject) => {
      udp.once('error', reject)
      udp.bind({ address: this.gateway, port, exclusive: true }, () => {
        udp.off('error', reject)
        resolve()
      })
    })
    udp.on('error', (error) => log.warn('names: receive failed', { gateway: this.gateway, error }))
    udp.on('message', (packet, from) => {
      void this.#answer(packet, from.address, 'udp').then((answer) => answer && this.#udp === udp && udp.send(answer, from.port, from.address, () => {}))
    })
    const tcp = createServer((socket) => this.#connected(socket))
    this.#tcp = tcp
    tcp.maxConnections = maxConnections
    await new Promise<void>((resolve, reject) => {
      tcp.once('error', reject)
      tcp.listen({ host: this.gateway, port, exclusive: true }, () => {
        tcp.off('error', reject)
        resolve()
      })
    })
    tcp.on('error', (error) => log.warn('names: accept failed', { gateway: this.gateway, error }))
  }

  async close(): Promise<void> {
    const [udp, tcp] = [this.#udp, this.#tcp]
    this.#udp = this.#tcp = undefined
    await Promise.all([
      // One that never was bound does not close.
      udp && new Promise<void>((resolve) => { try { udp.close(() => resolve()) } catch { resolve() } }),
      tcp && new Promise<void>((resolve) => {
        tcp.close(() => resolve())
        for (const socket of this.#sockets.keys()) socket.destroy()
      }),
    ])
  }

  #connected(socket: Socket): void {
    const from = socket.remoteAddress ?? ''
    if ([...this.#sockets.values()].filter((other) => other === from).length >= maxConnectionsOfOne) {
      socket.destroy()
      return
    }
    this.#sockets.set(socket, from)
    let data = Buffer.alloc(0)
    let busy = false
    socket.setTimeout(idleMs, () => socket.destroy())
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#sockets.delete(socket))
    // One message at a time; what follows waits in the socket.
    const next = () => {
      if (busy || data.length < 2 || data.length < 2 + data.readUInt16BE(0)) return
      const packet = Buffer.from(data.subarray(2, 2 + data.readUInt16BE(0)))
      data = data.subarray(2 + packet.length)
      busy = true
      socket.pause()
      void this.#answer(packet, from, 'tcp').then((answer) => {
        if (!answer) {
          socket.destroy()
          return
        }
        const go = () => {
          busy = false
          socket.resume()
          next()
        }
        // Who does not read its answers is not asked for more questions: it would fill our memory.
        if (socket.write(framed(answer))) go()
        else socket.once('drain', go)
      })
    }
    socket.on('data', (chunk: Buffer) => {
      data = Buffer.concat([data, chunk])
      next()
    })
  }

  /** The answer to a message from an address; undefined: none. Never rejects. */
  async #answer(packet: Buffer, from: string, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    try {
      return await this.#serve(packet, from, transport)
    } catch (error) {
      if (error instanceof BadQuery) return error.rcode === undefined ? undefined : encodeFailure(packet, error.rcode)
      log.warn('names: a query failed', { gateway: this.gateway, error })
      return undefined
    }
  }

  async #serve(packet: Buffer, from: string, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    const query = parseQuery(packet)
    const { table, networkName } = this.parts
    const endpoint = table.at(this.networkId, from)
    const respond = (rcode: number, answers: Parameters<typeof encodeResponse>[2] = [], authoritative = true) =>
      encodeResponse(query, rcode, answers, { ttl, udp: transport === 'udp', authoritative })
    // Names are for those on the network, and so is our way to the resolvers.
    if (!endpoint) return respond(Rcode.REFUSED, [], false)
    const local = resolveLocal(query.name.toLowerCase(), query.type, { endpoint, table, networkName })
    if (local) return respond(Rcode.NOERROR, local)
    return (await this.#forward(packet, query, endpoint, transport)) ?? respond(Rcode.SERVFAIL, [], false)
  }

  async #forward(packet: Buffer, query: ReturnType<typeof parseQuery>, endpoint: Endpoint, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    const { forwarder, hostResolvers, mayForward } = this.parts
    if (!mayForward(endpoint.containerId, this.networkId)) return undefined
    const servers = endpoint.dns && endpoint.dns.length > 0 ? endpoint.dns : await hostResolvers.get()
    // Our own address among them would be a circle.
    const answer = await forwarder.ask(packet, query, servers.filter((server) => server !== this.gateway), transport, endpoint.containerId)
    if (!answer || transport === 'tcp' || answer.length <= query.udpSize) return answer
    // More than the asker takes: it shall come again by TCP.
    const cut = encodeResponse(query, Rcode.NOERROR, [], { ttl, udp: true, authoritative: false })
    cut.writeUInt16BE(cut.readUInt16BE(2) | 0x0200, 2)
    return cut
  }
}
