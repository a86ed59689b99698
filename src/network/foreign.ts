import { z } from 'zod'
import { nft } from './nft.js'
import { bridgeNetfilter } from './kernel.js'
import type { Names } from './names.js'

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
export function foreignWarnings(chains: readonly Chain[]): string[] {
  const warnings: string[] = []
  for (const chain of chains) {
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

function rulesFor(family: 'ip' | 'ip6', names: Names): ForeignRule[] {
  const bridge = `"${names.bridge}"`
  const rule = (verb: 'insert' | 'add', comment: string, match: string) => ({
    comment,
    command: `${verb} rule ${family} filter FORWARD ${match} counter accept comment "${comment}"`,
  })
  // There is no IPv6 on the bridge but what the containers say among themselves.
  if (family === 'ip6') return [rule('insert', `${names.mark} within`, `iifname ${bridge} oifname ${bridge}`)]
  return [rule('insert', `${names.mark} to`, `oifname ${bridge}`), rule('add', `${names.mark} from`, `iifname ${bridge}`)]
}

async function commentsIn(family: 'ip' | 'ip6'): Promise<{ handle: number; comment: string }[]> {
  const result = await nft(['-j', 'list', 'chain', family, 'filter', 'FORWARD'])
  // The chain may have gone since it was listed.
  return result.code === 0 ? parseComments(result.stdout) : []
}

/** nft commands that put our accept rules where a policy of drop needs them and they are missing. Empty when all is well. */
export async function missingRules(chains: readonly Chain[], names: Names): Promise<string[]> {
  const commands: string[] = []
  for (const family of droppingForward(chains)) {
    if (family === 'ip6' && !(await bridgeNetfilter('ip6'))) continue
    const present = new Set((await commentsIn(family)).map((rule) => rule.comment))
    commands.push(...rulesFor(family, names).filter((rule) => !present.has(rule.comment)).map((rule) => rule.command))
  }
  return commands
}

/** nft commands that remove all our rules from foreign chains, whatever their policy is now. */
export async function removeRules(chains: readonly Chain[], names: Names): Promise<string[]> {
  const commands: string[] = []
  for (const family of ['ip', 'ip6'] as const) {
    if (!chains.some((chain) => chain.family === family && chain.table === 'filter' && chain.name === 'FORWARD')) continue
    for (const { handle, comment } of await commentsIn(family)) {
      if (comment.startsWith(`${names.mark} `)) commands.push(`delete rule ${family} filter FORWARD handle ${handle}`)
    }
  }
  return commands
}
