import { mkdir, rm, writeFile } from 'node:fs/promises'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { memAvailable, processes } from '../../src/compare/host.js'
import { exec, sleep } from '../../test/lib/daemon.js'
import { busyboxRoot, dockerArchive } from '../../test/lib/image.js'
import { Bench, type Engine } from '../engines.js'
import { writeReport, type Section } from '../report.js'
import { BareMachines } from './bare.js'
import { drawCurves, type Curve } from './curves.js'
import { costOf, type Cost } from './family.js'

// DENSITY_VMS, DENSITY_CONTAINERS: how many of each. DENSITY_PEER: of dockerd's containers, whose starts take most of the time. DENSITY_IDLE: seconds for which they are watched. DENSITY_TOUCH: MiB of memory that are touched before each start. DENSITY_OUT: the directory of the report.
const count = (name: string, otherwise: number) => Number(process.env[name] ?? otherwise)
const vms = count('DENSITY_VMS', 200)
const containers = count('DENSITY_CONTAINERS', 1000)
const peers = count('DENSITY_PEER', containers)
const idleSeconds = count('DENSITY_IDLE', 30)
const touch = count('DENSITY_TOUCH', 0)
const out = resolve(process.env['DENSITY_OUT'] ?? join(import.meta.dirname, '../../docs'))
const image = 'bench/busybox:1'
const repository = resolve(import.meta.dirname, '../..')

if ([vms, containers, peers, idleSeconds, touch].some((value) => !Number.isInteger(value) || value < 0)) {
  console.error('bench-density: DENSITY_VMS, DENSITY_CONTAINERS, DENSITY_PEER, DENSITY_IDLE, DENSITY_TOUCH: whole numbers')
  process.exit(2)
}

const MB = 1e6
/** Samples of MemAvailable, so many ms apart, that may differ by no more than so many bytes; where there are so many instances that their figures mean something. */
const STILL = { samples: 5, pause: 3000, bytes: 2e6, most: 40, worth: 50 }
const steps = (most: number) => [1, 10, 20, 50, 100, 150, 200, 300, 500, 750, 1000].filter((step) => step < most).concat(most)
const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN
const mb = (bytes: number) => (bytes / MB).toFixed(2)

/** Instances that are there, what the host has lost since there were none, and what their processes are. */
interface Point { n: number; lost: number; cost: Cost }

/**
 * Microseconds that a page of the host's free memory takes at its first touch, and when it was touched a moment ago. Where the host is itself a virtual machine, its own host gives it memory at the first touch and takes
 * back what is free for some seconds: then whoever starts last, on pages that nobody has had, pays that.
 */
async function pageCost(): Promise<[first: number, again: number]> {
  const one = async () => ((await touchMemory(1024)) * 1000) / 2 ** 18
  return [await one(), await one()]
}

/** Touches so many MiB of memory in a process that ends then: what is started next gets it. Milliseconds that it took. */
async function touchMemory(mib: number): Promise<number> {
  const said = await exec(process.execPath, ['-e', `const at = performance.now(); Buffer.alloc(${mib * 2 ** 20}, 1); console.log(performance.now() - at)`])
  if (said.code !== 0) throw new Error(said.stderr)
  return Number(said.stdout)
}

/**
 * MemAvailable when it has come to rest: an engine that has just started collects its garbage, and of a thousand containers that are gone the kernel takes the network namespaces down for a minute. Measured without that, what comes
 * back counts for those who start next.
 */
async function settled(instances: number): Promise<number> {
  const seen: number[] = []
  for (let at = 0; at < (instances < STILL.worth ? 1 : STILL.most); at++) {
    seen.push(await memAvailable())
    const last = seen.slice(-STILL.samples)
    if (last.length === STILL.samples && Math.max(...last) - Math.min(...last) <= STILL.bytes) break
    await sleep(STILL.pause)
  }
  return seen.at(-1)!
}

/** Starts `most` of something one after the other. `pids`: all of its processes. */
async function fill(most: number, start: (index: number) => Promise<number>, pids: () => Promise<number[]>): Promise<{ times: number[]; points: Point[]; cpu: number; pages: [first: number, again: number] }> {
  const before = await settled(most)
  const times: number[] = []
  const points: Point[] = []
  for (let n = 1; n <= most; n++) {
    if (touch > 0) await touchMemory(touch)
    times.push(await start(n))
    if (!steps(most).includes(n)) continue
    await sleep(1500)
    points.push({ n, lost: before - (await memAvailable()), cost: await costOf(await pids()) })
    console.log(`  ${n}: ${mb(points.at(-1)!.lost / n)} MB each of MemAvailable, ${mb(points.at(-1)!.cost.pss / n)} PSS, ${mb(points.at(-1)!.cost.anonymous / n)} anonymous, start ${times.at(-1)!.toFixed(0)} ms`)
  }
  await sleep(3000)
  const all = await pids()
  const [first, at] = [await costOf(all), performance.now()]
  await sleep(idleSeconds * 1000)
  const last = await costOf(all)
  const cpu = (last.cpuSeconds - first.cpuSeconds) / ((performance.now() - at) / 1000) / Math.max(1, most)
  // All of them idle: what the last point says. Those before it are of a moment between two starts.
  points[points.length - 1] = { n: most, lost: before - (await memAvailable()), cost: last }
  return { times, points, cpu, pages: await pageCost() }
}

/** Processes of the containers of an engine, by the ids on their supervisors' command lines, and what is below. */
async function familyOfAll(ids: ReadonlySet<string>): Promise<number[]> {
  const all = await processes()
  const family = new Set(all.filter(({ commandLine, name }) => /hull-monitor|conmon|containerd-shim/.test(name) && (commandLine.match(/[0-9a-f]{64}/g) ?? []).some((id) => ids.has(id))).map(({ pid }) => pid))
  for (let grown = true; grown;) {
    grown = false
    for (const { pid, parent } of all) {
      if (!family.has(parent) || family.has(pid)) continue
      family.add(pid)
      grown = true
    }
  }
  return [...family]
}

async function idOf(engine: Engine, name: string): Promise<string> {
  return (await exec(engine.cli[0]!, [...engine.cli.slice(1), 'inspect', '-f', '{{.Id}}', name], { env: engine.env })).stdout.trim()
}

const rows: string[] = []
const curves: Curve[] = []
function report(title: string, what: string, { times, points, cpu, pages }: Awaited<ReturnType<typeof fill>>): Point {
  const last = points.at(-1)!
  const around = (n: number) => median(times.slice(Math.max(0, n - 5), n + 5))
  rows.push(`| ${title} | ${last.n} | ${mb(last.lost / last.n)} | ${mb(last.cost.pss / last.n)} | ${mb(last.cost.anonymous / last.n)} | ${(cpu * 100).toFixed(2)} | ${around(Math.min(20, last.n)).toFixed(0)} | ${around(last.n).toFixed(0)} | ${pages.map((cost) => cost.toFixed(1)).join(' / ')} | ${what} |`)
  console.log(rows.at(-1))
  curves.push({ title, points: points.map(({ n, lost }) => ({ n, bytes: lost })), times })
  return last
}

const bench = await Bench.start(['hull', ...(peers > 0 ? ['dockerd'] : [])])
let bare: BareMachines | undefined
try {
  const root = join(bench.directory, 'small')
  await mkdir(root)
  await busyboxRoot(root)
  const archive = join(bench.directory, 'small.tar')
  await dockerArchive(root, image, archive)
  for (const engine of bench.daemons) await bench.time(engine, ['load', '-q', '-i', archive])
  const engine = (name: string) => bench.engines.find((one) => one.name === name)

  if (vms > 0) {
    console.log(`${vms} machines restored from a template, seeded, without a workload`)
    bare = await BareMachines.make(join(bench.directory, 'bare'), join(repository, 'build/guest'))
    report('VM before a workload', 'QEMU alone: restored and seeded; no jail, no network card', await fill(vms, () => bare!.add(), async () => bare!.children.map(({ pid }) => pid!)))
    await bare.end()
    bare = undefined
    await sleep(2000)
  }

  const measure = async (name: string, title: string, most: number, flags: string[]): Promise<Point | undefined> => {
    const of = engine(name)
    if (!of || most === 0) return undefined
    console.log(`${most} of ${title}`)
    const ids = new Set<string>()
    const names = Array.from({ length: most }, (_, index) => `density-${index + 1}`)
    if (name === 'hull vm') await bench.templateMade(of, image)
    // The first is not counted: what it loads, all have.
    await bench.time(of, ['run', '-d', '--name', 'density-0', ...of.runFlags, ...flags, image, 'sh', '-c', 'sleep 1000000; :'])
    const result = await fill(most, async (n) => {
      const ms = await bench.time(of, ['run', '-d', '--name', names[n - 1]!, ...of.runFlags, ...flags, image, 'sh', '-c', 'sleep 1000000; :'])
      ids.add(await idOf(of, names[n - 1]!))
      return ms
    }, () => familyOfAll(ids))
    const last = report(title, 'docker run -d … sh -c "sleep 1000000; :"', result)
    // Measured is measured: dockerd 20.10 now and then gives up on one of a thousand.
    for (let at = 0; at <= names.length; at += 50) await bench.time(of, ['rm', '-f', ...[...names, 'density-0'].slice(at, at + 50)]).catch((error: unknown) => console.error(`bench-density: ${String(error).slice(-300)}`))
    await sleep(2000)
    return last
  }
  await measure('hull vm', 'VM with a sleeping shell', vms, ['--annotation', 'org.hull.vm.start=template'])
  const ours = await measure('hull process', 'hull, container', containers, [])
  const theirs = await measure('dockerd', 'dockerd, container', peers, [])
  const each = (point: Point) => point.lost / point.n
  if (ours && theirs) {
    const available = each(ours) > 0 && each(theirs) > 0 ? `${(each(ours) / each(theirs)).toFixed(3)} of MemAvailable` : 'what is lost in the noise of MemAvailable'
    rows.push('', `A container of Hull's takes ${(ours.cost.pss / ours.n / (theirs.cost.pss / theirs.n)).toFixed(3)} of the PSS of one of dockerd's (without either daemon), and ${available}.`)
  }

  const section: Section = {
    title: 'Density',
    text: [
      `\`DENSITY_VMS=${vms} DENSITY_CONTAINERS=${containers} DENSITY_PEER=${peers}${touch > 0 ? ` DENSITY_TOUCH=${touch}` : ''} make bench-density\`, one after the other, each with the default network; ${cpus().length} CPUs, ${Math.round(totalmem() / 2 ** 30)} GiB, kernel ${release()}, load average ${loadavg().map((load) => load.toFixed(1)).join(' ')} at the end.`,
      `MemAvailable: what the host has lost when all of them had been idle for ${idleSeconds} s, kernel included. PSS and anonymous memory: of all of an instance's processes, workload and guest included. CPU: of one core, while nothing happens. Starts: median of ten around the 20th and of the last five${touch > 0 ? `, each after ${touch} MiB of memory had been touched and given back` : ''}. A page: what one of the host's free memory takes at its first touch when all of them run, and when it was touched a moment ago; where the host is itself a virtual machine these differ, and the last that start pay the difference.`, '',
      '| instances | n | MB each, MemAvailable | MB each, PSS | MB each, anonymous | CPU % each | start at 20, ms | start at the end, ms | a page, µs | |', '|---|---|---|---|---|---|---|---|---|---|', ...rows, '', '![curves](benchmarks-density.svg)', '',
    ].join('\n'),
  }
  await writeFile(join(out, 'benchmarks-density.svg'), drawCurves(curves))
  await writeReport(join(out, 'benchmarks.md'), undefined, [section])
  console.log(section.text)
} finally {
  await bare?.end()
  await bench.stop()
  await rm(bench.directory, { recursive: true, force: true })
}
