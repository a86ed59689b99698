import { access, readdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { codeOf, internal, messageOf } from '../base/errors.js'
import { readIfExists } from '../base/files.js'
import { log } from '../base/log.js'
import { createBridge, linkInfo, setAddress, setLink } from '../host/link.js'
import { formatIPv4, type Cidr } from './address.js'
import { bridgeMac, type Names } from './names.js'

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

/**
 * Keeps the host from talking IPv6 on a link: a v4-only bridge takes no router advertisements from containers (CVE-2020-13401), and its ports
 * need no addresses of their own. Returns why it could not be done; a kernel without IPv6 has nothing to be done.
 */
export async function disableIPv6(link: string): Promise<string | undefined> {
  try {
    await writeFile(`/proc/sys/net/ipv6/conf/${link}/disable_ipv6`, '1')
    return undefined
  } catch (error) {
    return codeOf(error) === 'ENOENT' ? undefined : messageOf(error)
  }
}

/** Lets the host have IPv6 addresses on a bridge of a network that has them; router advertisements of containers are still not for it (CVE-2020-13401). */
export async function enableIPv6(link: string): Promise<void> {
  const base = `/proc/sys/net/ipv6/conf/${link}`
  await writeFile(`${base}/accept_ra`, '0')
  await writeFile(`${base}/disable_ipv6`, '0')
}

/** Whether a bridge of this name was made by this program: the hardware address says so. */
export async function isOurBridge(bridge: string): Promise<boolean> {
  const info = await linkInfo(bridge)
  return info?.isBridge === true && info.mac === bridgeMac(bridge)
}

/**
 * Makes the bridge, or takes over the one that a killed daemon left, and gives it its address.
 * @throws HullError 500 when the name belongs to something that is not ours.
 */
export async function ensureBridge(names: Names, subnet: Cidr, mtu: number): Promise<void> {
  const { bridge } = names
  try {
    createBridge(bridge)
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw internal(`cannot create the bridge ${bridge}: ${messageOf(error)}`, error)
    const stranger = await strangeness(names)
    if (stranger !== undefined) throw internal(`cannot use ${bridge} as a bridge: ${stranger}`, error)
  }
  const problem = await disableIPv6(bridge)
  if (problem !== undefined) log.warn('network: containers may send IPv6 router advertisements to this host', { bridge, problem })
  const mac = bridgeMac(bridge)
  setLink(bridge, (await linkInfo(bridge))?.mac === mac ? { mtu } : { mtu, mac })
  setAddress(bridge, formatIPv4(subnet.address), subnet.prefixLength)
}

/** Why an existing link of the bridge's name is not ours; undefined when it is. */
async function strangeness(names: Names): Promise<string | undefined> {
  const { bridge } = names
  const ports = await readdir(`/sys/class/net/${bridge}/brif`).catch(() => undefined)
  if (!ports) return 'a link of that name exists and is no bridge'
  const foreign = ports.find((port) => ![names.vethPrefix, names.tapPrefix, names.sourcePrefix].some((prefix) => port.startsWith(prefix)))
  if (foreign !== undefined) return `somebody else's link ${foreign} is a port of it`
  // One that was made and not yet named ours by its MAC when we were killed has no route either.
  const routes = (await readIfExists('/proc/net/route')) ?? ''
  if (!(await isOurBridge(bridge)) && routes.split('\n').some((line) => line.startsWith(`${bridge}\t`))) return 'a bridge of that name exists with an address that is not ours'
  return undefined
}

/** Sets what routing needs. Returns a sentence for each thing that could not be set and is not as it should be. */
export async function ensureSysctls(bridges: readonly string[], ipv6: boolean): Promise<string[]> {
  const warnings: string[] = []
  const wanted: [name: string, path: string, effect: string][] = [
    ['net.ipv4.ip_forward', 'net/ipv4/ip_forward', 'IPv4 forwarding is disabled: containers reach only this host'],
    ...bridges.map((bridge): [string, string, string] => [
      `net.ipv4.conf.${bridge}.route_localnet`, `net/ipv4/conf/${bridge}/route_localnet`, 'published ports are not reachable on 127.0.0.1',
    ]),
  ]
  if (ipv6) wanted.push(['net.ipv6.conf.all.forwarding', 'net/ipv6/conf/all/forwarding', 'IPv6 forwarding is disabled: containers reach only this host over IPv6'])
  for (const [name, path, effect] of wanted) {
    const file = join('/proc/sys', path)
    if ((await readIfExists(file).catch(() => undefined))?.trim() === '1') continue
    try {
      await writeFile(file, '1')
      if (name.endsWith('forward') || name.endsWith('forwarding')) log.warn('network: forwarding was off on this host and is on now: it routes between all its links, unless a firewall says otherwise', { name })
    } catch (error) {
      warnings.push(`${effect} (cannot set ${name}: ${messageOf(error)})`)
    }
  }
  return warnings
}

/** Whether bridged frames of `family` pass through the host's IP rules (module br_netfilter). */
export async function bridgeNetfilter(family: 'ip' | 'ip6'): Promise<boolean> {
  const file = `/proc/sys/net/bridge/bridge-nf-call-${family === 'ip' ? 'iptables' : 'ip6tables'}`
  return (await exists(file)) && (await readIfExists(file))?.trim() === '1'
}

/** Held as long as a daemon has a bridge. */
export interface BridgeLock {
  release(): Promise<void>
}

/**
 * Says that the bridge is ours until we let go or die: a second daemon with the same bridge would take our containers for leftovers. The lock is
 * an abstract unix socket (unix(7)), because these belong to the network namespace, as bridges do.
 * @throws HullError 500 when another daemon has it.
 */
export function lockBridge(bridge: string): Promise<BridgeLock> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy())
    server.once('error', (error) => {
      const message = codeOf(error) === 'EADDRINUSE' ? `the bridge ${bridge} belongs to another running daemon: give this one a bridge of its own` : `cannot lock the bridge ${bridge}: ${messageOf(error)}`
      reject(internal(message, error))
    })
    server.listen({ path: `\0hull-bridge-${bridge}` }, () => {
      server.unref()
      resolve({ release: () => new Promise((done) => server.close(() => done())) })
    })
  })
}
