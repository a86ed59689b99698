import { describe, expect, it } from 'vitest'
import { nextWait, restartsAfterExit, restartsAtBoot } from '../../../src/engine/restart-policy.js'
import type { ContainerRecord } from '../../../src/engine/store.js'

type Name = ContainerRecord['hostConfig']['RestartPolicy']['Name']

function judged(name: Name, options: { exitCode?: number; stopped?: boolean; count?: number; maximum?: number; status?: ContainerRecord['state']['status'] } = {}) {
  return {
    hostConfig: { RestartPolicy: { Name: name, MaximumRetryCount: options.maximum ?? 0 } } as ContainerRecord['hostConfig'],
    restartCount: options.count ?? 0,
    state: { exitCode: options.exitCode ?? 0, stoppedByUser: options.stopped ?? false, status: options.status ?? ('exited' as const) },
  }
}

describe('restart policies', () => {
  it('wait from 100 ms to a minute, doubling, anew after ten seconds of running', () => {
    const waits: number[] = []
    let last: number | undefined
    for (let i = 0; i < 12; i++) waits.push((last = nextWait(last, 500)))
    expect(waits).toEqual([100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000])
    expect(nextWait(60_000, 10_000)).toBe(100)
    expect(nextWait(60_000, 9_999)).toBe(60_000)
  })

  it.each<[Name, Parameters<typeof judged>[1], boolean]>([
    ['', { exitCode: 1 }, false],
    ['no', { exitCode: 1 }, false],
    ['always', {}, true],
    ['always', { stopped: true }, false],
    ['unless-stopped', {}, true],
    ['unless-stopped', { stopped: true }, false],
    ['on-failure', {}, false],
    ['on-failure', { exitCode: 1 }, true],
    ['on-failure', { exitCode: 1, count: 50 }, true],
    ['on-failure', { exitCode: 1, count: 2, maximum: 3 }, true],
    ['on-failure', { exitCode: 1, count: 3, maximum: 3 }, false],
    ['on-failure', { exitCode: 137, stopped: true }, false],
  ])('%s after an exit with %j: %s', (name, options, expected) => {
    expect(restartsAfterExit(judged(name, options))).toBe(expected)
  })

  it.each<[Name, Parameters<typeof judged>[1], boolean, boolean]>([
    ['no', {}, true, false],
    ['always', {}, false, true],
    ['always', { stopped: true }, false, true],
    ['always', { status: 'created' }, false, false],
    ['unless-stopped', {}, true, true],
    ['unless-stopped', { stopped: true }, false, false],
    ['on-failure', { exitCode: 137 }, true, true],
    ['on-failure', { exitCode: 137 }, false, false],
    ['on-failure', { exitCode: 137, count: 2, maximum: 2 }, true, false],
  ])('%s when the daemon comes up, %j, was up %s: %s', (name, options, wasUp, expected) => {
    expect(restartsAtBoot(judged(name, options), wasUp)).toBe(expected)
  })
})
