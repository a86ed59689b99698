import { describe, expect, it } from 'vitest'
import type { HealthConfig } from '../../../src/engine/config-types.js'
import { afterProbe, delayOf, type HealthState, parseHealth, probeOf, type ProbeResult } from '../../../src/engine/health.js'
import { goDuration, ProbeOutput } from '../../../src/engine/health-probe.js'

const s = 1_000_000_000
const config = (part: Partial<HealthConfig>): HealthConfig => ({ Test: ['CMD', 'true'], Interval: 0, Timeout: 0, StartPeriod: 0, StartInterval: 0, Retries: 0, ...part })
const probe = probeOf(config({ Retries: 2, StartPeriod: 10 * s }), [])!
const at = (second: number, exitCode: number): ProbeResult => ({ start: new Date(second * 1000).toISOString(), end: new Date(second * 1000 + 5).toISOString(), exitCode, output: '' })
const starting: HealthState = { status: 'starting', failingStreak: 0, log: [] }

describe('a health check', () => {
  it('has Docker\'s defaults, and the shell that the image names', () => {
    expect(probeOf(config({}), [])).toEqual({ command: ['true'], interval: 30_000, timeout: 30_000, startPeriod: 0, startInterval: 5_000, retries: 3 })
    expect(probeOf(config({ Test: ['CMD-SHELL', 'a && b'] }), [])?.command).toEqual(['/bin/sh', '-c', 'a && b'])
    expect(probeOf(config({ Test: ['CMD-SHELL', 'a'] }), ['/bin/ash', '-ec'])?.command).toEqual(['/bin/ash', '-ec', 'a'])
  })

  it('is none without a test', () => {
    for (const Test of [[], ['NONE'], ['CMD'], ['OTHER', 'x']]) expect(probeOf(config({ Test }), [])).toBeUndefined()
    expect(probeOf(null, [])).toBeUndefined()
  })

  it('is unhealthy after so many failures, and healthy after one success', () => {
    let state = afterProbe(starting, probe, at(11, 1), 0)
    expect(state).toMatchObject({ status: 'starting', failingStreak: 1 })
    state = afterProbe(state, probe, at(12, 1), 0)
    expect(state).toMatchObject({ status: 'unhealthy', failingStreak: 2 })
    state = afterProbe(state, probe, at(13, 0), 0)
    expect(state).toMatchObject({ status: 'healthy', failingStreak: 0 })
    state = afterProbe(state, probe, at(14, -1), 0)
    expect(state).toMatchObject({ status: 'healthy', failingStreak: 1 })
  })

  it('counts no failure within the start period, until something was healthy', () => {
    let state = afterProbe(starting, probe, at(1, 1), 0)
    expect(state).toMatchObject({ status: 'starting', failingStreak: 0 })
    expect(state.log).toHaveLength(1)
    state = afterProbe(state, probe, at(2, 0), 0)
    state = afterProbe(state, probe, at(3, 1), 0)
    expect(state).toMatchObject({ status: 'healthy', failingStreak: 1 })
    expect(afterProbe(starting, probe, at(10, 1), 0).failingStreak).toBe(1)
  })

  it('is asked at the start interval in the start period only', () => {
    expect(delayOf(probe, 'starting', 0, 9_999)).toBe(5_000)
    expect(delayOf(probe, 'starting', 0, 10_000)).toBe(30_000)
    expect(delayOf(probe, 'healthy', 0, 1_000)).toBe(30_000)
  })

  it('keeps the last five results', () => {
    let state = starting
    for (let second = 20; second < 28; second++) state = afterProbe(state, probe, at(second, second), 0)
    expect(state.log.map((entry) => entry.exitCode)).toEqual([23, 24, 25, 26, 27])
    expect(parseHealth(JSON.stringify(state))).toEqual(state)
  })

  it('forgets what is no state', () => {
    for (const text of ['', '{', 'null', '[]', '{"status":"well"}', '{"status":"healthy","failingStreak":"1","log":[]}']) expect(parseHealth(text)).toBeUndefined()
    expect(parseHealth('{"status":"healthy","failingStreak":0,"log":[{"start":1}]}')).toEqual({ status: 'healthy', failingStreak: 0, log: [] })
  })
})

describe('the output of a probe', () => {
  const frame = (text: string, channel = 1) => {
    const payload = Buffer.from(text)
    const header = Buffer.alloc(8)
    header[0] = channel
    header.writeUInt32BE(payload.length, 4)
    return Buffer.concat([header, payload])
  }

  it('is read from frames however they are cut, both streams together', () => {
    const whole = Buffer.concat([frame('one '), frame('two ', 2), frame(''), frame('three')])
    for (let size = 1; size <= whole.length; size++) {
      const output = new ProbeOutput()
      for (let at = 0; at < whole.length; at += size) output.add(whole.subarray(at, at + size))
      expect(output.text).toBe('one two three')
    }
  })

  it('ends at 4096 bytes, and says so', () => {
    const exact = new ProbeOutput()
    exact.add(frame('x'.repeat(4096)))
    expect(exact.text).toBe('x'.repeat(4096))
    exact.add(frame('y'))
    expect(exact.text).toBe(`${'x'.repeat(4096)}...`)
    const long = new ProbeOutput()
    for (let i = 0; i < 100; i++) long.add(frame('z'.repeat(1000)))
    expect(long.text).toBe(`${'z'.repeat(4096)}...`)
  })

  it('names times as Go does', () => {
    expect([250, 1000, 1500, 30_000, 90_000, 3_600_000, 3_661_000].map(goDuration)).toEqual(['250ms', '1s', '1.5s', '30s', '1m30s', '1h0m0s', '1h1m1s'])
  })
})
