import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { factsOfInfo, withComparison } from '../../../src/advise/facts.js'
import { parseComparison } from '../../../src/compare/schema.js'
import { lastComparison, storeComparison, storedPath } from '../../../src/compare/stored.js'
import { measured } from '../../../src/compare/statistics.js'
import { comparison } from '../compare/fixture.js'

const info = { KernelVersion: '6.18.44', MemTotal: 24e9, DriverStatus: [['VM accelerator', 'tcg'], ['Guest kernel', '6.1.0-56']] as [string, string][] }

describe('facts', () => {
  it('of a daemon without figures', () => {
    expect(factsOfInfo(info)).toMatchObject({ accelerator: 'tcg', guestKernel: '6.1.0-56', kernel: '6.18.44', memory: 24e9, start: { vm: null }, notes: [] })
    expect(factsOfInfo({ DriverStatus: [['VM accelerator', 'none']] }).accelerator).toBe('')
  })
  it('of a comparison', () => {
    const facts = withComparison(factsOfInfo(info), comparison())
    expect(facts.start).toEqual({ process: { value: 70, source: 'hull compare debian, 2026-11-27, median of 7' }, vm: { value: 410, source: 'hull compare debian, 2026-11-27, median of 7' } })
    expect(facts.slope.vm).toMatchObject({ value: 61e6, source: 'hull compare debian, 2026-11-27, 20 at once' })
    expect(facts.slower['disk-random-read']!.value).toBeCloseTo(2)
    expect(facts.slower['network-latency']!.value).toBeCloseTo(4)
    expect(facts.hostSyscalls).toMatchObject({ process: { value: 311 }, vm: { value: 58 } })
    expect(facts.escapes).toMatchObject({ process: { value: 2 }, vm: { value: 0 } })
    expect(facts.notes).toEqual([])
  })
  it('says when the figures are of another machine', () => {
    const notes = withComparison({ ...factsOfInfo(info), accelerator: 'kvm', kernel: '5', memory: 1e9 }, comparison()).notes
    expect(notes).toHaveLength(3)
    expect(notes.join()).toMatch(/kernel 6\.18\.44, this host runs 5.*24\.0 GB.*measured with tcg, this daemon has kvm/)
  })
  it('takes no slope that is nothing or less, and no ratio to nothing', () => {
    const broken = comparison()
    delete broken.sections.density
    broken.sections.memory!.figures[0]!.results = { process: measured([-4e6], 'x'), vm: { missing: 'no' } }
    broken.sections.perf!.figures[1]!.results.vm = measured([0], 'x')
    const facts = withComparison(factsOfInfo(info), broken)
    expect(facts.slope).toEqual({ process: null, vm: null })
    expect(Object.keys(facts.slower)).not.toContain(broken.sections.perf!.figures[1]!.id)
  })
})

describe('the last comparison', () => {
  const directory = mkdtempSync(join(tmpdir(), 'hull-stored-'))
  afterAll(() => rmSync(directory, { recursive: true }))
  it('is where the user\'s state is', () => {
    expect(storedPath({ XDG_STATE_HOME: '/s', HOME: '/h' })).toBe('/s/hull/compare.json')
    expect(storedPath({ XDG_STATE_HOME: 'relative', HOME: '/h' })).toBe('/h/.local/state/hull/compare.json')
  })
  it('comes back as it was; none is none', async () => {
    const path = join(directory, 'a', 'b', 'compare.json')
    expect(await lastComparison(path)).toBeUndefined()
    await storeComparison(comparison(), path)
    expect(await lastComparison(path)).toEqual(comparison())
    writeFileSync(path, '{')
    await expect(lastComparison(path)).rejects.toThrow(/not JSON/)
  })
  it.each([['{', /not JSON/], ['{}', /not a comparison/], [JSON.stringify({ ...comparison(), schemaVersion: 99 }), /schemaVersion/], [JSON.stringify({ ...comparison(), sections: [] }), /sections/],
    [JSON.stringify(comparison()).replace('"bytesEach":1300000', '"bytesEach":"many"'), /sections\.density\.curves\.process/]])('refuses what is none: %.60s', (source, message) => {
    expect(() => parseComparison(source)).toThrow(message)
  })
})
