import { resolve } from 'node:path'
import { expect, it } from 'vitest'
import { exec } from '../../lib/daemon.js'

// The seed stays the same, so that a red run is about the change.
it('the parsers of filters and of the kernel\'s ring buffer: no report of a sanitizer, nothing counted that should not be', { timeout: 120_000 }, async () => {
  const said = await exec('make', ['-C', resolve(import.meta.dirname, '../../../native/surface'), 'check', `CHECK_SEED=${process.env.HULL_FUZZ_SEED ?? 2026}`], { timeoutMs: 110_000 })
  expect(said.code, `${said.stdout.slice(-2000)}${said.stderr.slice(-6000)}`).toBe(0)
  for (const what of ['filter', 'pages']) expect(said.stdout).toMatch(new RegExp(`^${what}: \\d+ rounds, nothing found$`, 'm'))
})
