import { cases, chaosOfParts } from './parts.js'

// CHAOS_KILLS, CHAOS_SEED: how often, and which random numbers.
const kills = Number(process.env['CHAOS_KILLS'] ?? 200)
const seed = Number(process.env['CHAOS_SEED'] ?? Date.now() % 1_000_000)
console.log(`chaos of parts: ${kills} kills, seed ${seed}`)
const isolations = ['process', 'vm'] as const
const outcomes = await chaosOfParts({ kills, seed, isolations, say: (line) => console.log(line) })
for (const [outcome, times] of [...outcomes].sort(([a], [b]) => (a < b ? -1 : 1))) console.log(`${String(times).padStart(4)} ${outcome}`)
const untouched = [...new Set(cases(isolations).map(({ phase }) => phase.name))].filter((phase) => ![...outcomes.keys()].some((outcome) => outcome.startsWith(`${phase}, `) && !outcome.includes('over before')))
console.log(`chaos of parts: ${kills} kills, every answer and state true, nobody else harmed, nothing left${untouched.length > 0 ? `; nobody was killed in ${untouched.join(', ')}` : ''}`)
