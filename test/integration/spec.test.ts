import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { measureSpec, type Values } from '../../bench/spec/measures.js'
import { keeps, readSpec } from '../../bench/spec/table.js'

describe('SPEC.md', () => {
  const spec = readSpec()
  let values: Values = {}
  beforeAll(async () => {
    values = await measureSpec(4)
  }, 240_000)

  it('promises what is measured, and all of it', () => {
    expect(Object.keys(values).sort()).toEqual(spec.map(({ id }) => id).sort())
  })
  it.each(spec)('$id: $promise', (promised) => {
    const value = values[promised.id] ?? NaN
    expect(keeps(promised, value), `measured ${value}, promised ${promised.relation} ${promised.bound}`).toBe(true)
  })
})

describe('its table', () => {
  let directory: string
  beforeAll(async () => void (directory = await mkdtemp(join(tmpdir(), 'hull-spec-'))))
  afterAll(() => rm(directory, { recursive: true, force: true }))
  const read = async (...rows: string[]) => {
    const path = join(directory, 'SPEC.md')
    await writeFile(path, ['text', '| id | promise | bound | command |', '|---|---|---|---|', ...rows, ''].join('\n'))
    return readSpec(path)
  }
  it('is read with its bounds', async () => {
    const [most, least, exact] = await read('| a-b | p | ≤ 2.5 | `x` |', '| c | p | ≥ 3 | `x`, `y` |', '| d | p | = 0 | by `x` |')
    expect(most).toEqual({ id: 'a-b', promise: 'p', relation: '≤', bound: 2.5 })
    expect([2.5, 2.6, NaN].map((value) => keeps(most!, value))).toEqual([true, false, false])
    expect([3, 2.9, NaN].map((value) => keeps(least!, value))).toEqual([true, false, false])
    expect([0, 0.1, NaN].map((value) => keeps(exact!, value))).toEqual([true, false, false])
  })
  it.each(['| a | p | < 3 | `x` |', '| a | p | ≤ 3 | no command |', '| a | p | ≤ fast | `x` |', '| A | p | ≤ 3 | `x` |'])('is refused where it promises nothing that can be measured: %s', async (row) => {
    await expect(read(row)).rejects.toThrow(/no promise with a bound and a command/)
  })
  it('has each promise once', async () => {
    await expect(read('| a | p | ≤ 1 | `x` |', '| a | p | ≤ 2 | `x` |')).rejects.toThrow(/a is there twice/)
  })
})
