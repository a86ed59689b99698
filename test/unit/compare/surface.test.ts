import { expect, it } from 'vitest'
import { parseSeen } from '../../../src/compare/surface/inside.js'

const line = { boot: '1f2e5412-45bc-4a89-8f89-74cf6e3644f2', kernel: '6.1.0', capabilities: '00000000a80425fb', seccomp: '2', devices: ['/dev/null'], calls: 300, why: '' }

it('takes the program at its word when it is one', () => {
  expect(parseSeen(JSON.stringify(line))).toEqual(line)
})

it.each<[string, string]>([
  ['nothing', ''], ['no JSON', '{"boot":'], ['a list', '[]'], ['more than there is', JSON.stringify({ ...line, more: 1 })], ['no mask', JSON.stringify({ ...line, capabilities: 'all' })],
  ['a mode that no kernel has', JSON.stringify({ ...line, seccomp: '7' })], ['part of a call', JSON.stringify({ ...line, calls: 1.5 })], ['more calls than a kernel has', JSON.stringify({ ...line, calls: 5000 })],
  ['devices that are none', JSON.stringify({ ...line, devices: [1] })],
])('%s is no answer', (_name, text) => {
  expect(parseSeen(text)).toBeUndefined()
})
