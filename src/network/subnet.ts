import { readFile } from 'node:fs/promises'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { internal } from '../base/errors.js'
import { readIfExists, sweepTemporaries, writeFileAtomic } from '../base/files.js'
import { log } from '../base/log.js'
import { cidrOf, formatIPv4, formatSubnet, overlaps, parseGateway, parseIPv4, type Cidr } from './address.js'

/** A block of addresses that the host uses already, and what for. */
export interface UsedBlock {
  first: number
  last: number
  /** 'route 10.0.0.0/8 on tun0', for messages. */
  what: string
}

/** What is kept in `<stateDir>/subnet.json`. */
export interface SubnetState {
  /** Gateway in CIDR form. */
  bip: string
  /** The address given last, '' for none. */
  last: string
}

/**
 * Gateways that are tried when the user names none: what Docker's own default (172.17/16 and up from it) reaches last,
 * then blocks of 192.168/16 and 10/8 that home routers and clouds seldom use.
 */
export const candidates: readonly string[] = [
  '172.29.0.1/16', '172.30.0.1/16', '172.28.0.1/16', '172.27.0.1/16', '172.26.0.1/16', '172.25.0.1/16', '172.24.0.1/16', '172.31.0.1/16',
  '192.168.240.1/20', '192.168.208.1/20', '192.168.176.1/20', '10.213.0.1/16', '10.227.0.1/16', '10.241.0.1/16',
]

const stateSchema = z.object({ bip: z.string(), last: z.string().default('') })

/** Hexadecimal, host byte order, as /proc/net/route prints a network-order address on a little-endian machine. */
function fromRouteHex(hex: string): number {
  const value = parseInt(hex, 16) >>> 0
  return (((value & 255) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0
}

/** Routes of the main table from the text of /proc/net/route (proc(5)), without default routes and without those on `except`. */
export function parseRoutes(text: string, except: string): UsedBlock[] {
  const blocks: UsedBlock[] = []
  for (const line of text.split('\n').slice(1)) {
    const [device, destination, , , , , , mask] = line.trim().split(/\s+/)
    if (device === undefined || destination === undefined || mask === undefined || device === except) continue
    const bits = fromRouteHex(mask)
    if (bits === 0) continue
    const block = cidrOf(fromRouteHex(destination), 32 - Math.log2(2 ** 32 - bits))
    blocks.push({ first: block.first, last: block.last, what: `route ${formatSubnet(block)} on ${device}` })
  }
  return blocks
}

/** All blocks that this host's routes and addresses use, without those of the link `except`. */
export async function usedBlocks(except: string): Promise<UsedBlock[]> {
  const blocks = parseRoutes((await readIfExists('/proc/net/route')) ?? '', except)
  for (const [device, addresses] of Object.entries(networkInterfaces())) {
    if (device === except) continue
    for (const entry of addresses ?? []) {
      const address = entry.family === 'IPv4' ? parseIPv4(entry.address) : undefined
      if (address === undefined) continue
      const block = cidrOf(address, Number(entry.cidr?.split('/')[1] ?? 32))
      blocks.push({ first: block.first, last: block.last, what: `address ${entry.address} of ${device}` })
    }
  }
  return blocks
}

/** Name servers of the host: a default subnet that hides them would cost the host its DNS. */
async function nameServers(): Promise<UsedBlock[]> {
  const text = await readFile('/etc/resolv.conf', 'utf8').catch(() => '')
  const blocks: UsedBlock[] = []
  for (const match of text.matchAll(/^\s*nameserver\s+(\S+)/gm)) {
    const value = parseIPv4(match[1]!)
    if (value !== undefined) blocks.push({ first: value, last: value, what: `name server ${match[1]}` })
  }
  return blocks
}

/** What a new network must not cover: routes and addresses of all links but `except`, and name servers. */
export async function hostBlocks(except: ReadonlySet<string>): Promise<UsedBlock[]> {
  const blocks = await usedBlocks('')
  const ours = (what: string) => [...except].some((link) => what.endsWith(` on ${link}`) || what.endsWith(` of ${link}`))
  return [...blocks.filter((block) => !ours(block.what)), ...(await nameServers())]
}

/** The first of `gateways` that shares no address with `used`. */
export function firstWithoutCollision(gateways: readonly string[], used: readonly UsedBlock[]): string | undefined {
  return gateways.find((text) => {
    const cidr = parseGateway(text)
    return !used.some((block) => overlaps(block, cidr))
  })
}

async function readState(path: string): Promise<SubnetState | undefined> {
  const text = await readIfExists(path)
  if (text === undefined) return undefined
  try {
    const state = stateSchema.parse(JSON.parse(text))
    parseGateway(state.bip)
    return state
  } catch (error) {
    // Nothing in it is worth refusing to start: the subnet can be chosen again.
    log.warn('network: unreadable subnet state, choosing again', { path, error })
    return undefined
  }
}

/** What {@link chooseSubnet} needs to know. */
export interface SubnetChoice {
  stateDir: string
  /** The bridge: its own routes are no collision. */
  bridge: string
  /** The user's --bip; '' or absent: choose. */
  bip?: string | undefined
  /** Containers run with addresses of the remembered subnet: it must stay. */
  inUse: boolean
}

/**
 * Decides the bridge's subnet: the user's, else the remembered one, else the first candidate that collides with nothing. Remembers a new decision.
 * @throws HullError 400 for a malformed bip, 500 when the bip (or every candidate) collides with a route or address of the host.
 */
export async function chooseSubnet(choice: SubnetChoice): Promise<{ cidr: Cidr; last: string; warning?: string }> {
  const path = join(choice.stateDir, 'subnet.json')
  await sweepTemporaries(choice.stateDir)
  const state = await readState(path)
  const used = await usedBlocks(choice.bridge)
  const collision = (cidr: Cidr) => used.find((block) => overlaps(block, cidr))
  if (choice.bip !== undefined && choice.bip !== '') {
    const cidr = parseGateway(choice.bip)
    const other = collision(cidr)
    if (other) throw internal(`bip ${choice.bip} overlaps with ${other.what}: choose another subnet with --bip`)
    const bip = `${formatIPv4(cidr.address)}/${cidr.prefixLength}`
    if (state?.bip !== bip) await saveSubnet(choice.stateDir, { bip, last: '' })
    return { cidr, last: state?.bip === bip ? state.last : '' }
  }
  if (state) {
    const cidr = parseGateway(state.bip)
    const other = collision(cidr)
    if (!other) return { cidr, last: state.last }
    const warning = `subnet ${formatSubnet(cidr)} of ${choice.bridge} overlaps with ${other.what}`
    if (choice.inUse) return { cidr, last: state.last, warning: `${warning}: stop all containers and restart the daemon, or give --bip` }
    log.warn('network: remembered subnet collides, choosing another', { subnet: formatSubnet(cidr), with: other.what })
  }
  const bip = firstWithoutCollision(candidates, [...used, ...(await nameServers())])
  if (bip === undefined) throw internal(`no default subnet is free on this host (tried ${candidates.join(', ')}): give one with --bip`)
  await saveSubnet(choice.stateDir, { bip, last: '' })
  return { cidr: parseGateway(bip), last: '' }
}

/** Remembers the subnet and the address given last. */
export async function saveSubnet(stateDir: string, state: SubnetState): Promise<void> {
  await writeFileAtomic(join(stateDir, 'subnet.json'), JSON.stringify(state) + '\n')
}
