import { chaosOfParts } from './parts.js'

// CHAOS_KILLS, CHAOS_SEED: how often, and which random numbers.
const kills = Number(process.env['CHAOS_KILLS'] ?? 200)
const seed = Number(process.env['CHAOS_SEED'] ?? Date.now() % 1_000_000)
console.log(`chaos of parts: ${kills} kills, seed ${seed}`)
for (const [outcome, times] of await chaosOfParts({ kills, seed, isolations: ['process', 'vm'], say: (line) => console.log(line) })) console.log(`${String(times).padStart(4)} ${outcome}`)
console.log(`chaos of parts: ${kills} kills, every state true, nothing left`)
