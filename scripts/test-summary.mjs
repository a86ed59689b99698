// test-summary.mjs DIRECTORY SUITE…: adds up what vitest and the leak check wrote there. Last line: 'N passed, N failed'.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const [directory, ...suites] = process.argv.slice(2)
let passed = 0
let failed = 0
let skipped = 0
for (const suite of suites) {
  let result
  try {
    result = JSON.parse(readFileSync(join(directory, `${suite}.json`), 'utf8'))
  } catch {
    console.log(`${suite}: no results: vitest did not get to its end`)
    failed += 1
    continue
  }
  passed += result.numPassedTests
  skipped += result.numPendingTests + result.numTodoTests
  // A file that cannot be loaded, or a hook that fails, fails without a failed test.
  const broken = result.testResults.filter((file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'))
  for (const file of broken) console.log(`failed outside of a test: ${file.name}`)
  failed += result.numFailedTests + broken.length
  if (!result.success && result.numFailedTests + broken.length === 0) failed += 1
}
const leaks = JSON.parse(readFileSync(join(directory, 'leaks.json'), 'utf8'))
if (leaks.length > 0) failed += 1
else passed += 1
if (skipped > 0) console.log(`${skipped} skipped`)
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
