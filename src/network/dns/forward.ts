import { randomInt } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { stat } from 'node:fs/promises'
import { connect, isIP } from 'node:net'
import { readIfExists } from '../../base/files.js'
import { isAnswerTo, Rcode, rcodeOf, type Query } from './wire.js'

/** Milliseconds that one resolver gets (Docker: 4 s), and how many of them are asked. */
const answerTimeoutMs = 4_000
const maxServers = 3
/** Queries under way at once: of all containers together (Docker: 1024), and of one. */
const maxFlights = 1_024
const maxFlightsOfOne = 128

/** The host's resolvers, read again when the file has changed. Also those on its loopback: it is the host that asks. */
export class HostResolvers {
  #stamp = ''
  #servers: string[] = []

  constructor(private readonly file = '/etc/resolv.conf') {}

  async get(): Promise<readonly string[]> {
    const info = await stat(this.file).catch(() => undefined)
    const stamp = info ? `${info.mtimeMs} ${info.ino} ${info.size}` : 'none'
    if (stamp !== this.#stamp) {
      this.#stamp = stamp
      const text = (await readIfExists(this.file)) ?? ''
      this.#servers = [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].map((match) => match[1]!).filter((server) => isIP(server.split('%')[0]!) !== 0)
    }
    return this.#servers
  }
}

/** Passes queries on to real resolvers, a fresh port and id for each (RFC 5452). */
export class Forwarder {
  #flights = 0
  readonly #flightsOf = new Map<string, number>()

  /**
   * The first resolver's answer that is one: bytes for the asker, with its id. SERVFAIL and REFUSED send us to the next, as Docker does.
   * undefined: none answered, or too much is under way.
   * @param asker for the limit
   */
  async ask(packet: Buffer, query: Query, servers: readonly string[], transport: 'udp' | 'tcp', asker: string): Promise<Buffer | undefined> {
    const mine = this.#flightsOf.get(asker) ?? 0
    if (this.#flights >= maxFlights || mine >= maxFlightsOfOne) return undefined
    this.#flights++
    this.#flightsOf.set(asker, mine + 1)
    try {
      let last: Buffer | undefined
      for (const server of servers.slice(0, maxServers)) {
        const id = randomInt(0x10000)
        const question = Buffer.from(packet)
        question.writeUInt16BE(id, 0)
        const answer = await (transport === 'udp' ? askUdp : askTcp)(question, id, query.question, server)
        if (!answer) continue
        answer.writeUInt16BE(query.id, 0)
        last = answer
        if (![Rcode.SERVFAIL, Rcode.REFUSED].includes(rcodeOf(answer) as 2 | 5)) break
      }
      return last
    } finally {
      this.#flights--
      const rest = this.#flightsOf.get(asker)! - 1
      if (rest > 0) this.#flightsOf.set(asker, rest)
      else this.#flightsOf.delete(asker)
    }
  }
}

function askUdp(packet: Buffer, id: number, question: Buffer, server: string): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = createSocket(server.includes(':') ? 'udp6' : 'udp4')
    const finish = (answer?: Buffer) => {
      clearTimeout(timer)
      socket.removeAllListeners()
      socket.on('error', () => {})
      socket.close()
      resolve(answer)
    }
    const timer = setTimeout(() => finish(), answerTimeoutMs)
    socket.on('error', () => finish())
    // Anything else that comes is somebody's guess: the real answer may still follow.
    socket.on('message', (answer) => isAnswerTo(answer, id, question) && finish(answer))
    // Without a route to the server it is the callback that hears of it, not 'error'.
    socket.connect(53, server, (error?: Error) => (error ? finish() : socket.send(packet)))
  })
}

function askTcp(packet: Buffer, id: number, question: Buffer, server: string): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host: server, port: 53 })
    let data = Buffer.alloc(0)
    const finish = (answer?: Buffer) => {
      clearTimeout(timer)
      socket.destroy()
      resolve(answer)
    }
    const timer = setTimeout(() => finish(), answerTimeoutMs)
    socket.on('error', () => finish())
    socket.on('end', () => finish())
    socket.on('connect', () => socket.write(framed(packet)))
    socket.on('data', (chunk: Buffer) => {
      data = Buffer.concat([data, chunk])
      if (data.length < 2 || data.length < 2 + data.readUInt16BE(0)) return
      const answer = Buffer.from(data.subarray(2, 2 + data.readUInt16BE(0)))
      finish(isAnswerTo(answer, id, question) ? answer : undefined)
    })
  })
}

/** A message with its length before it (RFC 1035 4.2.2). */
export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2)
  length.writeUInt16BE(message.length)
  return Buffer.concat([length, message])
}
