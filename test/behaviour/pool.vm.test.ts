import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { exec, sleep, TestDaemon, until } from '../lib/daemon.js'
import { buildTestImage, testImage } from '../lib/image.js'
import { remaining, type Snapshot, snapshot } from '../lib/leaks.js'

// Virtual machines that were made ahead, as a user of docker meets them. docs/decisions/0015-warm-pool.md.

let daemon: TestDaemon
let before: Snapshot

beforeAll(async () => {
  before = await snapshot()
  daemon = await TestDaemon.start(['--vm-pool', '1'])
  await buildTestImage(daemon)
}, 120_000)

afterAll(async () => {
  await daemon.destroy()
  expect(await remaining(before)).toEqual([])
})

/** Ids of machines that run or wait. */
const machines = () => readdir(join(daemon.execRoot, 'containers'))
const startOf = async (name: string) => /start +(.+)$/m.exec((await daemon.hull(['explain', name])).stdout)?.[1] ?? ''
const vm = (...args: string[]) => daemon.ok('run', '--rm', '--isolation=vm', ...args)

/** The id of the one that waits and is nobody's, as soon as there is one. */
async function filled(): Promise<string> {
  return until('a machine waits', async () => {
    if (!/^hull_vm_pool_machines 1$/m.test((await daemon.api('GET', '/metrics')).body)) return undefined
    const known = (await daemon.ok('ps', '-aq', '--no-trunc')).split('\n')
    return (await machines()).find((id) => !known.includes(id) && /^[0-9a-f]{64}$/.test(id))
  }, 90_000)
}

beforeEach(async () => {
  const known = (await daemon.ok('ps', '-aq')).split('\n').filter((id) => id !== '')
  if (known.length > 0) await daemon.ok('rm', '-f', ...known)
  // The shape of the tests below.
  while ((await machines()).length === 0) {
    await vm(testImage, 'true')
    await vm(testImage, 'true')
    await sleep(5000)
  }
  await filled()
}, 180_000)

it('a container has its network, name, address and published port; and is itself', async () => {
  const waiting = await filled()
  await daemon.ok('network', 'create', 'pooled')
  const id = await daemon.ok('run', '-d', '--isolation=vm', '--name', 'web', '--network', 'pooled', '-p', '127.0.0.1:0:80', '-e', 'WHAT=page', testImage, 'sh', '-c', 'while :; do echo $WHAT from $(hostname) | nc -l -p 80; done')
  expect(id).toBe(waiting)
  expect(await startOf('web')).toMatch(/made ahead/)
  const [address, mac] = (await daemon.ok('inspect', '-f', '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}}{{end}}', 'web')).split(' ')
  expect(await daemon.ok('exec', 'web', 'cat', '/sys/class/net/eth0/address')).toBe(mac)
  expect(await daemon.ok('exec', 'web', 'ip', '-o', '-4', 'addr', 'show', 'eth0')).toContain(`${address}/`)
  expect(await daemon.ok('exec', 'web', 'hostname')).toBe(id.slice(0, 12))
  const port = (await daemon.ok('port', 'web', '80/tcp')).split(':').pop()!
  await until('the port answers', async () => (await exec('busybox', ['nc', '-w', '5', '127.0.0.1', port])).stdout === `page from ${id.slice(0, 12)}\n`)
  expect(await vm('--network', 'pooled', testImage, 'nc', '-w', '5', 'web', '80')).toBe(`page from ${id.slice(0, 12)}`)
  expect(await daemon.ok('exec', 'web', 'ip', '-o', 'addr')).not.toContain('192.0.2.')
  expect(await daemon.ok('exec', 'web', 'ip', 'neigh')).not.toContain('192.0.2.')
  await daemon.ok('rm', '-f', 'web')
  await daemon.ok('network', 'rm', 'pooled')
}, 120_000)

it('its first process is as old as the container, not as the machine that waited', async () => {
  await sleep(4000)
  const age = 'cut -d" " -f1 /proc/uptime; awk "{print \\$22 / 100}" /proc/1/stat'
  await daemon.ok('run', '-d', '--isolation=vm', '--name', 'young', testImage, 'sh', '-c', `${age}; exec sleep 600`)
  expect(await startOf('young')).toMatch(/made ahead/)
  const [now, started] = (await until('it has told', async () => /^([\d.]+)\n([\d.]+)/.exec(await daemon.ok('logs', 'young')) ?? undefined)).slice(1).map(Number)
  expect(now! - started!).toBeLessThan(4)
}, 120_000)

it('two at once are two machines, also when one waits', async () => {
  const said = await Promise.all([1, 2, 3].map(() => vm(testImage, 'sh', '-c', 'cat /proc/sys/kernel/random/boot_id; od -An -N16 -tx1 /dev/urandom; ip -o -4 addr show eth0; cat /sys/class/net/eth0/address')))
  const columns = said.map((text) => text.split('\n'))
  for (const line of [0, 1, 2, 3]) expect(new Set(columns.map((lines) => lines[line])).size).toBe(3)
}, 120_000)

it('a container that is created and started much later loses the machine, and nothing else', async () => {
  const id = await daemon.ok('create', '--isolation=vm', '--name', 'later', testImage, 'echo', 'there')
  expect(await machines()).toContain(id)
  await until('the machine is let go of', async () => !(await machines()).includes(id), 30_000)
  expect(await daemon.ok('inspect', '-f', '{{.State.Status}}', 'later')).toBe('created')
  expect(await daemon.ok('start', '-a', 'later')).toBe('there')
}, 120_000)

it('files copied into a container before its start are there', async () => {
  const id = await daemon.ok('create', '--isolation=vm', '--name', 'filled', testImage, 'cat', '/etc/motd')
  expect(await machines()).toContain(id)
  await daemon.ok('cp', join(import.meta.dirname, 'pool.vm.test.ts'), 'filled:/etc/motd')
  expect(await daemon.ok('start', '-a', 'filled')).toContain('files copied into a container before its start')
}, 120_000)

it('limits that are changed before the start hold', async () => {
  await daemon.ok('create', '--isolation=vm', '--name', 'less', testImage, 'cat', '/sys/fs/cgroup/memory.max')
  await daemon.ok('update', '-m', '64m', '--memory-swap', '64m', 'less')
  expect(await daemon.ok('start', '-a', 'less')).toBe(String(64 << 20))
}, 120_000)

it('a create that fails leaves no machine behind', async () => {
  await daemon.ok('run', '-d', '--isolation=process', '--name', 'taken', testImage, 'sleep', '1000')
  await filled()
  const waiting = await machines() // more than one, after starts that followed each other closely: any may be taken
  const said = await daemon.docker(['create', '--isolation=vm', '--name', 'taken', testImage, 'true'])
  expect(said.stderr).toContain('is already in use')
  const gone = await until('it is gone', async () => {
    const now = await machines()
    return waiting.find((id) => !now.includes(id))
  })
  expect(await readdir(join(daemon.dataRoot, 'containers'))).not.toContain(gone)
}, 120_000)

it('runs again after its end, in the same container', async () => {
  const id = await daemon.ok('run', '-d', '--isolation=vm', '--name', 'again', testImage, 'sh', '-c', 'echo run >> /runs; cat /runs')
  expect(await daemon.ok('wait', id)).toBe('0')
  expect(await daemon.ok('start', '-a', 'again')).toBe('run\nrun')
}, 120_000)

it('kill -9 of the daemon: what waits and what is reserved is ended by the next, what was claimed runs on', async () => {
  const running = await daemon.ok('run', '-d', '--isolation=vm', '--name', 'runs', testImage, 'sleep', '1000')
  const waiting = await filled()
  const created = await daemon.ok('create', '--isolation=vm', '--name', 'waits', testImage, 'echo', 'there')
  expect(created).toBe(waiting)
  await vm(testImage, 'true')
  const other = await filled()
  await daemon.down('SIGKILL')
  await daemon.up()
  await until('none waits', async () => (await machines()).join() === running)
  expect(await readdir(join(daemon.dataRoot, 'containers'))).not.toContain(other)
  expect(await startOf('runs')).toMatch(/made ahead/)
  expect(await daemon.ok('exec', 'runs', 'echo', 'alive')).toBe('alive')
  expect(await daemon.ok('start', '-a', 'waits')).toBe('there')
}, 180_000)
