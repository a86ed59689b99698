import { badRequest } from '../base/errors.js'
import type { Endpoint } from '../network/types.js'
import type { EndpointRequest } from './api-types.js'
import type { NetworkDirectory, NetworkName } from './network-directory.js'
import type { ContainerRecord } from './store.js'

/** A container's connection to one bridged network, in its record on disk. */
export interface NetworkAttachment {
  networkId: string
  /** The network's name. */
  network: string
  aliases: string[]
  /** 'container' or 'container:alias' */
  links: string[]
  /** '' when not asked for. */
  requestedAddress: string
  requestedAddress6: string
  requestedMac: string
  driverOptions: Record<string, string>
  /** While it runs. */
  endpoint?: Endpoint
  /** A connect or disconnect of the running container is under way: after a crash of the daemon it is taken away. */
  pending?: boolean
}

/** An attachment that asks for nothing. */
export function plainAttachment(networkId: string, network: string): NetworkAttachment {
  return { networkId, network, aliases: [], links: [], requestedAddress: '', requestedAddress6: '', requestedMac: '', driverOptions: {} }
}

/** What a request asks of one network. 400 in Docker's words for what only user-defined networks can do. */
export function attachmentOf(network: NetworkName, request: EndpointRequest | undefined): NetworkAttachment {
  const attachment = plainAttachment(network.id, network.name)
  if (!request) return attachment
  if (!network.record && request.aliases.length > 0) {
    throw badRequest('network-scoped alias is supported only for containers in user defined networks')
  }
  const wanted = request.ipv4Address !== '' || request.ipv6Address !== ''
  if (wanted && !network.record) throw badRequest('user specified IP address is supported on user defined networks only')
  if (wanted && !network.record!.chosen) throw badRequest('user specified IP address is supported only when connecting to networks with user configured subnets')
  return {
    ...attachment, aliases: [...new Set(request.aliases)], links: request.links, requestedAddress: request.ipv4Address, requestedAddress6: request.ipv6Address,
    requestedMac: request.macAddress, driverOptions: request.driverOptions,
  }
}

/** What a container is called on a user-defined network (moby buildEndpointDNSNames): name, aliases, short id, host name; each once. */
export function dnsNames(record: Pick<ContainerRecord, 'id' | 'name' | 'config'>, attachment: NetworkAttachment, directory: NetworkDirectory): string[] {
  if (!directory.get(attachment.networkId)?.record) return []
  const { Hostname: hostname } = record.config
  return [...new Set([record.name, ...attachment.aliases, record.id.slice(0, 12), ...(hostname === '' ? [] : [hostname])])]
}

/** 'db:alias', 'db', or as inspect shows it '/db:/web/alias'. */
export function parseLink(text: string): { target: string; alias: string } {
  const [target = '', alias = target, ...more] = text.split(':')
  if (target === '' || alias === '' || more.length > 0) throw badRequest(`bad format for links: ${text}`)
  const last = (path: string) => path.slice(path.lastIndexOf('/') + 1)
  return { target: last(target), alias: last(alias) }
}
