import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex, PassThrough } from 'node:stream'
import { describe, expect, it, vi } from 'vitest'
import type { ContainerConfig, ContainerSummary } from '../../../src/engine/api-types.js'
import { EventBus } from '../../../src/engine/events.js'
import { System } from '../../../src/engine/system.js'
import { LateDuplex } from '../../../src/engine/late-duplex.js'
import { filterContainers } from '../../../src/engine/list.js'
import { KeyedLock } from '../../../src/engine/lock.js'
import { mergeConfig } from '../../../src/engine/merge.js'
import { NameRegistry } from '../../../src/engine/names.js'
import { type ContainerRecord, ContainerStore } from '../../../src/engine/store.js'

const empty: ContainerConfig = {
  Hostname: '', Domainname: '', User: '', AttachStdin: false, AttachStdout: false, AttachStderr: false, ExposedPorts: {}, Tty: false, OpenStdin: false,
  StdinOnce: false, Env: [], Cmd: null, Healthcheck: null, ArgsEscaped: false, Image: 'x', Volumes: {}, WorkingDir: '', Entrypoint: null,
  NetworkDisabled: false, MacAddress: '', OnBuild: [], Labels: {}, StopSignal: '', StopTimeout: null, Shell: [],
}

describe('KeyedLock', () => {
  it('serializes a key, not different keys, and survives failures', async () => {
    const lock = new KeyedLock()
    const order: string[] = []
    const section = (key: string, name: string, ms: number, fail = false) =>
      lock.run(key, async () => {
        order.push(`${name}+`)
        await new Promise((resolve) => setTimeout(resolve, ms))
        order.push(`${name}-`)
        if (fail) throw new Error(name)
      })
    const results = await Promise.allSettled([section('a', 'a1', 30, true), section('a', 'a2', 1), section('b', 'b1', 5)])
    expect(results.map((result) => result.status)).toEqual(['rejected', 'fulfilled', 'fulfilled'])
    expect(order).toEqual(['a1+', 'b1+', 'b1-', 'a1-', 'a2+', 'a2-'])
  })
})

describe('NameRegistry', () => {
  it('gives, takes and frees names', () => {
    const names = new NameRegistry()
    expect(names.take('web', '1')).toBe('web')
    expect(names.take('/web', '1')).toBe('web')
    expect(() => names.take('web', '2')).toThrow('is already in use by container "1"')
    names.free('web', '2')
    expect(names.owner('web')).toBe('1')
    names.free('web', '1')
    expect(names.take('web', '2')).toBe('web')
    for (const bad of ['a', '-a', 'a b', 'ä1', 'a/b']) expect(() => names.take(bad, '3'), bad).toThrow('Invalid container name')
    const many = new Set(Array.from({ length: 2000 }, (_, index) => names.take('', `g${index}`)))
    expect(many.size).toBe(2000)
    for (const name of many) expect(name).toMatch(/^[a-z]+_[a-z]+\d*$/)
  })
})

describe('mergeConfig', () => {
  const image = { Cmd: ['serve'], Entrypoint: ['/entry'], Env: ['PATH=/bin', 'A=image'], User: 'app', WorkingDir: '/w', Labels: { a: '1', b: '2' } }
  it("fills in the image's where the user says nothing", () => {
    expect(mergeConfig(empty, image)).toMatchObject({ Cmd: ['serve'], Entrypoint: ['/entry'], User: 'app', WorkingDir: '/w', Labels: { a: '1', b: '2' } })
  })
  it("lets the user's entrypoint hide the image's command, and a command keep the entrypoint", () => {
    expect(mergeConfig({ ...empty, Entrypoint: ['sh'] }, image)).toMatchObject({ Entrypoint: ['sh'], Cmd: null })
    expect(mergeConfig({ ...empty, Cmd: ['x'] }, image)).toMatchObject({ Entrypoint: ['/entry'], Cmd: ['x'] })
    expect(mergeConfig({ ...empty, Entrypoint: [''], Cmd: ['x'] }, image)).toMatchObject({ Entrypoint: null, Cmd: ['x'] })
  })
  it('merges the environment by name and removes a bare name', () => {
    expect(mergeConfig({ ...empty, Env: ['A=user', 'PATH'] }, image).Env).toEqual(['A=user'])
  })
  it('needs something to run', () => {
    expect(() => mergeConfig(empty, {})).toThrow('no command specified')
    expect(() => mergeConfig({ ...empty, Entrypoint: [''] }, image)).toThrow('no command specified')
  })
})

describe('EventBus', () => {
  it('stamps events in strictly rising order and keeps the last 256', () => {
    const bus = new EventBus()
    const seen: bigint[] = []
    const stop = bus.subscribe((event) => seen.push(event.timeNano))
    for (let i = 0; i < 600; i++) bus.publish('container', 'start', String(i), {})
    stop()
    bus.publish('container', 'die', 'x', {})
    expect(seen).toHaveLength(600)
    expect(seen.every((time, index) => index === 0 || time > seen[index - 1]!)).toBe(true)
    expect(bus.past()).toHaveLength(256)
    expect(bus.past().at(-1)!.action).toBe('die')
  })
})

describe('events until a time', () => {
  it('end by themselves, even when the timer fires early', async () => {
    const events = new EventBus()
    const system = new System({} as never, { events } as never, {} as never, {} as never)
    events.publish('container', 'create', 'x', {})
    for (let round = 0; round < 20; round++) {
      // A busy daemon: timers count from when the event loop last looked at its clock, which is now some milliseconds ago.
      for (const end = Date.now() + 5; Date.now() < end; );
      const now = BigInt(Date.now()) * 1_000_000n
      const seen: string[] = []
      for await (const event of system.events({ since: 0n, until: now + 3_400_000n, filters: {}, signal: AbortSignal.timeout(5000) })) seen.push(event.action)
      expect(seen).toEqual(['create'])
      expect(Date.now()).toBeLessThan(Number(now / 1_000_000n) + 4000)
    }
  })
})

describe('LateDuplex', () => {
  /** A pair: what is written to one end is read at the other. */
  function pair(): [Duplex, Duplex] {
    const up = new PassThrough()
    const down = new PassThrough()
    return [Duplex.from({ readable: down, writable: up }), Duplex.from({ readable: up, writable: down })]
  }
  const collect = async (stream: AsyncIterable<Buffer>) => {
    const chunks: Buffer[] = []
    for await (const chunk of stream) chunks.push(chunk)
    return Buffer.concat(chunks).toString()
  }

  it('passes input written before, output from the start, and both ends', async () => {
    const late = new LateDuplex()
    late.write('before ')
    late.end('end')
    const [here, there] = pair()
    late.connect(here)
    there.end('output')
    expect(await collect(there)).toBe('before end')
    expect(await collect(late)).toBe('output')
  })

  it('ends when there will be no other side', async () => {
    const late = new LateDuplex()
    late.end('dropped')
    late.close()
    expect(await collect(late)).toBe('')
  })

  it('destroys a peer that comes too late', async () => {
    const late = new LateDuplex()
    late.destroy()
    const peer = new PassThrough()
    late.connect(peer)
    expect(peer.destroyed).toBe(true)
  })

  it('carries megabytes through back-pressure', async () => {
    const late = new LateDuplex()
    const [here, there] = pair()
    late.connect(here)
    const block = Buffer.alloc(100_000, 0x61)
    void (async () => {
      for (let i = 0; i < 50; i++) if (!there.write(block)) await new Promise((resolve) => there.once('drain', resolve))
      there.end()
    })()
    let size = 0
    for await (const chunk of late as AsyncIterable<Buffer>) {
      size += chunk.length
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(size).toBe(5_000_000)
  })
})

describe('filterContainers', () => {
  const row = (id: string, part: Partial<ContainerSummary> = {}): ContainerSummary => ({
    id, name: `n${id}`, image: 'busybox', imageId: 'sha256:1', command: ['sh'], created: new Date(Number(id) * 1000), status: 'running', exitCode: 0, ports: [],
    labels: {}, networkMode: 'default', networks: {}, mounts: [], annotations: {}, ...part,
  })
  const rows = [row('1'), row('2', { status: 'exited', exitCode: 3, labels: { a: 'x' } }), row('3', { labels: { a: 'y', b: '' }, annotations: { 'org.hull.isolation': 'vm' } })]
  const context = { createdOf: (id: string) => rows.find((one) => one.id === id)!.created, image: async () => undefined }
  const ids = async (filters: object, all = false, limit = 0) => (await filterContainers(rows, { all, limit, size: false, filters }, context)).map((one) => one.id)

  it('shows what runs, the latest first, or all, or the last', async () => {
    expect(await ids({})).toEqual(['3', '1'])
    expect(await ids({}, true)).toEqual(['3', '2', '1'])
    expect(await ids({}, false, 2)).toEqual(['3', '2'])
  })
  it('filters', async () => {
    expect(await ids({ status: ['exited'] })).toEqual(['2'])
    expect(await ids({ exited: ['3'] })).toEqual(['2'])
    expect(await ids({ label: ['a=y', 'b'] })).toEqual(['3'])
    expect(await ids({ label: ['a'] }, true)).toEqual(['3', '2'])
    expect(await ids({ name: ['^/n1$'] })).toEqual(['1'])
    expect(await ids({ name: ['('] })).toEqual([])
    expect(await ids({ isolation: ['vm'] })).toEqual(['3'])
    expect(await ids({ before: ['3'] })).toEqual(['2', '1'])
    expect(await ids({ since: ['1'] })).toEqual(['3', '2'])
    await expect(ids({ publish: ['x'] })).rejects.toThrow('invalid port filter')
    expect(await ids({ publish: ['80'] })).toEqual([])
    await expect(ids({ exited: ['many'] }, true)).rejects.toThrow('invalid filter')
  })
})

describe('ContainerStore', () => {
  it('keeps records, replaces them, and drops what a crashed create left', async () => {
    const root = await mkdtemp(join(tmpdir(), 'hull-store-'))
    try {
      const store = new ContainerStore(join(root, 'containers'))
      expect(await store.load()).toEqual([])
      const record = { version: 1, id: 'a'.repeat(64), name: 'x', state: { status: 'created' } } as ContainerRecord
      await store.create(record, true)
      record.name = 'y'
      await store.save(record)
      await mkdir(join(store.root, 'half'))
      expect((await store.load()).map((one) => one.name)).toEqual(['y'])
      expect(await readdir(store.root)).toEqual([record.id])
      await store.remove(record.id)
      expect(await store.load()).toEqual([])
    } finally {
      await rm(root, { recursive: true, force: true })
    }
  })

  it('goes on when there is no room, and writes when there is', async () => {
    const root = await mkdtemp(join(tmpdir(), 'hull-store-'))
    try {
      const store = new ContainerStore(join(root, 'containers'))
      const record = { version: 1, id: 'a'.repeat(64), name: 'x', state: { status: 'running' } } as ContainerRecord
      await store.create(record, true)
      // A directory in the way fails each write, for root too.
      const inTheWay = join(store.directory(record.id), 'config.json.tmp')
      await mkdir(inTheWay)
      record.state.status = 'exited'
      await expect(store.save(record)).rejects.toThrow('EISDIR')
      await store.keep(record)
      await store.keep(record)
      record.state.exitCode = 3
      await rm(inTheWay, { recursive: true })
      const written = () => readFile(join(store.directory(record.id), 'config.json'), 'utf8').then((text) => (JSON.parse(text) as ContainerRecord).state)
      expect(await written()).toEqual({ status: 'running' })
      await vi.waitFor(async () => expect(await written()).toEqual({ status: 'exited', exitCode: 3 }), 20_000)
      // Of a container that is gone nothing is written any more.
      await mkdir(inTheWay)
      await store.keep(record)
      await store.remove(record.id)
      await store.keep(record)
      expect(await readdir(store.root)).toEqual([])
    } finally {
      await rm(root, { recursive: true, force: true })
    }
  })

  it('a record that cannot be read is somebody’s: nothing is removed', async () => {
    const root = await mkdtemp(join(tmpdir(), 'hull-store-'))
    try {
      const store = new ContainerStore(root)
      await mkdir(join(root, 'b'.repeat(64), 'config.json'), { recursive: true })
      await expect(store.load()).rejects.toThrow('EISDIR')
      expect(await readdir(root)).toEqual(['b'.repeat(64)])
    } finally {
      await rm(root, { recursive: true, force: true })
    }
  })
})
