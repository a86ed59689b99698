import { describe, expect, it } from 'vitest'
import { OutputQueue } from '../../../src/sandbox/vm/outputqueue.js'
import { parseProcesses } from '../../../src/sandbox/vm/ps.js'
import { decodeText, encodeFrame, encodeText, FrameParser, HEADER_SIZE, MAX_PAYLOAD, ProtocolError, WINDOW_SIZE } from '../../../src/sandbox/vm/protocol.js'

/** mulberry32: a failure names its seed and can be run again. */
function random(seed: number): () => number {
  let a = seed >>> 0
  return () => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const base = Number(process.env.HULL_FUZZ_SEED ?? Date.now() % 2 ** 31)
const rounds = Number(process.env.HULL_FUZZ_ROUNDS ?? 400)

/** Only ProtocolError may come out. */
function only(action: () => void): void {
  try {
    action()
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error
  }
}

describe(`hostile bytes (HULL_FUZZ_SEED=${base})`, () => {
  it('random bytes never do more than end the link, and nothing grows', () => {
    for (let round = 0; round < rounds; round++) {
      const next = random(base + round)
      const parser = new FrameParser()
      for (let chunk = 0; chunk < 20; chunk++) {
        const bytes = Buffer.from(Array.from({ length: Math.floor(next() * 300) }, () => Math.floor(next() * 256)))
        // Half of them with small lengths, or nothing would ever be parsed.
        if (next() < 0.5) for (let at = 1; at < bytes.length; at += 12) bytes.writeUInt8(0, at)
        only(() => parser.push(bytes, (frame) => only(() => void decodeText(frame.payload))))
        expect(parser.pending).toBeLessThanOrEqual(HEADER_SIZE + MAX_PAYLOAD)
      }
    }
  })

  it('mutated frames: what is delivered is always whole and bounded', () => {
    let delivered = 0
    for (let round = 0; round < rounds; round++) {
      const next = random(base ^ (round * 2654435761))
      const frames = Array.from({ length: 12 }, () =>
        encodeFrame(Math.floor(next() * 30), Math.floor(next() * 5), encodeText([['code', String(Math.floor(next() * 999))], ['message', 'm'.repeat(next() * 50)]])),
      )
      const bytes = Buffer.concat(frames)
      for (let n = Math.floor(next() * 6); n > 0; n--) bytes[Math.floor(next() * bytes.length)] = Math.floor(next() * 256)
      const parser = new FrameParser()
      let total = 0
      only(() => {
        for (let at = 0; at < bytes.length; ) {
          const size = 1 + Math.floor(next() * 40)
          parser.push(bytes.subarray(at, at + size), (frame) => {
            total += HEADER_SIZE + frame.payload.length
            delivered++
            only(() => void decodeText(frame.payload))
          })
          at += size
        }
      })
      expect(total + parser.pending).toBeLessThanOrEqual(bytes.length)
    }
    console.log(`parser: ${rounds * 12} frames, ${delivered} delivered`)
    // A fuzzer whose frames are all refused tests nothing.
    expect(delivered).toBeGreaterThan(rounds * 3)
  })

  it('process tables: rows or an error, never control characters', () => {
    for (let round = 0; round < rounds; round++) {
      const next = random(base + 7919 * round)
      const good = `${Math.floor(next() * 99)}\t1\t0\troot\t?\t1700000000\t0.5\t100\t200\tS\tsh -c x`
      const bytes = Buffer.from(Array.from({ length: 5 }, () => good).join('\n'))
      for (let n = Math.floor(next() * 8); n > 0; n--) bytes[Math.floor(next() * bytes.length)] = Math.floor(next() * 256)
      only(() => {
         
        for (const row of parseProcesses(bytes)) expect(`${row.user}${row.tty}${row.state}${row.args}`).not.toMatch(/[\u0000-\u001f\u007f]/)
      })
    }
  })

  it('an output queue keeps every byte in order under any mix of frames, and its memory is bounded', () => {
    for (let round = 0; round < 60; round++) {
      const next = random(base + 31 * round)
      const queue = new OutputQueue(false)
      const sent: Record<number, Buffer[]> = { 5: [], 6: [] }
      const got: Record<number, Buffer[]> = { 5: [], 6: [] }
      let allowance = WINDOW_SIZE
      const drain = (times: number) => {
        for (let n = 0; n < times && !queue.empty; n++) {
          let bytes = queue.take()!
          while (bytes.length > 0) {
            const length = bytes.readUInt32BE(4)
            expect(length).toBeGreaterThan(0)
            got[bytes[0] === 2 ? 6 : 5]!.push(bytes.subarray(8, 8 + length))
            bytes = bytes.subarray(8 + length)
          }
          allowance += queue.grant()
        }
      }
      for (let n = 0; n < 300; n++) {
        const size = Math.min(allowance, Math.floor(next() < 0.7 ? next() * 20 : next() * MAX_PAYLOAD))
        const type = next() < 0.5 ? 5 : 6
        const payload = Buffer.alloc(size, n)
        allowance -= size
        sent[type]!.push(payload)
        queue.add(type, payload)
        if (next() < 0.3) drain(1 + Math.floor(next() * 4))
      }
      drain(Infinity)
      expect(allowance).toBe(WINDOW_SIZE)
      for (const type of [5, 6]) expect(Buffer.concat(got[type]!).equals(Buffer.concat(sent[type]!))).toBe(true)
    }
    // Single bytes, alternating: nine bytes each, not an object each.
    const queue = new OutputQueue(false)
    for (let n = 0; n < WINDOW_SIZE; n++) queue.add(5 + (n % 2), Buffer.from([n & 255]))
    let size = 0
    let buffers = 0
    while (!queue.empty) {
      size += queue.take()!.length
      buffers++
    }
    expect(size).toBe(WINDOW_SIZE * 9)
    expect(buffers).toBeLessThan(200)
    expect(() => new OutputQueue(true).add(5, Buffer.alloc(WINDOW_SIZE + 1))).toThrow(ProtocolError)
  })
})
