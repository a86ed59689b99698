import { expect, it } from 'vitest'
import { chaos } from '../chaos/chaos.js'
import { chaosOfParts } from '../chaos/parts.js'

// A taste of `make chaos`; another seed each day, which the message of a failure names.
it('kill -9 of the daemon in the middle of verbs loses, doubles and leaks nothing', async () => {
  const done = await chaos({ kills: 8, seed: Math.floor(Date.now() / 86_400_000), isolations: ['process'], say: () => {} })
  expect(done.kills).toBe(8)
}, 300_000)

it('kill -9 of what stands between the daemon and its workloads: every state is true, and nothing is left', async () => {
  const outcomes = await chaosOfParts({ kills: 7, seed: Math.floor(Date.now() / 86_400_000), isolations: ['process', 'vm'], say: () => {} })
  expect([...outcomes].reduce((sum, [outcome, times]) => sum + (/over before/.test(outcome) ? 0 : times), 0)).toBe(7)
}, 300_000)
