import { afterAll, beforeAll, expect, it } from 'vitest'
import { parseComparison } from '../../../src/compare/schema.js'
import { isMissing, type Comparison, type IsolationName, type Result } from '../../../src/compare/types.js'
import { exec } from '../../lib/daemon.js'
import { testImage } from '../../lib/image.js'
import { CompareLab } from './compare-lab.js'

// `hull compare` where the daemon has user namespaces and gVisor: the rows of both. What containers in gVisor are to a Docker user: test/behaviour/gvisor.test.ts.

const gvisor = (await exec('runsc', ['--version']).catch(() => ({ code: 1 }))).code === 0
let lab: CompareLab
let userWasThere = false

beforeAll(async () => {
  userWasThere = (await exec('id', ['dockremap'])).code === 0
  lab = await CompareLab.open(['--userns-remap', 'default'])
}, 60_000)
afterAll(async () => {
  await lab.close()
  if (!userWasThere) await exec('userdel', ['dockremap'])
})

const number = (result: Result | undefined): number => (result && !isMissing(result) ? result.median : NaN)
const start = (comparison: Comparison, way: IsolationName) => number(comparison.sections.start?.figures.find(({ id }) => id === 'start-total')?.results[way])

it(`measures containers with a user namespace${gvisor ? ' and in gVisor' : ' (in gVisor: skipped, runsc is not installed; then the row says so)'}`, async () => {
  const said = await lab.compare(
    '--isolation', 'process,process-userns,runsc', '--sections', 'start,surface', '--time', '10', '--format', 'json', testImage, 'sh', '-c', 'echo out; exit 3',
  )
  expect(said.stderr).toBe('')
  const comparison = parseComparison(said.stdout)
  const flags = { process: ['--isolation=process', '--userns=host'], 'process-userns': ['--isolation=process'], runsc: ['--isolation=process', '--runtime=runsc', '--userns=host'] }
  expect(comparison.isolations.map((one) => [one.name, one.available ? one.flags : one.reason])).toEqual([
    ['process', flags.process], ['process-userns', flags['process-userns']], ['runsc', gvisor ? flags.runsc : 'the daemon has no runtime runsc'],
  ])
  expect(comparison.versions.runsc).toMatch(gvisor ? /^\d/ : /^$/)
  const ways: IsolationName[] = ['process', 'process-userns', ...(gvisor ? (['runsc'] as const) : [])]
  const { surface } = comparison.sections
  for (const way of ways) expect(start(comparison, way), way).toBeGreaterThan(1)
  const uid = Number(/^dockremap:(\d+):/m.exec((await exec('cat', ['/etc/subuid'])).stdout)![1])
  expect(surface!.facts.process).toMatchObject({ sharedKernel: true, hostUid: 0, hostSyscallsBy: 'prober' })
  expect(surface!.facts['process-userns']).toMatchObject({ sharedKernel: true, hostUid: uid, hostSyscallsBy: 'prober' })
  if (gvisor) {
    expect(surface!.facts.runsc).toMatchObject({ sharedKernel: false, kernel: '4.4.0', hostUid: 65534, hostSyscallsBy: 'filter', seccomp: 'filter' })
    const [sentry, container] = [surface!.facts.runsc, surface!.facts.process].map((facts) => (facts && !isMissing(facts) ? facts.hostSyscalls! : NaN))
    expect(sentry! < container! / 2, `${sentry} of ${container}`).toBe(true)
  }
  expect(await lab.daemon.ok('ps', '-aq')).toBe('')
}, 240_000)

it.skipIf(!gvisor)('tells the memory of the sentry from that of the workload', async () => {
  const parts = parseComparison((await lab.compare('--isolation', 'runsc', '--sections', 'memory', '--time', '10', '--format', 'json', testImage, 'true')).stdout).sections.memory!.parts.runsc!
  if (isMissing(parts)) throw new Error(parts.missing)
  // The runsc program alone is 20 MB, of which other instances share most.
  expect(parts).toMatchObject({ guestKernel: 0 })
  expect(parts.vmm).toBeGreaterThan(3e6)
  expect(parts.workload > 0 && parts.workload < parts.vmm, JSON.stringify(parts)).toBe(true)
  expect(parts.supervisor).toBeGreaterThan(1e6)
}, 120_000)

it(`tries the drills in a user namespace${gvisor ? ' and in gVisor' : ' (in gVisor: skipped, runsc is not installed)'}: none reaches the host`, async () => {
  const said = await lab.compare('--isolation', gvisor ? 'process-userns,runsc' : 'process-userns', '--sections', 'drills', '--time', '100', '--format', 'json', testImage)
  expect(said.stderr).toBe('')
  const { drills } = parseComparison(said.stdout).sections
  for (const { drill, privileged, results } of drills!.drills) {
    for (const [way, result] of Object.entries(results)) {
      const name = `${drill}, ${way}${privileged ? ', privileged' : ''}: ${result.detail}`
      // Docker's rule.
      if (privileged && way === 'process-userns' && drill !== 'panic') expect(result.detail, name).toMatch(/privileged mode is incompatible with user namespaces/)
      else if (drill === 'panic') expect(result.detail, name).toMatch(/^never tried/)
      // Not every kernel has a loader of modules.
      else if (drill === 'module') expect(result.outcome, name).not.toBe('host')
      else expect(result.outcome, name).toMatch(/^(refused|guest)$/)
    }
  }
}, 120_000)
