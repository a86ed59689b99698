import { describe, expect, it } from 'vitest'
import { parseFlags } from '../../../src/daemon/flags.js'

describe('hull daemon --storage-opt', () => {
  it('is the size of VMs’ disks, the last one said, in powers of 1024', () => {
    expect(parseFlags([]).vmDiskBytes).toBe(10 * 2 ** 30)
    expect(parseFlags(['--storage-opt', 'vm.size=20G']).vmDiskBytes).toBe(20 * 2 ** 30)
    expect(parseFlags(['--storage-opt', 'vm.size=20G', '--storage-opt=VM.Size=64m']).vmDiskBytes).toBe(64 * 2 ** 20)
  })

  it.each([
    ['vm.size', 'unable to parse key/value option'],
    ['vm.size=', "invalid size: ''"],
    ['vm.size=x', "invalid size: 'x'"],
    ['vm.size=1m', 'between 16 MiB and 1 TiB'],
    ['overlay2.size=10G', 'unknown option overlay2.size: want vm.size'],
  ])('refuses %s', (option, words) => {
    expect(() => parseFlags(['--storage-opt', option])).toThrow(words)
  })
})
