import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import { native } from '../../../src/host/native.js'
import { cgroupOf } from '../../../src/oci/cgroups.js'
import type { Sandbox, WorkloadSpec } from '../../../src/sandbox/types.js'
import type { VmDriver } from '../../../src/sandbox/vm/driver.js'
import { Lab, readFramed } from './lab.js'

// docs/decisions/0015-warm-pool.md names these tests.

let lab: Lab
let driver: VmDriver
const made: { sandbox: Sandbox; spec: WorkloadSpec }[] = []

beforeAll(async () => {
  lab = await Lab.make()
  driver = lab.driver({ pool: 1 })
  await said(['true'])
  await driver.templatesIdle()
  await end()
}, 120_000)

beforeEach(async () => {
  // Two starts make it worth it; of which the second is a template's clone, at least.
  for (let n = 0; n < 2; n++) await said(['true'])
  await end()
  await driver.poolFull()
})

afterEach(async () => {
  await end()
  await driver.endMaintenance()
  expect(await lab.leftovers()).toEqual([])
  driver = lab.driver({ pool: 1 })
})

afterAll(() => lab.remove())

async function end(): Promise<void> {
  for (const { sandbox, spec } of made.splice(0)) {
    await sandbox.destroy()
    await driver.removeState(spec)
  }
}

/** As the engine does it: what is made ahead gives the container its id. */
async function reserved(args: string[], more: Partial<WorkloadSpec> = {}): Promise<WorkloadSpec> {
  const spec = lab.spec(args, more)
  const id = await driver.reserve(spec, false)
  if (id === undefined) return spec
  const own = (path: string) => path.replaceAll(spec.id, id)
  return { ...spec, id, stateDir: own(spec.stateDir), runDir: own(spec.runDir), logPath: own(spec.logPath) }
}

async function create(args: string[], more: Partial<WorkloadSpec> = {}): Promise<{ sandbox: Sandbox; spec: WorkloadSpec }> {
  const spec = await reserved(args, more)
  await driver.settle(spec)
  const sandbox = await driver.create(spec, {})
  made.push({ sandbox, spec })
  return { sandbox, spec }
}

/** What a workload printed, and how its machine came to life. */
async function said(args: string[], more: Partial<WorkloadSpec> = {}): Promise<{ out: string; start: string | undefined; sandbox: Sandbox }> {
  const { sandbox, spec } = await create(args, more)
  const output = readFramed((await sandbox.attach()).duplex)
  await sandbox.start()
  const start = startOf(spec)
  expect((await sandbox.exited).code).toBe(0)
  return { out: (await output).stdout, start, sandbox }
}

const startOf = (spec: WorkloadSpec) => (JSON.parse(readFileSync(join(spec.runDir, 'vm.json'), 'utf8')) as { start?: string }).start
/** Machines that run or wait: ids. */
const machines = () => readdir(join(lab.directory, 'exec/containers'))

it('what has been started twice waits; a container takes its id, and it is the container’s machine', async () => {
  expect(await machines()).toHaveLength(1)
  const { sandbox, spec } = await create(['sh', '-c', 'echo $WHO on $(hostname); cat; exit 7'], { hostname: 'nobodys', openStdin: true, process: lab.process(['true']) })
  expect(startOf(spec)).toBe('template') // with stdin: another shape
  await sandbox.destroy()
  const one = await create([], { hostname: 'mine', process: lab.process(['sh', '-c', 'echo $WHO on $(hostname); exit 7'], { env: ['WHO=me'] }) })
  expect(startOf(one.spec)).toBe('pool')
  const output = readFramed((await one.sandbox.attach()).duplex)
  await one.sandbox.start()
  expect((await one.sandbox.explain()).flatMap(({ rows }) => rows).find(([name]) => name === 'start')?.[1]).toMatch(/made ahead/)
  expect((await one.sandbox.exited).code).toBe(7)
  expect((await output).stdout).toBe('me on mine\n')
})

it('a machine that has waited is a new one: random numbers, boot id, and the clock of the host', async () => {
  const identity = ['sh', '-c', 'cat /proc/sys/kernel/random/boot_id; od -An -N16 -tx1 /dev/urandom; date +%s']
  const seen: string[][] = []
  for (let n = 0; n < 3; n++) {
    await driver.poolFull()
    await new Promise((resolve) => setTimeout(resolve, 2000))
    const { out, start } = await said(identity)
    expect(start).toBe('pool')
    const [bootId, random, now] = out.split('\n')
    expect(Math.abs(Number(now) - Date.now() / 1000)).toBeLessThan(5)
    seen.push([bootId!, random!])
  }
  expect(new Set(seen.map(([bootId]) => bootId)).size).toBe(3)
  expect(new Set(seen.map(([, random]) => random)).size).toBe(3)
})

it('a workload finds what it finds in a machine that was not made ahead: nothing of a rehearsal', async () => {
  const look = ['sh', '-c', [
    'cat /proc/self/mounts', 'ls -lR /etc /dev /tmp', 'ls -a /', 'cat /etc/hosts /etc/hostname /etc/resolv.conf', 'env | sort', 'ulimit -a', 'id', 'pwd', 'umask',
    'grep -E "^(Cap|Seccomp|NoNew|Groups|Uid|Gid)" /proc/self/status', 'ls -l /proc/self/fd | wc -l', 'ls /proc > /tmp/pids; grep -cE "^[0-9]+$" /tmp/pids', 'ip -o link | cut -d: -f2-', 'ip route',
    'for f in /sys/fs/cgroup/*.max /sys/fs/cgroup/*.high /sys/fs/cgroup/memory.events /sys/fs/cgroup/cgroup.stat; do echo $f; cat $f; done', 'cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname', 'cat /proc/sys/kernel/ns_last_pid',
  ].join('; ')]
  const resources = { ...lab.spec([]).resources, memory: 96 << 20, pidsLimit: 50 }
  const options = { resources, shmSize: 8 << 20, hostname: 'same', files: { hosts: '127.0.0.1 localhost\n', hostname: 'same\n', resolvConf: 'nameserver 192.0.2.1\n' }, mounts: [{ type: 'tmpfs' as const, target: '/t', source: '', readOnly: false, options: ['size=1m'] }] }
  await said(['true'], options)
  await driver.templatesIdle()
  const clone = await said(look, options)
  expect(clone.start).toBe('template')
  await end()
  await driver.poolFull()
  const pooled = await said(look, options)
  expect(pooled.start).toBe('pool')
  const cleaned = (text: string) => text.replace(/\d\d:\d\d/g, '').replace(/[A-Z][a-z]{2} [ \d]\d /g, '')
  expect(cleaned(pooled.out)).toBe(cleaned(clone.out))
  expect(clone.out).toContain('/t')
})

it('a mount point of the container that a machine is modelled on is not in the next one’s root', async () => {
  const tmpfs = { mounts: [{ type: 'tmpfs' as const, target: '/only/mine', source: '', readOnly: false, options: [] }] }
  const { start } = await said(['ls', '-d', '/only/mine'], tmpfs) // the last that was started: the one that is made now is made like it
  expect(start).toBe('pool')
  await end()
  await driver.poolFull()
  const next = await said(['ls', '/'])
  expect(next.start).toBe('pool')
  expect(next.out).not.toContain('only')
})

it('its account begins with its workload', async () => {
  const { sandbox, spec } = await create(['sleep', '1000'], {})
  expect(startOf(spec)).toBe('pool')
  await sandbox.start()
  const stats = await sandbox.stats()
  expect(stats.pids).toBe(1)
  expect(stats.cpuTotal).toBeLessThan(1e9) // its own, not the machine's
  const session = await sandbox.exec(lab.process(['cat', '/sys/fs/cgroup/pids.peak', '/sys/fs/cgroup/memory.events']), { stdin: false, detach: false })
  expect((await readFramed(session.duplex)).stdout).toMatch(/oom_kill 0/)
})

it('a container that is removed, or whose files are wanted, before it is started lets go of its machine', async () => {
  for (const way of ['removed', 'files'] as const) {
    await driver.poolFull()
    const spec = await reserved(['cat', '/file'])
    expect(await machines()).toEqual([spec.id])
    if (way === 'files') {
      const job = await driver.files(spec, { op: 'stat', path: '/etc/passwd' })
      job.output.resume()
      await job.done
      expect(await machines()).not.toContain(spec.id)
      expect(await driver.settle(spec)).toBe(false)
      // And it starts. Its disk is not new: it boots, and later ones like it are clones of the template that is made now.
      for (const start of [undefined, 'template']) {
        const sandbox = await driver.create({ ...spec, process: lab.process(['true']) }, {})
        made.push({ sandbox, spec })
        expect(startOf(spec)).toBe(start)
        await sandbox.start()
        expect((await sandbox.exited).code).toBe(0)
        await sandbox.destroy()
        await driver.templatesIdle()
      }
    } else {
      await driver.removeState(spec)
      expect(await machines()).toEqual([])
      for (let n = 0; n < 2; n++) await said(['true'])
      await end()
    }
  }
})

it('a container that cannot be run leaves nothing of its machine', async () => {
  const spec = await reserved([''])
  expect(await driver.settle(spec)).toBe(true)
  await expect(driver.create(spec, {})).rejects.toThrow('no command specified')
  await driver.removeState(spec)
  await driver.poolFull()
  await driver.endMaintenance()
  expect(await lab.leftovers()).toEqual([])
})

it('a container that is another shape by the time of its start has a machine of its own', async () => {
  const spec = await reserved(['true'])
  const changed = { ...spec, resources: { ...spec.resources, memory: 64 << 20 } }
  expect(await driver.settle(changed)).toBe(false)
  expect(await machines()).toEqual([])
  const sandbox = await driver.create(changed, {})
  made.push({ sandbox, spec: changed })
  expect(startOf(changed)).not.toBe('pool')
  await sandbox.start()
  expect((await sandbox.exited).code).toBe(0)
})

it.each(['waits', 'is reserved'])('QEMU killed while its machine %s: the next container has another, and nothing is left', async (when) => {
  const spec = when === 'is reserved' ? await reserved(['true']) : undefined
  const [id] = await machines()
  const cgroup = await cgroupOf(`${lab.cgroupParent}/${id}`)
  const qemu = (await cgroup.pids()).find((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('qemu'))
  native.kill(qemu!, 9)
  await expect.poll(machines, { timeout: 20_000 }).toEqual([])
  const next = spec ?? (await reserved(['true']))
  expect(await driver.settle(next)).toBe(false)
  const sandbox = await driver.create(next, {})
  made.push({ sandbox, spec: next })
  expect(startOf(next)).toBe('template')
  await sandbox.start()
  expect((await sandbox.exited).code).toBe(0)
})

it('a daemon that comes after one that died ends the machines that waited', async () => {
  expect(await machines()).toHaveLength(1)
  const next = lab.driver()
  await (await next.collectGarbage()).rest
  expect(await machines()).toEqual([])
  await driver.poolFull()
})

it('others do not wait for it: a machine that waits has the least share of the processors, and its container’s from its start on', async () => {
  const spec = await reserved(['sleep', '1000'])
  const cgroup = await cgroupOf(`${lab.cgroupParent}/${spec.id}`)
  const shares = async () => (await cgroup.read('cpu', cgroup.isV2 ? 'cpu.weight' : 'cpu.shares'))?.trim()
  expect(['2', '1']).toContain(await shares())
  expect(await driver.settle(spec)).toBe(true)
  const sandbox = await driver.create(spec, {})
  made.push({ sandbox, spec })
  await sandbox.start()
  expect(['1024', '39', '100']).toContain(await shares())
})

it('a template that does not load, which the pool finds first, is not used again', async () => {
  await driver.templatesIdle()
  const templates = join(lab.directory, 'data/vm/templates')
  // The driver has looked at them before and believes them.
  for (const name of readdirSync(templates)) {
    const state = join(templates, name, 'state')
    writeFileSync(state, readFileSync(state).fill(0xff, 64, 4096))
  }
  const { start } = await said(['true'])
  expect(start).toBe('pool') // it was made before; the one that takes its place cannot be
  await end()
  const kept = readdirSync(templates).length
  await driver.poolFull()
  expect(readdirSync(templates)).toHaveLength(kept - 1)
  expect(await machines()).toEqual([])
  expect((await said(['true'])).start).toBeUndefined() // it boots
})
