import { familyOf, processes } from '../../src/compare/host.js'
import { type Said, sleep, TestDaemon, until } from '../lib/daemon.js'
import { buildTestImage, testImage } from '../lib/image.js'
import { remains } from '../lib/traces.js'
import { random } from './random.js'
import type { Isolation } from './steady.js'

/** A process that stands between the daemon and a workload, or is the workload. */
interface Part {
  isolation: Isolation
  /** Its name in /proc/PID/stat. */
  program: RegExp
  /** With a volume: in a VM it has a file server then. */
  volume: boolean
}

const parts: Record<string, Part> = {
  'conmon of a container': { isolation: 'process', program: /^conmon$/, volume: false },
  'a container’s first process': { isolation: 'process', program: /^sh$/, volume: true },
  'conmon of a VM': { isolation: 'vm', program: /^conmon$/, volume: false },
  'hull-vmm': { isolation: 'vm', program: /^hull-vmm$/, volume: false },
  'QEMU': { isolation: 'vm', program: /^qemu-system-x86/, volume: false },
  'QEMU of a VM with a volume': { isolation: 'vm', program: /^qemu-system-x86/, volume: true },
  'the file server': { isolation: 'vm', program: /^virtiofsd$/, volume: true },
}

export interface PartsOptions {
  kills: number
  seed: number
  isolations: readonly Isolation[]
  say: (line: string) => void
}

interface State { Status: string; Running: boolean; ExitCode: number; Error: string; Pid: number }

/** Milliseconds from the moment that the part is there; most of a VM's start, and some of its life. */
const MOMENTS = { process: 150, vm: 3000 } as const
/** How long a container may be said to run when it does not, milliseconds. */
const TRUE_WITHIN = 20_000

/** Processes of a container that are such a part. */
async function find(id: string, { program }: Part): Promise<number[]> {
  return familyOf(id, await processes()).filter(({ name }) => program.test(name)).map(({ pid }) => pid)
}

function kill(pid: number): boolean {
  try {
    return process.kill(pid, 'SIGKILL')
  } catch {
    return false // it had just gone by itself
  }
}

async function state(daemon: TestDaemon, id: string): Promise<State> {
  const answer = await daemon.api('GET', `/containers/${id}/json`)
  if (answer.status !== 200) throw new Error(`inspect: ${answer.status} ${answer.body}`)
  return (JSON.parse(answer.body) as { State: State }).State
}

/** A start that was cut off is an error in words, and a workload that was cut off has ended with 137; nothing in between, and nothing that is said to run. */
async function judge(daemon: TestDaemon, id: string, started: Said): Promise<string> {
  const end = await until('the container is said to have ended', async () => {
    const now = await state(daemon, id)
    return !now.Running && now
  }, TRUE_WITHIN)
  if (end.Pid !== 0) throw new Error(`ended, and has pid ${end.Pid}`)
  if (started.code !== 0) {
    if (!/Error response from daemon: .*\w/.test(started.stderr)) throw new Error(`start failed without a word: ${started.stderr}`)
    if (end.Status !== 'created' && end.Status !== 'exited') throw new Error(`start failed, and the state is ${end.Status}`)
    if (end.ExitCode === 0) throw new Error('start failed, and the exit code is 0')
    return 'start failed'
  }
  if (end.Status !== 'exited' || end.ExitCode !== 137) throw new Error(`state ${end.Status}, exit code ${end.ExitCode}, ${JSON.stringify(end.Error)}`)
  const waited = await daemon.docker(['wait', id], { timeoutMs: 10_000 })
  if (waited.stdout.trim() !== '137') throw new Error(`docker wait: ${waited.stdout}${waited.stderr}`)
  return 'exit 137'
}

/**
 * Kills what stands between the daemon and its workloads with SIGKILL, at random moments of starts and lives, and looks whether the state that is told is true, whether the container can be removed, and whether
 * another one of each isolation noticed. At the end nothing may be left. Throws at the first thing that is wrong, with the seed to repeat it.
 */
export async function chaosOfParts(options: PartsOptions): Promise<Map<string, number>> {
  const next = random(options.seed)
  const daemon = await TestDaemon.start()
  const outcomes = new Map<string, number>()
  const usable = Object.entries(parts).filter(([, { isolation }]) => options.isolations.includes(isolation))
  try {
    await buildTestImage(daemon)
    for (const isolation of options.isolations) await daemon.ok('run', '-d', '--name', `steady-${isolation}`, `--isolation=${isolation}`, testImage, 'sh', '-c', 'while :; do sleep 1; done')
    for (let n = 0; n < options.kills; n++) {
      const [name, part] = usable[n % usable.length]!
      const after = next() * MOMENTS[part.isolation]
      const what = `kill ${n + 1}, of ${name}, ${after.toFixed(1)} ms after it was there, seed ${options.seed}`
      try {
        const id = await daemon.ok('create', `--isolation=${part.isolation}`, ...(part.volume ? ['-v', '/data'] : []), testImage, 'sh', '-c', 'while :; do echo line; sleep 0.05; done')
        const starting = daemon.docker(['start', id])
        const pids = await until(`${name} is there`, async () => {
          const found = await find(id, part)
          return found.length > 0 && found
        }, 30_000)
        await sleep(after)
        for (const pid of new Set([...pids, ...(await find(id, part))])) kill(pid)
        const outcome = `${name}: ${await judge(daemon, id, await starting)}`
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
        await daemon.ok('rm', '-v', '-f', id)
        for (const isolation of options.isolations) await daemon.ok('exec', `steady-${isolation}`, 'true')
        options.say(`${n + 1}/${options.kills} ${outcome}, after ${after.toFixed(1)} ms`)
      } catch (error) {
        throw new Error(`${what}: ${error instanceof Error ? error.message : String(error)}`)
      }
    }
  } finally {
    await daemon.destroy()
  }
  const left = await remains(daemon)
  if (left.length > 0) throw new Error(`left behind at the end:\n  ${left.join('\n  ')}`)
  return outcomes
}
