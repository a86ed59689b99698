import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { detectCgroups, parseProcCgroup } from '../../../src/host/cgroup-layout.js'
import { writeLimits } from '../../../src/host/cgroup-limits.js'
import { blockStats, cpuStats, memoryStats, pidsStats, wasOomKilled } from '../../../src/host/cgroup-stats.js'
import { Cgroup } from '../../../src/host/cgroup.js'
import { processStat } from '../../../src/host/process.js'
import { cgroupParent, eventually } from './support.js'

// On the layout of this host; on v2 the parent must hand its controllers on (as crun does).
let group: Cgroup
let nested: Cgroup
beforeEach(async () => {
  const mounts = await detectCgroups()
  const parent = new Cgroup(mounts, cgroupParent)
  group = new Cgroup(mounts, `${cgroupParent}/one`)
  nested = new Cgroup(mounts, `${cgroupParent}/one/below`)
  await parent.create()
  if (group.isV2) {
    const all = mounts.unifiedControllers.map((name) => `+${name}`).join(' ')
    for (const directory of [mounts.unified!, parent.directory('')!]) writeFileSync(`${directory}/cgroup.subtree_control`, all)
  }
  await group.create()
  // v1 takes no process into a cpuset without CPUs and memory.
  if (!group.isV2) for (const each of [parent, group]) await writeLimits(each, { cpusetCpus: readFileSync(`${mounts.controllers['cpuset']}/cpuset.cpus`, 'utf8').trim(), cpusetMems: '0' })
})
afterEach(async () => {
  await group.kill()
  await new Cgroup(group.mounts, cgroupParent).remove()
  expect(await group.exists()).toBe(false)
})

/** Runs a script in the cgroup, in every hierarchy. */
async function runIn(where: Cgroup, script: string): Promise<{ pid: number; ended: Promise<number | string | null> }> {
  const enter = where.directories().map((directory) => `echo $$ > ${directory}/cgroup.procs;`).join(' ')
  const child = spawn('sh', ['-c', `set -e; ${enter} set +e; ${script}`], { stdio: ['ignore', 'inherit', 'inherit'] })
  const ended = new Promise<number | string | null>((resolve) => child.on('exit', (code, signal) => { resolve(signal ?? code) }))
  // It enters one hierarchy after the other; it must be in all of them before anybody freezes or kills it.
  const inside = (directory: string) => readFileSync(`${directory}/cgroup.procs`, 'utf8').split('\n').includes(String(child.pid))
  await eventually(() => where.directories().every(inside) || child.exitCode !== null || child.signalCode !== null)
  return { pid: child.pid!, ended }
}

it('counts memory, CPU time, tasks and I/O of what runs in it', async () => {
  await runIn(group, 'x=$(head -c 8000000 /dev/zero | tr "\\0" x); sleep 30 & i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; wait')
  await eventually(async () => ((await cpuStats(group))?.total ?? 0) > 100e6 && (await pidsStats(group))?.current === 2, 20_000)
  const memory = (await memoryStats(group))!
  expect(memory.usage).toBeGreaterThan(8e6)
  expect(memory.peak ?? Infinity).toBeGreaterThanOrEqual(memory.usage)
  expect(memory).toMatchObject({ limit: undefined, oomKills: 0 })
  expect(Object.keys(memory.stat)).toContain('inactive_file')
  const cpu = (await cpuStats(group))!
  expect(cpu.user).toBeGreaterThan(0)
  expect(cpu.user + cpu.kernel).toBeLessThan(cpu.total * 1.5)
  expect(await blockStats(group)).toBeInstanceOf(Array)
  expect(await pidsStats(group)).toEqual({ current: 2, limit: undefined })
})

it('writes limits that hold, up and down', async () => {
  await writeLimits(group, { memory: 64 << 20, memorySwap: 96 << 20, memoryReservation: 16 << 20, cpuShares: 512, cpuQuota: 50_000, cpuPeriod: 100_000, pids: 20 })
  expect(await memoryStats(group)).toMatchObject({ limit: 64 << 20, swapLimit: 96 << 20 })
  expect(await pidsStats(group)).toMatchObject({ limit: 20 })
  await writeLimits(group, { memory: 256 << 20, memorySwap: 300 << 20, cpuQuota: -1, pids: -1 }) // both above the old sum
  expect(await memoryStats(group)).toMatchObject({ limit: 256 << 20, swapLimit: 300 << 20 })
  await writeLimits(group, { memory: 8 << 20, memorySwap: 8 << 20, cpuPeriod: 10_000, cpuQuota: 2000 }) // both below
  expect(await memoryStats(group)).toMatchObject({ limit: 8 << 20, swapLimit: 8 << 20 })
  await writeLimits(group, { memory: -1, memorySwap: -1 })
  expect(await memoryStats(group)).toMatchObject({ limit: undefined, swapLimit: undefined })
  await expect(writeLimits(group, { memory: 64 << 20, memorySwap: 32 << 20 })).rejects.toMatchObject({ code: 'EINVAL' })
  await expect(writeLimits(group, { cpusetCpus: '4000' })).rejects.toThrow()
  await expect(writeLimits(new Cgroup(group.mounts, `${cgroupParent}/none`), { memory: 1 << 20 })).rejects.toMatchObject({ code: 'ENOENT' })
})

it('sees the OOM killer\'s work', async () => {
  await writeLimits(group, { memory: 8 << 20, memorySwap: 8 << 20 })
  expect(wasOomKilled(group)).toBe(false)
  const { ended } = await runIn(group, 'exec tail /dev/zero')
  expect(await ended).toBe('SIGKILL')
  expect(wasOomKilled(group)).toBe(true)
  expect((await memoryStats(group))?.oomKills).toBe(1)
})

it('stops and continues', async () => {
  const { pid } = await runIn(group, 'while :; do :; done')
  await group.freeze(true)
  const time = async () => { const stat = (await processStat(pid))!; return stat.userTicks + stat.systemTicks }
  const before = await time()
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect(await time()).toBe(before)
  await group.freeze(false)
  await eventually(async () => (await time()) > before)
  await expect(new Cgroup(group.mounts, `${cgroupParent}/none`).freeze(true)).rejects.toMatchObject({ code: 'ENOENT' })
})

it('kills what is nested, frozen or deaf, and removes it', async () => {
  await nested.create()
  if (!group.isV2) await writeLimits(nested, { cpusetCpus: '0', cpusetMems: '0' })
  // Processes in an inner node are no problem for v1; v2 forbids it with controllers, so all live in the leaf.
  const where = group.isV2 ? nested : group
  const first = await runIn(where, 'trap "" TERM HUP INT; while :; do sleep 1; done')
  const second = await runIn(nested, 'exec sleep 60')
  expect(await group.pids()).toEqual(expect.arrayContaining([first.pid, second.pid]))
  await nested.freeze(true)
  await expect(group.remove(50)).rejects.toMatchObject({ code: 'EBUSY' })
  expect(await group.kill()).toBe(true)
  expect(await Promise.all([first.ended, second.ended])).toEqual(['SIGKILL', 'SIGKILL'])
  await group.remove()
  expect(await group.exists()).toBe(false)
  expect(await group.kill()).toBe(true)
})

it('catches one that forks all the time', async () => {
  await writeLimits(group, { pids: 60 })
  await runIn(group, 'exec 2>/dev/null; f() { while :; do sleep 0.01 & done; }; f & f & f')
  await eventually(async () => (await group.pids()).length > 20)
  expect(await group.kill(20_000)).toBe(true)
})

it('finds the paths that /proc tells', async () => {
  const { pid } = await runIn(group, 'sleep 60')
  const paths = parseProcCgroup(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))
  expect(paths.get(group.isV2 ? '' : 'memory')).toBe(group.path)
})

it('kills, stops and removes by v2\'s own files', async ({ skip }) => {
  // A hybrid host's v2 tree has no controllers, but these files it has.
  const { unified } = await detectCgroups()
  if (!unified) return skip('no v2 tree')
  const alone = new Cgroup({ layout: 'v2', controllers: {}, unified, unifiedControllers: [] }, `${cgroupParent}/two`)
  const below = new Cgroup(alone.mounts, `${alone.path}/below`)
  await below.create()
  const child = await runIn(below, 'while :; do :; done')
  expect(await alone.pids()).toEqual([child.pid])
  await eventually(async () => ((await cpuStats(alone))?.total ?? 0) > 10e6)
  await alone.freeze(true)
  const total = (await cpuStats(alone))!.total
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect((await cpuStats(alone))!.total - total).toBeLessThan(5e6)
  expect(await alone.kill()).toBe(true)
  expect(await child.ended).toBe('SIGKILL')
  await alone.remove()
  expect(await alone.exists()).toBe(false)
})
