import { parseIPv4 } from '../address.js'
import { formatIPv6, parseIPv6 } from '../address6.js'
import type { Endpoint } from '../types.js'
import type { NameTable } from './table.js'
import { Type, type Answer } from './wire.js'

/** 4 or 16 bytes. */
function addressBytes(text: string): Buffer {
  const value = text.includes(':') ? parseIPv6(text) : parseIPv4(text)
  return Buffer.from(BigInt(value ?? 0).toString(16).padStart(text.includes(':') ? 32 : 8, '0'), 'hex')
}

/** The address that a reverse name means ('4.3.2.1.in-addr.arpa', nibbles under ip6.arpa); undefined when it means none. */
export function reverseAddress(name: string): string | undefined {
  const four = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.in-addr\.arpa$/.exec(name)
  if (four) {
    const address = four.slice(1).reverse().join('.')
    return parseIPv4(address) === undefined ? undefined : address
  }
  const six = /^((?:[0-9a-f]\.){32})ip6\.arpa$/.exec(name)
  return six ? formatIPv6(BigInt(`0x${six[1]!.replaceAll('.', '').split('').reverse().join('')}`)) : undefined
}

/** Who asks, and how networks are called. */
export interface Asker {
  /** The asker's end on the network whose name server was asked. */
  endpoint: Endpoint
  table: NameTable
  networkName: (id: string) => string | undefined
}

/** The asker's ends, the one on the asked network first. */
function ends({ endpoint, table }: Asker): Endpoint[] {
  return [endpoint, ...table.endpointsOf(endpoint.containerId).filter((other) => other !== endpoint)]
}

function targets(name: string, asker: Asker): readonly Endpoint[] {
  const { table, networkName } = asker
  for (const end of ends(asker)) {
    const linked = end.links?.[name]
    if (linked !== undefined) {
      const target = table.endpointsOf(linked).find((other) => other.networkId === end.networkId)
      if (target) return [target]
    }
    // The default bridge has no names, as in Docker.
    const found = (end.networkId ?? '') === '' ? [] : table.named(end.networkId!, name)
    if (found.length > 0) return found
  }
  // 'web.mynet': the name on that network.
  const dot = name.indexOf('.')
  if (dot < 1) return []
  for (const end of ends(asker)) {
    if ((end.networkId ?? '') === '' || networkName(end.networkId!)?.toLowerCase() !== name.slice(dot + 1)) continue
    return table.named(end.networkId!, name.slice(0, dot))
  }
  return []
}

/** Several containers of one name share the load: each answer begins with another. */
function rotate<T>(list: readonly T[]): T[] {
  const start = Math.floor(Math.random() * list.length)
  return [...list.slice(start), ...list.slice(0, start)]
}

/** What the network itself knows of a name (lower case, no last dot); undefined: ask somebody else. An empty list: the name is there, but nothing of this type. */
export function resolveLocal(name: string, type: number, asker: Asker): Answer[] | undefined {
  if (type === Type.PTR) {
    const address = reverseAddress(name)
    if (address === undefined) return undefined
    for (const end of ends(asker)) {
      const found = asker.table.at(end.networkId ?? '', address)
      const network = found && (end.networkId ?? '') !== '' ? asker.networkName(end.networkId!) : undefined
      if (found?.names?.[0] !== undefined && network !== undefined) return [{ type: Type.PTR, name: `${found.names[0]}.${network}` }]
    }
    return undefined
  }
  const found = targets(name, asker)
  if (found.length === 0) return undefined
  const answers: Answer[] = []
  for (const end of rotate(found)) {
    if (type === Type.A || type === Type.ANY) answers.push({ type: Type.A, address: addressBytes(end.address) })
    if ((type === Type.AAAA || type === Type.ANY) && end.ipv6) answers.push({ type: Type.AAAA, address: addressBytes(end.ipv6.address) })
  }
  return answers
}
