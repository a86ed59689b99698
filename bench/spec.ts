// make spec: measures what SPEC.md promises. Exit code 1 when a promise is not kept. ROUNDS: how often each start is measured (7).
import { measureSpec } from './spec/measures.js'
import { keeps, readSpec } from './spec/table.js'

const spec = readSpec()
const started = performance.now()
const values = await measureSpec(Number(process.env['ROUNDS'] ?? 7))
let broken = 0
for (const promised of spec) {
  const value = values[promised.id] ?? NaN
  const kept = keeps(promised, value)
  if (!kept) broken += 1
  process.stdout.write(`${kept ? '✓' : '✗'} ${promised.id.padEnd(32)} ${value.toFixed(2).padStart(8)} ${promised.relation} ${promised.bound}\n`)
}
process.stdout.write(`${broken === 0 ? 'every promise is kept' : `${broken} not kept`}, ${((performance.now() - started) / 1000).toFixed(0)} s\n`)
process.exitCode = broken === 0 ? 0 : 1
