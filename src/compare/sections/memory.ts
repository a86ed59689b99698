import type { CompareContext, Way } from '../context.js'
import { familyOf, memAvailable, meminfo, processes, pssOf } from '../host.js'
import { readFile } from 'node:fs/promises'
import { measured, slope } from '../statistics.js'
import { isMissing, type DensityCurve, type DensitySection, type Figure, type MemoryParts, type MemorySection, type Missing } from '../types.js'
import { freedOf } from './freed.js'
import { bodyOf } from './start.js'

/** Idle instances whose memory is looked at, and how many at least: of fewer the slope is off by a fifth (gVisor's, against ten by hand). */
const INSTANCES = 8
const FEWEST = 6
const NOISE = 'lost in the noise of MemAvailable'
/** Instances of a curve that are started even when the time is over, and those of which memory is looked at after it was freed. */
const LEAST = 3
/** ms that the last one gets to come to rest. */
const REST = 2000
/** Part of the host's memory that stays free whatever is asked for. */
const RESERVE = 0.15

/** An instance that does nothing for as long as it is looked at. */
const idle = (context: CompareContext, way: Way) => bodyOf(context, way, context.workload.behaviour === 'exits' ? { Entrypoint: ['sleep'], Cmd: ['100000'] } : {})

async function startIdle(context: CompareContext, way: Way): Promise<{ id: string; startMs: number }> {
  const begun = performance.now()
  const id = await context.instances.create(idle(context, way))
  await context.client.call('POST', `/containers/${id}/start`)
  return { id, startMs: performance.now() - begun }
}

/** Instances are alike: where one step gives the host memory, or takes many times what another does, it is others that are measured. */
const agree = (rows: readonly number[]): boolean => Math.min(...rows) > Math.max(...rows) / 4

const rest = () => new Promise((resolve) => setTimeout(resolve, REST))

/** performance.now() up to which the way of this index may take: what is left is shared by those that are left. */
const shareOf = ({ deadline, ways }: CompareContext, index: number) => performance.now() + Math.max(0, deadline - performance.now()) / (ways.length - index)

/** Where the memory of these instances is, of one. */
async function partsOf(context: CompareContext, way: Way, ids: readonly string[]): Promise<MemoryParts | Missing> {
  const all = await processes()
  const sum = { workload: 0, guestKernel: 0, vmm: 0, supervisor: 0 }
  for (const id of ids) {
    const family = familyOf(id, all)
    if (family.length === 0) return { missing: 'the processes of an instance cannot be seen from here' }
    for (const { pid, name, commandLine } of family) {
      const pss = await pssOf(pid)
      if (pss === undefined) return { missing: 'its memory may be read by root only' }
      if (name === 'hull-monitor' || name === 'hull-vmm' || commandLine.startsWith('runsc-gofer')) sum.supervisor += pss
      else if (way.name === 'runsc') {
        const workload = await gvisorMemory(pid)
        sum.workload += workload
        sum.vmm += pss - workload
      }
      else if (!name.startsWith('qemu')) sum.workload += pss
      else {
        const stats = await context.client.json<{ memory_stats?: { usage?: number; stats?: Record<string, number> } }>('GET', `/containers/${id}/stats`, { query: { stream: 0, 'one-shot': true }, signal: context.signal })
        const guest = await guestMemory(pid)
        const workload = Math.min(guest, stats.memory_stats?.usage ?? 0)
        sum.workload += workload
        sum.guestKernel += guest - workload
        sum.vmm += pss - guest
      }
    }
  }
  const each = (bytes: number) => Math.round(bytes / ids.length)
  return { workload: each(sum.workload), guestKernel: each(sum.guestKernel), vmm: each(sum.vmm), supervisor: each(sum.supervisor) }
}

/** Mappings of a process (proc_pid_smaps(5)): the line that names one, and its bytes. None where we may not look. */
async function mappingsOf(pid: number): Promise<{ head: string; size: number; pss: number }[]> {
  const text = await readFile(`/proc/${pid}/smaps`, 'utf8').catch(() => '')
  return text.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m).map((part) => {
    const bytes = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(part)?.[1] ?? 0) * 1024
    return { head: part.split('\n', 1)[0] ?? '', size: bytes('Size'), pss: bytes('Pss') }
  })
}

/** PSS of a QEMU's guest RAM: its one mapping of a memory file, or the largest anonymous one; bytes. */
async function guestMemory(pid: number): Promise<number> {
  let file = 0
  let largest = { size: 0, pss: 0 }
  for (const { head, size, pss } of await mappingsOf(pid)) {
    if (/\/memfd:|\/dev\/shm\//.test(head)) file += pss
    else if (/^\S+ rw-p \S+ 00:00 0\s*$/.test(head) && size > largest.size) largest = { size, pss }
  }
  return file > 0 ? file : largest.pss
}

/** PSS of what a process of gVisor's maps for the workload: the sentry's memory file, which is all that the workload has but for its files, and these, below /root in the sentry's own root; bytes. */
async function gvisorMemory(pid: number): Promise<number> {
  return (await mappingsOf(pid)).filter(({ head }) => / \/(memfd:runsc-memory|root\/)/.test(head)).reduce((sum, { pss }) => sum + pss, 0)
}

export async function memorySection(context: CompareContext): Promise<MemorySection> {
  const begun = performance.now()
  const parts: MemorySection['parts'] = {}
  const slopes: Figure['results'] = {}
  const kept: Figure['results'] = {}
  for (const [index, way] of context.ways.entries()) {
    const deadline = shareOf(context, index)
    const ids: string[] = []
    try {
      // The first one brings what all share: it is not counted.
      ids.push((await startIdle(context, way)).id)
      await rest()
      const available = [await memAvailable()]
      for (let n = 1; n <= INSTANCES; n += 1) {
        context.signal.throwIfAborted()
        if (n > FEWEST && performance.now() > deadline) break
        context.progress(`memory: ${way.title}, instance ${n}`)
        ids.push((await startIdle(context, way)).id)
        await new Promise((resolve) => setTimeout(resolve, REST / 4))
        available.push(await memAvailable())
      }
      await rest()
      available[available.length - 1] = await memAvailable() // the others have rested
      const rows = available.slice(1).map((value, index) => available[index]! - value)
      const each = -slope(available)
      slopes[way.name] = each > 0 && agree(rows) ? { ...measured(rows, `${context.commandOf(way, '-d')}; free -b`), median: each } : { missing: NOISE }
      parts[way.name] = await partsOf(context, way, ids.slice(1))
      kept[way.name] = await freedOf(context, way, ids.slice(1, 1 + LEAST))
    } catch (error) {
      context.signal.throwIfAborted()
      const missing = error instanceof Error ? error.message : String(error)
      parts[way.name] = { missing }
      slopes[way.name] ??= { missing }
      kept[way.name] = { missing }
    } finally {
      await Promise.all(ids.map((id) => context.instances.remove(id)))
    }
  }
  return {
    parts, seconds: (performance.now() - begun) / 1000,
    figures: [
      { id: 'memory-slope', title: 'memory of the host that one more idle instance takes', unit: 'bytes', better: 'less', results: slopes },
      { id: 'memory-after-free', title: 'memory that the host does not get back of 48 MiB taken and freed', unit: 'bytes', better: 'less', results: kept },
    ],
    notes: [
      `The slope is that of MemAvailable over up to ${INSTANCES} instances after a first one (least squares); its rows are the single steps, and on a busy machine they scatter. The parts are PSS.`,
    ],
  }
}

async function curve(context: CompareContext, way: Way): Promise<DensityCurve | Missing> {
  const ids: string[] = []
  const steps: DensityCurve['steps'] = []
  let stopped: string | undefined
  try {
    const total = await meminfo('MemTotal')
    const first = await memAvailable()
    for (let index = 1; index <= context.density; index += 1) {
      context.signal.throwIfAborted()
      context.progress(`density: ${way.title}, instance ${index}`)
      if (index > LEAST && performance.now() > context.deadline) {
        stopped = 'the time was over'
        break
      }
      if ((await meminfo('MemAvailable')) < total * RESERVE) {
        stopped = 'the rest of the memory is the host\'s'
        break
      }
      try {
        const { id, startMs } = await startIdle(context, way)
        ids.push(id)
        steps.push({ index, startMs, available: await meminfo('MemAvailable') })
      } catch (error) {
        context.signal.throwIfAborted()
        stopped = error instanceof Error ? error.message : String(error)
        break
      }
    }
    if (steps.length < 2) return { missing: stopped ?? 'two instances are needed' }
    await rest()
    const running = await context.client.json<{ Id: string }[]>('GET', '/containers/json')
    steps.at(-1)!.available = await memAvailable()
    // Less than its own pages one more cannot cost: what little ones take, MemAvailable does not show.
    const parts = await partsOf(context, way, ids)
    const pss = isMissing(parts) ? 0 : parts.workload + parts.guestKernel + parts.vmm + parts.supervisor
    const bytesEach = Math.max(pss, -slope([first, ...steps.map(({ available }) => available)]))
    if (bytesEach <= 0) return { missing: NOISE }
    return {
      steps, bytesEach, predicted: first / bytesEach, started: ids.length, alive: running.filter(({ Id }) => ids.includes(Id)).length, ...(stopped === undefined ? {} : { stopped }),
      command: `for i in $(seq ${context.density}); do ${context.commandOf(way, '-d')}; grep MemAvailable /proc/meminfo; done`,
    }
  } finally {
    for (let n = 0; n < ids.length; n += 8) await Promise.all(ids.slice(n, n + 8).map((id) => context.instances.remove(id)))
  }
}

export async function densitySection(context: CompareContext): Promise<DensitySection> {
  const begun = performance.now()
  const [total, available] = [await meminfo('MemTotal'), await memAvailable()]
  const curves: DensitySection['curves'] = {}
  for (const [index, way] of context.ways.entries()) curves[way.name] = await curve({ ...context, deadline: shareOf(context, index) }, way)
  return { asked: context.density, total, available, curves, notes: ['`predicted` is what was available before the first, by what one more takes: the slope of MemAvailable, or its PSS where that is more. Really started is what `started` says, and no more.'], seconds: (performance.now() - begun) / 1000 }
}
