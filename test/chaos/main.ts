import { chaos } from './chaos.js'

// CHAOS_KILLS, CHAOS_SEED: how often, and which random numbers.
const kills = Number(process.env['CHAOS_KILLS'] ?? 240)
const seed = Number(process.env['CHAOS_SEED'] ?? Date.now() % 1_000_000)
console.log(`chaos: ${kills} kills, seed ${seed}`)
const done = await chaos({ kills, seed, isolations: ['process', 'vm'], say: (line) => console.log(line) })
for (const [verb, times] of done.byVerb) console.log(`${String(times).padStart(4)} ${verb}`)
console.log(`chaos: ${done.kills} kills, nothing lost, doubled or leaked`)
