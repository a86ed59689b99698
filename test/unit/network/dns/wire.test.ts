import { expect, test } from 'vitest'
import { packet } from './packet.js'
import { BadQuery, encodeFailure, encodeResponse, isAnswerTo, parseQuery, Rcode, rcodeOf, Type, type Answer } from '../../../../src/network/dns/wire.js'

const rcodeFor = (bytes: Buffer): number | undefined | 'fine' => {
  try {
    parseQuery(bytes)
    return 'fine'
  } catch (error) {
    if (!(error instanceof BadQuery)) throw error
    return error.rcode
  }
}

test('a query is read: name, type, id, EDNS size', () => {
  expect(parseQuery(packet('Web.Example', Type.A))).toMatchObject({ id: 0x1234, name: 'Web.Example', type: 1, udpSize: 512, edns: false, recursionDesired: true })
  expect(parseQuery(packet('web', Type.AAAA, { edns: 4096, flags: 0 }))).toMatchObject({ udpSize: 4096, edns: true, recursionDesired: false })
  expect(parseQuery(packet('web', Type.A, { edns: 10 })).udpSize).toBe(512)
  expect(parseQuery(packet('', Type.A)).name).toBe('')
  // A dot or a backslash inside a label cannot be taken for another name.
  expect(parseQuery(Buffer.concat([packet('', 1).subarray(0, 12), Buffer.from([3]), Buffer.from('a.b'), Buffer.from([0, 0, 1, 0, 1])])).name).toBe('a\\046b')
})

test('what is no query is refused with the code that it deserves, or with silence', () => {
  expect(rcodeFor(Buffer.alloc(11))).toBeUndefined()
  expect(rcodeFor(packet('web', 1, { flags: 0x8000 }))).toBeUndefined() // an answer: answering it would be a loop
  expect(rcodeFor(packet('web', 1, { flags: 0x2800 }))).toBe(Rcode.NOTIMP) // UPDATE
  expect(rcodeFor(packet('web', 1, { class: 3 }))).toBe(Rcode.NOTIMP) // CHAOS
  const two = packet('web', 1)
  two.writeUInt16BE(2, 4)
  expect(rcodeFor(two)).toBe(Rcode.FORMERR)
  expect(rcodeFor(packet('web', 1).subarray(0, 17))).toBe(Rcode.FORMERR)
  const pointer = Buffer.concat([packet('', 1).subarray(0, 12), Buffer.from([0xc0, 12, 0, 1, 0, 1])])
  expect(rcodeFor(pointer)).toBe(Rcode.FORMERR) // a name that points at itself
  expect(rcodeFor(packet(Array(60).fill('abcde').join('.'), 1))).toBe(Rcode.FORMERR) // longer than 255 bytes
  expect(rcodeFor(packet(Array(42).fill('abcde').join('.'), 1))).toBe('fine')
})

test('an answer has the question, the records and the flags; it is cut to what the asker takes', () => {
  const query = parseQuery(packet('web', Type.A))
  const answers: Answer[] = [{ type: Type.A, address: Buffer.from([10, 0, 0, 2]) }]
  const whole = encodeResponse(query, Rcode.NOERROR, answers, { ttl: 5, udp: true })
  expect(whole.toString('hex')).toBe('1234' + '8580' + '0001000100000000' + '037765620000010001' + 'c00c' + '00010001' + '00000005' + '0004' + '0a000002')
  const many: Answer[] = Array.from({ length: 100 }, (_, i) => ({ type: Type.A, address: Buffer.from([10, 0, 0, i]) }))
  const cut = encodeResponse(query, Rcode.NOERROR, many, { ttl: 5, udp: true })
  expect(cut.length).toBeLessThanOrEqual(512)
  expect(cut.readUInt16BE(2) & 0x0200).not.toBe(0)
  expect(cut.readUInt16BE(6)).toBe(30)
  const roomy = encodeResponse(parseQuery(packet('web', 1, { edns: 4096 })), Rcode.NOERROR, many, { ttl: 5, udp: true })
  expect(roomy.length).toBeLessThanOrEqual(1232)
  expect(roomy.readUInt16BE(10)).toBe(1) // OPT
  const tcp = encodeResponse(query, Rcode.NOERROR, many, { ttl: 5, udp: false })
  expect(tcp.readUInt16BE(6)).toBe(100)
  expect(tcp.readUInt16BE(2) & 0x0200).toBe(0)
  const named = encodeResponse(query, Rcode.NOERROR, [{ type: Type.PTR, name: `${'x'.repeat(90)}.net` }], { ttl: 5, udp: true })
  expect(named.length).toBeLessThan(512)
})

test('an answer from upstream is one only with our id and question', () => {
  const question = packet('web', 1).subarray(12)
  const answer = encodeResponse(parseQuery(packet('WEB', 1, { id: 7 })), Rcode.NXDOMAIN, [], { ttl: 0, udp: true })
  expect(isAnswerTo(answer, 7, question)).toBe(true)
  expect(rcodeOf(answer)).toBe(Rcode.NXDOMAIN)
  expect(isAnswerTo(answer, 8, question)).toBe(false)
  expect(isAnswerTo(packet('web', 1, { id: 7 }), 7, question)).toBe(false)
  expect(isAnswerTo(encodeResponse(parseQuery(packet('wab', 1, { id: 7 })), 0, [], { ttl: 0, udp: true }), 7, question)).toBe(false)
  expect(isAnswerTo(Buffer.alloc(3), 7, question)).toBe(false)
})

test('fuzz: random and mutated bytes give a query or a BadQuery, and every query can be answered', () => {
  let state = 0x2545f491
  const random = (below: number) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
  let fine = 0
  for (let i = 0; i < 60_000; i++) {
    let bytes: Buffer
    if (i % 3 === 0) bytes = Buffer.from(Array.from({ length: random(80) }, () => random(256)))
    else {
      bytes = Buffer.from(packet(['web', 'a.b.c', 'x'.repeat(63), ''][random(4)]!, [1, 12, 28, 255][random(4)]!, random(2) ? { edns: random(65536) } : {}))
      for (let n = random(6); n > 0; n--) bytes[random(bytes.length)] = random(256)
      if (random(4) === 0) bytes = bytes.subarray(0, random(bytes.length + 1))
    }
    const code = rcodeFor(bytes)
    if (code === 'fine') {
      fine++
      const answer = encodeResponse(parseQuery(bytes), 0, [{ type: Type.A, address: Buffer.alloc(4) }], { ttl: 1, udp: true })
      expect(answer.length).toBeLessThanOrEqual(1232)
    } else if (code !== undefined) expect(encodeFailure(bytes, code)).toHaveLength(12)
  }
  expect(fine).toBeGreaterThan(5_000)
})
