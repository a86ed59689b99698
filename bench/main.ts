import { mkdir, readFile } from 'node:fs/promises'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { exec } from '../test/lib/daemon.js'
import { busyboxRoot, dockerArchive } from '../test/lib/image.js'
import { Bench } from './engines.js'
import { run, exec as execPart } from './parts/commands.js'
import { cp } from './parts/copy.js'
import { many } from './parts/many.js'
import { memory } from './parts/memory.js'
import { dns, port } from './parts/network.js'
import type { Part } from './parts/part.js'
import { pull } from './parts/pull.js'
import { type Section, writeReport } from './report.js'

// BENCH=run,exec: only these parts. ROUNDS: how often. OUT: where the report goes. ENGINES=hull: without the others. MINUTES: for all parts together.
const parts: Record<string, Part> = { run, exec: execPart, pull, memory, dns, port, many, cp }
const wanted = (process.env['BENCH'] ?? Object.keys(parts).join(',')).split(',').filter(Boolean)
const rounds = Number(process.env['ROUNDS'] ?? 15)
const minutes = Number(process.env['MINUTES'] ?? 13)
const file = resolve(process.env['OUT'] ?? process.argv[2] ?? join(import.meta.dirname, '../docs/benchmarks.md'))
const image = 'bench/busybox:1'

const unknown = wanted.filter((name) => !(name in parts))
if (unknown.length > 0 || !Number.isInteger(rounds) || rounds < 1) {
  console.error(`bench: BENCH=${unknown.join(',')}: want some of ${Object.keys(parts).join(', ')}; ROUNDS from 1`)
  process.exit(2)
}

/** The small image: busybox, and the other end of the network measurements. */
async function loadSmallImage(bench: Bench): Promise<void> {
  const root = join(bench.directory, 'small')
  await mkdir(root)
  await busyboxRoot(root)
  const compiled = await exec('gcc', ['-static', '-O2', '-o', join(root, 'bin/peer'), join(import.meta.dirname, 'peer.c')])
  if (compiled.code !== 0) throw new Error(compiled.stderr)
  const archive = join(bench.directory, 'small.tar')
  await dockerArchive(root, image, archive)
  for (const engine of [...bench.daemons, ...(bench.pooled ? [bench.pooled] : [])]) await bench.time(engine, ['load', '-q', '-i', archive])
}

/** Leaves out an engine that cannot run anything on this machine, and says why. */
async function dropBroken(bench: Bench): Promise<string[]> {
  const notes: string[] = []
  for (const engine of [...bench.engines]) {
    try {
      await bench.time(engine, ['run', '--rm', ...engine.runFlags, image, 'true'])
    } catch (error) {
      notes.push(`- ${engine.name} is left out: ${error instanceof Error ? error.message.trim() : String(error)}`)
      bench.engines.splice(bench.engines.indexOf(engine), 1)
    }
  }
  return notes
}

async function head(bench: Bench, notes: string[]): Promise<string> {
  const model = /^model name\s*:\s*(.+)$/m.exec(await readFile('/proc/cpuinfo', 'utf8'))?.[1] ?? 'unknown'
  const info = await exec('docker', ['info', '--format', '{{json .Warnings}}'], { env: bench.engines[0]!.env })
  return [
    '# Benchmarks', '',
    'Written by `make bench-peers bench` (`BENCH=run,exec make bench` measures some parts anew and leaves the others as they are). Engines are interleaved on the same machine; absolute times are this machine\'s, the ratios are what counts.', '',
    `- machine: ${cpus().length} CPUs (${model}), ${Math.round(totalmem() / 2 ** 30)} GiB, kernel ${release()}; load average ${loadavg().map((load) => load.toFixed(1)).join(' ')} at the end of the last run`,
    ...bench.engines.map((engine) => `- ${engine.name}: ${engine.version}, client: ${engine.cli[0]}`),
    ...notes, `- hull says: ${info.stdout.trim()}`,
  ].join('\n')
}

const bench = await Bench.start(process.env['ENGINES']?.split(','))
const sections: Section[] = []
try {
  await loadSmallImage(bench)
  const notes = await dropBroken(bench)
  if (bench.engines.length === 0) throw new Error(`no engine runs:\n${notes.join('\n')}`)
  let left = minutes * 60_000
  for (const [index, name] of wanted.entries()) {
    const start = performance.now()
    try {
      // What a part leaves of its share goes to those that follow.
      const section = await parts[name]!({ bench, image, rounds, limitMs: left / (wanted.length - index) })
      sections.push(section)
      console.log(`### ${section.title}\n\n${section.text}`)
    } catch (error) {
      notes.push(`- ${name} was not measured: ${error instanceof Error ? error.message.trim() : String(error)}`)
      console.error(notes.at(-1))
      process.exitCode = 1
    }
    left = Math.max(0, left - (performance.now() - start))
  }
  await writeReport(file, await head(bench, notes), sections)
  console.log(`written: ${file}`)
} finally {
  await bench.stop()
}
