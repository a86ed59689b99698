import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { isNetns } from '../../../src/host/netns.js'
import { listLinks } from '../../../src/host/link.js'
import { namesOf } from '../../../src/network/names.js'
import type { Endpoint } from '../../../src/network/types.js'
import { call, callFrom, elements, Scope, waitFor } from './lib.js'

const bridge = 'hulltn0'
const bip = '10.213.0.1/24'

let scope: Scope
beforeEach(() => {
  scope = new Scope()
})
afterEach(() => scope.end())

type Container = { endpoint: Endpoint; netnsPath: string }

/** Runs the fixture and kills it with SIGKILL when it has said what it made. */
async function killedDaemon(stateDir: string, runDir: string): Promise<[Container, Container]> {
  const fixture = join(import.meta.dirname, 'restart.fixture.ts')
  const child = spawn(process.execPath, ['--import', 'tsx', fixture, bridge, bip, stateDir, runDir], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exit = once(child, 'exit')
  const line = await Promise.race([once(createInterface(child.stdout), 'line'), exit.then(() => Promise.reject(new Error('the fixture ended')))])
  child.kill('SIGKILL')
  await exit
  return JSON.parse(String(line[0])) as [Container, Container]
}

test('kill -9: running containers keep address and ports, all else of ours goes', async () => {
  const network = await scope.network(bridge, bip, { poolSize: 0 })
  const { stateDir, runDir } = network.options
  const [a, b] = await killedDaemon(stateDir, runDir)
  await scope.serve(a.netnsPath, 'tcp', 80, 'a')
  await scope.serve(a.netnsPath, 'udp', 53, 'a')
  const [http, dns] = a.endpoint.ports.map((binding) => binding.hostPort) as [number, number]
  // Nobody is there, and it works still: the kernel does it.
  expect(await call('tcp', '127.0.0.1', http)).toBe('a 10.213.0.1 hi')
  expect(await readdir(runDir)).toHaveLength(2 + 2 + 1 + 1 + 1) // two containers, two ready, the isolated one and a ready one, owners

  await network.start([a.endpoint]) // b ended meanwhile
  expect(network.warnings()).toEqual([])
  expect(await isNetns(a.netnsPath)).toBe(true)
  expect(await readdir(join(runDir, 'owners'))).toEqual(['a'])
  expect((await readdir(runDir)).length).toBe(2)
  await waitFor(async () => (await listLinks(namesOf(bridge).vethPrefix)).length === 1)
  expect(await elements(bridge, 'ports')).toBe(`tcp . ${http} : ${a.endpoint.address} . 80`)
  expect(await call('tcp', '127.0.0.1', http)).toBe('a 10.213.0.1 hi')
  expect(await call('udp', '127.0.0.1', dns)).toBe('a 10.213.0.1 hi')
  expect(await call('tcp', '::1', http)).toBe('a 10.213.0.1 hi') // the listening sockets are there again

  // Its address and ports are taken, b's are free.
  await expect(network.allocate('c', { ports: [], address: a.endpoint.address })).rejects.toThrow('Address already in use')
  await expect(network.allocate('c', { ports: [{ ...a.endpoint.ports[0]! }] })).rejects.toThrow('port is already allocated')
  const c = await network.allocate('c', { ports: b.endpoint.ports, address: b.endpoint.address })
  const { netnsPath } = await network.connectNamespace(c)
  expect(await callFrom(netnsPath, 'tcp', a.endpoint.address, 80)).toBe(`a ${c.address} hi`)

  await network.release('a')
  expect(await elements(bridge, 'ports')).toBe('')
  expect(await isNetns(a.netnsPath)).toBe(false)
  expect(await call('tcp', '127.0.0.1', http)).toBe('')
})

test('a stop keeps running containers reachable, and the next address is not one just freed', async () => {
  const directory = await scope.directory()
  const folders = { stateDir: join(directory, 's'), runDir: join(directory, 'r') }
  const first = await scope.network(bridge, '', folders)
  await first.start([])
  const endpoint = await first.allocate('a', { ports: [{ containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 0 }] })
  const { netnsPath } = await first.connectNamespace(endpoint)
  await first.publish(endpoint)
  await scope.serve(netnsPath, 'tcp', 80, 'a')
  const freed = await first.allocate('b', { ports: [] })
  await first.release('b')
  await first.stop(false)
  expect(await call('tcp', '127.0.0.1', endpoint.ports[0]!.hostPort)).toMatch(/^a /)
  const second = await scope.network(bridge, '', folders)
  await second.start([endpoint])
  expect(second.bridge).toEqual(first.bridge)
  const next = await second.allocate('c', { ports: [] })
  expect([endpoint.address, freed.address]).not.toContain(next.address)
})

test('a restart with trouble: a port taken meanwhile, an address outside a new subnet, an endpoint that makes no sense', async () => {
  const network = await scope.network(bridge, bip)
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  scope.onEnd(() => server.close())
  const { port } = server.address() as { port: number }
  const endpoint = (id: string, address: string, hostPort = 0, hostIp = '127.0.0.1'): Endpoint => ({
    containerId: id, address, prefixLength: 24, gateway: '10.213.0.1', mac: '02:42:0a:d5:00:09',
    ports: hostPort === 0 ? [] : [{ containerPort: 80, protocol: 'tcp', hostIp, hostPort }],
  })
  await network.start([endpoint('a', '10.213.0.9', port), endpoint('b', '10.9.9.9'), endpoint('c', '10.213.0.9', port), endpoint('d', '1; flush ruleset'), endpoint('e', '10.213.0.8', 80, '1.1.1.1 }; x')])
  const warnings = network.warnings().join('\n')
  expect(warnings).toContain(`container a: published port 127.0.0.1:${port}/tcp: listen EADDRINUSE`)
  expect(warnings).toContain('container b: its address 10.9.9.9 is not in 10.213.0.0/24')
  expect(warnings).toMatch(/container c: its address 10\.213\.0\.9 .*used twice/)
  expect(warnings).toContain(`container c: published port 127.0.0.1:${port}/tcp: belongs to another container`)
  expect(warnings).toContain('container d: its network is not usable: invalid address')
  expect(warnings).toContain('container e: its network is not usable: invalid IP address')
  expect(await elements(bridge, 'addressed')).toBe(`127.0.0.1 . tcp . ${port} : 10.213.0.9 . 80`)
  await network.release('c')
  await expect(network.allocate('f', { ports: [], address: '10.213.0.9' })).rejects.toThrow('Address already in use')
})

test('udp: a client that goes on sending finds the container that replaced the first', async () => {
  const network = await scope.network(bridge, bip)
  await network.start([])
  const client = createSocket('udp4').bind(0, '127.0.0.1')
  scope.onEnd(() => client.close())
  await once(client, 'listening')
  const ask = async (port: number): Promise<string> => {
    client.send('hi\n', port, '127.0.0.1')
    return Promise.race([once(client, 'message').then(([data]) => String(data).trim()), new Promise<string>((resolve) => setTimeout(() => resolve(''), 1_000))])
  }
  let port = 0
  for (const id of ['a', 'b', 'c']) {
    const endpoint = await network.allocate(id, { ports: [{ containerPort: 53, protocol: 'udp', hostIp: '', hostPort: port }] })
    port = endpoint.ports[0]!.hostPort
    const { netnsPath } = await network.connectNamespace(endpoint)
    await scope.serve(netnsPath, 'udp', 53, id)
    await network.publish(endpoint)
    // Flows are forgotten in the background: a question that comes too early goes into the void, never to the container before.
    let answer = ''
    for (let tries = 0; answer === '' && tries < 5; tries++) answer = await ask(port)
    expect(answer).toBe(`${id} 10.213.0.1 hi`)
    await network.release(id)
    await ask(port) // into the void: this flow must not stay either
  }
})
