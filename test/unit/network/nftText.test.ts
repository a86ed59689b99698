import { expect, test } from 'vitest'
import { droppingForward, foreignWarnings, parseChains, parseComments } from '../../../src/network/foreign.js'
import { namesOf } from '../../../src/network/names.js'
import { addCommands, chainNames, deleteCommands, elementsOf, hasElements, tableText } from '../../../src/network/nftText.js'
import type { PortBinding } from '../../../src/network/types.js'

const port = (containerPort: number, protocol: 'tcp' | 'udp', hostIp: string, hostPort: number): PortBinding => ({ containerPort, protocol, hostIp, hostPort })
const segment = { bridge: 'hull0', subnet: '172.29.0.0/16', subnet6: '', gateway: '172.29.0.1', internal: false, icc: true, masquerade: true }
const endpoint = {
  address: '172.29.0.2',
  ports: [port(80, 'tcp', '', 8080), port(53, 'udp', '0.0.0.0', 5353), port(22, 'tcp', '127.0.0.1', 2222), port(80, 'tcp', '::1', 8081)],
}

test('one command a map; exactly the same keys go', () => {
  const elements = elementsOf(endpoint)
  expect(addCommands('hull-b', elements)).toEqual([
    'add element ip hull-b ports { tcp . 8080 : 172.29.0.2 . 80, udp . 5353 : 172.29.0.2 . 53 }',
    'add element ip hull-b addressed { 127.0.0.1 . tcp . 2222 : 172.29.0.2 . 22 }',
    'add element ip hull-b own { 172.29.0.2 . tcp . 8080, 172.29.0.2 . udp . 5353 }',
    'add element ip hull-b ownAddressed { 172.29.0.2 . tcp . 2222 }',
  ])
  expect(deleteCommands('hull-b', elements)).toEqual([
    'delete element ip hull-b ports { tcp . 8080, udp . 5353 }',
    'delete element ip hull-b addressed { 127.0.0.1 . tcp . 2222 }',
    'delete element ip hull-b own { 172.29.0.2 . tcp . 8080, 172.29.0.2 . udp . 5353 }',
    'delete element ip hull-b ownAddressed { 172.29.0.2 . tcp . 2222 }',
  ])
})

test('one port on two addresses is one element of `ownAddressed`', () => {
  const elements = elementsOf({ address: '10.0.0.2', ports: [port(80, 'tcp', '127.0.0.1', 80), port(80, 'tcp', '10.1.1.1', 80)] })
  expect(elements.ownAddressed).toEqual([{ key: '10.0.0.2 . tcp . 80' }])
  expect(elements.addressed).toHaveLength(2)
})

test('IPv6 host addresses and no ports need nothing', () => {
  expect(hasElements([])).toBe(false)
  expect(hasElements([port(80, 'tcp', '::', 80)])).toBe(false)
  expect(hasElements(endpoint.ports)).toBe(true)
  expect(addCommands('t', elementsOf({ address: '10.0.0.2', ports: [port(80, 'tcp', '::', 80)] }))).toEqual([])
})

test('the table replaces itself in one script and has every chain', () => {
  const text = tableText(namesOf('hull0'), [segment], [endpoint])
  expect(text.startsWith('add table ip hull-hull0\ndelete table ip hull-hull0\ntable ip hull-hull0 {')).toBe(true)
  for (const chain of chainNames) expect(text).toContain(`  chain ${chain} {`)
  expect(text).toContain('elements = { tcp . 8080 : 172.29.0.2 . 80, udp . 5353 : 172.29.0.2 . 53 }')
  expect(text).toContain('ip saddr 172.29.0.0/16 oifname != "hull0" masquerade')
  expect(tableText(namesOf('hull0'), [], [])).not.toContain('elements')
})

test("other programs' chains", () => {
  const json = JSON.stringify({
    nftables: [
      { metainfo: { version: '1.0.6' } },
      { chain: { family: 'ip', table: 'filter', name: 'FORWARD', handle: 1, type: 'filter', hook: 'forward', prio: 0, policy: 'drop' } },
      { chain: { family: 'ip6', table: 'filter', name: 'FORWARD', handle: 1, type: 'filter', hook: 'forward', prio: 0, policy: 'accept' } },
      { chain: { family: 'ip', table: 'filter', name: 'DOCKER', handle: 2 } },
      { chain: { family: 'inet', table: 'mine', name: 'fwd', handle: 1, type: 'filter', hook: 'forward', prio: 0, policy: 'drop' } },
      { chain: { family: 'inet', table: 'firewalld', name: 'filter_FORWARD', handle: 1, type: 'filter', hook: 'forward', prio: 10, policy: 'accept' } },
    ],
  })
  const chains = parseChains(json)
  expect(chains).toHaveLength(5)
  expect(droppingForward(chains)).toEqual(['ip'])
  const warnings = foreignWarnings(chains)
  expect(warnings).toHaveLength(2)
  expect(warnings.join('\n')).toMatch(/inet mine fwd drops[^]*firewalld/)
  expect(() => parseChains('{}')).toThrow()
  expect(parseComments(JSON.stringify({ nftables: [{ rule: { handle: 4, comment: 'hull:b to', expr: [] } }, { rule: { handle: 5 } }, { chain: {} }] }))).toEqual([
    { handle: 4, comment: 'hull:b to' },
  ])
})
