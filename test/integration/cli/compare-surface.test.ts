import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { release } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parseComparison } from '../../../src/compare/schema.js'
import { callsByFilter } from '../../../src/compare/surface/outside.js'
import { parseSeen, program as prober, type SeenInside } from '../../../src/compare/surface/inside.js'
import { isMissing, type IsolationName, type SurfaceFacts, type SurfaceSection } from '../../../src/compare/types.js'
import { exec, sleep, type TestDaemon, until } from '../../lib/daemon.js'
import { testImage } from '../../lib/image.js'
import { CompareLab, program } from './compare-lab.js'

// Section surface of `hull compare`: docs/decisions/0022-surface.md.

let lab: CompareLab
let daemon: TestDaemon

beforeAll(async () => {
  lab = await CompareLab.open()
  ;({ daemon } = lab)
}, 60_000)
afterAll(() => lab.close())

const words = (...args: string[]) => ['--sections', 'surface', '--format', 'json', ...args]
async function surface(...args: string[]): Promise<SurfaceSection> {
  const said = await lab.compare(...words(...args))
  expect(said.stderr).toBe('')
  return parseComparison(said.stdout).sections.surface!
}
function factsOf({ facts }: SurfaceSection, name: IsolationName): SurfaceFacts {
  const found = facts[name]!
  if (isMissing(found)) throw new Error(found.missing)
  return found
}
/** Runs a row's command as a person would. */
const byHand = async (facts: SurfaceFacts) => (await exec('sh', ['-c', facts.command], { env: { DOCKER_HOST: daemon.host }, timeoutMs: 60_000 })).stdout

it('says what a workload reaches behind either wall, and leaves nothing', async () => {
  const said = await surface('--isolation', 'process,vm', testImage)
  const [container, vm] = [factsOf(said, 'process'), factsOf(said, 'vm')]
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
  expect(said.notes.filter((note) => note.includes('not known'))).toEqual([])
  const counts = (out: string) => [...out.matchAll(/"calls":(\d+)/g)].map((match) => Number(match[1]))
  expect(counts(await byHand(container))).toEqual([container.hostSyscalls])
  expect(counts(await byHand(vm))).toEqual([vm.workloadSyscalls, vm.hostSyscalls])
  expect(await daemon.ok('ps', '-aq')).toBe('')
}, 150_000)

/** What the program that traces functions says of a process, by itself. */
const traced = (...args: string[]) => exec(prober, ['functions', ...args], { timeoutMs: 60_000 })

it('counts the host kernel\'s functions, or the row says why they are missing', async () => {
  const child = spawn('sleep', ['1000'], { stdio: 'ignore' })
  const possible = await traced(String(child.pid), 'true')
  child.kill('SIGKILL')
  const said = await surface('--isolation', 'process,vm', testImage)
  const [container, vm] = [factsOf(said, 'process'), factsOf(said, 'vm')]
  if (possible.code === 0) { // make test-kvm has a machine where it is
    expect(container.kernelFunctions).toBeGreaterThan(1000)
    expect(vm.kernelFunctions).toBeGreaterThan(100)
    return
  }
  const why = possible.stderr.trim()
  expect(why).toMatch(/^(this host's kernel|only root|processes have other numbers|the function tracer|tracefs) .{10,250}[^.\n]$/)
  for (const facts of [container, vm]) {
    expect(facts).toMatchObject({ kernelFunctions: null, kernelFunctionsMissing: why })
    expect(facts.kernelFunctionsCommand).toBeUndefined()
  }
  const shown = await lab.compare('--sections', 'surface', '--isolation', 'process', testImage)
  expect(shown.stdout.replaceAll(/\s+/g, ' ')).toContain(why)
}, 150_000)

it('the program that traces functions refuses what it does not know', async () => {
  for (const args of [[], ['x'], ['0'], ['1,'], ['-1'], ['1 2'], ['99999999'], ['-b', '1'], ['-b', '0', '1'], ['-b', 'x', '1'], ['-b', '9999999', '1']]) {
    expect(await traced(...args), args.join(' ')).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(/^usage: /) as string })
  }
  const nobody = await exec('setpriv', ['--reuid', '65534', '--regid', '65534', '--clear-groups', prober, 'functions', '1', 'true'], { timeoutMs: 10_000 })
  expect(nobody).toMatchObject({ code: 1, stdout: '', stderr: 'only root can trace the kernel\'s functions\n' })
})

it('its workload does what it can as anybody, and leaves nothing', async () => {
  for (const flags of [[], ['--read-only'], ['--user', '65534:65534', '--network', 'none'], ['--cap-drop', 'ALL', '--pids-limit', '3'], ['--isolation', 'vm']]) {
    const id = await daemon.ok('run', '-d', ...flags, '--entrypoint', '/bin/hull-surface', '-v', `${prober}:/bin/hull-surface:ro`, testImage, 'exercise')
    for (const times of [1, 2]) {
      await daemon.ok('kill', '-s', 'USR1', id)
      await until(`it works with ${flags.join(' ')}`, async () => (await daemon.ok('logs', id)) === Array(times).fill('done').join('\n'))
    }
    expect(await daemon.ok('diff', id)).not.toMatch(/exercise/)
    await daemon.ok('rm', '-f', id)
  }
}, 150_000)

it('needs nothing of the image, and says when there is none', async () => {
  const bare = await lab.importImage('test/one-file:1', 'echo 1 > file')
  const said = await surface('--isolation', 'process,vm', bare, '/file')
  expect(factsOf(said, 'process').hostSyscalls).toBeGreaterThan(200)
  expect(factsOf(said, 'vm').workloadSyscalls).toBeGreaterThan(300)
  expect(await lab.compare(...words('nosuch:1'))).toMatchObject({ code: 1, stderr: expect.stringMatching(/No such image: nosuch:1/) as string })
  expect(await daemon.ok('ps', '-aq')).toBe('')
}, 150_000)

it('SIGINT in the middle leaves nothing', async () => {
  const child = spawn(program, lab.arguments(...words('--isolation', 'process,vm', testImage)), { stdio: 'ignore', env: lab.env })
  const code = new Promise<number | null>((done) => child.once('exit', done))
  await until('an instance is there', async () => (await daemon.ok('ps', '-aq')) !== '')
  child.kill('SIGINT')
  expect(await code).toBe(130)
  expect(await daemon.ok('ps', '-aq')).toBe('')
}, 60_000)

it('an instance that is killed meanwhile is a row that says so', async () => {
  let over = false
  const measured = surface('--isolation', 'process', testImage).finally(() => (over = true))
  while (!over) {
    for (const id of (await daemon.ok('ps', '-q', '--no-trunc')).split('\n').filter(Boolean)) await daemon.docker(['kill', id])
    await sleep(5)
  }
  // Killed before it spoke, or after: never a hang, and never a figure that was not seen.
  const facts = (await measured).facts.process!
  if (isMissing(facts)) expect(facts.missing).toMatch(/ended without a word|is not running|No such container|not there any more/)
  else expect(facts.hostSyscalls).toBeGreaterThan(200)
  expect(await daemon.ok('ps', '-aq')).toBe('')
}, 60_000)

/** A seccomp profile that lets everything through but three calls that nothing here makes. */
async function profileOf(action: string): Promise<string> {
  const path = join(lab.state, `${action}.json`)
  await writeFile(path, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['acct', 'swapon', 'swapoff'], action, ...(action === 'SCMP_ACT_ERRNO' ? { errnoRet: 1 } : {}) }] }))
  return path
}

it.each(['SCMP_ACT_ERRNO', 'SCMP_ACT_KILL', 'SCMP_ACT_KILL_PROCESS', 'SCMP_ACT_TRAP'])('%s refuses three calls', async (action) => {
  const open = await seen('--security-opt', 'seccomp=unconfined')
  expect((await seen('--security-opt', `seccomp=${await profileOf(action)}`)).calls).toBe(open.calls - 3)
}, 60_000)

/** What the prober says in a container with these flags. */
async function seen(...flags: string[]): Promise<SeenInside> {
  const out = await daemon.ok('run', '--rm', ...flags, '-v', `${prober}:/hull-surface:ro`, '--entrypoint', '/hull-surface', testImage)
  const found = parseSeen(out)
  if (!found) throw new Error(out)
  return found
}

it('sees what flags change', async () => {
  const usual = await seen()
  const open = await seen('--security-opt', 'seccomp=unconfined')
  const bare = await exec(prober, [], { timeoutMs: 10_000 })
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
