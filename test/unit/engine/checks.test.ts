import { cpus } from 'node:os'
import { describe, expect, it } from 'vitest'
import { checkResources, parseCpuList, parseSecurityOptions } from '../../../src/engine/checks.js'
import type { HostConfig } from '../../../src/engine/api-types.js'
import { resolveIsolation } from '../../../src/engine/policy.js'
import { parseSignal } from '../../../src/engine/signals.js'

const none = {
  Memory: 0, MemorySwap: 0, MemoryReservation: 0, NanoCpus: 0, CpuPeriod: 0, CpuQuota: 0, CpuShares: 0, CpusetCpus: '', CpusetMems: '',
  OomScoreAdj: 0, ShmSize: 0, BlkioWeight: 0, Ulimits: [],
} as unknown as HostConfig
const check = (part: Partial<HostConfig>) => () => checkResources({ ...none, ...part })

describe('checkResources', () => {
  it('takes what Docker takes', () => {
    expect(check({})).not.toThrow()
    expect(check({ Memory: 6 << 20, MemorySwap: -1 })).not.toThrow()
    expect(check({ NanoCpus: 0.5e9 })).not.toThrow()
    expect(check({ CpusetCpus: '0', Ulimits: [{ Name: 'nofile', Soft: 1, Hard: 2 }] })).not.toThrow()
  })

  it.each<[Partial<HostConfig>, string]>([
    [{ Memory: 1 }, 'Minimum memory limit allowed is 6MB'],
    [{ Memory: -5 }, 'Invalid memory limit'],
    [{ MemorySwap: 1 << 30 }, 'You should always set the Memory limit'],
    [{ Memory: 8 << 20, MemorySwap: 7 << 20 }, 'Minimum memoryswap limit'],
    [{ Memory: 8 << 20, MemoryReservation: 9 << 20 }, 'less than memory reservation'],
    [{ NanoCpus: (cpus().length + 1) * 1e9 }, 'range of CPUs is from 0.01 to'],
    [{ NanoCpus: 1e9, CpuPeriod: 1000 }, 'Conflicting options'],
    [{ CpuPeriod: 10 }, 'CPU cfs period'],
    [{ CpuQuota: 10 }, 'CPU cfs quota'],
    [{ CpuShares: -1 }, 'shares must be positive'],
    [{ CpusetCpus: '4096' }, 'Requested CPUs are not available'],
    [{ CpusetCpus: 'x' }, 'Invalid value x for cpuset cpus'],
    [{ OomScoreAdj: 1001 }, 'oom score adj'],
    [{ BlkioWeight: 5 }, 'blkio weight'],
    [{ Ulimits: [{ Name: 'nofile', Soft: 9, Hard: 2 }] }, 'ulimit soft limit'],
  ])('refuses %o', (part, message) => {
    expect(check(part)).toThrow(message)
  })
})

describe('parseCpuList', () => {
  it('reads ranges and refuses nonsense', () => {
    expect(parseCpuList('0-2,5')).toEqual([0, 1, 2, 5])
    expect(parseCpuList('3')).toEqual([3])
    for (const bad of ['', '2-1', '-1', 'a', '0-99999', '1,,2']) expect(parseCpuList(bad), bad).toBeUndefined()
  })
})

describe('parseSecurityOptions', () => {
  it('knows what it knows and refuses the rest', () => {
    expect(parseSecurityOptions([], false)).toEqual({ noNewPrivileges: false, seccomp: 'default' })
    expect(parseSecurityOptions([], true).seccomp).toBe('unconfined')
    expect(parseSecurityOptions(['no-new-privileges', 'seccomp=unconfined'], false)).toEqual({ noNewPrivileges: true, seccomp: 'unconfined' })
    expect(parseSecurityOptions(['no-new-privileges:false'], false).noNewPrivileges).toBe(false)
    for (const bad of ['apparmor=mine', 'seccomp', 'no-new-privileges=maybe', 'label=type:x', 'x']) {
      expect(() => parseSecurityOptions([bad], false), bad).toThrow('invalid --security-opt')
    }
  })
})

describe('resolveIsolation', () => {
  it('resolves default and hyperv, and refuses what it does not know', () => {
    expect(resolveIsolation('', 'process')).toBe('process')
    expect(resolveIsolation('default', 'vm')).toBe('vm')
    expect(resolveIsolation('hyperv', 'process')).toBe('vm')
    expect(resolveIsolation('process', 'vm')).toBe('process')
    expect(() => resolveIsolation('jail', 'process')).toThrow('invalid isolation "jail"')
  })
})

describe('parseSignal', () => {
  it('reads names, numbers and real-time signals', () => {
    expect(parseSignal('TERM')).toBe(15)
    expect(parseSignal('sigkill')).toBe(9)
    expect(parseSignal('9')).toBe(9)
    expect(parseSignal('RTMIN+3')).toBe(37)
    expect(parseSignal('SIGRTMAX-1')).toBe(63)
    for (const bad of ['0', '65', 'SIGNOPE', '', 'RTMIN+99', '-1']) expect(() => parseSignal(bad), bad).toThrow('Invalid signal')
  })
})
