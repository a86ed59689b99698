import { expect, it } from 'vitest'
import { oomScoreFor } from '../../../src/oci/oom-score.js'

it('is what the workload is to have, whatever the daemon has', () => {
  expect(oomScoreFor(0, { score: -500, mayLower: true })).toEqual({ oomScoreAdj: 0, refused: false })
  expect(oomScoreFor(0, { score: -500, mayLower: false })).toEqual({ oomScoreAdj: 0, refused: false }) // to raise takes no right
  expect(oomScoreFor(300, { score: 0, mayLower: false })).toEqual({ oomScoreAdj: 300, refused: false })
  expect(oomScoreFor(-100, { score: 0, mayLower: true })).toEqual({ oomScoreAdj: -100, refused: false })
})

it('is left out where it is there already, or cannot be', () => {
  expect(oomScoreFor(0, { score: 0, mayLower: false })).toEqual({ refused: false })
  expect(oomScoreFor(-100, { score: 0, mayLower: false })).toEqual({ refused: true })
  expect(oomScoreFor(0, { score: 200, mayLower: false })).toEqual({ refused: true })
})
