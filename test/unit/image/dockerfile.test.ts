import { describe, expect, it } from 'vitest'
import { HullError } from '../../../src/base/errors.js'
import { expand, expandWords, jsonWords, parseDockerfile } from '../../../src/image/dockerfile.js'
import { random } from '../oci/random.js'

const parsed = (text: string) => parseDockerfile(text).instructions.map(({ name, flags, rest, line }) => [line, name, flags.map(([flag, value]) => `${flag}=${value}`).join(' '), rest])

describe('a Dockerfile', () => {
  it('comments, continuation lines with comments and empty lines in them, any case, flags', () => {
    expect(parsed('# a comment\n\nfrom busybox as one\nRUN a \\\n  # not a part\n\n  b && \\ \n  c\r\nCOPY --from=one --chown="a:b" x y /z/\nEntrypoint ["a", "b"]\nHEALTHCHECK --interval=1s CMD x\nRUN last \\')).toEqual([
      [3, 'FROM', '', 'busybox as one'], [4, 'RUN', '', 'a   b &&   c'], [9, 'COPY', 'from=one chown=a:b', 'x y /z/'], [10, 'ENTRYPOINT', '', '["a", "b"]'],
      [11, 'HEALTHCHECK', '', '--interval=1s CMD x'], [12, 'RUN', '', 'last'],
    ])
  })
  it('the escape directive, only at the top', () => {
    expect(parsed('# escape=`\nFROM a\nRUN x `\n y C:\\\nRUN z')).toEqual([[2, 'FROM', '', 'a'], [3, 'RUN', '', 'x  y C:\\'], [5, 'RUN', '', 'z']])
    expect(parsed('FROM a\n# escape=`\nRUN x \\\n y')).toHaveLength(2)
    expect(() => parseDockerfile('# escape=x\nFROM a')).toThrow('invalid ESCAPE \'x\'. Must be ` or \\')
  })
  it.each([
    ['', 'file with no instructions'], ['# nothing\n', 'file with no instructions'], ['FROM a\nFOO bar', 'dockerfile parse error on line 2: unknown instruction: FOO'], ['FROM a\nRUN', 'dockerfile parse error on line 2: RUN requires at least one argument'],
    ['FROM', 'dockerfile parse error on line 1: FROM requires either one or three arguments'], ['FROM a\nRUN <<EOF\nx\nEOF', 'dockerfile parse error on line 2: the here-document syntax requires BuildKit'],
  ])('%j: %s', (text, message) => {
    expect(() => parseDockerfile(text)).toThrow(message)
  })
  it('a megabyte of anything is read in a moment', () => {
    const blanks = ' '.repeat(1_000_000)
    const start = performance.now()
    expect(parsed(`FROM a\n\tRUN${blanks}x \n`)).toEqual([[1, 'FROM', '', 'a'], [2, 'RUN', '', 'x']])
    expect(parsed(`FROM a\nRUN x${blanks}y`)).toEqual([[1, 'FROM', '', 'a'], [2, 'RUN', '', `x${blanks}y`]])
    expect(parsed(`# a =${blanks}x${blanks.slice(0, 1000)}y\nFROM a`)).toHaveLength(1)
    expect(parsed(`# a =${blanks.slice(0, 3000)}x${blanks.slice(0, 3000)}\u2028y\nFROM a`)).toHaveLength(1)
    expect(parsed(`# a = x${'\t'.repeat(1_000_000)}y\nFROM a`)).toHaveLength(1)
    expect(() => expandWords('${'.repeat(500_000), () => '', '\\')).toThrow(/bad substitution/)
    expect(performance.now() - start).toBeLessThan(15_000) // it would be minutes
  }, 30_000)
  it('JSON forms', () => {
    expect(jsonWords('["a", "b c"]')).toEqual(['a', 'b c'])
    for (const other of ['[a]', '["a", 1]', 'a', '["a"] x', '{"a":"b"}']) expect(jsonWords(other)).toBeUndefined()
  })
})

describe('variables', () => {
  const values: Record<string, string> = { A: 'one', EMPTY: '', BLANK: 'x y', QUOTE: 'a"b\'c\\d$e' }
  const lookup = (name: string) => (Object.hasOwn(values, name) ? values[name] : undefined)
  const plain = (text: string) => expand(text, lookup, '\\', 'plain')
  it.each([
    ['$A/${A}x', 'one/onex'], ['$NONE|${NONE}|', '||'], ['${A:-b} ${NONE:-b} ${EMPTY:-b} ${EMPTY-b}', 'one b b '], ['${A:+b}${NONE:+b}${EMPTY:+b}${EMPTY+b}', 'bb'], ['\\$A "\\$A" \'$A\' "$A"', '$A $A $A one'],
    ['${NONE:-${A}}', 'one'], ['$', '$'], ['a$ b', 'a$ b'], ['"a\\nb"', 'a\\nb'], ['a\\ b', 'a b'], ['${NONE:-\\}}', '}'],
  ])('%s → %s', (text, value) => {
    expect(plain(text)).toBe(value)
  })
  it.each(['${A', '${A:', '${A:?x', '${}', '${A:x}', '${NONE?gone}', '${NONE:?}'])('%s is refused', (text) => {
    expect(() => plain(text)).toThrow(/^failed to process/)
  })
  it('words: split outside of quotes, a value does not split', () => {
    expect(expandWords('a "b c" $BLANK ${NONE:-d e} \'f $A\'', lookup, '\\')).toEqual(['a', 'b c', 'x y', 'd e', 'f $A'])
  })
  it('kept for a later reader: no value ends a word or a quote', () => {
    expect(expand('K=$BLANK L="$QUOTE" M=$QUOTE', lookup, '\\', 'keep')).toBe('K=x\\ y L="a\\"b\'c\\\\d\\$e" M=a\\"b\\\'c\\\\d$e')
  })
  it('whatever comes: a value or a HullError, never another exception or an endless loop', () => {
    const next = random(7)
    const letters = ['$', '{', '}', ':', '-', '+', '?', 'A', '"', "'", '\\', ' ', '\n', '#', '`', 'FROM a\n', 'RUN ', '--x=', '[', ']', '=']
    for (let i = 0; i < 20_000; i++) {
      let text = ''
      for (let n = next(24); n > 0; n--) text += letters[next(letters.length)]
      for (const work of [() => plain(text), () => expandWords(text, lookup, '\\'), () => parseDockerfile(`FROM a\n${text}`)]) {
        try {
          work()
        } catch (error) {
          if (!(error instanceof HullError)) throw error
        }
      }
    }
  })
})
