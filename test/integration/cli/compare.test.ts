import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parseComparison } from '../../../src/compare/schema.js'
import { lastComparison } from '../../../src/compare/stored.js'
import { isMissing, type Comparison, type Result } from '../../../src/compare/types.js'
import { type TestDaemon, until, type Said } from '../../lib/daemon.js'
import { testImage } from '../../lib/image.js'
import { CompareLab, program } from './compare-lab.js'

// The measuring of `hull compare`; what reports make of it: compare-reports.test.ts; its speed: compare-perf.test.ts.

let lab: CompareLab
let daemon: TestDaemon

beforeAll(async () => {
  lab = await CompareLab.open()
  ;({ daemon } = lab)
}, 60_000)
afterAll(() => lab.close())

const compare = (...args: string[]): Promise<Said> => lab.compare(...args)
const value = (result: Result | undefined): number => (result && !isMissing(result) ? result.median : NaN)
const figure = (comparison: Comparison, section: 'start' | 'memory' | 'portability', id: string) => comparison.sections[section]?.figures.find((one) => one.id === id)?.results ?? {}

it('measures an image both ways, says how, keeps it for hull advise, and leaves nothing', async () => {
  const said = await compare('--isolation', 'process,process-userns,vm', '--sections', 'start,memory,density,portability', '--density', '3', '--time', '20', '--format', 'json', testImage, 'sh', '-c', 'echo out; exit 3')
  expect(said.stderr).toBe('')
  const comparison = parseComparison(said.stdout)
  expect(comparison.workload).toEqual({ command: ['sh', '-c', 'echo out; exit 3'], port: null, behaviour: 'exits', exitCode: 3, prints: true })
  expect(comparison.isolations.map((one) => [one.name, one.available])).toEqual([['process', true], ['process-userns', false], ['vm', true]])
  for (const way of ['process', 'vm'] as const) {
    const total = figure(comparison, 'start', 'start-total')[way]
    const output = value(figure(comparison, 'start', 'start-output')[way])
    expect(total).toMatchObject({ command: expect.stringMatching(`^time docker run --rm --isolation=${way} `) as string })
    expect(value(figure(comparison, 'start', 'start-create')[way])).toBeLessThan(output)
    expect(output).toBeLessThan(value(total))
    expect(comparison.sections.density?.curves[way]).toMatchObject({ started: 3, alive: 3 })
    const parts = comparison.sections.memory!.parts[way]!
    expect(isMissing(parts)).toBe(false)
    if (!isMissing(parts)) {
      expect(parts.supervisor).toBeGreaterThan(1e4)
      expect(parts.vmm > 0 && parts.guestKernel > 0).toBe(way === 'vm')
    }
    // Beside other tests MemAvailable moves by more than what is freed: that it was tried is what can be said here.
    const kept = figure(comparison, 'memory', 'memory-after-free')[way]!
    if (isMissing(kept)) expect(kept.missing).toMatch(/noise/)
    else expect(kept.command).toMatch(/dd if=\/dev\/zero of=\/dev\/shm\/.*; docker exec ID rm /)
    expect(value(figure(comparison, 'portability', 'image-archive')[way])).toBeGreaterThan(1e6)
  }
  expect(await daemon.ok('ps', '-aq')).toBe('')
  expect(await lastComparison(join(lab.state, 'hull/compare.json'))).toEqual(comparison)
}, 240_000)

it('a VM that is to boot boots', async () => {
  const id = await daemon.ok('run', '-d', '--isolation=vm', '--annotation', 'org.hull.vm.start=boot', testImage, 'sleep', '1000')
  expect((await daemon.hull(['explain', id])).stdout).toMatch(/start +booted/)
  await daemon.ok('rm', '-f', id)
  expect((await daemon.docker(['create', '--isolation=vm', '--annotation', 'org.hull.vm.start=never', testImage])).stderr).toContain('annotation org.hull.vm.start=never: want boot or template')
}, 60_000)

it.each(['SIGINT', 'SIGKILL'] as const)('%s: nothing is left, or the next comparison finds it', async (signal) => {
  const child = spawn(program, lab.arguments('--isolation', 'process', '--sections', 'density', '--density', '500', testImage, 'true'), { stdio: 'ignore', env: lab.env })
  const code = new Promise<number | null>((resolve) => child.once('exit', resolve))
  await until('some run', async () => (await daemon.ok('ps', '-q')).split('\n').length > 3)
  child.kill(signal)
  expect(await code).toBe(signal === 'SIGINT' ? 130 : null)
  if (signal === 'SIGKILL') {
    expect(await daemon.ok('ps', '-aq')).not.toBe('')
    expect((await compare('--isolation', 'process', '--sections', 'portability', testImage, 'true')).code).toBe(0)
  }
  expect(await daemon.ok('ps', '-aq')).toBe('')
}, 120_000)

it('SIGINT is not kept waiting by a workload that ignores SIGTERM', async () => {
  const child = spawn(program, lab.arguments('--isolation', 'process', '--sections', 'start', testImage, 'sleep', '1000'), { stdio: 'ignore', env: lab.env })
  const code = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const stopping = async () => (await daemon.ok('events', '--since', '60s', '--until', '0s', '--filter', 'event=kill', '--format', '{{.Actor.Attributes.signal}}')).split('\n').includes('15')
  await until('one is being stopped, for up to ten seconds', stopping, 20_000)
  const asked = performance.now()
  child.kill('SIGINT')
  expect(await code).toBe(130)
  expect(performance.now() - asked).toBeLessThan(6000)
  expect(await daemon.ok('ps', '-aq')).toBe('')
}, 60_000)

it.each<[string, string[], number, RegExp]>([
  ['no such image', ['nosuch:1'], 1, /No such image: nosuch:1/],
  ['an isolation that is none', ['--isolation', 'jar', testImage], 125, /want some of process/],
  ['nothing to measure', ['--isolation', 'process-userns', testImage], 1, /nothing to compare: process-userns: the daemon runs without --userns-remap/],
  ['no image', [], 125, /want an IMAGE/],
  ['a density of one', ['--density', '1', testImage], 125, /want 2 to/],
])('%s', async (_name, args, code, why) => {
  const said = await compare(...args)
  expect(said.stderr).toMatch(why)
  expect(said.code).toBe(code)
})
