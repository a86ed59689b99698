import type { Advice, Reason } from './types.js'

/** Names come from files of other people: nothing of theirs moves a cursor or turns text round. */
 
const plain = (text: string) => text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, '?')
const line = (reason: Reason, pick: string | null) => `  ${reason.must ? 'must' : String(reason.weight).padStart(4)}  ${reason.for === pick ? '+' : '-'} ${reason.for.padEnd(7)}  ${reason.sentence}`

/** Advice in lines for a terminal: the choice, then the reasons by weight ('+' speaks for the choice, '-' against it), then what to know besides; what concerns all, once and last. */
export function formatAdvice(list: readonly Advice[]): string {
  const shared = list.length > 1 ? list[0]!.warnings.filter((warning) => list.every(({ warnings }) => warnings.includes(warning))) : []
  const blocks = list.map(({ name, now, isolation, reasons, warnings }) => [
    `${name}: ${isolation === null ? 'neither: what it needs excludes one another' : `--isolation=${isolation}`}${now === '' || now === isolation ? '' : ` (now ${now})`}`,
    ...(reasons.length > 0 ? reasons.map((reason) => line(reason, isolation)) : ['        nothing speaks for a VM, and a container costs less']),
    ...warnings.filter((warning) => !shared.includes(warning)).map((warning) => `  note  ${warning}`),
  ])
  if (shared.length > 0) blocks.push(shared.map((warning) => `note  ${warning}`))
  return blocks.map((lines) => lines.map((text) => `${plain(text)}\n`).join('')).join('\n')
}
