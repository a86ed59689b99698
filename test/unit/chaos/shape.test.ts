import { expect, it } from 'vitest'
import { random } from '../../chaos/random.js'
import { difference } from '../../chaos/shape.js'

it('the difference of two shapes says what is doubled, leaked and lost', () => {
  expect(difference(['a', 'a', 'b'], ['a', 'a', 'b'])).toEqual([])
  expect(difference(['a', 'b'], ['a', 'a', 'c'])).toEqual(['+1 a', '+1 c', '-1 b'])
})

it('random numbers come again for the same seed, and cover their range', () => {
  const draw = (seed: number) => {
    const next = random(seed)
    return Array.from({ length: 1000 }, () => next())
  }
  expect(draw(5)).toEqual(draw(5))
  expect(draw(5)).not.toEqual(draw(6))
  expect(Math.min(...draw(5))).toBeLessThan(0.01)
  expect(Math.max(...draw(5))).toBeGreaterThan(0.99)
  expect(Math.max(...draw(5))).toBeLessThan(1)
})
