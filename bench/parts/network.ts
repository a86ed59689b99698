import { connect, type Socket } from 'node:net'
import { exec, until } from '../../test/lib/daemon.js'
import type { Engine } from '../engines.js'
import { table } from '../report.js'
import { summarize } from '../../src/compare/statistics.js'
import type { Summary } from '../../src/compare/types.js'
import { interleave } from '../interleave.js'
import type { Part, PartContext } from './part.js'

const nameOf = (engine: Engine, what: string) => `${what}-${engine.name.replace(' ', '-')}`
/** How long one transfer is measured, milliseconds. */
const transferMs = 1500
const roundTrips = 200
const questions = 200

function open(port: number): Promise<Socket> {
  return new Promise((done, fail) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true }, () => done(socket))
    socket.once('error', fail)
  })
}

/** Megabytes a second that arrive through a published port. */
async function throughput(port: number): Promise<number> {
  const socket = await open(port)
  let bytes = 0
  socket.on('data', (chunk) => (bytes += chunk.length))
  socket.write('d')
  await new Promise((done) => socket.once('data', done))
  const [start, first] = [performance.now(), bytes]
  await new Promise((done) => setTimeout(done, transferMs))
  const rate = (bytes - first) / 1e6 / ((performance.now() - start) / 1000)
  socket.destroy()
  return rate
}

/** Median microseconds for a byte to come back through a published port. */
async function latency(port: number): Promise<number> {
  const socket = await open(port)
  const times: number[] = []
  socket.write('p')
  for (let i = 0; i < roundTrips; i++) {
    const start = performance.now()
    const answered = new Promise((done) => socket.once('data', done))
    socket.write('x')
    await answered
    times.push((performance.now() - start) * 1000)
  }
  socket.destroy()
  return summarize(times).median
}

/** The engines with a server behind a published port on loopback. */
async function serve({ bench, image }: PartContext): Promise<Map<Engine, number>> {
  const ports = new Map<Engine, number>()
  for (const engine of bench.engines) {
    await bench.time(engine, ['run', '-d', '--name', nameOf(engine, 'serve'), '-p', '127.0.0.1::7000', ...engine.runFlags, image, 'peer', 'serve', '7000'])
    const said = await exec(engine.cli[0]!, [...engine.cli.slice(1), 'port', nameOf(engine, 'serve'), '7000/tcp'], { env: engine.env })
    const port = Number(said.stdout.trim().split(':').pop())
    await until(`${engine.name} serves`, async () => open(port).then((socket) => !!socket.destroy(), () => false), 60_000)
    ports.set(engine, port)
  }
  return ports
}

/** A published port, as a program on the host sees it. */
export const port: Part = async (context) => {
  const { bench, rounds, limitMs } = context
  const ports = await serve(context)
  const few = Math.max(1, Math.floor(rounds / 3))
  const rate = await interleave(bench.engines, few, (engine) => throughput(ports.get(engine)!), limitMs / 2)
  const delay = await interleave(bench.engines, few, (engine) => latency(ports.get(engine)!), limitMs / 2)
  for (const engine of bench.engines) await bench.time(engine, ['rm', '-f', nameOf(engine, 'serve')])
  return {
    title: 'A published port',
    text: [
      `Bytes from the container to a client on the host, through 127.0.0.1 and \`-p\`; more is better.\n\n${table({ unit: 'MB/s', command: 'peer serve', engines: bench.engines, results: rate })}`,
      `One byte there and back, median of ${roundTrips}.\n\n${table({ unit: 'µs', command: 'peer serve', engines: bench.engines, results: delay })}`,
    ].join('\n'),
  }
}

/** A name on a user-defined network, asked from inside; the other container is of the same engine and isolation. */
export const dns: Part = async ({ bench, image, rounds, limitMs }) => {
  const engines = bench.engines.filter((engine) => engine.cli[0] === 'docker')
  for (const engine of engines) await bench.time(engine, ['network', 'create', nameOf(engine, 'names')])
  for (const engine of engines) {
    for (const what of ['asks', 'peer']) {
      await bench.time(engine, ['run', '-d', '--name', nameOf(engine, what), '--network', nameOf(engine, 'names'), ...engine.runFlags, image, 'sleep', '100000'])
    }
  }
  const ask = async (engine: Engine) => {
    const said = await exec('docker', ['exec', nameOf(engine, 'asks'), 'peer', 'dns', nameOf(engine, 'peer'), String(questions)], { env: engine.env })
    if (said.code !== 0) throw new Error(`${engine.name}: ${said.stderr}`)
    return summarize(said.stdout.trim().split('\n').map(Number)).median
  }
  const results: Map<Engine, Summary> = await interleave(engines, Math.max(1, Math.floor(rounds / 3)), ask, limitMs)
  for (const engine of engines) {
    await bench.time(engine, ['rm', '-f', nameOf(engine, 'asks'), nameOf(engine, 'peer')])
    await bench.time(engine, ['network', 'rm', nameOf(engine, 'names')])
  }
  return { title: 'DNS answers', text: `The A record of another container's name, asked ${questions} times from inside a container; the median of each round.\n\n${table({ unit: 'µs', command: 'peer dns NAME 200', engines, results })}` }
}
