import { rules } from './rules.js'
import type { Advice, Facts, Needs, Reason, Rule, Wall } from './types.js'

/** Said with every VM of such a host, whatever it was chosen for. */
export const TCG_WARNING = 'VMs on this host run under software emulation (TCG), which is no security boundary by QEMU\'s own policy: what holds a guest is the jail round QEMU. A host with KVM has both.'

/** What a reader must know whichever wall it is. */
function warningsOf(needs: Needs, facts: Facts, isolation: Wall | null, unheard: readonly Reason[]): string[] {
  const warnings: string[] = []
  if (isolation === 'vm' && facts.accelerator === 'tcg') warnings.push(TCG_WARNING)
  for (const { sentence } of unheard) warnings.push(`a container is all that can be had here, but ${sentence}: run it where a VM can be had, without what forbids one, or not at all`)
  if (needs.trust === 'unknown' && isolation === 'process') warnings.push('nobody said whose code this is: --trust own|team|tenant makes the answer better')
  if (needs.engineSockets.length > 0) warnings.push(`${needs.engineSockets.join(', ')} inside is root on the host, behind any wall`)
  for (const text of needs.unread) warnings.push(text)
  for (const text of facts.notes) warnings.push(text)
  if (facts.slope.vm === null && facts.start.vm === null && facts.accelerator !== '') warnings.push('neither start nor memory was measured on this host: `hull compare IMAGE` puts figures behind the reasons')
  return warnings
}

/**
 * What the rules say, and who wins: a must decides, and musts for both walls exclude each other; else the heaviest reason decides alone, so that no number of small savings
 * outweighs a distrusted program. Where nobody speaks it is process: it costs less.
 */
export function judge(needs: Needs, facts: Facts, list: readonly Rule[] = rules): Advice {
  const reasons: Reason[] = []
  for (const rule of list) {
    const sentence = rule.when(needs, facts)
    if (sentence !== null) reasons.push({ rule: rule.id, for: rule.for, weight: rule.weight, must: rule.must === true, sentence })
  }
  reasons.sort((a, b) => Number(b.must) - Number(a.must) || b.weight - a.weight)
  const musts = new Set(reasons.filter((reason) => reason.must).map((reason) => reason.for))
  const isolation = musts.size > 1 ? null : (reasons[0]?.for ?? 'process')
  const security = new Set(list.filter((rule) => rule.security === true).map((rule) => rule.id))
  const unheard = isolation === 'process' && musts.size > 0 ? reasons.filter((reason) => security.has(reason.rule)) : []
  return { name: needs.name, now: needs.now, isolation, reasons, warnings: warningsOf(needs, facts, isolation, unheard) }
}
