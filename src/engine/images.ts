import type { Readable } from 'node:stream'
import { badRequest, messageOf } from '../base/errors.js'
import { log } from '../base/log.js'
import type { Image, ImageService, ProgressMessage, RegistryAuth, SearchResult } from '../image/types.js'
import type { Filters, HistoryEntry, ImageEngine, ImageFilter, ImageSummary } from './api-types.js'
import type { EventBus } from './events.js'
import { matchLabels } from './list.js'
import type { ContainerRegistry } from './registry.js'

/** What a removal did, a row each. */
type Row = { Untagged: string } | { Deleted: string }

/** A moment as filters write it: seconds since the epoch, RFC 3339, or an age such as '24h'. Milliseconds. 400 otherwise. */
export function parseMoment(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000
  const age = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?$/.exec(text)
  if (age && text !== '') return Date.now() - (Number(age[1] ?? 0) * 3600 + Number(age[2] ?? 0) * 60 + Number(age[3] ?? 0)) * 1000
  const time = Date.parse(text)
  if (Number.isNaN(time)) throw badRequest(`invalid time: ${text}`)
  return time
}

/** A shell pattern of one path segment and more ('*' stops at '/'), as Go's path.Match. */
function globMatches(pattern: string, text: string): boolean {
  const source = pattern.replace(/[.+^${}()|\\]/g, '\\$&').replace(/\*/g, '[^/]*').replace(/\?/g, '[^/]')
  try {
    return new RegExp(`^${source}$`).test(text)
  } catch {
    return false
  }
}

const matchesPattern = (name: string, pattern: string): boolean => globMatches(pattern, name) || globMatches(pattern, name.replace(/(:[^:/]*|@.*)$/, ''))

/** An image with those of its names that a reference filter asks for; undefined when it has none (moby, daemon/images.go). */
function withNames(image: Image, patterns: readonly string[]): Image | undefined {
  const asked = (name: string) => patterns.some((pattern) => matchesPattern(name, pattern))
  const repoTags = image.repoTags.filter(asked)
  const repoDigests = image.repoDigests.filter(asked)
  return repoTags.length + repoDigests.length === 0 ? undefined : { ...image, repoTags, repoDigests }
}

/** Docker's /images over {@link ImageService}. */
export class Images implements ImageEngine {
  constructor(
    readonly service: ImageService,
    readonly registry: ContainerRegistry,
    readonly events: EventBus,
    /** Bytes of one unpacked layer. */
    readonly layerSize: (diffId: string) => number,
  ) {}

  async list(request: { all: boolean; filters: Filters<ImageFilter>; digests: boolean; sharedSize: boolean }): Promise<ImageSummary[]> {
    const { filters } = request
    let images = await this.service.list()
    const createdOf = async (reference: string) => Date.parse((await this.service.get(reference)).created)
    for (const reference of filters.before ?? []) {
      const moment = await createdOf(reference)
      images = images.filter((image) => Date.parse(image.created) < moment)
    }
    for (const reference of filters.since ?? []) {
      const moment = await createdOf(reference)
      images = images.filter((image) => Date.parse(image.created) > moment)
    }
    for (const text of filters.until ?? []) {
      const moment = parseMoment(text)
      images = images.filter((image) => Date.parse(image.created) < moment)
    }
    if (filters.dangling) {
      const dangling = filters.dangling.some((value) => value === 'true' || value === '1')
      if (filters.dangling.some((value) => !['true', 'false', '1', '0'].includes(value))) throw badRequest(`invalid filter 'dangling=[${filters.dangling.join(' ')}]'`)
      images = images.filter((image) => (image.repoTags.length === 0 && this.service.children(image.id).length === 0) === dangling)
    }
    // The steps of a build, between its base and its result: `docker images -a` shows them.
    if (!request.all) images = images.filter((image) => image.repoTags.length > 0 || this.service.children(image.id).length === 0)
    if (filters.reference) images = images.flatMap((image) => withNames(image, filters.reference!) ?? [])
    images = images.filter((image) => matchLabels(image.config.Labels ?? {}, filters.label))
    const without = filters['label!']
    if (without) images = images.filter((image) => !without.some((label) => matchLabels(image.config.Labels ?? {}, [label])))
    return images
      .sort((a, b) => Date.parse(b.created) - Date.parse(a.created))
      .map((image) => ({ image, containers: this.#users(image.id).length, sharedSize: request.sharedSize ? this.service.sharedSize(image.id) : -1 }))
  }

  async inspect(reference: string) {
    const image = await this.service.get(reference)
    const { layers } = await this.service.rootfs(image.id)
    const [upper = '', ...lower] = [...layers].reverse()
    const layersDirectories: Record<string, string> = { UpperDir: upper }
    if (lower.length > 0) layersDirectories['LowerDir'] = lower.join(':')
    return { image, layersDirectories, storageDriver: 'overlay2' }
  }

  async history(reference: string): Promise<HistoryEntry[]> {
    const image = await this.service.get(reference)
    const rows: HistoryEntry[] = image.history.map((entry) => ({
      id: '<missing>',
      created: new Date(entry.created ?? 0),
      createdBy: entry.created_by ?? '',
      tags: [],
      size: 0,
      comment: entry.comment ?? '',
    }))
    const sizes = image.diffIds.map(this.layerSize)
    let layer = 0
    image.history.forEach((entry, index) => {
      if (!entry.empty_layer) rows[index]!.size = sizes[layer++] ?? 0
    })
    rows.reverse()
    if (rows.length === 0) rows.push({ id: image.id, created: new Date(image.created), createdBy: '', tags: [], size: image.size, comment: '' })
    rows[0]!.id = image.id
    rows[0]!.tags = image.repoTags
    return rows
  }

  async tag(reference: string, repo: string, tag: string): Promise<void> {
    await this.service.tag(reference, repo, tag)
    const image = await this.service.get(reference)
    this.events.publish('image', 'tag', image.id, { name: tag ? `${repo}:${tag}` : repo })
  }

  async remove(reference: string, options: { force: boolean; noprune: boolean }): Promise<Row[]> {
    const named = await this.service.get(reference)
    let { parent } = named
    const rows = await this.service.remove(reference, { ...options, usedBy: (id) => this.#users(id) })
    this.#announceRemoval(named.id, rows)
    // The steps that led to it go along when nothing else stands on them.
    while (parent !== undefined && !options.noprune && rows.some((row) => 'Deleted' in row)) {
      const image: Image | undefined = await this.service.get(parent).catch(() => undefined)
      if (image === undefined || image.repoTags.length + image.repoDigests.length > 0 || this.service.children(image.id).length > 0 || this.#users(image.id).length > 0) break
      const more = await this.service.remove(image.id, { force: false, noprune: false, usedBy: () => [] })
      this.#announceRemoval(image.id, more)
      rows.push(...more)
      parent = image.parent
    }
    return rows
  }

  /** Of the image, by its ID (moby LogImageEvent): of the rows that are layers, and of digests that went with their last tag, no event tells. */
  #announceRemoval(id: string, rows: readonly Row[]): void {
    for (const [index, row] of rows.entries()) {
      if ('Deleted' in row ? row.Deleted !== id : index > 0 && row.Untagged.includes('@')) continue
      this.events.publish('image', 'Deleted' in row ? 'delete' : 'untag', id, { name: id })
    }
  }

  #users(imageId: string): { id: string; running: boolean }[] {
    return this.registry
      .all()
      .filter((container) => container.record.imageId === imageId)
      .map((container) => ({ id: container.id, running: container.isUp }))
  }

  async pull(
    reference: string,
    options: { platform: string; allTags: boolean; auth?: RegistryAuth; onProgress: (m: ProgressMessage) => void; signal: AbortSignal },
  ): Promise<void> {
    const pullOptions = {
      ...(options.platform ? { platform: options.platform } : {}), ...(options.auth ? { auth: options.auth } : {}), onProgress: options.onProgress, signal: options.signal,
    }
    const pulled = options.allTags ? await this.service.pullAll(reference, pullOptions) : [{ name: reference, image: await this.service.pull(reference, pullOptions) }]
    for (const { name, image } of pulled) this.events.publish('image', 'pull', name, { ...image.config.Labels, name })
  }

  async load(tar: Readable, options: { onProgress: (m: ProgressMessage) => void; signal: AbortSignal }): Promise<void> {
    const images = await this.service.load(tar, options)
    for (const image of images) this.events.publish('image', 'load', image.id, { name: image.repoTags[0] ?? image.id })
  }

  async import(
    tar: Readable,
    options: { repo: string; tag: string; message: string; changes: string[]; platform: string; signal: AbortSignal },
  ): Promise<string> {
    const image = await this.service.import(tar, {
      ...(options.repo ? { repo: options.repo } : {}),
      ...(options.tag ? { tag: options.tag } : {}),
      ...(options.message ? { message: options.message } : {}),
      ...(options.platform ? { platform: options.platform } : {}),
      changes: options.changes,
    })
    this.events.publish('image', 'import', image.id, { name: image.repoTags[0] ?? image.id })
    return image.id
  }

  async prune(filters: Filters<'dangling' | 'until' | 'label' | 'label!'>) {
    // Docker's default is dangling=true: `docker image prune -a` says dangling=false and means every image that no container uses.
    const all = filters.dangling?.includes('false') ?? false
    const { dangling: _, ...rest } = filters
    const rows = await this.list({ all: false, filters: rest, digests: false, sharedSize: false })
    const deleted: Row[] = []
    let spaceReclaimed = 0
    for (const { image, containers } of rows) {
      if (containers > 0 || (!all && image.repoTags.length > 0)) continue
      const removed = await this.#pruneOne(image)
      if (removed.some((row) => 'Deleted' in row)) spaceReclaimed += image.size
      deleted.push(...removed)
    }
    this.events.publish('image', 'prune', '', { reclaimed: String(spaceReclaimed) })
    return { deleted, spaceReclaimed }
  }

  /** Every name of an image, the last of which takes the image along. What somebody has taken or removed meanwhile is left, and no reason to leave the others (moby imageDeleteFailed). */
  async #pruneOne({ id, repoTags, repoDigests }: Image): Promise<Row[]> {
    const removed: Row[] = []
    const references = [...repoTags, ...repoDigests]
    for (const reference of references.length > 0 ? references : [id]) {
      if (removed.some((row) => 'Deleted' in row)) break
      try {
        removed.push(...(await this.remove(reference, { force: false, noprune: false })))
      } catch (error) {
        log.info('an image was not pruned', { reference, error: messageOf(error) })
      }
    }
    return removed
  }

  async save(references: string[], signal: AbortSignal): Promise<Readable> {
    const tar = await this.service.save(references, signal)
    for (const reference of references) {
      const { id } = await this.service.get(reference).catch(() => ({ id: '' }))
      if (id !== '') this.events.publish('image', 'save', id, { name: id })
    }
    return tar
  }

  async push(reference: string, options: { tag: string; auth?: RegistryAuth; onProgress: (m: ProgressMessage) => void; signal: AbortSignal }): Promise<void> {
    for (const { name } of await this.service.push(reference, options)) {
      const { config } = await this.service.get(name)
      this.events.publish('image', 'push', name, { ...config.Labels, name })
    }
  }

  async search(term: string, options: { limit: number; auth?: RegistryAuth; filters: Filters<'is-automated' | 'is-official' | 'stars'>; signal: AbortSignal }): Promise<SearchResult[]> {
    const { filters } = options
    const flag = (name: 'is-automated' | 'is-official') => {
      const values = filters[name]
      if (values === undefined) return undefined
      if (values.some((value) => !['true', 'false', '1', '0'].includes(value))) throw badRequest(`invalid filter '${name}=[${values.join(' ')}]'`)
      return values.some((value) => value === 'true' || value === '1')
    }
    const [official, automated] = [flag('is-official'), flag('is-automated')]
    const stars = (filters.stars ?? []).map((value) => {
      if (!/^\d+$/.test(value)) throw badRequest(`invalid filter 'stars=${value}'`)
      return Number(value)
    })
    if (term.trim() === '') throw badRequest('Search term is required')
    const rows = await this.service.search(term, options)
    return rows.filter((row) => (official === undefined || row.isOfficial === official) && (automated === undefined || row.isAutomated === automated) && stars.every((least) => row.starCount >= least))
  }
}
