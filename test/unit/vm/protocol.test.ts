import { describe, expect, it } from 'vitest'
import {
  cleanMessage, decodeFailure, decodeText, encodeFrame, encodeFrames, encodeText, FLAG_MORE, FrameParser, FrameType, HEADER_SIZE, Joiner, MAX_JOINED,
  MAX_PAYLOAD, ProtocolError, textMap, textNumber, type Frame,
} from '../../../src/sandbox/vm/protocol.js'

function collect(bytes: Buffer, slices: number[]): Frame[] {
  const parser = new FrameParser()
  const frames: Frame[] = []
  let at = 0
  for (const size of slices) {
    parser.push(bytes.subarray(at, at + size), (frame) => frames.push({ ...frame, payload: Buffer.from(frame.payload) }))
    at += size
  }
  parser.push(bytes.subarray(at), (frame) => frames.push({ ...frame, payload: Buffer.from(frame.payload) }))
  return frames
}

describe('frames', () => {
  it('have the layout of PROTOCOL.md', () => {
    expect(encodeFrame(FrameType.STDIN, 0x01020304, Buffer.from('ab'), 1).toString('hex')).toBe('02000000' + '14' + '01' + '0000' + '04030201' + '6162')
  })

  it('come out as they went in, whatever the slices', () => {
    const bytes = Buffer.concat([
      encodeFrame(FrameType.STDOUT, 1, Buffer.from('hello')),
      encodeFrame(FrameType.STDIN_EOF, 7),
      encodeFrame(FrameType.STDERR, 2 ** 32 - 1, Buffer.alloc(MAX_PAYLOAD, 7)),
    ])
    const whole = collect(bytes, [])
    expect(whole.map((f) => [f.type, f.stream, f.payload.length])).toEqual([[5, 1, 5], [21, 7, 0], [6, 2 ** 32 - 1, MAX_PAYLOAD]])
    for (const slices of [[1], [11], [12], [13], [17, 3, 9], Array.from({ length: 60 }, () => 1)]) expect(collect(bytes, slices)).toEqual(whole)
  })

  it('refuse a payload over the limit before a byte of it is kept, and for ever', () => {
    const header = Buffer.alloc(HEADER_SIZE)
    header.writeUInt32LE(MAX_PAYLOAD + 1, 0)
    const parser = new FrameParser()
    parser.push(header.subarray(0, 11), () => {})
    expect(() => parser.push(header.subarray(11), () => {})).toThrow(ProtocolError)
    expect(() => parser.push(encodeFrame(1, 0), () => {})).toThrow(/closed/)
    expect(() => encodeFrame(1, 0, Buffer.alloc(MAX_PAYLOAD + 1))).toThrow(ProtocolError)
  })

  it('split a long message and join it again', () => {
    const message = Buffer.alloc(3 * MAX_PAYLOAD + 5, 'x')
    const frames = collect(encodeFrames(FrameType.RUN, 1, message), [])
    expect(frames.map((f) => f.flags)).toEqual([FLAG_MORE, FLAG_MORE, FLAG_MORE, 0])
    const joiner = new Joiner()
    expect(frames.map((f) => joiner.add(f)?.length)).toEqual([undefined, undefined, undefined, message.length])
    expect(joiner.add({ type: 8, flags: 0, stream: 0, payload: Buffer.from('next') })?.toString()).toBe('next')
    expect(() => encodeFrames(FrameType.RUN, 1, Buffer.alloc(MAX_JOINED + 1))).toThrow(ProtocolError)
  })

  it('are not joined beyond the limit', () => {
    const joiner = new Joiner()
    const frame = { type: 8, flags: FLAG_MORE, stream: 0, payload: Buffer.alloc(MAX_PAYLOAD) }
    for (let n = 0; n < MAX_JOINED / MAX_PAYLOAD; n++) expect(joiner.add(frame)).toBeUndefined()
    expect(() => joiner.add(frame)).toThrow(ProtocolError)
  })
})

describe('text', () => {
  it('keeps order, repeats and every byte but NUL', () => {
    const entries = [['arg', 'a=b'], ['arg', ''], ['env', 'X=\n\u{1f6a2}'], ['arg', 'c']] as const
    expect(decodeText(encodeText(entries))).toEqual(entries)
    expect(decodeText(Buffer.alloc(0))).toEqual([])
  })

  it('refuses NUL in values, bad keys and broken payloads', () => {
    expect(() => encodeText([['arg', 'a\0env=EVIL=1']])).toThrow(ProtocolError)
    expect(() => encodeText([['', 'a']])).toThrow(ProtocolError)
    expect(() => encodeText([['a=b', 'a']])).toThrow(ProtocolError)
    for (const bad of ['a=b', '=b\0', 'ab\0', 'ab\0c=d\0', 'a=b\0\0']) expect(() => decodeText(Buffer.from(bad))).toThrow(ProtocolError)
  })

  it('reads numbers strictly', () => {
    const map = textMap([['a', '7'], ['b', '7x'], ['c', '-1'], ['d', '99999999999999999'], ['e', ''], ['f', '256'], ['__proto__', '1']])
    expect(['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((key) => textNumber(map, key, 0, 255))).toEqual([7, undefined, undefined, undefined, undefined, undefined, undefined])
    expect(textNumber(map, 'c', -1)).toBe(-1)
  })

  it('makes a failure fit for a terminal', () => {
    expect(decodeFailure(encodeText([['code', '127'], ['message', 'no\u001b[2J such\nfile']]))).toEqual({ code: 127, message: 'no [2J such file' })
    expect(decodeFailure(Buffer.alloc(0)).code).toBe(125)
    expect(decodeFailure(encodeText([['code', '300']])).code).toBe(125)
    expect(cleanMessage('x'.repeat(5000))).toHaveLength(1000)
  })
})
