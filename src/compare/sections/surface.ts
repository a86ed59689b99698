import { readFile } from 'node:fs/promises'
import { messageOf } from '../../base/errors.js'
import { shellWord } from '../../base/shell.js'
import { capabilityNames } from '../../base/capabilities.js'
import { differentWhenRunning, type CompareContext, type Way } from '../context.js'
import { isVm } from '../drills/container.js'
import { lookInside, program } from '../surface/inside.js'
import { functionsCommand, functionsDuring } from '../surface/functions.js'
import { callsByFilter, lookOutside, type SeenOutside } from '../surface/outside.js'
import type { SurfaceFacts, SurfaceSection } from '../types.js'

/** What says the same by hand: in a container what was tried, in a VM that and what the filters of its hypervisor leave. */
function commandOf(context: CompareContext, way: Way): string {
  const container = [...way.flags, '-v', `${program}:/hull-surface:ro`, '--entrypoint', '/hull-surface', context.image].map(shellWord).join(' ')
  if (way.name === 'runsc') return `id=$(docker run -di ${container}); sleep 1; docker logs $id; ${shellWord(program)} filter $(docker inspect -f '{{.State.Pid}}' $id); docker rm -f $id`
  if (!isVm(way)) return `docker run --rm ${container}`
  return `id=$(docker run -di ${container}); sleep 1; docker logs $id; ${shellWord(program)} filter $(pgrep -P $(docker inspect -f '{{.State.Pid}}' $id)); docker rm -f $id`
}

/** The surface of one way. `note` gets what a reader must know. */
export async function surfaceOf(context: CompareContext, way: Way, boot: string, note: (text: string) => void): Promise<SurfaceFacts> {
  const between = isVm(way) ? 'vmm' : way.name === 'runsc' ? 'sentry' : 'nothing'
  const { seen, outside } = await lookInside(context, way, async (id, place, work): Promise<{ host: SeenOutside | undefined; calls: number | string; functions: number | string }> => {
    const host = await lookOutside(id, between, place)
    const calls = between !== 'nothing' && host ? await callsByFilter(host.pid) : 'the processes of containers cannot be seen from here'
    return { host, calls, functions: await functionsDuring(id, work, context.signal) }
  })
  const { host, calls, functions } = outside
  const within = seen.calls < 0 ? null : seen.calls
  if (within === null) note(`${way.title}: system calls cannot be tried: ${seen.why}`)
  // gVisor has no boot id to show.
  const sharedKernel = between === 'sentry' ? false : boot === '' || seen.boot === '' ? null : boot === seen.boot
  if (between !== 'nothing' && typeof calls === 'string') note(`${way.title}: the system calls of the ${between === 'vmm' ? 'hypervisor' : 'sentry'} are not known: ${calls}`)
  if (!host) note(`${way.title}: its processes cannot be seen from here, so what the host sees is not known`)
  // What is tried in gVisor is answered by gVisor.
  const hostSyscalls = between !== 'nothing' ? (typeof calls === 'number' ? calls : null) : sharedKernel ? within : null
  return {
    sharedKernel, kernel: seen.kernel, hostSyscalls, hostSyscallsBy: hostSyscalls === null ? null : between === 'nothing' ? 'prober' : 'filter', workloadSyscalls: within,
    ...(typeof functions === 'number' ? { kernelFunctions: functions, kernelFunctionsCommand: functionsCommand(context, way) } : { kernelFunctions: null, kernelFunctionsMissing: functions }),
    capabilities: capabilityNames(BigInt(`0x${seen.capabilities}`)), devices: seen.devices, sharedNamespaces: host?.sharedNamespaces ?? [], hostUid: host?.uid ?? null, seccomp: host?.seccomp ?? null,
    command: commandOf(context, way),
  }
}

/** What stands between the workload and the host: looked at from within and from without, in an instance of each isolation. docs/decisions/0022-surface.md. */
export async function surfaceSection(context: CompareContext): Promise<SurfaceSection> {
  const begun = performance.now()
  const facts: SurfaceSection['facts'] = {}
  const notes = [
    'System calls of a container are tried from within, one by one, and none is made; those of a VM are what its hypervisor may make, those of gVisor what its sentry may, by the filters that they have in the kernel. A call counts when it passes with some arguments.',
    'Capabilities and devices are those inside: a VM\'s and gVisor\'s are their own kernel\'s. User, namespaces and seccomp are those of the process on the host: the workload, its hypervisor, or its sentry.',
    'Functions of the host\'s kernel: those that run for the instance while it does the same ordinary workload (files, memory, processes, sockets, a packet to its gateway) in each isolation; interrupts, and what the kernel\'s own threads do later, are left out.',
  ]
  const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '')).trim()
  for (const way of differentWhenRunning(context.ways)) {
    context.signal.throwIfAborted()
    context.progress(`surface: ${way.title}`)
    try {
      facts[way.name] = await surfaceOf(context, way, boot, (text) => notes.push(text))
    } catch (error) {
      context.signal.throwIfAborted()
      facts[way.name] = { missing: messageOf(error) }
    }
  }
  return { facts, notes, seconds: (performance.now() - begun) / 1000 }
}
