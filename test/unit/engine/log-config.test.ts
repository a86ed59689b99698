import { describe, expect, it } from 'vitest'
import { checkLogConfig, detailsPrefix, logAttributes, logLimits, logWarnings } from '../../../src/engine/log-config.js'

const limits = (Type: string, Config: Record<string, string>) => logLimits({ Type, Config })
const refusal = (Type: string, Config: Record<string, string>): string => {
  try {
    checkLogConfig({ Type, Config })
    return ''
  } catch (error) {
    return (error as Error).message
  }
}

describe('log limits', () => {
  it('are Docker’s: sizes in powers of a thousand, json-file without bound, local with 5 files of 20 MiB', () => {
    expect(limits('json-file', {})).toBeUndefined()
    expect(limits('none', { 'max-size': '1' })).toBeUndefined()
    expect(limits('json-file', { 'max-file': '3' })).toBeUndefined()
    expect(limits('json-file', { 'max-size': '10m' })).toEqual({ maxSize: 10_000_000, maxFiles: 1 })
    expect(limits('json-file', { 'max-size': '1.5KB', 'max-file': '3' })).toEqual({ maxSize: 1500, maxFiles: 3 })
    expect(limits('local', {})).toEqual({ maxSize: 20 << 20, maxFiles: 5 })
    expect(limits('local', { 'max-size': '1k', 'max-file': '2' })).toEqual({ maxSize: 1000, maxFiles: 2 })
    expect(limits('local', { 'max-size': '0' })).toBeUndefined()
  })

  it('refuses what Docker refuses', () => {
    expect(refusal('json-file', { 'max-size': '-1' })).toContain('invalid size')
    expect(refusal('json-file', { 'max-file': 'x' })).toContain('strconv.Atoi: parsing "x": invalid syntax')
    expect(refusal('json-file', { compress: 'maybe' })).toContain('strconv.ParseBool')
    expect(refusal('local', { 'max-file': '1' })).toContain('compression cannot be enabled when max file count is 1')
    expect(refusal('local', { 'max-file': '1', compress: 'false' })).toBe('')
    expect(refusal('json-file', { tag: '{{.ID}} {{upper .Name}}' })).toContain('{{upper .Name}} is not supported')
    expect(refusal('json-file', { 'labels-regex': '(' })).toContain('error parsing regexp')
    expect(refusal('json-file', { mode: 'non-blocking', 'max-buffer-size': '4m' })).toBe('')
    expect(refusal('none', { anything: 'goes' })).toBe('')
  })

  it('warns of what it takes and does not do', () => {
    expect(logWarnings({ Type: 'json-file', Config: { 'max-size': '1m', 'max-file': '2', compress: 'true', mode: 'non-blocking' } })).toHaveLength(2)
    expect(logWarnings({ Type: 'local', Config: { compress: 'false' } })).toEqual([])
  })
})

describe('log attributes', () => {
  const record = (Config: Record<string, string>) =>
    ({ id: 'c'.repeat(64), name: 'n', imageRef: 'i:1', imageId: `sha256:${'d'.repeat(64)}`, config: { Labels: { a: '1', 'com.x.y': '2' }, Env: ['A=1', 'PATH=/bin:/x=y'] }, hostConfig: { LogConfig: { Type: '', Config } } }) as unknown as Parameters<typeof logAttributes>[0]

  it('are what the options name, in Docker’s form', () => {
    expect(logAttributes(record({}))).toEqual({})
    expect(logAttributes(record({ labels: 'a, b', 'env-regex': '^P' }))).toEqual({ a: '1', PATH: '/bin:/x=y' })
    expect(logAttributes(record({ 'labels-regex': '^com\\.', tag: '{{.ID}}-{{ .ImageName }}' }))).toEqual({ 'com.x.y': '2', tag: `${'c'.repeat(12)}-i:1` })
    expect(detailsPrefix({})).toBe(' ')
    expect(detailsPrefix({ b: 'x y', a: '(1)' })).toBe('a=%281%29,b=x+y ')
  })
})
