// The part of RFC 1035 (and RFC 6891 for the size of answers) that a name server for one network needs: questions in, addresses and names out. What is
// forwarded is never parsed beyond its header and question. Input is whatever a container sends.

/** Query types and classes (RFC 1035 3.2.2, RFC 3596). */
export const Type = { A: 1, PTR: 12, AAAA: 28, OPT: 41, ANY: 255 } as const
const classIN = 1

/** Response codes (RFC 1035 4.1.1). */
export const Rcode = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 } as const

const headerSize = 12
/** Bits of the second 16-bit word of the header. */
const QR = 0x8000
const TC = 0x0200
const RD = 0x0100
const RA = 0x0080
const AA = 0x0400

/** A query with exactly one question. */
export interface Query {
  id: number
  recursionDesired: boolean
  /** Without the last dot, as sent (case kept), '' for the root. A dot or other odd byte inside a label is written '\DDD'. */
  name: string
  type: number
  /** The question's bytes, for answers. */
  question: Buffer
  /** How many bytes of UDP the asker takes (EDNS), at least 512. */
  udpSize: number
  edns: boolean
}

/** Why bytes are no query that can be served: `rcode` to answer with, or none when they do not deserve one. */
export class BadQuery extends Error {
  constructor(
    message: string,
    readonly rcode?: number,
  ) {
    super(message)
  }
}

/** A name at `offset`: labels of at most 63 bytes, 255 in all. Compression makes no sense in the first name of a message and is refused. */
function readName(packet: Buffer, offset: number): { name: string; end: number } {
  const labels: string[] = []
  let at = offset
  for (;;) {
    const length = packet[at]
    if (length === undefined) throw new BadQuery('a name without an end', Rcode.FORMERR)
    if (length > 63) throw new BadQuery('a compressed or unknown label', Rcode.FORMERR)
    at++
    if (length === 0) return { name: labels.join('.'), end: at }
    if (at + length > packet.length || at + length - offset > 254) throw new BadQuery('a name that is too long', Rcode.FORMERR)
    let label = ''
    for (const byte of packet.subarray(at, at + length)) {
      label += byte > 32 && byte < 127 && byte !== 46 && byte !== 92 ? String.fromCharCode(byte) : `\\${String(byte).padStart(3, '0')}`
    }
    labels.push(label)
    at += length
  }
}

/** Skips a name that may be compressed: only its own bytes, no pointer is followed. */
function skipName(packet: Buffer, offset: number): number {
  let at = offset
  for (;;) {
    const length = packet[at]
    if (length === undefined) throw new BadQuery('a name without an end', Rcode.FORMERR)
    if (length >= 0xc0) return at + 2
    if (length > 63) throw new BadQuery('an unknown label', Rcode.FORMERR)
    at += 1 + length
    if (length === 0) return at
  }
}

/**
 * Parses a query.
 * @throws BadQuery with the code to answer; without one when it is an answer or no message at all.
 */
export function parseQuery(packet: Buffer): Query {
  if (packet.length < headerSize) throw new BadQuery('shorter than a header')
  const flags = packet.readUInt16BE(2)
  if ((flags & QR) !== 0) throw new BadQuery('an answer')
  if (((flags >> 11) & 15) !== 0) throw new BadQuery('not a standard query', Rcode.NOTIMP)
  if (packet.readUInt16BE(4) !== 1) throw new BadQuery('not one question', Rcode.FORMERR)
  const { name, end } = readName(packet, headerSize)
  if (end + 4 > packet.length) throw new BadQuery('a question without an end', Rcode.FORMERR)
  const type = packet.readUInt16BE(end)
  if (packet.readUInt16BE(end + 2) !== classIN) throw new BadQuery('a class other than IN', Rcode.NOTIMP)
  const edns = ednsSize(packet, end + 4)
  return {
    id: packet.readUInt16BE(0), recursionDesired: (flags & RD) !== 0, name, type, question: Buffer.from(packet.subarray(headerSize, end + 4)),
    udpSize: Math.max(512, edns ?? 512), edns: edns !== undefined,
  }
}

/** The UDP size in the OPT record among the records after the question; undefined when there is none. */
function ednsSize(packet: Buffer, start: number): number | undefined {
  const records = packet.readUInt16BE(6) + packet.readUInt16BE(8) + packet.readUInt16BE(10)
  let at = start
  for (let i = 0; i < records && i < 32; i++) {
    at = skipName(packet, at)
    if (at + 10 > packet.length) throw new BadQuery('a record without an end', Rcode.FORMERR)
    if (packet.readUInt16BE(at) === Type.OPT) return packet.readUInt16BE(at + 2)
    at += 10 + packet.readUInt16BE(at + 8)
  }
  return undefined
}

/** What is answered for the question's name. */
export type Answer = { type: typeof Type.A | typeof Type.AAAA; address: Buffer } | { type: typeof Type.PTR; name: string }

/** A name on the wire. Labels that are too long for it are cut: it is ours, and a container's name may have any length. */
function encodeName(name: string): Buffer {
  const labels = name.split('.').filter((label) => label !== '').map((label) => Buffer.from(label, 'latin1').subarray(0, 63))
  let size = 1
  const kept = labels.filter((label) => (size += label.length + 1) <= 255)
  return Buffer.concat([...kept.flatMap((label) => [Buffer.from([label.length]), label]), Buffer.from([0])])
}

function encodeAnswer(answer: Answer, ttl: number): Buffer {
  const data = answer.type === Type.PTR ? encodeName(answer.name) : answer.address
  const fixed = Buffer.alloc(12)
  fixed.writeUInt16BE(0xc000 | headerSize, 0) // the question's name
  fixed.writeUInt16BE(answer.type, 2)
  fixed.writeUInt16BE(classIN, 4)
  fixed.writeUInt32BE(ttl, 6)
  fixed.writeUInt16BE(data.length, 10)
  return Buffer.concat([fixed, data])
}

/** Bytes of UDP that we send at most, whatever the asker takes: more would be fragmented (DNS flag day 2020). */
const udpMaximum = 1232

/** An answer with authority to a parsed query. `udp`: cut (with the truncation bit) to what the asker takes. `ttl` in seconds. */
export function encodeResponse(query: Query, rcode: number, answers: readonly Answer[], options: { ttl: number; udp: boolean; authoritative?: boolean }): Buffer {
  const opt = query.edns ? Buffer.from([0, 0, Type.OPT, udpMaximum >> 8, udpMaximum & 255, 0, 0, 0, 0, 0, 0]) : Buffer.alloc(0)
  const room = (options.udp ? Math.min(query.udpSize, udpMaximum) : 65535) - headerSize - query.question.length - opt.length
  const parts: Buffer[] = []
  let size = 0
  for (const answer of answers) {
    const part = encodeAnswer(answer, options.ttl)
    if (size + part.length > room) break
    parts.push(part)
    size += part.length
  }
  const truncated = parts.length < answers.length
  const header = Buffer.alloc(headerSize)
  header.writeUInt16BE(query.id, 0)
  header.writeUInt16BE(QR | ((options.authoritative ?? true) ? AA : 0) | (truncated ? TC : 0) | (query.recursionDesired ? RD : 0) | RA | rcode, 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(parts.length, 6)
  header.writeUInt16BE(query.edns ? 1 : 0, 10)
  return Buffer.concat([header, query.question, ...parts, opt])
}

/** The answer to bytes that are no good query: their id and a code, nothing else. */
export function encodeFailure(packet: Buffer, rcode: number): Buffer {
  const header = Buffer.alloc(headerSize)
  header.writeUInt16BE(packet.readUInt16BE(0), 0)
  header.writeUInt16BE(QR | (packet.readUInt16BE(2) & (0x7800 | RD)) | RA | rcode, 2)
  return header
}

/** Whether `packet` is an answer to the query with this id and question (byte for byte but for case). */
export function isAnswerTo(packet: Buffer, id: number, question: Buffer): boolean {
  if (packet.length < headerSize + question.length || packet.readUInt16BE(0) !== id || (packet.readUInt16BE(2) & QR) === 0) return false
  if (packet.readUInt16BE(4) !== 1) return false
  const lower = (bytes: Buffer) => bytes.toString('latin1').toLowerCase()
  return lower(packet.subarray(headerSize, headerSize + question.length)) === lower(question)
}

/** RCODE of an answer with a whole header. */
export const rcodeOf = (packet: Buffer): number => packet.readUInt16BE(2) & 15
