import { badRequest, notImplemented } from '../base/errors.js'
import type { ImageFilter } from '../engine/api-types.js'
import type { Exchange } from './exchange.js'
import { parseFilters } from './filters.js'
import { distributionJson, historyRow, imageDetails, imageRow, searchRow } from './mapping-image.js'
import { ProgressStream } from './progress.js'
import { registryAuth } from './registry-auth.js'
import type { Router } from './router.js'
import { platformOf } from './routes-containers.js'
import { sendTar } from './routes-streams.js'

const filters: readonly ImageFilter[] = ['before', 'dangling', 'label', 'label!', 'reference', 'since', 'until']

/** Images' endpoints. */
export function imageRoutes(router: Router): void {
  router.on('GET', '/images/json', list)
  router.on('POST', '/images/create', create)
  router.on('POST', '/images/load', load)
  router.on('POST', '/images/prune', prune)
  router.on('GET', '/images/search', search)
  router.on('GET', '/images/get', async (x) => sendTar(x, await x.engine.images.save(names(x), x.signal)))
  router.named('GET', '/images/', '/get', async (x) => sendTar(x, await x.engine.images.save([x.param('name')], x.signal)))
  router.named('GET', '/images/', '/json', async (x) => x.send(200, imageDetails(await x.engine.images.inspect(x.param('name')), x.minor)))
  router.named('GET', '/images/', '/history', async (x) => x.send(200, (await x.engine.images.history(x.param('name'))).map(historyRow)))
  router.named('POST', '/images/', '/tag', async (x) => {
    const repo = x.query.text('repo')
    if (repo === '') throw badRequest('invalid reference format')
    await x.engine.images.tag(x.param('name'), repo, x.query.text('tag'))
    x.empty(201)
  })
  router.named('POST', '/images/', '/push', push)
  router.named('DELETE', '/images/', '', async (x) => {
    const name = x.param('name')
    if (name.trim() === '') throw badRequest('image name cannot be blank')
    x.send(200, await x.engine.images.remove(name, { force: x.query.bool('force'), noprune: x.query.bool('noprune') }))
  })
  router.named('GET', '/distribution/', '/json', async (x) => {
    x.send(200, distributionJson(await x.engine.system.distribution(x.param('name'), registryAuth(x.request.headers['x-registry-auth']))))
  })
}

async function list(x: Exchange): Promise<void> {
  const { query } = x
  const wanted = parseFilters(query.text('filters'), filters)
  const old = x.minor < 41 ? query.text('filter') : ''
  const rows = await x.engine.images.list({
    all: query.bool('all'), digests: query.bool('digests'), sharedSize: x.minor >= 42 && query.bool('shared-size'),
    filters: old === '' ? wanted : { ...wanted, reference: [...(wanted.reference ?? []), old] },
  })
  x.send(200, rows.map((row) => imageRow(row, x.minor)))
}

function names(x: Exchange): string[] {
  const all = x.query.all('names').filter((name) => name !== '')
  if (all.length === 0) throw badRequest('no image names given')
  return all
}

/** `fromImage` and `tag` → one reference. The tag may be a digest; without any, all tags are meant. */
export function pullReference(image: string, tag: string): { reference: string; allTags: boolean } {
  const name = image.replace(/:$/, '')
  const tagged = name.includes('@') || name.slice(name.lastIndexOf('/') + 1).includes(':')
  if (tag === '') return { reference: name, allTags: !tagged }
  if (/^[a-z0-9+._-]+:[0-9a-fA-F]{32,}$/.test(tag)) return { reference: `${name.split('@')[0]}@${tag}`, allTags: false }
  const bare = tagged && !name.includes('@') ? name.slice(0, name.lastIndexOf(':')) : name
  return { reference: `${bare}:${tag}`, allTags: false }
}

async function create(x: Exchange): Promise<void> {
  const { query } = x
  const platform = x.minor >= 32 ? platformOf(x) : ''
  const image = query.text('fromImage')
  const progress = new ProgressStream(x)
  if (image !== '') {
    const { reference, allTags } = pullReference(image, query.text('tag'))
    const auth = registryAuth(x.request.headers['x-registry-auth'])
    return progress.run(() => x.engine.images.pull(reference, { platform, allTags, onProgress: progress.send, signal: x.signal, ...(auth ? { auth } : {}) }))
  }
  const source = query.text('fromSrc')
  if (source !== '-') throw source === '' ? badRequest('fromImage or fromSrc must be given') : notImplemented('import from a URL is not supported: download it and import the file')
  return progress.run(async () => {
    const id = await x.engine.images.import(x.upload(), {
      repo: query.text('repo'), tag: query.text('tag'), message: query.text('message') || 'Imported from -', changes: query.all('changes'), platform, signal: x.signal,
    })
    progress.send({ status: id })
  })
}

async function load(x: Exchange): Promise<void> {
  const progress = new ProgressStream(x, x.query.bool('quiet', true))
  await progress.run(() => x.engine.images.load(x.upload(), { onProgress: progress.send, signal: x.signal }))
}

async function push(x: Exchange): Promise<void> {
  const progress = new ProgressStream(x)
  const auth = registryAuth(x.request.headers['x-registry-auth'])
  await progress.run(() => x.engine.images.push(x.param('name'), { tag: x.query.text('tag'), onProgress: progress.send, signal: x.signal, ...(auth ? { auth } : {}) }))
}

async function search(x: Exchange): Promise<void> {
  const wanted = parseFilters(x.query.text('filters'), ['is-automated', 'is-official', 'stars'])
  const auth = registryAuth(x.request.headers['x-registry-auth'])
  const rows = await x.engine.images.search(x.query.text('term'), { limit: x.query.integer('limit') ?? 25, filters: wanted, signal: x.signal, ...(auth ? { auth } : {}) })
  x.send(200, rows.map(searchRow))
}

async function prune(x: Exchange): Promise<void> {
  const { deleted, spaceReclaimed } = await x.engine.images.prune(parseFilters(x.query.text('filters'), ['dangling', 'until', 'label', 'label!']))
  x.send(200, { ImagesDeleted: deleted.length > 0 ? deleted : null, SpaceReclaimed: spaceReclaimed })
}
