import { execFileSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { temporary } from './support.js'

const program = (body: string) => `
import { IdleCollector, keepYoungGenerationSmall } from ${JSON.stringify(join(import.meta.dirname, '../../../src/host/own-memory.ts'))}
import { getHeapSpaceStatistics } from 'node:v8'
import { constants, PerformanceObserver } from 'node:perf_hooks'
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const megabytes = (bytes: number) => Math.round(bytes / 2 ** 20)
/** A lot that dies young, and some that lives on. */
function work(): unknown[] {
  const kept: unknown[] = []
  for (let i = 0; i < 2e6; i++) {
    const made = { number: i, list: [i] }
    if (i % 50 === 0) kept.push(made)
    if (kept.length > 10_000) kept.shift()
  }
  return kept
}
${body}`
const directory = temporary()
afterAll(() => rmSync(directory, { recursive: true }))

function run(body: string): Record<string, number> {
  const file = join(directory, 'program.mts')
  writeFileSync(file, program(body))
  return JSON.parse(execFileSync(process.execPath, ['--import', 'tsx', file], { encoding: 'utf8' })) as Record<string, number>
}

it('keeps the young generation as small as it begins', () => {
  const size = '(getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space")!.space_size)'
  const { before, after } = run(`keepYoungGenerationSmall(); const before = ${size}; const kept = work(); console.log(JSON.stringify({ before: megabytes(before), after: megabytes(${size}), kept: kept.length }))`) as { before: number; after: number }
  expect(after).toBeLessThanOrEqual(Math.max(before, 2))
  expect(run(`const kept = work(); console.log(JSON.stringify({ after: megabytes(${size}), kept: kept.length }))`)['after']).toBeGreaterThan(after)
})

it('gives memory back when there is nothing to do, and not before', () => {
  const { busy, idle, more, left } = run(`
    let forced = 0 // performance_hooks: PerformanceNodeEntry.flags
    new PerformanceObserver((list) => { for (const { detail } of list.getEntries()) if (((detail as { flags: number }).flags & constants.NODE_PERFORMANCE_GC_FLAGS_FORCED) !== 0) forced++ }).observe({ entryTypes: ['gc'] })
    const collector = new IdleCollector(300); collector.start(); collector.start()
    let buffers: Buffer[] = Array.from({ length: 40 }, () => Buffer.alloc(2 ** 20, 1))
    const until = performance.now() + 1000
    while (performance.now() < until) { const end = performance.now() + 20; while (performance.now() < end); await sleep(5) }
    buffers = []
    const busy = forced
    await sleep(1000)
    const idle = forced
    await sleep(1000)
    collector.stop()
    console.log(JSON.stringify({ busy, idle, more: forced - idle, left: megabytes(process.memoryUsage().arrayBuffers), kept: buffers.length }))`) as { busy: number; idle: number; more: number; left: number }
  expect(busy).toBe(0)
  expect(idle).toBeGreaterThan(0)
  expect(more).toBe(0) // nothing more to give
  expect(left).toBeLessThan(5)
})
