import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { aheadOf, poolKey } from '../../../src/sandbox/vm/ahead.js'
import { WarmPool, type Member } from '../../../src/sandbox/vm/pool.js'
import { rehearseFrames } from '../../../src/sandbox/vm/guestspec.js'
import type { WorkloadSpec } from '../../../src/sandbox/types.js'

// The policy alone, on a clock of the test's: the machines are real in test/integration/vm/pool.test.ts.

class Machine implements Member {
  destroyed = 0
  end!: () => void
  readonly gone = new Promise<void>((resolve) => (this.end = resolve))

  constructor(readonly id: string) {}

  async destroy(): Promise<void> {
    this.destroyed++
    this.end()
  }
}

let made: Machine[]
let short: boolean
let make: (shape: string) => Promise<Machine | undefined>
let pool: WarmPool<string, Machine>

beforeEach(() => {
  vi.useFakeTimers()
  made = []
  short = false
  make = async () => {
    await new Promise((resolve) => setTimeout(resolve, 1000))
    const machine = new Machine(`m${made.length}`)
    made.push(machine)
    return machine
  }
  pool = new WarmPool<string, Machine>({ size: 1, make: (shape) => make(shape), memoryIsShort: async () => short })
})

afterEach(async () => {
  const closed = pool.close()
  await vi.advanceTimersByTimeAsync(5000)
  await closed
  expect(made.map(({ destroyed }) => destroyed)).toEqual(made.map(() => 1)) // each, and each once
  vi.useRealTimers()
})

/** Started so many times, a minute apart. */
async function startedOften(key: string, times: number): Promise<void> {
  for (let n = 0; n < times; n++) {
    pool.used(key, key)
    await vi.advanceTimersByTimeAsync(60_000)
  }
}

/** As the engine takes one: at creation, and at the start. */
function take(key: string): Machine | undefined {
  const id = pool.reserve(key)
  return id !== undefined && pool.keep(id, key) ? pool.claim(id, key) : undefined
}

describe('what waits', () => {
  it('nothing for what was started once', async () => {
    await startedOften('a', 1)
    expect(made).toEqual([])
    expect(pool.reserve('a')).toBeUndefined()
  })

  it('one for what was started twice; a claim has it replaced', async () => {
    await startedOften('a', 2)
    expect(pool.waiting).toBe(1)
    const machine = take('a')!
    expect(machine.id).toBe('m0')
    expect(take('a')).toBeUndefined()
    pool.used('a', 'a')
    await vi.advanceTimersByTimeAsync(5000)
    expect(pool.waiting).toBe(1)
    await machine.destroy() // its container's now
  })

  it('nothing for two starts that are more than ten minutes apart', async () => {
    pool.used('a', 'a')
    await vi.advanceTimersByTimeAsync(601_000)
    pool.used('a', 'a')
    await vi.advanceTimersByTimeAsync(10_000)
    expect(made).toEqual([])
  })

  it('more while starts come faster than machines are made, and one again when they end', async () => {
    for (let n = 0; n < 30; n++) {
      pool.used('a', 'a')
      await vi.advanceTimersByTimeAsync(300)
    }
    await vi.advanceTimersByTimeAsync(6000)
    expect(pool.waiting).toBeGreaterThan(1)
    expect(pool.waiting).toBeLessThanOrEqual(4)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(pool.waiting).toBe(1)
  })

  it('no more than eight, of all shapes together', async () => {
    for (let round = 0; round < 2; round++) for (let n = 0; n < 12; n++) pool.used(`shape ${n}`, `shape ${n}`)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(pool.waiting).toBe(8)
    expect(pool.reserve('shape 11')).toBeDefined() // what was used last has one
    expect(pool.reserve('shape 0')).toBeUndefined()
  })

  it('as many as were asked for, when that is more than eight', async () => {
    pool = new WarmPool<string, Machine>({ size: 10, make: (shape) => make(shape), memoryIsShort: async () => short })
    await startedOften('a', 2)
    expect(pool.waiting).toBe(10)
  })

  it('none of what nobody has started for ten minutes', async () => {
    await startedOften('a', 2)
    await vi.advanceTimersByTimeAsync(660_000)
    expect(pool.waiting).toBe(0)
    expect(made.map(({ destroyed }) => destroyed)).toEqual([1])
  })

  it('none while memory is short, and those that wait go', async () => {
    await startedOften('a', 2)
    expect(pool.waiting).toBe(1)
    short = true
    await vi.advanceTimersByTimeAsync(16_000)
    expect(pool.waiting).toBe(0)
    pool.used('a', 'a')
    await vi.advanceTimersByTimeAsync(120_000)
    expect(made).toHaveLength(1)
    short = false
    await vi.advanceTimersByTimeAsync(120_000)
    expect(pool.waiting).toBe(1)
  })

  it('nothing without a pool', async () => {
    pool = new WarmPool<string, Machine>({ size: 0, make: (shape) => make(shape), memoryIsShort: async () => short })
    await startedOften('a', 5)
    expect(pool.enabled).toBe(false)
    expect(made).toEqual([])
  })
})

describe('when it is made', () => {
  it('not while others start, for a while', async () => {
    const begun: number[] = []
    const slow = make
    make = (shape) => (begun.push(performance.now()), slow(shape))
    const first = performance.now()
    for (let n = 0; n < 20; n++) {
      pool.used('a', 'a')
      await vi.advanceTimersByTimeAsync(100)
    }
    expect(begun[0]! - first).toBeGreaterThanOrEqual(1500)
    expect(begun[0]! - first).toBeLessThan(2000)
  })

  it('one at a time', async () => {
    let at = 0
    let most = 0
    const slow = make
    make = async (shape) => {
      most = Math.max(most, ++at)
      const machine = await slow(shape)
      at--
      return machine
    }
    for (const key of ['a', 'b', 'c', 'a', 'b', 'c']) pool.used(key, key)
    await vi.advanceTimersByTimeAsync(20_000)
    expect(pool.waiting).toBe(3)
    expect(most).toBe(1)
  })

  it('later, when it cannot be made: no template yet, or an error', async () => {
    const real = make
    let tries = 0
    make = async () => (tries++, undefined)
    await startedOften('a', 2)
    pool.used('a', 'a')
    await vi.advanceTimersByTimeAsync(30_000)
    expect(tries).toBeGreaterThanOrEqual(2)
    make = async () => {
      throw new Error('no room')
    }
    pool.used('a', 'a')
    await vi.advanceTimersByTimeAsync(30_000)
    expect(pool.waiting).toBe(0)
    make = real
    await vi.advanceTimersByTimeAsync(120_000)
    expect(pool.waiting).toBe(1)
  })
})

describe('what is reserved', () => {
  beforeEach(() => startedOften('a', 2))

  it('is let go of when the container is not started', async () => {
    const id = pool.reserve('a')!
    await vi.advanceTimersByTimeAsync(16_000)
    expect(made[0]!.destroyed).toBe(1)
    expect(pool.keep(id, 'a')).toBe(false)
    expect(pool.claim(id, 'a')).toBeUndefined()
  })

  it('is gone before its container has anything else, whoever has it ended', async () => {
    await startedOften('a', 2)
    const id = pool.reserve('a')!
    const [machine] = made
    let letGo!: () => void
    machine!.destroy = () => new Promise<void>((resolve) => (letGo = resolve)).then(() => void machine!.destroyed++)
    await vi.advanceTimersByTimeAsync(15_000) // nobody started the container
    let free = false
    const dropped = pool.drop(id).then(() => (free = true))
    await vi.advanceTimersByTimeAsync(1000)
    expect(free).toBe(false)
    letGo()
    await dropped
  })

  it('is kept from the moment at which the start begins', async () => {
    const id = pool.reserve('a')!
    await vi.advanceTimersByTimeAsync(14_000)
    expect(pool.keep(id, 'a')).toBe(true)
    await vi.advanceTimersByTimeAsync(60_000)
    await pool.claim(id, 'a')!.destroy()
  })

  it('is not claimed as another shape', async () => {
    const id = pool.reserve('a')!
    expect(pool.keep(id, 'b')).toBe(false)
    expect(pool.claim(id, 'b')).toBeUndefined()
    await pool.drop(id)
    expect(made[0]!.destroyed).toBe(1)
    await pool.drop(id)
    await pool.drop('nobody')
  })

  it('is no more when it has ended by itself', async () => {
    const id = pool.reserve('a')!
    made[0]!.end()
    await vi.advanceTimersByTimeAsync(1)
    expect(pool.keep(id, 'a')).toBe(false)
    expect(made[0]!.destroyed).toBe(1)
  })
})

it('a machine that ends while it waits is replaced, after a while', async () => {
  await startedOften('a', 2)
  made[0]!.end()
  await vi.advanceTimersByTimeAsync(1)
  expect(pool.waiting).toBe(0)
  expect(pool.reserve('a')).toBeUndefined()
  await vi.advanceTimersByTimeAsync(90_000)
  expect(pool.waiting).toBe(1)
})

it('a machine that is being made when the pool is closed ends, too', async () => {
  pool.used('a', 'a')
  pool.used('a', 'a')
  await vi.advanceTimersByTimeAsync(600)
  const closed = pool.close()
  await vi.advanceTimersByTimeAsync(2000)
  await closed
  expect(made.map(({ destroyed }) => destroyed)).toEqual([1])
  pool.used('a', 'a')
  expect(pool.enabled).toBe(false)
})

describe('shapes', () => {
  const id = 'a'.repeat(64)
  const spec = {
    id, name: 'web', chainId: 'sha256:1', layers: ['l'], mounts: [], openStdin: false, stdinOnce: false, process: { args: ['sh'], env: ['A=1'], tty: false }, logPath: `/d/${id}/log`, stateDir: `/d/${id}`,
    runDir: `/r/${id}`, cgroupParent: '', resources: { memory: 1 },
  } as unknown as WorkloadSpec
  const key = (more: object = {}, bridged = true, jail = '/jail') => poolKey({ ...spec, ...more }, bridged, jail)

  it.each([
    ['memory', { resources: { memory: 2 } }], ['the image', { chainId: 'sha256:2' }], ['stdin', { openStdin: true }], ['a terminal', { process: { ...spec.process, tty: true } }],
    ['no log', { logPath: '' }], ['the size of its disk', { diskBytes: 2 ** 26 }], ['the parent cgroup', { cgroupParent: '/other' }],
  ])('%s makes another shape', (_name, more) => expect(key(more)).not.toBe(key()))

  it('so do the network card and the jail', () => expect(new Set([key(), key({}, false), key({}, true, '/jail2')]).size).toBe(3))

  it('what the guest is told later does not', () => {
    expect(key({ id: 'b'.repeat(64), name: 'other', process: { ...spec.process, args: ['true'], env: [] }, logPath: '/elsewhere', mounts: [{ type: 'tmpfs' }] })).toBe(key())
  })

  it('a machine with mounts of the host is of no shape', () => expect(key({ mounts: [{ type: 'bind' }] })).toBe(''))

  it('one ahead has an id and paths of its own', () => {
    const one = aheadOf(spec)
    expect(one.id).toMatch(/^[0-9a-f]{64}$/)
    expect(one.id).not.toBe(id)
    expect(one).toMatchObject({ stateDir: `/d/${one.id}`, runDir: `/r/${one.id}`, logPath: `/d/${one.id}/log`, name: '' })
  })

  it('rehearses with nothing of the container that it is modelled on', () => {
    const mine = {
      ...spec, hostname: 'MINE', domainname: 'MINE', readOnlyRootfs: false, shmSize: 0, init: true, privileged: false, ephemeral: true, noNewPrivileges: false, sysctls: { MINE: '1' }, openStdin: true,
      mounts: [{ type: 'tmpfs', source: '', target: '/MINE', readOnly: false, options: [] }], files: { hosts: 'MINE', hostname: 'MINE', resolvConf: 'MINE' }, maskedPaths: ['/proc/kcore'], readonlyPaths: ['/proc/sys'],
      process: { args: ['MINE'], env: ['MINE=1'], cwd: '/MINE', user: 'MINE', groupAdd: ['MINE'], tty: true, privileged: false },
      network: { mode: 'bridge', mac: 'MINE', address: 'MINE', prefixLength: 16, gateway: 'MINE', mtu: 1 }, resources: { memorySwap: 0, memoryReservation: 0, pidsLimit: 0, ulimits: [], oomScoreAdj: 0 },
    } as unknown as WorkloadSpec
    const text = rehearseFrames(mine, { memory: 0, imageSlot: 0 }, []).toString('latin1')
    expect(text).not.toContain('MINE')
    expect(text).not.toContain('tmpfs')
    expect(text).toContain('192.0.2.2')
  })
})
