import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Digest } from '../../../src/image/digest.js'
import { familiarString, parseReference, withDefaultTag } from '../../../src/image/references.js'
import { Repositories } from '../../../src/image/repositories.js'

const one: Digest = `sha256:${'1'.repeat(64)}`
const two: Digest = `sha256:${'2'.repeat(64)}`
const name = (text: string) => withDefaultTag(parseReference(text))
let directory: string
/** What the next daemon finds, after one that was killed. */
const reopened = async (...existing: Digest[]) => {
  const repositories = await Repositories.open(join(directory, 'repositories.json'))
  await repositories.settle((id) => existing.includes(id))
  return repositories
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hull-repositories-'))
})
afterEach(() => rm(directory, { recursive: true }))

test('a daemon that dies between an image and its name names it in its next life', async () => {
  await (await reopened()).announce([[name('a'), one]])
  const next = await reopened(one)
  expect(next.get(name('a'))).toBe(one)
  expect((await reopened(one)).of(one).map(familiarString)).toEqual(['a:latest'])
})

test('an announced image that never came takes no name from another, then or later', async () => {
  const first = await reopened()
  await first.set([[name('a'), one]])
  await first.announce([[name('a'), two]])
  expect((await reopened(one)).get(name('a'))).toBe(one)
  expect((await reopened(one, two)).get(name('a'))).toBe(one)
})

test('a withdrawn or given name is not given again', async () => {
  const first = await reopened()
  await first.announce([[name('a'), one], [name('b'), one]])
  await first.set([[name('a'), one]])
  first.withdraw([[name('b'), one]])
  first.forget([name('a')])
  await first.flush()
  expect((await reopened(one)).of(one)).toEqual([])
})

test('names that are forgotten without a flush are there again, unless their image is gone', async () => {
  const first = await reopened()
  await first.set([[name('a'), one], [name('b'), two]])
  first.forget([name('a'), name('b')])
  const next = await reopened(two)
  expect(next.get(name('a'))).toBeUndefined()
  expect(next.get(name('b'))).toBe(two)
})
