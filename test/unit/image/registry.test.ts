import type { IncomingMessage } from 'node:http'
import { describe, expect, it } from 'vitest'
import { parseReference } from '../../../src/image/references.js'
import { parseChallenges } from '../../../src/image/registry/challenge.js'
import { errorFrom, translatePullError } from '../../../src/image/registry/errors.js'
import { isLoopback } from '../../../src/image/registry/settings.js'

describe('WWW-Authenticate', () => {
  it('Docker Hub\'s', () => {
    expect(parseChallenges('Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull"')).toEqual([
      { scheme: 'bearer', parameters: { realm: 'https://auth.docker.io/token', service: 'registry.docker.io', scope: 'repository:library/busybox:pull' } },
    ])
  })
  it('several challenges, tokens, escapes, odd blanks', () => {
    expect(parseChallenges('Basic realm="a \\"b\\", c" , charset=UTF-8,  Bearer  realm = "x" ,error="insufficient_scope"')).toEqual([
      { scheme: 'basic', parameters: { realm: 'a "b", c', charset: 'UTF-8' } },
      { scheme: 'bearer', parameters: { realm: 'x', error: 'insufficient_scope' } },
    ])
  })
  it.each([['', 0], ['Bearer', 1], ['=', 0], ['Bearer realm="never ends', 1], ['Bearer realm=', 1], ['"', 0], [',,,', 0], ['\u0000', 0], ['x'.repeat(20_000), 0]])('%j: %i challenges, no exception', (header, count) => {
    expect(parseChallenges(header)).toHaveLength(count)
  })
  it('parameters cannot reach a prototype', () => {
    const [challenge] = parseChallenges('Bearer __proto__="x",constructor=y')
    expect(Object.getPrototypeOf(challenge!.parameters)).toBeNull()
    expect(({} as Record<string, unknown>).x).toBeUndefined()
  })
})

describe('errors of registries in Docker\'s words', () => {
  const answer = (statusCode: number, headers: Record<string, string> = {}) => ({ statusCode, statusMessage: 'Whatever', headers }) as unknown as IncomingMessage
  const said = (status: number, body: unknown, headers?: Record<string, string>) =>
    translatePullError(errorFrom(answer(status, headers), Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))), parseReference('user/app:1'))
  const errors = (code: string, message?: string) => ({ errors: [{ code, message }] })

  it.each([
    [404, errors('MANIFEST_UNKNOWN', 'manifest unknown'), 404, 'manifest for user/app:1 not found: manifest unknown: manifest unknown'],
    [404, errors('NAME_UNKNOWN'), 404, 'repository user/app not found: name unknown: repository name not known to registry'],
    [403, errors('DENIED', 'requested access to the resource is denied'), 404, "pull access denied for user/app, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"],
    [401, errors('UNAUTHORIZED', 'authentication required'), 401, 'unauthorized: authentication required'],
    [401, 'not json', 401, 'unauthorized: authentication required'],
    [429, 'slow down', 500, 'toomanyrequests: too many requests'],
    [429, errors('TOOMANYREQUESTS', 'You have reached your pull rate limit.'), 500, 'toomanyrequests: You have reached your pull rate limit.'],
    [502, '<html>', 500, 'received unexpected HTTP status: 502 Whatever'],
    [404, 'nothing', 404, 'received unexpected HTTP status: 404 Whatever'],
    [500, { errors: [] }, 500, 'received unexpected HTTP status: 500 Whatever'],
    [500, errors('X', 'a\u001b[31mb\nc'), 500, 'x: a [31mb c'],
  ])('%i %j', (status, body, expected, message) => {
    expect(said(status, body)).toMatchObject({ statusCode: expected, message })
  })
  it('a token without the right', () => {
    expect(said(401, errors('UNAUTHORIZED'), { 'www-authenticate': 'Bearer realm="x",error="insufficient_scope"' })).toMatchObject({ statusCode: 404, message: expect.stringContaining('denied: requested access to the resource is denied') as unknown })
  })
})

it('loopback registries', () => {
  for (const host of ['localhost', '127.0.0.1', '127.9.9.9', '[::1]', '::1']) expect(isLoopback(host), host).toBe(true)
  for (const host of ['localhost.example', '128.0.0.1', '127.evil.example', '[::2]', 'example.com', '10.0.0.1']) expect(isLoopback(host), host).toBe(false)
})
