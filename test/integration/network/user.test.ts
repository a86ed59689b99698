import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { createServer } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { run, runOk } from '../../../src/base/run.js'
import { createVeth, deleteLink, linkInfo, listLinks, removeBridgePort } from '../../../src/host/link.js'
import { configureInterface, createNetns, deleteNetns } from '../../../src/host/netns.js'
import { BridgeNetwork } from '../../../src/network/bridge.js'
import { namesOf } from '../../../src/network/names.js'
import type { Endpoint, NetworkSpec } from '../../../src/network/types.js'
import { callFrom, elements, inNetns, Scope } from './lib.js'

const bridge = 'hulltn5'
const bip = '10.214.5.1/24'
let scope: Scope
beforeEach(() => {
  scope = new Scope()
})
afterEach(() => scope.end())

const idOf = (letter: string) => letter.repeat(64)

/** A user-defined network, made as the engine makes it. */
async function make(network: BridgeNetwork, letter: string, subnet: string, options: { internal?: boolean; options?: Record<string, string> } = {}): Promise<NetworkSpec> {
  const { spec } = await network.plan({
    id: idOf(letter), name: `net${letter}`, internal: options.internal ?? false, ipv6: false, configs: [{ subnet, gateway: '', ipRange: '', auxiliary: {} }], options: options.options ?? {},
  })
  await network.createNetwork(spec)
  return spec
}

async function up(network: BridgeNetwork, id: string, networkId: string, names: string[] = []): Promise<{ endpoint: Endpoint; netnsPath: string }> {
  const endpoint = await network.allocate(id, { networkId, ports: [], names, interfaceName: 'eth0' })
  return { endpoint, ...(await network.connectNamespace(endpoint)) }
}

const dig = (netnsPath: string, server: string, name: string, ...more: string[]) =>
  run('nsenter', [`--net=${netnsPath}`, 'busybox', 'nslookup', ...more, name, server], { timeoutMs: 15_000 }).then((said) => said.stdout + said.stderr)

describe('user-defined networks', () => {
  test('two and the default: neighbours reach each other, nobody reaches another network; a removed one leaves nothing', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const a = await make(network, 'a', '10.214.6.0/24')
    await make(network, 'b', '10.214.7.0/24', { options: { 'com.docker.network.bridge.name': 'hulltnmine' } })
    const [one, two, three, four] = [await up(network, 'one', idOf('a')), await up(network, 'two', idOf('a')), await up(network, 'three', idOf('b')), await up(network, 'four', '')]
    await scope.serve(two.netnsPath, 'tcp', 80, 'two')
    await scope.serve(three.netnsPath, 'tcp', 80, 'three')
    expect(await callFrom(one.netnsPath, 'tcp', two.endpoint.address, 80)).toBe('two 10.214.6.2 hi')
    expect(await callFrom(one.netnsPath, 'tcp', three.endpoint.address, 80)).toBe('')
    expect(await callFrom(four.netnsPath, 'tcp', three.endpoint.address, 80)).toBe('')
    expect(await callFrom(three.netnsPath, 'tcp', two.endpoint.address, 80)).toBe('')
    await expect(network.removeNetwork(idOf('a'))).rejects.toMatchObject({ statusCode: 403 })
    for (const id of ['one', 'two', 'three', 'four']) await network.release(id)
    await network.removeNetwork(idOf('a'))
    await network.removeNetwork(idOf('b'))
    expect(await linkInfo(a.bridge)).toBeUndefined()
    expect(await linkInfo('hulltnmine')).toBeUndefined()
    expect((await runOk('nft', ['list', 'table', 'ip', `hull-${bridge}`])).stdout).not.toMatch(/10\.214\.[67]|hulltnmine/)
  })

  test('icc=false keeps neighbours apart and leaves the gateway', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    await make(network, 'a', '10.214.6.0/24', { options: { 'com.docker.network.bridge.enable_icc': 'false' } })
    const [one, two] = [await up(network, 'one', idOf('a'), ['one']), await up(network, 'two', idOf('a'))]
    await scope.serve(two.netnsPath, 'tcp', 80, 'two')
    expect(await callFrom(one.netnsPath, 'tcp', two.endpoint.address, 80)).toBe('')
    expect(await dig(one.netnsPath, '10.214.6.1', 'one')).toContain('10.214.6.2')
    // Nor by way of the gateway, which routes.
    await inNetns(one.netnsPath, ['ip', 'route', 'add', two.endpoint.address, 'via', '10.214.6.1'])
    await inNetns(two.netnsPath, ['ip', 'route', 'add', one.endpoint.address, 'via', '10.214.6.1'])
    expect(await callFrom(one.netnsPath, 'tcp', two.endpoint.address, 80)).toBe('')
  })

  test('who speaks with an address of another network is not heard by its name server', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    await make(network, 'a', '10.214.6.0/24', { internal: true })
    await make(network, 'b', '10.214.7.0/24')
    const [inside, friend] = [await up(network, 'one', idOf('a')), await up(network, 'two', idOf('b'), ['friend'])]
    expect(await dig(friend.netnsPath, '10.214.7.1', 'friend')).toContain(friend.endpoint.address)
    const heard = async () => (await runOk('nft', ['-a', 'list', 'chain', 'ip', `hull-${bridge}`, 'raw'])).stdout
    expect(await heard()).toContain('ip saddr 10.214.7.0/24 fib daddr type local drop')
    const server = createSocket('udp4')
    const packets: string[] = []
    server.on('message', (packet) => packets.push(packet.toString()))
    await new Promise<void>((resolve) => server.bind(0, '10.214.7.1', resolve))
    // As root in a container can: an address that is another's, towards its gateway.
    await inNetns(inside.netnsPath, ['sh', '-c', `ip addr add ${friend.endpoint.address}/32 dev eth0; ip route add 10.214.7.1 via 10.214.6.1 src ${friend.endpoint.address}`])
    await callFrom(inside.netnsPath, 'udp', '10.214.7.1', server.address().port, 'forged')
    await callFrom(friend.netnsPath, 'udp', '10.214.7.1', server.address().port, 'true')
    expect(packets.map((packet) => packet.trim())).toEqual(['true'])
    server.close()
  })

  test('a bridge name that is somebody else’s link is refused and left alone', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const netns = `${await scope.directory()}/n`
    await createNetns(netns)
    scope.onEnd(() => deleteNetns(netns))
    await createVeth({ name: 'hulltnelse', peer: 'eth0', netns })
    scope.onEnd(() => deleteLink('hulltnelse'))
    await expect(make(network, 'a', '10.214.6.0/24', { options: { 'com.docker.network.bridge.name': 'hulltnelse' } })).rejects.toMatchObject({ statusCode: 403 })
    expect(await linkInfo('hulltnelse')).toBeDefined()
    expect(network.networkSpec(idOf('a'))).toBeUndefined()
    await make(network, 'a', '10.214.6.0/24')
  })
})

describe('the name server', () => {
  test('answers where somebody else holds port 53 of every address, over UDP and TCP, and only those on the network', async () => {
    const holders = [createSocket({ type: 'udp4' }), createServer()] as const
    const held = await new Promise<boolean>((resolve) => {
      holders[0].once('error', () => resolve(false)).bind({ port: 53, address: '0.0.0.0', exclusive: true }, () => resolve(true))
    })
    if (held) {
      scope.onEnd(() => holders[0].close())
      holders[1].listen(53, '0.0.0.0')
      await once(holders[1], 'listening')
      scope.onEnd(() => holders[1].close())
    }
    const network = await scope.network(bridge, bip)
    await network.start([])
    await make(network, 'a', '10.214.6.0/24')
    await make(network, 'b', '10.214.7.0/24')
    const [one, other] = [await up(network, 'one', idOf('a'), ['one', 'alias']), await up(network, 'other', idOf('b'), ['other'])]
    expect(await dig(one.netnsPath, '10.214.6.1', 'alias')).toContain('Address: 10.214.6.2')
    expect(await dig(other.netnsPath, '10.214.6.1', 'alias')).toMatch(/REFUSED|refused/)
    const query = Buffer.from('001a12340100000100000000000003' + Buffer.from('one').toString('hex') + '0000010001', 'hex')
    query.writeUInt16BE(query.length - 2, 0)
    const answer = await run('nsenter', [`--net=${one.netnsPath}`, 'sh', '-c', `printf '${[...query].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('')}' | socat -t2 - TCP4:10.214.6.1:53 | od -An -tx1 | tr -d ' \\n'`], { timeoutMs: 10_000 })
    expect(answer.stdout).toContain('0ad60602')
    await network.release('one')
    expect(await dig(other.netnsPath, '10.214.7.1', 'one')).not.toContain('10.214.6.2')
  })

  test('garbage in floods of both protocols does not keep it from answering', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    await make(network, 'a', '10.214.6.0/24')
    const one = await up(network, 'one', idOf('a'), ['one'])
    const flood = 'i=0; while [ $i -lt 40 ]; do head -c 300 /dev/urandom | socat -t0 - UDP4:10.214.6.1:53; head -c 3000 /dev/urandom | timeout 1 socat -t0 - TCP4:10.214.6.1:53 >/dev/null; i=$((i+1)); done'
    await run('nsenter', [`--net=${one.netnsPath}`, 'sh', '-c', flood], { timeoutMs: 60_000 })
    expect(await dig(one.netnsPath, '10.214.6.1', 'one')).toContain('Address: 10.214.6.2')
  })
})

describe('published ports and the host’s input rules', () => {
  test.each(['nat', 'input'] as const)('%s', async (mode) => {
    const network = await scope.network(bridge, bip, { publishedPorts: mode })
    await network.start([])
    const outside = await scope.outside('hulltnout', '198.51.100')
    const endpoint = await network.allocate('one', { ports: [{ containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 0 }, { containerPort: 53, protocol: 'udp', hostIp: '', hostPort: 0 }] })
    const { netnsPath } = await network.connectNamespace(endpoint)
    await network.publish(endpoint)
    await scope.serve(netnsPath, 'tcp', 80, 'web')
    await scope.serve(netnsPath, 'udp', 53, 'dns')
    const [tcp, udp] = endpoint.ports.map((binding) => binding.hostPort) as [number, number]
    expect(await elements(bridge, 'ports')).toMatch(mode === 'nat' ? /tcp/ : /^$/)
    // The caller's own address is what NAT keeps and a socket in between does not.
    expect(await callFrom(outside.netnsPath, 'tcp', outside.hostAddress, tcp)).toBe(`web ${mode === 'nat' ? outside.address : '10.214.5.1'} hi`)
    expect(await callFrom(outside.netnsPath, 'udp', outside.hostAddress, udp)).toMatch(/^dns /)
    await runOk('nft', ['-f', '-'], { input: 'table inet hulltnfw {\nchain input {\ntype filter hook input priority 0; policy accept;\niifname "hulltnout" ct state new drop\n}\n}\n' })
    scope.onEnd(() => runOk('nft', ['delete', 'table', 'inet', 'hulltnfw']))
    expect(await callFrom(outside.netnsPath, 'tcp', outside.hostAddress, tcp)).toBe(mode === 'nat' ? `web ${outside.address} hi` : '')
    await network.release('one')
  })
})

describe('several networks behind one tap', () => {
  /** What a guest's card would be: a bridge of the test with the tap's frames, driven from a namespace by way of a user-space copy. */
  async function guest(tapFd: number): Promise<string> {
    // socat cannot be given a descriptor that is a tap of this process; python3 copies between it and a tap inside the namespace.
    const netns = `${await scope.directory()}/guest`
    await createNetns(netns)
    scope.onEnd(() => deleteNetns(netns))
    const program = `
import ctypes, fcntl, os, select, struct, sys
outer = int(sys.argv[1])
fd = os.open(sys.argv[2], os.O_RDONLY)
ctypes.CDLL(None, use_errno=True).setns(fd, 0)
inner = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(inner, 0x400454ca, struct.pack('16sH14s', b'eth0', 0x0002 | 0x1000 | 0x4000, b''))
print('ready', flush=True)
while True:
    for ready in select.select([outer, inner], [], [])[0]:
        frame = os.read(ready, 70000)
        try: os.write(inner if ready == outer else outer, frame)
        except OSError: pass # an interface that is down
`
    const child = spawn('python3', ['-c', program, '3', netns], { stdio: ['ignore', 'pipe', 'inherit', tapFd] })
    const gone = once(child, 'exit')
    scope.onEnd(async () => {
      child.kill('SIGKILL')
      await gone
    })
    await once(child.stdout!, 'data')
    return netns
  }

  test('each network is reached from its own address, from no other, and by no neighbour of another network', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    await make(network, 'a', '10.214.6.0/24')
    await make(network, 'b', '10.214.7.0/24')
    const [inA, inB] = [await up(network, 'in-a', idOf('a')), await up(network, 'in-b', idOf('b'))]
    await scope.serve(inA.netnsPath, 'tcp', 80, 'a')
    await scope.serve(inB.netnsPath, 'tcp', 80, 'b')
    const first = await network.allocate('machine', { networkId: idOf('a'), ports: [], interfaceName: 'eth0' })
    const { tapFd, name: tap } = await network.connectTap(first)
    scope.onEnd(() => closeSync(tapFd))
    const netns = await guest(tapFd)
    await configureInterface(netns, { name: 'eth0', mac: first.mac, address: first.address, prefixLength: 24 })
    expect(await callFrom(netns, 'tcp', inA.endpoint.address, 80)).toBe(`a ${first.address} hi`)

    // A second network while it runs.
    const second = await network.allocate('machine', { networkId: idOf('b'), ports: [], interfaceName: 'eth1' })
    await network.attach(second, 'vm', [first])
    await inNetns(netns, ['ip', 'link', 'add', 'eth1', 'link', 'eth0', 'address', second.mac, 'type', 'macvlan', 'mode', 'private'])
    await inNetns(netns, ['sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=1'])
    await configureInterface(netns, { name: 'eth1', mac: second.mac, address: second.address, prefixLength: 24 })
    expect(await callFrom(netns, 'tcp', inA.endpoint.address, 80)).toBe(`a ${first.address} hi`)
    expect(await callFrom(netns, 'tcp', inB.endpoint.address, 80)).toBe(`b ${second.address} hi`)

    // A guest with an address that it was not given is nowhere, whatever tag it puts on its frames.
    await inNetns(netns, ['ip', 'link', 'add', 'eth2', 'link', 'eth0', 'address', '02:42:66:66:66:66', 'type', 'macvlan', 'mode', 'private'])
    await configureInterface(netns, { name: 'eth2', mac: '02:42:66:66:66:66', address: '10.214.8.9', prefixLength: 24 })
    for (const target of [inA.endpoint, inB.endpoint]) {
      await inNetns(netns, ['ip', 'route', 'add', `${target.address}/32`, 'dev', 'eth2'])
      await inNetns(netns, ['ip', 'neigh', 'replace', target.address, 'lladdr', target.mac, 'dev', 'eth2'])
      expect(await callFrom(netns, 'tcp', target.address, 80)).toBe('')
      await inNetns(netns, ['ip', 'route', 'del', `${target.address}/32`, 'dev', 'eth2'])
    }
    // Nor does the host itself answer on the tap.
    await inNetns(netns, ['ip', 'neigh', 'replace', '10.214.8.1', 'lladdr', (await linkInfo(tap))!.mac, 'dev', 'eth2'])
    expect(await inNetns(netns, ['sh', '-c', 'ip route add 10.214.5.1/32 via 10.214.8.1 dev eth2; ping -c1 -W1 10.214.5.1 >/dev/null || echo nothing'])).toBe('nothing\n')

    // A neighbour in A that knows the machine's hardware address in B does not reach that interface.
    await scope.serve(netns, 'tcp', 81, 'machine')
    const received = async () => (JSON.parse(await inNetns(netns, ['ip', '-j', '-s', 'link', 'show', 'eth1'])) as [{ stats64: { rx: { packets: number } } }])[0].stats64.rx.packets
    const before = await received()
    await inNetns(inA.netnsPath, ['ip', 'neigh', 'replace', '10.214.6.99', 'lladdr', second.mac, 'dev', 'eth0'])
    await run('nsenter', [`--net=${inA.netnsPath}`, 'ping', '-c', '3', '-i', '0.2', '-W', '1', '10.214.6.99'], { timeoutMs: 10_000 })
    // Broadcasts (a neighbour's ARP) may be counted; three unicast frames are not.
    expect((await received()) - before).toBeLessThan(3)

    // Disconnected: the network is gone from the guest, the other stays.
    await network.detach(first, 'vm')
    expect(await callFrom(netns, 'tcp', inA.endpoint.address, 80)).toBe('')
    expect(await callFrom(netns, 'tcp', inB.endpoint.address, 80)).toBe(`b ${second.address} hi`)
    expect(await listLinks(namesOf(bridge).sourcePrefix)).toHaveLength(1)
  })

  test('a daemon that died between one network and several left a tap without a bridge: the next one gives it its ports', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    const specs = [await make(network, 'a', '10.214.6.0/24'), await make(network, 'b', '10.214.7.0/24')]
    const ends = [await network.allocate('machine', { networkId: idOf('a'), ports: [], interfaceName: 'eth0' }), await network.allocate('machine', { networkId: idOf('b'), ports: [], interfaceName: 'eth1' })]
    const { tapFd, name } = await network.connectTap(ends[0]!)
    scope.onEnd(() => closeSync(tapFd))
    await network.stop(false)
    removeBridgePort(name)
    const next = new BridgeNetwork(network.options)
    scope.onEnd(() => next.stop(true))
    await next.start(ends, specs)
    for (const [i, end] of ends.entries()) expect((await linkInfo(namesOf(bridge).sourcePrefix + end.link!))?.bridge).toBe(specs[i]!.bridge)
    await next.release('machine')
  })

  test('a second network that cannot be attached leaves the first as it was', async () => {
    const network = await scope.network(bridge, bip)
    await network.start([])
    await make(network, 'a', '10.214.6.0/24')
    await make(network, 'b', '10.214.7.0/24')
    const first = await network.allocate('machine', { networkId: idOf('a'), ports: [], interfaceName: 'eth0' })
    const { tapFd, name } = await network.connectTap(first)
    scope.onEnd(() => closeSync(tapFd))
    const second = await network.allocate('machine', { networkId: idOf('b'), ports: [], interfaceName: 'eth1' })
    // Its name is taken: the kernel refuses the port.
    const taken = namesOf(bridge).sourcePrefix + first.link!
    const netns = `${await scope.directory()}/n`
    await createNetns(netns)
    scope.onEnd(() => deleteNetns(netns))
    await createVeth({ name: taken, peer: 'eth0', netns })
    await expect(network.attach(second, 'vm', [first])).rejects.toThrow()
    expect((await linkInfo(name))?.bridge).toBe(network.networkSpec(idOf('a'))!.bridge)
    await network.detach(second, 'vm')
    await network.release('machine')
  })
})
