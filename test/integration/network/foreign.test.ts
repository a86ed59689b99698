import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { run } from '../../../src/base/run.js'

/** HULL_TEST_DOCKERD names another dockerd than the installed one. */
const dockerd = process.env['HULL_TEST_DOCKERD'] ?? ['/usr/sbin/dockerd', '/usr/bin/dockerd', '/usr/local/bin/dockerd'].find((path) => existsSync(path))

// A host of its own: network and mount namespaces with their own /sys (cgroups stay, dockerd wants them).
const enter = `set -e
mkdir -p "$1"; mount --rbind /sys/fs/cgroup "$1"; mount -t sysfs sysfs /sys; mount --move "$1" /sys/fs/cgroup; rmdir "$1"
shift; exec "$@"`

async function seenIn(program: string, netfilter: '0' | '1', file = 'foreign.fixture.ts'): Promise<Record<string, unknown>> {
  const fixture = join(import.meta.dirname, file)
  const args = ['--net', '--mount', '--propagation', 'private', 'sh', '-c', enter, 'sh', `/tmp/hull-foreign-${process.pid}`, process.execPath, '--import', 'tsx', fixture, program, netfilter]
  const result = await run('unshare', args, { timeoutMs: 100_000 })
  if (result.code !== 0) throw new Error(`fixture: ${result.code ?? result.signal}: ${result.stderr}`)
  return JSON.parse(result.stdout.trim().split('\n').at(-1)!) as Record<string, unknown>
}

const all = {
  neighbour: 'b 10.213.0.2 hi',
  world: 'world 198.51.100.1 hi',
  published: 'a 198.51.100.2 hi',
  hairpin: 'b 10.213.0.1 hi',
  self: 'a 10.213.0.1 hi',
}

function expectAll(seen: Record<string, unknown>, netfilter: string): void {
  expect((seen['before'] as string[])[0]).toBe('-P FORWARD DROP')
  expect(seen['reach']).toEqual(all)
  const rules = seen['rules'] as string[]
  expect(rules[1]).toMatch(/^-A FORWARD -o hulltf0 .*hull:hulltf0 to.* -j ACCEPT$/)
  expect(rules.at(-1)).toMatch(/^-A FORWARD -i hulltf0 .*hull:hulltf0 from.* -j ACCEPT$/)
  expect(seen['save']).toBe(0)
  // Without our rules the policy bites: the test can fail.
  expect(seen['cut']).toEqual({ neighbour: netfilter === '1' ? '' : all.neighbour, world: '', published: '', hairpin: '', self: all.self })
  expect(seen['again']).toEqual(all)
  expect(seen['after']).toEqual(seen['before'])
  expect(seen['leftovers']).toEqual([])
  expect(seen['warnings']).toEqual([])
}

test.each(['1', '0'] as const)('FORWARD policy DROP, bridge netfilter %s: our rules stand in the foreign chain, come back when they are removed, and go', async (netfilter) => {
  const seen = await seenIn('rules', netfilter)
  expectAll(seen, netfilter)
  expect((seen['rules6'] as string[]).some((rule) => rule.includes('hull:hulltf0 within'))).toBe(netfilter === '1')
})

test.skipIf(!dockerd)('a real dockerd beside us', async () => {
  expectAll(await seenIn(dockerd!, '1'), '1')
})

test('INPUT policy DROP, as ufw sets it: containers of user-defined networks still reach their name server, and the rules for that go again', async () => {
  const seen = await seenIn('', '1', 'input.fixture.ts')
  expect(seen['names']).toEqual([true, true])
  expect((seen['input'] as string[]).filter((rule) => rule.includes('hull:'))).toHaveLength(4)
  expect(seen['custom']).toEqual([])
  expect(seen['after']).toEqual(seen['before'])
})
