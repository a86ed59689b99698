// A manager in a process of its own, to be killed: starts, brings up two containers with published ports, prints their endpoints, waits.
import { BridgeNetwork } from '../../../src/network/bridge.js'

const [bridgeName, bip, stateDir, runDir] = process.argv.slice(2) as [string, string, string, string]
const network = new BridgeNetwork({ bridgeName, bip, mtu: 1500, stateDir, runDir, poolSize: 2 })
await network.start([])
const containers = []
for (const id of ['a', 'b']) {
  const endpoint = await network.allocate(id, {
    ports: [
      { containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 0 },
      { containerPort: 53, protocol: 'udp', hostIp: '127.0.0.1', hostPort: 0 },
    ],
  })
  const { netnsPath } = await network.connectNamespace(endpoint)
  await network.publish(endpoint)
  containers.push({ endpoint, netnsPath })
}
await network.isolatedNamespace('lonely')
// The leftovers of a crash are complete only when the pool is.
while (network.ready.veth < 2 || network.ready.isolated < 1) await new Promise((resolve) => setTimeout(resolve, 5))
console.log(JSON.stringify(containers))
setInterval(() => {}, 1000)
