import { closeSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { badRequest, forbidden, HullError, internal, messageOf, notFound } from '../base/errors.js'
import { log } from '../base/log.js'
import { addBridgePort, deleteLink, openTap, setLink } from '../host/link.js'
import { configureInterface } from '../host/netns.js'
import { formatIPv4, formatSubnet, macOf, parseIPv4, parseMac, type Cidr } from './address.js'
import { forgetFlowsBefore, forgetFlowsTo } from './conntrack.js'
import { foreignWarnings, listChains, missingRules, removeRules, type Chain } from './foreign.js'
import { AddressPool } from './ipam.js'
import { disableIPv6, ensureBridge, ensureSysctls, isOurBridge, lockBridge, type BridgeLock } from './kernel.js'
import { namesOf, type Names } from './names.js'
import { Nft } from './nft.js'
import { addCommands, chainNames, deleteCommands, elementsOf, hasElements, tableText } from './nftText.js'
import { checkBinding, PortAllocator } from './ports.js'
import { type NamespaceOwners, SlotPool, tapName } from './slots.js'
import { chooseSubnet, saveSubnet } from './subnet.js'
import type { BridgeInfo, Endpoint, NetworkManager, PortBinding } from './types.js'

/** Options of {@link BridgeNetwork}. */
export interface BridgeNetworkOptions {
  /** Name of the Linux bridge, unique on the host: all else of this daemon's in the kernel is named after it. */
  bridgeName: string
  /** Gateway in CIDR form (`--bip`, '172.29.0.1/16'); '' or absent: the remembered one or a default that collides with nothing. */
  bip?: string | undefined
  /** Bytes. */
  mtu: number
  /** Kept over boots: the chosen subnet. */
  stateDir: string
  /** Gone after a boot: files of network namespaces. */
  runDir: string
  /** Ready namespaces that are kept; 0: none. */
  poolSize: number
  /** User namespaces that own the containers' network namespaces (--userns-remap). */
  owners?: NamespaceOwners
}

/** What is known of a container's place. */
interface Entry {
  endpoint: Endpoint
  /** Its ports are (or are about to be) in the nftables maps. */
  published: boolean
  /** The address is marked as taken for this container. */
  holdsAddress: boolean
}

/** Other programs' rules are looked at again this often, and at a publish when the last look is older than the second figure (milliseconds). */
const reassertEveryMs = 15_000
const reassertAtPublishMs = 5_000

/** The default bridge: addresses, namespaces and taps, NAT and published ports of one daemon. */
export class BridgeNetwork implements NetworkManager {
  readonly bridge: BridgeInfo
  readonly #names: Names
  readonly #nft = new Nft()
  readonly #ports = new PortAllocator()
  readonly #slots: SlotPool
  readonly #entries = new Map<string, Entry>()
  #addresses: AddressPool | undefined
  #subnet: Cidr | undefined
  #timer: NodeJS.Timeout | undefined
  #reasserted = 0
  #reasserting: Promise<void> | undefined
  #stopped = false
  #lock: BridgeLock | undefined
  #sysctlWarnings: string[] = []
  #startWarnings: string[] = []
  #foreignWarnings: string[] = []

  constructor(readonly options: BridgeNetworkOptions) {
    this.#names = namesOf(options.bridgeName)
    if (!Number.isInteger(options.mtu) || options.mtu < 68 || options.mtu > 65535) throw badRequest(`invalid mtu: ${options.mtu}`)
    this.#slots = new SlotPool({ names: this.#names, runDir: options.runDir, mtu: options.mtu, size: options.poolSize, ...(options.owners ? { owners: options.owners } : {}) })
    this.bridge = { name: options.bridgeName, subnet: '', gateway: '', mtu: options.mtu }
  }

  /** Ready namespaces at this moment. */
  get ready(): { veth: number; isolated: number } {
    return this.#slots.ready
  }

  async start(active: Endpoint[]): Promise<void> {
    this.#lock = await lockBridge(this.#names.bridge)
    try {
      await this.#start(active)
    } catch (error) {
      // A bridge with nobody on it must not stay because, say, nft is not installed.
      if (active.length === 0 && (await isOurBridge(this.#names.bridge))) deleteLink(this.#names.bridge)
      await this.#closeInProcess()
      throw error
    }
  }

  async #start(active: Endpoint[]): Promise<void> {
    const { stateDir, runDir, bip, mtu } = this.options
    await mkdir(stateDir, { recursive: true, mode: 0o700 })
    await mkdir(runDir, { recursive: true, mode: 0o700 })
    const { cidr, last, warning } = await chooseSubnet({ stateDir, bridge: this.#names.bridge, bip, inUse: active.length > 0 })
    this.#subnet = cidr
    this.#addresses = new AddressPool(cidr)
    this.#addresses.last = last
    Object.assign(this.bridge, { subnet: formatSubnet(cidr), gateway: formatIPv4(cidr.address) })
    const warnings = warning === undefined ? [] : [warning]
    await ensureBridge(this.#names, cidr, mtu)
    await this.#ports.start()
    for (const endpoint of active) warnings.push(...(await this.#adopt(endpoint)))
    await this.#rewrite()
    await this.#slots.start(new Set(active.map((endpoint) => endpoint.containerId)))
    this.#startWarnings = warnings
    await this.#reassert()
    this.#timer = setInterval(() => void this.#reassert(), reassertEveryMs).unref()
    void this.#nft.warm()
  }

  async stop(everything: boolean): Promise<void> {
    this.#stopped = true
    await this.#reasserting
    try {
      await this.#slots.stop()
      if (everything) await this.#removeEverything()
      else if (this.#subnet && this.#addresses) {
        const bip = `${formatIPv4(this.#subnet.address)}/${this.#subnet.prefixLength}`
        await saveSubnet(this.options.stateDir, { bip, last: this.#addresses.last })
      }
    } finally {
      await this.#closeInProcess()
    }
  }

  /** Timers, sockets, the pool, the lock: all that lives in this process. */
  async #closeInProcess(): Promise<void> {
    this.#stopped = true
    clearInterval(this.#timer)
    await this.#slots.stop()
    await this.#ports.close()
    this.#nft.close()
    this.#entries.clear()
    await this.#lock?.release()
    this.#lock = undefined
  }

  async allocate(containerId: string, options: { ports: PortBinding[]; mac?: string; address?: string; name?: string }): Promise<Endpoint> {
    const { addresses, subnet } = this.#started()
    checkId(containerId)
    const name = options.name ?? containerId.slice(0, 12)
    if (this.#entries.has(containerId)) throw forbidden(`endpoint with name ${name} already exists in network bridge`)
    const mac = options.mac ? parseMac(options.mac) : ''
    const address = addresses.allocate(options.address)
    const endpoint: Endpoint = {
      containerId, address, prefixLength: subnet.prefixLength, gateway: this.bridge.gateway, mac: mac || macOf(parseIPv4(address)!), ports: [],
    }
    this.#entries.set(containerId, { endpoint, published: false, holdsAddress: true })
    try {
      endpoint.ports = await this.#ports.take(containerId, address, options.ports)
      return endpoint
    } catch (error) {
      this.#entries.delete(containerId)
      addresses.release(address)
      throw externalError(name, containerId, error)
    }
  }

  async connectNamespace(endpoint: Endpoint): Promise<{ netnsPath: string }> {
    this.#entry(endpoint)
    const { netnsPath } = await this.#slots.take(endpoint.containerId, 's')
    try {
      await configureInterface(netnsPath, { ...endpoint, name: 'eth0' })
    } catch (error) {
      await this.#slots.release(endpoint.containerId)
      throw internal(`cannot configure the network of ${endpoint.containerId.slice(0, 12)}: ${messageOf(error)}`, error)
    }
    return { netnsPath }
  }

  async connectTap(endpoint: Endpoint): Promise<{ tapFd: number; name: string }> {
    this.#entry(endpoint)
    const name = tapName(this.#names, endpoint.containerId)
    const tapFd = openTap(name)
    try {
      await disableIPv6(name)
      addBridgePort(this.#names.bridge, name)
      setLink(name, { mtu: this.options.mtu })
    } catch (error) {
      closeSync(tapFd)
      throw internal(`cannot connect the tap of ${endpoint.containerId.slice(0, 12)}: ${messageOf(error)}`, error)
    }
    return { tapFd, name }
  }

  async publish(endpoint: Endpoint): Promise<void> {
    const entry = this.#entry(endpoint)
    if (!hasElements(entry.endpoint.ports)) return
    entry.published = true
    try {
      await this.#orRewrite(addCommands(this.#names.table, elementsOf(entry.endpoint)))
    } catch (error) {
      entry.published = false
      throw externalError(endpoint.containerId.slice(0, 12), endpoint.containerId, error)
    }
    void forgetFlowsBefore(entry.endpoint.ports)
    if (Date.now() - this.#reasserted > reassertAtPublishMs) void this.#reassert()
  }

  async isolatedNamespace(containerId: string): Promise<{ netnsPath: string }> {
    this.#started()
    checkId(containerId)
    const { netnsPath } = await this.#slots.take(containerId, 'i')
    return { netnsPath }
  }

  async release(containerId: string): Promise<void> {
    checkId(containerId)
    const entry = this.#entries.get(containerId)
    this.#entries.delete(containerId)
    // Each part is tried whatever happens to the others: nothing may stay because something else could not go.
    const results = await Promise.allSettled([
      entry?.published ? this.#unpublish(entry.endpoint) : undefined,
      this.#ports.release(containerId),
      this.#slots.release(containerId),
    ])
    if (entry?.holdsAddress) this.#addresses?.release(entry.endpoint.address)
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }

  warnings(): string[] {
    return [...this.#startWarnings, ...this.#sysctlWarnings, ...this.#foreignWarnings]
  }

  #started(): { addresses: AddressPool; subnet: Cidr } {
    if (!this.#addresses || !this.#subnet || this.#stopped) throw internal('the network is not started')
    return { addresses: this.#addresses, subnet: this.#subnet }
  }

  #entry(endpoint: Endpoint): Entry {
    this.#started()
    const entry = this.#entries.get(endpoint.containerId)
    if (!entry) throw notFound(`endpoint of ${endpoint.containerId} not found in network bridge`)
    return entry
  }

  /** Takes a running container's place as it is. Returns what is wrong with it. */
  async #adopt(endpoint: Endpoint): Promise<string[]> {
    const who = `container ${endpoint.containerId.slice(0, 12)}`
    try {
      checkId(endpoint.containerId)
      if (parseIPv4(endpoint.address) === undefined) throw badRequest(`invalid address ${endpoint.address}`)
      endpoint.ports.forEach(checkBinding)
    } catch (error) {
      return [`${who}: its network is not usable: ${messageOf(error)}`]
    }
    const holdsAddress = this.#addresses!.mark(endpoint.address)
    const { ports, problems } = await this.#ports.adopt(endpoint.containerId, endpoint.address, endpoint.ports)
    this.#entries.set(endpoint.containerId, { endpoint: { ...endpoint, ports }, published: true, holdsAddress })
    if (!holdsAddress) problems.push(`its address ${endpoint.address} is not in ${this.bridge.subnet} or used twice: restart it`)
    return problems.map((problem) => `${who}: ${problem}`)
  }

  async #unpublish(endpoint: Endpoint): Promise<void> {
    await this.#orRewrite(deleteCommands(this.#names.table, elementsOf(endpoint)))
    await forgetFlowsTo(endpoint.address, endpoint.ports)
  }

  /** The commands as one transaction; when that fails (somebody flushed the rule set, or changed our table) the whole table is written anew. */
  async #orRewrite(commands: string[]): Promise<void> {
    try {
      await this.#nft.command(commands)
    } catch (error) {
      log.warn('network: nftables element refused, writing the whole table', { table: this.#names.table, error })
      await this.#rewrite()
    }
  }

  async #rewrite(): Promise<void> {
    const published = [...this.#entries.values()].filter((entry) => entry.published).map((entry) => entry.endpoint)
    await this.#nft.script(tableText(this.#names, this.#subnet!, published))
  }

  /** Looks whether the sysctls, our table and our rules in other programs' chains are there, and puts back what is not. Never rejects. */
  #reassert(): Promise<void> {
    this.#reasserting ??= this.#reassertNow()
      .catch((error: unknown) => log.warn('network: cannot check the nftables rules', { error }))
      .finally(() => {
        this.#reasserting = undefined
        this.#reasserted = Date.now()
      })
    return this.#reasserting
  }

  async #reassertNow(): Promise<void> {
    this.#sysctlWarnings = await ensureSysctls(this.#names.bridge)
    const chains = await listChains()
    if (this.#stopped) return
    if (!this.#isWhole(chains)) {
      log.warn('network: our nftables table is gone or damaged, writing it anew', { table: this.#names.table })
      await this.#rewrite()
    }
    await this.#nft.command(await missingRules(chains, this.#names))
    this.#foreignWarnings = foreignWarnings(chains)
  }

  #isWhole(chains: readonly Chain[]): boolean {
    const ours = new Set(chains.filter((chain) => chain.family === 'ip' && chain.table === this.#names.table).map((chain) => chain.name))
    return chainNames.every((name) => ours.has(name))
  }

  /** Never what another daemon holds, nor a bridge that is not ours. */
  async #removeEverything(): Promise<void> {
    this.#lock ??= await lockBridge(this.#names.bridge)
    const { table, bridge } = this.#names
    await this.#slots.removeLeftovers(new Set())
    if (await isOurBridge(bridge)) deleteLink(bridge)
    const rules = await removeRules(await listChains(), this.#names)
    await this.#nft.script([...rules, `add table ip ${table}`, `delete table ip ${table}`, ''].join('\n'))
    await rm(this.options.runDir, { recursive: true, force: true })
    await rm(join(this.options.stateDir, 'subnet.json'), { force: true })
  }
}

/** Container ids become file and link names. */
function checkId(containerId: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/.test(containerId)) throw badRequest(`invalid container id ${JSON.stringify(containerId)}`)
}

/** Docker's frame around what went wrong with a port; a 400 is the caller's own and stays as it is. */
function externalError(name: string, containerId: string, error: unknown): HullError {
  if (error instanceof HullError && error.statusCode === 400) return error
  return internal(`driver failed programming external connectivity on endpoint ${name} (${containerId}): ${messageOf(error)}`, error)
}
