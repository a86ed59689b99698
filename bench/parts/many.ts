import { request } from 'node:http'
import type { Engine } from '../engines.js'
import { table } from '../report.js'
import { interleave } from '../interleave.js'
import type { Part } from './part.js'

/** Containers that are there while others are looked at. */
const count = Number(process.env['MANY'] ?? 500)
/** Requests at a time. */
const lanes = 8

function call(engine: Engine, method: string, path: string, body?: object): Promise<string> {
  return new Promise((done, fail) => {
    const text = body === undefined ? undefined : JSON.stringify(body)
    const socketPath = engine.env['DOCKER_HOST']!.replace('unix://', '')
    const out = request({ socketPath, method, path, headers: text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) } }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('end', () => {
        const said = Buffer.concat(chunks).toString()
        if ((answer.statusCode ?? 500) < 400) done(said)
        else fail(new Error(`${engine.name}: ${method} ${path}: ${answer.statusCode} ${said}`))
      })
    })
    out.on('error', fail)
    out.end(text)
  })
}

async function inLanes(total: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0
  await Promise.all(Array.from({ length: lanes }, async () => {
    while (next < total) await work(next++)
  }))
}

export const many: Part = async ({ bench, image, rounds, limitMs }) => {
  const engines = bench.daemons.filter((engine) => engine.env['DOCKER_HOST'])
  const ids = new Map<Engine, string[]>()
  try {
    for (const engine of engines) {
      const list: string[] = []
      ids.set(engine, list)
      await inLanes(count, async (index) => void list.push((JSON.parse(await call(engine, 'POST', `/containers/create?name=many-${index}`, { Image: image, Cmd: ['true'], Labels: { index: String(index) } })) as { Id: string }).Id))
    }
    const ps = await interleave(engines, rounds, (engine) => bench.time(engine, ['ps', '-a', '--format', '{{.Names}}']), limitMs / 2)
    const inspect = await interleave(engines, rounds, (engine) => bench.time(engine, ['inspect', '--format', '{{.Name}}', 'many-1', `many-${count - 1}`]), limitMs / 2)
    return {
      title: `ps and inspect beside ${count} containers`,
      text: [table({ unit: 'ms', command: 'docker ps -a', engines, results: ps }), table({ unit: 'ms', command: 'docker inspect TWO CONTAINERS', engines, results: inspect })].join('\n'),
    }
  } finally {
    for (const [engine, list] of ids) await inLanes(list.length, async (index) => void (await call(engine, 'DELETE', `/containers/${list[index]}?force=1`)))
  }
}
