import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, openSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, it } from 'vitest'
import { hostFacts } from '../../../src/host/facts.js'
import { native } from '../../../src/host/native.js'
import { childrenOf, commandLine, identify, isAlive, killPid, namespacesOf, processStat, processStatus, signalProcess, waitGone } from '../../../src/host/process.js'
import { capUlimits, rlimitPowers } from '../../../src/host/rlimit.js'
import { eventually, temporary } from './support.js'

const started: ChildProcess[] = []
afterEach(() => { for (const child of started.splice(0)) child.kill('SIGKILL') })
function sleeper(...args: string[]): { child: ChildProcess; pid: number; ended: Promise<unknown> } {
  const child = spawn(args[0] ?? 'sleep', args.length ? args.slice(1) : ['60'], { stdio: 'ignore' })
  started.push(child)
  return { child, pid: child.pid!, ended: new Promise((resolve) => child.on('exit', (code, signal) => { resolve(signal ?? code) })) }
}

it('tells a process from another with its pid', async () => {
  const { pid, ended } = sleeper()
  const identity = (await identify(pid))!
  expect(await isAlive(identity)).toBe(true)
  const impostor = { pid, startTime: identity.startTime + 1 }
  expect(await isAlive(impostor)).toBe(false)
  expect(signalProcess(impostor, 9)).toBe(false)
  expect(await isAlive(identity)).toBe(true)
  expect(signalProcess(identity, 0)).toBe(true)
  expect(await waitGone(identity, 20)).toBe(false)
  expect(signalProcess(identity, 15)).toBe(true)
  expect(await ended).toBe('SIGTERM')
  expect(await waitGone(identity, 1000)).toBe(true)
  expect(signalProcess(identity, 9)).toBe(false)
  expect(killPid(pid, 0)).toBe(false)
  expect(await identify(pid)).toBeUndefined()
  expect(await processStat(pid)).toBeUndefined()
  expect(await processStatus(pid)).toBeUndefined()
  expect(await commandLine(pid)).toBeUndefined()
  expect(await childrenOf(pid)).toEqual([])
  expect(await namespacesOf(pid)).toEqual({})
})

it('counts a zombie as ended', async () => {
  // The shell becomes a sleep that never reaps the child that it inherits.
  const { pid } = sleeper('sh', '-c', 'true & exec sleep 60')
  await eventually(async () => (await childrenOf(pid)).length === 1)
  const [zombie] = await childrenOf(pid)
  await eventually(async () => (await processStat(zombie!))?.state === 'Z')
  expect(await identify(zombie!)).toBeUndefined()
  expect(await commandLine(zombie!)).toEqual([])
})

it('sees a thread\'s number as no process', async () => {
  const thread = Number(readdirSync('/proc/self/task').find((id) => Number(id) !== process.pid))
  expect(native.killIf(thread, (await processStat(thread))!.startTime, 0)).toBe(false)
})

it('reads what is there', async () => {
  const { pid } = sleeper()
  await eventually(async () => (await commandLine(pid))?.[0] === 'sleep')
  expect(await commandLine(pid)).toEqual(['sleep', '60'])
  expect(await processStatus(pid)).toMatchObject({ name: 'sleep', parent: process.pid, uids: [0, 0, 0, 0], threads: 1 })
  expect(await processStat(pid)).toMatchObject({ pid, name: 'sleep', parent: process.pid })
  expect(await childrenOf(process.pid)).toContain(pid)
  expect(await namespacesOf(pid)).toEqual(await namespacesOf('self'))
  const other = sleeper('unshare', '--uts', 'sleep', '60')
  await eventually(async () => (await commandLine(other.pid))?.[0] === 'sleep')
  const [theirs, ours] = [await namespacesOf(other.pid), await namespacesOf('self')]
  expect(theirs.uts).not.toBe(ours.uts)
  expect(theirs.net).toBe(ours.net)
})

it('refuses pids that mean many', () => {
  for (const pid of [0, -1, -5, 1.5, NaN, 2 ** 31]) expect(() => killPid(pid, 0), String(pid)).toThrow(RangeError)
  expect(() => killPid(process.pid, 65)).toThrow(RangeError)
  expect(() => native.killIf(process.pid, 0, 0)).toThrow(RangeError)
})

it('locks once, and hands descriptors on only when told', async () => {
  const base = temporary()
  const first = openSync(join(base, 'lock'), 'w')
  const second = openSync(join(base, 'lock'), 'w')
  expect(native.tryLock(first)).toBe(true)
  expect(native.tryLock(first)).toBe(true)
  expect(native.tryLock(second)).toBe(false)
  const probe = () => sleeper('sh', '-c', `test -e /proc/self/fd/${first}`).ended
  expect(await probe()).toBe(1)
  native.setCloexec(first, false)
  closeSync(first)
  expect(native.tryLock(second)).toBe(true)
  closeSync(second)
  expect(() => native.tryLock(second)).toThrow(expect.objectContaining({ code: 'EBADF', syscall: 'flock' }))
  expect(() => { native.setCloexec(second, true) }).toThrow(expect.objectContaining({ code: 'EBADF' }))
  rmSync(base, { recursive: true })
})

it('caps rlimits at what prlimit would take', async () => {
  const powers = rlimitPowers()
  const hard = powers.limits.get('nofile')!.hard
  const { ulimits: [nofile] } = capUlimits([{ name: 'nofile', soft: 2 ** 40, hard: 2 ** 40 }], powers)
  expect(await sleeper('prlimit', `--nofile=${nofile!.soft}:${nofile!.hard}`, 'true').ended).toBe(0)
  if (!powers.mayRaise) expect(await sleeper('prlimit', `--nofile=${hard + 1}:${hard + 1}`, 'true').ended).not.toBe(0)
})

it('knows this host', async () => {
  const facts = await hostFacts()
  expect(facts.memory).toBeGreaterThan(facts.memoryAvailable / 2)
  expect(facts).toMatchObject({ seccomp: 'filter', overlay: 'yes' })
  expect(facts.os.PRETTY_NAME).not.toBe('')
  expect(facts.cgroup.memoryLimit && facts.cgroup.pidsLimit).toBe(true)
  expect(facts.capabilities & (1n << 21n)).not.toBe(0n) // CAP_SYS_ADMIN: these tests run as root
})
