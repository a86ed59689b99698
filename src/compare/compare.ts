import { release } from 'node:os'
import { shellWord } from '../base/shell.js'
import type { Client } from '../cli/client.js'
import type { CompareContext, Way } from './context.js'
import { hostFacts } from './host.js'
import { Instances } from './instances.js'
import { drillSection } from './sections/drills.js'
import { densitySection, memorySection } from './sections/memory.js'
import { performanceSection } from './sections/performance.js'
import { portabilitySection } from './sections/portability.js'
import { bodyOf, startSection, startsOfVms } from './sections/start.js'
import { surfaceSection } from './sections/surface.js'
import { SCHEMA_VERSION, type Comparison, type IsolationName, type IsolationState, type SectionName, type Sections } from './types.js'

/** In the order in which they are measured. */
export const MEASURED = ['start', 'memory', 'density', 'perf', 'surface', 'drills', 'portability'] as const satisfies readonly SectionName[]
export type MeasuredSection = (typeof MEASURED)[number]
/** Those that are measured only when they are asked for by name. */
export const ON_REQUEST: readonly MeasuredSection[] = ['drills']

/** Parts of the time that a section has; the others have one. */
const SHARES: Partial<Record<MeasuredSection, number>> = { perf: 4, surface: 0.2 }

export interface CompareOptions {
  client: Client
  image: string
  command: string[]
  port: number | null
  isolations: readonly IsolationName[]
  sections: readonly MeasuredSection[]
  density: number
  /** Image of the tools that section `perf` measures with; '': ours, which is made where it is not there. */
  probe: string
  /** For all sections together, s. */
  seconds: number
  /** Aborting ends the comparison; what it started is removed. */
  signal: AbortSignal
  progress: (text: string) => void
  /** The command line that repeats it. */
  commandLine: string
}

interface Info {
  OperatingSystem?: string
  Driver?: string
  CgroupVersion?: string
  ServerVersion?: string
  DriverStatus?: [string, string][] | null
  SecurityOptions?: string[] | null
  Runtimes?: Record<string, { path?: string }> | null
  RuncCommit?: { ID?: string }
  Warnings?: string[] | null
}
interface ImageDetails { Id: string; RepoDigests?: string[] | null; Size: number; Architecture?: string; RootFS?: { Layers?: string[] | null } }

const TITLES: Record<IsolationName, string> = {
  process: 'container', 'process-userns': 'container with a user namespace', runsc: 'container in gVisor', 'vm-cold': 'VM that boots', vm: 'VM from a template',
}
/** How the engine is told how a VM has to come to life: one that was made ahead would be another figure, now and then. */
const START = 'org.hull.vm.start'
/** What is watched to see how a workload behaves, ms. */
const WATCHED = 5000

function waysOf(info: Info, wanted: readonly IsolationName[]): IsolationState[] {
  const detail = (name: string) => info.DriverStatus?.find(([key]) => key === name)?.[1] ?? ''
  const remapped = (info.SecurityOptions ?? []).some((option) => option.includes('userns'))
  const vms = ['kvm', 'tcg'].includes(detail('VM accelerator'))
  const flags: Record<IsolationName, string[]> = {
    process: ['--isolation=process', ...(remapped ? ['--userns=host'] : [])], 'process-userns': ['--isolation=process'], runsc: ['--isolation=process', '--runtime=runsc', ...(remapped ? ['--userns=host'] : [])],
    'vm-cold': ['--isolation=vm', '--annotation', `${START}=boot`], vm: ['--isolation=vm', '--annotation', `${START}=template`],
  }
  const missing: Partial<Record<IsolationName, string>> = {
    ...(remapped ? {} : { 'process-userns': 'the daemon runs without --userns-remap' }), ...(info.Runtimes?.['runsc'] ? {} : { runsc: (info.Warnings ?? []).find((warning) => warning.startsWith('runtime runsc ')) ?? 'the daemon has no runtime runsc' }),
    ...(vms ? {} : { vm: 'this host runs no VMs: see hull doctor', 'vm-cold': 'this host runs no VMs: see hull doctor' }),
  }
  return wanted.map((name) => {
    const reason = missing[name]
    return reason === undefined ? { name, title: TITLES[name], available: true, flags: flags[name] } : { name, title: TITLES[name], available: false, reason }
  })
}

function hostConfigOf(name: IsolationName, flags: readonly string[]): Record<string, unknown> {
  return {
    Isolation: name === 'vm' || name === 'vm-cold' ? 'vm' : 'process', ...(name === 'vm' || name === 'vm-cold' ? { Annotations: { [START]: name === 'vm' ? 'template' : 'boot' } } : {}), ...(name === 'runsc' ? { Runtime: 'runsc' } : {}),
    ...(flags.includes('--userns=host') ? { UsernsMode: 'host' } : {}),
  }
}

/** Runs the workload once, to see whether it exits, and whether it prints. */
async function behaviourOf(context: CompareContext, way: Way): Promise<Pick<Comparison['workload'], 'behaviour' | 'exitCode' | 'prints'>> {
  const { client, instances, workload } = context
  const id = await instances.create(bodyOf(context, way))
  try {
    const { stream } = await client.hijack('POST', `/containers/${id}/attach`, { query: { stream: true, stdout: true, stderr: true } })
    let prints = false
    stream.on('data', () => (prints = true)).on('error', () => {})
    try {
      await client.call('POST', `/containers/${id}/start`)
      const timer = AbortSignal.any([context.signal, AbortSignal.timeout(WATCHED)])
      const exit = await client.json<{ StatusCode: number }>('POST', `/containers/${id}/wait`, { signal: timer }).catch((error: unknown) => {
        context.signal.throwIfAborted()
        if (timer.aborted) return undefined
        throw error
      })
      if (exit) await new Promise((resolve) => setTimeout(resolve, 100)) // its last words
      return { behaviour: exit ? 'exits' : workload.port !== null ? 'serves' : 'stays', exitCode: exit?.StatusCode ?? null, prints }
    } finally {
      stream.destroy()
    }
  } finally {
    await instances.remove(id)
  }
}

/** A machine's first start boots, and has a template made for the next; the third of an image has one made with the image mounted. That is waited for, so that what is measured afterwards is one thing. */
async function untilCloned(context: CompareContext, way: Way): Promise<void> {
  for (let n = 0; n < 8; n += 1) {
    const before = await startsOfVms(context)
    await new Promise((resolve) => setTimeout(resolve, 2500))
    context.signal.throwIfAborted()
    await behaviourOf(context, way)
    const after = await startsOfVms(context)
    if ((after.get('image') ?? 0) > (before.get('image') ?? 0)) return
  }
}

/** Measures. Rejects with the signal's reason when it is aborted; in any case nothing of it is left. */
export async function compare(options: CompareOptions): Promise<Comparison> {
  const { client, image, signal } = options
  const begun = performance.now()
  const startedAt = new Date().toISOString()
  const [info, details] = await Promise.all([
    client.json<Info>('GET', '/info'), client.json<ImageDetails>('GET', `/images/${image}/json`), ...(options.probe === '' ? [] : [client.call('GET', `/images/${options.probe}/json`)]),
  ])
  const isolations = waysOf(info, options.isolations)
  const ways = isolations.flatMap((state): Way[] => (state.available ? [{ name: state.name, title: state.title, flags: state.flags, hostConfig: hostConfigOf(state.name, state.flags) }] : []))
  const [first] = ways
  if (!first) throw new Error(`nothing to compare: ${isolations.map((state) => (state.available ? '' : `${state.name}: ${state.reason}`)).join('; ')}`)
  const instances = await Instances.open(client)
  const detail = (name: string) => info.DriverStatus?.find(([key]) => key === name)?.[1] ?? ''
  const accelerator = detail('VM accelerator')
  const host = await hostFacts(info)
  const workload: Comparison['workload'] = { command: options.command, port: options.port, behaviour: 'exits', exitCode: null, prints: false }
  const words = [image, ...options.command].map(shellWord).join(' ')
  const publish = options.port === null ? [] : ['-p', `127.0.0.1::${options.port}`]
  const context: CompareContext = {
    client, instances, image, workload, ways, signal, density: options.density, probe: options.probe, deadline: Infinity, progress: options.progress,
    commandOf: (way, flag = '--rm') => ['docker run', flag, ...way.flags, ...publish, words].join(' '),
  }
  const sections: Partial<Sections> = {}
  try {
    // Drills, the probes and the surface run nothing of the image's: it may have nothing that runs.
    const looks = options.sections.some((name) => name !== 'drills' && name !== 'perf' && name !== 'surface')
    if (looks) {
      options.progress('looking at the workload')
      Object.assign(workload, await behaviourOf(context, first))
    }
    for (const way of looks ? ways.slice(1) : []) {
      options.progress(`once: ${way.title}`)
      await behaviourOf(context, way)
      if (way.name === 'vm') await untilCloned(context, way)
    }
    const end = begun + options.seconds * 1000
    const shareOf = (name: MeasuredSection) => SHARES[name] ?? 1
    for (const [index, name] of options.sections.entries()) {
      signal.throwIfAborted()
      // What a section leaves of its share goes to those that follow.
      context.deadline = performance.now() + (Math.max(0, end - performance.now()) * shareOf(name)) / options.sections.slice(index).reduce((sum, one) => sum + shareOf(one), 0)
      if (name === 'start') sections.start = await startSection(context)
      else if (name === 'memory') sections.memory = await memorySection(context)
      else if (name === 'density') sections.density = await densitySection(context)
      else if (name === 'perf') sections.perf = await performanceSection(context)
      else if (name === 'surface') sections.surface = await surfaceSection(context)
      else if (name === 'drills') sections.drills = await drillSection(context)
      else sections.portability = await portabilitySection(context, details.Size)
    }
  } finally {
    await instances.removeAll()
  }
  return {
    schemaVersion: SCHEMA_VERSION, kind: 'hull-comparison', startedAt, seconds: (performance.now() - begun) / 1000, command: options.commandLine, host,
    versions: { hull: info.ServerVersion ?? '', crun: info.RuncCommit?.ID ?? '', runsc: detail('runsc version'), qemu: detail('Hypervisor').replace(/^QEMU /, ''), guestKernel: detail('Guest kernel'), kernel: release() },
    accelerator: accelerator === 'kvm' || accelerator === 'tcg' ? accelerator : '',
    image: { reference: image, id: details.Id, digests: details.RepoDigests ?? [], size: details.Size, layers: details.RootFS?.Layers?.length ?? 0, architecture: details.Architecture ?? '' },
    workload, isolations, sections,
    warnings: [
      ...(host.load > host.cpus ? [`the machine was busy when this began: load average ${host.load.toFixed(1)} on ${host.cpus} processors`] : []),
      ...(accelerator === 'tcg' ? ['VMs are emulated here (TCG): their figures say nothing about KVM, and emulation is no security boundary'] : []),
    ],
  }
}

