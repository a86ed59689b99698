import { UsageError } from '../errors.js'

/** ExposedPorts and PortBindings of the Engine API. */
export interface PortFlags {
  exposed: Record<string, object>
  bindings: Record<string, { HostIp: string; HostPort: string }[]>
}

const PROTOCOLS = ['tcp', 'udp', 'sctp']

function range(text: string, what: string): [number, number] {
  const match = /^(\d+)(?:-(\d+))?$/.exec(text)
  const first = Number(match?.[1])
  const last = Number(match?.[2] ?? match?.[1])
  if (!match || first > 65535 || last > 65535 || last < first) throw new UsageError(`invalid ${what}: ${text}`)
  return [first, last]
}

/** Splits '[ip:][host]:container' with IPv6 addresses in brackets. */
function parts(text: string): { ip: string; host: string; container: string } {
  const six = /^\[([0-9a-fA-F:.]+(?:%\w+)?)\]:(.*)$/.exec(text)
  const rest = six ? six[2]! : text
  const words = rest.split(':')
  const container = words.pop()!
  const host = words.pop() ?? ''
  const ip = six ? six[1]! : words.join(':')
  if (six && words.length > 0) throw new UsageError(`invalid publish: ${text}`)
  if (ip !== '' && !six && !/^\d{1,3}(\.\d{1,3}){3}$/.test(ip)) throw new UsageError(`invalid IP address: ${ip}`)
  return { ip, host, container }
}

/** One --publish as docker/go-connections reads it: [ip:][hostPort[-hostPort]:]containerPort[-containerPort][/protocol]. */
function publish(text: string, flags: PortFlags): void {
  const [body, protocolText, more] = text.split('/')
  const protocol = (protocolText ?? 'tcp').toLowerCase()
  if (more !== undefined || !PROTOCOLS.includes(protocol)) throw new UsageError(`invalid proto: ${protocolText ?? ''}`)
  const { ip, host, container } = parts(body!)
  if (container === '') throw new UsageError(`no port specified: ${text}<empty>`)
  const [first, last] = range(container, 'containerPort')
  const hosts = host === '' ? undefined : range(host, 'hostPort')
  const count = last - first
  if (hosts && hosts[1] - hosts[0] !== count && count !== 0) {
    throw new UsageError(`invalid ranges specified for container and host Ports: ${container} and ${host}`)
  }
  for (let i = 0; i <= count; i += 1) {
    const key = `${first + i}/${protocol}`
    // One container port and a range of host ports: the daemon takes any free one of the range.
    const hostPort = !hosts ? '' : count === 0 && hosts[1] > hosts[0] ? `${hosts[0]}-${hosts[1]}` : String(hosts[0] + i)
    flags.exposed[key] = {}
    ;(flags.bindings[key] ??= []).push({ HostIp: ip, HostPort: hostPort })
  }
}

function longSyntax(text: string): string {
  const fields = new Map(text.split(',').map((pair): [string, string] => {
    const [name, ...value] = pair.split('=')
    return [name!, value.join('=')]
  }))
  const target = fields.get('target')
  if (!target) throw new UsageError(`invalid publish: ${text}: target is missing`)
  const published = fields.get('published')
  return `${published ? `${published}:` : ''}${target}/${fields.get('protocol') ?? 'tcp'}`
}

/** --publish and --expose. */
export function parsePorts(published: readonly string[], exposed: readonly string[]): PortFlags {
  const flags: PortFlags = { exposed: {}, bindings: {} }
  for (const text of published) publish(text.includes('target=') ? longSyntax(text) : text, flags)
  for (const text of exposed) {
    if (text.includes(':')) throw new UsageError(`invalid port format for --expose: ${text}`)
    const [ports, protocol = 'tcp'] = text.split('/')
    if (!PROTOCOLS.includes(protocol)) throw new UsageError(`invalid proto: ${protocol}`)
    const [first, last] = range(ports!, 'range format for --expose')
    for (let port = first; port <= last; port += 1) flags.exposed[`${port}/${protocol}`] ??= {}
  }
  return flags
}
