import { describe, expect, test } from 'vitest'
import { cidrOf, formatIPv4, formatSubnet, macOf, overlaps, parseGateway, parseIPv4, parseMac } from '../../../src/network/address.js'
import { bridgeMac, namesOf } from '../../../src/network/names.js'

describe('IPv4 addresses', () => {
  test.each([
    ['0.0.0.0', 0],
    ['172.29.0.1', 0xac1d0001],
    ['255.255.255.255', 0xffffffff],
  ])('%s is %d both ways', (text, value) => {
    expect(parseIPv4(text)).toBe(value)
    expect(formatIPv4(value)).toBe(text)
  })

  test.each(['', '1.2.3', '1.2.3.4.5', '256.1.1.1', '010.1.1.1', '1.2.3.4 ', '1.2.3.-4', '0x1.2.3.4', '1.2.3.4/8', '::1', '1e1.0.0.1'])('%j is none', (text) => {
    expect(parseIPv4(text)).toBeUndefined()
  })

  test('blocks', () => {
    const cidr = cidrOf(parseIPv4('172.29.7.9')!, 16)
    expect(formatSubnet(cidr)).toBe('172.29.0.0/16')
    expect(formatIPv4(cidr.last)).toBe('172.29.255.255')
    expect(overlaps(cidr, cidrOf(parseIPv4('172.29.255.255')!, 32))).toBe(true)
    expect(overlaps(cidr, cidrOf(parseIPv4('172.30.0.0')!, 16))).toBe(false)
    expect(overlaps(cidr, cidrOf(parseIPv4('172.16.0.0')!, 12))).toBe(true)
    expect(cidrOf(0xffffffff, 0)).toMatchObject({ first: 0, last: 0xffffffff })
  })
})

describe('--bip', () => {
  test('is the gateway and the block around it', () => {
    expect(parseGateway('10.1.2.3/24')).toEqual({ address: 0x0a010203, prefixLength: 24, first: 0x0a010200, last: 0x0a0102ff })
  })
  test.each(['', 'x', '10.0.0.1', '10.0.0.1/', '10.0.0.1/7', '10.0.0.1/31', '10.0.0.0/24', '10.0.0.255/24', '127.0.0.1/8', '224.0.0.1/24', '0.0.0.1/8', '10.0.0.1/24/3', '010.0.0.1/24'])(
    '%j is a 400',
    (text) => {
      expect(() => parseGateway(text)).toThrowError(expect.objectContaining({ statusCode: 400, message: expect.stringContaining('invalid bip') }))
    },
  )
})

describe('hardware addresses', () => {
  test('derived as Docker does', () => expect(macOf(parseIPv4('172.29.0.255')!)).toBe('02:42:ac:1d:00:ff'))
  test('requested: canonical', () => {
    expect(parseMac('AA-BB-CC-00-11-22')).toBe('aa:bb:cc:00:11:22')
    expect(parseMac('02:42:ac:11:00:02')).toBe('02:42:ac:11:00:02')
  })
  test.each(['', 'aa:bb:cc:dd:ee', 'aa:bb:cc:dd:ee:ff:00', 'aa-bb:cc:dd:ee:ff', '01:00:5e:00:00:01', '00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff', 'gg:00:00:00:00:00'])('%j is a 400', (text) => {
    expect(() => parseMac(text)).toThrowError(expect.objectContaining({ statusCode: 400 }))
  })
})

describe('names', () => {
  test('fill 15 characters with their suffix and differ by bridge', () => {
    const [a, b] = [namesOf('hull0'), namesOf('hull1')]
    expect(a.vethPrefix).toMatch(/^hv[0-9a-z]{5}-$/)
    expect(a.tapPrefix).toMatch(/^ht[0-9a-z]{5}-$/)
    expect(a.vethPrefix).not.toBe(b.vethPrefix)
    expect(namesOf('hull0')).toEqual(a)
    expect(bridgeMac('hull0')).toMatch(/^02:42(:[0-9a-f]{2}){4}$/)
  })
  test.each(['', '0hull', 'a'.repeat(16), 'a b', 'a"b', 'a/b', 'a\nb', 'ü'])('bridge %j is a 400', (name) => {
    expect(() => namesOf(name)).toThrowError(expect.objectContaining({ statusCode: 400 }))
  })
})
