import { createHash } from 'node:crypto'
import { closeSync, existsSync, fstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, readSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { templateKey, Templates, type Template, type TemplateShape } from '../../../src/sandbox/vm/templates.js'
import type { VmDisks } from '../../../src/sandbox/vm/disks.js'

// The store alone, with templates that no QEMU made; real ones are in test/integration/vm/templates.test.ts.

/** What a reading of memory waits for, after it. */
let gate: Promise<void> | undefined
let reading = 0
vi.mock(import('../../../src/host/memory.js'), async (original) => {
  const real = await original()
  return { ...real, sealedCopy: async (path) => {
    const fd = await real.sealedCopy(path)
    reading++
    await gate
    return fd
  } }
})

const MIB = 2 ** 20
let directory: string
let jailRoot: string
let templates: Templates
const taken: Template[] = []

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'hull-templates-'))
  jailRoot = join(directory, 'jail')
  templates = new Templates(join(directory, 'templates'), {} as VmDisks)
})

afterEach(async () => {
  for (const { state, memory } of taken.splice(0)) for (const fd of [state, memory]) closeSync(fd)
  await templates.close()
  rmSync(directory, { recursive: true })
  expect(sealed()).toEqual([])
})

/** This process's descriptors of sealed copies. */
const sealed = () => readdirSync('/proc/self/fd').filter((fd) => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).startsWith('/memfd:')
  } catch {
    return false // the listing's own
  }
})

const shapeOf = (n: number): TemplateShape => ({ accelerator: 'tcg', vcpus: 1, ram: n * MIB, network: false, image: 0, disk: 0 })

/** A template of that shape on disk, whose memory and state begin with its number. */
async function make(n: number): Promise<string> {
  const key = await templateKey(shapeOf(n), jailRoot)
  const path = join(directory, 'templates', key)
  mkdirSync(path, { recursive: true })
  for (const name of ['memory', 'state']) writeFileSync(join(path, name), `number ${n};`)
  const stateSha256 = createHash('sha256').update(readFileSync(join(path, 'state'))).digest('hex')
  truncateSync(join(path, 'memory'), n * MIB)
  writeFileSync(join(path, 'stamp.json'), JSON.stringify({ version: 2, key, jail: basename(jailRoot), ram: n * MIB, stateSha256, diskSha256: '', image: '' }))
  return path
}

async function take(n: number): Promise<Template | undefined> {
  const template = await templates.take(shapeOf(n), jailRoot)
  if (template) taken.push(template)
  return template
}

function check(template: Template | undefined, n: number): void {
  expect(template).toBeDefined()
  for (const fd of [template!.memory, template!.state]) {
    const text = Buffer.alloc(10)
    readSync(fd, text, 0, text.length, 0)
    expect(text.toString().split(';')[0]).toBe(`number ${n}`)
  }
  expect(fstatSync(template!.memory).size).toBe(n * MIB)
}

it('more templates than are kept in memory are read at once, by two each: all have theirs, and none is lost', async () => {
  const numbers = Array.from({ length: 16 }, (_, n) => n + 1)
  const paths = await Promise.all(numbers.map(make))
  const got = await Promise.all([...numbers, ...numbers].map(async (n) => [n, await take(n)] as const))
  for (const [n, template] of got) check(template, n)
  for (const path of paths) expect(existsSync(join(path, 'stamp.json'))).toBe(true)
  for (const { state, memory } of taken.splice(0)) for (const fd of [state, memory]) closeSync(fd)
  expect(sealed()).toHaveLength(6)
  // Those that were taken last are there without their files. (Which of those above were is not known: they were all read at once.)
  check(await take(16), 16)
  rmSync(join(paths[15]!, 'memory'))
  check(await take(16), 16)
})

it('a template that is given up while it is read is nobody’s, and its memory is closed', async () => {
  const path = await make(1)
  let open!: () => void
  gate = new Promise((resolve) => (open = resolve))
  reading = 0
  const waiting = [take(1), take(1)]
  await vi.waitUntil(() => reading > 0)
  const given = templates.distrust(basename(path))
  open()
  gate = undefined
  expect(await Promise.all(waiting)).toEqual([undefined, undefined])
  await given
  expect(reading).toBe(1)
  expect(existsSync(path)).toBe(false)
  expect(sealed()).toEqual([])
})

it('a damaged one is removed once, whoever takes it', async () => {
  const path = await make(1)
  truncateSync(join(path, 'memory'), 5)
  expect(await Promise.all([take(1), take(1)])).toEqual([undefined, undefined])
  expect(existsSync(path)).toBe(false)
})

it('who is told to stop has nothing to build, and nobody waits for it', async () => {
  expect(await take(1)).toBeUndefined() // is built soon
  let idle = false
  const waits = templates.idle().then(() => (idle = true))
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect(idle).toBe(false)
  templates.stop()
  await waits
  expect(await take(1)).toBeUndefined()
  await templates.idle()
  expect(existsSync(join(directory, 'templates'))).toBe(false)
})
