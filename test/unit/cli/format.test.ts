import { describe, expect, it } from 'vitest'
import { displayPorts, containerColumns, filtersOf } from '../../../src/cli/commands/lists.js'
import { formatSections } from '../../../src/cli/commands/explain.js'
import { formatFinding, summary } from '../../../src/cli/doctor/report.js'
import { atLeast } from '../../../src/cli/doctor/checks.js'
import { formatRows } from '../../../src/cli/format/rows.js'
import { formatTable } from '../../../src/cli/format/table.js'
import { binarySize, ellipsis, humanDuration, humanSize, parseBytes, parseCpus, parseDuration, parseTimestamp } from '../../../src/cli/format/units.js'
import type { ContainerRow } from '../../../src/cli/api.js'

const now = Date.parse('2026-11-23T09:00:00Z')
const rows: ContainerRow[] = [
  {
    Id: '8dfafdbc3a40e6c8d3c0fbd0a5a6b1d9a3b7a8e1f2c3d4e5f60718293a4b5c6d', Names: ['/boring_feynman'], Image: 'busybox:latest', ImageID: 'sha256:d74e508020d06c',
    Command: "sh -c 'while true; do echo a long line; done'", Created: 1763887000, State: 'running', Status: 'Up 2 minutes',
    Ports: [{ IP: '0.0.0.0', PrivatePort: 80, PublicPort: 8080, Type: 'tcp' }, { PrivatePort: 443, Type: 'tcp' }, { PrivatePort: 444, Type: 'tcp' }],
    Labels: { a: 'b', c: '' }, SizeRw: 12288, SizeRootFs: 4300000, NetworkSettings: { Networks: { bridge: {} } }, Mounts: [],
    HostConfig: { NetworkMode: 'bridge', Annotations: { 'org.hull.isolation': 'vm' } },
  },
  {
    Id: '9cd87474be90', Names: ['/x'], Image: 'ubuntu:22.04', ImageID: 'sha256:d74', Command: 'sh', Created: 1763880000, State: 'exited',
    Status: 'Exited (0) 3 hours ago', Ports: [], Labels: {}, NetworkSettings: { Networks: { bridge: {} } }, Mounts: [],
  },
]
const defaults = ['ID', 'Image', 'Command', 'RunningFor', 'Status', 'Ports', 'Names']
const ps = (format: string, trunc = true, fields = defaults) =>
  formatRows(rows, containerColumns(trunc, now), fields, format, (row, label) => row.Labels?.[label] ?? '')

describe('ps', () => {
  // What the docker CLI 28.2.2 printed for the same JSON, byte by byte.
  it('prints the table of the docker CLI', () => {
    expect(ps('')).toBe(
      'CONTAINER ID   IMAGE            COMMAND                  CREATED         STATUS                   PORTS                               NAMES\n' +
      '8dfafdbc3a40   busybox:latest   "sh -c \'while true; …"   12 months ago   Up 2 minutes             443-444/tcp, 0.0.0.0:8080->80/tcp   boring_feynman\n' +
      '9cd87474be90   ubuntu:22.04     "sh"                     12 months ago   Exited (0) 3 hours ago                                       x\n',
    )
  })
  it('does not truncate on demand', () => {
    const [, first] = ps('', false).split('\n')
    expect(first).toBe('8dfafdbc3a40e6c8d3c0fbd0a5a6b1d9a3b7a8e1f2c3d4e5f60718293a4b5c6d   busybox:latest   "sh -c \'while true; do echo a long line; done\'"   12 months ago   Up 2 minutes             443-444/tcp, 0.0.0.0:8080->80/tcp   boring_feynman')
  })
  it('takes table templates', () => {
    expect(ps('table {{.Names}}\\t{{.State}}\t{{.Size}}\\t{{.RunningFor}} x')).toBe(
      'NAMES            STATE     SIZE                     CREATED x\n' +
      'boring_feynman   running   12.3kB (virtual 4.3MB)   12 months ago x\n' +
      'x                exited    0B                       12 months ago x\n',
    )
  })
  it('takes templates and json', () => {
    expect(ps('{{.ID}} {{.Isolation}}')).toBe('8dfafdbc3a40 vm\n9cd87474be90 \n')
    expect(ps('{{.Names}}')).toBe('boring_feynman\nx\n')
    expect(ps('{{.Labels}} {{.Label "a"}}')).toBe('a=b,c= b\n \n')
    const [first] = ps('json').split('\n')
    expect(JSON.parse(first!)).toMatchObject({
      Command: '"sh -c \'while true; …"', CreatedAt: '2025-11-23 08:36:40 +0000 UTC', ID: '8dfafdbc3a40', Labels: 'a=b,c=', LocalVolumes: '0', Names: 'boring_feynman',
      Networks: 'bridge', Ports: '443-444/tcp, 0.0.0.0:8080->80/tcp', RunningFor: '12 months ago', Size: '12.3kB (virtual 4.3MB)', State: 'running', Status: 'Up 2 minutes',
    })
    expect(Object.keys(JSON.parse(first!) as object)).toEqual(Object.keys(JSON.parse(first!) as object).sort())
    expect(JSON.parse(ps('{{json .}}').split('\n')[1]!)).toMatchObject({ Names: 'x' })
    expect(() => ps('{{.Nope}}')).toThrow('no entry for key "Nope"')
  })
  it('joins neighbouring ports', () => {
    expect(displayPorts([
      { IP: '0.0.0.0', PrivatePort: 81, PublicPort: 81, Type: 'tcp' }, { IP: '0.0.0.0', PrivatePort: 80, PublicPort: 80, Type: 'tcp' },
      { IP: '::', PrivatePort: 80, PublicPort: 80, Type: 'tcp' }, { PrivatePort: 53, Type: 'udp' }, { PrivatePort: 55, Type: 'udp' },
    ])).toBe('53/udp, 55/udp, 0.0.0.0:80-81->80-81/tcp, [::]:80->80/tcp')
  })
  it('reads filters', () => {
    expect(filtersOf(['status=running', 'label=a=b', 'status=exited'])).toEqual({ status: { running: true, exited: true }, label: { 'a=b': true } })
    expect(() => filtersOf(['status'])).toThrow('bad format of filter')
  })
})

describe('tables and units', () => {
  it('pads to the widest cell, with a minimum of ten', () => {
    expect(formatTable([['A', 'B', 'C'], ['1', 'longer than ten', '3']])).toBe('A         B                 C\n1         longer than ten   3\n')
    expect(formatTable([['ä…', 'x']])).toBe('ä…        x\n')
    expect(formatTable([])).toBe('')
  })
  it.each<[number, string, string]>([[0, '0B', '0B'], [999, '999B', '999B'], [12288, '12.3kB', '12KiB'], [4261574, '4.26MB', '4.06MiB'], [165261574, '165MB', '158MiB']])('%d bytes', (bytes, decimal, binary) => {
    expect(humanSize(bytes, 3)).toBe(decimal)
    expect(binarySize(bytes, 3)).toBe(binary)
  })
  it.each<[number, string]>([
    [400, 'Less than a second'], [1000, '1 second'], [59_999, '59 seconds'], [60_000, 'About a minute'], [150_000, '2 minutes'], [3_600_000, 'About an hour'],
    [5_400_000, '2 hours'], [47 * 3_600_000, '47 hours'], [48 * 3_600_000, '2 days'], [14 * 86_400_000, '2 weeks'], [60 * 86_400_000, '2 months'], [730 * 86_400_000, '2 years'],
  ])('%d ms is %s', (ms, text) => { expect(humanDuration(ms)).toBe(text) })
  it.each<[string, number]>([['0', 0], ['100', 100], ['64m', 67108864], ['64M', 67108864], ['64mb', 67108864], ['64MiB', 67108864], ['1.5g', 1610612736], ['1 k', 1024], ['5b', 5], ['1t', 2 ** 40]])(
    '%s bytes', (text, bytes) => { expect(parseBytes(text)).toBe(bytes) })
  it.each(['', '-1', '1q', '3x', '1.2.3', 'm', '64 m b', '1ib0', '1i'])('%j is no size', (text) => { expect(() => parseBytes(text)).toThrow(/invalid s/) })
  it('reads CPUs', () => {
    expect([parseCpus('1.5'), parseCpus('.1'), parseCpus('2'), parseCpus('0.000000001')]).toEqual([1.5e9, 1e8, 2e9, 1])
    expect(() => parseCpus('0.0000000001')).toThrow('too precise')
    expect(() => parseCpus('one')).toThrow('failed to parse one')
    expect(() => parseCpus('-1')).toThrow('failed to parse -1')
  })
  it('reads durations and moments', () => {
    expect([parseDuration('1h30m'), parseDuration('1.5s'), parseDuration('300ms'), parseDuration('0'), parseDuration('5'), parseDuration('x'), parseDuration('1hx')])
      .toEqual([5400e9, 1.5e9, 3e8, 0, undefined, undefined, undefined])
    const at = Date.parse('2026-01-02T03:04:05Z')
    expect(parseTimestamp('5s', at)).toBe(`${at / 1000 - 5}.000000000`)
    expect(parseTimestamp('1500ms', at)).toBe(`${at / 1000 - 2}.500000000`)
    expect(parseTimestamp('1700000000.5')).toBe('1700000000.5')
    expect(parseTimestamp('2026-01-02T03:04:05Z')).toBe(`${at / 1000}.000000000`)
    expect(parseTimestamp('2026-01-02T03:04:05.123456789Z')).toBe(`${at / 1000}.123456789`)
    expect(parseTimestamp('2026-01-02T05:04:05+02:00')).toBe(`${at / 1000}.000000000`)
    expect(() => parseTimestamp('yesterday')).toThrow('failed to parse value as time or duration: "yesterday"')
    expect(() => parseTimestamp('2026-13-40')).toThrow('failed to parse')
  })
  it('cuts by characters, not by bytes', () => { expect([ellipsis('abcdef', 4), ellipsis('äöü', 3), ellipsis('äöüß', 3), ellipsis('ab', 1)]).toEqual(['abc…', 'äöü', 'äö…', 'a']) })
})

describe('explain and doctor', () => {
  it('aligns the sections of explain', () => {
    expect(formatSections([{ Title: 'Namespaces', Rows: [['pid', '4026532'], ['network', 'own\nsecond line']] }, { Title: 'Limits', Rows: [['memory', '']] }])).toBe(
      'Namespaces\n  pid      4026532\n  network  own\n           second line\n\nLimits\n  memory\n')
  })
  it('says what to do only where something is wrong', () => {
    expect(formatFinding({ name: 'crun', verdict: 'fail', detail: 'not installed', fix: 'apt-get install crun' }, false)).toBe('✗ crun: not installed\n    → apt-get install crun\n')
    expect(formatFinding({ name: 'crun', verdict: 'ok', detail: '1.8.1', fix: 'x' }, false)).toBe('✓ crun: 1.8.1\n')
    expect(formatFinding({ name: 'KVM', verdict: 'warn', detail: 'no' }, true)).toBe('\x1b[33m!\x1b[0m KVM: no\n')
    expect(summary([{ name: 'a', verdict: 'fail', detail: '' }, { name: 'b', verdict: 'warn', detail: '' }])).toBe('1 needed part is missing, 1 warning\n')
    expect(summary([{ name: 'a', verdict: 'ok', detail: '' }])).toBe('everything that is needed is there\n')
  })
  it('compares versions by number', () => {
    expect([atLeast('1.10', '1.9'), atLeast('7.2.22', '7.2'), atLeast('1.8.1', '1.8.2'), atLeast('2', '2.0.0'), atLeast('6.1.0-56-cloud', '5.12')]).toEqual([true, true, false, true, true])
  })
})
