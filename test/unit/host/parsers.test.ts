import { describe, expect, it } from 'vitest'
import { parseMeminfo, parseOsRelease } from '../../../src/host/facts.js'
import { isLinkName, parseNetDev } from '../../../src/host/link.js'
import { isAtOrBelow, parseMountinfo } from '../../../src/host/mountinfo.js'
import { parseStat, parseStatus } from '../../../src/host/process.js'
import { capUlimits, isRlimitName, parseLimits, type RlimitPowers } from '../../../src/host/rlimit.js'

describe('mountinfo', () => {
  it('takes apart a line with optional fields', () => {
    const [entry] = parseMountinfo('36 35 98:0 /mnt1 /mnt2 rw,noatime shared:1 master:7 - ext3 /dev/root rw,errors=continue\n')
    expect(entry).toEqual({
      id: 36, parentId: 35, device: '98:0', root: '/mnt1', target: '/mnt2', options: ['rw', 'noatime'], fstype: 'ext3', source: '/dev/root',
      superOptions: ['rw', 'errors=continue'], propagation: ['shared:1', 'master:7'],
    })
  })

  it('undoes the octal escapes, also next to UTF-8 and in sources', () => {
    const [entry] = parseMountinfo('1 2 0:3 /a\\134b /x\\040y\\011z\\012\u00fc\\040 rw - tmpfs src\\043\\040q rw')
    expect(entry?.root).toBe('/a\\b')
    expect(entry?.target).toBe('/x y\tz\nü ')
    expect(entry?.source).toBe('src# q')
    expect(entry?.propagation).toEqual([])
  })

  it('leaves out what is not a mount line', () => {
    expect(parseMountinfo('\nnonsense\n1 2 0:3 / /x rw tmpfs none rw\n')).toEqual([])
  })

  it('knows below from beginning alike', () => {
    expect(isAtOrBelow('/a/b', '/a/b')).toBe(true)
    expect(isAtOrBelow('/a/b/c', '/a/b')).toBe(true)
    expect(isAtOrBelow('/a/bc', '/a/b')).toBe(false)
    expect(isAtOrBelow('/anything', '/')).toBe(true)
  })
})

describe('/proc/PID/stat', () => {
  const tail = 'S 1 40 39 0 -1 4194560 100 0 0 0 7 8 0 0 20 0 1 0 1234567 8192 100'
  it('finds the start time behind any name', () => {
    for (const name of ['sh', 'a b', 'x) R 1 2 (', ')))', '']) {
      expect(parseStat(`41 (${name}) ${tail}`)).toEqual({
        pid: 41, name, state: 'S', parent: 1, processGroup: 40, session: 39, userTicks: 7, systemTicks: 8, startTime: 1234567,
      })
    }
  })
  it('refuses what is cut off', () => {
    expect(parseStat('41 (sh) S 1 40')).toBeUndefined()
    expect(parseStat('')).toBeUndefined()
  })
})

describe('/proc/PID/status', () => {
  it('reads the fields that explain needs', () => {
    const status = parseStatus('Name:\tcat\nState:\tZ (zombie)\nPPid:\t7\nUid:\t1000\t1000\t0\t0\nGroups:\t4 24 \nNSpid:\t900\t3\nVmRSS:\t   12 kB\nCapEff:\t000001fffeffffff\nNoNewPrivs:\t1\nSeccomp:\t2\n')
    expect(status).toMatchObject({ name: 'cat', state: 'Z', parent: 7, uids: [1000, 1000, 0, 0], groups: [4, 24], namespacePids: [900, 3], residentBytes: 12288, noNewPrivileges: true, seccomp: 2 })
    expect(status.capabilities.effective).toBe(0x1fffeffffffn)
    expect(status.capabilities.ambient).toBe(0n)
  })
})

describe('rlimits', () => {
  const text = 'Limit                     Soft Limit           Hard Limit           Units     \nMax cpu time              unlimited            unlimited            seconds   \nMax open files            1024                 20000                files     \nMax nice priority         0                    0                    \n'
  const powers = (mayRaise: boolean): RlimitPowers => ({ limits: parseLimits(text), mayRaise, maxFiles: 1048576 })

  it('parses limits with and without units', () => {
    const limits = parseLimits(text)
    expect(limits.get('nofile')).toEqual({ soft: 1024, hard: 20000 })
    expect(limits.get('cpu')).toEqual({ soft: Infinity, hard: Infinity })
    expect(limits.get('nice')).toEqual({ soft: 0, hard: 0 })
    expect(limits.has('core')).toBe(false)
  })
  it('caps at our own hard limit without CAP_SYS_RESOURCE', () => {
    expect(capUlimits([{ name: 'nofile', soft: 1000, hard: 50000 }], powers(false))).toEqual({ ulimits: [{ name: 'nofile', soft: 1000, hard: 20000 }], capped: ['nofile'] })
    expect(capUlimits([{ name: 'nofile', soft: -1, hard: -1 }], powers(false)).ulimits).toEqual([{ name: 'nofile', soft: 20000, hard: 20000 }])
    expect(capUlimits([{ name: 'cpu', soft: 5, hard: -1 }], powers(false))).toEqual({ ulimits: [{ name: 'cpu', soft: 5, hard: -1 }], capped: [] })
  })
  it('caps at fs.nr_open whatever the capabilities', () => {
    expect(capUlimits([{ name: 'nofile', soft: 50000, hard: 50000 }], powers(true)).capped).toEqual([])
    expect(capUlimits([{ name: 'nofile', soft: 50000, hard: -1 }], powers(true)).ulimits).toEqual([{ name: 'nofile', soft: 50000, hard: 1048576 }])
  })
  it('knows the names', () => {
    expect(isRlimitName('nproc')).toBe(true)
    expect(isRlimitName('NOFILE')).toBe(false)
    expect(isRlimitName('constructor')).toBe(false)
  })
})

describe('links', () => {
  it('takes the names that the kernel takes', () => {
    for (const name of ['eth0', 'a', 'hull-br0.5', 'fifteen-letters']) expect(isLinkName(name)).toBe(true)
    for (const name of ['', '.', '..', 'a b', 'a/b', 'a:0', 'v%d', 'sixteen-letters!', 'ü'.repeat(8)]) expect(isLinkName(name)).toBe(false)
  })
  it('parses /proc/net/dev, also where the counter touches the colon', () => {
    const text = 'Inter-|   Receive\n face |bytes    packets\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0:100 2 3 4 0 0 0 0 900 10 11 12 0 0 0 0\n'
    expect(parseNetDev(text)[1]).toEqual({ name: 'eth0', rxBytes: 100, rxPackets: 2, rxErrors: 3, rxDropped: 4, txBytes: 900, txPackets: 10, txErrors: 11, txDropped: 12 })
    expect(parseNetDev(text)).toHaveLength(2)
  })
})

describe('facts', () => {
  it('reads os-release with either quotes and escapes', () => {
    expect(parseOsRelease('ID=debian\nPRETTY_NAME="A \\"b\\" c"\nVERSION_ID=\'12\'\n# x=y\n')).toEqual({ ID: 'debian', PRETTY_NAME: 'A "b" c', VERSION_ID: '12' })
    expect(parseOsRelease('')).toEqual({ ID: '', PRETTY_NAME: '', VERSION_ID: '' })
  })
  it('reads meminfo', () => {
    expect(parseMeminfo('MemTotal:  2 kB\nMemAvailable:    1 kB\n', 'MemAvailable')).toBe(1024)
    expect(parseMeminfo('', 'SwapTotal')).toBe(0)
  })
})
