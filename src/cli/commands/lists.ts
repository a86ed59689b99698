import { inPath } from '../client.js'
import type { ContainerRow, ImageRow, PortRow } from '../api.js'
import { boolFlag, collect, integer, listFlag, numberFlag, textFlag, type CommandDefinition } from '../command.js'
import { CliError } from '../errors.js'
import { formatRows, type Column } from '../format/rows.js'
import { ellipsis, humanDuration, humanSize, shortId } from '../format/units.js'

/** --filter key=value … as the API's JSON: {key: {value: true}}. */
export function filtersOf(flags: readonly string[]): Record<string, Record<string, boolean>> {
  const filters: Record<string, Record<string, boolean>> = {}
  for (const flag of flags) {
    const at = flag.indexOf('=')
    if (at <= 0) throw new CliError(`invalid argument "${flag}" for "-f, --filter" flag: bad format of filter (expected name=value)`, 125)
    ;(filters[flag.slice(0, at).trim().toLowerCase()] ??= {})[flag.slice(at + 1).trim()] = true
  }
  return filters
}

/** By code units, as Go's sort: not by the user's language. */
const inOrder = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
const address = (ip: string, port: string | number) => (ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`)

/** Ports as the docker CLI prints them: neighbours joined ('443-444/tcp'), those with another host port each by itself. */
export function displayPorts(ports: readonly PortRow[]): string {
  const sorted = [...ports].sort((a, b) =>
    a.PrivatePort - b.PrivatePort || inOrder(a.IP ?? '', b.IP ?? '') || (a.PublicPort ?? 0) - (b.PublicPort ?? 0) || inOrder(a.Type, b.Type))
  const groups = new Map<string, { ip: string; type: string; first: number; last: number }>()
  const done: string[] = []
  const mapped: string[] = []
  const text = (group: { ip: string; type: string; first: number; last: number }) => {
    const range = group.first === group.last ? String(group.first) : `${group.first}-${group.last}`
    return `${group.ip ? `${address(group.ip, range)}->` : ''}${range}/${group.type}`
  }
  for (const port of sorted) {
    const ip = port.IP ?? ''
    if (ip && port.PublicPort !== port.PrivatePort) {
      mapped.push(`${address(ip, port.PublicPort ?? 0)}->${port.PrivatePort}/${port.Type}`)
      continue
    }
    const key = `${ip}/${port.Type}`
    const group = groups.get(key)
    if (group && port.PrivatePort === group.last + 1) group.last = port.PrivatePort
    else {
      if (group) done.push(text(group))
      groups.set(key, { ip, type: port.Type, first: port.PrivatePort, last: port.PrivatePort })
    }
  }
  return [...done, ...[...groups.values()].map(text), ...mapped].join(', ')
}

const goTime = (seconds: number) => `${new Date(seconds * 1000).toISOString().replace('T', ' ').slice(0, 19)} +0000 UTC`
const ago = (seconds: number, now: number) => `${humanDuration(now - seconds * 1000)} ago`
const sizeText = (row: ContainerRow) => humanSize(row.SizeRw ?? 0, 3) + (row.SizeRootFs ? ` (virtual ${humanSize(row.SizeRootFs, 3)})` : '')

/** The columns of `ps`, with Docker's names for --format, and ISOLATION. */
export function containerColumns(trunc: boolean, now = Date.now()): Column<ContainerRow>[] {
  return [
    { field: 'ID', heading: 'CONTAINER ID', value: (c) => (trunc ? shortId(c.Id) : c.Id) },
    { field: 'Image', heading: 'IMAGE', value: (c) => (trunc && c.Image === c.ImageID ? shortId(c.Image) : c.Image || '<no image>') },
    { field: 'Command', heading: 'COMMAND', value: (c) => JSON.stringify(trunc ? ellipsis(c.Command, 20) : c.Command) },
    { field: 'CreatedAt', heading: 'CREATED AT', value: (c) => goTime(c.Created) },
    { field: 'RunningFor', heading: 'CREATED', value: (c) => ago(c.Created, now) },
    { field: 'Status', heading: 'STATUS', value: (c) => c.Status },
    { field: 'State', heading: 'STATE', value: (c) => c.State },
    { field: 'Ports', heading: 'PORTS', value: (c) => displayPorts(c.Ports ?? []) },
    { field: 'Names', heading: 'NAMES', value: (c) => (c.Names ?? []).map((n) => n.replace(/^\//, '')).filter((n) => !trunc || !n.includes('/')).join(',') },
    { field: 'Size', heading: 'SIZE', value: sizeText },
    { field: 'Labels', heading: 'LABELS', value: (c) => Object.entries(c.Labels ?? {}).map(([key, value]) => `${key}=${value}`).join(',') },
    { field: 'Mounts', heading: 'MOUNTS', value: (c) => (c.Mounts ?? []).map((m) => m.Name || m.Source || '').map((n) => (trunc ? ellipsis(n, 15) : n)).join(',') },
    { field: 'LocalVolumes', heading: 'LOCAL VOLUMES', value: (c) => String((c.Mounts ?? []).filter((m) => m.Driver === 'local').length) },
    { field: 'Networks', heading: 'NETWORKS', value: (c) => Object.keys(c.NetworkSettings?.Networks ?? {}).join(',') },
    // Rows of the list have no HostConfig.Isolation, in Docker as here: the daemon puts it among the annotations.
    { field: 'Isolation', heading: 'ISOLATION', value: (c) => c.HostConfig?.Annotations?.['org.hull.isolation'] ?? '' },
  ]
}

/** `hull ps`. */
export const psDefinition: CommandDefinition = {
  usage: 'ps [OPTIONS]',
  summary: 'List containers',
  arguments: [0, 0],
  flags: (command) => {
    command.option('-a, --all', 'Show all containers (default shows just running)')
    command.option('-f, --filter <filter>', 'Filter output based on conditions provided', collect)
    command.option('--format <string>', "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE (Go template)")
    command.option('-n, --last <int>', 'Show n last created containers (includes all states)', integer('-n, --last'))
    command.option('-l, --latest', 'Show the latest created container (includes all states)')
    command.option('--no-trunc', "Don't truncate output")
    command.option('-q, --quiet', 'Only display container IDs')
    command.option('-s, --size', 'Display total file sizes')
  },
  run: async ({ client, streams }, flags) => {
    const format = textFlag(flags, 'format')
    const last = boolFlag(flags, 'latest') ? 1 : numberFlag(flags, 'last')
    const size = boolFlag(flags, 'size') || /\.Size\b/.test(format)
    const filter = listFlag(flags, 'filter')
    const rows = await client.json<ContainerRow[]>('GET', '/containers/json', {
      query: {
        all: boolFlag(flags, 'all') || (last !== undefined && last > 0), limit: last !== undefined && last > 0 ? last : undefined, size,
        filters: filter.length > 0 ? JSON.stringify(filtersOf(filter)) : undefined,
      },
    })
    const trunc = flags.trunc !== false
    if (boolFlag(flags, 'quiet') && format === '') streams.stdout.write(rows.map((row) => `${trunc ? shortId(row.Id) : row.Id}\n`).join(''))
    else {
      const defaults = ['ID', 'Image', 'Command', 'RunningFor', 'Status', 'Ports', 'Names', ...(boolFlag(flags, 'size') ? ['Size'] : [])]
      streams.stdout.write(formatRows(rows, containerColumns(trunc), defaults, format, (row, label) => row.Labels?.[label] ?? ''))
    }
    return 0
  },
}

/** One line of `images`: an image has one for each of its tags. */
interface ImageLine { row: ImageRow; repository: string; tag: string; digest: string }

function imageLines(rows: readonly ImageRow[], digests: boolean): ImageLine[] {
  return rows.flatMap((row) => {
    const tags = (row.RepoTags ?? []).filter((name) => name !== '<none>:<none>')
    const digestOf = new Map((row.RepoDigests ?? []).filter((name) => name !== '<none>@<none>').map((name) => [name.slice(0, name.indexOf('@')), name.slice(name.indexOf('@') + 1)]))
    const lines = tags.map((name) => {
      const colon = name.lastIndexOf(':')
      const repository = name.slice(0, colon)
      return { row, repository, tag: name.slice(colon + 1), digest: digestOf.get(repository) ?? '<none>' }
    })
    if (lines.length > 0) return lines
    const untagged = [...digestOf].map(([repository, digest]) => ({ row, repository, tag: '<none>', digest }))
    if (untagged.length > 0) return digests ? untagged : untagged.slice(0, 1)
    return [{ row, repository: '<none>', tag: '<none>', digest: '<none>' }]
  })
}

function imageColumns(trunc: boolean, now = Date.now()): Column<ImageLine>[] {
  return [
    { field: 'Repository', heading: 'REPOSITORY', value: (i) => i.repository },
    { field: 'Tag', heading: 'TAG', value: (i) => i.tag },
    { field: 'Digest', heading: 'DIGEST', value: (i) => i.digest },
    { field: 'ID', heading: 'IMAGE ID', value: (i) => (trunc ? shortId(i.row.Id) : i.row.Id) },
    { field: 'CreatedSince', heading: 'CREATED', value: (i) => ago(i.row.Created, now) },
    { field: 'CreatedAt', heading: 'CREATED AT', value: (i) => goTime(i.row.Created) },
    { field: 'Size', heading: 'SIZE', value: (i) => humanSize(i.row.Size, 3) },
    { field: 'Containers', heading: 'CONTAINERS', value: (i) => (i.row.Containers < 0 ? 'N/A' : String(i.row.Containers)) },
    { field: 'SharedSize', heading: 'SHARED SIZE', value: (i) => (i.row.SharedSize < 0 ? 'N/A' : humanSize(i.row.SharedSize)) },
    { field: 'UniqueSize', heading: 'UNIQUE SIZE', value: (i) => (i.row.SharedSize < 0 ? 'N/A' : humanSize(i.row.Size - i.row.SharedSize)) },
    { field: 'VirtualSize', heading: 'SIZE', value: (i) => humanSize(i.row.Size) },
  ]
}

/** `hull images`. */
export const imagesDefinition: CommandDefinition = {
  usage: 'images [OPTIONS] [REPOSITORY[:TAG]]',
  summary: 'List images',
  arguments: [0, 1],
  flags: (command) => {
    command.option('-a, --all', 'Show all images (default hides intermediate images)')
    command.option('--digests', 'Show digests')
    command.option('-f, --filter <filter>', 'Filter output based on conditions provided', collect)
    command.option('--format <string>', "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE (Go template)")
    command.option('--no-trunc', "Don't truncate output")
    command.option('-q, --quiet', 'Only show image IDs')
  },
  run: async ({ client, streams }, flags, [reference]) => {
    const filter = [...listFlag(flags, 'filter'), ...(reference ? [`reference=${reference}`] : [])]
    const rows = await client.json<ImageRow[]>('GET', '/images/json', {
      query: { all: boolFlag(flags, 'all'), digests: boolFlag(flags, 'digests'), filters: filter.length > 0 ? JSON.stringify(filtersOf(filter)) : undefined },
    })
    const trunc = flags.trunc !== false
    const format = textFlag(flags, 'format')
    const digests = boolFlag(flags, 'digests')
    const lines = imageLines(rows, digests)
    if (boolFlag(flags, 'quiet') && format === '') streams.stdout.write(lines.map(({ row }) => `${trunc ? shortId(row.Id) : row.Id}\n`).join(''))
    else {
      const defaults = ['Repository', 'Tag', ...(digests ? ['Digest'] : []), 'ID', 'CreatedSince', 'Size']
      streams.stdout.write(formatRows(lines, imageColumns(trunc), defaults, format))
    }
    return 0
  },
}

interface HistoryRow { Id: string; Created: number; CreatedBy: string; Size: number; Comment: string }

/** `hull history`. */
export const historyDefinition: CommandDefinition = {
  usage: 'history [OPTIONS] IMAGE',
  summary: 'Show the history of an image',
  arguments: [1, 1],
  flags: (command) => {
    command.option('--format <string>', "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or TEMPLATE (Go template)")
    command.option('--no-trunc', "Don't truncate output")
    command.option('-q, --quiet', 'Only show image IDs')
  },
  run: async ({ client, streams }, flags, [image = '']) => {
    const rows = await client.json<HistoryRow[]>('GET', `/images/${inPath(image)}/history`)
    const trunc = flags.trunc !== false
    const columns: Column<HistoryRow>[] = [
      { field: 'ID', heading: 'IMAGE', value: (h) => (trunc && h.Id !== '<missing>' ? shortId(h.Id) : h.Id) },
      { field: 'CreatedSince', heading: 'CREATED', value: (h) => (h.Created > 0 ? ago(h.Created, Date.now()) : 'N/A') },
      { field: 'CreatedAt', heading: 'CREATED AT', value: (h) => new Date(h.Created * 1000).toISOString().replace('.000Z', 'Z') },
      { field: 'CreatedBy', heading: 'CREATED BY', value: (h) => (trunc ? ellipsis(h.CreatedBy.replaceAll('\t', ' '), 45) : h.CreatedBy.replaceAll('\t', ' ')) },
      { field: 'Size', heading: 'SIZE', value: (h) => humanSize(h.Size, 3) },
      { field: 'Comment', heading: 'COMMENT', value: (h) => h.Comment },
    ]
    if (boolFlag(flags, 'quiet')) streams.stdout.write(rows.map((row) => `${columns[0]!.value(row)}\n`).join(''))
    else streams.stdout.write(formatRows(rows, columns, ['ID', 'CreatedSince', 'CreatedBy', 'Size', 'Comment'], textFlag(flags, 'format')))
    return 0
  },
}
