import { describe, expect, it } from 'vitest'
import { HullError } from '../../../src/base/errors.js'
import { parseConfig } from '../../../src/image/config.js'
import { mediaTypes, parseManifest } from '../../../src/image/manifests.js'

const digest = (c: string) => `sha256:${c.repeat(64)}`
const bytes = (value: unknown) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
const manifest = (change: Record<string, unknown> = {}) => ({
  schemaVersion: 2, mediaType: mediaTypes.dockerManifest, config: { mediaType: mediaTypes.dockerConfig, digest: digest('a'), size: 100 },
  layers: [{ mediaType: 'application/vnd.docker.image.rootfs.diff.tar.gzip', digest: digest('b'), size: 200 }], ...change,
})
const index = (change: Record<string, unknown> = {}) => ({
  schemaVersion: 2, mediaType: mediaTypes.ociIndex,
  manifests: [{ mediaType: mediaTypes.ociManifest, digest: digest('c'), size: 300, platform: { os: 'linux', architecture: 'arm', variant: 'v7', 'os.version': 'x' } }], ...change,
})
const config = (change: Record<string, unknown> = {}) => ({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [digest('d')] }, ...change })

/** Small, repeatable randomness for mutations (mulberry32). */
function random(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

const nasty: unknown[] = [null, 0, -1, 1e308, 2 ** 60, NaN, '', 'x', '__proto__', [], {}, [null], { length: 1e9 }, true, 'sha256:', digest('Z'), 'a'.repeat(10_000), [[[[]]]], { __proto__: { a: 1 } }]

/** A copy with one or more places replaced, removed or added. */
function mutate(value: unknown, next: () => number): unknown {
  if (next() < 0.12) return nasty[Math.floor(next() * nasty.length)]
  if (Array.isArray(value)) return next() < 0.1 ? [...(value as unknown[]), ...(value as unknown[])] : value.map((entry) => mutate(entry, next))
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).filter(() => next() > 0.08).map(([key, entry]): [string, unknown] => [next() < 0.05 ? '__proto__' : key, mutate(entry, next)])
    return Object.fromEntries(entries)
  }
  return value
}

describe('manifests', () => {
  it('Docker schema 2 and OCI, with and without a media type of their own', () => {
    expect(parseManifest(bytes(manifest()))).toEqual({
      kind: 'manifest', mediaType: mediaTypes.dockerManifest, config: { mediaType: mediaTypes.dockerConfig, digest: digest('a'), size: 100 },
      layers: [{ mediaType: 'application/vnd.docker.image.rootfs.diff.tar.gzip', digest: digest('b'), size: 200 }],
    })
    expect(parseManifest(bytes(manifest({ mediaType: undefined })), `${mediaTypes.ociManifest}; charset=utf-8`)).toMatchObject({ kind: 'manifest' })
    expect(parseManifest(bytes(manifest({ mediaType: undefined })), 'application/json')).toMatchObject({ kind: 'manifest' })
    expect(parseManifest(bytes(index()))).toMatchObject({ kind: 'index', manifests: [{ digest: digest('c'), platform: { os: 'linux', architecture: 'arm', variant: 'v7' } }] })
    expect(parseManifest(bytes(index({ mediaType: undefined })))).toMatchObject({ kind: 'index' })
  })

  it.each([
    ['no layers', manifest({ layers: [] }), /no layers/], ['layers missing', manifest({ layers: undefined }), /no layers/], ['layers null', manifest({ layers: null }), /no layers/],
    ['foreign layer', manifest({ layers: [{ mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', digest: digest('b'), size: 1 }] }), /foreign layer/],
    ['layer with urls', manifest({ layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: digest('b'), size: 1, urls: ['https://x'] }] }), /foreign layer/],
    ['unknown layer type', manifest({ layers: [{ mediaType: 'application/x-evil', digest: digest('b'), size: 1 }] }), /unsupported layer media type "application\/x-evil"/],
    ['encrypted layer', manifest({ layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted', digest: digest('b'), size: 1 }] }), /unsupported layer media type/],
    ['artifact', manifest({ config: { mediaType: 'application/vnd.cncf.helm.config.v1+json', digest: digest('a'), size: 1 } }), /not a container image/],
    ['both', { ...manifest(), ...index() }, /both/], ['schema 1', { schemaVersion: 1 }, /schema version 1/], ['unknown type', manifest({ mediaType: 'text/html' }), /unsupported manifest media type/],
    ['negative size', manifest({ config: { mediaType: mediaTypes.dockerConfig, digest: digest('a'), size: -1 } }), /not valid: config.size/],
    ['huge config', manifest({ config: { mediaType: mediaTypes.dockerConfig, digest: digest('a'), size: 5 << 20 } }), /larger than/],
    ['other digest', manifest({ config: { mediaType: mediaTypes.dockerConfig, digest: 'md5:00', size: 1 } }), /not a sha256 digest/],
    ['digest that is a path', manifest({ layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: 'sha256:../../../etc/passwd', size: 1 }] }), /not a sha256 digest/],
    ['too many layers', manifest({ layers: Array.from({ length: 126 }, () => manifest().layers[0]) }), /max depth exceeded/],
    ['not JSON', '{', /not valid JSON/], ['not an object', '[]', /not a JSON object/], ['null', 'null', /not a JSON object/], ['not UTF-8', Buffer.from([0x7b, 0xff, 0x7d]).toString('latin1'), /not valid JSON/],
    ['deep', '['.repeat(100_000), /not valid JSON/],
  ])('%s', (_, value, message) => {
    expect(() => parseManifest(bytes(value))).toThrow(message)
    expect(() => parseManifest(bytes(value))).toThrow(HullError)
  })

  it('larger than 4 MiB', () => expect(() => parseManifest(Buffer.alloc((4 << 20) + 1, 32))).toThrow(/larger than/))
})

describe('configs', () => {
  it('null is absent, unknown fields are dropped', () => {
    const parsed = parseConfig(bytes(config({
      created: '2026-01-01T00:00:00Z', author: 'me', variant: 'v2', extra: 1, history: [{ created_by: 'x', empty_layer: true, odd: 1 }, {}],
      config: { Cmd: null, Env: ['A=b'], Labels: null, ExposedPorts: { '80/tcp': {} }, Volumes: null, Healthcheck: { Test: ['NONE'], Interval: null }, ArgsEscaped: true },
    })))
    expect(parsed).toEqual({
      architecture: 'amd64', os: 'linux', variant: 'v2', author: 'me', created: '2026-01-01T00:00:00Z', diffIds: [digest('d')],
      history: [{ created_by: 'x', empty_layer: true }, {}], config: { Env: ['A=b'], ExposedPorts: { '80/tcp': {} }, Healthcheck: { Test: ['NONE'] } },
    })
  })
  it.each([
    ['no layers', config({ rootfs: { type: 'layers', diff_ids: [] } }), /no layers/], ['no rootfs', config({ rootfs: undefined }), /rootfs/],
    ['bad diff id', config({ rootfs: { diff_ids: ['sha256:..'] } }), /not a sha256 digest/], ['Cmd a string', config({ config: { Cmd: 'sh' } }), /config.Cmd/], ['Env of numbers', config({ config: { Env: [1] } }), /Env/],
  ])('%s', (_, value, message) => expect(() => parseConfig(bytes(value))).toThrow(message))
  it('hostile keys stay keys', () => {
    const parsed = parseConfig(bytes('{"rootfs":{"diff_ids":["' + digest('d') + '"]},"config":{"Labels":{"__proto__":"x","a":"b"},"Volumes":{"__proto__":{}}}}'))
    expect(Object.getPrototypeOf(parsed.config.Labels)).toBe(Object.prototype)
    expect(({} as Record<string, unknown>).a).toBeUndefined()
  })
})

it('mutated documents are read or refused with a HullError, 20 000 times', () => {
  const next = random(20260102)
  let accepted = 0
  for (let i = 0; i < 20_000; i++) {
    const [parse, good] = [[parseManifest, manifest()], [parseManifest, index()], [parseConfig, config({ config: { Env: ['a'], Labels: { a: 'b' }, Healthcheck: { Test: ['a'] } }, history: [{}] })]][i % 3] as [(b: Uint8Array) => unknown, unknown]
    let text = JSON.stringify(mutate(good, next)) ?? ''
    if (next() < 0.2) {
      const at = Math.floor(next() * text.length)
      text = text.slice(0, at) + String.fromCharCode(Math.floor(next() * 256)) + text.slice(at + Math.floor(next() * 3))
    }
    try {
      parse(bytes(text))
      accepted++
    } catch (error) {
      if (!(error instanceof HullError)) throw new Error(`${text}\n${String(error)}`, { cause: error })
    }
  }
  expect(accepted).toBeGreaterThan(500)
  expect(accepted).toBeLessThan(19_500)
})
