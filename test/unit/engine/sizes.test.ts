import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Container } from '../../../src/engine/container.js'
import { Containers, type ContainersOptions } from '../../../src/engine/containers.js'
import type { Lifecycle, LifecycleParts } from '../../../src/engine/lifecycle.js'
import { ContainerRegistry } from '../../../src/engine/registry.js'
import type { ContainerRecord } from '../../../src/engine/store.js'
import { networkIds } from '../../../src/engine/views.js'
import type { FileJob } from '../../../src/sandbox/files.js'

let directory: string
let disk: number
let asked: { id: string; answer: (size: number) => void; fail: () => void; cancelled: boolean }[]
let containers: Containers
const registry = () => containers.parts.registry

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hull-sizes-'))
  await writeFile(join(directory, 'disk.img'), Buffer.alloc(300_000, 1))
  disk = (await stat(join(directory, 'disk.img'))).blocks * 512
  asked = []
  const openFiles = async (container: Container): Promise<FileJob> => {
    let tell!: (size: Promise<{ size: number }>) => void
    const done = new Promise<{ size: number }>((resolve) => (tell = resolve))
    const entry = { id: container.id, answer: (size: number) => tell(Promise.resolve({ size })), fail: () => tell(Promise.reject(new Error('paused'))), cancelled: false }
    asked.push(entry)
    return { head: Promise.resolve(undefined), output: new PassThrough(), input: new PassThrough(), done, cancel: () => void (entry.cancelled = true) }
  }
  containers = new Containers(
    { registry: new ContainerRegistry(), images: { get: async () => ({ size: 1000 }) }, store: { directory: () => directory } } as unknown as LifecycleParts,
    { openFiles } as unknown as Lifecycle,
    { ids: networkIds('/x') } as ContainersOptions,
  )
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
})

afterEach(async () => {
  vi.useRealTimers()
  await rm(directory, { recursive: true })
})

function add(id: string, isolation: 'process' | 'vm'): void {
  registry().add(new Container({
    id, name: id, created: new Date(0).toISOString(), imageId: 'i', imageRef: 'i', isolation, networks: [], mounts: [], state: { status: 'running', exitCode: 0 },
    config: { Entrypoint: null, Cmd: ['x'], ExposedPorts: {}, Labels: {} }, hostConfig: { NetworkMode: 'none', Annotations: {} },
  } as unknown as ContainerRecord))
}

const list = async () => {
  const rows = await containers.list({ all: true, limit: 0, size: true, filters: {} })
  return Object.fromEntries(rows.map(({ id, sizeRw, sizeRootFs }) => [id, [sizeRw, sizeRootFs]]))
}
const turns = async () => {
  for (let n = 0; n < 20; n++) await setImmediate()
}
const answerOf = (id: string) => asked.find((entry) => entry.id === id)!

it('a guest that does not say its size does not hold up the others: it is asked no more after five seconds, and the host says what its disk takes', async () => {
  for (const [id, isolation] of [['mute', 'vm'], ['well', 'vm'], ['plain', 'process'], ['paused', 'vm']] as const) add(id, isolation)
  let rows: Awaited<ReturnType<typeof list>> | undefined
  const listed = list().then((all) => (rows = all))
  await turns()
  expect(asked).toHaveLength(4) // side by side
  answerOf('well').answer(5)
  answerOf('plain').answer(7)
  answerOf('paused').fail()
  vi.advanceTimersByTime(4999)
  await turns()
  expect([rows, answerOf('mute').cancelled]).toEqual([undefined, false])
  vi.advanceTimersByTime(1)
  await listed
  expect(rows).toEqual({ mute: [disk, disk + 1000], well: [5, 1005], plain: [7, 1007], paused: [undefined, undefined] })
  expect(asked.filter((entry) => entry.cancelled).map((entry) => entry.id)).toEqual(['mute'])
})

it('a list measures eight at a time', async () => {
  for (let n = 0; n < 20; n++) add(`c${n}`, 'process')
  const listed = list()
  await turns()
  expect(asked).toHaveLength(8)
  answerOf('c0').answer(1)
  await turns()
  expect(asked).toHaveLength(9)
  for (let n = 1; n < 20; n++) {
    await turns()
    asked[n]!.answer(1)
  }
  expect(Object.keys(await listed)).toHaveLength(20)
})
