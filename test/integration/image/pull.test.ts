import { randomBytes } from 'node:crypto'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { mediaTypes } from '../../../src/image/manifests.js'
import { busyboxImage, image, layer, ociManifest, sha256, type FixtureImage } from '../../lib/image-fixtures.js'
import { htpasswd, startRegistry, type TestRegistry } from '../../lib/registry.js'
import { harness, type Harness } from './harness.js'
import { scriptedRegistry, sendBlob, sendPart, type ScriptedRegistry } from './scripted-registry.js'

let h: Harness
afterEach(() => h.close())

const pull = (name: string, options: { platform?: string; signal?: AbortSignal } = {}) => h.images.pull(name, { ...options, onProgress: h.onProgress })
const short = (digest: string) => digest.slice(7, 19)
const layersOf = (count: number, bytes = 1000) => Array.from({ length: count }, (_, i) => layer([{ name: `f${i}`, content: randomBytes(bytes) }, { name: 'which', content: String(i) }]))

describe('from docker-registry', () => {
  let registry: TestRegistry
  beforeAll(async () => {
    registry = await startRegistry()
  })
  afterAll(() => registry.stop())
  beforeEach(async () => {
    h = await harness()
  })

  it('an image, with Docker\'s progress; again: up to date; layers that are there are not fetched', async () => {
    const base = busyboxImage()
    const digest = await registry.push('team/box', '1', base)
    const pulled = await pull(`${registry.host}/team/box:1`)
    expect(pulled).toMatchObject({ id: base.id, repoTags: [`${registry.host}/team/box:1`], repoDigests: [`${registry.host}/team/box@${digest}`] })
    const id = short(base.layers[0]!.digest)
    const said = h.said().filter((line, i, all) => all[i - 1] !== line)
    expect(said).toEqual([
      'Pulling from team/box 1', `Pulling fs layer ${id}`, `Downloading ${id}`, `Verifying Checksum ${id}`, `Download complete ${id}`, `Extracting ${id}`, `Pull complete ${id}`,
      `Digest: ${digest}`, `Status: Downloaded newer image for ${registry.host}/team/box:1`,
    ])
    expect(h.messages.find((m) => m.status === 'Downloading')).toMatchObject({ progressDetail: { total: base.layers[0]!.blob.length }, progress: expect.stringMatching(/^\[=*> *\] .*B\/.*B$/) as unknown })

    h.messages.length = 0
    await pull(`${registry.host}/team/box:1`)
    expect(h.said()).toEqual(['Pulling from team/box 1', `Digest: ${digest}`, `Status: Image is up to date for ${registry.host}/team/box:1`])

    const more = image([base.layers[0]!, layer([{ name: 'new', content: 'x' }])])
    await registry.push('team/box', '2', more)
    h.messages.length = 0
    await pull(`${registry.host}/team/box:2`)
    expect(h.said()).toContain(`Already exists ${id}`)
    expect(h.said()).toContain(`Pull complete ${short(more.layers[1]!.digest)}`)

    h.messages.length = 0
    const byDigest = await pull(`${registry.host}/team/box@${digest}`)
    expect(byDigest.id).toBe(base.id)
    expect(h.said().at(-1)).toBe(`Status: Image is up to date for ${registry.host}/team/box@${digest}`)
  })

  it('many layers: at most three downloads at a time, unpacked in order; gzip, zstd and plain', async () => {
    const layers = [...layersOf(6), layer([{ name: 'z', content: 'z' }], 'zstd'), layer([{ name: 'p', content: 'p' }], 'none')]
    const fixture = image(layers)
    await registry.push('many', 'latest', fixture)
    const pulled = await pull(`${registry.host}/many`)
    expect(pulled.diffIds).toEqual(layers.map((l) => l.diffId))
    expect(h.said().filter((line) => line.startsWith('Waiting')).length).toBeGreaterThanOrEqual(1)
    expect(h.said().filter((line) => line.startsWith('Pull complete'))).toEqual(layers.map((l) => `Pull complete ${short(l.digest)}`))
    const root = await h.images.rootfs(pulled.id)
    expect(await readFile(join(root.layers[5]!, 'which'), 'utf8')).toBe('5')
    const empty = layer([])
    const repeated = image([empty, layer([{ name: 'a', content: '' }]), empty])
    await registry.push('many', 'repeated', repeated)
    expect((await pull(`${registry.host}/many:repeated`)).diffIds).toHaveLength(3)
    await h.images.remove(repeated.id, { force: true, noprune: false, usedBy: () => [] })
    await h.images.remove(fixture.id, { force: true, noprune: false, usedBy: () => [] })
    expect(await h.files()).toEqual([])
  })

  it('an index: this platform, another one by --platform, none that fits', async () => {
    const [mine, arm] = [image([layer([{ name: 'a', content: 'mine' }])]), image([layer([{ name: 'a', content: 'arm' }])], {}, { architecture: 'arm', variant: 'v6' })]
    const digests = [await registry.push('multi', 'mine', mine), await registry.push('multi', 'arm', arm)]
    const architecture = process.arch === 'x64' ? 'amd64' : process.arch
    const descriptor = (i: number, platform: object) => ({ mediaType: mediaTypes.ociManifest, digest: digests[i], size: ociManifest([mine, arm][i]!).length, platform })
    for (const [tag, mediaType] of [['oci', mediaTypes.ociIndex], ['docker', mediaTypes.dockerList]] as const) {
      const index = Buffer.from(JSON.stringify({
        schemaVersion: 2, mediaType, manifests: [descriptor(1, { os: 'linux', architecture: 'arm', variant: 'v6' }), descriptor(0, { os: 'linux', architecture }), descriptor(0, { os: 'unknown', architecture: 'unknown' })],
      }))
      const indexDigest = await registry.putManifest('multi', tag, index, mediaType)
      const pulled = await pull(`${registry.host}/multi:${tag}`)
      expect(pulled.id).toBe(mine.id)
      expect(pulled.repoDigests).toContain(`${registry.host}/multi@${indexDigest}`)
    }
    expect((await pull(`${registry.host}/multi:oci`, { platform: 'linux/arm/v7' })).id).toBe(arm.id)
    await expect(pull(`${registry.host}/multi:oci`, { platform: 'linux/s390x' })).rejects.toMatchObject({ statusCode: 404, message: 'no matching manifest for linux/s390x in the manifest list entries' })
    await expect(pull(`${registry.host}/multi:mine`, { platform: 'linux/riscv64' })).rejects.toMatchObject({ statusCode: 404, message: expect.stringContaining('does not match the specified platform: wanted linux/riscv64') as unknown })
    await expect(pull(`${registry.host}/multi:mine`, { platform: 'a/b/c/d' })).rejects.toMatchObject({ statusCode: 400 })
  })

  it('what is not there, in Docker\'s words', async () => {
    await registry.push('there', '1', image([layer([{ name: 'a', content: '' }])]))
    await expect(pull(`${registry.host}/there:2`)).rejects.toMatchObject({ statusCode: 404, message: `manifest for ${registry.host}/there:2 not found: manifest unknown: manifest unknown` })
    await expect(pull(`${registry.host}/nosuch`)).rejects.toMatchObject({ statusCode: 404 })
    await expect(pull('127.0.0.1:1/a')).rejects.toThrow(/^Get "https?:\/\/127\.0\.0\.1:1\/v2\/": dial tcp .*: connect: connection refused$/)
    await expect(pull('not valid')).rejects.toMatchObject({ statusCode: 400, message: 'invalid reference format' })
  })

  it('many callers, one fetch; one that gives up stops nobody', async () => {
    const fixture = image(layersOf(3, 3_000_000))
    await registry.push('shared', '1', fixture)
    await registry.push('shared', '2', fixture)
    const controller = new AbortController()
    const pulls = [pull(`${registry.host}/shared:1`), pull(`${registry.host}/shared:1`), pull(`${registry.host}/shared:2`)]
    const quitter = pull(`${registry.host}/shared:1`, { signal: controller.signal })
    setTimeout(() => controller.abort(new Error('left')), 10)
    await expect(quitter).rejects.toThrow('left')
    for (const pulled of await Promise.all(pulls)) expect(pulled.id).toBe(fixture.id)
    expect((await h.files()).filter((path) => path.startsWith('image/ingest'))).toEqual([])
  })
})

it('basic auth against docker-registry', async () => {
  h = await harness()
  const users = join(h.root, 'htpasswd')
  await writeFile(users, htpasswd('me', 'secret'))
  const registry = await startRegistry({ auth: `auth: {htpasswd: {realm: test, path: ${users}}}` })
  try {
    const name = `${registry.host}/a`
    await expect(h.images.pull(name, { onProgress: h.onProgress })).rejects.toMatchObject({ statusCode: 401, message: 'no basic auth credentials' })
    await expect(h.images.pull(name, { onProgress: h.onProgress, auth: { username: 'me', password: 'wrong' } })).rejects.toMatchObject({ statusCode: 401, message: 'unauthorized: authentication required' })
    await expect(h.images.pull(name, { onProgress: h.onProgress, auth: { username: 'me', password: 'secret' } })).rejects.toMatchObject({ statusCode: 404 })
  } finally {
    await registry.stop()
  }
})

describe('from a registry that misbehaves', () => {
  let registry: ScriptedRegistry
  let fixture: FixtureImage
  beforeEach(async () => {
    h = await harness()
    registry = await scriptedRegistry()
    fixture = image([layer([{ name: 'big', content: randomBytes(2_000_000) }], 'none')])
    registry.add('r', 'latest', fixture)
  })
  afterEach(() => registry.stop())
  const blobPath = () => `/v2/r/blobs/${fixture.layers[0]!.digest}`

  it('broken connections: goes on where it stopped', async () => {
    let broken = 0
    registry.intercept = (request, response, url) => {
      if (url.pathname !== blobPath() || broken >= 3) return false
      broken++
      sendPart(request, response, fixture.layers[0]!.blob, 300_000)
      return true
    }
    expect((await pull(`${registry.host}/r`)).id).toBe(fixture.id)
    const ranges = registry.requests.filter((r) => r.line.endsWith(blobPath())).map((r) => r.headers.range)
    expect(ranges).toHaveLength(4)
    expect(ranges[0]).toBeUndefined()
    expect(ranges.slice(1)).toEqual(['bytes=300000-', 'bytes=600000-', 'bytes=900000-'])
    expect(h.said()).toContain(`Retrying in 1 second ${short(fixture.layers[0]!.digest)}`)
  })

  it('a daemon that ended in the middle: the next one goes on', async () => {
    const controller = new AbortController()
    registry.intercept = (_request, response, url) => {
      if (url.pathname !== blobPath()) return false
      response.writeHead(200, { 'Content-Length': fixture.layers[0]!.blob.length })
      response.write(fixture.layers[0]!.blob.subarray(0, 1_500_000)) // and never more
      return true
    }
    const stopped = pull(`${registry.host}/r`, { signal: controller.signal })
    const partial = join(h.dataRoot, 'image/ingest', `${fixture.layers[0]!.digest.slice(7)}.partial`)
    for (let i = 0; i < 100 && (await stat(partial).catch(() => ({ size: 0 }))).size < 1_000_000; i++) await sleep(20)
    controller.abort(new Error('daemon stops'))
    await expect(stopped).rejects.toThrow('daemon stops')
    const { size } = await stat(partial)
    expect(size).toBeGreaterThan(1_000_000)
    await h.reopen()
    registry.intercept = () => false
    expect((await pull(`${registry.host}/r`)).id).toBe(fixture.id)
    expect(registry.requests.at(-1)!.headers.range).toBe(`bytes=${size}-`)
  })

  it('a part that is not of this blob, and a registry that cannot resume: from the start', async () => {
    await writeFile(join(h.dataRoot, 'image/ingest', `${fixture.layers[0]!.digest.slice(7)}.partial`), randomBytes(1000))
    expect((await pull(`${registry.host}/r`)).id).toBe(fixture.id)
    expect(registry.blobRequests(fixture.layers[0]!.digest)).toBe(2)

    const other = image([layer([{ name: 'x', content: randomBytes(500_000) }], 'none')])
    registry.add('r', 'other', other)
    let first = true
    registry.intercept = (request, response, url) => {
      if (!url.pathname.endsWith(other.layers[0]!.digest)) return false
      delete request.headers.range
      if (first) sendPart(request, response, other.layers[0]!.blob, 100_000)
      else sendBlob(request, response, other.layers[0]!.blob)
      first = false
      return true
    }
    expect((await pull(`${registry.host}/r:other`)).id).toBe(other.id)
  })

  it('gives up after five tries without a byte, and keeps what it has', async () => {
    registry.intercept = (request, response, url) => {
      if (url.pathname !== blobPath()) return false
      if (request.headers.range) response.writeHead(503).end()
      else sendPart(request, response, fixture.layers[0]!.blob, 200_000)
      return true
    }
    await expect(pull(`${registry.host}/r`)).rejects.toMatchObject({ statusCode: 500, message: 'received unexpected HTTP status: 503 Service Unavailable' })
    expect(registry.blobRequests(fixture.layers[0]!.digest)).toBe(5)
    expect(await h.files()).toEqual([`image/ingest/${fixture.layers[0]!.digest.slice(7)}.partial`])
  })

  it('wrong bytes: blob, config, manifest; too many bytes', async () => {
    const { digest, blob } = fixture.layers[0]!
    registry.blobs.set(digest, Buffer.concat([blob.subarray(0, -1), Buffer.from([1])]))
    await expect(pull(`${registry.host}/r`)).rejects.toMatchObject({ statusCode: 500, message: `filesystem layer verification failed for digest ${digest}` })
    expect(await h.files()).toEqual([])
    registry.blobs.set(digest, Buffer.concat([blob, Buffer.alloc(2 << 20)]))
    await expect(pull(`${registry.host}/r`)).rejects.toThrow(/is larger than/)
    registry.blobs.set(fixture.id, Buffer.from('{}'))
    await expect(pull(`${registry.host}/r`)).rejects.toThrow(`image config verification failed for digest ${fixture.id}`)
    const manifest = sha256(ociManifest(fixture))
    registry.manifests.set(`r/${manifest}`, { bytes: Buffer.from('{}'), mediaType: mediaTypes.ociManifest })
    await expect(pull(`${registry.host}/r@${manifest}`)).rejects.toThrow(`manifest verification failed for digest ${manifest}`)
    expect(await h.files()).toEqual([])
    expect(await h.images.list()).toEqual([])
  })

  it('a layer whose content is another than the image says, one that is no tar, one that climbs out: nothing left', async () => {
    const good = layer([{ name: 'a', content: 'a' }])
    const cases: [FixtureImage, number, RegExp][] = [
      [image([good, { ...layer([{ name: 'b', content: 'b' }]), diffId: sha256('other') }]), 500, /is corrupt: its content is/],
      [image([good, layer(Buffer.from('no tar at all'.repeat(100)))]), 400, /failed to register layer: not a/],
      [image([good, layer([{ name: '../../../../etc/evil', content: '' }])]), 400, /failed to register layer: archive entry/],
    ]
    for (const [bad, statusCode, message] of cases) {
      registry.add('bad', '1', bad)
      await expect(pull(`${registry.host}/bad:1`)).rejects.toMatchObject({ statusCode, message: expect.stringMatching(message) as unknown })
      expect(await h.files()).toEqual([])
    }
  })

  it('a blob that is here already stays, whatever a bad image says of it, and when the host has no room', async () => {
    const { digest, blob } = fixture.layers[0]!
    const path = join(h.dataRoot, 'image/blobs/sha256', digest.slice(7))
    await pull(`${registry.host}/r`)
    registry.add('bad', '1', image([{ ...fixture.layers[0]!, diffId: sha256('other') }]))
    await expect(pull(`${registry.host}/bad:1`)).rejects.toThrow(/is corrupt: its content is/)
    expect((await readFile(path)).equals(blob)).toBe(true)
    let saved = 0
    for await (const chunk of (await h.images.save([fixture.id])) as AsyncIterable<Buffer>) saved += chunk.length
    expect(saved).toBeGreaterThan(blob.length)

    await h.images.remove(fixture.id, { force: true, noprune: false, usedBy: () => [] })
    await writeFile(path, blob)
    const add = vi.spyOn(h.storage.layers, 'add').mockRejectedValueOnce(Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' }))
    await expect(pull(`${registry.host}/r`)).rejects.toThrow(/ENOSPC/)
    add.mockRestore()
    expect((await readFile(path)).equals(blob)).toBe(true)
    await pull(`${registry.host}/r`)
    expect(registry.blobRequests(digest)).toBe(1)
  })

  it('a pull that shares a layer with an image that is just being removed: the blob stays, or is fetched again', async () => {
    const { digest, blob } = fixture.layers[0]!
    await pull(`${registry.host}/r`)
    const other = image([fixture.layers[0]!, layer([{ name: 'other', content: '' }])])
    registry.add('other', '1', other)
    const gate = () => {
      let open = () => {}
      return { passed: new Promise<void>((resolve) => (open = resolve)), open: () => open() }
    }
    const [asked, answer, released, removed] = [gate(), gate(), gate(), gate()]
    registry.intercept = async (_request, _response, url) => {
      if (!url.pathname.endsWith(other.id)) return false
      asked.open()
      await answer.passed
      return false
    }
    // The layer's files take their time.
    const release = h.storage.layers.release.bind(h.storage.layers)
    vi.spyOn(h.storage.layers, 'release').mockImplementationOnce(async (diffId) => {
      const gone = await release(diffId)
      released.open()
      await removed.passed
      return gone
    })
    const pulling = pull(`${registry.host}/other:1`)
    await asked.passed
    const removing = h.images.remove(fixture.id, { force: true, noprune: false, usedBy: () => [] })
    await released.passed
    h.messages.length = 0
    answer.open()
    while (!h.said().includes(`Pull complete ${short(other.layers[1]!.digest)}`)) await sleep(20)
    removed.open()
    await removing
    expect((await pulling).id).toBe(other.id)
    expect((await readFile(join(h.dataRoot, 'image/blobs/sha256', digest.slice(7)))).equals(blob)).toBe(true)
    await h.images.remove(other.id, { force: true, noprune: false, usedBy: () => [] })
    expect(await h.files()).toEqual([])
  })

  it('a blob that is damaged on the disk goes, and is fetched again', async () => {
    const { digest, blob } = fixture.layers[0]!
    const path = join(h.dataRoot, 'image/blobs/sha256', digest.slice(7))
    await writeFile(path, blob.subarray(0, 1_000_000))
    await expect(pull(`${registry.host}/r`)).rejects.toThrow()
    await expect(stat(path)).rejects.toThrow('ENOENT')
    expect((await pull(`${registry.host}/r`)).id).toBe(fixture.id)
    expect(registry.blobRequests(digest)).toBe(1)
    expect((await readFile(path)).equals(blob)).toBe(true)
  })

  it('manifests that are not to be taken', async () => {
    const put = (value: object, mediaType: string = mediaTypes.ociManifest) => registry.manifests.set('m/1', { bytes: Buffer.from(JSON.stringify(value)), mediaType })
    const good = JSON.parse(ociManifest(fixture).toString()) as { layers: object[] }
    put({ ...good, layers: [] })
    await expect(pull(`${registry.host}/m:1`)).rejects.toThrow('the image has no layers: there is nothing to run')
    put({ ...good, layers: [...good.layers, ...good.layers] })
    await expect(pull(`${registry.host}/m:1`)).rejects.toThrow("layers from manifest don't match image configuration")
    put({ ...good, layers: [{ ...good.layers[0], mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar' }] })
    await expect(pull(`${registry.host}/m:1`)).rejects.toThrow(/foreign layer/)
    registry.manifests.set('m/1', { bytes: Buffer.alloc(5 << 20, 32), mediaType: mediaTypes.ociManifest })
    await expect(pull(`${registry.host}/m:1`)).rejects.toThrow('the manifest is larger than 4194304 bytes')
    expect(await h.files()).toEqual([])
  })

  it('bearer tokens: asked for once, anonymously, with a password, with an identity token; renewed when refused', async () => {
    let valid = 0
    const asked: string[] = []
    registry.intercept = async (request, response, url) => {
      if (url.pathname === '/token') {
        let body = ''
        for await (const chunk of request) body += String(chunk)
        asked.push(`${request.method} ${url.search}${body} ${request.headers.authorization ?? ''}`.trim())
        if (request.headers.authorization?.endsWith(Buffer.from('me:bad').toString('base64'))) response.writeHead(401).end('{}')
        else response.end(JSON.stringify({ [request.method === 'POST' ? 'access_token' : 'token']: `t${++valid}`, expires_in: 300 }))
        return true
      }
      if (request.headers.authorization === `Bearer t${valid}`) return false
      response.writeHead(401, { 'WWW-Authenticate': `Bearer realm="http://${registry.host}/token",service="here",scope="repository:r:pull"` }).end('{}')
      return true
    }
    await pull(`${registry.host}/r`)
    expect(asked).toEqual(['GET ?service=here&scope=repository%3Ar%3Apull'])
    const withAuth = (auth: object) => h.images.pull(`${registry.host}/r`, { onProgress: h.onProgress, auth })
    await withAuth({ username: 'me', password: 'good' })
    expect(asked[1]).toBe(`GET ?service=here&scope=repository%3Ar%3Apull&account=me Basic ${Buffer.from('me:good').toString('base64')}`)
    await withAuth({ identitytoken: 'idt' })
    expect(asked[2]).toBe('POST service=here&scope=repository%3Ar%3Apull&grant_type=refresh_token&client_id=hull&refresh_token=idt')
    await withAuth({ registrytoken: `t${valid}` })
    expect(asked).toHaveLength(3)
    await expect(withAuth({ username: 'me', password: 'bad' })).rejects.toMatchObject({ statusCode: 401, message: 'unauthorized: incorrect username or password' })
    await expect(withAuth({ registrytoken: 'stale' })).rejects.toMatchObject({ statusCode: 401 })
  })

  it('redirects: followed, without the Authorization header to another host, never from a loop', async () => {
    const seen: (string | undefined)[] = []
    const storage = createServer((request, response) => {
      seen.push(request.headers.authorization)
      sendBlob(request, response, fixture.layers[0]!.blob)
    })
    await new Promise<void>((resolve) => storage.listen(0, '127.0.0.1', resolve))
    const other = `127.0.0.1:${(storage.address() as AddressInfo).port}`
    try {
      registry.intercept = (request, response, url) => {
        if (request.headers.authorization !== `Basic ${Buffer.from('me:pw').toString('base64')}`) response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' }).end()
        else if (url.pathname === blobPath()) response.writeHead(307, { Location: `http://${other}/somewhere` }).end()
        else return false
        return true
      }
      await h.images.pull(`${registry.host}/r`, { onProgress: h.onProgress, auth: { username: 'me', password: 'pw' } })
      expect(seen).toEqual([undefined])
      registry.intercept = (_request, response) => {
        response.writeHead(302, { Location: '/again' }).end()
        return true
      }
      await expect(pull(`${registry.host}/x`)).rejects.toThrow(/stopped after 10 redirects/)
    } finally {
      storage.closeAllConnections()
      await new Promise((resolve) => storage.close(resolve))
    }
  })

  it('one fetch per layer however many wait, and an access that is denied', async () => {
    registry.intercept = async (_request, _response, url) => {
      if (url.pathname === blobPath()) await sleep(150)
      return false
    }
    await Promise.all([pull(`${registry.host}/r`), pull(`${registry.host}/r`), sleep(50).then(() => pull(`${registry.host}/r`))])
    expect(registry.blobRequests(fixture.layers[0]!.digest)).toBe(1)
    registry.intercept = (_request, response) => {
      response.writeHead(403).end(JSON.stringify({ errors: [{ code: 'DENIED', message: 'requested access to the resource is denied' }] }))
      return true
    }
    await expect(pull(`${registry.host}/secret:1`)).rejects.toMatchObject({ statusCode: 404, message: `pull access denied for ${registry.host}/secret, repository does not exist or may require 'docker login': denied: requested access to the resource is denied` })
  })
})

describe('a full disk', () => {
  it.each([['while downloading', '6m', 'none', randomBytes(20 << 20)], ['while unpacking', '12m', 'gzip', Buffer.alloc(100 << 20)]] as const)('%s: said so, and nothing left', async (_, size, compression, content) => {
    h = await harness({ tmpfs: size })
    const registry = await startRegistry()
    try {
      await registry.push('big', '1', image([layer([{ name: 'small', content: 'x' }]), layer([{ name: 'big', content }], compression)]))
      await expect(pull(`${registry.host}/big:1`)).rejects.toMatchObject({ statusCode: 500, message: expect.stringMatching(/no space left on device/i) as unknown })
      expect(await h.files()).toEqual([])
      expect(await h.images.list()).toEqual([])
      // and there is room again
      await registry.push('small', '1', image([layer([{ name: 'small', content: 'x' }])]))
      expect((await pull(`${registry.host}/small:1`)).repoTags).toHaveLength(1)
    } finally {
      await registry.stop()
    }
  })
})
