import { describe, expect, it } from 'vitest'
import { firstFree } from '../../../src/daemon/userns-remap.js'
import { idMapOf } from '../../../src/engine/checks.js'
import type { HostConfig } from '../../../src/engine/api-types.js'
import { layOut, mapText, parseSubids, toHost } from '../../../src/host/subid.js'

describe('subordinate ids', () => {
  const text = '# comment\nalice:100000:65536\nbob:200000:10\nalice:300000:5\n1000:400000:7\nalice:x:1\nalice:5\nalice:0:10\nalice:4294967290:100\nmallory:1:0\n'

  it('are the ranges of one user, by name or number, without those that no namespace may have', () => {
    expect(parseSubids(text, ['alice', '1000'])).toEqual([{ first: 100_000, count: 65_536 }, { first: 300_000, count: 5 }, { first: 400_000, count: 7 }])
    expect(parseSubids(text, ['mallory'])).toEqual([])
    expect(parseSubids('', ['alice'])).toEqual([])
  })

  it('are laid end to end', () => {
    const map = layOut([{ first: 100_000, count: 10 }, { first: 300_000, count: 5 }])
    expect(mapText(map)).toBe('0 100000 10\n10 300000 5\n')
    expect([0, 9, 10, 14, 15].map((id) => toHost(map, id))).toEqual([100_000, 100_009, 300_000, 300_004, undefined])
  })

  it('are given where nobody has any', () => {
    expect(firstFree('')).toBe(100_000)
    expect(firstFree('a:100000:65536\nb:231072:10\n', 'c:165536:65536')).toBe(231_082)
  })

  it('are refused with what shares the host', () => {
    const map = { uids: layOut([{ first: 1, count: 1 }]), gids: layOut([{ first: 1, count: 1 }]) }
    const host = (more: Partial<HostConfig>) => ({ UsernsMode: '', Privileged: false, NetworkMode: '', PidMode: '', ...more }) as HostConfig
    expect(idMapOf(host({}), map)).toBe(map)
    expect(idMapOf(host({ Privileged: true }), undefined)).toBeUndefined()
    expect(idMapOf(host({ Privileged: true, UsernsMode: 'host' }), map)).toBeUndefined()
    expect(() => idMapOf(host({ Privileged: true }), map)).toThrow('privileged mode is incompatible with user namespaces.')
    expect(() => idMapOf(host({ PidMode: 'host' }), map)).toThrow('cannot share the host PID namespace when user namespaces are enabled')
    expect(() => idMapOf(host({ NetworkMode: 'host' }), map)).toThrow("cannot share the host's network namespace when user namespaces are enabled")
  })
})
