import { resolve } from 'node:path'
import { expect, it } from 'vitest'
import { exec } from '../../lib/daemon.js'

// The short run of `make fuzz-guest`: the C programs under AddressSanitizer and UndefinedBehaviorSanitizer. The seed stays the same, so that a red run is about the change.
it('agent and hull-vmm take hostile frames: no report of a sanitizer, no hang', { timeout: 240_000 }, async () => {
  const said = await exec('make', ['-C', resolve(import.meta.dirname, '../../../guest'), 'fuzz', 'FUZZ_SECONDS=2', 'FUZZ_FRAMES=15000', `FUZZ_SEED=${process.env.HULL_FUZZ_SEED ?? 2026}`], { timeoutMs: 230_000 })
  expect(said.code, `${said.stdout.slice(-2000)}${said.stderr.slice(-6000)}`).toBe(0)
  for (const program of ['hull-vmm', 'agent']) expect(said.stdout).toMatch(new RegExp(`^${program}: \\d{5,} frames in \\d+ lives, nothing found$`, 'm'))
})
