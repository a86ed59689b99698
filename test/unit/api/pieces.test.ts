import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { DetachScanner, parseDetachKeys } from '../../../src/api/detach.js'
import { frame, FrameFilter } from '../../../src/api/frames.js'
import { statsJson, statusText, summaryJson } from '../../../src/api/mapping-container.js'
import { eventLine } from '../../../src/api/mapping-system.js'
import { Query } from '../../../src/api/query.js'
import { registryAuth } from '../../../src/api/registry-auth.js'
import { pullReference } from '../../../src/api/routes-images.js'
import { parseChunks } from '../../../src/api/takeover.js'
import { humanDuration } from '../../../src/api/time.js'

async function through(transform: NodeJS.ReadWriteStream, chunks: Buffer[]): Promise<Buffer> {
  const out: Buffer[] = []
  for await (const chunk of Readable.from(chunks, { objectMode: false }).pipe(transform)) out.push(chunk as Buffer)
  return Buffer.concat(out)
}

describe('detach keys', () => {
  it('are read as Docker writes them', () => {
    expect([...parseDetachKeys('')]).toEqual([16, 17])
    expect([...parseDetachKeys('ctrl-p,ctrl-q')]).toEqual([16, 17])
    expect([...parseDetachKeys('ctrl-@,a,DEL,ctrl-_,ctrl-[,ctrl-\\')]).toEqual([0, 97, 127, 31, 27, 28])
    for (const bad of ['ctrl-', 'ctrl-1', 'ab', 'ctrl-A', ',', 'é']) expect(() => parseDetachKeys(bad)).toThrow(`Invalid detach keys (${bad}) provided`)
  })

  const scan = async (keys: string, ...chunks: string[]) => {
    let detached = 0
    const scanner = new DetachScanner(parseDetachKeys(keys), () => detached++)
    const out = (await through(scanner, chunks.map((chunk) => Buffer.from(chunk, 'latin1')))).toString('latin1')
    return [out, detached]
  }

  it('are found whole and in pieces, and nothing after them passes', async () => {
    expect(await scan('', 'abc\x10\x11def', 'ghi')).toEqual(['abc', 1])
    expect(await scan('', 'abc\x10', '\x11def')).toEqual(['abc', 1])
    expect(await scan('a', 'xxa')).toEqual(['xx', 1])
  })

  it('a begun sequence that goes on otherwise passes', async () => {
    expect(await scan('', 'a\x10', 'b\x10c')).toEqual(['a\x10b\x10c', 0])
    expect(await scan('', 'a\x10')).toEqual(['a\x10', 0]) // end of input
    expect(await scan('', '\x10\x10\x11')).toEqual(['\x10', 1])
    expect(await scan('a,a,b', 'aa', 'a', 'b')).toEqual(['a', 1])
    expect(await scan('a,b,a,c', 'abab', 'ac')).toEqual(['ab', 1])
  })

  it('agrees with a search in the whole input, however it is cut', async () => {
    let seed = 1
    const random = (n: number) => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) % n
    for (let round = 0; round < 300; round++) {
      const keys = Array.from({ length: 1 + random(4) }, () => 'ab'[random(2)]!)
      const input = Array.from({ length: random(30) }, () => 'abc'[random(3)]!).join('')
      const chunks: string[] = []
      for (let at = 0; at < input.length; ) {
        const size = 1 + random(4)
        chunks.push(input.slice(at, at + size))
        at += size
      }
      const found = input.indexOf(keys.join(''))
      expect(await scan(keys.join(','), ...chunks)).toEqual(found < 0 ? [input, 0] : [input.slice(0, found), 1])
    }
  })
})

describe('frames', () => {
  const stream = Buffer.concat([frame(1, Buffer.from('out')), frame(2, Buffer.from('error')), frame(1, Buffer.alloc(0)), frame(2, Buffer.from('x')), frame(1, Buffer.from('end'))])

  it('are filtered by stream wherever they are cut', async () => {
    for (let size = 1; size <= stream.length; size++) {
      const chunks: Buffer[] = []
      for (let at = 0; at < stream.length; at += size) chunks.push(stream.subarray(at, at + size))
      expect(await through(new FrameFilter({ stdout: true, stderr: false }), chunks)).toEqual(Buffer.concat([frame(1, Buffer.from('out')), frame(1, Buffer.alloc(0)), frame(1, Buffer.from('end'))]))
      expect(await through(new FrameFilter({ stdout: false, stderr: true }), chunks)).toEqual(Buffer.concat([frame(2, Buffer.from('error')), frame(2, Buffer.from('x'))]))
    }
  })

  it('that are none end the stream', async () => {
    await expect(through(new FrameFilter({ stdout: true, stderr: false }), [Buffer.from('plain text')])).rejects.toThrow('output is not in frames')
  })
})

describe('query', () => {
  it('reads booleans leniently', () => {
    const query = new Query('a=1&b=0&c=false&d=no&e=none&f=&g=True&h=%20')
    expect(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'].map((key) => query.bool(key))).toEqual([true, false, false, false, false, false, true, false, false])
    expect([query.bool('i', true), query.bool('b', true)]).toEqual([true, false])
  })

  it('reads times to the nanosecond', () => {
    const time = (text: string) => new Query(`t=${encodeURIComponent(text)}`).time('t')
    expect(time('1700000000')).toBe(1_700_000_000_000_000_000n)
    expect(time('1700000000.000000001')).toBe(1_700_000_000_000_000_001n)
    expect(time('1700000000.5')).toBe(1_700_000_000_500_000_000n)
    expect(time('2023-11-14T22:13:20Z')).toBe(1_700_000_000_000_000_000n)
    expect(time('2023-11-14T23:13:20.123456789+01:00')).toBe(1_700_000_000_123_456_789n)
    expect([time(''), time('0')]).toEqual([undefined, 0n])
    for (const bad of ['yesterday', '1.2.3', '2023-13-01T00:00:00Z', '-', '1e5']) expect(() => time(bad)).toThrow('invalid value for "t"')
  })
})

describe('mapping', () => {
  const now = Date.parse('2026-01-01T12:00:00Z')
  const at = (seconds: number) => new Date(now - seconds * 1000)

  it('writes durations as Docker does', () => {
    const words = [0, 1, 59, 60, 119, 120, 3540, 3600, 5400, 2 * 86400 - 3600, 2 * 86400, 14 * 86400, 60 * 86400, 365 * 86400 * 2].map((s) => humanDuration(s * 1000))
    expect(words).toEqual(['Less than a second', '1 second', '59 seconds', 'About a minute', 'About a minute', '2 minutes', '59 minutes', 'About an hour', '2 hours', '47 hours', '2 days', '2 weeks', '2 months', '2 years'])
  })

  it('writes the status column', () => {
    expect(statusText({ status: 'running', exitCode: 0, startedAt: at(300), health: 'healthy' }, now)).toBe('Up 5 minutes (healthy)')
    expect(statusText({ status: 'running', exitCode: 0, startedAt: at(300), health: 'starting' }, now)).toBe('Up 5 minutes (health: starting)')
    expect(statusText({ status: 'paused', exitCode: 0, startedAt: at(300) }, now)).toBe('Up 5 minutes (Paused)')
    expect(statusText({ status: 'exited', exitCode: 7, finishedAt: at(3) }, now)).toBe('Exited (7) 3 seconds ago')
    expect(statusText({ status: 'restarting', exitCode: 1, finishedAt: at(3) }, now)).toBe('Restarting (1) 3 seconds ago')
    expect(statusText({ status: 'created', exitCode: 0 }, now)).toBe('Created')
  })

  it('writes the command and ports of a row', () => {
    const row = summaryJson(
      {
        id: 'i', name: 'n', image: 'b', imageId: 's', command: ['sh', '-c', 'echo a b'], created: at(0), status: 'running', exitCode: 0, startedAt: at(0),
        ports: [{ containerPort: 80, protocol: 'tcp', hostIp: '0.0.0.0', hostPort: 8080 }, { containerPort: 81, protocol: 'udp', hostIp: '', hostPort: 0 }],
        labels: {}, networkMode: 'bridge', networks: {}, mounts: [], annotations: { a: 'b' },
      },
      45, now,
    )
    expect(row).toMatchObject({
      Command: "sh -c 'echo a b'", Ports: [{ IP: '0.0.0.0', PrivatePort: 80, PublicPort: 8080, Type: 'tcp' }, { PrivatePort: 81, Type: 'udp' }], HostConfig: { NetworkMode: 'bridge' },
    })
    expect(row).not.toHaveProperty('HostConfig.Annotations')
  })

  it('keeps the nanoseconds of an event', () => {
    const line = eventLine({ type: 'container', action: 'start', actor: { id: 'i', attributes: { image: 'b', name: 'n' } }, timeNano: 1_700_000_000_123_456_789n })
    expect(line).toBe(
      '{"status":"start","id":"i","from":"b","Type":"container","Action":"start","Actor":{"ID":"i","Attributes":{"image":"b","name":"n"}},"scope":"local","time":1700000000,"timeNano":1700000000123456789}\n',
    )
    expect(JSON.parse(eventLine({ type: 'network', action: 'connect', actor: { id: 'i', attributes: {} }, timeNano: 1n }))).not.toHaveProperty('status')
  })

  it('a container that does not run has empty stats', () => {
    expect(statsJson({ id: 'i', name: 'n', read: at(0), stats: undefined, systemCpu: 0 }, undefined)).toMatchObject({ name: '/n', read: '0001-01-01T00:00:00Z', memory_stats: {}, pids_stats: {} })
  })
})

describe('images', () => {
  it('references for a pull', () => {
    const digest = `sha256:${'0'.repeat(64)}`
    expect(pullReference('a', 'b')).toEqual({ reference: 'a:b', allTags: false })
    expect(pullReference('a', '')).toEqual({ reference: 'a', allTags: true })
    expect(pullReference('h:5000/a', '')).toEqual({ reference: 'h:5000/a', allTags: true })
    expect(pullReference('h:5000/a:x', '')).toEqual({ reference: 'h:5000/a:x', allTags: false })
    expect(pullReference('a:', '')).toEqual({ reference: 'a', allTags: true })
    expect(pullReference('a', digest)).toEqual({ reference: `a@${digest}`, allTags: false })
    expect(pullReference(`a@${digest}`, '')).toEqual({ reference: `a@${digest}`, allTags: false })
    expect(pullReference('h:5000/a:x', 'y')).toEqual({ reference: 'h:5000/a:y', allTags: false })
  })

  it('credentials', () => {
    const header = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
    expect(registryAuth(header({ username: 'u', password: 'p', serveraddress: 'x' }))).toEqual({ username: 'u', password: 'p' })
    expect(registryAuth(header({ auth: Buffer.from('u:p:q').toString('base64') }))).toEqual({ username: 'u', password: 'p:q' })
    expect(registryAuth(header({ identitytoken: 't' }))).toEqual({ identitytoken: 't' })
    for (const bad of [undefined, '', '{', header({}), header(5), header({ username: 5 }), header(null)]) expect(registryAuth(bad)).toBeUndefined()
  })
})

describe('chunked bodies on an upgraded connection', () => {
  it('are read to their end', () => {
    expect(parseChunks(Buffer.from('3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nrest'))).toEqual({ body: Buffer.from('abcde'), used: 24 })
    for (const part of ['', '3', '3\r\nab', '3\r\nabc\r\n', '3\r\nabc\r\n0\r\n']) expect(parseChunks(Buffer.from(part))).toBeUndefined()
    for (const bad of ['x\r\n', '3\r\nabcde\r\n', '-1\r\n', 'fffffff\r\n', '0\r\nTrailer: x\r\n\r\n']) expect(() => parseChunks(Buffer.from(bad))).toThrow()
  })
})
