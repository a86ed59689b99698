import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { type Said, sleep, TestDaemon } from '../lib/daemon.js'
import { buildTestImage } from '../lib/image.js'
import { remains } from '../lib/traces.js'
import { judge, stateOf } from './judge.js'
import { name, payload, type Phase, phases } from './phases.js'
import { random } from './random.js'
import { calm, settle } from './settle.js'
import { inspect, type Isolation, Steady } from './steady.js'
import { must } from './verbs.js'
import { killParts, type Victim, victims } from './victims.js'

export interface PartsOptions {
  kills: number
  seed: number
  isolations: readonly Isolation[]
  say: (line: string) => void
}

interface Case {
  phase: Phase
  victim: Victim
}

/** Who can be killed when. */
export const cases = (isolations: readonly Isolation[]): Case[] =>
  phases.flatMap((phase) =>
    victims
      .filter(({ isolation, program }) => isolations.includes(isolation) && (program === undefined || !phase.daemonOnly?.includes(isolation)))
      .map((victim) => ({ phase, victim })),
  )

/** In an order that the seed gives: a short run then takes some of all. */
function shuffled<T>(items: readonly T[], next: () => number): T[] {
  return items.map((item) => ({ item, at: next() })).sort((a, b) => a.at - b.at).map(({ item }) => item)
}

/** Kills the victim `after` milliseconds into the act, or as soon as it is there after that. True: somebody was killed while it went on. */
async function strike(daemon: TestDaemon, { program }: Victim, id: string, after: number, acting: Promise<Said>): Promise<boolean> {
  let over = false
  void acting.then(() => (over = true))
  await sleep(after)
  if (program === undefined) {
    await daemon.down('SIGKILL')
    return true
  }
  for (;;) {
    const last = over
    if ((await killParts(id, program)) > 0) return true
    if (last) return false
    await sleep(2)
  }
}

/**
 * Kills what stands between a client and its workloads with SIGKILL, at random moments of all that is done with a container, and judges what the client is told, the state, and what is left (judge.ts); others that
 * run meanwhile must not notice (steady.ts). Throws at the first thing that is wrong, with the seed to repeat it. How often each case came to which end.
 */
export async function chaosOfParts(options: PartsOptions): Promise<Map<string, number>> {
  const next = random(options.seed)
  const daemon = await TestDaemon.start()
  const outcomes = new Map<string, number>()
  const all = shuffled(cases(options.isolations), next)
  try {
    await buildTestImage(daemon)
    await writeFile(payload(daemon), randomBytes(8 << 20))
    const steady = new Steady(daemon, options.isolations, false)
    await steady.start()
    const wanted = (await calm(daemon)).filter((line) => !line.includes('/vm/templates/tmp-')) // one that is just being made
    for (let n = 0, kills = 0; kills < options.kills; n++) {
      const { phase, victim } = all[n % all.length]!
      const after = next() * phase.takes[victim.isolation] * 1.1
      const what = `round ${n + 1}, kill ${kills + 1}, of ${victim.name}, ${after.toFixed(1)} ms into ${phase.name}, seed ${options.seed}`
      try {
        await phase.prepare(daemon, victim)
        const [before, id] = [await stateOf(daemon), (await inspect(daemon, name))?.Id ?? '']
        const acting = phase.act(daemon, victim)
        const killed = await strike(daemon, victim, id, after, acting)
        const said = await acting
        if (victim.program === undefined) await daemon.up()
        const outcome = `${phase.name}, ${victim.name}: ${killed ? '' : 'over before anybody was killed, '}${await judge(daemon, { phase, victim, killed, said, before })}`
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
        if (killed) kills++
        await must(daemon, 'DELETE', `/containers/${name}?force=1&v=1`, undefined, [404])
        await steady.check()
        const left = await settle(daemon, wanted)
        if (left.length > 0) throw new Error(`lost, doubled or leaked:\n  ${left.join('\n  ')}`)
        options.say(`${kills}/${options.kills} ${outcome}, after ${after.toFixed(1)} ms`)
      } catch (error) {
        throw new Error(`${what}: ${error instanceof Error ? error.message : String(error)}`)
      }
    }
  } finally {
    await daemon.destroy()
  }
  const left = await remains(daemon)
  if (left.length > 0) throw new Error(`left behind at the end:\n  ${left.join('\n  ')}`)
  return outcomes
}
