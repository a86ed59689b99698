import { describe, expect, it } from 'vitest'
import { canonicalString, familiarName, familiarString, isIdPrefix, parseReference, taggedReference, withDefaultTag } from '../../../src/image/references.js'

const digest = `sha256:${'0123456789abcdef'.repeat(4)}`

describe('references', () => {
  it.each([
    ['busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36', 'busybox:1.36'],
    ['docker.io/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['index.docker.io/library/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['user/app', 'docker.io/user/app:latest', 'user/app:latest'],
    ['docker.io/library/a/b', 'docker.io/library/a/b:latest', 'library/a/b:latest'],
    ['localhost/app', 'localhost/app:latest', 'localhost/app:latest'],
    ['localhost:5000/app:v1', 'localhost:5000/app:v1', 'localhost:5000/app:v1'],
    ['127.0.0.1:5000/a/b/c', '127.0.0.1:5000/a/b/c:latest', '127.0.0.1:5000/a/b/c:latest'],
    ['[::1]:5000/app', '[::1]:5000/app:latest', '[::1]:5000/app:latest'],
    ['REG/app', 'REG/app:latest', 'REG/app:latest'],
    ['ghcr.io/a-b/c__d.e', 'ghcr.io/a-b/c__d.e:latest', 'ghcr.io/a-b/c__d.e:latest'],
    [`busybox@${digest}`, `docker.io/library/busybox@${digest}`, `busybox@${digest}`],
    [`busybox:1@${digest}`, `docker.io/library/busybox:1@${digest}`, `busybox:1@${digest}`],
    [`a:${'t'.repeat(128)}`, `docker.io/library/a:${'t'.repeat(128)}`, `a:${'t'.repeat(128)}`],
    ['sha256:abcd', 'docker.io/library/sha256:abcd', 'sha256:abcd'],
  ])('%s', (text, canonical, familiar) => {
    const reference = withDefaultTag(parseReference(text))
    expect(canonicalString(reference)).toBe(canonical)
    expect(familiarString(reference)).toBe(familiar)
    expect(parseReference(canonical)).toEqual(reference)
    expect(parseReference(familiar)).toEqual(reference)
  })

  it.each([
    '', ' ', 'a b', ':tag', '@', '/a', 'a/', 'a//b', 'a:', 'a:-tag', `a:${'t'.repeat(129)}`, 'a..b', 'a___b', '-a', 'a-', 'a.', 'a@sha256', 'a@sha256:short',
    'host:port/a', 'a:b/c', '-.com/a', 'ex-.com/a', '[::1]a/b', '../a', 'a/../b', 'a\nb', 'ä', 'x'.repeat(5000), 'a?b', 'a%2fb', `a@${digest}:tag`,
  ])('%j is 400 invalid reference format', (text) => {
    expect(() => parseReference(text)).toThrow(expect.objectContaining({ statusCode: 400, message: 'invalid reference format' }))
  })

  it('says what else is wrong', () => {
    expect(() => parseReference('BusyBox')).toThrow('invalid reference format: repository name (library/BusyBox) must be lowercase')
    expect(() => parseReference('0'.repeat(64))).toThrow('cannot specify 64-byte hexadecimal strings')
    expect(() => parseReference(`a@sha512:${'0'.repeat(128)}`)).toThrow('unsupported digest algorithm')
    expect(() => parseReference(`a@sha256:${'0'.repeat(40)}`)).toThrow('invalid checksum digest length')
    expect(() => parseReference('a'.repeat(256))).toThrow('repository name must not be more than 255 characters')
  })

  it('tags', () => {
    expect(familiarString(taggedReference('a/b:old', 'new'))).toBe('a/b:new')
    expect(familiarString(taggedReference('a', ''))).toBe('a:latest')
    expect(() => taggedReference('a', 'no/good')).toThrow('invalid tag format')
    expect(() => taggedReference(`a@${digest}`, 'x')).toThrow('refusing to create a tag with a digest reference')
    expect(familiarName(parseReference('library/busybox'))).toBe('busybox')
  })

  it('ID prefixes', () => {
    expect(isIdPrefix(digest, '0123')).toBe(true)
    expect(isIdPrefix(digest, 'sha256:0123')).toBe(true)
    expect(isIdPrefix(digest, '123')).toBe(false)
    expect(isIdPrefix(digest, '')).toBe(false)
  })
})
