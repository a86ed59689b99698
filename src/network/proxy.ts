import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram'
import { connect, createServer, type Socket } from 'node:net'
import { log } from '../base/log.js'

/** Where a reserved port listens. */
export interface ListenAddress {
  family: 4 | 6
  address: string
  port: number
}

/** Where what reaches it is sent: always an IPv4 address on the bridge. */
export interface Target {
  address: string
  port: number
}

/** A host port that is really bound. */
export interface Reservation {
  /** Closes the socket and the connections through it. Resolves when the port is free. */
  close(): Promise<void>
}

/** UDP has no end of a conversation: a silent one is forgotten after this time (milliseconds; Docker's proxy: 90 s). */
const udpIdleMs = 90_000
/** Conversations through one UDP port, and connections through one TCP port, at most: strangers must not exhaust our descriptors. */
const maxFlows = 1_024

/** Binds a host port and passes on what reaches it (most traffic is forwarded by the kernel and never comes here). Rejects with the system's error. */
export function reserve(protocol: 'tcp' | 'udp', listen: ListenAddress, target: Target): Promise<Reservation> {
  return protocol === 'tcp' ? reserveTcp(listen, target) : reserveUdp(listen, target)
}

function reserveTcp(listen: ListenAddress, target: Target): Promise<Reservation> {
  return new Promise((resolve, reject) => {
    const sockets = new Set<Socket>()
    // Half-open: a client that has sent all waits for the answer still.
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (client) => {
      const upstream = connect({ host: target.address, port: target.port, allowHalfOpen: true })
      for (const socket of [client, upstream]) {
        sockets.add(socket)
        socket.setNoDelay(true)
        socket.on('error', () => {
          client.destroy()
          upstream.destroy()
        })
        socket.on('close', () => {
          sockets.delete(socket)
        })
      }
      // A side that is gone for good takes the other with it, but only after what it sent last was written.
      client.on('close', () => upstream.destroySoon())
      upstream.on('close', () => client.destroySoon())
      upstream.on('connect', () => {
        client.pipe(upstream)
        upstream.pipe(client)
        client.resume()
      })
    })
    server.maxConnections = maxFlows
    server.once('error', reject)
    server.listen({ host: listen.address, port: listen.port, ipv6Only: listen.family === 6, exclusive: true }, () => {
      server.off('error', reject)
      server.on('error', (error) => log.warn('published port: accept failed', { port: listen.port, error }))
      resolve({
        close: () =>
          new Promise((done) => {
            server.close(() => done())
            for (const socket of sockets) socket.destroy()
          }),
      })
    })
  })
}

/** One client's conversation through a UDP port. */
interface Flow {
  upstream: UdpSocket
  lastUsed: number
}

function reserveUdp(listen: ListenAddress, target: Target): Promise<Reservation> {
  return new Promise((resolve, reject) => {
    const server = createSocket({ type: listen.family === 6 ? 'udp6' : 'udp4', ipv6Only: listen.family === 6 })
    const flows = new Map<string, Flow>()
    const drop = (key: string) => {
      const flow = flows.get(key)
      flows.delete(key)
      flow?.upstream.close()
    }
    let timer: NodeJS.Timeout | undefined
    const sweep = () => {
      const now = Date.now()
      for (const [key, flow] of flows) if (now - flow.lastUsed > udpIdleMs) drop(key)
      if (flows.size === 0) {
        clearInterval(timer)
        timer = undefined
      }
    }
    server.on('message', (data: Buffer, client: RemoteInfo) => {
      const key = `${client.address} ${client.port}`
      let flow = flows.get(key)
      if (!flow) {
        if (flows.size >= maxFlows) return
        const upstream = createSocket('udp4')
        flow = { upstream, lastUsed: 0 }
        flows.set(key, flow)
        timer ??= setInterval(sweep, udpIdleMs / 6).unref()
        upstream.on('error', () => drop(key)) // nobody listens in the container: UDP callers hear nothing
        upstream.on('message', (answer) => {
          const current = flows.get(key)
          if (current) current.lastUsed = Date.now()
          server.send(answer, client.port, client.address, () => {})
        })
        upstream.connect(target.port, target.address)
        upstream.once('connect', () => flows.get(key)?.upstream === upstream && upstream.send(data))
        flow.lastUsed = Date.now()
        return
      }
      flow.lastUsed = Date.now()
      try {
        flow.upstream.send(data)
      } catch {
        // not connected yet: a datagram may be lost
      }
    })
    server.once('error', (error) => {
      reject(error)
      server.close()
    })
    server.bind({ address: listen.address, port: listen.port, exclusive: true }, () => {
      server.removeAllListeners('error')
      server.on('error', (error) => log.warn('published port: receive failed', { port: listen.port, error }))
      resolve({
        close: () =>
          new Promise((done) => {
            clearInterval(timer)
            for (const key of flows.keys()) drop(key)
            server.close(() => done())
          }),
      })
    })
  })
}
