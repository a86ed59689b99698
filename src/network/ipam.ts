import { badRequest, forbidden, internal } from '../base/errors.js'
import { formatIPv4, formatSubnet, parseIPv4, type Cidr } from './address.js'

/**
 * Addresses of one subnet, one bit each. Memory only: what is in use is known from the endpoints in the containers' configs.
 * Allocation goes on after the address given last, as Docker's does, so that an address just freed rests as long as possible.
 */
export class AddressPool {
  readonly #bits: Uint32Array
  readonly #size: number
  /** Offsets that are given only when asked for: what lies outside the range (`--ip-range`). */
  readonly #outside: Uint32Array | undefined
  #last: number
  #free: number

  /**
   * `gateway`, the network address and the broadcast address are never given out.
   * @param range inside the subnet: where addresses come from that nobody asked for by name.
   */
  constructor(
    readonly subnet: Cidr,
    readonly range?: Pick<Cidr, 'first' | 'last'>,
  ) {
    this.#size = subnet.last - subnet.first + 1
    this.#bits = new Uint32Array(Math.ceil(this.#size / 32))
    this.#free = this.#size
    if (this.#size % 32 !== 0) this.#bits[this.#bits.length - 1] = (0xffffffff << (this.#size % 32)) >>> 0
    this.#set(0)
    this.#set(this.#size - 1)
    const gateway = subnet.address - subnet.first
    this.#set(gateway)
    this.#last = 0
    if (range) {
      this.#outside = new Uint32Array(this.#bits.length).fill(0xffffffff)
      for (let offset = range.first - subnet.first; offset <= range.last - subnet.first; offset++) this.#outside[offset >>> 5]! &= ~(1 << (offset & 31))
      this.#last = Math.max(0, range.first - subnet.first - 1)
    }
  }

  /** Addresses that can still be given. */
  get free(): number {
    return this.#free
  }

  /** The address given last, '' when none was: the next search starts after it. */
  get last(): string {
    return this.#last === 0 ? '' : formatIPv4(this.subnet.first + this.#last)
  }

  /** Continues after `address` (kept over a restart of the daemon). Ignores what is not in the subnet. */
  set last(address: string) {
    this.#last = this.#offset(address) ?? this.#last
  }

  /**
   * Takes an address.
   * @throws HullError 500 when none is free, 403 `Address already in use`, 400 when `requested` is not in the subnet (Docker's statuses and words).
   */
  allocate(requested = ''): string {
    if (requested !== '') return this.#allocateRequested(requested)
    const offset = this.#free === 0 ? undefined : this.#firstFree(this.#last + 1)
    if (offset === undefined) throw internal(`no available IPv4 addresses on this network's address pools: ${formatSubnet(this.subnet)}`)
    this.#set(offset)
    this.#last = offset
    return formatIPv4(this.subnet.first + offset)
  }

  /** Marks an address that a running container has. False: taken already, or not of this subnet. */
  mark(address: string): boolean {
    const offset = this.#offset(address)
    if (offset === undefined || this.#has(offset)) return false
    this.#set(offset)
    return true
  }

  /** Gives an address back. The gateway's and addresses of other subnets are ignored. */
  release(address: string): void {
    const offset = this.#offset(address)
    if (offset === undefined || offset === 0 || offset === this.#size - 1) return
    if (offset === this.subnet.address - this.subnet.first || !this.#has(offset)) return
    this.#bits[offset >>> 5]! &= ~(1 << (offset & 31))
    this.#free++
  }

  #allocateRequested(requested: string): string {
    const offset = this.#offset(requested)
    if (offset === undefined) throw badRequest(`invalid address ${requested}: It does not belong to any of this network's subnets`)
    if (this.#has(offset)) throw forbidden('Address already in use')
    this.#set(offset)
    return requested
  }

  #offset(address: string): number | undefined {
    const value = parseIPv4(address)
    if (value === undefined || value < this.subnet.first || value > this.subnet.last) return undefined
    return value - this.subnet.first
  }

  #has(offset: number): boolean {
    return (this.#bits[offset >>> 5]! & (1 << (offset & 31))) !== 0
  }

  #set(offset: number): void {
    this.#bits[offset >>> 5]! |= 1 << (offset & 31)
    this.#free--
  }

  /** The lowest free offset from `start` on, wrapping round. Full words (32 addresses) are skipped at once. */
  #firstFree(start: number): number | undefined {
    const words = this.#bits.length
    const word32 = (index: number) => this.#bits[index]! | (this.#outside?.[index] ?? 0)
    let word = (start >>> 5) % words
    // In the first word only the bits from `start` on count; the loop comes back to the rest of it at its end.
    let taken = (word32(word) | ((1 << (start & 31)) - 1)) >>> 0
    for (let turn = 0; turn <= words; turn++) {
      if (taken !== 0xffffffff) return word * 32 + (31 - Math.clz32(~taken & -~taken))
      word = (word + 1) % words
      taken = word32(word) >>> 0
    }
    return undefined
  }
}
