import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import { afterAll, describe, expect, it } from 'vitest'
import { ExitDirectory } from '../../../src/oci/exits.js'
import { selectRows } from '../../../src/sandbox/process/top.js'
import { parseNetDev } from '../../../src/sandbox/process/stats.js'

describe('top', () => {
  it('keeps the rows of the container, and the spaces of its commands', () => {
    const output = 'UID   PID  PPID CMD\nroot    1     0 /sbin/init\nroot   10     1 sh -c  a   b\n100    11    10 x\n'
    expect(selectRows(output, new Set([10, 11]))).toEqual({ Titles: ['UID', 'PID', 'PPID', 'CMD'], Processes: [['root', '10', '1', 'sh -c a b'], ['100', '11', '10', 'x']] })
    expect(() => selectRows('UID CMD\n', new Set())).toThrow("Couldn't find PID field in ps output")
  })

  it('keeps threads with their process', () => {
    expect(selectRows('PID TID CMD\n10 - a\n- 10 -\n11 - b\n- 11 -\n', new Set([11])).Processes).toEqual([['11', '-', 'b'], ['-', '11', '-']])
  })
})

describe('network figures', () => {
  it('are summed over links, without lo', () => {
    const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    1000      10    1    2    0     0          0         0     2000      20    3    4    0     0       0          0
  eth1:       1       1    1    1    0     0          0         0        1       1    1    1    0     0       0          0
`
    expect(parseNetDev(text)).toEqual({ name: 'eth0', rxBytes: 1001, rxPackets: 11, rxErrors: 2, rxDropped: 3, txBytes: 2001, txPackets: 21, txErrors: 4, txDropped: 5 })
    expect(parseNetDev('')).toBeUndefined()
  })
})

describe('the exit directory', () => {
  const path = mkdtempSync(join(tmpdir(), 'hull-exits-'))
  afterAll(() => rmSync(path, { recursive: true }))

  it('tells each container of its own file', async () => {
    const directory = ExitDirectory.of(path)
    const seen: string[] = []
    directory.add('a', () => seen.push('a'))
    directory.add('b', () => seen.push('b'))
    writeFileSync(join(path, 'b'), '0')
    await expect.poll(() => seen).toContain('b')
    expect(seen).not.toContain('a')
    directory.remove('a')
    directory.remove('b')
    expect(ExitDirectory.of(path)).not.toBe(directory) // nothing is kept
  })
})
