import { execFile, execFileSync } from 'node:child_process'
import { closeSync, existsSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { addBridgePort, createBridge, createVeth, deleteLink, deleteLinkAsync, linkCounters, linkInfo, listLinks, openTap, setAddress, setLink } from '../../../src/host/link.js'
import { native } from '../../../src/host/native.js'
import { configureInterface, createNetns, deleteNetns, isNetns, netnsId, netnsIdOf } from '../../../src/host/netns.js'
import { descriptors, eventually, ip, temporary, threads } from './support.js'

// Names of this process's own, so that two runs do not meet.
const tag = (process.pid % 46656).toString(36)
const [bridge, veth, tap] = [`hnb${tag}`, `hnv${tag}`, `hnt${tag}`]
let base: string
let netns: string
beforeEach(() => { base = temporary(); netns = join(base, 'ns') })
afterEach(async () => {
  deleteLink(veth)
  deleteLink(bridge)
  deleteNetns(netns)
  expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(base)
  rmSync(base, { recursive: true })
  expect((await listLinks('hn')).filter((name) => name.endsWith(tag))).toEqual([])
})
const inside = (...command: string[]) => execFileSync('nsenter', [`--net=${netns}`, ...command], { encoding: 'utf8' })
const code = (code: string) => expect.objectContaining({ code }) as unknown as Error

it('makes a namespace with lo up, and leaves every thread in its own', async () => {
  const ours = readlinkSync('/proc/self/ns/net')
  await createNetns(netns)
  expect(await isNetns(netns)).toBe(true)
  expect(await netnsId(netns)).not.toBe(await netnsIdOf())
  expect(inside('ip', '-o', 'link')).toMatch(/^1: lo: <LOOPBACK,UP,LOWER_UP>.*\n$/)
  for (const thread of readdirSync('/proc/self/task')) {
    try {
      expect(readlinkSync(`/proc/self/task/${thread}/ns/net`)).toBe(ours)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error // it ended meanwhile
    }
  }
  deleteNetns(netns)
  expect(existsSync(netns)).toBe(false)
  deleteNetns(netns)
})

it('does not take a path that is there, and undoes what failed', async () => {
  writeFileSync(netns, 'mine')
  await expect(createNetns(netns)).rejects.toMatchObject({ code: 'EEXIST' })
  expect(readFileSync(netns, 'utf8')).toBe('mine')
  expect(await isNetns(netns)).toBe(false)
  expect(await isNetns(join(base, 'none'))).toBe(false)
  await expect(createNetns(join(base, 'none/ns'))).rejects.toMatchObject({ code: 'ENOENT' })
  const [fds, tasks] = [descriptors(), threads()]
  await Promise.allSettled(Array.from({ length: 30 }, () => createNetns(netns)))
  await eventually(() => threads() <= tasks && descriptors() <= fds)
})

it('is deleted although another mount namespace holds a copy', async () => {
  await createNetns(netns)
  const id = await netnsId(netns)
  const holder = execFileSync('sh', ['-c', 'unshare -m --propagation private sleep 20 >/dev/null 2>&1 & echo $!'], { encoding: 'utf8' }).trim()
  await eventually(() => readlinkSync(`/proc/${holder}/ns/mnt`) !== readlinkSync('/proc/self/ns/mnt'))
  expect(readFileSync(`/proc/${holder}/mountinfo`, 'utf8')).toContain(`net:[${id}]`)
  deleteNetns(netns)
  expect(readFileSync(`/proc/${holder}/mountinfo`, 'utf8')).not.toContain(`net:[${id}]`)
  process.kill(Number(holder), 'SIGKILL')
})

it('joins a namespace to a bridge so that packets pass', async () => {
  createBridge(bridge)
  setLink(bridge, { mac: '02:42:0a:d3:07:01' })
  setAddress(bridge, '10.211.7.1', 24)
  await createNetns(netns)
  await createVeth({ name: veth, peer: 'eth0', netns, mtu: 1400, bridge })
  await configureInterface(netns, { name: 'eth0', mac: '02:42:0a:d3:07:02', address: '10.211.7.2', prefixLength: 24, gateway: '10.211.7.1' })
  expect(await linkInfo(bridge)).toMatchObject({ isBridge: true, up: true, mac: '02:42:0a:d3:07:01' })
  expect(await linkInfo(veth)).toMatchObject({ isBridge: false, up: true, mtu: 1400, bridge })
  expect(inside('ip', 'route')).toContain('default via 10.211.7.1 dev eth0')
  expect(inside('ip', '-o', 'addr', 'show', 'eth0')).toContain('inet 10.211.7.2/24 brd 10.211.7.255')
  expect(inside('cat', '/proc/net/dev')).toContain('eth0')
  // TCP from the namespace to the host and back.
  const server = createServer((socket) => socket.end('hi')).listen(0, '10.211.7.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const port = String((server.address() as AddressInfo).port)
  const { stdout: answer } = await promisify(execFile)('nsenter', [`--net=${netns}`, 'busybox', 'nc', '-w', '3', '10.211.7.1', port])
  server.close()
  expect(answer).toBe('hi')
  // Again with the same values: nothing changes; with others: they replace.
  await configureInterface(netns, { name: 'eth0', mac: '02:42:0a:d3:07:02', address: '10.211.7.2', prefixLength: 24, gateway: '10.211.7.1' })
  await configureInterface(netns, { name: 'eth0', address: '10.211.7.3', prefixLength: 25, gateway: '10.211.7.1' })
  expect(inside('ip', '-o', '-4', 'addr', 'show', 'eth0').trim().split('\n')).toHaveLength(1)
  expect(inside('ip', '-o', 'addr', 'show', 'eth0')).toContain('inet 10.211.7.3/25')
})

it('replaces addresses, all of them, and leaves the right one alone', () => {
  createBridge(bridge)
  for (const address of ['10.211.8.1/24', '10.211.8.2/24', '10.211.9.1/30', '10.211.8.3/24']) ip('addr', 'add', address, 'dev', bridge)
  setAddress(bridge, '10.211.8.2', 24) // a secondary one: it goes with its primary unless it is put back
  expect(ip('-o', '-4', 'addr', 'show', bridge)).toMatch(/^[^\n]*inet 10\.211\.8\.2\/24 [^\n]*\n$/)
  const before = ip('-o', '-4', 'addr', 'show', bridge)
  setAddress(bridge, '10.211.8.2', 24)
  expect(ip('-o', '-4', 'addr', 'show', bridge)).toBe(before)
  for (let i = 0; i < 40; i++) ip('addr', 'add', `10.211.${20 + i}.1/24`, 'dev', bridge)
  setAddress(bridge, '10.211.8.9', 32)
  expect(ip('-o', '-4', 'addr', 'show', bridge)).toMatch(/^[^\n]*inet 10\.211\.8\.9\/32 [^\n]*\n$/)
})

it('opens a tap that lives as long as its descriptor', async () => {
  createBridge(bridge)
  const fd = openTap(tap)
  try {
    addBridgePort(bridge, tap)
    setLink(tap, { mtu: 1300 })
    expect(await linkInfo(tap)).toMatchObject({ up: true, mtu: 1300, bridge })
    setLink(tap, { up: false })
    expect(await linkInfo(tap)).toMatchObject({ up: false, mtu: 1300 })
    expect(() => openTap(tap)).toThrow(code('EBUSY'))
    expect(() => openTap(bridge)).toThrow(code('EINVAL'))
  } finally {
    closeSync(fd)
  }
  await eventually(async () => (await linkInfo(tap)) === undefined)
})

it('makes nothing when a part is missing or taken', async () => {
  const fds = descriptors()
  createBridge(bridge)
  await createNetns(netns)
  await expect(createVeth({ name: veth, peer: 'eth0', netns: join(base, 'none') })).rejects.toMatchObject({ code: 'ENOENT' })
  await expect(createVeth({ name: veth, peer: 'eth0', netns: '/etc/hostname' })).rejects.toMatchObject({ code: 'EINVAL' })
  await expect(createVeth({ name: veth, peer: 'eth0', netns, bridge: `hnx${tag}` })).rejects.toMatchObject({ code: 'ENODEV' })
  await expect(createVeth({ name: veth, peer: 'eth0', netns, bridge: 'lo' })).rejects.toThrow()
  expect(await linkInfo(veth)).toBeUndefined()
  await createVeth({ name: veth, peer: 'eth0', netns })
  await expect(createVeth({ name: veth, peer: 'eth1', netns })).rejects.toMatchObject({ code: 'EEXIST' })
  await expect(createVeth({ name: `hnw${tag}`, peer: 'eth0', netns })).rejects.toMatchObject({ code: 'EEXIST' })
  expect(await linkInfo(`hnw${tag}`)).toBeUndefined()
  expect(() => { createBridge(bridge) }).toThrow(code('EEXIST'))
  expect(() => { addBridgePort(`hnx${tag}`, veth) }).toThrow(code('ENODEV'))
  expect(() => { addBridgePort(bridge, `hnx${tag}`) }).toThrow(code('ENODEV'))
  expect(() => { setAddress(`hnx${tag}`, '10.0.0.1', 8) }).toThrow(code('ENODEV'))
  expect(() => { setLink(`hnx${tag}`) }).toThrow(code('ENODEV'))
  await expect(configureInterface(netns, { name: 'eth9', address: '10.0.0.1', prefixLength: 8 })).rejects.toMatchObject({ code: 'ENODEV' })
  await expect(configureInterface('/etc/hostname', { name: 'eth0', address: '10.0.0.1', prefixLength: 8 })).rejects.toMatchObject({ code: 'EINVAL', syscall: 'setns' })
  await expect(configureInterface(netns, { name: 'eth0', address: '10.0.0.1', prefixLength: 8, gateway: '192.0.2.1' })).rejects.toMatchObject({ code: 'ENETUNREACH' })
  deleteLink(`hnx${tag}`)
  await deleteLinkAsync(`hnx${tag}`)
  await deleteLinkAsync(veth)
  expect(await linkInfo(veth)).toBeUndefined()
  expect(inside('ip', '-o', 'link')).not.toContain('eth0')
  await eventually(() => descriptors() <= fds)
})

it('checks its arguments', () => {
  for (const name of ['', '..', 'sixteen-letters!', 'a b', 'a/b', 'a:1', 'a%d', 'a\0b']) expect(() => { createBridge(name) }, name).toThrow(code('ERR_INVALID_ARG_VALUE'))
  for (const mac of ['02:42', '02:42:0a:d3:07:0g', '02-42-0a-d3-07-01', '02:42:0a:d3:07:01:02', ' 2:42:0a:d3:07:01']) expect(() => { setLink('lo', { mac }) }, mac).toThrow(code('ERR_INVALID_ARG_VALUE'))
  for (const address of ['', '10.0.0', '10.0.0.256', '::1', '10.0.0.1/8']) expect(() => { setAddress('lo', address, 8) }, address).toThrow(code('ERR_INVALID_ARG_VALUE'))
  expect(() => { setAddress('lo', '127.0.0.1', 33) }).toThrow(code('ERR_OUT_OF_RANGE'))
  expect(() => { setLink('lo', { mtu: 65_536 }) }).toThrow(code('ERR_OUT_OF_RANGE'))
  expect(() => native.vethCreate('a', 'b', 'c', 0, 'a b')).toThrow(code('ERR_INVALID_ARG_VALUE'))
})

it('counts', async () => {
  const counters = await linkCounters(process.pid)
  for (const link of counters) expect(Number.isInteger(link.rxBytes)).toBe(true)
  expect(counters.map((link) => link.name)).not.toContain('lo')
  expect(await linkInfo('lo')).toMatchObject({ index: 1, up: true, isBridge: false })
  expect(await linkInfo('../lo')).toBeUndefined()
})
