import { readFile, readdir, readlink, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { busyboxRoot, dockerArchive } from '../../src/cli/demo/archive.js'
import { median } from '../../src/compare/statistics.js'
import { callsByFilter } from '../../src/compare/surface/outside.js'
import { exec, TestDaemon, until } from '../../test/lib/daemon.js'
import { interleave } from '../interleave.js'

const repository = resolve(import.meta.dirname, '../..')
const IMAGE = 'spec/busybox:1'
const CONTAINERS = 30
const VMS = 3
/** MiB of a VM without --memory (src/sandbox/vm/resources.ts). */
const RAM = 256

export type Values = Partial<Record<string, number>>
/** One machine's state while a group of promises is measured. */
interface Bench { daemon: TestDaemon; rounds: number }

async function timed(run: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await run()
  return performance.now() - start
}

/** Milliseconds that `node -e 0` takes. */
const node = () => timed(async () => {
  const said = await exec(process.execPath, ['-e', '0'])
  if (said.code !== 0) throw new Error(said.stderr)
})
const runOnce = (daemon: TestDaemon, isolation: string) => timed(() => daemon.ok('run', '--rm', `--isolation=${isolation}`, IMAGE, 'true'))

async function load(daemon: TestDaemon): Promise<void> {
  const applets = (await exec('/bin/busybox', ['--list'])).stdout.split('\n').filter(Boolean)
  const archive = join(daemon.directory, 'image.tar')
  await writeFile(archive, dockerArchive(IMAGE, busyboxRoot(await readFile('/bin/busybox'), applets), { Env: ['PATH=/bin'], Cmd: ['sh'] }))
  await daemon.ok('load', '-q', '-i', archive)
}

/** Ratios to Node's start, everything in turn; of the fastest, which what else runs on the machine disturbs least. */
async function starts({ daemon, rounds }: Bench): Promise<Values> {
  // The first VM boots; its template is made meanwhile, and that of the image when it has been started a few times.
  await daemon.ok('run', '--rm', '--isolation=vm', IMAGE, 'true')
  await until('a VM is a template\'s clone', async () => {
    await runOnce(daemon, 'vm')
    return /hull_vm_starts(?:_total)?\{start="image"\} [1-9]/.test((await daemon.api('GET', '/metrics')).body)
  }, 90_000)
  const measured = await interleave(['node', 'process', 'vm'], rounds, (subject) => (subject === 'node' ? node() : runOnce(daemon, subject)))
  const reference = measured.get('node')!.min
  return { 'start-container': measured.get('process')!.min / reference, 'start-vm': measured.get('vm')!.min / reference }
}

/** With a machine made ahead before each start, as it is on a host that has time between two. */
async function readyStarts({ daemon, rounds }: Bench): Promise<Values> {
  const ready = () => until('a machine waits', async () => /^hull_vm_pool_machines [1-9]/m.test((await daemon.api('GET', '/metrics')).body), 90_000)
  // A shape that is started again and again is one that is made ahead.
  for (let i = 0; i < 3; i += 1) await runOnce(daemon, 'vm')
  const measured = await interleave(['node', 'vm'], rounds, async (subject) => {
    if (subject === 'node') return node()
    await ready()
    return runOnce(daemon, 'vm')
  })
  return { 'start-vm-ready': measured.get('vm')!.min / measured.get('node')!.min }
}

/** A field of /proc/PID/status (proc(5)). */
async function status(pid: number, field: string): Promise<string> {
  const match = new RegExp(`^${field}:\\s+(.*)$`, 'm').exec(await readFile(`/proc/${pid}/status`, 'utf8'))
  if (!match) throw new Error(`/proc/${pid}/status has no ${field}`)
  return match[1]!
}
const bits = (hex: string) => [...BigInt(`0x${hex}`).toString(2)].filter((bit) => bit === '1').length

interface Process { pid: number; parent: number; name: string }

async function processes(): Promise<Process[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  const found = await Promise.all(pids.map(async (pid): Promise<Process[]> => {
    try {
      return [{ pid, parent: Number(await status(pid, 'PPid')), name: await status(pid, 'Name') }]
    } catch {
      return [] // it ended meanwhile
    }
  }))
  return found.flat()
}

/** A container's process on the host and all below it. */
async function treeOf(pid: number): Promise<Process[]> {
  const all = await processes()
  const tree = all.filter((one) => one.pid === pid)
  for (let i = 0; i < tree.length; i += 1) tree.push(...all.filter((one) => one.parent === tree[i]!.pid))
  return tree
}

async function pss(pid: number): Promise<number> {
  return Number(/^Pss:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]) * 1024
}
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)

const pidOf = async (daemon: TestDaemon, name: string) => Number(await daemon.ok('inspect', '-f', '{{.State.Pid}}', name))
const named = (prefix: string, count: number) => Array.from({ length: count }, (_, i) => `${prefix}${i}`)

/** Memory and density of what idles. */
async function idle({ daemon }: Bench): Promise<Values> {
  const boxes = named('box', CONTAINERS)
  await Promise.all(boxes.map((name) => daemon.docker(['run', '-d', '--name', name, IMAGE, 'sleep', '100000'])))
  const answers = await Promise.all(boxes.map(async (name) => (await daemon.docker(['exec', name, 'true'])).code === 0))
  const supervisors = await Promise.all(boxes.map(async (name) => pss(Number(await status(await pidOf(daemon, name), 'PPid')))))
  const machines = await Promise.all(named('machine', VMS).map(async (name) => {
    const pid = await pidOf(daemon, name)
    const jail = [Number(await status(pid, 'PPid')), ...(await treeOf(pid)).map((one) => one.pid)]
    return sum(await Promise.all(jail.map(pss)))
  }))
  await daemon.ok('rm', '-f', ...boxes)
  return {
    'density-containers': answers.filter(Boolean).length / CONTAINERS, 'memory-container': median(supervisors) / 1e6,
    'memory-vm': median(machines) / (RAM * 2 ** 20), 'density-vms': 2 ** 30 / median(machines),
  }
}

async function execs({ daemon, rounds }: Bench): Promise<Values> {
  await daemon.ok('run', '-d', '--name', 'box', IMAGE, 'sleep', '100000')
  const measured = await interleave(['box', 'machine0'], rounds * 2, (name) => timed(() => daemon.ok('exec', name, 'true')))
  return { 'exec-vm': measured.get('machine0')!.min / measured.get('box')!.min }
}

/** System calls that all filters of a process let through, under whatever conditions: of those that the kernel holds. */
async function allowedCalls(pid: number): Promise<number> {
  const calls = await callsByFilter(pid)
  if (typeof calls === 'string') throw new Error(`the filters of process ${pid}: ${calls}`)
  return calls
}

/** What the host's kernel says of a container and of a VM's jail. */
async function surface({ daemon }: Bench): Promise<Values> {
  const jail = await treeOf(await pidOf(daemon, 'machine0'))
  const qemu = jail.find((one) => one.name.startsWith('qemu'))
  if (!qemu) throw new Error(`no QEMU among ${jail.map((one) => one.name).join(', ')}`)
  const all = async (field: string) => Promise.all(jail.map(async ({ pid }) => status(pid, field)))
  const kinds = await readdir('/proc/self/ns')
  const shared = await Promise.all(kinds.filter((kind) => !kind.endsWith('_for_children')).map(async (kind) => (await readlink(`/proc/${qemu.pid}/ns/${kind}`)) === (await readlink(`/proc/self/ns/${kind}`))))
  const [container, vm] = [await allowedCalls(await pidOf(daemon, 'box')), await allowedCalls(qemu.pid)]
  return {
    'surface-container-syscalls': container, 'surface-vm-syscalls': vm / container,
    'surface-container-capabilities': bits(await status(await pidOf(daemon, 'box'), 'CapBnd')),
    'surface-vm-capabilities': Math.max(...(await all('CapEff')).map(bits), ...(await all('CapPrm')).map(bits), ...(await all('CapAmb')).map(bits)),
    'surface-vm-namespaces': shared.filter(Boolean).length, 'surface-vm-filters': Number(await status(qemu.pid, 'Seccomp_filters')),
    'surface-vm-root': (await all('Uid')).filter((uids) => uids.split(/\s+/).includes('0')).length,
  }
}

/** Share of the named that run, are the same processes as before, and run a command. */
async function survivors(daemon: TestDaemon, before: ReadonlyMap<string, number>): Promise<number> {
  const alive = await Promise.all([...before].map(async ([name, pid]) => (await pidOf(daemon, name)) === pid && (await daemon.docker(['exec', name, 'true'])).code === 0))
  return alive.filter(Boolean).length / before.size
}

async function survivals({ daemon }: Bench): Promise<Values> {
  const names = ['box', ...named('machine', VMS)]
  const before = new Map(await Promise.all(names.map(async (name) => [name, await pidOf(daemon, name)] as const)))
  const panic = await daemon.docker(['run', '--rm', '--isolation=vm', '--privileged', IMAGE, 'sh', '-c', 'echo c > /proc/sysrq-trigger; sleep 60'])
  if (panic.code === 0) throw new Error('the VM did not panic')
  const afterPanic = await survivors(daemon, before)
  await daemon.down('SIGKILL')
  daemon.flags.push('--vm-pool', '1') // for readyStarts; the last one counts
  await daemon.up()
  return { 'survive-panic': afterPanic, 'survive-daemon': await survivors(daemon, before) }
}

/** Measures everything that SPEC.md promises; for scripts/isolated: processes and namespaces of others would be counted. */
export async function measureSpec(rounds: number): Promise<Values> {
  const scratch = (await exec('mktemp', ['-d'])).stdout.trim()
  const check = (...words: string[]) => exec('node', [join(repository, 'scripts/leak-check.mjs'), ...words])
  await check('snapshot', join(scratch, 'before.json'))
  const values: Values = {}
  try {
    const daemon = await TestDaemon.start()
    try {
      await load(daemon)
      Object.assign(values, await starts({ daemon, rounds }))
      await Promise.all(named('machine', VMS).map((name) => daemon.ok('run', '-d', '--name', name, '--isolation=vm', IMAGE, 'sleep', '100000')))
      for (const part of [idle, execs, surface, survivals, readyStarts]) Object.assign(values, await part({ daemon, rounds }))
    } finally {
      await daemon.destroy()
    }
    const left = await check('compare', join(scratch, 'before.json'), join(scratch, 'left.json'))
    values['leaves-nothing'] = left.code === 0 ? 0 : Math.max(1, left.stdout.trim().split('\n').length)
  } finally {
    await exec('rm', ['-rf', scratch])
  }
  return values
}
