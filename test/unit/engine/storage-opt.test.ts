import { describe, expect, it } from 'vitest'
import { diskSize } from '../../../src/engine/storage-opt.js'
import type { HullError } from '../../../src/base/errors.js'
import { PLACEHOLDER_SIZE } from '../../../src/sandbox/vm/qemu.js'
import { DISK_BOUNDS } from '../../../src/storage/disk.js'

const refusal = (options: Record<string, string>, isolation: 'process' | 'vm' = 'vm'): string => {
  try {
    return `taken: ${diskSize(options, isolation)}`
  } catch (error) {
    return `${(error as HullError).statusCode} ${(error as HullError).message}`
  }
}

describe('--storage-opt', () => {
  it.each([
    ['1g', 2 ** 30], ['1G', 2 ** 30], ['1GB', 2 ** 30], ['1 GiB', 2 ** 30], ['1.5g', 1.5 * 2 ** 30], ['64m', 2 ** 26], ['16777216', 2 ** 24], ['20480kb', 20 * 2 ** 20], ['1t', 2 ** 40],
  ])('size=%s', (text, bytes) => {
    expect(diskSize({ size: text }, 'vm')).toBe(bytes)
    expect(diskSize({ SIZE: text }, 'vm')).toBe(bytes)
  })

  it('nothing said is nothing wanted', () => {
    expect(diskSize({}, 'vm')).toBeUndefined()
    expect(diskSize({}, 'process')).toBeUndefined()
  })

  it.each(['', 'x', '-1', '-1g', '1gg', '1e9', '0x10', 'g', '1,5g', 'NaN', 'Infinity', '1g 2g'])('size=%s is no size', (text) => {
    expect(refusal({ size: text })).toBe(`400 invalid size: '${text}'`)
  })

  it.each(['0', '1', '15m', '1.1t', '9999999p', '9'.repeat(400)])('no disk has %s', (text) => {
    expect(refusal({ size: text })).toBe(`400 invalid size: '${text}': the disk of a virtual machine has between 16 MiB and 1 TiB`)
  })

  it('unknown options in Docker’s words', () => {
    expect(refusal({ Inodes: '1' })).toBe('400 Unknown option inodes')
    expect(refusal({ size: '1g', __proto__x: '' })).toBe('400 Unknown option __proto__x')
  })

  it('a container has no quota, and says so as dockerd does', () => {
    for (const options of [{ size: '1g' }, { size: 'x' }, { nosuch: '1' }]) {
      expect(refusal(options as unknown as Record<string, string>, 'process')).toBe('500 --storage-opt is supported only for overlay over xfs with \'pquota\' mount option')
    }
  })

  it('a clone sees the whole disk: none is larger than the placeholder of its template', () => {
    expect(DISK_BOUNDS.largest).toBeLessThanOrEqual(PLACEHOLDER_SIZE)
  })
})
