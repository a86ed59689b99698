import { readdir, readFile } from 'node:fs/promises'
import { codeOf } from '../base/errors.js'
import { native } from './native.js'

/** An interface name as the kernel takes it: 1 to 15 bytes, no space, slash, colon or percent sign. */
export function isLinkName(name: string): boolean {
  return /^[^\s/:%]{1,15}$/.test(name) && Buffer.byteLength(name) <= 15 && name !== '.' && name !== '..'
}

/** Makes a bridge, up. EEXIST when the name is taken. Its MAC follows its ports until {@link setLink} gives it one. */
export function createBridge(name: string): void {
  native.bridgeCreate(name)
}

/** Makes a link a port of a bridge. ENODEV when one is missing. */
export function addBridgePort(bridge: string, name: string): void {
  native.bridgeAddPort(bridge, name)
}

/**
 * Deletes a link of any kind, and the other end of a veth with it. No error when it is gone. Blocks for 15-40 ms: {@link deleteLinkAsync} does
 * not. (A veth whose peer is in a namespace goes with the namespace, too, in the kernel's own time.)
 */
export function deleteLink(name: string): void {
  native.linkDelete(name)
}

/** {@link deleteLink} on a thread. */
export function deleteLinkAsync(name: string): Promise<void> {
  return native.linkDeleteAsync(name)
}

/** State, MTU and hardware address; what is absent stays, except that a link is brought up unless `up` is false. */
export function setLink(name: string, options: { up?: boolean; mtu?: number; mac?: string } = {}): void {
  native.linkSet(name, options.up ?? true, options.mtu ?? 0, options.mac ?? '')
}

/** The link's IPv4 addresses become this one. */
export function setAddress(name: string, address: string, prefixLength: number): void {
  native.addressSet(name, address, prefixLength)
}

/**
 * A veth pair: `name` here, `peer` in the namespace at `netns`. With `bridge`, `name` is up and a port of it from its first moment;
 * without, both ends are down. EEXIST when either name is taken; ENODEV without that bridge; then nothing is made.
 */
export function createVeth(options: { name: string; peer: string; netns: string; mtu?: number; bridge?: string }): Promise<void> {
  return native.vethCreate(options.name, options.peer, options.netns, options.mtu ?? 0, options.bridge)
}

/** A link is no port of a bridge any more. */
export function removeBridgePort(name: string): void {
  native.bridgeRemovePort(name)
}

/** A port that does not reach the other isolated ports of its bridge, only the bridge itself (bridge(8), `isolated`). */
export function isolateBridgePort(name: string): void {
  native.bridgeIsolatePort(name)
}

/** Adds an IPv6 address; no error when the link has it. */
export function addAddress6(name: string, address: string, prefixLength: number): void {
  native.address6Add(name, address, prefixLength)
}

/**
 * One of several networks behind one link: a macvlan in source mode (ip-link(8)) is a port of `bridge`. What `lower` brings in from the hardware address
 * `mac` is that network's; frames for `mac` and for everybody go the other way. `lower` must not be a port itself (EBUSY).
 */
export function createSourcePort(options: { name: string; lower: string; bridge: string; mac: string }): void {
  native.macvlanSourceCreate(options.name, options.lower, options.bridge, options.mac)
}

/** Opens a tap (made now, gone with the last descriptor). EBUSY when someone has it open. */
export function openTap(name: string): number {
  return native.tapOpen(name)
}

/** A tap that nobody is at the other end of, in a network namespace of its own; both go with the last descriptor. */
export const openTapAlone = (): Promise<number> => native.tapOpenAlone()

/** What the kernel says of a link of this namespace. */
export interface LinkInfo {
  name: string
  index: number
  mac: string
  mtu: number
  /** IFF_UP: up by administration. */
  up: boolean
  /** Name of the bridge that it is a port of. */
  bridge?: string
  isBridge: boolean
}

async function attribute(name: string, file: string): Promise<string | undefined> {
  try {
    return (await readFile(`/sys/class/net/${name}/${file}`, 'utf8')).trim()
  } catch (error) {
    // EINVAL: the attribute makes no sense for this link. ENODEV: it went away meanwhile.
    if (['ENOENT', 'ENOTDIR', 'EINVAL', 'ENODEV'].includes(codeOf(error) ?? '')) return undefined
    throw error
  }
}

/** A link of our namespace; undefined if there is none of that name. */
export async function linkInfo(name: string): Promise<LinkInfo | undefined> {
  if (!isLinkName(name)) return undefined
  const [index, mac, mtu, flags, bridge, bridgeId] = await Promise.all(
    ['ifindex', 'address', 'mtu', 'flags', 'master/uevent', 'bridge/bridge_id'].map((file) => attribute(name, file)),
  )
  if (index === undefined || mtu === undefined || flags === undefined) return undefined
  const master = bridge?.match(/^INTERFACE=(.+)$/m)?.[1]
  return {
    name, index: Number(index), mac: mac ?? '', mtu: Number(mtu), up: (Number(flags) & 1) !== 0,
    ...(master ? { bridge: master } : {}),
    isBridge: bridgeId !== undefined,
  }
}

/** Names of the links of our namespace that begin with `prefix`. O(links). */
export async function listLinks(prefix = ''): Promise<string[]> {
  return (await readdir('/sys/class/net')).filter((name) => name.startsWith(prefix) && name !== 'bonding_masters')
}

/** Counters since the link was made. */
export interface LinkCounters {
  name: string
  rxBytes: number
  rxPackets: number
  rxErrors: number
  rxDropped: number
  txBytes: number
  txPackets: number
  txErrors: number
  txDropped: number
}

/** Parses /proc/PID/net/dev (proc(5)). */
export function parseNetDev(text: string): LinkCounters[] {
  const links: LinkCounters[] = []
  for (const line of text.split('\n')) {
    const match = /^\s*([^\s:]+):\s*(.*)$/.exec(line)
    if (!match) continue
    const n = match[2]!.trim().split(/\s+/).map(Number)
    if (n.length < 16 || n.some(Number.isNaN)) continue
    links.push({
      name: match[1]!,
      rxBytes: n[0]!, rxPackets: n[1]!, rxErrors: n[2]!, rxDropped: n[3]!,
      txBytes: n[8]!, txPackets: n[9]!, txErrors: n[10]!, txDropped: n[11]!,
    })
  }
  return links
}

/** Counters of the links in a process's network namespace, `lo` left out. ENOENT or ESRCH when the process is gone. */
export async function linkCounters(pid: number): Promise<LinkCounters[]> {
  return parseNetDev(await readFile(`/proc/${pid}/net/dev`, 'utf8')).filter((link) => link.name !== 'lo')
}
