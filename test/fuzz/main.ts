// npx tsx test/fuzz/main.ts [REQUESTS [SEED]]      make fuzz-api
// The long run: a daemon of its own, 20000 requests, a line each thousand, and what it took. A failure names its seed; HULL_FUZZ_ONLY=NUMBER sends that one request alone.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { TestDaemon } from '../lib/daemon.js'
import { buildTestImage, testImage } from '../lib/image.js'
import { fuzzApi } from './api.js'

const count = Number(process.argv[2] ?? 20_000)
const seed = Number(process.argv[3] ?? Date.now() % 2 ** 31)
console.log(`fuzz-api: seed ${seed}, ${count} requests`)
const scratch = await mkdtemp(join(tmpdir(), 'fuzz-'))
const daemon = await TestDaemon.start()
let code = 0
try {
  await buildTestImage(daemon)
  const started = Date.now()
  const { statuses, endpoints, memory } = await fuzzApi(daemon, {
    seed, count, image: testImage, scratch,
    progress: (done) => {
      if (done % 1000 === 0) console.log(`fuzz-api: ${done} requests, ${Math.round((Date.now() - started) / 1000)} s`)
    },
  })
  console.log(`fuzz-api: ${count} requests at ${endpoints.size} endpoints in ${Math.round((Date.now() - started) / 1000)} s; memory ${Math.round(memory.early / 1e6)} MB early, ${Math.round(memory.late / 1e6)} MB at the end`)
  console.log(`fuzz-api: answers ${[...statuses].toSorted(([a], [b]) => a - b).map(([status, times]) => `${status}: ${times}`).join(', ')}`)
} catch (error) {
  console.error(error)
  code = 1
} finally {
  await daemon.destroy()
  await rm(scratch, { recursive: true, force: true })
}
process.exit(code)
