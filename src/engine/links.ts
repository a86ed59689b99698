import { badRequest, conflict } from '../base/errors.js'
import type { Container } from './container.js'
import { parseLink } from './attachment.js'
import type { ContainerRegistry } from './registry.js'
import type { ContainerRecord } from './store.js'

/** What `--link` on the default bridge gives a container: lines for /etc/hosts and variables. */
export interface LegacyLinks {
  hosts: string[]
  env: string[]
}

const upper = (alias: string) => alias.replaceAll('-', '_').toUpperCase()

/** Ports of a container that it exposes or publishes, lowest first. */
function exposed(record: ContainerRecord): { port: number; protocol: string }[] {
  const keys = new Set([...Object.keys(record.config.ExposedPorts), ...record.ports.map((port) => `${port.containerPort}/${port.protocol}`)])
  return [...keys]
    .map((key) => ({ port: Number(key.split('/')[0]), protocol: key.split('/')[1] ?? 'tcp' }))
    .sort((a, b) => a.port - b.port || (a.protocol < b.protocol ? -1 : 1))
}

function environmentOf(alias: string, parent: string, child: Container, address: string): string[] {
  const name = upper(alias)
  const ports = exposed(child.record)
  const env = [`${name}_NAME=/${parent}/${alias}`]
  const first = ports[0]
  if (first) env.unshift(`${name}_PORT=${first.protocol}://${address}:${first.port}`)
  for (const { port, protocol } of ports) {
    const key = `${name}_PORT_${port}_${protocol.toUpperCase()}`
    env.push(`${key}=${protocol}://${address}:${port}`, `${key}_ADDR=${address}`, `${key}_PORT=${port}`, `${key}_PROTO=${protocol}`)
  }
  for (const line of child.record.config.Env) if (!/^(PATH|HOME)=/.test(line) && line.includes('=')) env.push(`${name}_ENV_${line}`)
  return env
}

/**
 * Links of the default bridge (moby daemon/links and container_operations_unix.go): the other container must run and be on it too.
 * @throws HullError 500 in Docker's words when it does not run
 */
export function legacyLinks(record: ContainerRecord, registry: ContainerRegistry, bridgeId: string): LegacyLinks {
  const result: LegacyLinks = { hosts: [], env: [] }
  for (const text of record.hostConfig.Links) {
    const { target, alias } = parseLink(text)
    const child = registry.get(target)
    const address = child.record.networks.find((attachment) => attachment.networkId === bridgeId)?.endpoint?.address
    if (!child.isUp) throw conflict(`Cannot link to a non running container: /${child.record.name} AS /${record.name}/${alias}`)
    if (address === undefined) throw badRequest(`Cannot link to /${child.record.name}, as it does not belong to the default network`)
    const names = [alias, child.record.config.Hostname, ...(alias === child.record.name ? [] : [child.record.name])].filter((name) => name !== '')
    result.hosts.push(`${address}\t${[...new Set(names)].join(' ')}`)
    result.env.push(...environmentOf(alias, record.name, child, address))
  }
  return result
}
