import { readFileSync } from 'node:fs'
import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { gzipSync } from 'node:zlib'
import { execFileSync } from 'node:child_process'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { busyboxImage, dockerArchive, image, layer, ociLayout, sha256, tar, type FixtureImage, type TarEntry } from '../../lib/image-fixtures.js'
import { harness, type Harness } from './harness.js'

let h: Harness
beforeEach(async () => {
  h = await harness()
})
afterEach(() => h.close())

const load = (bytes: Uint8Array) => h.images.load(Readable.from([bytes]), { onProgress: h.onProgress })
const unused = { force: false, noprune: false, usedBy: () => [] }
const two = (): FixtureImage => image([layer([{ name: 'a', content: 'lower' }, { name: 'b', content: 'gone' }]), layer([{ name: '.wh.b', content: '' }, { name: 'c', content: 'upper' }])], { Cmd: ['/a'] })

describe('load', () => {
  it('docker-archive: tags, config, layers, Docker\'s words', async () => {
    const fixture = busyboxImage({ Cmd: ['sh', '-c', 'x'], Labels: { a: 'b' } })
    const [loaded] = await load(dockerArchive([{ image: fixture, tags: ['busybox:test', 'other/name:1'] }]))
    expect(loaded).toMatchObject({ id: fixture.id, repoTags: ['busybox:test', 'other/name:1'], repoDigests: [], os: 'linux', config: { Cmd: ['sh', '-c', 'x'], Labels: { a: 'b' } }, diffIds: fixture.layers.map((l) => l.diffId) })
    expect(loaded!.size).toBeGreaterThan(500_000)
    expect(h.messages.filter((m) => m.stream).map((m) => m.stream)).toEqual(['Loaded image: busybox:test\n', 'Loaded image: other/name:1\n'])
    expect(h.messages[0]).toMatchObject({ status: 'Loading layer', id: fixture.layers[0]!.diffId.slice(7, 19) })
    const { layers, chainId } = await h.images.rootfs(fixture.id)
    expect(chainId).toBe(fixture.layers[0]!.diffId)
    expect(readFileSync(join(layers[0]!, 'bin/busybox')).equals(readFileSync('/bin/busybox'))).toBe(true)
    expect((await stat(join(layers[0]!, 'home/user'))).uid).toBe(1000)
    // what was loaded is there for the next daemon
    await h.reopen()
    expect((await h.images.get('busybox:test')).id).toBe(fixture.id)
    expect((await h.images.get(fixture.id.slice(7, 13))).id).toBe(fixture.id)
    expect((await h.images.list()).map((i) => i.id)).toEqual([fixture.id])
  })

  it.each(['gzip', 'zstd', 'none'] as const)('OCI layout, layers %s', async (compression) => {
    const fixture = image([layer([{ name: 'f', content: 'x' }], compression)])
    const plain = ociLayout([{ image: fixture, name: 'docker.io/library/oci:1' }])
    const outer = compression === 'gzip' ? gzipSync(plain) : compression === 'zstd' ? execFileSync('zstd', ['-c', '-q'], { input: plain }) : plain
    const [loaded] = await load(outer)
    expect(loaded).toMatchObject({ id: fixture.id, repoTags: ['oci:1'] })
    // the compressed blob is kept as it was
    const kept = await readFile(join(h.dataRoot, 'image/blobs/sha256', fixture.layers[0]!.digest.slice(7)))
    expect(sha256(kept)).toBe(fixture.layers[0]!.digest)
  })

  it('what skopeo writes', async () => {
    const fixture = two()
    await writeFile(join(h.root, 'in.tar'), dockerArchive([{ image: fixture, tags: ['s:1'] }]))
    execFileSync('skopeo', ['copy', '-q', `docker-archive:${h.root}/in.tar`, `oci-archive:${h.root}/out.tar:s:2`])
    const [loaded] = await load(readFileSync(join(h.root, 'out.tar')))
    expect(loaded).toMatchObject({ repoTags: ['s:2'], diffIds: fixture.layers.map((l) => l.diffId) })
  })

  it('an image without names, a name that moves, layers that are there already', async () => {
    const a = image([layer([{ name: 'f', content: 'a' }])])
    const b = image([layer([{ name: 'f', content: 'a' }]), layer([{ name: 'f', content: 'b' }])])
    await load(dockerArchive([{ image: a, tags: ['x:1'] }]))
    await load(dockerArchive([{ image: b, tags: ['x:1'] }, { image: a }]))
    expect(h.said()).toContain(`The image x:1 already exists, renaming the old one with ID ${a.id} to empty string`)
    expect(h.said()).toContain(`Loaded image ID: ${a.id}`)
    expect((await h.images.get('x:1')).id).toBe(b.id)
    expect((await h.images.get(a.id)).repoTags).toEqual([])
    expect(h.messages.filter((m) => m.status === 'Loading layer' && m.id === a.layers[0]!.diffId.slice(7, 19) && m.progressDetail?.current === m.progressDetail?.total)).toHaveLength(1)
  })

  it('layers by links inside the archive, as old docker save wrote them', async () => {
    const fixture = image([layer([{ name: 'f', content: 'x' }]), layer([{ name: 'g', content: 'y' }])])
    const [first, second] = fixture.layers as [(typeof fixture.layers)[0], (typeof fixture.layers)[0]]
    const archive = tar([
      { name: 'c.json', content: fixture.config }, { name: 'one/layer.tar', content: first.tar }, { name: 'two/layer.tar', content: second.tar },
      { name: 'three/layer.tar', type: 'symlink', link: '../two/layer.tar' }, { name: 'manifest.json', content: JSON.stringify([{ Config: 'c.json', RepoTags: ['l:1'], Layers: ['one/layer.tar', 'three/layer.tar'] }]) },
    ])
    expect((await load(archive))[0]).toMatchObject({ repoTags: ['l:1'] })
  })

  const fixture = two()
  const manifest = (change: object) => JSON.stringify([{ Config: 'c.json', RepoTags: ['h:1'], Layers: ['l0', 'l1'], ...change }])
  const parts: TarEntry[] = [{ name: 'c.json', content: fixture.config }, { name: 'l0', content: fixture.layers[0]!.tar }, { name: 'l1', content: fixture.layers[1]!.tar }]
  it.each<[string, Uint8Array, RegExp, number?]>([
    ['neither form', tar([{ name: 'x', content: '' }]), /neither a manifest.json/], ['no tar', Buffer.from('hello world'.repeat(100)), /invalid archive: not a/], ['empty', Buffer.alloc(0), /neither/],
    ['outer archive that climbs out', tar([{ name: '../../../../evil', content: 'x' }]), /invalid archive: archive entry .*outside/],
    ['outer archive with a device', tar([{ name: 'manifest.json', type: 'char', major: 1, minor: 5 }]), /not a file, directory or link/],
    ['config is a link to the host', tar([...parts, { name: 'p', type: 'symlink', link: '/etc/passwd' }, { name: 'manifest.json', content: manifest({ Config: 'p' }) }]), /p is missing/],
    ['config by dot-dot', tar([...parts, { name: 'manifest.json', content: manifest({ Config: '../../../../../../etc/passwd' }) }]), /is missing/],
    ['layer is a link to the host', tar([...parts, { name: 'p', type: 'symlink', link: '../../../../../../etc/shadow' }, { name: 'manifest.json', content: manifest({ Layers: ['l0', 'p'] }) }]), /p is missing/],
    ['layer is a directory', tar([...parts, { name: 'd/', type: 'dir' }, { name: 'manifest.json', content: manifest({ Layers: ['l0', 'd'] }) }]), /EISDIR/],
    ['manifest.json is a link loop', tar([{ name: 'manifest.json', type: 'symlink', link: 'manifest.json' }]), /manifest.json/],
    ['manifest.json not JSON', tar([{ name: 'manifest.json', content: '{' }]), /manifest.json is not valid JSON/], ['manifest.json of another form', tar([{ name: 'manifest.json', content: '[{"Config":5}]' }]), /manifest.json: 0.Config/],
    ['bad tag', tar([...parts, { name: 'manifest.json', content: manifest({ RepoTags: ['NO GOOD'] }) }]), /invalid reference format/],
    ['a layer less', tar([...parts, { name: 'manifest.json', content: manifest({ Layers: ['l0'] }) }]), /layers length mismatch/], ['layers in the wrong order', tar([...parts, { name: 'manifest.json', content: manifest({ Layers: ['l1', 'l0'] }) }]), /is corrupt: its content is/, 500],
    ['no layers', tar([{ name: 'c.json', content: image([]).config }, { name: 'manifest.json', content: manifest({ Layers: [] }) }]), /has no layers/, 500],
    ['layer that climbs out', dockerArchive([{ image: image([layer([{ name: '../../x', content: '' }])]) }]), /failed to register layer: archive entry "..\/..\/x"/, 400],
    ['OCI blob with another digest', ociLayout([{ image: fixture }], [{ name: `blobs/sha256/${fixture.id.slice(7)}`, content: '{}' }]), /has another digest/],
    ['OCI layer with another content', ociLayout([{ image: fixture }], [{ name: `blobs/sha256/${fixture.layers[1]!.digest.slice(7)}`, content: fixture.layers[0]!.blob }]), /is corrupt/, 500],
    ['OCI for another platform', tar([{ name: 'oci-layout', content: '{}' }, { name: 'index.json', content: JSON.stringify({ schemaVersion: 2, manifests: [{ mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: fixture.id, size: 1, platform: { os: 'linux', architecture: 's390x' } }] }) }]), /no matching manifest/, 404],
  ])('%s: a clear error, nothing left', async (_, bytes, message, status = 400) => {
    await expect(load(bytes)).rejects.toMatchObject({ statusCode: status, message: expect.stringMatching(message) as unknown })
    expect(await h.files()).toEqual([])
    expect(await h.images.list()).toEqual([])
  })

  it.each(['alpine@', 'alpine:3@'])('a name by a digest is not for an archive to give: %s', async (name) => {
    const trusted = `${name}sha256:${'a'.repeat(64)}`
    await expect(load(dockerArchive([{ image: image([layer([{ name: 'f', content: 'good' }])]), tags: ['good:1'] }, { image: fixture, tags: [trusted] }]))).rejects.toMatchObject({ statusCode: 400, message: `invalid tag "${trusted}"` })
    // the image before it has not come, either
    expect(await h.images.list()).toEqual([])
    expect(await h.files()).toEqual([])
    // an OCI layout cannot either; its image has no name
    expect((await load(ociLayout([{ image: fixture, name: `docker.io/library/${trusted}` }])))[0]).toMatchObject({ id: fixture.id, repoTags: [], repoDigests: [] })
    for (const tag of ['', 'x']) await expect((async () => h.images.tag(fixture.id, trusted, tag))()).rejects.toMatchObject({ statusCode: 400 })
    await expect(h.images.commit(Readable.from([tar([])]), { parent: fixture.id, config: {}, author: '', comment: '', createdBy: '', repo: trusted, tag: '' })).rejects.toMatchObject({ statusCode: 400 })
    await expect(h.images.import(Readable.from([tar([])]), { repo: trusted, changes: [] })).rejects.toMatchObject({ statusCode: 400 })
  })

  it('an aborted stream leaves nothing', async () => {
    const controller = new AbortController()
    const endless = new Readable({ read() { setTimeout(() => this.push(Buffer.alloc(512, 0)), 5) } })
    const loading = h.images.load(endless, { onProgress: h.onProgress, signal: controller.signal })
    setTimeout(() => controller.abort(new Error('client went away')), 80)
    await expect(loading).rejects.toThrow('client went away')
    endless.destroy()
    expect(await h.files()).toEqual([])
  })
})

describe('import', () => {
  it('plain and compressed, with changes and a message', async () => {
    const bytes = tar([{ name: 'bin/x', content: 'x', mode: 0o755 }])
    const imported = await h.images.import(Readable.from([gzipSync(bytes)]), { repo: 'mine', tag: 'v1', message: 'from scratch', changes: ['CMD ["/bin/x"]', 'ENV A=1'] })
    expect(imported).toMatchObject({ repoTags: ['mine:v1'], diffIds: [sha256(bytes)], config: { Cmd: ['/bin/x'], Env: ['A=1'] }, history: [{ comment: 'from scratch' }], os: 'linux' })
    const again = await h.images.import(Readable.from([bytes]), { changes: [] })
    expect(again.diffIds).toEqual(imported.diffIds)
    expect(again.repoTags).toEqual([])
    expect(again.history[0]).toMatchObject({ comment: 'Imported from -' })
    await h.images.remove(again.id, unused)
    expect((await h.images.get('mine:v1')).id).toBe(imported.id)
  })
  it('bad input: a clear error, nothing left', async () => {
    await expect(h.images.import(Readable.from([tar([])]), { changes: ['RUN x'] })).rejects.toMatchObject({ statusCode: 400 })
    await expect(h.images.import(Readable.from([tar([])]), { repo: 'BAD NAME', changes: [] })).rejects.toMatchObject({ statusCode: 400 })
    await expect(h.images.import(Readable.from([Buffer.from('no tar'.repeat(200))]), { changes: [] })).rejects.toThrow(/failed to register layer/)
    expect(await h.files()).toEqual([])
  })
})

describe('names and removal, by Docker\'s rules', () => {
  const container = (id: string, running: boolean) => ({ force: false, noprune: false, usedBy: () => [{ id: id.repeat(64), running }] })
  let fixture: FixtureImage
  beforeEach(async () => {
    fixture = two()
    await load(dockerArchive([{ image: fixture, tags: ['a:1'] }]))
  })

  it('unknown images', async () => {
    await expect(h.images.get('nosuch')).rejects.toMatchObject({ statusCode: 404, message: 'No such image: nosuch:latest' })
    await expect(h.images.get('0'.repeat(64))).rejects.toMatchObject({ statusCode: 404 })
    await expect(h.images.get('BAD')).rejects.toMatchObject({ statusCode: 400 })
    await expect(h.images.remove('nosuch:1', unused)).rejects.toMatchObject({ statusCode: 404, message: 'No such image: nosuch:1' })
    await expect(h.images.tag('nosuch', 'x', 'y')).rejects.toMatchObject({ statusCode: 404 })
  })

  it('untags while other names are left, deletes with the last, and takes layers and blobs along', async () => {
    await h.images.tag('a:1', 'b', '2')
    expect(await h.images.remove('a:1', unused)).toEqual([{ Untagged: 'a:1' }])
    const rows = await h.images.remove('b:2', unused)
    expect(rows.slice(0, 2)).toEqual([{ Untagged: 'b:2' }, { Deleted: fixture.id }])
    expect(rows).toHaveLength(4)
    expect(rows[3]).toEqual({ Deleted: fixture.layers[0]!.diffId })
    expect(await h.files()).toEqual([])
  })

  it('by ID: several repositories need force', async () => {
    await h.images.tag('a:1', 'b', '2')
    await expect(h.images.remove(fixture.id, unused)).rejects.toMatchObject({ statusCode: 409, message: `conflict: unable to delete ${fixture.id.slice(7, 19)} (must be forced) - image is referenced in multiple repositories` })
    expect((await h.images.remove(fixture.id.slice(7, 19), { ...unused, force: true })).slice(0, 3)).toEqual([{ Untagged: 'a:1' }, { Untagged: 'b:2' }, { Deleted: fixture.id }])
  })

  it('containers stand in the way', async () => {
    const short = fixture.id.slice(7, 19)
    await expect(h.images.remove('a:1', container('c', false))).rejects.toMatchObject({ statusCode: 409, message: `conflict: unable to remove repository reference "a:1" (must force) - container ${'c'.repeat(12)} is using its referenced image ${short}` })
    await expect(h.images.remove(fixture.id, container('c', false))).rejects.toMatchObject({ message: `conflict: unable to delete ${short} (must be forced) - image is being used by stopped container ${'c'.repeat(12)}` })
    await expect(h.images.remove(fixture.id, { ...container('d', true), force: true })).rejects.toMatchObject({ message: `conflict: unable to delete ${short} (cannot be forced) - image is being used by running container ${'d'.repeat(12)}` })
    expect((await h.images.get('a:1')).id).toBe(fixture.id)
    // by name with force, running: the name goes, the image stays
    expect(await h.images.remove('a:1', { ...container('d', true), force: true })).toEqual([{ Untagged: 'a:1' }])
    expect((await h.images.get(fixture.id)).repoTags).toEqual([])
  })

  it('a deleted image keeps its layers for a stopped container, over a restart, until nothing stands on them', async () => {
    const { chainId } = await h.images.rootfs(fixture.id)
    expect(await h.images.remove('a:1', { ...container('c', false), force: true })).toEqual([{ Untagged: 'a:1' }, { Deleted: fixture.id }])
    await expect(h.images.get(fixture.id)).rejects.toMatchObject({ statusCode: 404 })
    await h.reopen()
    await h.images.collectGarbage(new Set([chainId]))
    expect(await readFile(join((await h.images.rootfs(fixture.id)).layers[0]!, 'a'), 'utf8')).toBe('lower')
    await h.images.collectGarbage(new Set())
    await expect(h.images.rootfs(fixture.id)).rejects.toMatchObject({ statusCode: 404 })
    expect(await h.files()).toEqual([])
  })

  it('layers that other images have stay', async () => {
    const more = image([fixture.layers[0]!, layer([{ name: 'z', content: 'z' }])])
    await load(dockerArchive([{ image: more, tags: ['m:1'] }]))
    await h.images.remove('a:1', unused)
    expect(await readFile(join((await h.images.rootfs(more.id)).layers[0]!, 'a'), 'utf8')).toBe('lower')
  })
})

describe('after a crash', () => {
  it('half-done work is removed, layers that never reached the disk are unpacked again', async () => {
    const fixture = two()
    await load(dockerArchive([{ image: fixture, tags: ['a:1'] }]))
    await h.storage.layers.settled()
    const dir = join(h.dataRoot, 'layers', fixture.layers[0]!.diffId.slice(7))
    // As a host crash between the rename and the sync leaves it: no marker, another boot, an empty file.
    await rm(join(dir, 'synced'))
    const record = JSON.parse(await readFile(join(dir, 'layer.json'), 'utf8')) as object
    await writeFile(join(dir, 'layer.json'), JSON.stringify({ ...record, bootId: 'another' }))
    await writeFile(join(dir, 'diff', 'a'), '')
    execFileSync('mkdir', ['-p', join(h.dataRoot, 'layers/tmp/interrupted/diff'), join(h.dataRoot, 'image/ingest/tmp-interrupted')])
    await h.reopen()
    const [again, other] = await Promise.all([h.images.rootfs(fixture.id), h.images.rootfs(fixture.id)])
    expect(again).toEqual(other)
    expect(await readFile(join(again.layers[0]!, 'a'), 'utf8')).toBe('lower')
    expect((await h.files()).filter((path) => path.includes('interrupted'))).toEqual([])
  })

  it('a damaged blob is told, not unpacked', async () => {
    const fixture = two()
    await load(dockerArchive([{ image: fixture, tags: ['a:1'] }]))
    await h.storage.layers.settled()
    await rm(join(h.dataRoot, 'layers', fixture.layers[0]!.diffId.slice(7)), { recursive: true })
    await writeFile(join(h.dataRoot, 'image/blobs/sha256', fixture.layers[0]!.diffId.slice(7)), tar([{ name: 'evil', content: '' }]))
    await h.reopen()
    await expect(h.images.rootfs(fixture.id)).rejects.toThrow(/corrupt/)
  })
})
