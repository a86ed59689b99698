import { describe, expect, it } from 'vitest'
import { differencesOf, renderDiff } from '../../../src/compare/report/diff.js'
import { renderTable } from '../../../src/compare/report/table.js'
import { width, wrap } from '../../../src/compare/report/terminal.js'
import { formatRatio, formatSeconds, formatSpread, formatValue, plain } from '../../../src/compare/report/values.js'
import { measured } from '../../../src/compare/statistics.js'
import { comparison, hostile } from './fixture.js'

const plainScreen = (columns: number) => ({ columns, color: false })

describe('values', () => {
  it.each<[number, Parameters<typeof formatValue>[1], string]>([
    [0.0421, 'ms', '0.042 ms'], [9.995, 'ms', '10.0 ms'], [409.6, 'ms', '410 ms'], [1500, 'ms', '1.50 s'], [12.34, 'us', '12.3 µs'], [2e6, 'us', '2.00 s'], [0, 'bytes', '0 B'], [-4.35e6, 'bytes', '-4.35 MB'],
    [61e6, 'bytes', '61.0 MB'], [2474, 'MB/s', '2.47 GB/s'], [90000, 'ops/s', '90.0 k ops/s'], [995, 'events/s', '995 events/s'], [1001, 'events/s', '1001 events/s'], [10_000, 'requests/s', '10.0 k req/s'], [311, 'count', '311'], [2.5, 'count', '2.50'],
  ])('%d %s is %s', (value, unit, shown) => {
    expect(formatValue(value, unit)).toBe(shown)
  })
  it('a spread is half an interval, or how few rows there are', () => {
    expect(formatSpread(measured([100, 100, 101, 99, 104, 96], ''))).toBe('±4 %')
    expect(formatSpread(measured([100, 100, 100.2, 99.9, 100, 100], ''))).toBe('±0.1 %')
    expect(formatSpread(measured([1, 2, 3], ''))).toBe('n=3')
    expect([formatRatio(5.857), formatRatio(151), formatSeconds(321), formatSeconds(12)]).toEqual(['×5.86', '×151', '5 min 21 s', '12.0 s'])
  })
  it('hostile text is harmless', () => {
    expect(plain('a\u001b[2Jb\u0007\u202ec\u200bd\n\u009b')).toBe('a\ufffd[2Jb\ufffd\ufffdc\ufffdd\ufffd\ufffd')
  })
})

describe('a terminal', () => {
  it('counts cells, and wraps words', () => {
    expect([width('añ\u0301b'), width('日本'), width('🚢x')]).toEqual([3, 4, 3])
    expect(wrap('  one two three', 9, '    ')).toBe('  one two\n    three')
    expect(wrap('unbreakable', 3)).toBe('unbreakable')
  })
})

describe('the table', () => {
  it('has every section, the ratios, and why something is missing', () => {
    const text = renderTable(comparison(), plainScreen(130))
    for (const title of ['Start', 'Memory', 'Density', 'Speed', 'Surface', 'Escape drills', 'Portability']) expect(text).toContain(`\n${title}\n`)
    expect(text).toMatch(/create, start, first output, exit +70\.0 ms {2}±6 % +1\.50 s {2}×21\.4 ±6 % +410 ms {2}×5\.86 ±6 %/)
    expect(text).toMatch(/sysbench cpu +1000 events\/s {2}±6 % +995 events\/s {2}×0\.99 ±6 % +120 events\/s {2}×0\.12/)
    expect(text).toContain('  – gVisor: runsc is not installed')
    expect(text).toContain('  – container, VM from a template (first HTTP 200): no port was given')
    expect(text).toMatch(/fit in this host, predicted +≈ 15384 +– +≈ 327/)
    expect(text).toMatch(/write a sysctl +HOST +guest/)
    expect(text).toMatch(/host kernel functions run +2100 .*–/)
    expect(text).toContain('– VM from a template (host kernel functions run): the kernel refuses to trace functions')
    expect(text).toContain('emulated (TCG): slow, and no security boundary')
  })
  it.each([48, 60, 80, 100, 130, 200])('is as wide as the screen or less where its words allow it: %d', (columns) => {
    const lines = renderTable(comparison(), plainScreen(columns)).split('\n')
    for (const line of lines) expect(width(line), line).toBeLessThanOrEqual(columns)
    expect(lines.join('\n')).toMatch(columns < 80 ? /first output, exit\n {4}container +70\.0 ms/ : /first output, exit/)
  })
  it('has colours where there are any, and the same words without', () => {
    const colored = renderTable(comparison(), { columns: 130, color: true })
    expect(colored).toContain('\u001b[31;1mHOST\u001b[0m')
    expect(colored.replace(/\u001b\[[\d;]*m/g, '')).toBe(renderTable(comparison(), plainScreen(130)))
  })
  it('passes no control character on, whoever wrote it', () => {
    const text = hostile('x\u001b]0;owned\u0007\u202e\r\n')
    for (const shown of [renderTable(text, plainScreen(130)), renderTable(text, plainScreen(40)), renderDiff(text, text, { ...plainScreen(130), names: ['a\u001b', 'b'] })]) {
      expect(shown).toContain('owned')
      expect(shown).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e]/)
    }
  })
  it('shows a section that was skipped, and one without anything', () => {
    const one = comparison()
    one.sections = { start: { skipped: 'the time was over', notes: [], seconds: 0, figures: [] }, surface: { notes: [], seconds: 0, facts: {} } }
    expect(renderTable(one, plainScreen(80))).toMatch(/Start\n {2}not measured: the time was over\n\nSurface\n/)
    expect(renderTable({ ...one, sections: {}, isolations: [] }, plainScreen(80))).toContain('debian true')
  })
})

describe('the difference of two', () => {
  const find = (list: ReturnType<typeof differencesOf>, label: string, subject: string) => list.find((one) => one.label === label && one.subject === subject)
  it('is nothing between the same', () => {
    expect(differencesOf(comparison(), comparison()).filter(({ verdict }) => verdict !== 'same')).toEqual([])
  })
  it('tells better from worse by what is wanted, and noise from change', () => {
    const b = comparison()
    const [start] = b.sections.start!.figures
    start!.results.vm = measured([200, 201, 202, 203, 204, 205, 206], 'x')
    start!.results.process = measured([66, 68, 70, 72, 74, 76, 78], 'x')
    start!.results['vm-cold'] = measured([100, 101], 'x')
    b.sections.perf!.figures[0]!.results.vm = measured([60, 60, 60, 60, 60, 60, 61], 'x')
    b.sections.density!.curves.vm = { ...b.sections.density!.curves.process as object, bytesEach: 122e6 } as never
    b.sections.drills!.drills[1]!.results.vm!.outcome = 'host'
    const surface = b.sections.surface!.facts.process as { hostSyscalls: number }
    surface.hostSyscalls = 250
    b.host.load = 9
    b.image.id = 'sha256:cd'
    const list = differencesOf(comparison(), b)
    expect(find(list, 'create, start, first output, exit', 'vm')).toMatchObject({ verdict: 'better', a: '410 ms ±6 %', b: '203 ms ±1 %' })
    expect(find(list, 'create, start, first output, exit', 'process')).toMatchObject({ verdict: 'same' })
    expect(find(list, 'create, start, first output, exit', 'vm-cold')).toMatchObject({ verdict: 'unknown' })
    expect(find(list, 'sysbench cpu', 'vm')).toMatchObject({ verdict: 'worse', ratio: 0.5 })
    expect(find(list, 'one more costs', 'vm')).toMatchObject({ verdict: 'worse', ratio: 2 })
    expect(find(list, 'read the kernel log, privileged', 'vm')).toMatchObject({ a: 'guest', b: 'host', verdict: 'worse' })
    expect(find(list, 'host system calls', 'process')).toMatchObject({ verdict: 'better' })
    const text = renderDiff(comparison(), b, { ...plainScreen(130), names: ['old.json', 'new.json'] })
    expect(text).toMatch(/! image: sha256:ab → sha256:cd\n {2}! B was measured at load 9\.0 on 2 processors/)
    expect(text).toMatch(/create, start, first output, exit +VM from a template +410 ms ±6 % +203 ms ±1 % +×0\.50 +better/)
    expect(text).toContain('5 of 41 changed.')
  })
  it('has what only one has, and two that share nothing', () => {
    const b = comparison()
    b.sections = { start: b.sections.start! }
    b.sections.start!.figures = b.sections.start!.figures.slice(0, 1)
    expect(find(differencesOf(comparison(), b), 'stop', 'vm')).toMatchObject({ a: '80.0 ms ±6 %', b: '–', verdict: 'unknown' })
    expect(renderDiff({ ...b, sections: {} }, { ...b, sections: {} }, { ...plainScreen(80), names: ['a', 'b'] })).toContain('nothing in common')
  })
})
