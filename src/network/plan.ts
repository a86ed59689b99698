import { isIPv4, isIPv6 } from 'node:net'
import { badRequest, conflict, forbidden } from '../base/errors.js'
import { formatIPv4, formatSubnet, overlaps, parseIPv4, type Cidr } from './address.js'
import { formatIPv6, formatSubnet6, parseCidr6, parseIPv6, type Cidr6 } from './address6.js'
import type { Names } from './names.js'
import { parseBlock } from './segment.js'
import type { UsedBlock } from './subnet.js'
import type { NetworkSpec, NetworkWish } from './types.js'

/** What exists already. */
export interface PlanContext {
  names: Names
  /** Of this daemon, with the default bridge. */
  networks: readonly NetworkSpec[]
  /** Routes, addresses and name servers of this host. */
  used: readonly UsedBlock[]
  /** MTU of networks that name none. */
  mtu: number
}

/** Docker's default address pools without 172.17/16, which is dockerd's own bridge: sixteens of 172.16/12, then twenties of 192.168/16. */
export function* defaultSubnets(): Generator<string> {
  for (let i = 18; i < 32; i++) yield `172.${i}.0.0/16`
  for (let i = 0; i < 256; i += 16) yield `192.168.${i}.0/20`
}

/** The options that Docker's bridge driver has and that mean something here. */
const knownOptions = new Set([
  'com.docker.network.bridge.name', 'com.docker.network.bridge.enable_icc', 'com.docker.network.bridge.enable_ip_masquerade',
  'com.docker.network.bridge.host_binding_ipv4', 'com.docker.network.driver.mtu', 'com.docker.network.bridge.default_bridge',
])

function flag(options: Record<string, string>, name: string, otherwise: boolean): boolean {
  const text = options[name]
  if (text === undefined || text === '') return otherwise
  // Go's strconv.ParseBool
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text)) return false
  throw badRequest(`failed to parse ${name} value: ${JSON.stringify(text)} (invalid syntax)`)
}

/** Decides everything about a network that is to be made. 400, 403 and 409 in Docker's words where it has words. */
export function planNetwork(wish: NetworkWish, context: PlanContext): { spec: NetworkSpec; warnings: string[] } {
  const { options } = wish
  const warnings = Object.keys(options)
    .filter((name) => !knownOptions.has(name) && name.startsWith('com.docker.'))
    .map((name) => `option ${name} has no effect in Hull`)
  const mtuText = options['com.docker.network.driver.mtu'] ?? ''
  const mtu = mtuText === '' || mtuText === '0' ? context.mtu : Number(mtuText)
  if (!/^\d*$/.test(mtuText) || mtu < 68 || mtu > 65535) throw badRequest(`failed to parse com.docker.network.driver.mtu value: ${JSON.stringify(mtuText)}`)
  const hostBinding = options['com.docker.network.bridge.host_binding_ipv4'] ?? ''
  if (hostBinding !== '' && !isIPv4(hostBinding)) throw badRequest(`failed to parse com.docker.network.bridge.host_binding_ipv4 value: ${JSON.stringify(hostBinding)}`)
  const bridge = bridgeName(wish, context)
  const configs4 = wish.configs.filter((config) => !config.subnet.includes(':') && !(config.subnet === '' && config.gateway.includes(':')))
  const configs6 = wish.configs.filter((config) => !configs4.includes(config))
  if (configs4.length > 1 || configs6.length > 1) throw badRequest('a bridge network has at most one IPv4 and one IPv6 subnet')
  const four = plan4(configs4[0], context)
  const six = wish.ipv6 ? plan6(configs6[0], context) : undefined
  if (!wish.ipv6 && configs6.length > 0) throw badRequest(`invalid network config: IPv6 subnet ${configs6[0]!.subnet} on a network without IPv6 (--ipv6)`)
  const reserved = wish.configs.flatMap((config) => Object.values(config.auxiliary))
  for (const address of reserved) checkReserved(address, four.subnet, six?.subnet)
  return {
    spec: {
      id: wish.id, name: wish.name, bridge,
      subnet: formatSubnet(four.subnet), gateway: formatIPv4(four.gateway), ipRange: four.ipRange, reserved,
      subnet6: six ? formatSubnet6(six.subnet) : '', gateway6: six ? formatIPv6(six.gateway) : '',
      internal: wish.internal,
      icc: flag(options, 'com.docker.network.bridge.enable_icc', true),
      masquerade: flag(options, 'com.docker.network.bridge.enable_ip_masquerade', true),
      hostBinding: hostBinding === '0.0.0.0' ? '' : hostBinding,
      mtu,
    },
    warnings,
  }
}

function bridgeName(wish: NetworkWish, { names, networks }: PlanContext): string {
  const asked = wish.options['com.docker.network.bridge.name'] ?? ''
  if (asked === '') return names.userPrefix + wish.id.slice(0, 7)
  if (!/^[A-Za-z][A-Za-z0-9_.-]{0,14}$/.test(asked)) throw badRequest(`invalid bridge name ${JSON.stringify(asked)}: 1 to 15 letters, digits, '_', '.' or '-', a letter first`)
  const other = networks.find((network) => network.bridge === asked)
  if (other) throw forbidden(`network with name ${wish.name} cannot be made: conflicts with network ${other.id} (${other.name}): networks have same bridge name`)
  return asked
}

const poolOverlaps = (why: string) => forbidden(`invalid pool request: Pool overlaps with other one on this address space${why === '' ? '' : `: ${why}`}`)

function plan4(config: NetworkWish['configs'][number] | undefined, context: PlanContext): { subnet: Cidr; gateway: number; ipRange: string } {
  const ours = context.networks.map((network) => ({ ...parseBlock(network.subnet)!, name: network.name }))
  const text = config?.subnet ?? ''
  if (text === '') {
    if (config && (config.gateway !== '' || config.ipRange !== '')) throw badRequest('invalid network config: a gateway or an IP range without a subnet')
    for (const candidate of defaultSubnets()) {
      const subnet = parseBlock(candidate)!
      if (!ours.some((other) => overlaps(other, subnet)) && !context.used.some((other) => overlaps(other, subnet))) return { subnet, gateway: subnet.first + 1, ipRange: '' }
    }
    throw badRequest('all predefined address pools have been fully subnetted')
  }
  const subnet = parseBlock(text)
  if (!subnet) throw badRequest(`invalid network config:\ninvalid subnet ${text}: invalid CIDR address`)
  if (subnet.address !== subnet.first) throw badRequest(`invalid network config:\ninvalid subnet ${text}: it should be ${formatSubnet(subnet)}`)
  if (subnet.prefixLength < 8 || subnet.prefixLength > 30) throw badRequest(`invalid subnet ${text}: the prefix length must be between 8 and 30`)
  const top = subnet.first >>> 24
  if (top === 0 || top === 127 || top >= 224) throw badRequest(`invalid subnet ${text}: not unicast addresses`)
  if (ours.some((other) => overlaps(other, subnet))) throw poolOverlaps('')
  // A wider route (a VPN's 10/8, say) is the user's to go round; the same addresses or more exact ones would be lost to the host.
  const lost = context.used.find((block) => overlaps(block, subnet) && block.last - block.first <= subnet.last - subnet.first)
  if (lost) throw poolOverlaps(lost.what)
  const gatewayText = (config?.gateway ?? '').split('/')[0]!
  const range = (config?.ipRange ?? '') === '' ? undefined : parseBlock(config!.ipRange)
  if (config!.ipRange !== '' && (!range || range.first < subnet.first || range.last > subnet.last)) {
    throw badRequest(`invalid network config:\ninvalid ip-range ${config!.ipRange}: parent subnet ${text} doesn't contain ip-range`)
  }
  const gateway = gatewayText === '' ? subnet.first + 1 : parseIPv4(gatewayText)
  if (gateway === undefined || gateway <= subnet.first || gateway >= subnet.last) {
    throw badRequest(`invalid network config:\ninvalid gateway ${gatewayText}: parent subnet ${text} doesn't contain this address`)
  }
  return { subnet, gateway, ipRange: range ? formatSubnet(range) : '' }
}

function plan6(config: NetworkWish['configs'][number] | undefined, context: PlanContext): { subnet: Cidr6; gateway: bigint } {
  const text = config?.subnet ?? ''
  // Docker 27 makes up a ULA; a subnet that nobody chose is nobody's to route.
  if (text === '') throw badRequest('invalid network config: IPv6 needs a subnet: give one with --subnet, such as fd00:1::/64')
  const subnet = parseCidr6(text)
  if (!subnet) throw badRequest(`invalid network config:\ninvalid subnet ${text}: invalid CIDR address`)
  if (subnet.address !== subnet.first) throw badRequest(`invalid network config:\ninvalid subnet ${text}: it should be ${formatSubnet6(subnet)}`)
  if (subnet.prefixLength < 16 || subnet.prefixLength > 126) throw badRequest(`invalid subnet ${text}: the prefix length must be between 16 and 126`)
  if ((config?.ipRange ?? '') !== '') throw badRequest(`invalid ip-range ${config!.ipRange}: not supported for IPv6`)
  for (const network of context.networks) {
    const other = network.subnet6 === '' ? undefined : parseCidr6(network.subnet6)
    if (other && other.first <= subnet.last && subnet.first <= other.last) throw poolOverlaps('')
  }
  const gatewayText = (config?.gateway ?? '').split('/')[0]!
  const gateway = gatewayText === '' ? subnet.first + 1n : parseIPv6(gatewayText)
  if (gateway === undefined || gateway <= subnet.first || gateway > subnet.last) {
    throw badRequest(`invalid network config:\ninvalid gateway ${gatewayText}: parent subnet ${text} doesn't contain this address`)
  }
  return { subnet, gateway }
}

function checkReserved(address: string, subnet: Cidr, subnet6: Cidr6 | undefined): void {
  const bad = badRequest(`invalid network config:\ninvalid auxiliary address ${address}: parent subnet doesn't contain this address`)
  if (isIPv6(address)) {
    const value = parseIPv6(address)
    if (!subnet6 || value === undefined || value < subnet6.first || value > subnet6.last) throw bad
    return
  }
  const value = parseIPv4(address)
  if (value === undefined || value < subnet.first || value > subnet.last) throw bad
}

/** Docker's answer to a second network of a name. */
export const nameTaken = (name: string) => conflict(`network with name ${name} already exists`)
