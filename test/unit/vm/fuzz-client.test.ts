import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { expect, it } from 'vitest'
import { VmClient } from '../../../src/sandbox/vm/client.js'
import { encodeFrame, encodeText, FLAG_MORE, FrameType, HEADER_SIZE, Joiner, MAX_JOINED, ProtocolError } from '../../../src/sandbox/vm/protocol.js'
import { Random } from '../../fuzz/random.js'

const seed = Number(process.env.HULL_FUZZ_SEED ?? Date.now() % 2 ** 31)
const rounds = Number(process.env.HULL_FUZZ_ROUNDS ?? 400)

const numbers = ['0', '1', '255', '256', '-1', '', 'x', '2147483648', '99999999999999999999']
const types = [FrameType.STARTED, FrameType.FAILED, FrameType.STDOUT, FrameType.STDOUT, FrameType.STDERR, FrameType.EXIT, FrameType.REPLY, FrameType.WINDOW, FrameType.HELLO]

/** What a supervisor that a guest has taken over may send: frames that mostly make sense, some of them changed. */
let made = 0
function hostileBytes(random: Random): Buffer {
  const frames: Buffer[] = random.one(4) ? [] : [encodeFrame(FrameType.STARTED, 0, encodeText([['pid', random.pick(numbers.slice(0, 3))]]))]
  for (let n = random.below(20); n > 0; n--) {
    const type = random.one(20) ? random.below(256) : random.pick(types)
    let payload: Buffer = encodeText([['code', random.pick(numbers)], ['message', '\u001b[2J\n'.repeat(random.below(9))], ['ok', random.pick(numbers)], ['__proto__', 'x']])
    if (type === FrameType.STDOUT || type === FrameType.STDERR) payload = Buffer.alloc(random.one(4) ? random.below(65_537) : random.below(50), 'o')
    if (type === FrameType.WINDOW) payload = Buffer.from([random.below(256), random.below(4), random.one(5) ? 255 : 0, 0].slice(0, random.one(9) ? 3 : 4))
    const frame = encodeFrame(type, random.one(9) ? random.below(9) : 0, payload, random.one(6) ? FLAG_MORE : 0)
    if (random.one(25)) frame[random.below(Math.min(frame.length, HEADER_SIZE + 20))] = random.below(256)
    frames.push(random.one(40) ? frame.subarray(0, random.below(frame.length)) : frame)
  }
  made += frames.length
  return Buffer.concat(frames)
}

it(`a client settles whatever the supervisor sends, and nothing of it comes out but an Error (HULL_FUZZ_SEED=${seed})`, { timeout: 30_000 + rounds * 100 }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hull-fuzz-client-'))
  const path = join(directory, 's')
  const stray: unknown[] = []
  const notice = (error: unknown) => stray.push(error)
  process.on('uncaughtExceptionMonitor', notice)
  let answer: Buffer = Buffer.alloc(0)
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    socket.resume()
    socket.end(answer) // at once, also when it is empty: the end may be there before anybody listens
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  const client = new VmClient(path, process.getuid!())
  const outcomes = { fulfilled: 0, rejected: 0 }
  try {
    for (let round = 0; round < rounds; round++) {
      const random = new Random(seed).fork(round)
      answer = hostileBytes(random)
      const session = async (start: Promise<{ duplex: Duplex; exited: Promise<number> }>) => {
        const { duplex, exited } = await start
        let output = 0
        // Some read, some do not, some go away; the end comes for all.
        if (!random.one(3)) duplex.on('data', (chunk: Buffer) => (output += chunk.length))
        if (random.one(2)) duplex.write(Buffer.alloc(random.below(400_000)))
        if (random.one(3)) duplex.end()
        if (random.one(4)) duplex.destroy()
        expect(await exited).toBeGreaterThanOrEqual(0)
        // Docker's header for each frame, at most.
        expect(output).toBeLessThanOrEqual(answer.length)
        duplex.destroy()
      }
      const asked = [
        () => client.waitStart(),
        () => client.signal(15),
        () => client.query('stats'),
        () => client.update([]),
        () => client.changeNetwork([]),
        () => session(client.exec([['arg', 'x']], { tty: random.one(2), stdin: random.one(2), detach: random.one(5) })),
        () => session(client.accept(0)),
      ][round % 7]!
      const [outcome] = await Promise.allSettled([asked() as Promise<unknown>])
      outcomes[outcome.status]++
      if (outcome.status === 'rejected') {
        expect(outcome.reason, `round ${round}`).toBeInstanceOf(Error)
        // A TypeError or an AssertionError is no answer to bytes.
        expect(['ProtocolError', 'StartFailure', 'LinkClosed', 'Error'], `round ${round}: ${String(outcome.reason)}`).toContain((outcome.reason as Error).name)
      }
    }
    console.log(`client: ${made} frames in ${rounds} connections, ${outcomes.fulfilled} answers, ${outcomes.rejected} errors`)
    expect(stray).toEqual([])
    // A fuzzer that only ever breaks the link tests nothing.
    expect(outcomes.fulfilled).toBeGreaterThan(rounds / 20)
    expect(outcomes.rejected).toBeGreaterThan(rounds / 20)
  } finally {
    process.off('uncaughtExceptionMonitor', notice)
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
    await rm(directory, { recursive: true, force: true })
  }
})

it('a message in frames of single bytes costs its length, not an object each', () => {
  const joiner = new Joiner()
  const before = process.memoryUsage()
  const frame = { type: FrameType.REPLY, flags: FLAG_MORE, stream: 0, payload: Buffer.from('x') }
  for (let n = 0; n < MAX_JOINED; n++) joiner.add(frame)
  const after = process.memoryUsage()
  expect(joiner.pending).toBe(MAX_JOINED)
  expect(after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers).toBeLessThan(30e6)
  expect(() => joiner.add(frame)).toThrow(ProtocolError)
})
