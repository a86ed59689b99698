import { describe, expect, it } from 'vitest'
import { choosePlatform, formatPlatform, hostPlatform, normalisePlatform, parsePlatform } from '../../../src/image/platform.js'

const entry = (name: string) => ({ name, platform: parsePlatform(name) })

describe('platforms', () => {
  it.each([
    ['linux/amd64', 'linux/amd64'], ['linux/x86_64', 'linux/amd64'], ['linux/amd64/v1', 'linux/amd64'], ['linux/amd64/v3', 'linux/amd64/v3'], ['linux/arm64/v8', 'linux/arm64'],
    ['linux/aarch64', 'linux/arm64'], ['linux/arm', 'linux/arm/v7'], ['linux/arm/6', 'linux/arm/v6'], ['armhf', 'linux/arm/v7'], ['arm64', 'linux/arm64'], ['Linux/ARM64', 'linux/arm64'], ['linux/s390x', 'linux/s390x'],
  ])('%s is %s', (text, expected) => expect(formatPlatform(parsePlatform(text))).toBe(expected))

  it('linux alone is this machine', () => expect(parsePlatform('linux')).toEqual(hostPlatform()))

  it.each(['', '/', 'linux/', 'a/b/c/d', 'linux/am d64', 'x'.repeat(65)])('%j is 400', (text) => {
    expect(() => parsePlatform(text)).toThrow(expect.objectContaining({ statusCode: 400 }))
  })

  it('chooses the exact one, for ARM the nearest older one, never another', () => {
    const all = ['linux/arm/v5', 'linux/arm64', 'linux/arm/v6', 'linux/amd64/v3', 'linux/amd64', 'linux/arm/v7', 'windows/amd64'].map(entry)
    const chosen = (list: typeof all, wanted: string) => choosePlatform(list, parsePlatform(wanted))?.name
    expect(chosen(all, 'linux/amd64')).toBe('linux/amd64')
    expect(chosen(all, 'linux/amd64/v3')).toBe('linux/amd64/v3')
    expect(chosen(all, 'linux/arm/v7')).toBe('linux/arm/v7')
    expect(chosen(all.slice(0, 3), 'linux/arm/v7')).toBe('linux/arm/v6')
    expect(chosen(all.slice(2), 'linux/arm/v5')).toBeUndefined()
    expect(chosen(all, 'linux/riscv64')).toBeUndefined()
    expect(chosen(all.filter((e) => e.name === 'linux/amd64/v3'), 'linux/amd64')).toBeUndefined()
    expect(choosePlatform([{}, { platform: { os: 'unknown', architecture: 'unknown' } }], hostPlatform())).toBeUndefined()
  })

  it('names from a hostile index reach no prototype', () => {
    expect(normalisePlatform({ os: 'linux', architecture: '__proto__' }).architecture).toBe('__proto__')
    expect(normalisePlatform({ os: 'linux', architecture: 'constructor' }).architecture).toBe('constructor')
  })
})
