import type { Engine } from '../engines.js'
import { table } from '../report.js'
import { interleave } from '../interleave.js'
import type { Part } from './part.js'

/** Start, run, remove: the command that everybody waits for. */
export const run: Part = async ({ bench, image, rounds, limitMs }) => {
  const { pooled } = bench
  const start = (engine: Engine) => bench.time(engine, ['run', '--rm', ...engine.runFlags, image, 'true'])
  const engines = [...bench.engines]
  const vm = engines.find(({ name }) => name === 'hull vm')
  if (vm) await bench.templateMade(vm, image)
  if (pooled && vm) {
    engines.push(pooled)
    for (let n = 0; n < 3; n++) await start(pooled) // a shape that is started again and again
    await bench.poolFilled()
  }
  return {
    title: 'Start, run, remove',
    text: table({
      unit: 'ms', command: 'docker run --rm IMAGE true', engines,
      results: await interleave(engines, rounds, async (engine) => {
        const ms = await start(engine)
        // The next one is made in the background: not while others are measured.
        if (engine === pooled) await bench.poolFilled()
        return ms
      }, limitMs),
    }),
  }
}

export const exec: Part = async ({ bench, image, rounds, limitMs }) => {
  const nameOf = (engine: Engine) => `exec-${engine.name.replace(' ', '-')}`
  for (const engine of bench.engines) await bench.time(engine, ['run', '-d', '--name', nameOf(engine), ...engine.runFlags, image, 'sleep', '100000'])
  const results = await interleave(bench.engines, rounds, (engine) => bench.time(engine, ['exec', nameOf(engine), 'true']), limitMs)
  for (const engine of bench.engines) await bench.time(engine, ['rm', '-f', nameOf(engine)])
  return { title: 'Exec', text: table({ unit: 'ms', command: 'docker exec CONTAINER true', engines: bench.engines, results }) }
}
