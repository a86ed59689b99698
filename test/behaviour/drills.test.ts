import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { CATALOG, expectedOf } from '../../src/compare/drills/catalog.js'
import { parseComparison } from '../../src/compare/schema.js'
import type { Comparison, DrillName, DrillResult, IsolationName } from '../../src/compare/types.js'
import { exec, TestDaemon, until, type Said } from '../lib/daemon.js'
import { dockerArchive } from '../lib/image.js'
import { remaining, snapshot, type Snapshot } from '../lib/leaks.js'

// Escape drills: real attempts, real effects, all of them harmless (docs/drills.md says why). Their image has no shell and no program at all.
const image = 'test/nothing:1'
const hull = new URL('../../bin/hull', import.meta.url).pathname
const ways = ['process', 'vm-cold', 'vm'] as const satisfies readonly IsolationName[]

let before: Snapshot
let daemon: TestDaemon
let scratch: string

const drills = (host: string, ...more: string[]) => ['-H', host, 'compare', '--sections', 'drills', '--format', 'json', ...more, image]
const compare = (...more: string[]): Promise<Said> => exec(hull, drills(daemon.host, ...more), { env: { XDG_STATE_HOME: scratch }, timeoutMs: 420_000 })
const resultOf = (comparison: Comparison, drill: DrillName, privileged: boolean, way: IsolationName): DrillResult =>
  comparison.sections.drills!.drills.find((one) => one.drill === drill && one.privileged === privileged)!.results[way]!

/** Loop devices are everybody's on this machine, processes are ours (scripts/isolated). */
const loops = async () => (await exec('losetup', ['-l', '-n', '-O', 'NAME,BACK-FILE'])).stdout.split('\n')
const commandLines = async () => Promise.all((await readdir('/proc')).filter((pid) => /^\d+$/.test(pid)).map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')))

/** What of a stage with this token, or of any container of ours, is still there. */
async function leftOf(token: string): Promise<string[]> {
  return [
    ...(await loops()).filter((line) => line.includes(token)), ...(await commandLines()).filter((line) => line.includes(token) || line.includes('.hull-drills-')),
    ...(await readdir('/tmp')).filter((name) => name.startsWith('hull-drill.')), ...(await daemon.ok('ps', '-aq')).split('\n').filter((id) => id !== ''),
  ]
}

beforeAll(async () => {
  before = await snapshot()
  scratch = await mkdtemp(join(tmpdir(), 'hull-drills-'))
  daemon = await TestDaemon.start()
  const root = join(scratch, 'root')
  await mkdir(root)
  await writeFile(join(root, 'only.txt'), 'no program\n')
  await dockerArchive(root, image, join(scratch, 'image.tar'), { Cmd: ['/nosuch'], User: '65534', Entrypoint: ['/no', '-x'] })
  await daemon.ok('load', '-q', '-i', join(scratch, 'image.tar'))
})
afterAll(async () => {
  await daemon.destroy()
  await rm(scratch, { recursive: true, force: true })
  expect(await remaining(before)).toEqual([])
})

let comparison: Comparison
it('tries every drill in every isolation, without --privileged and with it', async () => {
  const said = await compare('--isolation', ways.join(','), '--time', '400')
  expect(said.stderr).toBe('')
  comparison = parseComparison(said.stdout)
  const delegated = /^\S+ \/sys\/fs\/cgroup cgroup2 \S*\bnsdelegate\b/m.test(await readFile('/proc/mounts', 'utf8'))
  const host = { modules: existsSync('/proc/modules'), delegated }
  for (const privileged of [false, true]) {
    const told = Object.fromEntries(CATALOG.map(({ name }) => [name, Object.fromEntries(ways.map((way) => [way, resultOf(comparison, name, privileged, way)]))]))
    const wanted = Object.fromEntries(CATALOG.map((drill) => [drill.name, Object.fromEntries(ways.map((way) => [way, { outcome: expectedOf(drill, way === 'process' ? 'container' : 'vm', privileged, host) }]))]))
    expect(told, privileged ? 'privileged' : 'not privileged').toMatchObject(wanted)
  }
}, 430_000)

it('with --privileged at least four reach the host from a container, and none from a VM', () => {
  const reached = (way: IsolationName, privileged: boolean) => CATALOG.filter(({ name }) => resultOf(comparison, name, privileged, way).outcome === 'host').map(({ name }) => name)
  expect(reached('process', true).length).toBeGreaterThanOrEqual(4)
  expect([...reached('vm', true), ...reached('vm', false), ...reached('vm-cold', true), ...reached('vm-cold', false), ...reached('process', false)]).toEqual([])
})

it('a machine that crashes its kernel ends with an exit code, and the others go on', () => {
  for (const way of ['vm-cold', 'vm'] as const) expect(resultOf(comparison, 'panic', true, way).detail).toMatch(/its machine ended with exit code 137; host and other machines went on/)
})

it('leaves nothing', async () => {
  const token = /hd-[0-9a-f]{12}/.exec(resultOf(comparison, 'mknod', true, 'process').command)![0]
  await expect.poll(() => leftOf(token), { timeout: 15_000 }).toEqual([])
  expect(await daemon.ok('images', '-q')).toMatch(/^[0-9a-f]{12}$/)
})

it('its commands try the same again', async () => {
  for (const [drill, privileged] of [['mount-disk', true], ['sysctl', true], ['sysctl', false]] as const) {
    const { command } = resultOf(comparison, drill, privileged, 'process')
    const said = await exec('sh', ['-c', command], { env: { DOCKER_HOST: daemon.host } })
    expect(JSON.parse(said.stdout.split('\n').find((line) => line.includes('"drill"')) ?? said.stderr)).toMatchObject({ drill, done: privileged })
  }
}, 60_000)

it.each([['SIGINT', 'process'], ['SIGINT', 'vm'], ['SIGKILL', 'process'], ['SIGKILL', 'vm']] as const)('%s while drills run in isolation %s leaves nothing, and needs nobody to clean up', async (signal, isolation) => {
  const child = spawn(hull, drills(daemon.host, '--isolation', isolation), { stdio: 'ignore', env: { ...process.env, XDG_STATE_HOME: scratch }, detached: true })
  const code = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const token = await until('something is planted', async () => /build\/hull-drills\0host\0(hd-[0-9a-f]{12})/.exec((await commandLines()).join('\n'))?.[1])
  await until('a disk is', async () => (await loops()).some((line) => line.includes(token)))
  const running = await until('both containers run', async () => {
    const ids = (await daemon.ok('ps', '-q')).split('\n')
    return ids.length === 2 && ids
  })
  expect(await daemon.ok('inspect', '-f', '{{.HostConfig.Isolation}}', ...running)).toBe(`${isolation}\n${isolation}`)
  process.kill(signal === 'SIGINT' ? -child.pid! : child.pid!, signal) // Ctrl-C is for all that a terminal runs
  expect(await code).toBe(signal === 'SIGINT' ? 130 : null)
  await expect.poll(() => leftOf(token), { timeout: 30_000 }).toEqual([])
}, 120_000)

it('SIGKILL before a container runs leaves that one, which the next comparison removes', async () => {
  const child = spawn(hull, drills(daemon.host, '--isolation', 'vm'), { stdio: 'ignore', env: { ...process.env, XDG_STATE_HOME: scratch } })
  const gone = new Promise((resolve) => child.once('exit', resolve))
  const id = await until('one is created', async () => daemon.ok('ps', '-aq', '--filter', 'status=created'))
  child.kill('SIGKILL')
  await gone
  expect((await exec(hull, ['-H', daemon.host, 'compare', '--isolation', 'process', '--sections', 'drills', image], { env: { XDG_STATE_HOME: scratch } })).code).toBe(0)
  await until('it is gone', async () => !(await daemon.ok('ps', '-aq')).includes(id))
  await expect.poll(() => leftOf('build/hull-drills'), { timeout: 15_000 }).toEqual([])
}, 60_000)

it('plants what it may for a user who is not root, and says why the rest was not tried', async () => {
  const state = join(scratch, 'nobody')
  await mkdir(state)
  await chmod(scratch, 0o711)
  await chmod(daemon.socket, 0o666) // as the group hull would have it
  await chown(state, 65534, 65534)
  const said = await exec('setpriv', ['--reuid=65534', '--regid=65534', '--clear-groups', hull, ...drills(daemon.host, '--isolation', 'process')], { env: { XDG_STATE_HOME: state, HOME: state } })
  expect(said.stderr).toBe('')
  const one = parseComparison(said.stdout)
  for (const drill of ['mknod', 'mount-disk', 'dmesg'] as const) expect(resultOf(one, drill, true, 'process')).toMatchObject({ outcome: 'missing', detail: expect.stringMatching(/cannot be (opened|written)/) as string })
  for (const drill of ['processes', 'sysctl'] as const) expect(resultOf(one, drill, true, 'process')).toMatchObject({ outcome: 'host' })
}, 60_000)

it('tells a person what the host saw, and why something was not tried', async () => {
  const said = await compare('--isolation', 'process', '--format', 'table')
  const words = said.stdout.replaceAll(/\s+/g, ' ')
  expect(words).toMatch(/What the host saw container: .*write a sysctl \(--privileged\): .*the host's kernel obeyed/)
  expect(words).toContain('never tried on the host\'s own kernel')
}, 60_000)
