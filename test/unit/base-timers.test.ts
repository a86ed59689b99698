import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { LONGEST_TIMER, within } from '../../src/base/timers.js'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

it('a wait that is longer than any timer is as long as it was asked for', async () => {
  let said: unknown
  void within(new Promise(() => {}), LONGEST_TIMER + 1000).then((value) => (said = value))
  await vi.advanceTimersByTimeAsync(LONGEST_TIMER)
  expect(said).toBeUndefined()
  await vi.advanceTimersByTimeAsync(1000)
  expect(said).toBe('timeout')
})

it('gives what comes in time, value or error, and leaves no timer', async () => {
  expect(await within(Promise.resolve(7), 1000)).toBe(7)
  await expect(within(Promise.reject(new Error('no')), 1000)).rejects.toThrow('no')
  expect(vi.getTimerCount()).toBe(0)
})
