import { describe, expect, it } from 'vitest'
import { ignorePatterns, isIgnored, pathPattern } from '../../../src/engine/build-patterns.js'

describe('patterns of paths', () => {
  it('as Go has them (filepath.Match)', () => {
    const cases: [string, string[], string[]][] = [
      ['a*b', ['ab', 'axxb', 'aab'], ['a', 'a/b', 'abc', '']],
      ['*', ['', 'a', '.a'], ['a/b']],
      ['?x?', ['axb', 'äx\u{1f600}'], ['x', '/x/', 'axbc']],
      ['[a-cx]', ['a', 'b', 'c', 'x'], ['d', '-', '']],
      ['[^a-c]', ['d', '^'], ['a', '']],
      ['[\\]\\-]', [']', '-'], ['\\', 'a']],
      ['a\\*b', ['a*b'], ['axb']],
      ['**', ['', 'ab'], ['a/b']],
      ['*.t?t', ['a.txt', '.t.t'], ['a.tt']],
      ['a.b+c(d)$', ['a.b+c(d)$'], ['aXb+c(d)$']],
    ]
    for (const [pattern, fits, others] of cases) {
      for (const path of fits) expect(pathPattern(pattern)(path), `${pattern} ${path}`).toBe(true)
      for (const path of others) expect(pathPattern(pattern)(path), `${pattern} ${path}`).toBe(false)
    }
    for (const wrong of ['[', 'a[1', '[]', '[]a]', '[^]', '[a-]', '[-a]', '[a', 'a\\', '[\\']) expect(() => pathPattern(wrong), wrong).toThrow('syntax error in pattern')
  })

  it('a pattern of many stars takes no time', () => {
    const name = 'a'.repeat(255)
    const start = performance.now()
    expect(pathPattern(`${'*a'.repeat(60)}*b`)(name)).toBe(false)
    expect(pathPattern(`${'*a'.repeat(60)}*`)(name)).toBe(true)
    expect(performance.now() - start).toBeLessThan(2000)
  })
})

describe('.dockerignore', () => {
  it('the last line that fits decides; a directory takes along what is in it', async () => {
    const cases: [string, string[], string[]][] = [
      ['# Dockerfile\n\n  Dockerfile  \n', ['Dockerfile'], ['dockerfile', 'a/Dockerfile', '.dockerignore']],
      ['*\n!Dockerfile', ['.dockerignore', 'a/b'], ['Dockerfile']],
      ['**/Dockerfile*', ['Dockerfile', 'a/b/Dockerfile.dev'], ['a/xDockerfile']],
      ['/build/', ['build/Dockerfile'], ['a/build', 'builds']],
      ['./a/../.docker*', ['.dockerignore', '.dockerfile.0123'], ['Dockerfile']],
      ['a/**\n! a/b', ['a/Dockerfile', 'a/c/d'], ['a', 'a/b', 'a/b/c']],
      ['**\n!a\na/x', ['x', 'a/x'], ['a', 'a/y']],
      ['a/**/z', ['a/z', 'a/b/c/z'], ['az', 'a/bz']],
    ]
    for (const [text, ignored, others] of cases) {
      for (const path of ignored) expect(await isIgnored(path, ignorePatterns(text)), `${text} ${path}`).toBe(true)
      for (const path of others) expect(await isIgnored(path, ignorePatterns(text)), `${text} ${path}`).toBe(false)
    }
  })
})
