import { createHash, randomBytes } from 'node:crypto'
import { badRequest } from '../base/errors.js'

/** Alphabet of link name suffixes: no characters that any tool treats specially. */
const base36 = '0123456789abcdefghijklmnopqrstuvwxyz'

function digits(bytes: Uint8Array, count: number): string {
  let text = ''
  for (let i = 0; i < count; i++) text += base36[bytes[i]! % 36]
  return text
}

/** Names of everything in the kernel that belongs to one bridge, so that a daemon, a leak check or a person can tell whose a thing is. */
export interface Names {
  bridge: string
  /** nftables table (family ip). */
  table: string
  /** Comment of our rules in other programs' chains. */
  mark: string
  /** Start of the names of all host ends of veth pairs. */
  vethPrefix: string
  /** Start of the names of all taps. */
  tapPrefix: string
  /** Start of the names of the bridges of user-defined networks that were given none by the user. */
  userPrefix: string
  /** Start of the names of the links between a tap with several networks and their bridges. */
  sourcePrefix: string
}

/**
 * The names that belong to `bridge`. Links: 'hv' (veth), 'ht' (tap), 'hb' (bridge) or 'hm' (macvlan), five base-36 digits of SHA-256(bridge), '-': with seven more characters
 * they fill the 15 that Linux allows (IFNAMSIZ).
 * @throws HullError 400 when `bridge` cannot be a link's name, or not one that nft takes in a string.
 */
export function namesOf(bridge: string): Names {
  if (!/^[A-Za-z][A-Za-z0-9_.-]{0,14}$/.test(bridge)) {
    throw badRequest(`invalid bridge name ${JSON.stringify(bridge)}: 1 to 15 letters, digits, '_', '.' or '-', a letter first`)
  }
  const hash = digits(createHash('sha256').update(bridge).digest(), 5)
  return { bridge, table: `hull-${bridge}`, mark: `hull:${bridge}`, vethPrefix: `hv${hash}-`, tapPrefix: `ht${hash}-`, userPrefix: `hb${hash}-`, sourcePrefix: `hm${hash}-` }
}

/** A hardware address for the bridge itself: fixed, or the kernel would take the lowest of the ports' and change it with every start. */
export function bridgeMac(bridge: string): string {
  const hash = createHash('sha256').update(`bridge ${bridge}`).digest()
  return ['02', '42', ...[...hash.subarray(0, 4)].map((byte) => byte.toString(16).padStart(2, '0'))].join(':')
}

/** Seven random base-36 digits. */
export function randomSuffix(): string {
  return digits(randomBytes(7), 7)
}
