// Runs in network and mount namespaces of its own (see foreign.test.ts): a whole host with FORWARD policies as Docker sets them, or a real dockerd.
// Prints one JSON object with what was seen. Arguments: 'rules' or the path of a dockerd, 1 or 0 for bridge-nf-call-iptables.
import { spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { get } from 'node:http'
import { delimiter, dirname, join } from 'node:path'
import { run, runOk } from '../../../src/base/run.js'
import { callFrom, leftovers, Scope, waitFor } from './lib.js'

const [dockerd, netfilter] = process.argv.slice(2) as [string, string]
const bridge = 'hulltf0'
const scope = new Scope()
const seen: Record<string, unknown> = {}

/** Rules of FORWARD in iptables' own words: it must still understand the chain. */
const forward = async (program = 'iptables') => (await runOk(program, ['-S', 'FORWARD'])).stdout.trim().split('\n')

/** Whether an API answers on the socket: then dockerd has made its rules. */
function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    get({ socketPath, path: '/_ping', timeout: 1_000 }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    }).on('error', () => resolve(false))
  })
}

async function startDocker(): Promise<void> {
  const directory = await scope.directory()
  await mkdir(join(directory, 'run'))
  await writeFile(join(directory, 'daemon.json'), '{}')
  const args = [
    '--data-root', join(directory, 'data'), '--exec-root', join(directory, 'exec'), '--pidfile', join(directory, 'pid'), '--config-file', join(directory, 'daemon.json'),
    '-H', `unix://${join(directory, 'docker.sock')}`, '--bip', '172.17.0.1/16', '--log-level', 'error', '--storage-driver', 'vfs',
  ]
  const path = [dirname(dockerd), join(dirname(dockerd), '../bin'), process.env['PATH']].join(delimiter)
  const child = spawn(dockerd, args, { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, PATH: path } })
  scope.onEnd(async () => {
    await new Promise((resolve) => {
      if (child.exitCode !== null) return resolve(undefined)
      child.on('exit', resolve)
      child.kill('SIGTERM')
    })
    // Where /tmp is a mount of its own it makes its root one, too, and leaves it.
    await run('umount', ['--recursive', join(directory, 'data')])
  })
  await waitFor(() => {
    if (child.exitCode !== null) throw new Error(`dockerd ended with ${child.exitCode}`)
    return answers(join(directory, 'docker.sock'))
  }, 60_000)
}

async function rules(): Promise<void> {
  for (const program of ['iptables', 'ip6tables']) {
    await runOk(program, ['-P', 'FORWARD', 'DROP'])
    await runOk(program, ['-N', 'DOCKER-USER'])
    await runOk(program, ['-A', 'DOCKER-USER', '-j', 'RETURN'])
    await runOk(program, ['-I', 'FORWARD', '-j', 'DOCKER-USER'])
  }
}

try {
  await runOk('ip', ['link', 'set', 'lo', 'up'])
  await writeFile('/proc/sys/net/ipv4/ip_forward', '0')
  for (const name of ['iptables', 'ip6tables']) await writeFile(`/proc/sys/net/bridge/bridge-nf-call-${name}`, netfilter).catch(() => {})
  if (dockerd === 'rules') await rules()
  else await startDocker()
  seen['before'] = await forward()

  const network = await scope.network(bridge, '10.213.0.1/24')
  await network.start([])
  const outside = await scope.outside('hulltf-o', '198.51.100')
  const up = async (id: string) => {
    const endpoint = await network.allocate(id, { ports: [{ containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 0 }] })
    const { netnsPath } = await network.connectNamespace(endpoint)
    await network.publish(endpoint)
    await scope.serve(netnsPath, 'tcp', 80, id)
    return { netnsPath, address: endpoint.address, port: endpoint.ports[0]!.hostPort }
  }
  const [a, b] = [await up('a'), await up('b')]
  await scope.serve(outside.netnsPath, 'tcp', 8000, 'world')
  const reach = async () => ({
    neighbour: await callFrom(a.netnsPath, 'tcp', b.address, 80),
    world: await callFrom(a.netnsPath, 'tcp', outside.address, 8000),
    published: await callFrom(outside.netnsPath, 'tcp', outside.hostAddress, a.port),
    hairpin: await callFrom(a.netnsPath, 'tcp', outside.hostAddress, b.port),
    self: await callFrom(a.netnsPath, 'tcp', outside.hostAddress, a.port),
  })
  seen['reach'] = await reach()
  seen['rules'] = await forward()
  seen['rules6'] = await forward('ip6tables')
  seen['save'] = (await run('iptables-save', [])).code

  // Somebody removes our rules: the next publish puts them back. (It looks again only when the last look is some seconds old.)
  for (const rule of (await forward()).filter((line) => line.includes('hull:'))) {
    await runOk('sh', ['-c', `iptables ${rule.replace(/^-A/, '-D')}`])
  }
  seen['cut'] = await reach()
  await new Promise((resolve) => setTimeout(resolve, 5_100))
  await up('c')
  await waitFor(async () => (await forward()).some((line) => line.includes('hull:')))
  seen['again'] = await reach()

  await network.stop(true)
  seen['after'] = await forward()
  seen['leftovers'] = await leftovers(bridge)
  seen['warnings'] = network.warnings()
} finally {
  await scope.end()
}
console.log(JSON.stringify(seen))
process.exit(0)
