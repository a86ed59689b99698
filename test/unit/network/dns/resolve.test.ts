import { expect, test } from 'vitest'
import { resolveLocal, reverseAddress } from '../../../../src/network/dns/resolve.js'
import { NameTable } from '../../../../src/network/dns/table.js'
import { Type } from '../../../../src/network/dns/wire.js'
import type { Endpoint } from '../../../../src/network/types.js'

const endpoint = (containerId: string, networkId: string, address: string, names: string[], more: Partial<Endpoint> = {}): Endpoint => ({
  containerId, networkId, address, prefixLength: 24, gateway: '', mac: '', ports: [], names, ...more,
})

function world() {
  const table = new NameTable()
  const web = endpoint('web', 'n1', '10.0.1.2', ['web', 'www', 'abc123'], { ipv6: { address: 'fd00::2', prefixLength: 64, gateway: '' } })
  const web2 = endpoint('web2', 'n1', '10.0.1.3', ['web2', 'www'])
  const both1 = endpoint('both', 'n1', '10.0.1.4', ['both'], { links: { alias: 'web' } })
  const both2 = endpoint('both', 'n2', '10.0.2.4', ['both'])
  const db = endpoint('db', 'n2', '10.0.2.5', ['db', 'web'])
  for (const each of [web, web2, both1, both2, db]) table.add(each)
  const names: Record<string, string> = { n1: 'front', n2: 'back' }
  const ask = (from: Endpoint, name: string, type: number = Type.A) =>
    resolveLocal(name, type, { endpoint: from, table, networkName: (id) => names[id] })?.map((answer) => (answer.type === Type.PTR ? answer.name : answer.address.toString('hex')))
  return { table, web, web2, both1, both2, db, ask }
}

test('names, aliases and short ids of the asked network, then of all others that the asker is on', () => {
  const { web, both1, both2, db, ask } = world()
  expect(ask(web, 'web')).toEqual(['0a000102'])
  expect(ask(web, 'abc123')).toEqual(['0a000102'])
  expect(ask(web, 'db')).toBeUndefined()
  expect(ask(both1, 'db')).toEqual(['0a000205'])
  expect(ask(both1, 'web')).toEqual(['0a000102'])
  expect(ask(both2, 'web')).toEqual(['0a000205']) // asked on the other network, the other's web
  expect(ask(db, 'www')).toBeUndefined()
  expect(ask(both1, 'www')?.sort()).toEqual(['0a000102', '0a000103'])
})

test('a link is known to its container alone; a network behind a name chooses', () => {
  const { web, both1, both2, ask } = world()
  expect(ask(both1, 'alias')).toEqual(['0a000102'])
  expect(ask(web, 'alias')).toBeUndefined()
  expect(ask(both1, 'web.back')).toEqual(['0a000205'])
  expect(ask(both2, 'web.front')).toEqual(['0a000102'])
  expect(ask(web, 'db.back')).toBeUndefined()
})

test('AAAA, other types of a name that is there, and reverse names', () => {
  const { web, web2, db, ask } = world()
  expect(ask(web2, 'web', Type.AAAA)).toEqual(['fd000000000000000000000000000002'])
  expect(ask(web, 'web2', Type.AAAA)).toEqual([]) // there, without IPv6: no NXDOMAIN and nobody else is asked
  expect(ask(web, 'web', 15)).toEqual([])
  expect(ask(web2, '2.1.0.10.in-addr.arpa', Type.PTR)).toEqual(['web.front'])
  expect(ask(web2, `2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa`, Type.PTR)).toEqual(['web.front'])
  expect(ask(db, '2.1.0.10.in-addr.arpa', Type.PTR)).toBeUndefined()
  expect(reverseAddress('256.1.0.10.in-addr.arpa')).toBeUndefined()
  expect(reverseAddress('web')).toBeUndefined()
})

test('who goes takes every name along, and nobody else’s', () => {
  const { table, web, web2, ask } = world()
  table.remove(web)
  expect(ask(web2, 'www')).toEqual(['0a000103'])
  expect(ask(web2, 'web')).toBeUndefined()
  expect(table.at('n1', '10.0.1.2')).toBeUndefined()
  expect(table.endpointsOf('web')).toEqual([])
})
