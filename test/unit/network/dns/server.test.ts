import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { within } from '../../../../src/base/timers.js'
import { framed, Forwarder, HostResolvers } from '../../../../src/network/dns/forward.js'
import { NameServer } from '../../../../src/network/dns/server.js'
import { NameTable } from '../../../../src/network/dns/table.js'
import { packet } from './packet.js'

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

test('who asks by TCP and does not read is not asked for more: the answers would fill our memory', async () => {
  const table = new NameTable()
  table.add({ containerId: 'a', networkId: 'n', address: '127.0.0.1', prefixLength: 8, gateway: '', mac: '', ports: [], names: ['a'] })
  const server = new NameServer('n', '127.0.0.1', { table, forwarder: new Forwarder(), hostResolvers: new HostResolvers(), networkName: () => 'net', mayForward: () => false })
  const { tcp } = await server.start()
  const client = connect({ host: '127.0.0.1', port: tcp })
  await new Promise((resolve) => client.once('connect', resolve))
  client.pause()
  const some = Buffer.concat(Array.from({ length: 1000 }, () => framed(packet('a', 1))))
  let stopped = false
  for (let n = 0; n < 1500 && !stopped; n++) { // more than the sockets' own buffers take, there and back
    if (client.write(some)) continue
    const drained = new Promise<void>((resolve) => client.once('drain', resolve))
    stopped = (await within(drained, 2000)) === 'timeout'
  }
  expect(stopped).toBe(true)
  // And goes on when they are read.
  let got = 0
  client.on('data', (chunk) => (got += chunk.length))
  client.resume()
  const there = got
  await sleep(1000)
  expect(got).toBeGreaterThan(there + 100_000)
  client.destroy()
  await server.close()
}, 90_000)
