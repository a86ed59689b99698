import { appendFile, link, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { conmonLogLimit, LogRotator, rotatedNumbers } from '../../../src/oci/log-rotation.js'
import { readLog } from '../../../src/oci/logs.js'

let directory: string
let path: string
let reopened: number
const exists = (name: string) => stat(name).then(() => true, () => false)
const text = (name: string) => readFile(name, 'utf8')
const wait = async (what: () => Promise<boolean>) => {
  for (let i = 0; i < 200; i++) {
    if (await what()) return
    await new Promise((done) => setTimeout(done, 20))
  }
  throw new Error('timed out')
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hull-rotate-'))
  path = join(directory, 'log')
  reopened = 0
})
afterEach(() => rm(directory, { recursive: true, force: true }))

/** A rotator whose conmon is this test: reopening makes a new, empty file. */
const rotator = (maxSize: number, maxFiles: number) =>
  new LogRotator(path, { maxSize, maxFiles }, async () => {
    reopened++
    await writeFile(`${path}.tmp`, '')
    await rename(`${path}.tmp`, path)
  })

describe('the rotation of a log', () => {
  it('moves files up and drops the oldest', async () => {
    await writeFile(path, 'a'.repeat(100))
    const subject = rotator(50, 3)
    subject.start()
    await wait(async () => (await exists(`${path}.1`)) && (await exists(path)))
    for (const letter of ['b', 'c', 'd']) {
      await appendFile(path, letter.repeat(60))
      await wait(async () => (await text(`${path}.1`).catch(() => '')).startsWith(letter) && (await exists(path)))
    }
    await appendFile(path, 'e')
    await subject.stop()
    expect(await rotatedNumbers(path)).toEqual([1, 2])
    expect((await text(`${path}.1`))[0]).toBe('d')
    expect((await text(`${path}.2`))[0]).toBe('c')
    expect(await text(path)).toBe('e')
    expect(await exists(`${path}.kept`)).toBe(false)
    expect(reopened).toBe(4)
  })

  it('keeps what conmon replaced by itself', async () => {
    await writeFile(path, 'first')
    const subject = rotator(1000, 3)
    subject.start()
    await wait(() => exists(`${path}.kept`))
    await writeFile(`${path}.tmp`, 'second')
    await rename(`${path}.tmp`, path)
    await subject.stop()
    expect(await text(`${path}.1`)).toBe('first')
    expect(await text(path)).toBe('second')
  })

  it('goes on after a death between any two steps', async () => {
    // Died after path was renamed and before conmon was told.
    await writeFile(`${path}.1`, 'a'.repeat(60))
    await link(`${path}.1`, `${path}.kept`)
    const subject = rotator(50, 3)
    subject.start()
    await wait(async () => exists(path))
    await subject.stop()
    expect(reopened).toBe(1)
    expect(await rotatedNumbers(path)).toEqual([1])
    // Died in the middle of moving up: there is a hole, and nothing above it needs to move.
    await rename(`${path}.1`, `${path}.2`)
    await writeFile(path, 'b'.repeat(60))
    const next = rotator(50, 4)
    next.start()
    await wait(async () => (await exists(`${path}.1`)) && exists(path))
    await next.stop()
    expect((await text(`${path}.1`))[0]).toBe('b')
    expect((await text(`${path}.2`))[0]).toBe('a')
  })

  it('leaves a daemon that looks late some room, whatever small files were asked for', () => {
    expect(conmonLogLimit({ maxSize: 20_000, maxFiles: 3 })).toBe(8 << 20)
    expect(conmonLogLimit({ maxSize: 10 << 20, maxFiles: 5 })).toBe(50 << 20)
    expect(conmonLogLimit({ maxSize: 20_000, maxFiles: 1 })).toBe(20_000) // conmon alone rotates
  })

  const lines = (count: number) => Array.from({ length: count }, (_, i) => `2026-11-26T00:00:00.000000000Z stdout F ${i}\n`).join('')
  const numbers = async (options: Partial<Parameters<typeof readLog>[1]> = {}) => {
    const seen: number[] = []
    for await (const entry of readLog(path, { stdout: true, stderr: true, follow: false, ...options })) seen.push(Number(entry.bytes.toString()))
    return seen
  }

  it('cuts a burst at whose end the workload ended', async () => {
    await writeFile(`${path}.1`, lines(5))
    const subject = rotator(1000, 3)
    await writeFile(path, lines(1000))
    await subject.stop() // it has not looked once
    expect((await stat(path)).size).toBeLessThanOrEqual(3000)
    expect(await rotatedNumbers(path)).toEqual([])
    const kept = await numbers()
    expect(kept.at(-1)).toBe(999)
    expect(kept).toEqual(Array.from({ length: kept.length }, (_, i) => 1000 - kept.length + i))
    expect(kept.length).toBeGreaterThan(50)
  })

  it('cuts a burst that it rotates, and not under a reader', async () => {
    await writeFile(path, lines(1000))
    const ended = new AbortController()
    const following = numbers({ follow: true, ended: ended.signal })
    await wait(async () => (await numbers()).length === 1000)
    const subject = rotator(1000, 3)
    subject.start()
    await wait(async () => (await exists(`${path}.1`)) && (await exists(path)))
    await subject.stop()
    ended.abort()
    expect(await following).toEqual(Array.from({ length: 1000 }, (_, i) => i))
    expect((await stat(`${path}.1`)).size).toBeGreaterThan(3000)
    await writeFile(path, lines(1000)) // the next life
    const next = rotator(1000, 3)
    next.start()
    await wait(async () => (await stat(`${path}.1`).catch(() => ({ size: Infinity }))).size <= 2000)
    await next.stop()
    expect((await numbers()).at(-1)).toBe(999)
    expect((await rotatedNumbers(path)).length).toBeLessThanOrEqual(2)
  })

  it('with one file begins anew', async () => {
    await writeFile(path, 'x'.repeat(60))
    const subject = rotator(50, 1)
    subject.start()
    await wait(async () => reopened === 1 && (await text(path)) === '')
    await subject.stop()
    expect(await rotatedNumbers(path)).toEqual([])
  })

  it('loses a follower nothing, however often it happens between two looks', async () => {
    const line = (n: number) => `2026-11-25T00:00:00.${String(n).padStart(9, '0')}+00:00 stdout F ${n}\n`
    await writeFile(path, line(1))
    const ended = new AbortController()
    const seen: string[] = []
    const reading = (async () => {
      for await (const entry of readLog(path, { stdout: true, stderr: true, follow: true, ended: ended.signal })) seen.push(entry.bytes.toString().trim())
    })()
    await wait(async () => seen.length === 1)
    // Three rotations at once.
    for (let n = 2; n <= 4; n++) {
      await appendFile(path, line(n * 10))
      for (let up = n; up >= 1; up--) await rename(`${path}.${up}`, `${path}.${up + 1}`).catch(() => {})
      await rename(path, `${path}.1`)
      await writeFile(path, line(n * 10 + 1))
    }
    await wait(async () => seen.length >= 7)
    ended.abort()
    await reading
    expect(seen).toEqual(['1', '20', '21', '30', '31', '40', '41'])
  })
})
