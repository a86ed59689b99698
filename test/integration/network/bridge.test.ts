import { createServer, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { runOk } from '../../../src/base/run.js'
import { createBridge, createVeth, deleteLink, linkInfo, listLinks, setAddress, setLink } from '../../../src/host/link.js'
import { createNetns, deleteNetns, isNetns } from '../../../src/host/netns.js'
import { BridgeNetwork } from '../../../src/network/bridge.js'
import { bridgeMac, namesOf } from '../../../src/network/names.js'
import type { Endpoint, PortBinding } from '../../../src/network/types.js'
import { call, callFrom, elements, inNetns, leftovers, Scope, waitFor } from './lib.js'

const bridge = 'hulltn0'
const bip = '10.213.0.1/24'
const port = (containerPort: number, protocol: 'tcp' | 'udp', hostIp: string, hostPort: number): PortBinding => ({ containerPort, protocol, hostIp, hostPort })

let scope: Scope
beforeEach(() => {
  scope = new Scope()
})
afterEach(() => scope.end())

/** Allocates, connects and publishes, as the engine does. */
async function up(network: BridgeNetwork, id: string, ports: PortBinding[] = []): Promise<{ endpoint: Endpoint; netnsPath: string }> {
  const endpoint = await network.allocate(id, { ports, name: id })
  const { netnsPath } = await network.connectNamespace(endpoint)
  await network.publish(endpoint)
  return { endpoint, netnsPath }
}

describe('one bridge', () => {
  test('two namespaces reach each other and the gateway; each has its address, MAC, MTU and route', async () => {
    const network = await scope.network(bridge, bip, { mtu: 1400 })
    await network.start([])
    expect(network.bridge).toEqual({ name: bridge, subnet: '10.213.0.0/24', gateway: '10.213.0.1', mtu: 1400 })
    const [a, b] = [await up(network, 'a'), await up(network, 'b')]
    expect([a.endpoint.address, b.endpoint.address]).toEqual(['10.213.0.2', '10.213.0.3'])
    const [link] = JSON.parse(await inNetns(a.netnsPath, ['ip', '-j', 'addr', 'show', 'eth0'])) as [{ address: string; mtu: number; operstate: string }]
    expect(link).toMatchObject({ address: '02:42:0a:d5:00:02', mtu: 1400, operstate: 'UP' })
    expect(await inNetns(a.netnsPath, ['ip', 'route'])).toMatch(/^default via 10\.213\.0\.1 dev eth0/)
    await scope.serve(b.netnsPath, 'tcp', 80, 'b')
    expect(await callFrom(a.netnsPath, 'tcp', b.endpoint.address, 80)).toBe('b 10.213.0.2 hi')
    const server = createServer((socket) => socket.end('gateway')).listen(0, '10.213.0.1')
    await once(server, 'listening')
    expect(await callFrom(a.netnsPath, 'tcp', '10.213.0.1', (server.address() as AddressInfo).port)).toBe('gateway')
    server.close()
  })

  test('a requested MAC and address; an address in use; an unknown endpoint; a second endpoint', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const endpoint = await network.allocate('a', { ports: [], mac: '02-AA-BB-CC-DD-EE', address: '10.213.0.77' })
    const { netnsPath } = await network.connectNamespace(endpoint)
    expect(await inNetns(netnsPath, ['ip', 'addr', 'show', 'eth0'])).toMatch(/02:aa:bb:cc:dd:ee[^]*10\.213\.0\.77\/24/)
    await expect(network.allocate('b', { ports: [], address: '10.213.0.77' })).rejects.toMatchObject({ statusCode: 403, message: 'Address already in use' })
    await expect(network.allocate('b', { ports: [], mac: 'x' })).rejects.toMatchObject({ statusCode: 400 })
    await expect(network.allocate('a', { ports: [] })).rejects.toMatchObject({ statusCode: 403 })
    await expect(network.allocate('../a', { ports: [] })).rejects.toMatchObject({ statusCode: 400 })
    await expect(network.connectNamespace({ ...endpoint, containerId: 'c' })).rejects.toMatchObject({ statusCode: 404 })
    await expect(network.publish({ ...endpoint, containerId: 'c' })).rejects.toMatchObject({ statusCode: 404 })
    await expect(network.release('../../etc')).rejects.toMatchObject({ statusCode: 400 })
  })

  test('an exhausted subnet is an error and heals with a release', async () => {
    const network = await scope.network(bridge, '10.213.0.1/29')
    await network.start([])
    for (let i = 0; i < 5; i++) await network.allocate(`c${i}`, { ports: [] })
    await expect(network.allocate('x', { ports: [] })).rejects.toMatchObject({ statusCode: 500, message: expect.stringContaining('no available IPv4 addresses') })
    await network.release('c3')
    expect((await network.allocate('x', { ports: [] })).address).toBe('10.213.0.5')
  })

  test('an isolated namespace has lo, up, and nothing else', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const { netnsPath } = await network.isolatedNamespace('lonely')
    const links = JSON.parse(await inNetns(netnsPath, ['ip', '-j', 'link'])) as { ifname: string; flags: string[] }[]
    expect(links.filter((link) => link.flags.includes('UP')).map((link) => link.ifname)).toEqual(['lo'])
    expect(await inNetns(netnsPath, ['ip', 'route'])).toBe('')
    // Asked for again without a release (a start that failed half way): the first one goes.
    const again = await network.isolatedNamespace('lonely')
    expect(await isNetns(netnsPath)).toBe(false)
    expect(await isNetns(again.netnsPath)).toBe(true)
    await network.release('lonely')
    expect(await isNetns(again.netnsPath)).toBe(false)
  })

  test('a tap is a port of the bridge as long as somebody holds it', async () => {
    const network = await scope.network(bridge, bip, { mtu: 1400 })
    await network.start([])
    const endpoint = await network.allocate('0123456789abcdef', { ports: [] })
    const { tapFd, name } = await network.connectTap(endpoint)
    try {
      expect(name).toMatch(/^ht[0-9a-z]{5}-0123456$/)
      expect(await linkInfo(name)).toMatchObject({ bridge, up: true, mtu: 1400 })
      await expect(network.connectTap(endpoint)).rejects.toMatchObject({ code: 'EBUSY' })
    } finally {
      closeSync(tapFd)
    }
    await network.release('0123456789abcdef')
    await waitFor(async () => (await listLinks(name)).length === 0)
  })

  test('release leaves nothing, also of many, and can be said twice', async () => {
    const network = await scope.network(bridge, bip, { poolSize: 0 })
    await network.start([])
    const before = await leftovers(bridge)
    for (let i = 0; i < 10; i++) await up(network, `c${i}`, [port(80, 'tcp', '', 0), port(53, 'udp', '127.0.0.1', 0)])
    await network.isolatedNamespace('lonely')
    expect((await elements(bridge, 'ports')).split(',')).toHaveLength(10)
    await Promise.all([...Array(10).keys()].map((i) => network.release(`c${i}`)))
    await network.release('c0')
    await network.release('lonely')
    await network.release('never-seen')
    for (const name of ['ports', 'addressed', 'own', 'ownAddressed'] as const) expect(await elements(bridge, name)).toBe('')
    await waitFor(async () => (await leftovers(bridge)).length === before.length)
    expect((await readdir(network.options.runDir)).filter((name) => name !== 'owners')).toEqual([])
    expect(await readdir(join(network.options.runDir, 'owners'))).toEqual([])
  })
})

describe('the outside', () => {
  test('a container gets out behind the host address; unpublished ports cannot be reached, published ones can', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const outside = await scope.outside('hulltn-o', '198.51.100')
    const router = await scope.outside('hulltn-r', '203.0.113', true)
    const a = await up(network, 'a', [port(80, 'tcp', '', 0), port(53, 'udp', '', 0)])
    const [http, dns] = a.endpoint.ports.map((binding) => binding.hostPort) as [number, number]
    await scope.serve(outside.netnsPath, 'tcp', 8000, 'world')
    await scope.serve(outside.netnsPath, 'udp', 8000, 'world')
    // The outside has no route to the container: only a masqueraded source gets an answer.
    expect(await callFrom(a.netnsPath, 'tcp', outside.address, 8000)).toBe('world 198.51.100.1 hi')
    expect(await callFrom(a.netnsPath, 'udp', outside.address, 8000)).toBe('world 198.51.100.1 hi')
    await scope.serve(a.netnsPath, 'tcp', 80, 'a')
    await scope.serve(a.netnsPath, 'udp', 53, 'a')
    // Published: the container sees the caller's own address.
    expect(await callFrom(outside.netnsPath, 'tcp', outside.hostAddress, http)).toBe('a 198.51.100.2 hi')
    expect(await callFrom(outside.netnsPath, 'udp', outside.hostAddress, dns)).toBe('a 198.51.100.2 hi')
    // A neighbour that routes to the subnet by us gets to no port directly.
    expect(await callFrom(router.netnsPath, 'tcp', a.endpoint.address, 80)).toBe('')
    expect(await callFrom(router.netnsPath, 'tcp', router.hostAddress, http)).toBe('a 203.0.113.2 hi')
  })

  test('a container cannot reach services on the host\'s loopback address', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const a = await up(network, 'a')
    const server = createServer((socket) => socket.end('secret')).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port: number } = server.address() as AddressInfo
    expect(await call('tcp', '127.0.0.1', number)).toBe('secret')
    // A frame to 127.0.0.1 on the wire, as root in a container can make it: lo out of the way and a route by the gateway.
    const script = 'echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 10.213.0.1 src 10.213.0.2'
    await inNetns(a.netnsPath, ['sh', '-c', script])
    expect(await callFrom(a.netnsPath, 'tcp', '127.0.0.1', number)).toBe('')
    // It is our rule that stands in the way, nothing else.
    await runOk('nft', ['flush', 'chain', 'ip', namesOf(bridge).table, 'raw'])
    expect(await callFrom(a.netnsPath, 'tcp', '127.0.0.1', number)).toBe('secret')
    server.close()
  })

  test('a neighbour on the wire does not reach what is published on the host\'s 127.0.0.1', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const a = await up(network, 'a', [port(80, 'tcp', '127.0.0.1', 0)])
    const number = a.endpoint.ports[0]!.hostPort
    await scope.serve(a.netnsPath, 'tcp', 80, 'a')
    const outside = await scope.outside('hulltn-o', '198.51.100')
    expect(await call('tcp', '127.0.0.1', number)).toMatch(/^a /)
    const script = 'echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 198.51.100.1 src 198.51.100.2'
    await inNetns(outside.netnsPath, ['sh', '-c', script])
    expect(await callFrom(outside.netnsPath, 'tcp', '127.0.0.1', number)).toBe('')
    // It is our rule that stands in the way: without it the address is translated before the kernel looks whether it may come from there.
    const { stdout } = await runOk('nft', ['-a', 'list', 'chain', 'ip', namesOf(bridge).table, 'prerouting'])
    const handle = /127\.0\.0\.0\/8 return # handle (\d+)/.exec(stdout)![1]!
    await runOk('nft', ['delete', 'rule', 'ip', namesOf(bridge).table, 'prerouting', 'handle', handle])
    expect(await callFrom(outside.netnsPath, 'tcp', '127.0.0.1', number)).toMatch(/^a /)
  })
})

describe('published ports on the host', () => {
  test.each(['tcp', 'udp'] as const)('%s: by 127.0.0.1, ::1, a host address, the gateway; from a neighbour and from itself', async (protocol) => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const [a, b] = [await up(network, 'a', [port(80, protocol, '', 0)]), await up(network, 'b')]
    const number = a.endpoint.ports[0]!.hostPort
    await scope.serve(a.netnsPath, protocol, 80, 'a')
    const outside = await scope.outside('hulltn-o', '198.51.100')
    expect(await call(protocol, '127.0.0.1', number)).toBe('a 10.213.0.1 hi')
    expect(await call(protocol, '127.9.9.9', number)).toBe('a 10.213.0.1 hi')
    expect(await call(protocol, '::1', number)).toBe('a 10.213.0.1 hi')
    expect(await call(protocol, outside.hostAddress, number)).toMatch(/^a [\d.]+ hi$/)
    expect(await call(protocol, '10.213.0.1', number)).toBe('a 10.213.0.1 hi')
    for (const address of ['10.213.0.1', outside.hostAddress]) {
      expect(await callFrom(b.netnsPath, protocol, address, number)).toBe('a 10.213.0.1 hi')
      expect(await callFrom(a.netnsPath, protocol, address, number)).toBe('a 10.213.0.1 hi')
    }
  })

  test('one address: reachable there and nowhere else', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const outside = await scope.outside('hulltn-o', '198.51.100')
    const a = await up(network, 'a', [port(80, 'tcp', '127.0.0.1', 0), port(81, 'tcp', outside.hostAddress, 0)])
    const [local, addressed] = a.endpoint.ports.map((binding) => binding.hostPort) as [number, number]
    await scope.serve(a.netnsPath, 'tcp', 80, 'local')
    await scope.serve(a.netnsPath, 'tcp', 81, 'addressed')
    expect(await call('tcp', '127.0.0.1', local)).toBe('local 10.213.0.1 hi')
    expect(await call('tcp', outside.hostAddress, local)).toBe('')
    expect(await callFrom(outside.netnsPath, 'tcp', outside.hostAddress, local)).toBe('')
    expect(await callFrom(outside.netnsPath, 'tcp', outside.hostAddress, addressed)).toBe('addressed 198.51.100.2 hi')
    expect(await call('tcp', '127.0.0.1', addressed)).toBe('')
    expect(await callFrom(a.netnsPath, 'tcp', outside.hostAddress, addressed)).toMatch(/^addressed [\d.]+ hi$/)
    expect(await callFrom(a.netnsPath, 'tcp', '10.213.0.1', addressed)).toBe('')
  })

  test('conflicts in Docker\'s words, and nothing of the failed one stays', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const a = await up(network, 'a', [port(80, 'tcp', '', 0)])
    const number = a.endpoint.ports[0]!.hostPort
    await expect(network.allocate('b'.repeat(64), { ports: [port(80, 'tcp', '', number)], name: 'web' })).rejects.toMatchObject({
      statusCode: 500,
      message: `driver failed programming external connectivity on endpoint web (${'b'.repeat(64)}): Bind for 0.0.0.0:${number} failed: port is already allocated`,
    })
    const server = createServer().listen(0, '0.0.0.0')
    await once(server, 'listening')
    const foreign = (server.address() as AddressInfo).port
    await expect(network.allocate('b', { ports: [port(80, 'tcp', '', foreign)], name: 'web' })).rejects.toMatchObject({
      statusCode: 500,
      message: `driver failed programming external connectivity on endpoint web (b): Error starting userland proxy: listen tcp4 0.0.0.0:${foreign}: bind: address already in use`,
    })
    server.close()
    await once(server, 'close')
    expect((await network.allocate('b', { ports: [port(80, 'tcp', '', foreign)] })).address).not.toBe(a.endpoint.address)
    await network.release('a')
    await network.allocate('c', { ports: [port(80, 'tcp', '', number)] })
  })

  test('a thousand ports of one container are one transaction', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const a = await up(network, 'a', Array.from({ length: 1000 }, (_, i) => port(1000 + i, 'udp', '127.0.0.1', 0)))
    expect((await elements(bridge, 'addressed')).split(',')).toHaveLength(1000)
    expect(new Set(a.endpoint.ports.map((binding) => binding.hostPort)).size).toBe(1000)
    await network.release('a')
    expect(await elements(bridge, 'addressed')).toBe('')
  })

  test('a flushed rule set is repaired by the next publish, for all containers', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const a = await up(network, 'a', [port(80, 'tcp', '', 0)])
    await runOk('nft', ['delete', 'table', 'ip', namesOf(bridge).table])
    const b = await up(network, 'b', [port(80, 'tcp', '', 0)])
    const published = await elements(bridge, 'ports')
    for (const { endpoint } of [a, b]) expect(published).toContain(`tcp . ${endpoint.ports[0]!.hostPort} : ${endpoint.address} . 80`)
    await runOk('nft', ['delete', 'table', 'ip', namesOf(bridge).table])
    await network.release('a')
    expect(await elements(bridge, 'ports')).toBe(`tcp . ${b.endpoint.ports[0]!.hostPort} : ${b.endpoint.address} . 80`)
  })
})

describe('side by side', () => {
  test('two managers, the same ports on other addresses, and each removes only its own', async () => {
    const one = await scope.network('hulltn1', '10.213.1.1/24')
    const two = await scope.network('hulltn2', '10.213.2.1/24')
    await Promise.all([one.start([]), two.start([])])
    const a = await up(one, 'a', [port(80, 'tcp', '127.0.0.1', 0)])
    const number = a.endpoint.ports[0]!.hostPort
    const b = await up(two, 'a', [port(80, 'tcp', '127.0.0.2', number)])
    await scope.serve(a.netnsPath, 'tcp', 80, 'one')
    await scope.serve(b.netnsPath, 'tcp', 80, 'two')
    expect(await call('tcp', '127.0.0.1', number)).toBe('one 10.213.1.1 hi')
    expect(await call('tcp', '127.0.0.2', number)).toBe('two 10.213.2.1 hi')
    // Containers of different daemons are strangers, but may use each other's published ports.
    expect(await callFrom(a.netnsPath, 'tcp', b.endpoint.address, 80)).toBe('')
    const c = await up(two, 'c', [port(80, 'tcp', '', 0)])
    await scope.serve(c.netnsPath, 'tcp', 80, 'c')
    expect(await callFrom(a.netnsPath, 'tcp', '10.213.1.1', c.endpoint.ports[0]!.hostPort)).toMatch(/^c [\d.]+ hi$/)
    // Another program has the port: the other daemon's listening socket.
    await expect(two.allocate('d', { ports: [port(80, 'tcp', '127.0.0.1', number)] })).rejects.toThrow('address already in use')
    await one.stop(true)
    await waitFor(async () => (await leftovers('hulltn1')).length === 0)
    expect(await call('tcp', '127.0.0.2', number)).toBe('two 10.213.2.1 hi')
  })

  test('a bip that another manager uses is a clear error; a default finds another subnet', async () => {
    const one = await scope.network('hulltn1', '')
    await one.start([])
    const two = await scope.network('hulltn2', one.bridge.gateway + '/24')
    await expect(two.start([])).rejects.toMatchObject({ message: expect.stringMatching(/^bip .* overlaps with (route|address) .*hulltn1/) })
    const three = await scope.network('hulltn3', '')
    await three.start([])
    expect(three.bridge.subnet).not.toBe(one.bridge.subnet)
  })
})

describe('names that are taken', () => {
  test('a second manager with the same bridge is refused and harms nothing; after a stop it may', async () => {
    const one = await scope.network(bridge, bip)
    await one.start([])
    const a = await up(one, 'a')
    const { stateDir, runDir } = one.options
    const two = new BridgeNetwork({ bridgeName: bridge, bip, mtu: 1500, stateDir, runDir, poolSize: 1 })
    await expect(two.start([])).rejects.toThrow(`the bridge ${bridge} belongs to another running daemon`)
    await two.stop(false)
    expect(await isNetns(a.netnsPath)).toBe(true)
    await one.stop(false)
    const three = new BridgeNetwork({ bridgeName: bridge, bip, mtu: 1500, stateDir, runDir, poolSize: 1 })
    await three.start([a.endpoint])
    expect(await isNetns(a.netnsPath)).toBe(true)
    await three.stop(true)
  })

  test('a link that is no bridge, and a bridge with a stranger as its port, are refused and left alone', async () => {
    const netns = join(await scope.directory(), 'ns')
    await createNetns(netns)
    scope.onEnd(() => deleteNetns(netns))
    await createVeth({ name: 'hulltn-x', peer: 'eth0', netns })
    scope.onEnd(() => deleteLink('hulltn-x'))
    const network = await scope.network('hulltn-y', bip)
    createBridge('hulltn-y')
    scope.onEnd(() => deleteLink('hulltn-y'))
    await runOk('ip', ['link', 'set', 'hulltn-x', 'master', 'hulltn-y'])
    await expect(network.start([])).rejects.toThrow("somebody else's link hulltn-x is a port of it")
    expect(await linkInfo('hulltn-x')).toMatchObject({ bridge: 'hulltn-y' })
    const other = await scope.network('hulltn-z', bip)
    await createVeth({ name: 'hulltn-z', peer: 'eth1', netns })
    scope.onEnd(() => deleteLink('hulltn-z'))
    await expect(other.start([])).rejects.toThrow('is no bridge')
    await other.stop(true)
    expect(await listLinks('hulltn-z')).toEqual(['hulltn-z'])
  })

  test("another program's idle bridge is refused and left alone", async () => {
    createBridge('hulltn-w')
    scope.onEnd(() => deleteLink('hulltn-w'))
    setAddress('hulltn-w', '10.213.9.1', 24)
    const network = new BridgeNetwork({ bridgeName: 'hulltn-w', bip, mtu: 1500, stateDir: await scope.directory(), runDir: await scope.directory(), poolSize: 0 })
    await expect(network.start([])).rejects.toThrow('a bridge of that name exists with an address that is not ours')
    await network.stop(true)
    expect(await listLinks('hulltn-w')).toEqual(['hulltn-w'])
  })

  test('a bridge that a killed daemon left, with another address, is taken over', async () => {
    const network = await scope.network(bridge, bip)
    createBridge(bridge)
    setLink(bridge, { mac: bridgeMac(bridge) })
    setAddress(bridge, '10.213.9.1', 24)
    await network.start([])
    const [shown] = JSON.parse((await runOk('ip', ['-j', '-4', 'addr', 'show', bridge])).stdout) as [{ addr_info: { local: string; prefixlen: number }[] }]
    expect(shown.addr_info.map((entry) => `${entry.local}/${entry.prefixlen}`)).toEqual([bip])
  })
})

test('without nft the start fails with what to install, and leaves no bridge', async () => {
  const network = await scope.network(bridge, bip)
  const path = process.env['PATH']
  process.env['PATH'] = '/nonexistent'
  try {
    await expect(network.start([])).rejects.toThrow('nft: program not found (Debian package nftables)')
  } finally {
    process.env['PATH'] = path
  }
  expect(await leftovers(bridge)).toEqual([])
})

test('the pool fills up, keeps its size and is gone after stop', async () => {
  const network = await scope.network(bridge, bip, { poolSize: 3 })
  await network.start([])
  await waitFor(() => network.ready.veth === 3 && network.ready.isolated === 2)
  const ids = Array.from({ length: 6 }, (_, i) => `c${i}`)
  const paths = await Promise.all(ids.map(async (id) => (await up(network, id)).netnsPath))
  expect(new Set(paths).size).toBe(6)
  await waitFor(() => network.ready.veth === 3)
  expect(await listLinks(namesOf(bridge).vethPrefix)).toHaveLength(9)
  await network.stop(false)
  await waitFor(async () => (await listLinks(namesOf(bridge).vethPrefix)).length === 6)
  for (const path of paths) expect(await isNetns(path)).toBe(true)
  expect(JSON.parse(await readFile(join(network.options.stateDir, 'subnet.json'), 'utf8'))).toEqual({ bip, last: '10.213.0.7' })
  await expect(network.allocate('x', { ports: [] })).rejects.toThrow('not started')
})
