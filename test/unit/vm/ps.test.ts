import { describe, expect, it } from 'vitest'
import { bsdTime, elapsed, formatPs, longTime, parseProcesses, startTime } from '../../../src/sandbox/vm/ps.js'

const now = new Date(2026, 10, 23, 12, 0, 0).getTime() / 1000
const rows = parseProcesses(Buffer.from(
  `1\t0\t0\troot\tpts/0\t${now - 3700}\t65.5\t1024\t4096\tSs\tsh -c sleep 100\n` +
  `7\t1\t33\twww-data\t?\t${now - 100}\t50\t2048\t8192\tR\t/usr/sbin/nginx: worker\twith tab\n`,
))
const context = { now, memory: 262_144 }
const table = (...args: string[]) => formatPs(rows, args, context)

describe('ps', () => {
  it('prints -ef by default, as Docker asks for', () => {
    const expected = {
      Titles: ['UID', 'PID', 'PPID', 'C', 'STIME', 'TTY', 'TIME', 'CMD'],
      Processes: [
        ['root', '1', '0', '1', '10:58', 'pts/0', '00:01:05', 'sh -c sleep 100'],
        ['www-data', '7', '1', '50', '11:58', '?', '00:00:50', '/usr/sbin/nginx: worker with tab'],
      ],
    }
    expect(table()).toEqual(expected)
    expect(table('-ef')).toEqual(expected)
  })

  it('prints aux', () => {
    expect(table('aux')).toEqual({
      Titles: ['USER', 'PID', '%CPU', '%MEM', 'VSZ', 'RSS', 'TTY', 'STAT', 'START', 'TIME', 'COMMAND'],
      Processes: [
        ['root', '1', '1.8', '0.4', '4096', '1024', 'pts/0', 'Ss', '10:58', '1:05', 'sh -c sleep 100'],
        ['www-data', '7', '50.0', '0.8', '8192', '2048', '?', 'R', '11:58', '0:50', '/usr/sbin/nginx: worker with tab'],
      ],
    })
  })

  it('prints what -o names, in all its spellings', () => {
    const expected = { Titles: ['PID', 'COMMAND'], Processes: [['1', 'sh'], ['7', 'nginx:']] }
    expect(table('-o', 'pid,comm')).toEqual(expected)
    expect(table('-eo', 'pid,comm')).toEqual(expected)
    expect(table('-opid,comm')).toEqual(expected)
    expect(table('-o pid -o comm')).toEqual(expected)
    expect(table('--format=pid,comm')).toEqual(expected)
    expect(table('-o', 'pid', '-o', 'uid=WHO ME').Titles).toEqual(['PID', 'WHO ME'])
  })

  it('refuses what it cannot do, as an error of the client', () => {
    for (const [args, words] of [[['-o', 'uid'], /PID field/], [['-o', 'pid=X'], /PID field/], [['-o', 'uid=PID'], /not allowed/], [['-o', 'pid,nonsense'], /unknown user-defined format specifier "nonsense"/], [['-o'], /improper list/], [['-Q'], /not supported/]] as const) {
      expect(() => table(...args)).toThrow(expect.objectContaining({ statusCode: 400, message: expect.stringMatching(words) }))
    }
  })

  it('formats times as ps does', () => {
    expect([0, 61, 90_061].map(longTime)).toEqual(['00:00:00', '00:01:01', '01-01:01:01'])
    expect([0, 61, 90_061].map(bsdTime)).toEqual(['0:00', '1:01', '1501:01'])
    expect([5, 3661, 90_061].map(elapsed)).toEqual(['00:05', '01:01:01', '01-01:01:01'])
    expect([now - 60, now - 5 * 86_400, now - 400 * 86_400].map((start) => startTime(start, now))).toEqual(['11:59', 'Nov18', '2025'])
  })

  it('takes nothing that is not a table', () => {
    expect(() => parseProcesses(Buffer.from('1\t2\t3'))).toThrow(/fields/)
    expect(() => parseProcesses(Buffer.from('x\t0\t0\troot\t?\t0\t0\t0\t0\tS\tsh'))).toThrow(/bad number/)
    expect(parseProcesses(Buffer.from('1\t0\t0\tro\u001bot\t?\t0\t0\t0\t0\tS\tsh'))[0]!.user).toBe('ro ot')
  })
})
