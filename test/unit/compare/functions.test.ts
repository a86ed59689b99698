import { expect, it } from 'vitest'
import { parseTraced } from '../../../src/compare/surface/functions.js'

it('counts names', () => {
  expect(parseTraced(0, 'vfs_read\nvfs_read\next4_file_open.part.0\n', 'tracing 3 threads\n')).toEqual({ names: ['vfs_read', 'vfs_read', 'ext4_file_open.part.0'] })
})

it('says why there are none', () => {
  expect(parseTraced(1, '', 'only root can trace the kernel\'s functions\n')).toEqual({ why: 'only root can trace the kernel\'s functions' })
  expect(parseTraced(1, '', 'tracing 3 threads\nthe command failed\n')).toEqual({ why: 'the command failed' })
  expect(parseTraced(3, 'vfs_read\n', 'tracing 3 threads\nevents were lost: buffers of 2048 KiB are too small\n')).toEqual({ lostWith: 2048 })
  expect(parseTraced(0, '', '')).toEqual({ why: 'no function was seen' })
})

it.each<[string, number | null, string, string]>([
  ['a signal', null, 'vfs_read\n', ''], ['a code of another meaning', 2, 'a\n', 'usage: …\n'], ['no reason', 1, '', ''], ['a loss without a size', 3, 'a\n', 'events were lost\n'],
  ['a loss of a size that is none', 3, 'a\n', 'events were lost: buffers of 99999999999 KiB are too small\n'],
])('%s is a failure', (_name, code, out, words) => {
  expect(parseTraced(code, out, words)).toEqual({ why: 'the program that traces functions failed' })
})

it.each<[string, string]>([
  ['half a name', 'vfs_read\nvfs_wr'], ['an empty line', 'a\n\nb\n'], ['a cursor that moves', 'a\u001b[2J\n'], ['a blank', 'a b\n'], ['markup', '<b>\n'], ['a long name', `${'a'.repeat(256)}\n`],
])('%s is no list of names', (_name, out) => {
  expect(parseTraced(0, out, '')).toEqual({ why: 'the program that traces functions says what cannot be understood' })
})

it('a reason that would move a cursor does not', () => {
  expect(parseTraced(1, '', 'no\u001b[2J tracing\n')).toEqual({ why: 'no?[2J tracing' })
  const { why } = parseTraced(1, '', 'x'.repeat(4000)) as { why: string }
  expect(why).toHaveLength(300)
})
