import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { access, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { cpus, release, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { messageOf } from '../../base/errors.js'
import { run, type RunResult } from '../../base/run.js'
import { familyOf, memAvailable, processes, pssOf } from '../../compare/host.js'
import { median } from '../../compare/statistics.js'
import { Client } from '../client.js'
import { formatTable } from '../format/table.js'
import { busyboxRoot, dockerArchive } from './archive.js'

const IMAGE = 'hull-demo/busybox:1'
const RUNS = 5
const IDLE = 3
const isolations = ['process', 'vm'] as const
type Isolation = (typeof isolations)[number]

const hull = fileURLToPath(new URL('../../../bin/hull', import.meta.url))
const say = (text: string) => { process.stdout.write(`${text}\n`) }
const sleep = (ms: number) => new Promise((resolve) => { setTimeout(resolve, ms) })

/** A daemon of its own, so that the demo needs nothing and disturbs nobody; the CLI in front of it. */
class Stage {
  private constructor(
    readonly directory: string,
    private readonly daemon: ChildProcess,
    private readonly flags: string[],
    private readonly cli: { file: string; before: string[]; name: string },
  ) {}

  static async open(): Promise<Stage> {
    const directory = await mkdtemp(join(tmpdir(), 'hull-demo-'))
    const host = `unix://${directory}/s`
    const flags = ['--data-root', `${directory}/data`, '--exec-root', `${directory}/run`, '--pidfile', `${directory}/pid`]
    const log = openSync(join(directory, 'log'), 'a')
    const daemon = spawn(process.execPath, [hull, 'daemon', '-H', host, ...flags], { stdio: ['ignore', log, log] })
    closeSync(log)
    const docker = await run('docker', ['--version']).catch(() => undefined)
    const cli = docker?.code === 0
      ? { file: 'docker', before: ['-H', host], name: `the docker CLI (${docker.stdout.trim()})` }
      : { file: process.execPath, before: [hull, '-H', host], name: 'the hull CLI (there is no docker CLI here)' }
    const stage = new Stage(directory, daemon, flags, cli)
    const client = new Client(host)
    const deadline = Date.now() + 60_000
    while (!(await client.ping().catch(() => false))) {
      if (daemon.exitCode !== null || Date.now() > deadline) {
        const words = (await readFile(join(directory, 'log'), 'utf8')).slice(-3000)
        await stage.close()
        throw new Error(`the daemon did not start:\n${words}`)
      }
      await sleep(20)
    }
    return stage
  }

  get cliName(): string { return this.cli.name }

  run(...args: string[]): Promise<RunResult> {
    return run(this.cli.file, [...this.cli.before, ...args], { timeoutMs: 120_000 })
  }

  async ok(...args: string[]): Promise<string> {
    const result = await this.run(...args)
    if (result.code !== 0) throw new Error(`${args.join(' ')}: exit code ${result.code}\n${result.stderr}`)
    return result.stdout.trim()
  }

  /** Stops what the demo started and deletes what it made, also what a daemon keeps when it ends: bridge, rules, directories. */
  async close(): Promise<void> {
    const left = (await this.run('ps', '-aq').catch(() => undefined))?.stdout.split('\n').filter(Boolean) ?? []
    if (left.length > 0) await this.run('rm', '-f', ...left)
    if (this.daemon.exitCode === null && this.daemon.signalCode === null) {
      const ended = new Promise((resolve) => this.daemon.once('exit', resolve))
      this.daemon.kill('SIGTERM')
      const killer = setTimeout(() => this.daemon.kill('SIGKILL'), 20_000)
      await ended
      clearTimeout(killer)
    }
    await run(process.execPath, [hull, 'daemon', ...this.flags, '--cleanup'], { timeoutMs: 60_000 })
    await rm(this.directory, { recursive: true, force: true })
  }
}

/** What one isolation looks like from inside and costs outside. */
interface Column {
  kernel: string
  bootId: string
  init: string
  cpus: string
  memory: string
  onHost: string
  times: number[]
  /** bytes, one idle instance */
  pss: number
  available: number
  warning: string
}

const probe = "uname -r; cat /proc/sys/kernel/random/boot_id; cat /proc/1/comm; nproc; free -m | awk 'NR==2{print $2}'"

async function look(stage: Stage, isolation: Isolation): Promise<Column> {
  const option = `--isolation=${isolation}`
  // The first run of a kind prepares what later ones share (the image's root for VMs): it is not what is measured.
  const first = await stage.run('run', '--rm', option, IMAGE, 'sh', '-c', probe)
  if (first.code !== 0) throw new Error(`run ${option}: exit code ${first.code}\n${first.stderr}`)
  const [kernel = '', bootId = '', init = '', cpuCount = '', memory = ''] = first.stdout.split('\n').map((line) => line.trim()).filter(Boolean)
  const warning = first.stderr.split('\n').find((line) => /warning/i.test(line)) ?? ''

  const times: number[] = []
  for (let i = 0; i < RUNS; i += 1) {
    const started = process.hrtime.bigint()
    await stage.ok('run', '--rm', option, IMAGE, 'true')
    times.push(Number(process.hrtime.bigint() - started) / 1e6)
  }

  // One delta for each instance, and the median of them: another program's moment spoils one, not all.
  const ids: string[] = []
  const deltas: number[] = []
  let before = await memAvailable()
  for (let i = 0; i < IDLE; i += 1) {
    ids.push((await stage.ok('run', '-d', option, IMAGE, 'sleep', '3600')).split('\n').at(-1)!)
    await sleep(1000)
    const after = await memAvailable()
    deltas.push(before - after)
    before = after
  }
  const all = await processes()
  const sizes = await Promise.all(ids.flatMap((one) => familyOf(one, all)).map(({ pid }) => pssOf(pid)))
  const total = sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0)
  const pid = Number(await stage.ok('inspect', '--format', '{{.State.Pid}}', ids[0]!))
  const command = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => 'gone')).trim()
  const below = familyOf(ids[0]!, all).map(({ name }) => name)
  await stage.ok('rm', '-f', ...ids)
  return {
    kernel, bootId, init, cpus: cpuCount, memory: `${memory} MiB`, times, pss: total / IDLE, available: median(deltas), warning,
    onHost: `pid ${pid} (${[command, ...below.filter((name) => name !== command && name !== 'hull-monitor')].join(', ')})`,
  }
}

const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`

function table(columns: Record<Isolation, Column>, hostBootId: string): string {
  const whose = (value: string, host: string) => (value === host ? `${value} (the host's)` : value)
  const row = (name: string, value: (column: Column) => string) => [name, value(columns.process), value(columns.vm)]
  return formatTable([
    ['', '--isolation=process', '--isolation=vm'],
    row('kernel', (c) => whose(c.kernel, release())),
    row('boot id', (c) => `${c.bootId.slice(0, 13)}…${c.bootId === hostBootId ? ' (the host\'s)' : ''}`),
    row('pid 1 inside', (c) => c.init),
    row('what it is on the host', (c) => c.onHost),
    row('nproc says', (c) => `${c.cpus}${Number(c.cpus) === cpus().length ? ' (the host\'s)' : ''}`),
    row('free says', (c) => `${c.memory}${Math.abs(parseInt(c.memory) - totalmem() / 2 ** 20) < 2 ? ' (the host\'s)' : ''}`),
    row(`run to exit, median of ${RUNS}`, (c) => `${median(c.times).toFixed(0)} ms (${Math.min(...c.times).toFixed(0)}-${Math.max(...c.times).toFixed(0)})`),
    row('memory, one idle: PSS', (c) => mebibytes(c.pss)),
    row('memory, one idle: host', (c) => (c.available > 0 ? mebibytes(c.available) : 'lost in the noise')),
  ])
}

async function main(): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('the demo needs root: sudo make demo')
  const busybox = await readFile('/bin/busybox').catch(() => { throw new Error('/bin/busybox is missing: apt-get install busybox-static') })
  await access(hull)
  const hostBootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
  say('Starting a daemon of its own for the demo…')
  const stage = await Stage.open()
  const interrupted = () => { void stage.close().finally(() => process.exit(130)) }
  process.once('SIGINT', interrupted)
  process.once('SIGTERM', interrupted)
  try {
    say(`Commands go through ${stage.cliName}.`)
    const applets = (await run('/bin/busybox', ['--list'])).stdout.split('\n').filter(Boolean)
    const archive = join(stage.directory, 'image.tar')
    await writeFile(archive, dockerArchive(IMAGE, busyboxRoot(busybox, applets), { Env: ['PATH=/bin'], Cmd: ['sh'] }))
    say(await stage.ok('load', '-i', archive))
    const columns = {} as Record<Isolation, Column>
    for (const isolation of isolations) {
      say(`$ run --rm --isolation=${isolation} ${IMAGE} …   (1 look inside, ${RUNS} timed runs, ${IDLE} idle instances)`)
      columns[isolation] = await look(stage, isolation)
      if (columns[isolation].warning) say(`  ${columns[isolation].warning}`)
    }
    say(`\nOne image, two walls: ${IMAGE}\n`)
    say(table(columns, hostBootId))
    say(`"PSS" sums the proportional set size of everything the engine runs for an instance (hull-monitor, the workload; for a VM its supervisor and QEMU);`)
    say(`"host" is what MemAvailable of the whole machine lost, which other programs disturb (median of ${IDLE}). Instances run \`sleep\`.`)
  } finally {
    process.off('SIGINT', interrupted)
    process.off('SIGTERM', interrupted)
    await stage.close()
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`demo: ${messageOf(error)}\n`)
  process.exitCode = 1
})
