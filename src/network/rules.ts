import { log } from '../base/log.js'
import { foreignWarnings, listChains, missingRules, removeRules, type BridgeNames, type Chain } from './foreign.js'
import { ensureSysctls } from './kernel.js'
import type { Names } from './names.js'
import { Nft } from './nft.js'
import { chainNames, chainNames6, tableText, type SegmentRules } from './nftText.js'
import type { Segment } from './segment.js'
import type { Endpoint } from './types.js'

/** Other programs' rules are looked at again this often, and at a publish when the last look is older than the second figure (milliseconds). */
const REASSERT_EVERY = 15_000
const REASSERT_AT_PUBLISH = 5_000

/** What the rules are made of, at this moment. */
export interface RuleState {
  segments: () => readonly Segment[]
  /** Where the name server of a network listens. */
  namePorts: (networkId: string) => { udp: number; tcp: number } | undefined
  /** Endpoints whose ports are published by the kernel. */
  published: () => Endpoint[]
}

/** Our table in nftables, our rules in other programs' chains, and the sysctls that both need: written, watched, and put back when somebody else took them away. */
export class RuleKeeper {
  readonly #nft = new Nft()
  #timer: NodeJS.Timeout | undefined
  #looked = 0
  #looking: Promise<void> | undefined
  #stopped = false
  #sysctlWarnings: string[] = []
  #foreignWarnings: string[] = []

  constructor(
    private readonly names: Names,
    private readonly state: RuleState,
  ) {}

  get warnings(): string[] {
    return [...this.#sysctlWarnings, ...this.#foreignWarnings]
  }

  /** Looks from now on, again and again. Resolves after the first look. */
  async watch(): Promise<void> {
    await this.look()
    this.#timer = setInterval(() => void this.look(), REASSERT_EVERY).unref()
    void this.#nft.warm()
  }

  /** No more looks; resolves when the last has ended. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearInterval(this.#timer)
    await this.#looking
  }

  close(): void {
    this.#stopped = true
    clearInterval(this.#timer)
    this.#nft.close()
  }

  /** The commands as one transaction; when that fails (somebody flushed the rule set, or changed our table) the whole table is written anew. */
  async command(commands: string[]): Promise<void> {
    try {
      await this.#nft.command(commands)
    } catch (error) {
      log.warn('network: nftables element refused, writing the whole table', { table: this.names.table, error })
      await this.rewrite()
    }
  }

  async rewrite(): Promise<void> {
    await this.#nft.script(tableText(this.names, this.#segmentRules(), this.state.published()))
  }

  /** What other programs' chains have of ours for a bridge that goes. */
  async removeOf(bridge: string): Promise<void> {
    await this.#nft.command(await removeRules(await listChains(), this.names, bridge))
  }

  async removeAll(): Promise<void> {
    const { table } = this.names
    const rules = await removeRules(await listChains(), this.names)
    const tables = ['ip', 'ip6'].flatMap((family) => [`add table ${family} ${table}`, `delete table ${family} ${table}`])
    await this.#nft.script([...rules, ...tables, ''].join('\n'))
  }

  /** Looks whether the sysctls, our table and our rules in other programs' chains are there, and puts back what is not. Never rejects. */
  look(): Promise<void> {
    this.#looking ??= this.lookNow()
      .catch((error: unknown) => log.warn('network: cannot check the nftables rules', { error }))
      .finally(() => {
        this.#looking = undefined
        this.#looked = Date.now()
      })
    return this.#looking
  }

  /** As {@link look}, unless that was a moment ago. */
  lookAtPublish(): void {
    if (Date.now() - this.#looked > REASSERT_AT_PUBLISH) void this.look()
  }

  async lookNow(): Promise<void> {
    this.#sysctlWarnings = await ensureSysctls(this.state.segments().map((segment) => segment.bridge), this.#hasIPv6)
    const chains = await listChains()
    if (this.#stopped) return
    if (!this.#isWhole(chains)) {
      log.warn('network: our nftables table is gone or damaged, writing it anew', { table: this.names.table })
      await this.rewrite()
    }
    const names = this.#bridgeNames()
    await this.#nft.command(await missingRules(chains, names))
    this.#foreignWarnings = foreignWarnings(chains, names.nameServers.length > 0)
  }

  #segmentRules(): SegmentRules[] {
    return this.state.segments().map((segment) => {
      const namePorts = this.state.namePorts(segment.id)
      const { bridge, subnet6, internal: inside, icc, masquerade } = segment.spec
      return { bridge, subnet: segment.subnetText, subnet6, gateway: segment.gatewayText, internal: inside, icc, masquerade, ...(namePorts ? { namePorts } : {}) }
    })
  }

  get #hasIPv6(): boolean {
    return this.state.segments().some((segment) => segment.addresses6 !== undefined)
  }

  #bridgeNames(): BridgeNames {
    const segments = this.state.segments()
    return {
      mark: this.names.mark, bridge: this.names.bridge, userPrefix: this.names.userPrefix,
      custom: segments.filter((segment) => segment.hasNames && !segment.bridge.startsWith(this.names.userPrefix)).map((segment) => segment.bridge),
      ipv6: this.#hasIPv6,
      nameServers: segments.flatMap((segment) => {
        const ports = this.state.namePorts(segment.id)
        return ports ? [{ bridge: segment.bridge, ...ports }] : []
      }),
    }
  }

  #isWhole(chains: readonly Chain[]): boolean {
    const has = (family: string, wanted: readonly string[]) => {
      const ours = new Set(chains.filter((chain) => chain.family === family && chain.table === this.names.table).map((chain) => chain.name))
      return wanted.every((name) => ours.has(name))
    }
    return has('ip', chainNames) && (!this.#hasIPv6 || has('ip6', chainNames6))
  }
}
