import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { descriptorsOf, fuzzApi } from '../fuzz/api.js'
import { exec, TestDaemon, until } from '../lib/daemon.js'
import { buildTestImage, testImage } from '../lib/image.js'
import { remaining, snapshot } from '../lib/leaks.js'

// The short run of `make fuzz-api`, on every endpoint of a real daemon. The seed stays the same, so that a red run is about the change and not about luck; `make fuzz-api` takes a new one.
it('wrong and random requests: no 500, no crash, no hang, nothing left behind', async () => {
  const before = await snapshot()
  const seed = Number(process.env.HULL_FUZZ_SEED ?? 2026)
  const scratch = await mkdtemp(join(tmpdir(), 'fuzz-'))
  const daemon = await TestDaemon.start()
  try {
    await buildTestImage(daemon)
    const idle = await descriptorsOf(daemon.pid)
    const { statuses, endpoints, memory } = await fuzzApi(daemon, { seed, count: 1500, image: testImage, scratch })
    // A fuzzer that only ever gets 404 tests nothing.
    for (const status of [200, 201, 204, 400, 404, 409]) expect(statuses.get(status) ?? 0, `answers with ${status} among ${JSON.stringify([...statuses])}, seed ${seed}`).toBeGreaterThan(0)
    expect(endpoints.size).toBeGreaterThan(90)
    expect(memory.late, `seed ${seed}`).toBeLessThan(600e6)
    await until(`descriptors are back, seed ${seed}`, async () => (await descriptorsOf(daemon.pid)) <= idle + 10, 30_000)
  } finally {
    await daemon.destroy()
    // Parents that it asked for (requests.ts, CgroupParent) are the user's to remove, as in Docker.
    await exec('find', ['/sys/fs/cgroup', '-depth', '-maxdepth', '3', '-type', 'd', '(', '-path', '*/fuzz-parent*', '-o', '-name', 'a b', ')', '-exec', 'rmdir', '{}', ';'])
    await rm(scratch, { recursive: true, force: true })
  }
  expect(await remaining(before), `seed ${seed}`).toEqual([])
}, 300_000)
