import { expect, it } from 'vitest'
import { barMessage, humanSize, layerMessage, progressBar } from '../../../src/image/progress.js'

it('sizes as Docker writes them', () => {
  expect([0, 999, 1000, 1536, 1_234_567, 98_765_432, 5e9].map(humanSize)).toEqual(['0B', '999B', '1kB', '1.536kB', '1.235MB', '98.77MB', '5GB'])
})
it('bars as Docker draws them', () => {
  expect(progressBar(0, 100)).toBe(`[>${' '.repeat(50)}]       0B/100B`)
  expect(progressBar(50, 100)).toBe(`[${'='.repeat(25)}>${' '.repeat(25)}]      50B/100B`)
  expect(progressBar(100, 100)).toBe(`[${'='.repeat(50)}>]     100B/100B`)
  expect(progressBar(7, 0)).toBe('      7B')
  expect(progressBar(200, 100)).toBe(`[${'='.repeat(50)}>]     200B`)
})
it('messages', () => {
  expect(layerMessage('abc', 'Waiting')).toEqual({ status: 'Waiting', progressDetail: {}, id: 'abc' })
  expect(barMessage('abc', 'Downloading', 1, 2)).toMatchObject({ status: 'Downloading', id: 'abc', progressDetail: { current: 1, total: 2 } })
})
