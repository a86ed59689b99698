import { badRequest } from '../base/errors.js'
import type { EventFilter } from '../engine/api-types.js'
import { openMetrics, openMetricsType } from '../base/metrics.js'
import { requestDurations } from './metrics.js'
import type { Exchange } from './exchange.js'
import { parseFilters } from './filters.js'
import { imageRow } from './mapping-image.js'
import { eventLine, infoJson, versionJson, volumeJson } from './mapping-system.js'
import { summaryJson } from './mapping-container.js'
import { authBody } from './registry-auth.js'
import type { Router } from './router.js'

const eventFilters: readonly EventFilter[] = [
  'builder', 'config', 'container', 'daemon', 'event', 'image', 'label', 'network', 'node', 'plugin', 'scope', 'secret', 'service', 'type', 'volume',
]

/** The engine's own endpoints. */
export function systemRoutes(router: Router): void {
  router.on('GET', '/_ping', ping)
  router.on('HEAD', '/_ping', ping)
  router.on('GET', '/info', async (x) => x.send(200, infoJson(await x.engine.system.info(), x.version)))
  router.on('GET', '/version', async (x) => x.send(200, versionJson(x.version, (await x.engine.system.info()).components)))
  router.on('GET', '/events', events)
  router.on('GET', '/metrics', (x) => x.sendText(200, openMetrics([...x.engine.system.metrics(), requestDurations.family()]), openMetricsType))
  router.on('GET', '/system/df', diskUsage)
  router.on('POST', '/auth', async (x) => {
    const body = await x.json(authBody)
    const { status, identityToken } = await x.engine.system.auth({
      username: body.username, password: body.password, serverAddress: body.serveraddress, identityToken: body.identitytoken,
    })
    x.send(200, { Status: status, IdentityToken: identityToken })
  })
}

function ping(x: Exchange): void {
  for (const [name, value] of Object.entries({ 'Cache-Control': 'no-cache, no-store, must-revalidate', Pragma: 'no-cache', Swarm: 'inactive' })) {
    x.response.setHeader(name, value)
  }
  x.sendText(200, x.request.method === 'HEAD' ? '' : 'OK', 'text/plain; charset=utf-8')
}

async function events(x: Exchange): Promise<void> {
  const since = x.query.time('since')
  const until = x.query.time('until')
  if (since !== undefined && until !== undefined && until < since) {
    throw badRequest(`\`since\` time (${x.query.text('since')}) cannot be after \`until\` time (${x.query.text('until')})`)
  }
  const filters = parseFilters(x.query.text('filters'), eventFilters, 'ignore')
  // Subscribed before the headers go out: a client that has them may act, and must see what it caused.
  const stream = x.engine.system.events({ filters, signal: x.signal, ...(since === undefined ? {} : { since }), ...(until === undefined ? {} : { until }) })
  x.begin('application/json')
  for await (const event of stream) {
    if (x.minor < 46 && event.type === 'image' && event.action === 'create') continue
    if (!(await x.write(eventLine(event)))) return
  }
  x.response.end()
}

const kinds = ['container', 'image', 'volume', 'build-cache'] as const

async function diskUsage(x: Exchange): Promise<void> {
  const asked = x.minor >= 42 ? x.query.all('type') : []
  const wanted = new Set<(typeof kinds)[number]>()
  for (const kind of asked) {
    const known = kinds.find((candidate) => candidate === kind)
    if (!known) throw badRequest(`unknown object type: ${kind}`)
    wanted.add(known)
  }
  if (asked.length === 0) kinds.forEach((kind) => wanted.add(kind))
  const usage = await x.engine.system.diskUsage(wanted)
  x.send(200, {
    LayersSize: usage.layersSize,
    Images: wanted.has('image') ? usage.images.map((row) => imageRow(row, x.minor, true)) : null,
    Containers: wanted.has('container') ? usage.containers.map((row) => summaryJson(row, x.minor)) : null,
    Volumes: wanted.has('volume') ? usage.volumes.map(volumeJson) : null,
    BuildCache: wanted.has('build-cache') ? [] : null,
    BuilderSize: 0,
  })
}
