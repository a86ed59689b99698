import { describe, expect, it } from 'vitest'
import { Histogram, gauge, openMetrics } from '../../../src/base/metrics.js'
import { matchesEvent } from '../../../src/engine/event-filter.js'
import type { EngineEvent } from '../../../src/engine/events.js'

const event = (action: string, type: EngineEvent['type'] = 'container'): EngineEvent => ({
  type, action, timeNano: 1n, actor: { id: 'abc123', attributes: { name: type === 'image' ? 'docker.io/library/nginx:1.2' : 'web-1', image: 'registry:5000/team/app:2', role: 'front' } },
})

describe('filters of events', () => {
  it.each([
    [{}, true], [{ type: ['container'] }, true], [{ type: ['image', 'volume'] }, false], [{ container: ['abc'] }, true], [{ container: ['/web-1'] }, true],
    [{ container: ['web'] }, true], [{ container: ['eb-1'] }, false], [{ network: ['abc'] }, false], [{ daemon: ['abc'] }, false], [{ secret: ['abc'] }, false],
    [{ image: ['registry:5000/team/app:2'] }, true], [{ image: ['registry:5000/team/app'] }, true], [{ image: ['app'] }, false],
    [{ label: ['role'] }, true], [{ label: ['role=front', 'role=back'] }, false], [{ scope: ['local'] }, true], [{ scope: ['swarm'] }, false],
    [{ event: ['start', 'die'] }, true], [{ event: ['star'] }, false], [{ event: ['start'], container: ['other'] }, false],
  ])('%j of a start: %s', (filters, expected) => {
    expect(matchesEvent(event('start'), filters)).toBe(expected)
  })

  it('take the actions with a tail by their name, and whole', () => {
    expect(matchesEvent(event('health_status: healthy'), { event: ['health_status'] })).toBe(true)
    expect(matchesEvent(event('health_status: healthy'), { event: ['health_status: healthy'] })).toBe(true)
    expect(matchesEvent(event('health_status: healthy'), { event: ['health_status: unhealthy'] })).toBe(false)
    expect(matchesEvent(event('exec_start: sh -c true'), { event: ['exec_start'] })).toBe(true)
    expect(matchesEvent(event('exec_die'), { event: ['exec'] })).toBe(false)
  })

  it('know an image by its short name', () => {
    expect(matchesEvent(event('pull', 'image'), { image: ['nginx'] })).toBe(true)
    expect(matchesEvent(event('pull', 'image'), { image: ['ngin'] })).toBe(false)
  })
})

it('OpenMetrics text counts buckets upwards and escapes labels', () => {
  const times = new Histogram('t_seconds', 'Help.', [0.1, 1])
  for (const seconds of [0.05, 0.1, 0.5, 7]) times.observe({ kind: 'a' }, seconds)
  expect(openMetrics([gauge('g', 'A\nB', [[{ path: 'x"\\\n' }, 3]]), times.family()])).toBe(
    ['# TYPE g gauge', '# HELP g A\\nB', 'g{path="x\\"\\\\\\n"} 3', '# TYPE t_seconds histogram', '# HELP t_seconds Help.',
      't_seconds_bucket{kind="a",le="0.1"} 2', 't_seconds_bucket{kind="a",le="1"} 3', 't_seconds_bucket{kind="a",le="+Inf"} 4', 't_seconds_sum{kind="a"} 7.65', 't_seconds_count{kind="a"} 4', '# EOF', ''].join('\n'),
  )
})
