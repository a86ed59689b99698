import { z } from 'zod'
import { nft } from './nft.js'
import { bridgeNetfilter } from './kernel.js'

// Docker, ufw and others set the policy of iptables' FORWARD chain to DROP (through iptables-nft it is the chain FORWARD of table `ip filter`).
// A drop anywhere is final, whatever our own table accepts, so accept rules of ours must stand in that very chain.
//
// Two places, because one would be wrong for one of them: frames TO our bridge are accepted at the top (our own forward chain has decided already
// that only published ports and answers get there). Frames FROM it are accepted at the end, after the rules that the others have for
// their own networks: we do not open their containers to ours, nor go round what an administrator denies.

const chainSchema = z.object({
  family: z.string(), table: z.string(), name: z.string(),
  type: z.string().optional(), hook: z.string().optional(), policy: z.string().optional(),
})
const chainsSchema = z.object({ nftables: z.array(z.looseObject({ chain: chainSchema.optional() })) })
const rulesSchema = z.object({
  nftables: z.array(z.looseObject({ rule: z.looseObject({ handle: z.number(), comment: z.string().optional() }).optional() })),
})

/** A chain as `nft -j list chains` shows it. */
export type Chain = z.infer<typeof chainSchema>

/** Parses the output of `nft -j list chains`. */
export function parseChains(json: string): Chain[] {
  return chainsSchema.parse(JSON.parse(json)).nftables.flatMap((item) => item.chain ?? [])
}

/** Rules with a comment in the output of `nft -j list chain …`, in order. */
export function parseComments(json: string): { handle: number; comment: string }[] {
  return rulesSchema.parse(JSON.parse(json)).nftables.flatMap(({ rule }) => (rule?.comment === undefined ? [] : [{ handle: rule.handle, comment: rule.comment }]))
}

/** All chains of all tables. Rejects when nft does. */
export async function listChains(): Promise<Chain[]> {
  const result = await nft(['-j', 'list', 'chains'])
  if (result.code !== 0) throw new Error(`nft list chains: ${result.stderr.trim()}`)
  return parseChains(result.stdout)
}

/** iptables' own FORWARD chains that drop what nobody accepts. */
export function droppingForward(chains: readonly Chain[]): ('ip' | 'ip6')[] {
  return (['ip', 'ip6'] as const).filter((family) =>
    chains.some((chain) => chain.family === family && chain.table === 'filter' && chain.name === 'FORWARD' && chain.hook === 'forward' && chain.policy === 'drop'),
  )
}

/** Sentences about other tables that may drop our traffic and that we do not touch. */
export function foreignWarnings(chains: readonly Chain[], nameServers = false): string[] {
  const warnings: string[] = []
  for (const chain of chains) {
    if (chain.hook === 'input' && chain.policy === 'drop' && !(chain.table === 'filter' && chain.name === 'INPUT' && chain.family === 'ip') && chain.family !== 'ip6' && nameServers) {
      warnings.push(`the nftables chain ${chain.family} ${chain.table} ${chain.name} drops input that it does not accept: accept there what comes from the bridges to ports 20000-31999, where the networks' name servers are`)
    }
    if (chain.hook !== 'forward' || (chain.table === 'filter' && chain.name === 'FORWARD' && chain.family !== 'inet')) continue
    const name = `${chain.family} ${chain.table} ${chain.name}`
    if (chain.table === 'firewalld') warnings.push(`firewalld may reject forwarded traffic (nftables chain ${name}): add the bridge to the zone "trusted"`)
    else if (chain.policy === 'drop') warnings.push(`the nftables chain ${name} drops forwarded traffic that it does not accept: accept the bridge there`)
  }
  return [...new Set(warnings)]
}

/** One rule of ours in a foreign chain. */
interface ForeignRule {
  comment: string
  command: string
}

/** Bridges as nft matches them in `iifname`: one pattern for all that have a name of ours, and those that users named. */
export interface BridgeNames {
  mark: string
  /** The default bridge. */
  bridge: string
  userPrefix: string
  /** User networks whose bridge was named by the user. */
  custom: readonly string[]
  /** Whether there are networks with IPv6. */
  ipv6: boolean
  /** Where the user networks' name servers listen. */
  nameServers: readonly { bridge: string; udp: number; tcp: number }[]
}

function rulesFor(family: 'ip' | 'ip6', names: BridgeNames): ForeignRule[] {
  const rule = (verb: 'insert' | 'add', comment: string, match: string) => ({
    comment,
    command: `${verb} rule ${family} filter FORWARD ${match} counter accept comment "${comment}"`,
  })
  // On the default bridge there is no IPv6 but what the containers say among themselves.
  const own =
    family === 'ip6'
      ? [rule('insert', `${names.mark} within`, `iifname "${names.bridge}" oifname "${names.bridge}"`)]
      : [rule('insert', `${names.mark} to`, `oifname "${names.bridge}"`), rule('add', `${names.mark} from`, `iifname "${names.bridge}"`)]
  if (family === 'ip6' && !names.ipv6) return own
  const others = names.nameServers.length > 0 ? [`${names.userPrefix}*`, ...names.custom] : []
  return [
    ...own,
    ...others.flatMap((bridge) => [rule('insert', `${names.mark} to ${bridge}`, `oifname "${bridge}"`), rule('add', `${names.mark} from ${bridge}`, `iifname "${bridge}"`)]),
  ]
}

/** Containers ask the name server on their gateway: that is input, which a host's firewall may drop. */
function inputRules(names: BridgeNames): ForeignRule[] {
  // By the port behind the port: iptables must still be able to show its chain, and it knows no expression for the destination before NAT.
  return names.nameServers.flatMap(({ bridge, udp, tcp }) =>
    ([['udp', udp], ['tcp', tcp]] as const).map(([protocol, port]) => {
      const comment = `${names.mark} names ${protocol} ${port} ${bridge}`
      return { comment, command: `insert rule ip filter INPUT iifname "${bridge}" ${protocol} dport ${port} counter accept comment "${comment}"` }
    }),
  )
}

async function commentsIn(family: 'ip' | 'ip6', chain: 'FORWARD' | 'INPUT'): Promise<{ handle: number; comment: string }[]> {
  const result = await nft(['-j', 'list', 'chain', family, 'filter', chain])
  // The chain may have gone since it was listed.
  return result.code === 0 ? parseComments(result.stdout) : []
}

const dropsInput = (chains: readonly Chain[]) =>
  chains.some((chain) => chain.family === 'ip' && chain.table === 'filter' && chain.name === 'INPUT' && chain.hook === 'input' && chain.policy === 'drop')

/** nft commands that put our accept rules where a policy of drop needs them and they are missing. Empty when all is well. */
export async function missingRules(chains: readonly Chain[], names: BridgeNames): Promise<string[]> {
  const commands: string[] = []
  const missing = async (family: 'ip' | 'ip6', chain: 'FORWARD' | 'INPUT', rules: readonly ForeignRule[]) => {
    if (rules.length === 0) return
    const present = new Set((await commentsIn(family, chain)).map((rule) => rule.comment))
    commands.push(...rules.filter((rule) => !present.has(rule.comment)).map((rule) => rule.command))
  }
  for (const family of droppingForward(chains)) {
    if (family === 'ip6' && !names.ipv6 && !(await bridgeNetfilter('ip6'))) continue
    await missing(family, 'FORWARD', rulesFor(family, names))
  }
  if (dropsInput(chains)) await missing('ip', 'INPUT', inputRules(names))
  return commands
}

/** nft commands that remove our rules from foreign chains, whatever their policy is now: all, or those of one bridge. */
export async function removeRules(chains: readonly Chain[], names: Pick<BridgeNames, 'mark'>, bridge?: string): Promise<string[]> {
  const commands: string[] = []
  for (const family of ['ip', 'ip6'] as const) {
    for (const chain of ['FORWARD', 'INPUT'] as const) {
      if (!chains.some((known) => known.family === family && known.table === 'filter' && known.name === chain)) continue
      for (const { handle, comment } of await commentsIn(family, chain)) {
        if (!comment.startsWith(`${names.mark} `) || (bridge !== undefined && !comment.endsWith(` ${bridge}`))) continue
        commands.push(`delete rule ${family} filter ${chain} handle ${handle}`)
      }
    }
  }
  return commands
}
