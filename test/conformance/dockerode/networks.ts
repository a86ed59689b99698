import { expect } from 'vitest'
import { cases, check, refused, until } from './harness.js'

check('networks', 'the predefined ones', async (c) => {
  const rows = await c.docker.listNetworks()
  expect(rows.map(({ Name, Driver, Scope }) => ({ Name, Driver, Scope }))).toEqual(
    expect.arrayContaining([{ Name: 'bridge', Driver: 'bridge', Scope: 'local' }, { Name: 'host', Driver: 'host', Scope: 'local' }, { Name: 'none', Driver: 'null', Scope: 'local' }]),
  )
})

check('networks', 'create, inspect, remove', async (c) => {
  const made = await c.network({ Labels: { k: 'v' }, IPAM: { Driver: 'default', Config: [{ Subnet: '10.214.1.0/24', Gateway: '10.214.1.254' }] } })
  expect(await made.inspect()).toMatchObject({ Id: made.id, Driver: 'bridge', Scope: 'local', Internal: false, Attachable: false, EnableIPv6: false, Labels: { k: 'v' }, Options: {}, Containers: {}, IPAM: { Driver: 'default', Config: [{ Subnet: '10.214.1.0/24', Gateway: '10.214.1.254' }] } })
  await made.remove()
  await refused(404, /not found/i, made.inspect())
})

check('networks', 'containers of one network find each other by name, alias and short id', async (c) => {
  const network = await c.network()
  const { Name } = (await network.inspect()) as { Name: string }
  const server = await c.start({ name: c.name(), HostConfig: { NetworkMode: Name }, NetworkingConfig: { EndpointsConfig: { [Name]: { Aliases: ['alias-one'] } } } })
  const said = await server.inspect()
  const client = await c.start({ HostConfig: { NetworkMode: Name } })
  for (const name of [said.Name.slice(1), 'alias-one', server.id.slice(0, 12)]) {
    const ping = await c.exec(client, ['ping', '-c', '1', '-W', '5', name])
    expect(ping.out, `${name}: ${ping.out}${ping.err}`).toContain(said.NetworkSettings.Networks[Name]!.IPAddress)
  }
})

check('networks', 'a name goes with its container', async (c) => {
  const network = await c.network()
  const { Name } = (await network.inspect()) as { Name: string }
  const server = await c.start({ name: c.name(), HostConfig: { NetworkMode: Name } })
  const name = (await server.inspect()).Name.slice(1)
  const client = await c.start({ HostConfig: { NetworkMode: Name } })
  expect((await c.exec(client, ['ping', '-c', '1', '-W', '5', name])).code).toBe(0)
  await server.remove({ force: true })
  await until('the name is unknown', async () => (await c.exec(client, ['ping', '-c', '1', '-W', '1', name])).code !== 0)
})

check('networks', 'connect and disconnect while running', async (c) => {
  const network = await c.network()
  const { Name } = (await network.inspect()) as { Name: string }
  const made = await c.start()
  await network.connect({ Container: made.id, EndpointConfig: { Aliases: ['late'] } })
  const said = await made.inspect()
  expect(Object.keys(said.NetworkSettings.Networks).toSorted()).toEqual([Name, 'bridge'].toSorted())
  expect(Object.keys((await network.inspect()).Containers as object)).toEqual([made.id])
  const other = await c.start({ HostConfig: { NetworkMode: Name } })
  expect((await c.exec(other, ['ping', '-c', '1', '-W', '5', 'late'])).code).toBe(0)
  await network.disconnect({ Container: made.id })
  expect(Object.keys((await made.inspect()).NetworkSettings.Networks)).toEqual(['bridge'])
})

check('networks', 'connected before the start', async (c) => {
  const [first, second] = [await c.network(), await c.network()]
  const names = [((await first.inspect()) as { Name: string }).Name, ((await second.inspect()) as { Name: string }).Name]
  const made = await c.create({ script: 'ls /sys/class/net | grep -c eth', HostConfig: { NetworkMode: names[0]! } })
  await second.connect({ Container: made.id })
  await made.start()
  await made.wait()
  expect((await made.logs({ stdout: true, follow: false })).subarray(8).toString()).toBe('2\n')
})

check('networks', 'a published port works in a network of the user', async (c) => {
  const network = await c.network()
  const { Name } = (await network.inspect()) as { Name: string }
  const made = await c.start({ script: 'while :; do echo served | nc -l -p 80; done', ExposedPorts: { '80/tcp': {} }, HostConfig: { NetworkMode: Name, PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '' }] } } })
  const [binding] = (await made.inspect()).NetworkSettings.Ports['80/tcp']!
  const { connect } = await import('node:net')
  const answer = () =>
    new Promise<string>((resolve) => {
      let read = ''
      connect(Number(binding!.HostPort), '127.0.0.1').on('data', (chunk) => (read += chunk.toString())).on('error', () => {}).on('close', () => resolve(read))
    })
  expect(await until('the port answers', async () => (await answer()) || undefined)).toBe('served\n')
})

check('networks', 'list filters', async (c) => {
  const label = c.name()
  const made = await c.network({ Labels: { [label]: 'v' } })
  const ids = async (filters: object) => (await c.docker.listNetworks({ filters } as object)).map((row) => row.Id)
  expect(await ids({ label: [label] })).toEqual([made.id])
  expect(await ids({ id: [made.id] })).toEqual([made.id])
  expect(await ids({ type: ['custom'] })).toContain(made.id)
  expect(await ids({ dangling: ['true'] })).toContain(made.id)
  expect(await ids({ scope: ['local'] })).toContain(made.id)
})

check('networks', 'IPv6', async (c) => {
  const made = await c.network({ EnableIPv6: true, IPAM: { Config: [{ Subnet: 'fd00:214:1::/64' }] } })
  const { Name } = (await made.inspect()) as { Name: string }
  const first = await c.start({ HostConfig: { NetworkMode: Name } })
  const address = (await first.inspect()).NetworkSettings.Networks[Name]!.GlobalIPv6Address
  expect(address).toMatch(/^fd00:214:1::/)
  const second = await c.start({ HostConfig: { NetworkMode: Name } })
  expect((await c.exec(second, ['ping', '-6', '-c', '1', '-W', '5', address])).code).toBe(0)
})

check('networks', 'prune', async (c) => {
  const label = c.name()
  const made = await c.network({ Labels: { [label]: '' } })
  const { Name } = (await made.inspect()) as { Name: string }
  expect(await c.docker.pruneNetworks({ filters: { label: [label] } } as object)).toEqual({ NetworksDeleted: [Name] })
})

cases<[object, number, RegExp]>('networks', 'refused', [
  ['a predefined name', { Name: 'host' }, 403, /operation is not permitted on predefined host network/],
  ['an unknown driver', { Name: 'x1', Driver: 'nosuch' }, 404, /nosuch/],
  ['a gateway outside the subnet', { Name: 'x2', IPAM: { Config: [{ Subnet: '10.214.2.0/24', Gateway: '10.99.0.1' }] } }, 400, /gateway|no matching subnet/i],
], async (c, body, status, words) => {
  await refused(status, words, c.docker.createNetwork({ Name: '', ...body }).then((made) => c.later(() => made.remove())))
})

check('networks', 'refused when in use, twice, or not there', async (c) => {
  const made = await c.network()
  const { Name } = (await made.inspect()) as { Name: string }
  const container = await c.start({ HostConfig: { NetworkMode: Name } })
  await refused(403, /has active endpoints/, made.remove())
  await refused(403, /already exists in network|endpoint with name .* already exists/, made.connect({ Container: container.id }))
  await refused(404, /nosuch/, c.docker.getNetwork('nosuch').inspect())
  await refused(403, /pre-defined/, c.docker.getNetwork('bridge').remove())
  await refused(409, /already exists/, c.docker.createNetwork({ Name, CheckDuplicate: true }))
})
