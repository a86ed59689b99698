import { badRequest } from '../base/errors.js'
import { addAddress6 } from '../host/link.js'
import { cidrOf, formatIPv4, formatSubnet, parseIPv4, type Cidr } from './address.js'
import { AddressPool6, formatIPv6, parseCidr6, parseIPv6 } from './address6.js'
import { AddressPool } from './ipam.js'
import { enableIPv6, ensureBridge } from './kernel.js'
import type { Names } from './names.js'
import type { NetworkSpec } from './types.js'

/** '172.18.0.0/16'; undefined when it is not an IPv4 block. */
export function parseBlock(text: string): Cidr | undefined {
  const match = /^([\d.]+)\/(\d{1,2})$/.exec(text)
  const address = match ? parseIPv4(match[1]!) : undefined
  const prefixLength = Number(match?.[2])
  return address === undefined || prefixLength > 32 ? undefined : cidrOf(address, prefixLength)
}

/** One bridged network: its addresses, and its bridge in the kernel. */
export class Segment {
  /** With the gateway as `address`. */
  readonly cidr: Cidr
  readonly addresses: AddressPool
  readonly addresses6: AddressPool6 | undefined

  /** @throws HullError 400 when the spec (from the disk) makes no sense. */
  constructor(
    readonly spec: NetworkSpec,
    readonly names: Names,
  ) {
    const block = parseBlock(spec.subnet)
    const gateway = parseIPv4(spec.gateway)
    if (!block || gateway === undefined || gateway < block.first || gateway > block.last) throw badRequest(`invalid subnet ${spec.subnet} or gateway ${spec.gateway}`)
    this.cidr = { ...block, address: gateway }
    const range = spec.ipRange === '' ? undefined : parseBlock(spec.ipRange)
    this.addresses = new AddressPool(this.cidr, range && { first: Math.max(range.first, block.first), last: Math.min(range.last, block.last) })
    for (const address of spec.reserved) this.addresses.mark(address)
    if (spec.subnet6 !== '') {
      const block6 = parseCidr6(spec.subnet6)
      const gateway6 = parseIPv6(spec.gateway6)
      if (!block6 || gateway6 === undefined) throw badRequest(`invalid subnet ${spec.subnet6} or gateway ${spec.gateway6}`)
      this.addresses6 = new AddressPool6({ ...block6, address: gateway6 })
      for (const address of spec.reserved) this.addresses6.mark(address)
    }
  }

  get id(): string {
    return this.spec.id
  }

  get bridge(): string {
    return this.spec.bridge
  }

  /** The default bridge has no name server, as in Docker. */
  get hasNames(): boolean {
    return this.spec.id !== ''
  }

  /** Makes the bridge or repairs it. */
  async ensure(): Promise<void> {
    await ensureBridge({ ...this.names, bridge: this.bridge }, this.cidr, this.spec.mtu)
    const { addresses6 } = this
    if (!addresses6) return
    await enableIPv6(this.bridge)
    addAddress6(this.bridge, formatIPv6(addresses6.subnet.address), addresses6.subnet.prefixLength)
  }

  /** For messages and inspect. */
  get subnetText(): string {
    return formatSubnet(this.cidr)
  }

  get gatewayText(): string {
    return formatIPv4(this.cidr.address)
  }
}
