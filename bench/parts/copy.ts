import { randomBytes } from 'node:crypto'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Engine } from '../engines.js'
import { table } from '../report.js'
import { interleave } from '../interleave.js'
import type { Part } from './part.js'

const megabytes = Number(process.env['CP_MB'] ?? 200)

export const cp: Part = async ({ bench, image, rounds, limitMs }) => {
  const nameOf = (engine: Engine) => `cp-${engine.name.replace(' ', '-')}`
  const file = join(bench.directory, 'copied')
  await writeFile(file, randomBytes(megabytes << 20))
  for (const engine of bench.engines) await bench.time(engine, ['run', '-d', '--name', nameOf(engine), ...engine.runFlags, image, 'sleep', '100000'])
  const few = Math.max(1, Math.floor(rounds / 5))
  const inside = await interleave(bench.engines, few, (engine) => bench.time(engine, ['cp', file, `${nameOf(engine)}:/copied`]), limitMs / 2)
  const outside = await interleave(bench.engines, few, async (engine) => {
    const ms = await bench.time(engine, ['cp', `${nameOf(engine)}:/copied`, `${file}-out`])
    await rm(`${file}-out`)
    return ms
  }, limitMs / 2)
  for (const engine of bench.engines) await bench.time(engine, ['rm', '-f', nameOf(engine)])
  await rm(file)
  return {
    title: `cp of ${megabytes} MB`,
    text: [table({ unit: 'ms', command: 'docker cp FILE CONTAINER:/', engines: bench.engines, results: inside }), table({ unit: 'ms', command: 'docker cp CONTAINER:/FILE .', engines: bench.engines, results: outside })].join('\n'),
  }
}
