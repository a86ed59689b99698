import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { cgroupMounts, parseProcCgroup, type CgroupMounts } from '../../../src/host/cgroup-layout.js'
import { blkioToIoWeight, sharesToWeight, writeLimits } from '../../../src/host/cgroup-limits.js'
import { blockStats, cpuStats, memoryStats, parseLimit, pidsStats, wasOomKilled } from '../../../src/host/cgroup-stats.js'
import { Cgroup } from '../../../src/host/cgroup.js'
import { cgroupFacts } from '../../../src/host/facts.js'
import { parseMountinfo } from '../../../src/host/mountinfo.js'

let root: string
beforeEach(() => { root = mkdtempSync(join(tmpdir(), 'hull-cgroup-')) })
afterEach(() => { rmSync(root, { recursive: true }) })

function files(content: Record<string, string>): void {
  for (const [path, text] of Object.entries(content)) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
}
const text = (path: string) => readFileSync(join(root, path), 'utf8')
const mounts = (mountinfo: string) => cgroupMounts(parseMountinfo(mountinfo), root)

const v2Line = '30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n'
const v1Lines = ['memory', 'cpu,cpuacct', 'pids', 'blkio', 'freezer', 'name=systemd']
  .map((names, i) => `${40 + i} 30 0:${40 + i} / /sys/fs/cgroup/${names.replace('name=', '')} rw - cgroup cgroup rw,${names}\n`).join('')
const unifiedLine = '60 30 0:60 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n'

describe('layout', () => {
  it('v2', async () => {
    files({ 'sys/fs/cgroup/cgroup.controllers': 'cpuset cpu io memory pids\n' })
    expect(await mounts(v2Line)).toEqual({ layout: 'v2', controllers: {}, unified: join(root, 'sys/fs/cgroup'), unifiedControllers: ['cpuset', 'cpu', 'io', 'memory', 'pids'] })
  })
  it('v1, controllers mounted together', async () => {
    const found = await mounts(v1Lines)
    expect(found.layout).toBe('v1')
    expect(found.controllers['cpu']).toBe(join(root, 'sys/fs/cgroup/cpu,cpuacct'))
    expect(found.controllers['cpuacct']).toBe(found.controllers['cpu'])
    expect(found.unified).toBeUndefined()
  })
  it('hybrid', async () => {
    expect((await mounts(v1Lines + unifiedLine)).layout).toBe('hybrid')
  })
  it('systemd\'s named hierarchy beside v2 is still v2', async () => {
    expect((await mounts(v2Line + '70 30 0:70 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n')).layout).toBe('v2')
  })
  it('none at all is an error', async () => {
    await expect(mounts('')).rejects.toThrow('no cgroup file system')
  })
  it('parses /proc/PID/cgroup', () => {
    expect(Object.fromEntries(parseProcCgroup('4:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/d\n'))).toEqual({ cpu: '/a', cpuacct: '/a', 'name=systemd': '/b:c', '': '/d' })
  })
  it('facts', async () => {
    files({ 'sys/fs/cgroup/cgroup.controllers': 'cpu memory' })
    expect(await cgroupFacts(await mounts(v2Line))).toMatchObject({ layout: 'v2', version: '2', memoryLimit: true, cpuQuota: true, pidsLimit: false, cpuset: false, blockIo: false, oomKillDisable: false })
  })
})

describe('a cgroup', () => {
  it('refuses paths that could be the host\'s own', async () => {
    const where = await mounts(v2Line)
    for (const path of ['', '/', '//', '/.', 'hull', '/a/../..', '/..', '/a\0b']) expect(() => new Cgroup(where, path), path).toThrow(TypeError)
    expect(new Cgroup(where, '//hull//x/').path).toBe('/hull/x')
    expect(new Cgroup(where, '/hull/a..b').path).toBe('/hull/a..b')
  })
  it('names each directory once', async () => {
    const group = new Cgroup(await mounts(v1Lines + unifiedLine), '/hull/x')
    expect(group.directories()).toHaveLength(7)
    expect(group.directories()).toContain(join(root, 'sys/fs/cgroup/unified/hull/x'))
    expect(group.directory('memory')).toBe(join(root, 'sys/fs/cgroup/memory/hull/x'))
    expect(group.directory('hugetlb')).toBeUndefined()
  })
  it('lists pids of nested cgroups, and nothing of one that is gone', async () => {
    files({ 'sys/fs/cgroup/hull/x/cgroup.procs': '5\n6\n', 'sys/fs/cgroup/hull/x/sub/cgroup.procs': '7\n0\n' })
    expect((await new Cgroup(await mounts(v2Line), '/hull/x').pids()).sort()).toEqual([5, 6, 7])
    expect(await new Cgroup(await mounts(v2Line), '/hull/y').pids()).toEqual([])
  })
  it('is there or not, and is removed with what is below it', async () => {
    mkdirSync(join(root, 'sys/fs/cgroup/hull/x/a/b'), { recursive: true })
    const group = new Cgroup(await mounts(v2Line), '/hull/x')
    expect(await group.exists()).toBe(true)
    await group.remove()
    expect(await group.exists()).toBe(false)
    await group.remove()
  })
  it('refuses to kill the daemon', async () => {
    files({ 'sys/fs/cgroup/hull/x/cgroup.procs': `${process.pid}\n` })
    await expect(new Cgroup(await mounts(v2Line), '/hull/x').kill(100)).rejects.toThrow('this very process')
  })
})

describe('figures of v2', () => {
  let group: Cgroup
  beforeEach(async () => { group = new Cgroup(await mounts(v2Line), '/h') })
  const put = (content: Record<string, string>) => files(Object.fromEntries(Object.entries(content).map(([name, value]) => [`sys/fs/cgroup/h/${name}`, value])))

  it('memory', async () => {
    put({ 'memory.current': '1000\n', 'memory.max': '2000\n', 'memory.swap.current': '5\n', 'memory.swap.max': '500\n', 'memory.peak': '1500\n', 'memory.events': 'low 0\noom 3\noom_kill 2\n', 'memory.stat': 'anon 10\ninactive_file 4\n' })
    expect(await memoryStats(group)).toEqual({ usage: 1000, limit: 2000, swap: 5, swapLimit: 2500, peak: 1500, oomKills: 2, stat: { anon: 10, inactive_file: 4 } })
    expect(wasOomKilled(group)).toBe(true)
  })
  it('memory without limits, swap and peak', async () => {
    put({ 'memory.current': '1\n', 'memory.max': 'max\n', 'memory.stat': '' })
    expect(await memoryStats(group)).toEqual({ usage: 1, limit: undefined, swap: undefined, swapLimit: undefined, peak: undefined, oomKills: 0, stat: {} })
    expect(wasOomKilled(group)).toBe(false)
  })
  it('cpu in nanoseconds', async () => {
    put({ 'cpu.stat': 'usage_usec 30\nuser_usec 10\nsystem_usec 20\nnr_periods 4\nnr_throttled 3\nthrottled_usec 7\n' })
    expect(await cpuStats(group)).toEqual({ total: 30000, user: 10000, kernel: 20000, periods: 4, throttledPeriods: 3, throttledTime: 7000 })
  })
  it('pids and block I/O', async () => {
    put({ 'pids.current': '3\n', 'pids.max': 'max\n', 'io.stat': '8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=9 dios=0\n254:16 rbytes=5 wbytes=6 rios=7 wios=8\n259:0 \n' })
    expect(await pidsStats(group)).toEqual({ current: 3, limit: undefined })
    expect(await blockStats(group)).toEqual([
      { major: 8, minor: 0, readBytes: 1, writeBytes: 2, readOperations: 3, writeOperations: 4 },
      { major: 254, minor: 16, readBytes: 5, writeBytes: 6, readOperations: 7, writeOperations: 8 },
      { major: 259, minor: 0, readBytes: 0, writeBytes: 0, readOperations: 0, writeOperations: 0 },
    ])
  })
  it('nothing of a cgroup that is gone', async () => {
    expect(await memoryStats(group)).toBeUndefined()
    expect(await cpuStats(group)).toBeUndefined()
    expect(await pidsStats(group)).toBeUndefined()
    expect(await blockStats(group)).toEqual([])
  })
})

describe('figures of v1', () => {
  it('all of them', async () => {
    const base = 'sys/fs/cgroup'
    files({
      [`${base}/memory/h/memory.usage_in_bytes`]: '100\n', [`${base}/memory/h/memory.limit_in_bytes`]: '9223372036854771712\n',
      [`${base}/memory/h/memory.memsw.usage_in_bytes`]: '130\n', [`${base}/memory/h/memory.memsw.limit_in_bytes`]: '9223372036854771712\n',
      [`${base}/memory/h/memory.max_usage_in_bytes`]: '200\n', [`${base}/memory/h/memory.oom_control`]: 'oom_kill_disable 0\nunder_oom 0\noom_kill 1\n', [`${base}/memory/h/memory.stat`]: 'total_inactive_file 8\n',
      [`${base}/cpu,cpuacct/h/cpuacct.usage`]: '77\n', [`${base}/cpu,cpuacct/h/cpuacct.usage_user`]: '70\n', [`${base}/cpu,cpuacct/h/cpuacct.usage_sys`]: '7\n', [`${base}/cpu,cpuacct/h/cpu.stat`]: 'nr_periods 1\nnr_throttled 1\nthrottled_time 5\n',
      [`${base}/pids/h/pids.current`]: '2\n', [`${base}/pids/h/pids.max`]: '10\n',
      [`${base}/blkio/h/blkio.throttle.io_service_bytes`]: '8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n', [`${base}/blkio/h/blkio.throttle.io_serviced`]: '8:0 Read 4\n8:0 Write 5\n',
    })
    const group = new Cgroup(await mounts(v1Lines), '/h')
    expect(await memoryStats(group)).toEqual({ usage: 100, limit: undefined, swap: 30, swapLimit: undefined, peak: 200, oomKills: 1, stat: { total_inactive_file: 8 } })
    expect(await cpuStats(group)).toEqual({ total: 77, user: 70, kernel: 7, periods: 1, throttledPeriods: 1, throttledTime: 5 })
    expect(await pidsStats(group)).toEqual({ current: 2, limit: 10 })
    expect(await blockStats(group)).toEqual([{ major: 8, minor: 0, readBytes: 1, writeBytes: 2, readOperations: 4, writeOperations: 5 }])
  })
  it('reads limits', () => {
    expect(parseLimit('max\n')).toBeUndefined()
    expect(parseLimit('-1')).toBeUndefined()
    expect(parseLimit(undefined)).toBeUndefined()
    expect(parseLimit('0\n')).toBe(0)
  })
})

describe('limits of v2', () => {
  let where: CgroupMounts
  beforeEach(async () => { where = await mounts(v2Line) })
  const put = (names: string[], value = '') => files(Object.fromEntries(names.map((name) => [`sys/fs/cgroup/h/${name}`, value])))

  it('are written in v2\'s own units', async () => {
    put(['memory.max', 'memory.swap.max', 'memory.low', 'cpu.weight', 'cpuset.cpus', 'cpuset.mems', 'pids.max', 'io.weight'])
    files({ 'sys/fs/cgroup/h/cpu.max': 'max 100000\n' })
    await writeLimits(new Cgroup(where, '/h'), { memory: 1000, memorySwap: 1500, memoryReservation: 10, cpuShares: 1024, cpuQuota: 5000, cpusetCpus: '0-1', cpusetMems: '0', pids: -1, blkioWeight: 500 })
    expect(['memory.max', 'memory.swap.max', 'memory.low', 'cpu.weight', 'cpu.max', 'cpuset.cpus', 'cpuset.mems', 'pids.max', 'io.weight'].map((name) => text(`sys/fs/cgroup/h/${name}`)))
      .toEqual(['1000', '500', '10', '39', '5000 100000', '0-1', '0', 'max', '4950'])
  })
  it('keep the other half of cpu.max', async () => {
    files({ 'sys/fs/cgroup/h/cpu.max': '7000 100000\n' })
    await writeLimits(new Cgroup(where, '/h'), { cpuPeriod: 50000 })
    expect(text('sys/fs/cgroup/h/cpu.max')).toBe('7000 50000')
    await writeLimits(new Cgroup(where, '/h'), { cpuQuota: -1 })
    expect(text('sys/fs/cgroup/h/cpu.max')).toMatch(/^max /)
  })
  it('do without swap where it is not counted, but not without the cgroup', async () => {
    put(['memory.max'])
    await writeLimits(new Cgroup(where, '/h'), { memory: 5, memorySwap: 10 })
    expect(text('sys/fs/cgroup/h/memory.max')).toBe('5')
    await expect(writeLimits(new Cgroup(where, '/gone'), { memory: 5, memorySwap: 10 })).rejects.toMatchObject({ code: 'ENOENT' })
  })
  it('refuse a sum below its part', async () => {
    put(['memory.max', 'memory.swap.max'])
    await expect(writeLimits(new Cgroup(where, '/h'), { memory: 10, memorySwap: 5 })).rejects.toMatchObject({ code: 'EINVAL' })
    expect(text('sys/fs/cgroup/h/memory.max')).toBe('')
  })
  it('say when a controller is missing', async () => {
    mkdirSync(join(root, 'sys/fs/cgroup/h'), { recursive: true })
    await expect(writeLimits(new Cgroup(where, '/h'), { pids: 5 })).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(writeLimits(new Cgroup(where, '/h'), { blkioWeight: 5 })).rejects.toMatchObject({ code: 'ENOENT' })
  })
  it('translate weights at their ends', () => {
    expect([2, 262144, 0, 1e9].map(sharesToWeight)).toEqual([1, 10000, 1, 10000])
    expect([10, 1000].map(blkioToIoWeight)).toEqual([1, 10000])
  })
})
