import { access, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, internal, messageOf } from '../base/errors.js'
import { readIfExists } from '../base/files.js'
import { createBridge, linkInfo, setAddress, setLink } from '../host/link.js'
import { formatIPv4, type Cidr } from './address.js'
import { bridgeMac, type Names } from './names.js'

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

/** Keeps the kernel from giving a bridge port an IPv6 address of its own, and the host from talking IPv6 on it. A kernel without IPv6 has nothing to write. */
export async function disableIPv6(link: string): Promise<void> {
  await writeFile(`/proc/sys/net/ipv6/conf/${link}/disable_ipv6`, '1').catch((error: unknown) => {
    if (codeOf(error) !== 'ENOENT') throw error
  })
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
    const ports = await readdir(`/sys/class/net/${bridge}/brif`).catch(() => undefined)
    if (!ports) throw internal(`cannot create the bridge ${bridge}: a link of that name exists and is no bridge`, error)
    const foreign = ports.filter((port) => !port.startsWith(names.vethPrefix) && !port.startsWith(names.tapPrefix))
    if (foreign.length > 0) throw internal(`cannot use the bridge ${bridge}: somebody else's link ${foreign[0]} is a port of it`, error)
  }
  // A v4-only bridge takes no router advertisements from containers (CVE-2020-13401).
  await disableIPv6(bridge)
  const mac = bridgeMac(bridge)
  setLink(bridge, (await linkInfo(bridge))?.mac === mac ? { mtu } : { mtu, mac })
  setAddress(bridge, formatIPv4(subnet.address), subnet.prefixLength)
}

/** Sets what routing needs. Returns a sentence for each thing that could not be set and is not as it should be. */
export async function ensureSysctls(bridge: string): Promise<string[]> {
  const warnings: string[] = []
  const wanted: [name: string, path: string, effect: string][] = [
    ['net.ipv4.ip_forward', 'net/ipv4/ip_forward', 'IPv4 forwarding is disabled: containers reach only this host'],
    [`net.ipv4.conf.${bridge}.route_localnet`, `net/ipv4/conf/${bridge}/route_localnet`, 'published ports are not reachable on 127.0.0.1'],
  ]
  for (const [name, path, effect] of wanted) {
    const file = join('/proc/sys', path)
    if ((await readIfExists(file).catch(() => undefined))?.trim() === '1') continue
    try {
      await writeFile(file, '1')
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
