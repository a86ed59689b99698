import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { duplexPair, type Duplex } from 'node:stream'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { Qmp, received } from '../../../src/sandbox/vm/templatebuild.js'

// The QEMU that makes a template has an image's file system mounted in it: what it says may be anybody's words. Real templates are made in test/integration/vm/templates.test.ts.

describe('QEMU’s monitor', () => {
  let qemu: Duplex
  let qmp: Qmp
  let asked: string

  beforeEach(() => {
    const [ours, its] = duplexPair()
    qemu = its
    qmp = new Qmp(ours)
    asked = ''
    qemu.on('data', (chunk: Buffer) => (asked += chunk.toString()))
    qemu.on('error', () => {})
  })

  it('answers, in whatever pieces, with what is no answer in between', async () => {
    const answer = qmp.call('query-x', { a: 1 })
    for (const byte of Buffer.from('{"QMP": {}}\r\n{"event": "STOP"}\n{"return": {"é": "\u{1f433}"}}\n')) qemu.write(Buffer.from([byte]))
    expect(await answer).toEqual({ é: '\u{1f433}' })
    expect(asked).toBe('{"execute":"query-x","arguments":{"a":1}}\n')
    const refused = qmp.call('other')
    qemu.write('{"error": {"class": "x", "desc": "no\\u001bsuch"}}\n')
    await expect(refused).rejects.toThrow(/^no such$/)
    const again = qmp.call('third')
    qemu.write('{"return": 3}\n')
    expect(await again).toBe(3)
  })

  it.each(['x', '', 'null', '7', '"text"', '{"return":', '\u0000'])('that says %j has said all: what waits ends, and what comes later', async (line) => {
    const answer = qmp.call('one')
    qemu.write(`${line}\n`)
    await expect(answer).rejects.toThrow(/^QEMU said what is no/)
    await expect(qmp.call('two')).rejects.toThrow(/^QEMU said what is no/)
  })

  it.each(['{"error": null}', '{"error": {"desc": 7}}', '{"error": {"desc": {"replace": 1}}}', '{"error": {"desc": ["x"]}}', '{"error": "x"}'])('that refuses with %s has refused', async (line) => {
    const answer = qmp.call('one')
    qemu.write(`${line}\n`)
    await expect(answer).rejects.toThrow(/^QEMU refused$/)
  })

  it('that says such things before anybody asks ends no daemon either', async () => {
    qemu.write('x\n')
    await new Promise((resolve) => setTimeout(resolve, 10))
    await expect(qmp.call('one')).rejects.toThrow('QEMU said what is no JSON')
  })

  it('that comes to no end of its line is listened to for a MiB', async () => {
    const answer = qmp.call('one')
    const said = vi.fn()
    answer.catch(said)
    for (let n = 0; n < 16; n++) qemu.write(Buffer.alloc(65536, 'x'))
    await new Promise((resolve) => setTimeout(resolve, 10))
    expect(said).not.toHaveBeenCalled()
    qemu.write('x')
    await expect(answer).rejects.toThrow(/more than 1048576 bytes/)
  })
})

it('the state is its first caller’s; others are sent away, and the end does not wait for them', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'hull-state-'))
  const path = join(directory, 's')
  const { whole, close } = await received(path, join(directory, 'state'))
  const first = connect(path)
  await new Promise((resolve) => first.once('connect', resolve))
  const others = [connect(path), connect(path)]
  for (const other of others) other.on('error', () => {}).write('not this')
  first.end('state')
  await whole
  expect(readFileSync(join(directory, 'state'), 'utf8')).toBe('state')
  await close()
  for (const other of others) other.destroy()
  rmSync(directory, { recursive: true })
})
