import { spawn, type ChildProcess } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { run, runOk } from '../../../src/base/run.js'
import { createVeth, deleteLink, setAddress, setLink } from '../../../src/host/link.js'
import { configureInterface, createNetns, deleteNetns } from '../../../src/host/netns.js'
import { BridgeNetwork, type BridgeNetworkOptions } from '../../../src/network/bridge.js'
import { namesOf } from '../../../src/network/names.js'

/** Everything that a test made, undone in reverse order. */
export class Scope {
  #undo: (() => unknown)[] = []

  onEnd(undo: () => unknown): void {
    this.#undo.push(undo)
  }

  async end(): Promise<void> {
    for (const undo of this.#undo.splice(0).reverse()) await undo()
  }

  async directory(): Promise<string> {
    const path = await mkdtemp(join(tmpdir(), 'hull-net-'))
    this.onEnd(() => rm(path, { recursive: true, force: true }))
    return path
  }

  /** A manager with folders of its own; not started. Whatever a test does, the bridge and table are gone afterwards. */
  async network(bridgeName: string, bip: string, options: Partial<BridgeNetworkOptions> = {}): Promise<BridgeNetwork> {
    const directory = await this.directory()
    const network = new BridgeNetwork({ bridgeName, bip, mtu: 1500, stateDir: join(directory, 'state'), runDir: join(directory, 'netns'), poolSize: 1, ...options })
    this.onEnd(async () => {
      await network.stop(true)
      await waitFor(async () => (await leftovers(bridgeName)).length === 0)
    })
    return network
  }

  /** A program that runs until the end of the test. */
  spawn(file: string, args: string[]): ChildProcess {
    const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'inherit'] })
    this.onEnd(() => new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve(undefined)
      child.on('exit', resolve)
      child.kill('SIGKILL')
    }))
    return child
  }

  /** In a namespace: a TCP or UDP server that says `word`, who called, and what the caller said. */
  async serve(netnsPath: string, protocol: 'tcp' | 'udp', port: number, word: string): Promise<void> {
    const listen = protocol === 'tcp' ? `TCP4-LISTEN:${port},fork,reuseaddr` : `UDP4-RECVFROM:${port},fork`
    this.spawn('nsenter', [`--net=${netnsPath}`, 'socat', listen, `SYSTEM:read line; echo "${word} $SOCAT_PEERADDR $line"`])
    const table = protocol === 'tcp' ? '-ltn' : '-lun'
    await waitFor(async () => (await inNetns(netnsPath, ['ss', '-H', table, `sport = :${port}`])).trim() !== '')
  }

  /** A machine outside: a namespace joined to the host by a veth, with no route to any container unless `defaultRoute`. */
  async outside(link: string, subnet: string, defaultRoute = false): Promise<{ netnsPath: string; hostAddress: string; address: string }> {
    const netnsPath = join(await this.directory(), 'outside')
    await createNetns(netnsPath)
    this.onEnd(() => deleteNetns(netnsPath))
    await createVeth({ name: link, peer: 'eth0', netns: netnsPath })
    this.onEnd(() => deleteLink(link))
    const [hostAddress, address] = [`${subnet}.1`, `${subnet}.2`]
    setLink(link)
    setAddress(link, hostAddress, 24)
    await configureInterface(netnsPath, { name: 'eth0', address, prefixLength: 24, ...(defaultRoute ? { gateway: hostAddress } : {}) })
    return { netnsPath, hostAddress, address }
  }
}

/** Waits until `condition` holds. */
export async function waitFor(condition: () => Promise<boolean> | boolean, timeoutMs = 10_000): Promise<void> {
  const end = Date.now() + timeoutMs
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`still not so after ${timeoutMs} ms: ${condition.toString()}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Standard output of a program inside a namespace. */
export async function inNetns(netnsPath: string, command: string[]): Promise<string> {
  return (await runOk('nsenter', [`--net=${netnsPath}`, ...command], { timeoutMs: 10_000 })).stdout
}

/** The answer that a client inside a namespace gets; '' when it cannot connect or gets none in a second. */
export async function callFrom(netnsPath: string, protocol: 'tcp' | 'udp', address: string, port: number, word = 'hi'): Promise<string> {
  const target = protocol === 'tcp' ? `TCP4:${address}:${port},connect-timeout=1` : `UDP4:${address}:${port}`
  const result = await run('nsenter', [`--net=${netnsPath}`, 'socat', '-t1', '-T1', '-', target], { input: `${word}\n`, timeoutMs: 10_000 })
  return result.stdout.trim()
}

/** The answer that a client on the host gets; '' when there is none. */
export function call(protocol: 'tcp' | 'udp', address: string, port: number, word = 'hi'): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    if (protocol === 'tcp') {
      const socket = connect({ host: address, port, allowHalfOpen: true })
      const timer = setTimeout(() => socket.destroy(), 2_000)
      socket.on('connect', () => socket.end(`${word}\n`))
      socket.on('data', (data) => (text += data.toString()))
      socket.on('end', () => socket.destroy())
      socket.on('error', () => {})
      socket.on('close', () => {
        clearTimeout(timer)
        resolve(text.trim())
      })
      return
    }
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
    const finish = (answer: string) => {
      clearTimeout(timer)
      socket.close()
      resolve(answer)
    }
    const timer = setTimeout(() => finish(''), 2_000)
    socket.on('message', (data) => finish(data.toString().trim()))
    socket.on('error', () => finish(''))
    socket.send(`${word}\n`, port, address)
  })
}

/** Everything in the kernel that carries the name of a bridge: links, tables, rules in other tables. */
export async function leftovers(bridgeName: string): Promise<string[]> {
  const names = namesOf(bridgeName)
  const links = (await readdir('/sys/class/net')).filter((link) => link === bridgeName || link.startsWith(names.vethPrefix) || link.startsWith(names.tapPrefix))
  const rules = (await runOk('nft', ['list', 'ruleset'])).stdout.split('\n').filter((line) => line.includes(names.table) || line.includes(names.mark))
  return [...links, ...rules.map((rule) => rule.trim())]
}

/** Elements of one of our maps or the set, as nft prints them. */
export async function elements(bridgeName: string, name: 'ports' | 'addressed' | 'own' | 'ownAddressed'): Promise<string> {
  const { stdout } = await runOk('nft', ['list', name.startsWith('own') ? 'set' : 'map', 'ip', namesOf(bridgeName).table, name])
  return /elements = \{([^}]*)\}/.exec(stdout)?.[1]?.replace(/\s+/g, ' ').trim() ?? ''
}
