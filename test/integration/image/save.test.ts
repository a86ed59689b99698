import { execFileSync } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createWriteStream } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { busyboxEntries, dockerArchive, image, layer, ociManifest, sha256 } from '../../lib/image-fixtures.js'
import { startRegistry } from '../../lib/registry.js'
import { harness, type Harness } from './harness.js'

let h: Harness
beforeEach(async () => {
  h = await harness()
})
afterEach(() => h.close())

const load = (archive: Buffer, into = h) => into.images.load(Readable.from([archive]), { onProgress: into.onProgress })
async function saved(references: string[], from = h): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of (await from.images.save(references)) as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks)
}
/** Unpacks with GNU tar, which complains of what is not a tar. */
async function unpacked(archive: Buffer): Promise<string> {
  const directory = join(h.root, `out-${Math.random()}`)
  await mkdir(directory)
  execFileSync('tar', ['-x', '-C', directory], { input: archive })
  return directory
}
const json = async <T>(path: string) => JSON.parse(await readFile(path, 'utf8')) as T

const base = layer([...busyboxEntries(), { name: 'who', content: 'base' }])
const first = image([base, layer([{ name: 'a', content: 'first' }])], { Cmd: ['a'] })
const second = image([base, layer([{ name: 'b', content: 'second' }], 'none')], { Cmd: ['b'] })

describe('save', () => {
  it('several images, tags, shared layers; again: the same bytes; loads in Hull and in skopeo with the same IDs', async () => {
    await load(dockerArchive([{ image: first, tags: ['one:1', 'one:2', 'other/name:x'] }, { image: second, tags: ['two:latest'] }]))
    const archive = await saved(['one', 'two', `${second.id}`])
    expect(sha256(await saved(['one', 'two', second.id]))).toBe(sha256(archive))
    const directory = await unpacked(archive)
    const manifest = await json<{ Config: string; RepoTags: string[] | null; Layers: string[] }[]>(join(directory, 'manifest.json'))
    expect(manifest.map((m) => m.RepoTags)).toEqual([['one:1', 'one:2'], ['two:latest']])
    expect(manifest.map((m) => `sha256:${m.Config.slice('blobs/sha256/'.length)}`)).toEqual([first.id, second.id])
    expect(manifest[0]!.Layers[0]).toBe(manifest[1]!.Layers[0])
    const index = await json<{ manifests: { digest: string; annotations?: Record<string, string> }[] }>(join(directory, 'index.json'))
    expect(index.manifests.map((m) => m.annotations?.['io.containerd.image.name'])).toEqual(['docker.io/library/one:1', 'docker.io/library/one:2', 'docker.io/library/two:latest'])
    for (const { digest } of index.manifests) expect(sha256(await readFile(join(directory, 'blobs/sha256', digest.slice(7))))).toBe(digest)

    const path = join(h.root, 'saved.tar')
    await writeFile(path, archive)
    for (const [source, id] of [['docker-archive:' + path + ':one:2', first.id], [`oci:${directory}:1`, first.id], ['docker-archive:' + path + ':two:latest', second.id]] as const) {
      const inspected = execFileSync('skopeo', ['inspect', '--config', '--raw', source])
      expect(sha256(inspected), source).toBe(id)
    }
    const other = await harness()
    try {
      const loaded = await other.images.load(createReadStream(path), { onProgress: other.onProgress })
      expect(loaded.map((i) => [i.id, i.repoTags])).toEqual([[first.id, ['one:1', 'one:2']], [second.id, ['two:latest']]])
      expect(await readFile(join((await other.images.rootfs(first.id)).layers[1]!, 'a'), 'utf8')).toBe('first')
      expect(sha256(await saved(['one', 'two'], other))).toBe(sha256(archive))
    } finally {
      await other.close()
    }
  })

  it('an image that was pulled keeps manifest and compressed layers through save and load', async () => {
    const registry = await startRegistry()
    try {
      const pushed = await registry.push('kept', '1', first)
      await h.images.pull(`${registry.host}/kept:1`, { onProgress: h.onProgress })
      const archive = await saved([`${registry.host}/kept:1`])
      const directory = await unpacked(archive)
      expect(await readFile(join(directory, 'blobs/sha256', pushed.slice(7)))).toEqual(ociManifest(first))
      const other = await harness()
      try {
        await load(archive, other)
        await other.images.tag(first.id, `${registry.host}/again`, '1')
        await other.images.push(`${registry.host}/again`, { tag: '1', onProgress: other.onProgress })
        expect((await other.images.get(first.id)).repoDigests).toEqual([`${registry.host}/again@${pushed}`])
      } finally {
        await other.close()
      }
    } finally {
      await registry.stop()
    }
  })

  it('one that is not there: 404 and nothing begun; one that is removed meanwhile stays until it is written', async () => {
    await load(dockerArchive([{ image: first, tags: ['one:1'] }]))
    await expect(h.images.save(['one:1', 'nothing:1'])).rejects.toMatchObject({ statusCode: 404, message: 'No such image: nothing:1' })
    const tar = await h.images.save(['one:1'])
    await h.images.remove('one:1', { force: false, noprune: false, usedBy: () => [] })
    const path = join(h.root, 'late.tar')
    await pipeline(tar, createWriteStream(path))
    const other = await harness()
    try {
      expect((await other.images.load(createReadStream(path), { onProgress: other.onProgress })).map((i) => i.id)).toEqual([first.id])
    } finally {
      await other.close()
    }
    // and a reader who goes away leaves nothing either
    await load(dockerArchive([{ image: first, tags: ['one:1'] }]))
    const unread = await h.images.save(['one:1'])
    await h.images.remove('one:1', { force: false, noprune: false, usedBy: () => [] })
    unread.destroy()
    // A directory that goes while it is looked through is not an answer yet.
    for (let i = 0; i < 50 && (await h.files().catch(() => ['going'])).length > 0; i++) await new Promise((resolve) => setTimeout(resolve, 20))
    expect(await h.files()).toEqual([])
  })

  it('a corrupt layer on load is called by its name', async () => {
    const bad = { ...first, layers: [base, { ...first.layers[1]!, tar: layer([{ name: 'evil', content: '' }]).tar }] }
    await expect(load(dockerArchive([{ image: bad, tags: ['bad:1'] }]))).rejects.toMatchObject({ statusCode: 500, message: expect.stringContaining(`layer ${first.layers[1]!.diffId} is corrupt: its content is`) as unknown })
  })
})
