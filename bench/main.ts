import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { cpus, release, tmpdir, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { exec, sleep } from '../test/lib/daemon.js'
import { busyboxRoot, dockerArchive } from '../test/lib/image.js'
import { Bench, type Engine } from './engines.js'
import { memAvailable, pssOf } from './memory.js'
import { interleave, type Summary } from './statistics.js'

const rounds = Number(process.env['ROUNDS'] ?? 15)
const idle = Number(process.env['IDLE'] ?? 20)
const image = 'bench/busybox:1'
const lines: string[] = []
const say = (line = '') => {
  lines.push(line)
  process.stdout.write(`${line}\n`)
}

function table(title: string, unit: string, command: string, engines: Engine[], results: Map<Engine, Summary>): void {
  const base = engines.find((engine) => engine.name === 'dockerd') ?? engines.find((engine) => engine.name === 'podman') ?? engines[0]!
  const reference = results.get(base)!.median
  say(`### ${title}`)
  say()
  say(`\`${command}\`, n=${[...results.values()][0]!.n}, interleaved; ratio of medians to ${base.name}.`)
  say()
  say(`| engine | median ${unit} | p95 | min | ratio |`)
  say('|---|---|---|---|---|')
  for (const engine of engines) {
    const row = results.get(engine)
    if (!row) continue
    say(`| ${engine.name} | ${row.median.toFixed(1)} | ${row.p95.toFixed(1)} | ${row.min.toFixed(1)} | ${(row.median / reference).toFixed(3)} |`)
  }
  say()
}

/** Loads the small image everywhere. */
async function loadSmallImage(bench: Bench): Promise<void> {
  const root = join(bench.directory, 'small')
  await mkdir(root)
  await busyboxRoot(root)
  const archive = join(bench.directory, 'small.tar')
  await dockerArchive(root, image, archive)
  const done = new Set<string>()
  for (const engine of bench.engines) {
    const key = engine.env['DOCKER_HOST'] ?? engine.name
    if (done.has(key)) continue
    done.add(key)
    await bench.time(engine, ['load', '-q', '-i', archive])
  }
}

/** Leaves out an engine that cannot run anything on this machine, and says why. */
async function dropBroken(bench: Bench): Promise<void> {
  for (const engine of [...bench.engines]) {
    try {
      await bench.time(engine, ['run', '--rm', ...engine.runFlags, image, 'true'])
    } catch (error) {
      say(`- ${engine.name} is left out: ${error instanceof Error ? error.message.trim() : String(error)}`)
      bench.engines.splice(bench.engines.indexOf(engine), 1)
    }
  }
  say()
}

async function benchRun(bench: Bench): Promise<void> {
  const results = await interleave(bench.engines, rounds, (engine) => bench.time(engine, ['run', '--rm', ...engine.runFlags, image, 'true']))
  table('Start, run, remove', 'ms', 'docker run --rm IMAGE true', bench.engines, results)
}

async function benchExec(bench: Bench): Promise<void> {
  const nameOf = (engine: Engine) => `exec-${engine.name.replace(' ', '-')}`
  for (const engine of bench.engines) await bench.time(engine, ['run', '-d', '--name', nameOf(engine), ...engine.runFlags, image, 'sleep', '100000'])
  const results = await interleave(bench.engines, rounds, (engine) => bench.time(engine, ['exec', nameOf(engine), 'true']))
  table('Exec', 'ms', 'docker exec CONTAINER true', bench.engines, results)
  for (const engine of bench.engines) await bench.time(engine, ['rm', '-f', nameOf(engine)])
}

/** An image of four layers, about 100 MB compressed, of the files of this machine; pushed to the loopback registry. */
async function pushBigImage(bench: Bench): Promise<{ reference: string; megabytes: number }> {
  const registry = await bench.registry()
  const scratch = await mkdtemp(join(tmpdir(), 'hull-bench-image-'))
  try {
    const layout = join(scratch, 'big.tar')
    const said = await exec('/usr/bin/python3', [resolve(import.meta.dirname, 'big-image.py'), layout, '100'])
    if (said.code !== 0) throw new Error(said.stderr)
    const copied = await exec('skopeo', ['copy', '--dest-tls-verify=false', `oci-archive:${layout}`, `docker://${registry}/bench/big:1`], { timeoutMs: 300_000 })
    if (copied.code !== 0) throw new Error(copied.stderr)
    return { reference: `${registry}/bench/big:1`, megabytes: Number(said.stdout) }
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

async function benchPull(bench: Bench): Promise<void> {
  const { reference, megabytes } = await pushBigImage(bench)
  const engines = bench.engines.filter((engine) => engine.name !== 'hull vm').map((engine) => (engine.name === 'hull process' ? { ...engine, name: 'hull' } : engine))
  const results = await interleave(engines, Math.max(3, Math.floor(rounds / 3)), async (engine) => {
    const ms = await bench.time(engine, ['pull', '-q', ...engine.pullFlags, reference])
    await bench.time(engine, ['rmi', '-f', reference])
    return ms
  })
  table(`Pull of an image of ${megabytes} MB (compressed, 4 layers) from a registry on loopback`, 'ms', 'docker pull -q 127.0.0.1:PORT/bench/big:1', engines, results)
}

async function benchMemory(bench: Bench): Promise<void> {
  say('### Memory that the engine adds per idle container')
  say()
  say(`\`docker run -d IMAGE sleep 100000\`, ${idle} of them. PSS: the engine's own processes per container (conmon, containerd-shim, QEMU with all of its guest's RAM). MemAvailable: what the whole host lost, workload and kernel included (noisy).`)
  say()
  say('| engine | PSS of supervisors, MB each | MemAvailable, MB each |')
  say('|---|---|---|')
  for (const engine of bench.engines) {
    const names = Array.from({ length: idle }, (_, index) => `idle-${engine.name.replace(' ', '-')}-${index}`)
    const before = await memAvailable()
    const ownBefore = await pssOf(engine.helpers)
    for (const name of names) await bench.time(engine, ['run', '-d', '--name', name, ...engine.runFlags, image, 'sleep', '100000'])
    await sleep(3000)
    const own = await pssOf(engine.helpers)
    const after = await memAvailable()
    say(`| ${engine.name} | ${((own.kib - ownBefore.kib) / 1024 / idle).toFixed(2)} | ${((before - after) / 1024 / idle).toFixed(2)} |`)
    await bench.time(engine, ['rm', '-f', ...names])
    await sleep(1000)
  }
  say()
}

const bench = await Bench.start()
try {
  const model = /^model name\s*:\s*(.+)$/m.exec(await readFile('/proc/cpuinfo', 'utf8'))?.[1] ?? 'unknown'
  say('# Benchmarks')
  say()
  say('Made by `make bench-peers bench`; every figure is from one run, engines interleaved on the same machine. Absolute times are this machine\'s; the ratios are what counts.')
  say()
  say(`- machine: ${cpus().length} CPUs (${model}), ${Math.round(totalmem() / 2 ** 30)} GiB, kernel ${release()}`)
  for (const engine of bench.engines) say(`- ${engine.name}: ${engine.version}, client: ${engine.cli[0]}`)
  const info = await exec('docker', ['info', '--format', '{{json .Warnings}}'], { env: bench.engines[0]!.env })
  say(`- hull says: ${info.stdout.trim()}`)
  say()
  await loadSmallImage(bench)
  await dropBroken(bench)
  await benchRun(bench)
  await benchExec(bench)
  await benchPull(bench)
  await benchMemory(bench)
  const file = process.argv[2]
  if (file) await writeFile(file, `${lines.join('\n').trimEnd()}\n`)
} finally {
  await bench.stop()
}
