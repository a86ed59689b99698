import { isIPv6 } from 'node:net'
import { badRequest, forbidden, internal } from '../base/errors.js'

/** An IPv6 network with the address that was written before the slash. */
export interface Cidr6 {
  address: bigint
  prefixLength: number
  /** First address of the block. */
  first: bigint
  last: bigint
}

/** The 128-bit value of an IPv6 address in any of its spellings; undefined when it is none (or has a zone). */
export function parseIPv6(text: string): bigint | undefined {
  if (!isIPv6(text) || text.includes('%')) return undefined
  // The URL parser knows every spelling and gives one of them: without dots, in lower case, the longest run of zeros as '::'.
  const canonical = new URL(`http://[${text}]/`).hostname.slice(1, -1)
  const [head = '', tail] = canonical.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const groups = tail === undefined ? left : [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right]
  return groups.reduce((value, group) => (value << 16n) | BigInt(parseInt(group, 16)), 0n)
}

/** The spelling of RFC 5952. */
export function formatIPv6(value: bigint): string {
  const groups = Array.from({ length: 8 }, (_, i) => ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16))
  return new URL(`http://[${groups.join(':')}]/`).hostname.slice(1, -1)
}

/** 'fd00:1::/64' or 'fd00:1::5/64'; undefined when it is not that. */
export function parseCidr6(text: string): Cidr6 | undefined {
  const match = /^([^/]+)\/(\d{1,3})$/.exec(text)
  const address = match ? parseIPv6(match[1]!) : undefined
  const prefixLength = Number(match?.[2])
  if (address === undefined || prefixLength > 128) return undefined
  const size = 1n << BigInt(128 - prefixLength)
  const first = (address / size) * size
  return { address, prefixLength, first, last: first + size - 1n }
}

export const formatSubnet6 = (cidr: Cidr6): string => `${formatIPv6(cidr.first)}/${cidr.prefixLength}`

/** Addresses of an IPv6 subnet: what is given out is remembered one by one, since no bitmap holds 2^64. */
export class AddressPool6 {
  readonly #taken = new Set<bigint>()
  #last: bigint

  /** The gateway (`subnet.address`) and the subnet-router anycast address are never given. */
  constructor(readonly subnet: Cidr6) {
    this.#taken.add(subnet.first)
    this.#taken.add(subnet.address)
    this.#last = subnet.first
  }

  /** @throws HullError 403 `Address already in use`, 400 when `requested` is not of the subnet, 500 when all are taken. */
  allocate(requested = ''): string {
    if (requested !== '') {
      const value = parseIPv6(requested)
      if (value === undefined || value < this.subnet.first || value > this.subnet.last) {
        throw badRequest(`invalid address ${requested}: It does not belong to any of this network's subnets`)
      }
      if (this.#taken.has(value)) throw forbidden('Address already in use')
      this.#taken.add(value)
      return formatIPv6(value)
    }
    const size = this.subnet.last - this.subnet.first + 1n
    if (BigInt(this.#taken.size) >= size) throw internal(`no available IPv6 addresses on this network's address pools: ${formatSubnet6(this.subnet)}`)
    let value = this.#last
    do value = value === this.subnet.last ? this.subnet.first : value + 1n
    while (this.#taken.has(value))
    this.#taken.add(value)
    this.#last = value
    return formatIPv6(value)
  }

  /** Marks what a running container has. False: taken, or of another subnet. */
  mark(address: string): boolean {
    const value = parseIPv6(address)
    if (value === undefined || value < this.subnet.first || value > this.subnet.last || this.#taken.has(value)) return false
    this.#taken.add(value)
    return true
  }

  release(address: string): void {
    const value = parseIPv6(address)
    if (value !== undefined && value !== this.subnet.first && value !== this.subnet.address) this.#taken.delete(value)
  }
}
