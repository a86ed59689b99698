import { PassThrough } from 'node:stream'
import { expect, it } from 'vitest'
import { Lines } from '../../../src/compare/lines.js'

const frame = (text: string, stream = 1) => {
  const body = Buffer.from(text)
  const head = Buffer.alloc(8)
  head[0] = stream
  head.writeUInt32BE(body.length, 4)
  return Buffer.concat([head, body])
}

it('gives lines in their order, whether they or the question come first', async () => {
  const stream = new PassThrough()
  const lines = new Lines(stream, 100)
  stream.write(frame('one\ntwo\nthr'))
  expect([await lines.next(), await lines.next()]).toEqual(['one', 'two'])
  const third = lines.next()
  stream.write(frame('not this\n', 2))
  stream.write(frame('ee\n'))
  expect(await third).toBe('three')
  const none = lines.next()
  stream.end()
  expect(await none).toBeUndefined()
  expect(await lines.next()).toBeUndefined()
})

it('what was said before the end is still told', async () => {
  const stream = new PassThrough()
  const lines = new Lines(stream, 100)
  stream.end(frame('a\nb\nno end'))
  expect([await lines.next(), await lines.next(), await lines.next()]).toEqual(['a', 'b', undefined])
})

it('ends at a line that is too long, and at more lines than anybody asked for', async () => {
  for (const text of [`${'x'.repeat(101)}\n`, 'x'.repeat(5000), '\n'.repeat(1000)]) {
    const stream = new PassThrough()
    const lines = new Lines(stream, 100)
    stream.write(frame(text))
    let told = 0
    while ((await lines.next()) !== undefined) told += 1
    expect(told).toBeLessThan(20)
    stream.write(frame('more\n'))
    expect(await lines.next()).toBeUndefined()
    stream.destroy()
  }
})

it('ends when the connection does', async () => {
  const stream = new PassThrough()
  const next = new Lines(stream, 100).next()
  stream.destroy(new Error('reset'))
  expect(await next).toBeUndefined()
})
