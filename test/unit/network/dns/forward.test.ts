import { expect, test } from 'vitest'
import { Forwarder } from '../../../../src/network/dns/forward.js'
import { parseQuery, Type } from '../../../../src/network/dns/wire.js'
import { packet } from './packet.js'

// connect(2) to the broadcast address fails at once on any machine, as one to any server does on a machine without a route (ENETUNREACH).
test.each(['udp', 'tcp'] as const)('a server that cannot even be sent to is no answer (%s)', async (transport) => {
  const question = packet('nowhere.example', Type.A)
  const answer = await new Forwarder().ask(question, parseQuery(question), ['255.255.255.255'], transport, 'one')
  expect(answer).toBeUndefined()
})
