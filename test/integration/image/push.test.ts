import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { mediaTypes } from '../../../src/image/manifests.js'
import type { RegistryAuth } from '../../../src/image/types.js'
import { dockerArchive, image, layer, ociManifest, sha256, type FixtureImage } from '../../lib/image-fixtures.js'
import { htpasswd, startRegistry, type TestRegistry } from '../../lib/registry.js'
import { harness, type Harness } from './harness.js'
import { scriptedRegistry } from './scripted-registry.js'

let h: Harness
let registry: TestRegistry
beforeAll(async () => {
  registry = await startRegistry()
})
afterAll(() => registry.stop())
beforeEach(async () => {
  h = await harness()
})
afterEach(() => h.close())

const fresh = () => image([layer([{ name: 'base', content: randomBytes(50_000) }]), layer([{ name: 'top', content: randomBytes(10).toString('hex') }])], { Cmd: ['x'] })
const load = (fixture: FixtureImage, ...tags: string[]) => h.images.load(Readable.from([dockerArchive([{ image: fixture, tags }])]), { onProgress: h.onProgress })
const push = (name: string, tag = '', auth?: RegistryAuth) => h.images.push(name, { tag, onProgress: h.onProgress, ...(auth ? { auth } : {}) })
const short = (digest: string) => digest.slice(7, 19)
const said = () => h.said().filter((line) => !/undefined$/.test(line))
const raw = async (path: string) => Buffer.from(await (await fetch(`http://${registry.host}/v2/${path}`, { headers: { Accept: Object.values(mediaTypes).join(', ') } })).arrayBuffer())

describe('push', () => {
  it('layers that came plain go out compressed; Docker\'s progress and digest; pulled by skopeo and by digest it is the same image', async () => {
    const fixture = fresh()
    await load(fixture, `${registry.host}/new/app:1`)
    h.messages.length = 0
    await push(`${registry.host}/new/app`, '1')
    const aux = h.messages.at(-1)!.aux as { Tag: string; Digest: string; Size: number }
    const lines = said()
    expect(lines[0]).toBe(`The push refers to repository [${registry.host}/new/app]`)
    for (const { diffId } of fixture.layers) {
      expect(lines).toContain(`Preparing ${short(diffId)}`)
      expect(lines).toContain(`Pushed ${short(diffId)}`)
    }
    expect(lines.at(-1)).toBe(`1: digest: ${aux.Digest} size: ${aux.Size}`)
    const manifest = await raw(`new/app/manifests/1`)
    expect(sha256(manifest)).toBe(aux.Digest)
    const { layers } = JSON.parse(manifest.toString()) as { layers: { mediaType: string; size: number }[] }
    expect(layers.every((l) => l.mediaType.endsWith('.tar.gzip'))).toBe(true)
    expect((await h.images.get(fixture.id)).repoDigests).toEqual([`${registry.host}/new/app@${aux.Digest}`])
    expect(sha256(execFileSync('skopeo', ['inspect', '--tls-verify=false', '--config', '--raw', `docker://${registry.host}/new/app:1`]))).toBe(fixture.id)

    const other = await harness()
    try {
      const pulled = await other.images.pull(`${registry.host}/new/app@${aux.Digest}`, { onProgress: other.onProgress })
      expect([pulled.id, pulled.diffIds, pulled.repoTags, pulled.repoDigests]).toEqual([fixture.id, fixture.layers.map((l) => l.diffId), [], [`${registry.host}/new/app@${aux.Digest}`]])
    } finally {
      await other.close()
    }

    // Again, and by a new daemon: nothing is sent, the digest is the same.
    await h.reopen()
    h.messages.length = 0
    await push(`${registry.host}/new/app`, '1')
    expect(said().filter((line) => line.startsWith('Layer already exists'))).toHaveLength(2)
    expect((h.messages.at(-1)!.aux as { Digest: string }).Digest).toBe(aux.Digest)
    // To another repository of the registry: mounted.
    await h.images.tag(fixture.id, `${registry.host}/second`, 'x')
    h.messages.length = 0
    await push(`${registry.host}/second`, 'x')
    expect(said().filter((line) => line.startsWith('Mounted from new/app')).length + said().filter((line) => line.startsWith('Layer already exists')).length).toBe(2)
    expect(said().some((line) => line.startsWith('Mounted from new/app'))).toBe(true)
  })

  it('what was pulled goes out byte for byte', async () => {
    const fixture = fresh()
    const digest = await registry.push('origin', '1', fixture)
    await h.images.pull(`${registry.host}/origin:1`, { onProgress: h.onProgress })
    await h.images.tag(fixture.id, `${registry.host}/copy`, '1')
    await push(`${registry.host}/copy`, '1')
    expect(await raw('copy/manifests/1')).toEqual(ociManifest(fixture))
    expect((await h.images.get(fixture.id)).repoDigests).toEqual([`${registry.host}/copy@${digest}`, `${registry.host}/origin@${digest}`])
  })

  it('an index goes along when the registry has the rest of it, else this platform alone and said so', async () => {
    const mine = fresh()
    const arm = image([layer([{ name: 'arm', content: randomBytes(5) }])], {}, { architecture: 'arm64' })
    const entries = []
    for (const [fixture, architecture] of [[mine, 'amd64'], [arm, 'arm64']] as const) {
      const digest = await registry.push('multi', architecture, fixture)
      entries.push({ mediaType: mediaTypes.ociManifest, digest, size: ociManifest(fixture).length, platform: { os: 'linux', architecture } })
    }
    const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: entries }))
    await registry.putManifest('multi', 'latest', index, mediaTypes.ociIndex)
    const pulled = await h.images.pull(`${registry.host}/multi`, { onProgress: h.onProgress })
    expect(pulled.repoDigests).toEqual([`${registry.host}/multi@${sha256(index)}`])
    await h.images.tag(pulled.id, `${registry.host}/multi`, 'release')
    await push(`${registry.host}/multi`, 'release')
    expect(await raw('multi/manifests/release')).toEqual(index)

    await h.images.tag(pulled.id, `${registry.host}/single`, '1')
    h.messages.length = 0
    await push(`${registry.host}/single`, '1')
    expect(await raw('single/manifests/1')).toEqual(ociManifest(mine))
    expect(h.messages.map((m) => m.aux as { manifestPushedInsteadOfIndex?: boolean } | undefined).filter((aux) => aux?.manifestPushedInsteadOfIndex)).toHaveLength(1)
    expect(await h.images.distribution(`${registry.host}/multi:release`)).toEqual({
      descriptor: { mediaType: mediaTypes.ociIndex, digest: sha256(index), size: index.length }, platforms: [{ os: 'linux', architecture: 'amd64' }, { os: 'linux', architecture: 'arm64' }],
    })
    expect((await h.images.distribution(`${registry.host}/single:1`)).platforms).toEqual([{ os: 'linux', architecture: 'amd64' }])
    await expect(h.images.distribution(`${registry.host}/single:none`)).rejects.toMatchObject({ statusCode: 404 })
  })

  it('all tags there and back; what is not there', async () => {
    const [a, b] = [fresh(), fresh()]
    await load(a, `${registry.host}/all:a`)
    await load(b, `${registry.host}/all:b`, `${registry.host}/all:c`)
    expect((await push(`${registry.host}/all`)).map((row) => row.name)).toEqual([`${registry.host}/all:a`, `${registry.host}/all:b`, `${registry.host}/all:c`])
    const other = await harness()
    try {
      const pulled = await other.images.pullAll(`${registry.host}/all`, { onProgress: other.onProgress })
      expect(pulled.map((row) => [row.name.split(':').at(-1), row.image.id]).sort()).toEqual([['a', a.id], ['b', b.id], ['c', b.id]])
      await expect(other.images.pullAll(`${registry.host}/none`, { onProgress: other.onProgress })).rejects.toMatchObject({ statusCode: 404 })
    } finally {
      await other.close()
    }
    await expect(push(`${registry.host}/nothing`, '1')).rejects.toMatchObject({ statusCode: 404, message: `An image does not exist locally with the tag: ${registry.host}/nothing` })
    await expect(push(`${registry.host}/nothing`)).rejects.toMatchObject({ statusCode: 404 })
    await expect(push(`${registry.host}/all@${a.id}`)).rejects.toMatchObject({ statusCode: 400, message: 'cannot push a digest reference' })
  })

  it('a registry that fails in the middle: told, and nothing left behind', async () => {
    const broken = await scriptedRegistry()
    try {
      const fixture = fresh()
      await load(fixture, `${broken.host}/x:1`)
      const before = await h.files()
      broken.intercept = (request, response) => {
        if (request.method === 'HEAD') response.writeHead(404).end()
        else if (request.method === 'POST') response.writeHead(202, { Location: '/v2/x/blobs/uploads/1' }).end()
        else if (request.method === 'PUT') response.writeHead(403).end(JSON.stringify({ errors: [{ code: 'DENIED', message: 'requested access to the resource is denied' }] }))
        else return false
        return true
      }
      await expect(push(`${broken.host}/x`, '1')).rejects.toMatchObject({ statusCode: 403, message: 'denied: requested access to the resource is denied' })
      expect(await h.files()).toEqual(before)
      broken.intercept = (request, response) => {
        if (request.method !== 'POST') return false
        response.writeHead(202, { Location: 'ftp://evil/' }).end()
        return true
      }
      await expect(push(`${broken.host}/x`, '1')).rejects.toMatchObject({ statusCode: 500, message: 'the registry wants an upload without TLS' })
    } finally {
      await broken.stop()
    }
  })
})

describe('login and credentials', () => {
  let directory: string
  let guarded: TestRegistry
  const credentials = { username: 'me', password: 'secret' }
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'hull-auth-'))
    await writeFile(join(directory, 'htpasswd'), htpasswd('me', 'secret'))
    guarded = await startRegistry({ auth: `auth: {htpasswd: {realm: here, path: ${join(directory, 'htpasswd')}}}`, credentials })
  })
  afterAll(async () => {
    await guarded.stop()
    await rm(directory, { recursive: true, force: true })
  })

  it('basic: the right password, a wrong one, none; push needs it', async () => {
    expect(await h.images.login(guarded.host, credentials)).toBe('')
    expect(await h.images.login(`http://${guarded.host}/v1/`, credentials)).toBe('')
    await expect(h.images.login(guarded.host, { username: 'me', password: 'wrong' })).rejects.toMatchObject({ statusCode: 401, message: `login attempt to http://${guarded.host}/v2/ failed with status: 401 Unauthorized` })
    await expect(h.images.login(guarded.host, {})).rejects.toMatchObject({ statusCode: 401 })
    expect(await h.images.login(registry.host, { username: 'any', password: 'thing' })).toBe('')
    const fixture = fresh()
    await load(fixture, `${guarded.host}/mine:1`)
    await expect(push(`${guarded.host}/mine`, '1')).rejects.toMatchObject({ statusCode: 401, message: 'no basic auth credentials' })
    await expect(push(`${guarded.host}/mine`, '1', { username: 'me', password: 'wrong' })).rejects.toMatchObject({ statusCode: 401 })
    await push(`${guarded.host}/mine`, '1', credentials)
    expect((await h.images.pull(`${guarded.host}/mine:1`, { onProgress: h.onProgress, auth: credentials })).id).toBe(fixture.id)
    expect(await readFile(join(h.dataRoot, 'image/registry-hints.json'), 'utf8')).not.toContain('secret')
  })

  it('token server: an identity token for a password, and its use; refused', async () => {
    const tokens = await scriptedRegistry()
    try {
      tokens.intercept = (request, response, url) => {
        if (url.pathname === '/token') {
          const good = request.headers.authorization === `Basic ${Buffer.from('me:secret').toString('base64')}`
          if (good && url.searchParams.get('offline_token') === 'true') response.end(JSON.stringify({ token: 'short', refresh_token: 'long' }))
          else if (request.method === 'POST') response.end(JSON.stringify({ access_token: 'short' }))
          else response.writeHead(401).end('{}')
        } else if (request.headers.authorization === 'Bearer short') response.end('{}')
        else response.writeHead(401, { 'WWW-Authenticate': `Bearer realm="http://${tokens.host}/token",service="s"` }).end('{}')
        return true
      }
      expect(await h.images.login(tokens.host, credentials)).toBe('long')
      expect(await h.images.login(tokens.host, { identitytoken: 'long' })).toBe('')
      await expect(h.images.login(tokens.host, { username: 'me', password: 'wrong' })).rejects.toMatchObject({ statusCode: 401, message: `Get "http://${tokens.host}/v2/": unauthorized: incorrect username or password` })
    } finally {
      await tokens.stop()
    }
  })
})

describe('search', () => {
  it('the index protocol; a registry without one says so', async () => {
    const index = await scriptedRegistry()
    try {
      index.intercept = (_request, response, url) => {
        if (url.pathname !== '/v1/search') return false
        response.end(JSON.stringify({ num_results: 2, query: url.searchParams.get('q'), results: [{ name: 'redis', description: 'd', star_count: 9, is_official: true, is_automated: false }, { name: `x/${url.searchParams.get('q')}` }] }))
        return true
      }
      expect(await h.images.search(`${index.host}/redis`, { limit: 25 })).toEqual([
        { name: 'redis', description: 'd', starCount: 9, isOfficial: true, isAutomated: false }, { name: 'x/redis', description: '', starCount: 0, isOfficial: false, isAutomated: false },
      ])
      await expect(h.images.search(`${registry.host}/redis`, { limit: 25 })).rejects.toMatchObject({ statusCode: 404, message: `the registry ${registry.host} has no search (no /v1/search)` })
      await expect(h.images.search('x', { limit: 500 })).rejects.toMatchObject({ statusCode: 400, message: 'limit 500 is outside the range of [1, 100]' })
      index.intercept = (_request, response) => {
        response.end('<html>')
        return true
      }
      await expect(h.images.search(`${index.host}/x`, { limit: 25 })).rejects.toMatchObject({ statusCode: 500 })
    } finally {
      await index.stop()
    }
  })
})
