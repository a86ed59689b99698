import { sleep } from '../../test/lib/daemon.js'
import { meminfo } from '../../src/compare/host.js'
import { pssOf } from '../memory.js'
import type { Part } from './part.js'

/** Idle containers of each engine; of VMs, whose figures are hundreds of times larger, fewer. */
const idle = Number(process.env['IDLE'] ?? 10)
const idleVms = Math.min(idle, 4)

export const memory: Part = async ({ bench, image, limitMs }) => {
  const end = performance.now() + limitMs
  const rows: string[] = []
  for (const engine of bench.engines) {
    if (performance.now() > end) {
      rows.push(`| ${engine.name} | not measured: out of time | | |`)
      continue
    }
    const names = Array.from({ length: engine.name === 'hull vm' ? idleVms : idle }, (_, index) => `idle-${engine.name.replace(' ', '-')}-${index}`)
    const [before, ownBefore] = [await meminfo('MemAvailable') / 1024, await pssOf(engine.helpers)]
    for (const name of names) await bench.time(engine, ['run', '-d', '--name', name, ...engine.runFlags, image, 'sleep', '100000'])
    await sleep(2000)
    const [own, after] = [await pssOf(engine.helpers), await meminfo('MemAvailable') / 1024]
    const each = (kib: number) => (kib / 1024 / names.length).toFixed(2)
    rows.push(`| ${engine.name} | ${names.length} | ${each(own.kib - ownBefore.kib)} | ${each(before - after)} |`)
    await bench.time(engine, ['rm', '-f', ...names])
    await sleep(500)
  }
  return {
    title: 'Memory that the engine adds per idle container',
    text: [
      '`docker run -d IMAGE sleep 100000`. PSS: the engine\'s own processes per container (hull-monitor, conmon, containerd-shim, QEMU with all of its guest\'s RAM). MemAvailable: what the whole host lost, workload and kernel included (noisy).',
      '', '| engine | containers | PSS of supervisors, MB each | MemAvailable, MB each |', '|---|---|---|---|', ...rows, '',
    ].join('\n'),
  }
}
