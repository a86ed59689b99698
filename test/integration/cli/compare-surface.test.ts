import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parseComparison } from '../../../src/compare/schema.js'
import { callsByFilter } from '../../../src/compare/surface/outside.js'
import { parseSeen, program, type SeenInside } from '../../../src/compare/surface/inside.js'
import { isMissing, type SurfaceFacts } from '../../../src/compare/types.js'
import { exec, TestDaemon } from '../../lib/daemon.js'
import { buildTestImage, testImage } from '../../lib/image.js'

// Section surface of `hull compare`: docs/decisions/0022-surface.md.

const hull = new URL('../../../bin/hull', import.meta.url).pathname
let daemon: TestDaemon
let state: string

beforeAll(async () => {
  state = await mkdtemp(join(tmpdir(), 'hull-state-'))
  daemon = await TestDaemon.start()
  await buildTestImage(daemon)
}, 60_000)
afterAll(async () => {
  await daemon.destroy()
  await rm(state, { recursive: true, force: true })
})

it('says what a workload reaches behind either wall, and leaves nothing', async () => {
  const said = await exec(hull, ['-H', daemon.host, 'compare', '--isolation', 'process,vm', '--sections', 'surface', '--format', 'json', testImage], { env: { XDG_STATE_HOME: state }, timeoutMs: 120_000 })
  expect(said.stderr).toBe('')
  const { facts, notes } = parseComparison(said.stdout).sections.surface!
  const of = (name: 'process' | 'vm'): SurfaceFacts => {
    const found = facts[name]!
    if (isMissing(found)) throw new Error(found.missing)
    return found
  }
  const [container, vm] = [of('process'), of('vm')]
  expect(container).toMatchObject({ sharedKernel: true, kernel: release(), hostSyscallsBy: 'prober', hostUid: 0, seccomp: 'filter', workloadSyscalls: container.hostSyscalls })
  expect(container.capabilities).toHaveLength(14)
  expect(container.devices).toContain('/dev/null')
  expect(container.sharedNamespaces).toEqual(['user', 'time'])
  expect(container.hostSyscalls).toBeGreaterThan(200)
  expect(container.hostSyscalls).toBeLessThan(340)
  expect(vm).toMatchObject({ sharedKernel: false, hostSyscallsBy: 'filter', seccomp: 'filter' })
  expect(vm.hostUid).toBeGreaterThan(0)
  expect(vm.hostSyscalls).toBeGreaterThan(30)
  expect(vm.hostSyscalls! / container.hostSyscalls!).toBeLessThan(0.5)
  expect(notes.filter((note) => note.includes('not known'))).toEqual([])
  expect(await daemon.ok('ps', '-aq')).toBe('')
}, 150_000)

/** What the prober says in a container with these flags. */
async function seen(...flags: string[]): Promise<SeenInside> {
  const out = await daemon.ok('run', '--rm', ...flags, '-v', `${program}:/hull-surface:ro`, '--entrypoint', '/hull-surface', testImage)
  const found = parseSeen(out)
  if (!found) throw new Error(out)
  return found
}

it('sees what flags change', async () => {
  const usual = await seen()
  const open = await seen('--security-opt', 'seccomp=unconfined')
  const bare = await exec(program, [], { timeoutMs: 10_000 })
  expect(open.calls).toBe(parseSeen(bare.stdout)?.calls)
  expect(open.calls).toBeGreaterThan(usual.calls)
  expect((await seen('--cap-add', 'SYS_ADMIN')).calls).toBeGreaterThan(usual.calls) // mount and its like
  expect((await seen('--cap-drop', 'ALL')).capabilities).toMatch(/^0+$/)
  expect((await seen('--privileged')).devices.length).toBeGreaterThan(usual.devices.length)
})

it('the filters of a process say the same as trying does', async () => {
  const id = await daemon.ok('run', '-d', testImage, 'sleep', '1000')
  const pid = Number(await daemon.ok('inspect', '-f', '{{.State.Pid}}', id))
  expect(await callsByFilter(pid)).toBe((await seen()).calls)
  await daemon.ok('rm', '-f', id)
  const child = spawn('sleep', ['1000'], { stdio: 'ignore' })
  expect(await callsByFilter(child.pid!)).toBe((await seen('--security-opt', 'seccomp=unconfined')).calls)
  child.kill('SIGKILL')
  expect(await callsByFilter(2 ** 22 - 1)).toBe('it has ended')
})
