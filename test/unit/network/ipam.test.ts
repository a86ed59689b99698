import { describe, expect, test } from 'vitest'
import { parseGateway } from '../../../src/network/address.js'
import { AddressPool } from '../../../src/network/ipam.js'

const pool = (bip: string) => new AddressPool(parseGateway(bip))

describe('AddressPool', () => {
  test('goes up from the gateway and does not give a freed address again at once', () => {
    const addresses = pool('172.29.0.1/16')
    expect(addresses.allocate()).toBe('172.29.0.2')
    expect(addresses.allocate()).toBe('172.29.0.3')
    addresses.release('172.29.0.3')
    addresses.release('172.29.0.2')
    expect(addresses.allocate()).toBe('172.29.0.4')
  })

  test('wraps round to the lowest free one; exhausted is a clear error; nothing is given twice', () => {
    const addresses = pool('10.0.0.5/26')
    const given = new Set<string>()
    for (let i = 0; i < 61; i++) given.add(addresses.allocate())
    expect(given.size).toBe(61) // 64 less network, broadcast, gateway
    for (const never of ['10.0.0.0', '10.0.0.63', '10.0.0.5']) expect(given).not.toContain(never)
    expect(addresses.free).toBe(0)
    expect(() => addresses.allocate()).toThrowError(expect.objectContaining({ statusCode: 500, message: "no available IPv4 addresses on this network's address pools: 10.0.0.0/26" }))
    addresses.release('10.0.0.40')
    addresses.release('10.0.0.3')
    expect(addresses.allocate()).toBe('10.0.0.3')
    expect(addresses.allocate()).toBe('10.0.0.40')
  })

  test.each(['10.0.0.1/30', '10.0.0.2/30', '10.0.0.1/29', '10.0.0.14/28'])('%s: every address once, then none', (bip) => {
    const addresses = pool(bip)
    const size = 2 ** (32 - Number(bip.split('/')[1])) - 3
    for (let round = 0; round < 3; round++) {
      const given = Array.from({ length: size }, () => addresses.allocate())
      expect(new Set(given).size).toBe(size)
      expect(() => addresses.allocate()).toThrow()
      given.forEach((address) => addresses.release(address))
    }
  })

  test('a requested address: taken, in use, out of the subnet, not an address', () => {
    const addresses = pool('172.29.0.1/16')
    expect(addresses.allocate('172.29.77.7')).toBe('172.29.77.7')
    for (const used of ['172.29.77.7', '172.29.0.1', '172.29.0.0', '172.29.255.255']) {
      expect(() => addresses.allocate(used)).toThrowError(expect.objectContaining({ statusCode: 403, message: 'Address already in use' }))
    }
    for (const wrong of ['172.30.0.2', 'x', '172.29.0.300']) expect(() => addresses.allocate(wrong)).toThrowError(expect.objectContaining({ statusCode: 400 }))
    expect(addresses.allocate()).toBe('172.29.0.2')
  })

  test('marked addresses (restart) are not given; releasing what is not ours changes nothing', () => {
    const addresses = pool('10.0.0.1/28')
    expect(addresses.mark('10.0.0.2')).toBe(true)
    expect(addresses.mark('10.0.0.2')).toBe(false)
    expect(addresses.mark('10.0.1.2')).toBe(false)
    const free = addresses.free
    for (const other of ['10.0.0.1', '10.0.0.0', '10.0.0.15', '10.0.0.9', '9.9.9.9', '']) addresses.release(other)
    expect(addresses.free).toBe(free)
    expect(addresses.allocate()).toBe('10.0.0.3')
  })

  test('continues after the address that was given last before a restart', () => {
    const first = pool('10.0.0.1/24')
    first.allocate()
    first.allocate()
    const second = pool('10.0.0.1/24')
    second.last = first.last
    expect(second.allocate()).toBe('10.0.0.4')
    second.last = 'nonsense'
    expect(second.allocate()).toBe('10.0.0.5')
    second.last = '10.0.0.255'
    expect(second.allocate()).toBe('10.0.0.2') // 10.0.0.2 was never given in this pool
  })

  test('agrees with a plain set over random takes and releases', () => {
    const addresses = pool('10.0.0.1/24')
    const model = new Set<string>()
    let seed = 7
    const random = () => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) / 0x7fffffff
    for (let i = 0; i < 20_000; i++) {
      if (random() < 0.52 && model.size < 253) {
        const address = addresses.allocate()
        expect(model.has(address)).toBe(false)
        model.add(address)
      } else if (model.size > 0) {
        const address = [...model][Math.floor(random() * model.size) % model.size]!
        model.delete(address)
        addresses.release(address)
      }
      expect(addresses.free).toBe(253 - model.size)
    }
  })

  test('a full /16 is still quick', () => {
    const addresses = pool('172.29.0.1/16')
    const begin = performance.now()
    for (let i = 0; i < 65_533; i++) addresses.allocate()
    for (let i = 0; i < 1_000; i++) {
      addresses.release('172.29.128.1')
      expect(addresses.allocate()).toBe('172.29.128.1')
    }
    expect(performance.now() - begin).toBeLessThan(2_000)
  })
})
