import { readFile } from 'node:fs/promises'
import { PassThrough } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { CATALOG, expectedOf, type DrillDefinition } from '../../../src/compare/drills/catalog.js'
import { judge, judgePanic, type Seen } from '../../../src/compare/drills/judge.js'
import { LONGEST_LINE, parseReport, type DrillReport } from '../../../src/compare/drills/report.js'
import { Lines } from '../../../src/compare/lines.js'
import { DRILLS, type DrillName } from '../../../src/compare/types.js'

const host = '94fd1033-3200-4545-a6a7-7f560c1ffc85'
const guest = 'a8ed9464-ca4d-46fa-9148-5f351ad0dcf6'
const token = 'hd-0123456789ab'
const before = { memoryLimit: 64 << 20, memory: 1 << 20, pidsLimit: 64, pids: 3 }
const seen = (during: Partial<typeof before> = {}): Seen => ({ boot: host, token, before, during: { ...before, ...during } })
const drill = (name: DrillName): DrillDefinition => CATALOG.find((one) => one.name === name)!
const report = (name: DrillName, more: Partial<DrillReport> = {}): DrillReport => ({ drill: name, done: true, error: '', number: 1, said: 'trying', tokens: [], boot: guest, ...more })
const line = (more: object = {}) => JSON.stringify({ drill: 'dmesg', done: true, error: '', number: 1, said: 'x', tokens: '', boot: guest, ...more })

describe('a drill\'s line, which a hostile guest may have written', () => {
  it('is read when it is one', () => {
    expect(parseReport(line({ tokens: `${token} hd-aaaaaaaaaaaa` }), 'dmesg')).toEqual({ drill: 'dmesg', done: true, error: '', number: 1, said: 'x', tokens: [token, 'hd-aaaaaaaaaaaa'], boot: guest })
    expect(parseReport(line({ boot: '' }), 'dmesg')?.boot).toBe('')
  })
  it.each<[string, string]>([
    ['no JSON', '{'], ['null', 'null'], ['a list', '[]'], ['another drill', line({ drill: 'panic' })], ['no drill', line({ drill: 'rm' })], ['a field more', line({ more: 1 })], ['a field less', '{"drill":"dmesg"}'],
    ['a cursor that moves', line({ said: 'a\u001b[2Ja' })], ['text that turns round', line({ said: 'a\u202eb' })], ['a line break', line({ said: 'a\nb' })], ['long words', line({ said: 'a'.repeat(201) })],
    ['an error that is none', line({ error: 'rm -rf' })], ['a number that is none', line({ number: '1' })], ['a number without end', line({ number: 2 ** 60 })], ['nine tokens', line({ tokens: Array(9).fill(token).join(' ') })],
    ['a token that is none', line({ tokens: 'hd-xyz' })], ['a boot id that is none', line({ boot: 'host' })], ['what is too long', `${line()}${' '.repeat(LONGEST_LINE)}`], ['a prototype', '{"__proto__":{"done":true},"drill":"dmesg"}'],
  ])('%s is none', (_name, text) => {
    expect(parseReport(text, 'dmesg')).toBeUndefined()
  })

  const frame = (text: string | Buffer, kind = 1) => {
    const head = Buffer.alloc(8)
    head[0] = kind
    head.writeUInt32BE(text.length, 4)
    return Buffer.concat([head, Buffer.from(text)])
  }
  const lineOf = async (...chunks: Buffer[]) => {
    const stream = new PassThrough()
    const found = new Lines(stream, LONGEST_LINE).next()
    for (const chunk of chunks) stream.write(chunk)
    stream.end()
    return found
  }
  it('is the first one of stdout, in whatever pieces', async () => {
    expect(await lineOf(frame('not this\n', 2), frame('{"a'), frame('":1}\nmore\n'))).toBe('{"a":1}')
    expect(await lineOf(...[...frame('ab\n')].map((byte) => Buffer.from([byte])))).toBe('ab')
  })
  it('is undefined for a flood, for silence, and for a stream that is none', async () => {
    expect(await lineOf(frame('x'.repeat(100_000)))).toBeUndefined()
    expect(await lineOf(frame(`${'x'.repeat(LONGEST_LINE + 1)}\n`))).toBeUndefined()
    expect(await lineOf()).toBeUndefined()
    expect(await lineOf(frame('no end'))).toBeUndefined()
    expect(await lineOf(Buffer.from('ABCDEFGHIJKLMNOP\n'))).toBeUndefined()
    expect(await lineOf(frame('the daemon says no', 3))).toBeUndefined()
  })
})

describe('the judge', () => {
  it('believes a token that nobody told', () => {
    for (const name of ['dmesg', 'processes', 'mknod', 'mount-disk'] as const) {
      expect(judge(drill(name), report(name, { tokens: ['hd-aaaaaaaaaaaa', token], boot: guest }), seen())).toMatchObject({ outcome: 'host' })
      expect(judge(drill(name), report(name, { tokens: [token], done: false, boot: '' }), seen()).outcome).toBe('host')
      expect(judge(drill(name), report(name, { tokens: ['hd-aaaaaaaaaaaa'] }), seen()).outcome).toBe('guest')
      expect(judge(drill(name), report(name, { boot: host }), seen()).outcome).toBe('refused')
      expect(judge(drill(name), report(name, { done: false, error: 'EPERM' }), seen())).toEqual({ outcome: 'refused', detail: 'trying: EPERM' })
    }
  })
  it('takes a kernel for the host\'s by all of its boot id', () => {
    for (const name of ['sysctl', 'module'] as const) {
      expect(judge(drill(name), report(name, { boot: host }), seen()).outcome).toBe('host')
      for (const boot of [guest, '', `${host.slice(0, 8)}${guest.slice(8)}`]) expect(judge(drill(name), report(name, { boot }), seen()).outcome).toBe('guest')
      expect(judge(drill(name), report(name, { boot: host, done: false, error: 'EROFS' }), seen()).outcome).toBe('refused')
    }
    expect(judge(drill('module'), report('module', { boot: host, done: false, error: 'ENOSYS' }), seen()).outcome).toBe('missing')
  })
  it.each<[DrillName, Partial<typeof before>]>([['cgroup', { memoryLimit: 80 << 20 }], ['pids', { pids: 65 }], ['memory', { memory: (64 << 20) + 1 }]])('%s: what the host sees counts, whatever is said', (name, during) => {
    for (const one of [report(name), report(name, { done: false, error: 'EPERM' }), undefined]) expect(judge(drill(name), one, seen(during)).outcome).toBe('host')
    expect(judge(drill(name), report(name, { boot: host }), seen()).outcome).toBe('refused')
    expect(judge(drill(name), report(name), seen()).outcome).toBe('guest')
    expect(judge(drill(name), undefined, seen()).outcome).toBe('refused')
    expect(judge(drill(name), report(name), { ...seen(), during: null }).outcome).toBe('missing')
  })
  it('a crash counts by the machine\'s end, and that of others', () => {
    expect(judgePanic(undefined, { running: false, exitCode: 137, others: true }).outcome).toBe('guest')
    expect(judgePanic(undefined, { running: false, exitCode: 137, others: false }).outcome).toBe('host')
    expect(judgePanic(report('panic', { done: false, error: 'EROFS' }), { running: true, exitCode: 0, others: true })).toEqual({ outcome: 'refused', detail: 'trying: EROFS' })
    expect(judgePanic(report('panic'), { running: true, exitCode: 0, others: true }).outcome).toBe('refused')
  })
})

describe('the catalog', () => {
  it('has every drill once', () => expect(CATALOG.map(({ name }) => name).sort()).toEqual([...DRILLS].sort()))
  it('never expects the host of a VM, nor of a container without --privileged', () => {
    for (const { expected } of CATALOG) expect([...expected.vm, expected.container[0]]).not.toContain('host')
  })
  it('knows hosts on which a drill cannot succeed', () => {
    const count = (modules: boolean, delegated: boolean) => CATALOG.filter((one) => expectedOf(one, 'container', true, { modules, delegated }) === 'host').length
    expect([count(true, false), count(false, false), count(true, true), count(false, true)]).toEqual([9, 8, 6, 5])
  })
  it('is what docs/drills.md says', async () => {
    const page = await readFile(new URL('../../../docs/drills.md', import.meta.url), 'utf8')
    const cell = (outcome: string) => (outcome === 'host' ? '**HOST**' : outcome === 'missing' ? 'not tried' : outcome)
    const outcomes = CATALOG.map(({ title, expected: { container, vm } }) => `| ${[title, ...[...container, ...vm].map(cell)].join(' | ')} |`)
    const reasons = CATALOG.map(({ name, does, harmless }) => `| \`${name}\` | ${does} | ${harmless} |`)
    expect(page.split('\n').filter((one) => one.startsWith('| ') && !one.startsWith('| drill'))).toEqual([...outcomes, ...reasons])
  })
})
