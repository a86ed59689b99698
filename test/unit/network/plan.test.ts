import { expect, test } from 'vitest'
import { AddressPool6, formatIPv6, parseCidr6, parseIPv6 } from '../../../src/network/address6.js'
import { AddressPool } from '../../../src/network/ipam.js'
import { namesOf } from '../../../src/network/names.js'
import { defaultSubnets, planNetwork, type PlanContext } from '../../../src/network/plan.js'
import { parseBlock } from '../../../src/network/segment.js'
import type { NetworkWish } from '../../../src/network/types.js'
import { editHosts } from '../../../src/sandbox/process/network-files.js'

const wish = (configs: Partial<NetworkWish['configs'][number]>[] = [], more: Partial<NetworkWish> = {}): NetworkWish => ({
  id: 'abcdef0123456789', name: 'n', internal: false, ipv6: false, options: {}, ...more,
  configs: configs.map((config) => ({ subnet: '', gateway: '', ipRange: '', auxiliary: {}, ...config })),
})
const block = (text: string, what: string) => ({ ...parseBlock(text)!, what })
const context = (more: Partial<PlanContext> = {}): PlanContext => ({ names: namesOf('hull0'), networks: [], used: [], mtu: 1500, ...more })
const plan = (asked: NetworkWish, more: Partial<PlanContext> = {}) => planNetwork(asked, context(more)).spec

test('a default subnet collides with no network and no route', () => {
  expect(plan(wish())).toMatchObject({ subnet: '172.18.0.0/16', gateway: '172.18.0.1', bridge: namesOf('hull0').userPrefix + 'abcdef0', icc: true, masquerade: true, mtu: 1500 })
  const first = plan(wish())
  expect(plan(wish(), { networks: [first], used: [block('172.19.5.0/24', 'route'), block('172.20.0.53/32', 'name server')] }).subnet).toBe('172.21.0.0/16')
  const all = [...defaultSubnets()]
  expect(new Set(all).size).toBe(30)
  expect(() => plan(wish(), { used: [block('172.16.0.0/12', 'a'), block('192.168.0.0/16', 'b')] })).toThrow('all predefined address pools have been fully subnetted')
})

test("a user's subnet: range, gateway, reserved addresses, options", () => {
  const spec = plan(
    wish([{ subnet: '10.5.0.0/24', gateway: '10.5.0.254', ipRange: '10.5.0.64/26', auxiliary: { router: '10.5.0.65' } }], {
      options: {
        'com.docker.network.bridge.name': 'mine', 'com.docker.network.bridge.enable_icc': 'false', 'com.docker.network.driver.mtu': '1400',
        'com.docker.network.bridge.host_binding_ipv4': '127.0.0.1', 'com.docker.network.bridge.enable_ip_masquerade': '0',
      },
    }),
  )
  expect(spec).toMatchObject({ bridge: 'mine', subnet: '10.5.0.0/24', gateway: '10.5.0.254', ipRange: '10.5.0.64/26', reserved: ['10.5.0.65'], icc: false, mtu: 1400, masquerade: false, hostBinding: '127.0.0.1' })
  expect(planNetwork(wish([], { options: { 'com.docker.network.bridge.odd': '1' } }), context()).warnings).toHaveLength(1)
})

test.each([
  [wish([{ subnet: '10.5.0.1/24' }]), 400, 'it should be 10.5.0.0/24'],
  [wish([{ subnet: '10.5.0.0/33' }]), 400, 'invalid CIDR address'],
  [wish([{ subnet: '127.0.0.0/16' }]), 400, 'not unicast'],
  [wish([{ subnet: '10.5.0.0/31' }]), 400, 'prefix length'],
  [wish([{ subnet: '10.5.0.0/24', gateway: '10.6.0.1' }]), 400, 'invalid gateway 10.6.0.1'],
  [wish([{ subnet: '10.5.0.0/24', gateway: '10.5.0.255' }]), 400, 'invalid gateway'],
  [wish([{ subnet: '10.5.0.0/24', ipRange: '10.5.1.0/25' }]), 400, 'invalid ip-range'],
  [wish([{ subnet: '10.5.0.0/24', auxiliary: { a: '10.6.0.1' } }]), 400, 'invalid auxiliary address'],
  [wish([{ gateway: '10.5.0.1' }]), 400, 'without a subnet'],
  [wish([{ subnet: '10.5.0.0/24' }, { subnet: '10.6.0.0/24' }]), 400, 'at most one IPv4'],
  [wish([{ subnet: 'fd00::/64' }]), 400, 'without IPv6'],
  [wish([], { ipv6: true }), 400, 'IPv6 needs a subnet'],
  [wish([{ subnet: 'fd00::/127' }], { ipv6: true }), 400, 'prefix length'],
  [wish([{ subnet: '10.9.0.0/16' }]), 403, 'Pool overlaps'],
  [wish([{ subnet: '10.20.0.0/16' }]), 403, 'route 10.20.3.0/24'],
  [wish([], { options: { 'com.docker.network.bridge.name': 'a/b' } }), 400, 'invalid bridge name'],
  [wish([], { options: { 'com.docker.network.bridge.name': 'taken' } }), 403, 'same bridge name'],
  [wish([], { options: { 'com.docker.network.bridge.enable_icc': 'maybe' } }), 400, 'enable_icc'],
  [wish([], { options: { 'com.docker.network.driver.mtu': '9x' } }), 400, 'mtu'],
] as [NetworkWish, number, string][])('refused %#: %o', (asked, statusCode, words) => {
  const networks = [{ ...plan(wish([{ subnet: '10.9.128.0/24' }])), bridge: 'taken' }]
  const used = [block('10.20.3.0/24', 'route 10.20.3.0/24 on x'), block('10.0.0.0/8', 'route 10.0.0.0/8 on tun0')]
  let thrown: unknown
  try {
    planNetwork(asked, context({ networks, used }))
  } catch (error) {
    thrown = error
  }
  expect(thrown).toMatchObject({ statusCode, message: expect.stringContaining(words) })
})

test('a wider route of the host does not forbid a subnet that the user names', () => {
  expect(plan(wish([{ subnet: '10.30.0.0/16' }]), { used: [block('10.0.0.0/8', 'route 10.0.0.0/8 on tun0')] }).subnet).toBe('10.30.0.0/16')
})

test('IPv6 addresses: spellings, blocks, a pool', () => {
  expect(formatIPv6(parseIPv6('FD00:0:0:0::0001')!)).toBe('fd00::1')
  expect(formatIPv6(parseIPv6('::ffff:10.0.0.1')!)).toBe('::ffff:a00:1')
  expect(parseIPv6('fe80::1%eth0')).toBeUndefined()
  expect(parseIPv6('1.2.3.4')).toBeUndefined()
  const cidr = parseCidr6('fd00:1::/126')!
  expect([formatIPv6(cidr.first), formatIPv6(cidr.last)]).toEqual(['fd00:1::', 'fd00:1::3'])
  const pool = new AddressPool6({ ...cidr, address: parseIPv6('fd00:1::1')! })
  expect(pool.allocate()).toBe('fd00:1::2')
  expect(() => pool.allocate('fd00:1:0::2')).toThrow('Address already in use')
  expect(() => pool.allocate('fd00:2::2')).toThrow('does not belong')
  expect(pool.allocate()).toBe('fd00:1::3')
  expect(() => pool.allocate()).toThrow('no available IPv6 addresses')
  pool.release('fd00:1::2')
  pool.release('fd00:1::1') // the gateway stays taken
  expect(pool.mark('fd00:1::1')).toBe(false)
  expect(pool.allocate()).toBe('fd00:1::2')
})

test('an address pool with a range gives from it alone, but any address when asked', () => {
  const subnet = { ...parseBlock('10.5.0.0/24')!, address: parseBlock('10.5.0.1/32')!.address }
  const pool = new AddressPool(subnet, parseBlock('10.5.0.64/30'))
  expect([pool.allocate(), pool.allocate(), pool.allocate(), pool.allocate()]).toEqual(['10.5.0.64', '10.5.0.65', '10.5.0.66', '10.5.0.67'])
  expect(() => pool.allocate()).toThrow('no available IPv4 addresses')
  expect(pool.allocate('10.5.0.9')).toBe('10.5.0.9')
  pool.release('10.5.0.9')
  expect(() => pool.allocate()).toThrow('no available IPv4 addresses')
  pool.release('10.5.0.65')
  expect(pool.allocate()).toBe('10.5.0.65')
})

test('/etc/hosts: lines of an address go, others and what the workload wrote stay', () => {
  const text = '127.0.0.1\tlocalhost\n10.0.0.2\tme\n10.0.0.20\tother\n# mine 10.0.0.2\n'
  expect(editHosts(text, ['10.0.0.2'], ['10.0.1.2\tme'])).toBe('127.0.0.1\tlocalhost\n10.0.0.20\tother\n# mine 10.0.0.2\n10.0.1.2\tme\n')
})
