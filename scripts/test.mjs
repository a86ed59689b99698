// test.mjs SUITE… (unit, integration, behaviour, conformance): runs the suites' files on several workers, each file (or a few short ones) on a machine of its own as far as it
// can see (scripts/isolated), with its own leak check. TEST_WORKERS says how many at once. Plain Node, no library: it judges the project. Results below build/test; how long each file took is kept
// in build/test-durations.json, so that the next run begins with the longest (test/durations.json for the first). Last line: 'N passed, N failed'.
import { spawn } from 'node:child_process'
import { createWriteStream, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, join } from 'node:path'

/** Seconds: files that are shorter share a job, so that starting vitest is not most of it; and what a file is taken to need that nobody has timed. */
const jobLength = 40
const unknown = 30

const results = 'build/test'
const kept = 'build/test-durations.json'
const read = (path) => { try { return JSON.parse(readFileSync(path, 'utf8')) } catch { return {} } }
const durations = { ...read('test/durations.json'), ...read(kept) }
const suites = process.argv.slice(2)
// Not more than processors: most of a file's time is waiting, but what waits for PostgreSQL in four emulated machines must not wait for a third worker, too.
const workers = Number(process.env.TEST_WORKERS) || availableParallelism()

const testFiles = (directory) => readdirSync(directory, { recursive: true }).filter((name) => name.endsWith('.test.ts')).map((name) => join(directory, name)).sort()

/** Jobs of a suite: long files alone, short ones together. The unit suite is one: vitest runs it on several processes by itself. */
function jobsOf(suite) {
  const files = testFiles(join('test', suite))
  const seconds = (file) => durations[file] ?? unknown
  if (suite === 'unit') return [{ suite, files, seconds: files.length }]
  const jobs = []
  let short
  for (const file of files.sort((a, b) => seconds(b) - seconds(a))) {
    if (short === undefined || short.seconds + seconds(file) > jobLength) jobs.push(short = { suite, files: [], seconds: 0 })
    short.files.push(file)
    short.seconds += seconds(file)
  }
  return jobs
}

const running = new Set()
let stopped = false

/** Runs a job to its end. What it said is in its log. */
function run(job, number) {
  const base = join(results, `${String(number).padStart(2, '0')}-${job.suite}`)
  const output = `${base}.json`
  const leaks = `${base}.leaks.json`
  const vitest = ['npx', '--no-install', 'vitest', 'run', '--project', job.suite, '--reporter=default', '--reporter=json', `--outputFile.json=${output}`, ...job.files]
  const command = job.suite === 'unit' ? vitest : ['scripts/isolated', 'scripts/test-job', leaks, ...vitest]
  return new Promise((resolve) => {
    const log = createWriteStream(`${base}.log`)
    const started = Date.now()
    const child = spawn(command[0], command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] })
    running.add(child)
    child.stdout.pipe(log, { end: false })
    child.stderr.pipe(log, { end: false })
    child.on('error', (error) => log.write(`${error.message}\n`))
    child.on('close', (code) => {
      running.delete(child)
      log.end(() => resolve({ ...job, code, log: `${base}.log`, took: (Date.now() - started) / 1000, ...judge(job, output, leaks, code) }))
    })
  })
}

/** Counts what a job's vitest and its leak check wrote. What left no results failed. */
function judge(job, output, leaksFile, code) {
  const report = read(output)
  const counts = { passed: 0, failed: 0, skipped: 0, words: [], times: {} }
  if (report.testResults === undefined) return { ...counts, failed: 1, words: ['no results: vitest did not get to its end'] }
  counts.passed = report.numPassedTests
  counts.skipped = report.numPendingTests + report.numTodoTests
  // A file that cannot be loaded, or a hook that fails, fails without a failed test.
  const broken = report.testResults.filter((file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'))
  for (const file of broken) counts.words.push(`failed outside of a test: ${file.name}`)
  counts.failed = report.numFailedTests + broken.length
  for (const file of report.testResults) counts.times[file.name.slice(process.cwd().length + 1)] = Math.round((file.endTime - file.startTime) / 100) / 10
  if (job.suite !== 'unit') {
    const leaks = read(leaksFile)
    if (Array.isArray(leaks) && leaks.length === 0) counts.passed += 1
    else {
      counts.failed += 1
      counts.words.push(...(Array.isArray(leaks) ? leaks.map((leak) => `leaked ${leak}`) : ['the leak check did not get to its end']))
    }
  }
  if (code !== 0 && counts.failed === 0) {
    counts.failed = 1
    counts.words.push(`exit code ${code}`)
  }
  return counts
}

for (const suite of suites) {
  if (suite !== 'unit' && process.getuid() !== 0) {
    console.error(`test: ${suite} needs root`)
    process.exit(1)
  }
}
if (suites.length === 0) {
  console.error('usage: scripts/test SUITE…')
  process.exit(2)
}
rmSync(results, { recursive: true, force: true })
mkdirSync(results, { recursive: true })
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    stopped = true
    for (const child of running) child.kill('SIGTERM') // scripts/isolated ends all that it holds
  })
}

const queue = suites.flatMap(jobsOf).sort((a, b) => b.seconds - a.seconds)
const total = queue.length
const sum = { passed: 0, failed: 0, skipped: 0 }
const times = {}
let number = 0
async function worker() {
  for (let job = queue.shift(); job !== undefined && !stopped; job = queue.shift()) {
    const done = await run(job, ++number)
    for (const key of Object.keys(sum)) sum[key] += done[key]
    Object.assign(times, done.times)
    const names = done.files.length > 4 ? `${done.files.length} files` : done.files.map((file) => basename(file, '.test.ts')).join(', ')
    console.log(`${done.failed > 0 ? 'FAILED' : 'ok    '} ${done.suite}: ${names}: ${done.passed} passed${done.failed > 0 ? `, ${done.failed} failed` : ''} (${done.took.toFixed(0)} s)`)
    if (done.failed > 0) {
      console.log(readFileSync(done.log, 'utf8'))
      for (const line of done.words) console.log(line)
    }
  }
}
console.log(`${total} jobs on ${workers} workers`)
await Promise.all(Array.from({ length: workers }, worker))
writeFileSync(kept, JSON.stringify({ ...read(kept), ...times }, null, 1))
if (stopped) sum.failed += 1
if (sum.skipped > 0) console.log(`${sum.skipped} skipped`)
console.log(`${sum.passed} passed, ${sum.failed} failed`)
process.exit(sum.failed === 0 ? 0 : 1)
