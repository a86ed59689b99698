import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { PortAllocator } from '../../../src/network/ports.js'
import type { PortBinding } from '../../../src/network/types.js'

// Containers are played by sockets on 127.0.0.1 here: the allocator passes connections on to any address.
const port = (containerPort: number, protocol: 'tcp' | 'udp', hostIp: string, hostPort: number): PortBinding => ({ containerPort, protocol, hostIp, hostPort })

let ports: PortAllocator
const cleanups: (() => void)[] = []
beforeEach(async () => {
  ports = new PortAllocator()
  await ports.start()
})
afterEach(async () => {
  await ports.close()
  cleanups.splice(0).forEach((cleanup) => cleanup())
})

async function foreignTcp(host = '127.0.0.1'): Promise<number> {
  const server = createServer().listen(0, host)
  await once(server, 'listening')
  cleanups.push(() => server.close())
  return (server.address() as AddressInfo).port
}

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '0.0.0.0')
  await once(server, 'listening')
  const { port: number } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return number
}

describe('conflicts', () => {
  test('between containers: Docker says "port is already allocated"', async () => {
    const number = await freePort()
    await ports.take('a', '127.0.0.1', [port(80, 'tcp', '0.0.0.0', number)])
    for (const hostIp of ['', '0.0.0.0', '127.0.0.1']) {
      await expect(ports.take('b', '127.0.0.1', [port(80, 'tcp', hostIp, number)])).rejects.toMatchObject({
        statusCode: 500,
        message: `Bind for ${hostIp || '0.0.0.0'}:${number} failed: port is already allocated`,
      })
    }
    // Another protocol is another port.
    await ports.take('b', '127.0.0.1', [port(80, 'udp', '0.0.0.0', number)])
    await ports.release('a')
    await ports.take('c', '127.0.0.1', [port(80, 'tcp', '', number)])
  })

  test('one address each is no conflict; the unspecified one conflicts with all', async () => {
    const number = await freePort()
    await ports.take('a', '127.0.0.1', [port(80, 'tcp', '127.0.0.1', number)])
    await ports.take('b', '127.0.0.1', [port(80, 'tcp', '127.0.0.2', number)])
    await expect(ports.take('c', '127.0.0.1', [port(80, 'tcp', '', number)])).rejects.toThrow(`Bind for 0.0.0.0:${number} failed`)
  })

  test('with another program: "address already in use", and nothing of ours stays', async () => {
    const foreign = await foreignTcp()
    const free = await freePort()
    await expect(ports.take('a', '127.0.0.1', [port(1, 'tcp', '', free), port(80, 'tcp', '127.0.0.1', foreign)])).rejects.toMatchObject({
      statusCode: 500,
      message: `Error starting userland proxy: listen tcp4 127.0.0.1:${foreign}: bind: address already in use`,
    })
    await ports.take('b', '127.0.0.1', [port(1, 'tcp', '', free)])
  })

  test('with another program on UDP', async () => {
    const socket = createSocket('udp4').bind(0, '127.0.0.1')
    await once(socket, 'listening')
    cleanups.push(() => socket.close())
    const number = socket.address().port
    await expect(ports.take('a', '127.0.0.1', [port(53, 'udp', '127.0.0.1', number)])).rejects.toThrow(
      `Error starting userland proxy: listen udp4 127.0.0.1:${number}: bind: address already in use`,
    )
  })

  test('within one request', async () => {
    const number = await freePort()
    await expect(ports.take('a', '127.0.0.1', [port(80, 'tcp', '', number), port(81, 'tcp', '', number)])).rejects.toThrow('port is already allocated')
    await ports.take('a', '127.0.0.1', [port(80, 'tcp', '', number)])
  })

  test('two requests at the same moment: one wins', async () => {
    const number = await freePort()
    const results = await Promise.allSettled(['a', 'b', 'c'].map((owner) => ports.take(owner, '127.0.0.1', [port(80, 'tcp', '', number)])))
    expect(results.filter((result) => result.status === 'fulfilled')).toHaveLength(1)
    for (const result of results) if (result.status === 'rejected') expect(String(result.reason)).toContain('port is already allocated')
  })

  test('an address that the host does not have', async () => {
    await expect(ports.take('a', '127.0.0.1', [port(80, 'tcp', '192.0.2.200', await freePort())])).rejects.toThrow(/bind: cannot assign requested address$/)
  })
})

describe('a chosen port', () => {
  test('comes from the ephemeral range, another each time, never one that is taken', async () => {
    const first = (await ports.take('a', '127.0.0.1', [port(80, 'tcp', '', 0), port(81, 'tcp', '', 0)])).map((binding) => binding.hostPort)
    expect(new Set(first).size).toBe(2)
    for (const number of first) expect(number).toBeGreaterThanOrEqual(1024)
    await ports.release('a')
    const [next] = await ports.take('b', '127.0.0.1', [port(80, 'tcp', '', 0)])
    expect(first).not.toContain(next!.hostPort)
  })

  test('skips ports of other programs', async () => {
    const [one] = await ports.take('a', '127.0.0.1', [port(80, 'tcp', '127.0.0.1', 0)])
    const blockers = [1, 2, 3].map((i) => createServer().listen(one!.hostPort + i, '127.0.0.1'))
    blockers.forEach((server) => server.on('error', () => {}))
    cleanups.push(() => blockers.forEach((server) => server.close()))
    await new Promise((resolve) => setTimeout(resolve, 50))
    const [two] = await ports.take('b', '127.0.0.1', [port(80, 'tcp', '', 0)])
    expect(two!.hostPort).toBeGreaterThan(one!.hostPort + 3)
  })
})

describe('bad bindings are a 400', () => {
  test.each([
    [port(0, 'tcp', '', 80)],
    [port(65536, 'tcp', '', 80)],
    [port(1.5, 'tcp', '', 80)],
    [port(80, 'tcp', '', -1)],
    [port(80, 'tcp', '', 70000)],
    [port(80, 'tcp', 'localhost', 80)],
    [port(80, 'tcp', 'fe80::1%lo', 80)],
    [port(80, 'tcp', '1.2.3.4; drop', 80)],
    [{ ...port(80, 'tcp', '', 80), protocol: 'sctp' as 'tcp' }],
  ])('%j', async (binding) => {
    await expect(ports.take('a', '127.0.0.1', [binding])).rejects.toMatchObject({ statusCode: 400 })
  })

  test('spellings of an address are one address', async () => {
    const number = await freePort()
    const [binding] = await ports.take('a', '127.0.0.1', [port(80, 'tcp', '::ffff:127.0.0.1', number)])
    expect(binding!.hostIp).toBe('127.0.0.1')
    await expect(ports.take('b', '127.0.0.1', [port(80, 'tcp', '127.0.0.1', number)])).rejects.toThrow('already allocated')
  })
})

describe('what reaches the sockets is passed on', () => {
  async function echoServer(): Promise<number> {
    // Answers only after the client's end of input: half-open connections must work.
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      const chunks: Buffer[] = []
      socket.on('data', (chunk) => chunks.push(chunk))
      socket.on('end', () => socket.end(Buffer.concat(chunks)))
      socket.on('error', () => {})
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    cleanups.push(() => server.close())
    return (server.address() as AddressInfo).port
  }

  function exchange(host: string, number: number, data: Buffer): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const socket: Socket = connect({ host, port: number, allowHalfOpen: true })
      const chunks: Buffer[] = []
      socket.on('data', (chunk) => chunks.push(chunk))
      socket.on('end', () => resolve(Buffer.concat(chunks)))
      socket.on('error', reject)
      socket.on('connect', () => socket.end(data))
    })
  }

  test.each(['127.0.0.1', '::1'])('tcp by %s: a megabyte there and back, with a half-closed client', async (host) => {
    const [binding] = await ports.take('a', '127.0.0.1', [port(await echoServer(), 'tcp', '', 0)])
    const data = Buffer.alloc(1 << 20, 'x')
    expect((await exchange(host, binding!.hostPort, data)).equals(data)).toBe(true)
  })

  test('tcp: nobody listens in the container: the connection ends', async () => {
    const [binding] = await ports.take('a', '127.0.0.1', [port(await freePort(), 'tcp', '', 0)])
    expect(await exchange('127.0.0.1', binding!.hostPort, Buffer.from('x')).catch(() => Buffer.alloc(0))).toHaveLength(0)
  })

  test('tcp: release ends connections and frees the port', async () => {
    const [binding] = await ports.take('a', '127.0.0.1', [port(await echoServer(), 'tcp', '', 0)])
    const socket = connect(binding!.hostPort, '127.0.0.1')
    await once(socket, 'connect')
    const closed = once(socket, 'close')
    socket.on('error', () => {})
    await ports.release('a')
    await ports.release('a')
    await closed
    const server = createServer().listen(binding!.hostPort, '0.0.0.0')
    await once(server, 'listening')
    server.close()
  })

  test.each([['127.0.0.1', 'udp4'], ['::1', 'udp6']] as const)('udp by %s: each client gets its own answers', async (host, type) => {
    const server = createSocket('udp4', (data, from) => server.send(data, from.port, from.address)).bind(0, '127.0.0.1')
    await once(server, 'listening')
    cleanups.push(() => server.close())
    const [binding] = await ports.take('a', '127.0.0.1', [port(server.address().port, 'udp', '', 0)])
    for (const word of ['one', 'two']) {
      const client = createSocket(type)
      client.send(word, binding!.hostPort, host)
      const [answer] = (await once(client, 'message')) as [Buffer]
      expect(answer.toString()).toBe(word)
      client.send(`${word} again`, binding!.hostPort, host)
      expect(((await once(client, 'message')) as [Buffer])[0].toString()).toBe(`${word} again`)
      client.close()
    }
    await ports.release('a')
    const again = createSocket('udp4').bind(binding!.hostPort, '0.0.0.0')
    await once(again, 'listening')
    again.close()
  })
})

test('adopt: listens again after a restart, reports what another program took meanwhile, keeps the port booked either way', async () => {
  const foreign = await foreignTcp()
  const free = await freePort()
  const { ports: kept, problems } = await ports.adopt('a', '127.0.0.1', [port(80, 'tcp', '127.0.0.1', foreign), port(81, 'tcp', '', free)])
  expect(kept).toHaveLength(2)
  expect(problems).toHaveLength(1)
  expect(problems[0]).toContain(`127.0.0.1:${foreign}/tcp`)
  await expect(ports.take('b', '127.0.0.1', [port(80, 'tcp', '127.0.0.1', foreign)])).rejects.toThrow('port is already allocated')
  await expect(ports.take('b', '127.0.0.1', [port(80, 'tcp', '', free)])).rejects.toThrow('port is already allocated')
  // Two containers with one port (a config that was meddled with): the first has it.
  const second = await ports.adopt('c', '127.0.0.1', [port(80, 'tcp', '0.0.0.0', free), port(80, 'tcp', '', 0)])
  expect(second.ports).toEqual([])
  expect(second.problems.join('\n')).toMatch(/belongs to another container\n.*was never chosen/)
})
