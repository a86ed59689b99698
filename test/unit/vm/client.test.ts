import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { StartFailure, VmClient } from '../../../src/sandbox/vm/client.js'
import { guestFiles } from '../../../src/sandbox/vm/files.js'
import { connectSocket, LinkClosed } from '../../../src/sandbox/vm/link.js'
import { decodeText, encodeFrame, encodeText, FLAG_MORE, FrameParser, FrameType, textMap, WINDOW_SIZE, type Frame } from '../../../src/sandbox/vm/protocol.js'

/** The other end of a connection: a supervisor that does what the test says, speaking real frames over a real socket. */
interface Peer {
  socket: Socket
  send: (type: number, payload?: Uint8Array, flags?: number) => void
  received: Frame[]
}

let directory: string
let path: string
let server: Server
let behave: (frame: Frame, peer: Peer) => void
let peers: Peer[]
let refused: Error | undefined

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hull-vm-client-'))
  path = join(directory, 'a'.repeat(120)) // longer than sun_path: the daemon's directories may be deep
  peers = []
  refused = undefined
  behave = () => {}
  server = createServer((socket) => {
    const parser = new FrameParser()
    const peer: Peer = { socket, received: [], send: (type, payload, flags) => void socket.write(encodeFrame(type, 0, payload, flags)) }
    peers.push(peer)
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      try {
        parser.push(chunk, (frame) => {
          peer.received.push({ ...frame, payload: Buffer.from(frame.payload) })
          behave(frame, peer)
        })
      } catch (error) {
        refused = error as Error
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(join(directory, 's'), resolve))
  // Bound under a short name, found under a long one: a hard link to the socket.
  const { link } = await import('node:fs/promises')
  await link(join(directory, 's'), path)
})

afterEach(async () => {
  for (const peer of peers) peer.socket.destroy()
  await new Promise((resolve) => server.close(resolve))
  await rm(directory, { recursive: true, force: true })
  expect(refused).toBeUndefined()
})

const client = () => new VmClient(path, process.getuid!())
const text = (entries: [string, string][]) => encodeText(entries)
const windowOf = (bytes: number) => {
  const payload = Buffer.alloc(4)
  payload.writeUInt32LE(bytes)
  return payload
}

async function until(condition: () => boolean): Promise<void> {
  for (let n = 0; n < 400 && !condition(); n++) await new Promise((resolve) => setTimeout(resolve, 5))
  expect(condition()).toBe(true)
}

describe('questions', () => {
  it('a supervisor that ends at once, or breaks the connection off, is noticed', async () => {
    server.prependListener('connection', (socket: Socket) => socket.end())
    await expect(client().waitStart()).rejects.toThrow(LinkClosed)
    await expect(client().exec([['arg', 'x']], { tty: false, stdin: true, detach: false })).rejects.toThrow(LinkClosed)
    server.prependListener('connection', (socket: Socket) => socket.destroy())
    await expect(client().waitStart()).rejects.toThrow(LinkClosed)
  })

  it('signal, resize: ok or not', async () => {
    behave = (frame, peer) => peer.send(FrameType.REPLY, text([['ok', frame.type === FrameType.SIGNAL ? '1' : '0']]))
    expect(await client().signal(15)).toBe(true)
    expect(await client().resize(24, 80)).toBe(false)
    expect(decodeText(peers[0]!.received[0]!.payload)).toEqual([['signal', '15']])
    expect(decodeText(peers[1]!.received[0]!.payload)).toEqual([['rows', '24'], ['columns', '80']])
  })

  it('a supervisor that is gone is no error for a signal', async () => {
    behave = (_frame, peer) => peer.socket.destroy()
    expect(await client().signal(15)).toBe(false)
    expect(await new VmClient(join(directory, 'nothing'), undefined).signal(15)).toBe(false)
  })

  it('a long reply is joined', async () => {
    behave = (_frame, peer) => {
      peer.send(FrameType.REPLY, text([['a', '1']]), FLAG_MORE)
      peer.send(FrameType.REPLY, text([['b', '2']]))
    }
    expect([...(await client().queryText('stats'))]).toEqual([['a', '1'], ['b', '2']])
  })

  it('waits for the start, and says why there is none', async () => {
    behave = (_frame, peer) => peer.send(FrameType.STARTED, text([['pid', '77']]))
    expect(await client().waitStart()).toBe(77)
    behave = (_frame, peer) => peer.send(FrameType.FAILED, text([['code', '127'], ['message', 'exec: "x": executable file not found in $PATH']]))
    await expect(client().waitStart()).rejects.toThrow(StartFailure)
    behave = (_frame, peer) => peer.socket.end()
    await expect(client().waitStart()).rejects.toThrow(LinkClosed)
    behave = (_frame, peer) => void peer.socket.write(Buffer.alloc(12, 0xff))
    await expect(client().waitStart()).rejects.toThrow(/guest protocol/)
  })

  it('a symbolic link, a file or a stranger\'s socket in its place is not connected', async () => {
    await symlink(path, join(directory, 'link'))
    await expect(connectSocket(join(directory, 'link'), process.getuid!())).rejects.toThrow(/not the supervisor/)
    await writeFile(join(directory, 'file'), '')
    await expect(connectSocket(join(directory, 'file'), process.getuid!())).rejects.toThrow(/not the supervisor/)
    await expect(connectSocket(path, process.getuid!() + 1)).rejects.toThrow(/not the supervisor/)
  })
})

describe('exec', () => {
  const start = (options: Partial<{ tty: boolean; stdin: boolean; detach: boolean }> = {}) =>
    client().exec([['arg', 'sh']], { tty: false, stdin: true, detach: false, ...options })

  it('output is multiplexed as Docker does, the code comes after it', async () => {
    behave = (frame, peer) => {
      if (frame.type !== FrameType.EXEC) return
      peer.send(FrameType.STARTED, text([['pid', '5']]))
      peer.send(FrameType.STDOUT, Buffer.from('out\n'))
      peer.send(FrameType.STDERR, Buffer.from('err\n'))
      peer.send(FrameType.EXIT, text([['code', '7'], ['oom', '0']]))
    }
    const session = await start()
    expect(session.pid).toBe(5)
    expect(await session.exited).toBe(7)
    const chunks: Buffer[] = []
    for await (const chunk of session.duplex) chunks.push(chunk as Buffer)
    expect(Buffer.concat(chunks).toString('hex')).toBe('0100000000000004' + Buffer.from('out\n').toString('hex') + '0200000000000004' + Buffer.from('err\n').toString('hex'))
  })

  it('with a terminal the output is raw', async () => {
    behave = (frame, peer) => {
      if (frame.type !== FrameType.EXEC) return
      peer.send(FrameType.STARTED, text([['pid', '5']]))
      peer.send(FrameType.STDOUT, Buffer.from('a'))
      peer.send(FrameType.EXIT, text([['code', '0']]))
    }
    const chunks: Buffer[] = []
    for await (const chunk of (await start({ tty: true })).duplex) chunks.push(chunk as Buffer)
    expect(Buffer.concat(chunks).toString()).toBe('a')
  })

  it('fails in the guest\'s words', async () => {
    behave = (frame, peer) => frame.type === FrameType.EXEC && peer.send(FrameType.FAILED, text([['code', '126'], ['message', 'permission denied']]))
    await expect(start()).rejects.toMatchObject({ failure: { code: 126, message: 'permission denied' } })
  })

  it('a guest that does not answer is not waited for, and its supervisor forgets the session', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    let left = false
    server.prependListener('connection', (socket: Socket) => socket.once('close', () => (left = true)))
    const wait = async (condition: () => boolean) => {
      while (!condition()) await setImmediate()
    }
    try {
      const session = start()
      const failed = expect(session).rejects.toMatchObject({ failure: { code: 125, message: 'the virtual machine does not answer' } })
      await wait(() => peers[0]?.received.length === 1)
      vi.advanceTimersByTime(59_999)
      for (let n = 0; n < 100; n++) await setImmediate()
      expect(left).toBe(false)
      vi.advanceTimersByTime(1)
      await failed
      peers[0]!.socket.end()
      await wait(() => left)
    } finally {
      vi.useRealTimers()
    }
  })

  it('a VM that dies ends the session with 137', async () => {
    behave = (frame, peer) => {
      if (frame.type !== FrameType.EXEC) return
      peer.send(FrameType.STARTED, text([['pid', '5']]))
      setTimeout(() => peer.socket.destroy(), 20)
    }
    expect(await (await start()).exited).toBe(137)
  })

  it('stdin: flow control, end of input', async () => {
    let received = 0
    let eof = false
    behave = (frame, peer) => {
      if (frame.type === FrameType.EXEC) peer.send(FrameType.STARTED, text([['pid', '5']]))
      if (frame.type === FrameType.STDIN) received += frame.payload.length
      if (frame.type === FrameType.STDIN_EOF) eof = true
    }
    const session = await start()
    const size = WINDOW_SIZE + 100_000
    session.duplex.end(Buffer.alloc(size, 1))
    await until(() => received === WINDOW_SIZE)
    await new Promise((resolve) => setTimeout(resolve, 30))
    expect([received, eof]).toEqual([WINDOW_SIZE, false])
    peers[0]!.send(FrameType.WINDOW, windowOf(WINDOW_SIZE))
    await until(() => eof)
    expect(received).toBe(size)
    session.duplex.destroy()
  })

  it('credit is given only for what the reader took; more than that ends the link', async () => {
    behave = (frame, peer) => {
      if (frame.type !== FrameType.EXEC) return
      peer.send(FrameType.STARTED, text([['pid', '5']]))
      for (let n = 0; n < WINDOW_SIZE / 65536; n++) peer.send(FrameType.STDOUT, Buffer.alloc(65536))
    }
    const session = await start()
    const granted = () => peers[0]!.received.filter((f) => f.type === FrameType.WINDOW).reduce((sum, f) => sum + f.payload.readUInt32LE(0), 0)
    await new Promise((resolve) => setTimeout(resolve, 50))
    const before = granted()
    expect(before).toBeLessThan(WINDOW_SIZE)
    peers[0]!.send(FrameType.STDOUT, Buffer.alloc(65536))
    peers[0]!.send(FrameType.STDOUT, Buffer.alloc(65536))
    expect(await session.exited).toBe(137) // the flooding peer was cut off
    session.duplex.resume()
  })

  it('a reader that reads gets the window back', async () => {
    behave = (frame, peer) => {
      if (frame.type !== FrameType.EXEC) return
      peer.send(FrameType.STARTED, text([['pid', '5']]))
      for (let n = 0; n < WINDOW_SIZE / 65536; n++) peer.send(FrameType.STDOUT, Buffer.alloc(65536))
    }
    const session = await start()
    session.duplex.resume()
    await until(() => peers[0]!.received.filter((f) => f.type === FrameType.WINDOW).reduce((sum, f) => sum + f.payload.readUInt32LE(0), 0) === WINDOW_SIZE)
    session.duplex.destroy()
  })

  it('leaving ends stdin and throws output away; the exit code still comes', async () => {
    let sent = 0
    let granted = 0
    behave = (frame, peer) => {
      if (frame.type === FrameType.EXEC) peer.send(FrameType.STARTED, text([['pid', '5']]))
      if (frame.type === FrameType.WINDOW) granted += frame.payload.readUInt32LE(0)
      // Much more than a window: it only comes through when what was thrown away is granted again.
      if (frame.type === FrameType.STDIN_EOF || (frame.type === FrameType.WINDOW && sent > 0)) {
        while (sent < 4 * WINDOW_SIZE && sent - granted + 65536 <= WINDOW_SIZE) {
          peer.send(FrameType.STDOUT, Buffer.alloc(65536))
          sent += 65536
        }
        if (granted >= 4 * WINDOW_SIZE) peer.send(FrameType.EXIT, text([['code', '3']]))
      }
    }
    const session = await start()
    session.duplex.destroy()
    expect(await session.exited).toBe(3)
  })

  it('a detached session tells its exit code', async () => {
    behave = (frame, peer) => {
      if (frame.type !== FrameType.EXEC) return
      peer.send(FrameType.STARTED, text([['pid', '5']]))
      peer.send(FrameType.STDOUT, Buffer.alloc(1000))
      peer.send(FrameType.EXIT, text([['code', '3']]))
    }
    expect(await (await start({ detach: true, stdin: false })).exited).toBe(3)
  })

  it('resize and signal go to the session', async () => {
    behave = (frame, peer) => frame.type === FrameType.EXEC && peer.send(FrameType.STARTED, text([['pid', '5']]))
    const session = await start()
    await session.resize(10, 20)
    await session.signal(2)
    await until(() => peers[0]!.received.length === 3)
    expect(peers[0]!.received.slice(1).map((f) => [f.type, Object.fromEntries(textMap(decodeText(f.payload)))])).toEqual([
      [FrameType.RESIZE, { rows: '10', columns: '20' }],
      [FrameType.SIGNAL, { signal: '2' }],
    ])
    session.duplex.destroy()
  })
})

describe('work on files', () => {
  const open = () => guestFiles(client(), { op: 'changes' }, async () => undefined)
  const signalled = () => peers[0]!.received.some((frame) => frame.type === FrameType.SIGNAL)

  it('that is cancelled ends, though the guest never tells of it and goes on talking', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const wait = async (condition: () => boolean) => {
      while (!condition()) await setImmediate()
    }
    try {
      behave = (frame, peer) => {
        if (frame.type === FrameType.EXEC) peer.send(FrameType.STARTED, text([['pid', '5']]))
        if (frame.type === FrameType.EXEC || frame.type === FrameType.WINDOW) peer.send(FrameType.STDOUT, Buffer.alloc(1000))
      }
      const job = await open()
      let outcome = ''
      job.done.catch((error: Error) => (outcome = error.message))
      job.cancel()
      await wait(signalled)
      vi.advanceTimersByTime(2999)
      for (let n = 0; n < 100; n++) await setImmediate()
      expect(outcome).toBe('')
      vi.advanceTimersByTime(1)
      await wait(() => outcome !== '')
      expect(outcome).toContain('ended early (exit code 137)')
      await wait(() => peers[0]!.socket.readableEnded || peers[0]!.socket.destroyed) // its supervisor forgets the session
    } finally {
      vi.useRealTimers()
    }
  })

  it('that is cancelled ends as the guest says, when it does', async () => {
    behave = (frame, peer) => {
      if (frame.type === FrameType.EXEC) peer.send(FrameType.STARTED, text([['pid', '5']]))
      if (frame.type === FrameType.SIGNAL) peer.send(FrameType.EXIT, text([['code', '9']]))
    }
    const job = await open()
    job.cancel()
    await expect(job.done).rejects.toThrow('ended early (exit code 9)')
  })
})
