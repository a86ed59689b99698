import { Readable } from 'node:stream'
import { expect } from 'vitest'
import { cases, check, demuxed, refused, tarOf, testImage, text, untar } from './harness.js'

check('images', 'inspect', async (c) => {
  const said = await c.docker.getImage(testImage).inspect()
  expect(said).toMatchObject({ Os: 'linux', Architecture: 'amd64', RepoTags: expect.arrayContaining([testImage]), Config: { Cmd: ['sh'] }, RootFS: { Type: 'layers', Layers: [expect.stringMatching(/^sha256:/)] }, GraphDriver: { Name: expect.any(String) } })
  expect(said.Id).toMatch(/^sha256:[0-9a-f]{64}$/)
  expect((await c.docker.getImage(said.Id.slice(7, 19)).inspect()).Id).toBe(said.Id)
})

check('images', 'list and filters', async (c) => {
  const repo = c.name()
  await c.docker.getImage(testImage).tag({ repo, tag: 'v1' })
  c.later(() => c.docker.getImage(`${repo}:v1`).remove())
  const tags = async (filters: object) => (await c.docker.listImages({ filters: JSON.stringify(filters) })).flatMap((row) => row.RepoTags ?? [])
  expect(await tags({ reference: [`${repo}:v1`] })).toContain(`${repo}:v1`)
  expect(await tags({ reference: ['nosuch-*'] })).toEqual([])
  expect(await tags({ dangling: ['false'] })).toContain(testImage)
  const [row] = await c.docker.listImages({ filters: JSON.stringify({ reference: [testImage] }) })
  expect(row).toMatchObject({ Id: expect.stringMatching(/^sha256:/), ParentId: '', Size: expect.any(Number), Created: Date.parse('2026-01-01T00:00:00Z') / 1000, Containers: -1 })
  await refused(400, /invalid filter/i, c.docker.listImages({ filters: '{"nosuch":["x"]}' }))
})

check('images', 'history', async (c) => {
  const [row] = (await c.docker.getImage(testImage).history()) as { CreatedBy: string; Size: number; Tags: string[] }[]
  expect(row).toMatchObject({ CreatedBy: 'test/lib/image.ts', Tags: expect.arrayContaining([testImage]) })
  expect(row!.Size).toBeGreaterThan(1_000_000)
})

check('images', 'import, run, remove', async (c) => {
  const repo = c.name()
  const stream = await c.docker.importImage(Readable.from(tarOf({ 'data/x': 'imported\n' })), { repo, tag: 'v1', changes: 'LABEL from=import' } as object)
  const lines = await c.progress(stream)
  c.later(() => c.docker.getImage(`${repo}:v1`).remove({ force: true }))
  expect(lines.at(-1)!.status).toMatch(/^sha256:/)
  expect((await c.docker.getImage(`${repo}:v1`).inspect()).Config.Labels).toEqual({ from: 'import' })
  const made = await c.create({ Image: `${repo}:v1`, Cmd: ['/nosuch'] })
  await refused(400, /no such file or directory/, made.start())
})

check('images', 'save and load', async (c) => {
  const repo = c.name()
  await c.docker.getImage(testImage).tag({ repo, tag: 'v1' })
  c.later(() => c.docker.getImage(`${repo}:v1`).remove())
  const data = await text(await c.docker.getImage(`${repo}:v1`).get())
  const files = await untar(data)
  const [entry] = JSON.parse(files['manifest.json']!) as { RepoTags: string[]; Layers: string[] }[]
  expect(entry!.RepoTags).toEqual([`${repo}:v1`])
  for (const layer of entry!.Layers) expect(Object.keys(files)).toContain(layer)
  await c.docker.getImage(`${repo}:v1`).remove()
  const lines = await c.progress(await c.docker.loadImage(Readable.from(data)))
  expect(lines.map((line) => line.stream).join('')).toContain(`Loaded image: ${repo}:v1`)
  expect((await c.docker.getImage(`${repo}:v1`).inspect()).Id).toBe((await c.docker.getImage(testImage).inspect()).Id)
})

check('images', 'push, remove, pull again', async (c) => {
  const repo = `${c.target.registry}/${c.name()}`
  await c.docker.getImage(testImage).tag({ repo, tag: 'v1' })
  const image = c.docker.getImage(`${repo}:v1`)
  c.later(() => image.remove())
  const pushed = await c.progress(await image.push({ tag: 'v1' } as object))
  const digest = (pushed.find((line) => line.aux) as { aux: { Digest: string } }).aux.Digest
  expect(digest).toMatch(/^sha256:/)
  await image.remove()
  const lines = await c.progress((await c.docker.pull(`${repo}:v1`)))
  expect(lines.some((line) => line.status === `Digest: ${digest}`)).toBe(true)
  expect((await image.inspect()).RepoDigests).toContain(`${repo}@${digest}`)
  const remote = (await image.distribution()) as { Descriptor: { digest: string } }
  expect(remote.Descriptor.digest).toBe(digest)
})

check('images', 'pull what is not there', async (c) => {
  await refused(404, /not found|manifest unknown/, c.docker.pull(`${c.target.registry}/${c.target.remote}:nosuch`))
})

cases<[string, number, RegExp]>('images', 'refused', [
  ['unknown', 'nosuch:1', 404, /No such image: nosuch:1/],
  ['unknown digest', `sha256:${'0'.repeat(64)}`, 404, /No such image/],
  ['upper case', 'Upper:1', 400, /invalid reference format/],
], async (c, name, status, words) => {
  await refused(status, words, c.docker.getImage(name).inspect())
})

check('images', 'remove tells what it did', async (c) => {
  const repo = c.name()
  await c.docker.getImage(testImage).tag({ repo, tag: 'v1' })
  expect(await c.docker.getImage(`${repo}:v1`).remove()).toEqual([{ Untagged: `${repo}:v1` }])
  await c.shared()
  await refused(409, /unable to (remove repository reference|delete)/, c.docker.getImage(testImage).remove())
})

check('images', 'build, with progress and a result', async (c) => {
  const repo = c.name()
  const context = tarOf({ Dockerfile: `FROM ${testImage} AS one\nRUN echo one > /one\nFROM ${testImage}\nCOPY --from=one /one /two\nCOPY file /file\nENTRYPOINT ["cat", "/two", "/file"]\n`, file: 'context\n' })
  const lines = await c.progress(await c.docker.buildImage(Readable.from(context), { t: `${repo}:v1` }))
  c.later(() => c.docker.getImage(`${repo}:v1`).remove({ force: true }))
  expect(lines.some((line) => String(line.stream ?? '').includes(`Successfully tagged ${repo}:v1`) || (line.aux as { ID?: string } | undefined)?.ID)).toBe(true)
  const made = await c.start({ Image: `${repo}:v1` })
  await made.wait()
  expect(demuxed((await made.logs({ stdout: true, follow: false }))).out).toBe('one\ncontext\n')
})

check('images', 'build tells its error in the stream', async (c) => {
  const stream = await c.docker.buildImage(Readable.from(tarOf({ Dockerfile: `FROM ${testImage}\nCOPY nosuch /x\n` })), {})
  const lines = await c.progress(stream)
  expect(lines.at(-1)).toMatchObject({ error: expect.stringContaining('nosuch'), errorDetail: { message: expect.stringContaining('nosuch') } })
})

check('images', 'prune dangling', async (c) => {
  const repo = c.name()
  for (const word of ['a', 'b']) await c.progress(await c.docker.importImage(Readable.from(tarOf({ x: repo + word })), { repo, tag: 'v1' }))
  c.later(() => c.docker.getImage(`${repo}:v1`).remove())
  const before = await c.docker.listImages({ filters: '{"dangling":["true"]}' })
  expect(before.length).toBeGreaterThan(0)
  await c.docker.pruneImages({ filters: { dangling: ['true'] } } as object)
  expect(await c.docker.listImages({ filters: '{"dangling":["true"]}' })).toEqual([])
})
