import { badRequest } from '../base/errors.js'
import type { Image } from '../image/types.js'
import type { ContainerFilter, ContainerSummary, Filters, ListContainersRequest } from './api-types.js'

/** `label=key` or `label=key=value`: all must hold. */
export function matchLabels(labels: Readonly<Record<string, string>>, wanted: readonly string[] | undefined): boolean {
  return (wanted ?? []).every((text) => {
    const separator = text.indexOf('=')
    if (separator < 0) return Object.hasOwn(labels, text)
    return labels[text.slice(0, separator)] === text.slice(separator + 1)
  })
}

/** Docker's name filter: a regular expression against the name, with and without its slash, or plain text where it is none. */
function matchName(name: string, wanted: string): boolean {
  // Patterns of clients run on short names only; a pattern that is long enough to hurt is taken literally.
  if (wanted.length > 256) return name === wanted
  try {
    const pattern = new RegExp(wanted)
    return pattern.test(name) || pattern.test(`/${name}`)
  } catch {
    return name.includes(wanted)
  }
}

/** `8080`, `8080/tcp`, `8080-8090/udp`; 400 for anything else. */
function portRange(text: string): { from: number; to: number; protocol: string } {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/.exec(text)
  if (!match) throw badRequest(`invalid port filter: ${text}`)
  return { from: Number(match[1]), to: Number(match[2] ?? match[1]), protocol: match[3] ?? 'tcp' }
}

type Predicate = (row: ContainerSummary) => boolean

/** What filters compare with besides the rows: all containers (before, since) and images (ancestor). */
export interface ListContext {
  /** Creation time of a container named in `before` or `since`; throws 404. */
  createdOf: (reference: string) => Date
  /** Images that `ancestor` means, with all that share their layers; [] when there is none. */
  image: (reference: string) => Promise<Image | undefined>
}

async function predicates(filters: Filters<ContainerFilter>, context: ListContext): Promise<Predicate[]> {
  const result: Predicate[] = []
  const any = (key: ContainerFilter, match: (row: ContainerSummary, value: string) => boolean) => {
    const values = filters[key]
    if (values && values.length > 0) result.push((row) => values.some((value) => match(row, value)))
  }
  any('id', (row, value) => row.id.startsWith(value))
  any('name', (row, value) => matchName(row.name, value))
  any('status', (row, value) => row.status === value)
  any('isolation', (row, value) => row.annotations['org.hull.isolation'] === value)
  any('exited', (row, value) => {
    if (!/^-?\d+$/.test(value)) throw badRequest(`invalid filter 'exited=${value}'`)
    return row.status === 'exited' && row.exitCode === Number(value)
  })
  any('health', (row, value) => (row.health ?? 'none') === value)
  any('network', (row, value) => Object.entries(row.networks).some(([name, end]) => name === value || end.networkId.startsWith(value)))
  any('volume', (row, value) => row.mounts.some((mount) => mount.name === value || mount.source === value || mount.destination === value))
  any('is-task', (_row, value) => value === 'false')
  const ports = (key: 'publish' | 'expose', number: (port: ContainerSummary['ports'][number]) => number) => {
    const ranges = filters[key]?.map(portRange)
    if (!ranges) return
    result.push((row) =>
      row.ports.some((port) => ranges.some((range) => number(port) > 0 && number(port) >= range.from && number(port) <= range.to && port.protocol === range.protocol)),
    )
  }
  ports('publish', (port) => port.hostPort)
  ports('expose', (port) => port.containerPort)
  if (filters.label) result.push((row) => matchLabels(row.labels, filters.label))
  for (const reference of filters.before ?? []) {
    const created = context.createdOf(reference)
    result.push((row) => row.created < created)
  }
  for (const reference of filters.since ?? []) {
    const created = context.createdOf(reference)
    result.push((row) => row.created > created)
  }
  if (filters.ancestor) {
    const ids = new Set<string>()
    for (const reference of filters.ancestor) {
      const image = await context.image(reference)
      if (image) ids.add(image.id)
    }
    const names = new Set(filters.ancestor)
    result.push((row) => ids.has(row.imageId) || names.has(row.image))
  }
  return result
}

/** `docker ps`: filters, then `all` and `limit` (a limit or a status, exited or since filter looks at all), the latest created first. */
export async function filterContainers(rows: ContainerSummary[], request: ListContainersRequest, context: ListContext): Promise<ContainerSummary[]> {
  const tests = await predicates(request.filters, context)
  const { filters } = request
  const everything = request.all || request.limit > 0 || !!filters.status || !!filters.exited || !!filters.before || !!filters.since
  const found = rows
    .filter((row) => everything || row.status === 'running' || row.status === 'paused' || row.status === 'restarting')
    .filter((row) => tests.every((test) => test(row)))
    .sort((a, b) => b.created.getTime() - a.created.getTime())
  return request.limit > 0 ? found.slice(0, request.limit) : found
}
