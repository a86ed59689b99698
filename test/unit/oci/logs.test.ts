import { appendFileSync, mkdtempSync, readdirSync, readlinkSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { formatTime, parseRecord, parseTime, RecordParser } from '../../../src/oci/log-records.js'
import { readLog, type LogEntry, type LogOptions } from '../../../src/oci/logs.js'
import { random } from './random.js'

const directory = mkdtempSync(join(tmpdir(), 'hull-logs-'))
afterAll(() => rmSync(directory, { recursive: true }))
let files = 0
const newPath = () => join(directory, `log${files++}`)

const stamp = (n: number) => `2026-11-23T10:00:${String(Math.floor(n / 1000) % 60).padStart(2, '0')}.${String(n % 1000).padStart(3, '0')}000001+01:00`
const nanos = (n: number) => BigInt(Date.parse('2026-11-23T09:00:00Z') + n) * 1_000_000n + 1n

/** Writes what conmon 2.1 would: one record for each line of each read, P where a read ends within a line. */
function conmon(reads: { stream: 'stdout' | 'stderr'; data: string }[], first = 0): string {
  let text = ''
  for (const [i, { stream, data }] of reads.entries()) {
    for (const line of data.match(/[^\n]*\n|[^\n]+$/g) ?? []) text += `${stamp(first + i)} ${stream} ${line.endsWith('\n') ? `F ${line}` : `P ${line}\n`}`
  }
  return text
}

async function read(path: string, options: Partial<LogOptions> = {}): Promise<LogEntry[]> {
  const entries: LogEntry[] = []
  for await (const entry of readLog(path, { stdout: true, stderr: true, follow: false, ...options })) entries.push(entry)
  return entries
}
const text = (entries: LogEntry[], stream?: 'stdout' | 'stderr') => Buffer.concat(entries.filter((entry) => !stream || entry.stream === stream).map((entry) => entry.bytes)).toString()

describe('times', () => {
  it('are read and written exactly', () => {
    expect(parseTime('2026-11-23T09:11:26.424123456+01:00')).toBe(BigInt(Date.parse('2026-11-23T08:11:26Z')) * 1_000_000n + 424_123_456n)
    expect(formatTime(parseTime('2026-11-23T09:11:26.424123456+01:00')!)).toBe('2026-11-23T08:11:26.424123456Z')
    expect(formatTime(parseTime('2026-01-01T00:00:00Z')!)).toBe('2026-01-01T00:00:00.000000000Z')
    for (const bad of ['', 'now', '2026-13-41T99:00:00Z', '2026-11-23 09:11:26Z', '2026-11-23T09:11:26']) expect(parseTime(bad)).toBeUndefined()
  })
})

describe('a log', () => {
  it('gives what was written, byte by byte', async () => {
    const path = newPath()
    writeFileSync(path, conmon([
      { stream: 'stdout', data: 'one\ntwo\n' }, { stream: 'stdout', data: 'prompt> ' }, { stream: 'stderr', data: 'oops\n' }, { stream: 'stdout', data: 'typed\n\n' },
      { stream: 'stdout', data: 'no newline at the end' },
    ]))
    const entries = await read(path)
    expect(text(entries, 'stdout')).toBe('one\ntwo\nprompt> typed\n\nno newline at the end')
    expect(text(entries, 'stderr')).toBe('oops\n')
    expect(entries.map((entry) => entry.continuation)).toEqual([false, false, false, false, true, false, false])
    expect(entries[0]!.time).toBe('2026-11-23T09:00:00.000000001Z')
    expect(text(await read(path, { stdout: false }))).toBe('oops\n')
  })

  it('is empty when it is not there', async () => {
    expect(await read(join(directory, 'none'))).toEqual([])
    expect(await read(join(directory, 'none'), { tail: 5 })).toEqual([])
  })

  it('can be cut by time, bounds included', async () => {
    const path = newPath()
    writeFileSync(path, conmon(Array.from({ length: 10 }, (_, i) => ({ stream: 'stdout' as const, data: `${i}\n` }))))
    expect(text(await read(path, { since: nanos(3) }))).toBe('3\n4\n5\n6\n7\n8\n9\n')
    expect(text(await read(path, { since: nanos(3) + 1n, until: nanos(6) }))).toBe('4\n5\n6\n')
    expect(text(await read(path, { until: nanos(-1) }))).toBe('')
    expect(text(await read(path, { tail: 3, since: nanos(8) }))).toBe('8\n9\n')
  })

  it('skips what is not a record, and finds the next', async () => {
    const path = newPath()
    const good = (n: number) => conmon([{ stream: 'stdout', data: `${n}\n` }])
    writeFileSync(path, Buffer.concat([
      Buffer.from(`${good(1)}garbage\n\n\n${good(2)}2026-11-23T10:00:00.000000001+01:00 stdin F x\n2026-11-23T10:00:00.000000001+01:00 stdout X x\n`),
      Buffer.alloc(3 << 20, 0x41), Buffer.from(`\n${good(3)}`), Buffer.from([0, 255, 254, 10]), Buffer.from(good(4)), Buffer.from(`${stamp(1)} stdout F cut off by a full disk`),
    ]))
    expect(text(await read(path))).toBe('1\n2\n3\n4\ncut off by a full disk')
  })

  it('reads rotated files before the present one', async () => {
    const path = newPath()
    writeFileSync(`${path}.2`, conmon([{ stream: 'stdout', data: 'a\n' }, { stream: 'stdout', data: 'b' }]))
    writeFileSync(`${path}.1`, conmon([{ stream: 'stdout', data: 'c\n' }]))
    writeFileSync(path, conmon([{ stream: 'stdout', data: 'd\n' }]))
    expect(text(await read(path))).toBe('a\nbc\nd\n')
    expect(text(await read(path, { tail: 1 }))).toBe('d\n')
    expect(text(await read(path, { tail: 2 }))).toBe('bc\nd\n')
    expect(text(await read(path, { tail: 99 }))).toBe('a\nbc\nd\n')
  })

  it('gives whole lines at the tail, however the streams lie between one another', async () => {
    const path = newPath()
    writeFileSync(path, conmon([
      { stream: 'stdout', data: 'first\n' }, { stream: 'stderr', data: 'e-begin ' }, { stream: 'stdout', data: 'second\n' }, { stream: 'stdout', data: 'third\n' },
      { stream: 'stderr', data: 'e-end\n' },
    ]))
    expect(text(await read(path, { tail: 0 }))).toBe('')
    expect(text(await read(path, { tail: 1 }), 'stderr')).toBe('e-begin e-end\n')
    const two = await read(path, { tail: 2 })
    expect([text(two, 'stdout'), text(two, 'stderr')]).toEqual(['third\n', 'e-begin e-end\n'])
    expect(text(await read(path, { tail: 3 }), 'stdout')).toBe('second\nthird\n')
  })

  it('does not read a big file for its tail', async () => {
    const path = newPath()
    writeFileSync(path, '')
    const block = conmon(Array.from({ length: 2000 }, (_, i) => ({ stream: 'stdout' as const, data: `line ${i}\n` })))
    for (let i = 0; i < 200; i++) appendFileSync(path, block) // 25 MB
    const started = performance.now()
    expect(text(await read(path, { tail: 2 }))).toBe('line 1998\nline 1999\n')
    expect(performance.now() - started).toBeLessThan(100)
  })
})

describe('following', () => {
  it('holds no descriptor for each of many rotations', async () => {
    const path = newPath()
    writeFileSync(path, conmon([{ stream: 'stdout', data: '0\n' }]))
    const ended = new AbortController()
    const open = () => readdirSync('/proc/self/fd').map((fd) => { try { return readlinkSync(`/proc/self/fd/${fd}`) } catch { return '' } }).filter((link) => link.startsWith(path)).length
    let most = 0
    const seen: string[] = []
    for await (const entry of readLog(path, { stdout: true, stderr: true, follow: true, ended: ended.signal })) {
      seen.push(entry.bytes.toString().trim())
      most = Math.max(most, open())
      if (seen.length === 100) ended.abort()
      else {
        renameSync(path, `${path}.1`)
        writeFileSync(path, conmon([{ stream: 'stdout', data: `${seen.length}\n` }]))
      }
    }
    expect(seen).toEqual(Array.from({ length: 100 }, (_, n) => String(n)))
    expect(most).toBeGreaterThan(2)
    expect(most).toBeLessThan(40)
  })

  it('takes no file twice when the one that it has just read is gone and an older one is not', async () => {
    const path = newPath()
    writeFileSync(`${path}.1`, conmon([{ stream: 'stdout', data: 'a\n' }]))
    writeFileSync(path, conmon([{ stream: 'stdout', data: 'b\n' }]))
    const ended = new AbortController()
    const seen: string[] = []
    for await (const entry of readLog(path, { stdout: true, stderr: true, follow: true, ended: ended.signal })) {
      seen.push(entry.bytes.toString())
      if (seen.length === 2) {
        // conmon at its own limit, in a burst: a new file in place of the old, before the daemon has seen it.
        writeFileSync(`${path}.new`, conmon([{ stream: 'stdout', data: 'c\n' }]))
        renameSync(`${path}.new`, path)
      }
      if (seen.length >= 3) ended.abort()
    }
    expect(seen.join('')).toBe('a\nb\nc\n')
  })

  it('gives each line once, until the container has ended', async () => {
    const path = newPath()
    const ended = new AbortController()
    const seen = read(path, { follow: true, ended: ended.signal })
    for (let i = 0; i < 50; i++) {
      const line = conmon([{ stream: 'stdout', data: `${i}\n` }])
      // In two writes, as a reader may see it: half a record is none.
      appendFileSync(path, line.slice(0, 20))
      await new Promise((resolve) => setTimeout(resolve, i % 3))
      appendFileSync(path, line.slice(20))
    }
    ended.abort()
    expect(text(await seen)).toBe(Array.from({ length: 50 }, (_, i) => `${i}\n`).join(''))
  })

  it('goes on in the new file when the log is rotated', async () => {
    const path = newPath()
    const ended = new AbortController()
    writeFileSync(path, conmon([{ stream: 'stdout', data: 'old\n' }]))
    const seen = read(path, { follow: true, ended: ended.signal })
    await new Promise((resolve) => setTimeout(resolve, 20))
    renameSync(path, `${path}.1`)
    appendFileSync(`${path}.1`, conmon([{ stream: 'stdout', data: 'late\n' }])) // conmon has not heard of it yet
    writeFileSync(`${path}.tmp`, '')
    renameSync(`${path}.tmp`, path)
    appendFileSync(path, conmon([{ stream: 'stdout', data: 'new\n' }]))
    await new Promise((resolve) => setTimeout(resolve, 50))
    appendFileSync(path, conmon([{ stream: 'stdout', data: 'newer\n' }]))
    ended.abort()
    expect(text(await seen)).toBe('old\nlate\nnew\nnewer\n')
  })

  it('ends at once when the client goes, and at the time that was asked for', async () => {
    const path = newPath()
    writeFileSync(path, conmon([{ stream: 'stdout', data: 'x\n' }]))
    const stop = new AbortController()
    const seen = read(path, { follow: true, stop: stop.signal })
    setTimeout(() => stop.abort(), 30)
    expect(text(await seen)).toBe('x\n')
    expect(text(await read(path, { follow: true, until: BigInt(Date.now() + 50) * 1_000_000n }))).toBe('x\n')
  })

  it('closes its files when the reader stops in the middle', async () => {
    const { readdirSync } = await import('node:fs')
    const path = newPath()
    writeFileSync(path, conmon([{ stream: 'stdout', data: 'x\ny\n' }]))
    const before = readdirSync('/proc/self/fd').length
    for (let i = 0; i < 10; i++) for await (const _ of readLog(path, { stdout: true, stderr: true, follow: true })) break
    expect(readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before + 1)
  })
})

describe('fuzz', () => {
  it('gives back any output in any chunks, and the right tail', async () => {
    const next = random(1)
    for (let round = 0; round < 60; round++) {
      const reads = Array.from({ length: next(30) }, () => ({
        stream: next(3) === 0 ? ('stderr' as const) : ('stdout' as const),
        data: Array.from({ length: 1 + next(12) }, () => (next(4) === 0 ? '\n' : String.fromCharCode(32 + next(95)))).join(''),
      }))
      const path = newPath()
      const content = conmon(reads)
      writeFileSync(path, content)
      const all = await read(path)
      for (const stream of ['stdout', 'stderr'] as const) expect(text(all, stream)).toBe(reads.filter((entry) => entry.stream === stream).map((entry) => entry.data).join(''))
      // Lines in the order of their ends; what is open at the end comes last.
      const lines = [...text(all, 'stdout').split('\n').slice(0, -1), ...text(all, 'stderr').split('\n').slice(0, -1)].length
        + (['stdout', 'stderr'] as const).filter((stream) => !/(^|\n)$/.test(text(all, stream))).length
      const count = next(lines + 3)
      const tail = await read(path, { tail: count })
      const got = (['stdout', 'stderr'] as const).map((stream) => text(tail, stream))
      const lengths = got.map((part) => part.split('\n').length - 1 + (/(^|\n)$/.test(part) ? 0 : 1))
      expect(lengths[0]! + lengths[1]!).toBe(Math.min(count, lines))
      for (const [i, stream] of (['stdout', 'stderr'] as const).entries()) {
        const whole = text(all, stream)
        expect(whole.endsWith(got[i]!)).toBe(true)
        const rest = whole.slice(0, whole.length - got[i]!.length)
        expect(rest === '' || got[i] === '' || rest.endsWith('\n')).toBe(true) // cut between lines only
      }
      // The parser, byte by byte and in odd chunks.
      const parser = new RecordParser()
      const records = []
      const bytes = Buffer.from(content)
      for (let at = 0; at < bytes.length; ) {
        const length = 1 + next(40)
        records.push(...parser.push(bytes.subarray(at, at + length)))
        at += length
      }
      expect(Buffer.concat(records.map((record) => record.bytes)).toString()).toBe(text(all))
    }
  })

  it('survives garbage', async () => {
    const next = random(2)
    const valid = Buffer.from(conmon([{ stream: 'stdout', data: 'abc\n' }, { stream: 'stderr', data: 'partial' }]))
    for (let round = 0; round < 300; round++) {
      const bytes = Buffer.concat(Array.from({ length: 1 + next(4) }, () => Buffer.from(valid)))
      for (let i = 0; i < 1 + next(30); i++) bytes[next(bytes.length)] = next(256)
      const parser = new RecordParser()
      for (const record of parser.push(bytes)) expect(['stdout', 'stderr']).toContain(record.stream)
      parser.end()
      parseRecord(bytes, true)
      const path = newPath()
      writeFileSync(path, bytes)
      await read(path, { tail: next(5) })
    }
  })
})
