import { createHash } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { namesOf } from '../../../src/network/names.js'
import { exec, sleep, TestDaemon, until } from '../../lib/daemon.js'
import { buildTestImage, testImage } from '../../lib/image.js'

interface NetworkSettings {
  Networks: Record<string, { IPAddress: string; Gateway: string; MacAddress: string; GlobalIPv6Address: string; DNSNames: string[] | null; Aliases: string[] | null }>
}

/** Networks as a user of Docker sees them, once for each isolation: every container here that has a neighbour has one of the other isolation. */
export function defineNetwork(isolation: 'process' | 'vm'): void {
  const vm = isolation === 'vm'
  const other = vm ? 'process' : 'vm'
  let daemon: TestDaemon
  let prefixes: string[]
  let table: string
  const ok = (...args: string[]) => daemon.ok(...args)
  const fails = async (...args: string[]) => {
    const said = await daemon.docker(args)
    expect(said.code).not.toBe(0)
    return said.stderr
  }
  const start = (name: string, ...args: string[]) => ok('run', '-d', '--name', name, `--isolation=${isolation}`, ...args, testImage, 'sleep', '3600')
  const inside = async (name: string, script: string) => (await daemon.docker(['exec', name, 'sh', '-c', script], { timeoutMs: 60_000 })).stdout
  const settings = async (name: string) => (JSON.parse(await ok('inspect', '-f', '{{json .NetworkSettings}}', name)) as NetworkSettings).Networks
  const reaches = async (name: string, target: string) => (await inside(name, `ping -c1 -W3 ${target} >/dev/null && echo yes`)).trim() === 'yes'
  const resolves = async (name: string, wanted: string) => /Name:[^]*?Address:\s*(\S+)/.exec(await inside(name, `nslookup ${wanted}`))?.[1]
  const links = async () => (await readdir('/sys/class/net')).filter((link) => prefixes.some((prefix) => link.startsWith(prefix)))

  beforeAll(async () => {
    daemon = await TestDaemon.start()
    const names = namesOf(`hull${createHash('sha256').update(daemon.dataRoot).digest('hex').slice(0, 6)}`)
    prefixes = [names.userPrefix, names.sourcePrefix, names.tapPrefix]
    table = names.table
    await buildTestImage(daemon)
    await ok('network', 'create', '--subnet', '10.201.7.0/24', '--label', 'kind=front', 'front')
    await ok('network', 'create', '--internal', '--subnet', '10.201.8.0/24', 'back')
    await Promise.all([
      start('one', '--network', 'front', '--network-alias', 'first', '--network-alias', 'Both'),
      ok('run', '-d', '--name', 'two', `--isolation=${other}`, '--network', 'front', '--network-alias', 'both', testImage, 'sleep', '3600'),
    ])
  })

  afterAll(async () => {
    const list = (await ok('ps', '-aq')).split('\n').filter(Boolean)
    if (list.length > 0) await ok('rm', '-f', ...list)
    await ok('network', 'prune', '-f')
    // Nothing is left of networks that are gone, while the daemon still runs.
    await until('links are gone', async () => (await links()).length === 0, 10_000)
    expect(JSON.parse((await daemon.api('GET', '/networks')).body)).toHaveLength(3)
    await daemon.destroy()
    expect((await exec('nft', ['list', 'ruleset'])).stdout).not.toContain(table)
  })

  describe('names', () => {
    it('a container and a VM find each other by name, alias and short id, whoever asks', async () => {
      const [one, two] = [(await settings('one')).front!, (await settings('two')).front!]
      expect(await inside('one', 'cat /etc/resolv.conf')).toBe('nameserver 10.201.7.1\noptions ndots:0\n')
      expect(await reaches('one', 'two')).toBe(true)
      expect(await reaches('two', 'one')).toBe(true)
      expect(await resolves('two', 'first')).toBe(one.IPAddress)
      expect(await resolves('two', 'one.front')).toBe(one.IPAddress)
      expect(await resolves('one', (await ok('inspect', '-f', '{{.Id}}', 'two')).slice(0, 12))).toBe(two.IPAddress)
      const both = await inside('one', 'nslookup both')
      expect(both).toContain(one.IPAddress)
      expect(both).toContain(two.IPAddress)
      expect(await inside('two', `nslookup ${one.IPAddress}`)).toContain('one.front')
      expect(await inside('one', 'nslookup -type=aaaa two; nslookup nobody-here')).toMatch(/NXDOMAIN|SERVFAIL/)
      expect(one.DNSNames).toEqual(expect.arrayContaining(['one', 'first', 'Both']))
    })

    it('a renamed container goes by its new name', async () => {
      await ok('rename', 'two', 'deux')
      expect(await reaches('one', 'deux')).toBe(true)
      expect(await resolves('one', 'two')).toBeUndefined()
      await ok('rename', 'deux', 'two')
    })

    it('a killed daemon comes back with names, addresses and ports', async () => {
      await start('served', '--network', 'front', '-p', '127.0.0.1:18743:80')
      await ok('exec', '-d', 'served', 'sh', '-c', 'while :; do echo served | nc -l -p 80; done')
      const before = await settings('one')
      await daemon.down('SIGKILL')
      await daemon.up()
      expect(await settings('one')).toEqual(before)
      expect(await reaches('one', 'two')).toBe(true)
      expect(await resolves('two', 'both')).toBeDefined()
      expect((await exec('busybox', ['nc', '-w', '5', '127.0.0.1', '18743'], { timeoutMs: 20_000 })).stdout).toBe('served\n')
      await ok('rm', '-f', 'served')
    })
  })

  describe('connect and disconnect', () => {
    it('a running one gets an interface, names and a place in /etc/hosts, and loses them', async () => {
      await ok('network', 'connect', '--alias', 'inner', 'back', 'one')
      await ok('network', 'connect', 'back', 'two')
      expect((await settings('one')).back!.IPAddress).toBe('10.201.8.2')
      expect(await inside('one', 'ip -4 addr show eth1')).toContain('inet 10.201.8.2/24')
      expect(await inside('one', 'ip route')).toContain('default via 10.201.7.1 dev eth0')
      expect(await inside('one', 'cat /etc/hosts')).toContain('10.201.8.2\t')
      expect(await reaches('two', '10.201.8.2')).toBe(true)
      expect(await reaches('two', 'inner')).toBe(true)
      expect(await fails('network', 'connect', 'back', 'one')).toContain('endpoint with name one already exists in network back')
      expect(await fails('network', 'rm', 'back')).toContain('has active endpoints')
      await ok('network', 'disconnect', 'back', 'one')
      expect(await inside('one', 'ip -4 addr show eth1 2>&1')).not.toContain('10.201.8.2')
      expect(await inside('one', 'cat /etc/hosts')).not.toContain('10.201.8.2\t')
      expect(await resolves('two', 'inner')).toBeUndefined()
      expect(await fails('network', 'disconnect', 'back', 'one')).toContain('is not connected to network back')
      await ok('network', 'disconnect', 'back', 'two')
    })

    it('the first network may go: route, name server and published ports follow to the next', async () => {
      await ok('network', 'create', 'spare')
      await start('mover', '--network', 'front', '-p', '127.0.0.1:18744:80')
      await ok('exec', '-d', 'mover', 'sh', '-c', 'while :; do echo moved | nc -l -p 80; done')
      await ok('network', 'connect', 'spare', 'mover')
      const { IPAddress: address, Gateway: gateway } = (await settings('mover')).spare!
      await ok('network', 'disconnect', 'front', 'mover')
      expect(await inside('mover', 'ip route')).toContain(`default via ${gateway} dev eth1`)
      expect(await inside('mover', 'cat /etc/resolv.conf')).toContain(`nameserver ${gateway}`)
      expect(await inside('mover', 'ip -4 addr')).not.toContain('10.201.7.')
      expect(await resolves('mover', 'mover')).toBe(address)
      expect((await exec('busybox', ['nc', '-w', '5', '127.0.0.1', '18744'], { timeoutMs: 20_000 })).stdout).toBe('moved\n')
      await ok('network', 'connect', 'front', 'mover') // takes eth0 again
      expect(await inside('mover', 'ip -4 addr show eth0')).toContain('inet 10.201.7.')
      expect(await reaches('mover', 'one')).toBe(true)
      await ok('rm', '-f', 'mover')
      await ok('network', 'rm', 'spare')
    })

    it('published ports come with the next network that has a way out', async () => {
      await start('lonely', '--network', 'back', '-p', '127.0.0.1:18745:80')
      await ok('exec', '-d', 'lonely', 'sh', '-c', 'while :; do echo lonely | nc -l -p 80; done')
      expect(await ok('port', 'lonely')).toBe('') // an internal network has none
      const heard = () => exec('busybox', ['nc', '-w', '5', '127.0.0.1', '18745'], { timeoutMs: 20_000 }).then(({ stdout }) => stdout)
      for (let turn = 0; turn < 2; turn++) {
        await ok('network', 'connect', 'front', 'lonely')
        expect(await ok('port', 'lonely')).toBe('80/tcp -> 127.0.0.1:18745')
        expect(await heard()).toBe('lonely\n')
        await ok('network', 'disconnect', 'front', 'lonely')
        expect(await ok('port', 'lonely')).toBe('')
      }
      // Whose port somebody else has by then is told so, and stays where it is.
      await start('taker', '--network', 'front', '-p', '127.0.0.1:18745:81')
      expect(await fails('network', 'connect', 'front', 'lonely')).toContain('port is already allocated')
      expect(Object.keys(await settings('lonely'))).toEqual(['back'])
      await ok('rm', '-f', 'lonely', 'taker')
    })

    it('a network that is gone can be taken from a container that was on it', async () => {
      await ok('network', 'create', 'brief')
      await ok('create', '--name', 'stranded', `--isolation=${isolation}`, '--network', 'brief', testImage, 'true')
      await ok('network', 'rm', 'brief')
      expect(await fails('start', 'stranded')).toMatch(/network \S+ not found/)
      await ok('network', 'disconnect', 'brief', 'stranded')
      await ok('network', 'connect', 'front', 'stranded')
      await ok('start', '-a', 'stranded')
      await ok('rm', 'stranded')
    })

    it('several networks from the start, also one that was connected before; restarts keep them', async () => {
      await ok('create', '--name', 'many', `--isolation=${isolation}`, '--network', 'name=front,ip=10.201.7.77,mac-address=02:42:0a:c9:07:99', '--network', 'back', testImage, 'sleep', '3600')
      await ok('network', 'connect', 'bridge', 'many')
      for (let turn = 0; turn < 2; turn++) {
        await ok(turn === 0 ? 'start' : 'restart', ...(turn === 0 ? [] : ['-t', '0']), 'many')
        const networks = await settings('many')
        expect(Object.keys(networks).sort()).toEqual(['back', 'bridge', 'front'])
        expect(networks.front).toMatchObject({ IPAddress: '10.201.7.77', MacAddress: '02:42:0a:c9:07:99' })
        const seen = await inside('many', 'ip addr; ip route')
        expect(seen).toContain('02:42:0a:c9:07:99')
        for (const end of Object.values(networks)) expect(seen).toContain(`inet ${end.IPAddress}/`)
        // Of the networks with a way out the first by name has the default route.
        expect(seen).toContain(`default via ${networks.bridge!.Gateway} dev eth2`)
      }
      expect(await reaches('many', 'one')).toBe(true)
      await ok('rm', '-f', 'many')
    })

    it('what cannot be is refused in Docker’s words', async () => {
      await ok('create', '--name', 'alone', `--isolation=${isolation}`, '--network', 'none', testImage, 'true')
      expect(await fails('network', 'connect', 'front', 'alone')).toContain('private (none) mode')
      expect(await fails('network', 'connect', 'host', 'one')).toContain('host network')
      expect(await fails('network', 'connect', 'nowhere', 'one')).toContain('network nowhere not found')
      expect(await fails('network', 'connect', 'front', 'nobody')).toContain('No such container: nobody')
      expect(await fails('network', 'connect', '--ip', '10.99.99.99', 'back', 'two')).toContain('does not belong to any of this network')
      expect(await fails('network', 'connect', '--ip', '10.201.8.1', 'back', 'one')).toContain('Address already in use')
      expect(Object.keys(await settings('one'))).toEqual(['front'])
      await ok('rm', 'alone')
    })
  })

  describe('walls between networks', () => {
    it('another network is not reached, an internal one has no way out and asks nobody outside', async () => {
      await start('inner', '--network', 'back')
      const { IPAddress: one } = (await settings('one')).front!
      const { IPAddress: inner } = (await settings('inner')).back!
      expect(await inside('inner', 'ip route')).not.toContain('default')
      expect(await reaches('inner', one)).toBe(false)
      expect(await reaches('one', inner)).toBe(false)
      expect(await resolves('inner', 'one')).toBeUndefined()
      expect(await inside('inner', 'nslookup example.com 2>&1')).toContain('SERVFAIL')
      // A route of its own does not help.
      expect(await inside('inner', `ip route add default via 10.201.8.1 2>/dev/null; ping -c1 -W1 ${one} >/dev/null || echo dropped`)).toContain('dropped')
      await ok('rm', '-f', 'inner')
    })
  })

  it('a start and an end disturb no neighbour, and without IPv6 on the network there is none', async () => {
    await ok('network', 'create', 'quiet')
    await ok('run', '-d', '--name', 'sleeper', '--isolation=process', '--network', 'quiet', testImage, 'sleep', '3600')
    // Without a gateway's or a neighbour's traffic: every packet that comes is one that was sent to all.
    const heard = async () => Number(await inside('sleeper', 'cat /sys/class/net/eth0/statistics/rx_packets'))
    await sleep(1000)
    const before = await heard()
    for (const how of ['started', 'started again', 'made anew']) {
      if (how === 'started again') await ok('restart', '-t', '0', 'comer')
      else await start('comer', '--network', 'quiet')
      expect(await inside('comer', 'ip -6 addr show eth0')).toBe('')
      await sleep(2500) // as long as a kernel goes on telling where it is
      if (how === 'started again') await ok('rm', '-f', 'comer')
    }
    expect(await heard()).toBe(before)
    expect(await reaches('comer', 'sleeper')).toBe(true)
    expect(await heard()).toBeGreaterThan(before)
    await ok('rm', '-f', 'comer', 'sleeper')
    await ok('network', 'rm', 'quiet')
  })

  it('IPv6 on a network that has it', async () => {
    await ok('network', 'create', '--ipv6', '--subnet', 'fd00:7e57::/64', 'six')
    await start('v6', '--network', 'six', '--ip6', 'fd00:7e57::77')
    await ok('network', 'connect', 'six', 'two')
    expect((await settings('v6')).six!.GlobalIPv6Address).toBe('fd00:7e57::77')
    expect(await inside('v6', 'ping -6 -c1 -W5 two >/dev/null && echo yes')).toBe('yes\n')
    expect(await inside('two', 'ping -6 -c1 -W5 v6 >/dev/null && echo yes')).toBe('yes\n')
    expect(await inside('v6', 'ip -6 route')).toContain('default via fd00:7e57::1')
    await ok('network', 'disconnect', 'six', 'two')
    await ok('rm', '-f', 'v6')
    await ok('network', 'rm', 'six')
  })

  it('links on the default bridge: hosts, variables', async () => {
    await start('linked', '-e', 'WORD=here', '--expose', '5432')
    const { IPAddress: address } = (await settings('linked')).bridge!
    const said = await ok('run', '--rm', `--isolation=${isolation}`, '--link', 'linked:db', testImage, 'sh', '-c', 'cat /etc/hosts; env')
    expect(said).toContain(`${address}\tdb `)
    expect(said).toContain(`DB_PORT_5432_TCP_ADDR=${address}`)
    expect(said).toContain('DB_ENV_WORD=here')
    await ok('stop', '-t', '0', 'linked')
    expect(await fails('run', '--rm', `--isolation=${isolation}`, '--link', 'linked:db', testImage, 'true')).toContain('Cannot link to a non running container')
    await ok('rm', 'linked')
  })

  it(vm ? 'another container’s network is refused by name' : 'another container’s network is shared', async () => {
    if (vm) {
      expect(await fails('run', '--rm', '--isolation=vm', '--network', 'container:two', testImage, 'true')).toContain('a virtual machine has a network stack of its own')
      expect(await fails('run', '--rm', '--isolation=process', '--network', 'container:one', testImage, 'true')).toContain('virtual machine')
      return
    }
    const said = await ok('run', '--rm', '--isolation=process', '--network', 'container:one', testImage, 'sh', '-c', 'ip -4 addr show eth0; hostname; ping -c1 -W3 two >/dev/null && echo reached')
    expect(said).toContain((await settings('one')).front!.IPAddress)
    expect(said).toContain(await inside('one', 'hostname'))
    expect(said).toContain('reached')
    expect(await fails('run', '--rm', '--network', 'container:one', '-p', '1:1', testImage, 'true')).toContain('conflicting options')
  })

  it('create, list, inspect, remove and prune as Docker does, with events', async () => {
    const since = Math.floor(Date.now() / 1000) - 1
    const id = await ok('network', 'create', '--label', 'kind=odd', '-o', 'com.docker.network.driver.mtu=1400', 'odd')
    expect(await ok('network', 'ls', '-q', '--no-trunc', '-f', 'label=kind=odd')).toBe(id)
    expect((await ok('network', 'ls', '--format', '{{.Name}}', '-f', 'dangling=true')).split('\n')).toContain('odd')
    expect(await ok('network', 'ls', '--format', '{{.Name}}', '-f', 'type=builtin')).toBe('bridge\nhost\nnone')
    expect(await ok('network', 'inspect', '-f', '{{len .Containers}} {{(index .IPAM.Config 0).Subnet}}', 'front')).toBe('2 10.201.7.0/24')
    expect(await fails('network', 'create', 'odd')).toContain('network with name odd already exists')
    expect(await fails('network', 'create', 'host')).toContain('operation is not permitted on predefined host network')
    expect(await fails('network', 'create', '--subnet', '10.201.7.128/25', 'clash')).toContain('Pool overlaps with other one on this address space')
    expect(await fails('network', 'create', '-d', 'overlay', 'clash')).toContain('plugin not found')
    expect(await fails('network', 'rm', 'bridge')).toContain('is a pre-defined network and cannot be removed')
    expect(await ok('run', '--rm', `--isolation=${isolation}`, '--network', 'odd', testImage, 'cat', '/sys/class/net/eth0/mtu')).toBe('1400')
    expect(await ok('network', 'prune', '-f', '--filter', 'label=kind=odd')).toContain('odd')
    expect(await fails('network', 'inspect', 'odd')).toContain('network odd not found')
    const events = await ok('events', '--since', String(since), '--until', String(Math.ceil(Date.now() / 1000)), '--filter', 'type=network', '--filter', `network=${id}`, '--format', '{{.Action}}')
    expect(events.split('\n')).toEqual(['create', 'connect', 'disconnect', 'destroy'])
  })
}
