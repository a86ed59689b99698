import { badRequest, HullError } from '../base/errors.js'
import type { ArchiveStat, ContainerFilter, HostConfig, UpdateContainerRequest } from '../engine/api-types.js'
import { parseSignal } from '../engine/signals.js'
import type { Exchange } from './exchange.js'
import { parseFilters } from './filters.js'
import { detailsJson, summaryJson } from './mapping-container.js'
import type { Router } from './router.js'
import { createBody, createRequest, resourceFields, updateBody } from './schema-container.js'

const listFilters: readonly ContainerFilter[] = [
  'ancestor', 'before', 'expose', 'exited', 'health', 'id', 'isolation', 'is-task', 'label', 'name', 'network', 'publish', 'since', 'status', 'volume',
]
const statuses = ['created', 'running', 'paused', 'restarting', 'removing', 'exited', 'dead']

/** Containers' endpoints that are one question and one answer. */
export function containerRoutes(router: Router): void {
  router.on('GET', '/containers/json', list)
  router.on('POST', '/containers/create', create)
  router.on('POST', '/containers/prune', prune)
  router.on('GET', '/containers/:id/json', async (x) => {
    x.send(200, detailsJson(await x.engine.containers.inspect(x.param('id'), { size: x.query.bool('size') }), x.minor))
  })
  router.on('GET', '/containers/:id/top', async (x) => {
    const args = x.query.text('ps_args').split(/[\t\n\v\f\r ]+/).filter((word) => word !== '')
    x.send(200, await x.engine.containers.top(x.param('id'), args.length > 0 ? args : ['-ef']))
  })
  router.on('GET', '/containers/:id/changes', async (x) => {
    const changes = await x.engine.containers.changes(x.param('id'), x.signal)
    x.send(200, changes.length > 0 ? changes.map(({ path, kind }) => ({ Path: path, Kind: kind })) : null)
  })
  router.on('GET', '/containers/:id/hull/explain', async (x) => {
    const { id, name, isolation, sections } = await x.engine.containers.explain(x.param('id'))
    x.send(200, { Id: id, Name: `/${name}`, Isolation: isolation, Sections: sections.map(({ title, rows }) => ({ Title: title, Rows: rows })) })
  })
  router.on('POST', '/containers/:id/start', start)
  router.on('POST', '/containers/:id/stop', async (x) => x.empty((await x.engine.containers.stop(x.param('id'), stopOptions(x))) ? 204 : 304))
  router.on('POST', '/containers/:id/restart', async (x) => {
    await x.engine.containers.restart(x.param('id'), stopOptions(x))
    x.empty()
  })
  router.on('POST', '/containers/:id/kill', kill)
  router.on('POST', '/containers/:id/pause', async (x) => {
    await x.engine.containers.pause(x.param('id'))
    x.empty()
  })
  router.on('POST', '/containers/:id/unpause', async (x) => {
    await x.engine.containers.unpause(x.param('id'))
    x.empty()
  })
  router.on('POST', '/containers/:id/rename', async (x) => {
    const name = x.query.text('name')
    if (name === '') throw badRequest('Neither old nor new names may be empty')
    await x.engine.containers.rename(x.param('id'), name)
    x.empty()
  })
  router.on('POST', '/containers/:id/update', update)
  router.on('POST', '/containers/:id/resize', async (x) => {
    const rows = x.query.dimension('h', 'height')
    await x.engine.containers.resize(x.param('id'), rows, x.query.dimension('w', 'width'))
    x.empty(200)
  })
  router.on('DELETE', '/containers/:id', async (x) => {
    await x.engine.containers.remove(x.param('id'), { volumes: x.query.bool('v'), force: x.query.bool('force'), link: x.query.bool('link') })
    x.empty()
  })
  router.on('HEAD', '/containers/:id/archive', async (x) => {
    x.response.setHeader('X-Docker-Container-Path-Stat', statHeader(await x.engine.containers.archiveStat(x.param('id'), archivePath(x))))
    x.empty(200)
  })
  router.on('PUT', '/containers/:id/archive', async (x) => {
    const options = { noOverwriteDirNonDir: x.query.bool('noOverwriteDirNonDir'), copyUidGid: x.query.bool('copyUIDGID') }
    await x.engine.containers.archivePut(x.param('id'), archivePath(x), x.upload(), options)
    x.empty(200)
  })
  router.on('POST', '/commit', async (x) => {
    const { query } = x
    const { id } = await x.engine.containers.commit(query.text('container'), {
      repo: query.text('repo'), tag: query.text('tag'), comment: query.text('comment'), author: query.text('author'), pause: query.bool('pause', true), changes: query.all('changes'),
    })
    x.send(201, { Id: id })
  })
}

async function list(x: Exchange): Promise<void> {
  const filters = parseFilters(x.query.text('filters'), listFilters)
  for (const status of filters.status ?? []) {
    if (!statuses.includes(status)) throw badRequest(`invalid filter 'status=${status}'`)
  }
  for (const code of filters.exited ?? []) if (!/^-?\d+$/.test(code)) throw badRequest(`invalid filter 'exited=${code}'`)
  const limit = x.query.integer('limit') ?? 0
  const rows = await x.engine.containers.list({ all: x.query.bool('all') || limit > 0, limit: Math.max(0, limit), size: x.query.bool('size'), filters })
  x.send(200, rows.map((row) => summaryJson(row, x.minor)))
}

/** 'os/arch[/variant]', or '' . */
export function platformOf(x: Exchange): string {
  const platform = x.query.text('platform')
  if (platform !== '' && !/^[a-zA-Z0-9_.-]+(\/[a-zA-Z0-9_.-]+){0,2}$/.test(platform)) {
    throw badRequest(`${JSON.stringify(platform)} is an invalid OS component of ${JSON.stringify(platform)}: OSAndVersion specifier component must match "^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.-]*)\\\\))?$": invalid argument`)
  }
  return platform
}

async function create(x: Exchange): Promise<void> {
  const platform = x.minor >= 41 ? platformOf(x) : ''
  const body = await x.json(createBody)
  const { id, warnings } = await x.engine.containers.create(createRequest(body, x.query.text('name'), platform, x.minor))
  x.send(201, { Id: id, Warnings: warnings })
}

async function start(x: Exchange): Promise<void> {
  const { headers } = x.request
  if (headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 7) {
    throw badRequest('starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24')
  }
  if (x.query.text('checkpoint') !== '') throw new HullError(501, 'checkpoints are not supported')
  x.empty((await x.engine.containers.start(x.param('id'))) ? 204 : 304)
}

function stopOptions(x: Exchange): { timeout?: number; signal?: number } {
  const timeout = x.query.integer('t')
  const signal = x.minor >= 42 ? x.query.text('signal') : ''
  return { ...(timeout === undefined ? {} : { timeout }), ...(signal === '' ? {} : { signal: parseSignal(signal) }) }
}

async function kill(x: Exchange): Promise<void> {
  const signal = x.query.text('signal')
  try {
    await x.engine.containers.kill(x.param('id'), signal === '' ? 9 : parseSignal(signal))
  } catch (error) {
    if (error instanceof HullError) throw new HullError(error.statusCode, `cannot kill container: ${x.param('id')}: ${error.message}`, { cause: error })
    throw error
  }
  x.empty()
}

async function update(x: Exchange): Promise<void> {
  const { RestartPolicy: policy, ...sent } = await x.json(updateBody)
  // Docker's rule: a zero value changes nothing. Pids is the exception: null changes nothing, and 0 and less mean unlimited.
  const resources: Partial<HostConfig> = Object.fromEntries(
    resourceFields
      .filter((name) => sent[name] !== 0 && sent[name] !== '' && sent[name] !== null && !(Array.isArray(sent[name]) && sent[name].length === 0))
      .map((name) => [name, sent[name]]),
  )
  if (sent.PidsLimit !== null && x.minor >= 40) resources.PidsLimit = Math.max(0, sent.PidsLimit)
  else delete resources.PidsLimit
  const request: UpdateContainerRequest = { resources, ...(policy && policy.Name !== '' ? { restartPolicy: policy } : {}) }
  const { warnings } = await x.engine.containers.update(x.param('id'), request)
  x.send(200, { Warnings: warnings.length > 0 ? warnings : null })
}

async function prune(x: Exchange): Promise<void> {
  const { deleted, spaceReclaimed } = await x.engine.containers.prune(parseFilters(x.query.text('filters'), ['until', 'label', 'label!']))
  x.send(200, { ContainersDeleted: deleted.length > 0 ? deleted : null, SpaceReclaimed: spaceReclaimed })
}

/** The `path` of the archive endpoints. */
export function archivePath(x: Exchange): string {
  const path = x.query.text('path')
  if (path === '') throw badRequest('bad parameter: pathcannot be empty')
  return path
}

/** X-Docker-Container-Path-Stat. */
export const statHeader = (stat: ArchiveStat): string =>
  Buffer.from(JSON.stringify({ name: stat.name, size: stat.size, mode: stat.mode, mtime: stat.mtime.toISOString(), linkTarget: stat.linkTarget })).toString('base64')
