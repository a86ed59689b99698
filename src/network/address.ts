import { badRequest } from '../base/errors.js'

/** An IPv4 network with the host address that was written before the slash. */
export interface Cidr {
  /** The address as written, unsigned 32 bits. */
  address: number
  prefixLength: number
  /** First address of the block (network address). */
  first: number
  /** Last address of the block (broadcast address). */
  last: number
}

/** Unsigned 32-bit value of a dotted quad, `undefined` when it is not exactly that ('010.0.0.1' and '1.2.3' are not). */
export function parseIPv4(text: string): number | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)
  if (!match) return undefined
  let value = 0
  for (const part of match.slice(1)) {
    // A leading zero is octal for some parsers and decimal for others: refuse it (CVE-2021-29923).
    if (part.length > 1 && part.startsWith('0')) return undefined
    const byte = Number(part)
    if (byte > 255) return undefined
    value = value * 256 + byte
  }
  return value
}

/** Dotted quad of an unsigned 32-bit value. */
export function formatIPv4(value: number): string {
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`
}

/** The block of `prefixLength` bits around `address`. */
export function cidrOf(address: number, prefixLength: number): Cidr {
  const size = 2 ** (32 - prefixLength)
  const first = Math.floor(address / size) * size
  return { address, prefixLength, first, last: first + size - 1 }
}

/**
 * Parses a gateway in CIDR form, as Docker's `--bip` takes it ('172.29.0.1/16').
 * @throws HullError 400 when it is malformed, too large (< /8), too small (> /30), or names the network or broadcast address.
 */
export function parseGateway(text: string): Cidr {
  const match = /^([\d.]+)\/(\d{1,2})$/.exec(text)
  const address = match ? parseIPv4(match[1]!) : undefined
  if (!match || address === undefined) throw badRequest(`invalid bip ${JSON.stringify(text)}: want the bridge's address in CIDR form, like 172.29.0.1/16`)
  const prefixLength = Number(match[2])
  if (prefixLength < 8 || prefixLength > 30) throw badRequest(`invalid bip ${text}: the prefix length must be between 8 and 30`)
  const cidr = cidrOf(address, prefixLength)
  if (address === cidr.first || address === cidr.last) throw badRequest(`invalid bip ${text}: this is the network's own or its broadcast address`)
  const top = address >>> 24
  if (top === 0 || top === 127 || top >= 224) throw badRequest(`invalid bip ${text}: not a unicast address`)
  return cidr
}

/** Whether two blocks share an address. */
export function overlaps(a: Pick<Cidr, 'first' | 'last'>, b: Pick<Cidr, 'first' | 'last'>): boolean {
  return a.first <= b.last && b.first <= a.last
}

/** `first/prefixLength`, the usual name of a block. */
export function formatSubnet(cidr: Cidr): string {
  return `${formatIPv4(cidr.first)}/${cidr.prefixLength}`
}

/**
 * The hardware address that Docker derives from an IPv4 address: 02:42 (locally administered, unicast) and its four bytes. Whoever
 * gets the address again gets the MAC again, so neighbours' ARP entries stay right.
 */
export function macOf(address: number): string {
  const bytes = [0x02, 0x42, address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255]
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':')
}

/**
 * A requested hardware address in canonical form (lower case, colons; 'AA-BB-…' is accepted as Go's net.ParseMAC does).
 * @throws HullError 400 when malformed, multicast or all zero.
 */
export function parseMac(text: string): string {
  if (!/^[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}$/i.test(text)) throw badRequest(`invalid MAC address: ${JSON.stringify(text)}`)
  const mac = text.toLowerCase().replaceAll('-', ':')
  if (parseInt(mac.slice(0, 2), 16) & 1) throw badRequest(`invalid MAC address: ${mac} is a multicast address`)
  if (mac === '00:00:00:00:00:00') throw badRequest(`invalid MAC address: ${mac}`)
  return mac
}
