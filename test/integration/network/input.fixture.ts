// Runs in network and mount namespaces of its own (see foreign.test.ts): a host whose firewall drops what comes in, as ufw's does, and user-defined networks.
import { run, runOk } from '../../../src/base/run.js'
import { Scope } from './lib.js'

const bridge = 'hulltf1'
const scope = new Scope()
const seen: Record<string, unknown> = {}
const input = async () => (await runOk('iptables', ['-S', 'INPUT'])).stdout.trim().split('\n')
const forward = async () => (await runOk('iptables', ['-S', 'FORWARD'])).stdout.trim().split('\n')

try {
  await runOk('ip', ['link', 'set', 'lo', 'up'])
  for (const chain of ['INPUT', 'FORWARD']) await runOk('iptables', ['-P', chain, 'DROP'])
  seen['before'] = [...(await input()), ...(await forward())]
  const network = await scope.network(bridge, '10.213.0.1/24')
  await network.start([])
  const make = async (letter: string, subnet: string, options: Record<string, string>) => {
    const { spec } = await network.plan({ id: letter.repeat(64), name: letter, internal: false, ipv6: false, configs: [{ subnet, gateway: '', ipRange: '', auxiliary: {} }], options })
    await network.createNetwork(spec)
    const endpoint = await network.allocate(`c${letter}`, { networkId: spec.id, ports: [], names: [`name-${letter}`] })
    const { netnsPath } = await network.connectNamespace(endpoint)
    const said = await run('nsenter', [`--net=${netnsPath}`, 'busybox', 'nslookup', `name-${letter}`, spec.gateway], { timeoutMs: 15_000 })
    return said.stdout.includes(endpoint.address)
  }
  seen['names'] = [await make('a', '10.213.6.0/24', {}), await make('b', '10.213.7.0/24', { 'com.docker.network.bridge.name': 'hulltfmine' })]
  seen['input'] = await input()
  for (const letter of ['a', 'b']) {
    await network.release(`c${letter}`)
    await network.removeNetwork(letter.repeat(64))
  }
  seen['custom'] = [...(await input()), ...(await forward())].filter((rule) => rule.includes('hulltfmine'))
  await network.stop(true)
  seen['after'] = [...(await input()), ...(await forward())]
} finally {
  await scope.end()
}
console.log(JSON.stringify(seen))
process.exit(0)
