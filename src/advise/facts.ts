import { isMissing, type Comparison, type Figure, type Subject } from '../compare/types.js'
import type { Facts, Measured, Wall } from './types.js'

/** What the daemon's GET /info says that the rules want. */
export interface InfoLike { KernelVersion?: string; MemTotal?: number; DriverStatus?: [string, string][] | null }

/** Facts of a host on which nothing was measured. */
export function factsOfInfo(info: InfoLike): Facts {
  const detail = (wanted: string) => (info.DriverStatus ?? []).find(([name]) => name === wanted)?.[1] ?? ''
  const accelerator = detail('VM accelerator')
  return {
    accelerator: accelerator === 'kvm' || accelerator === 'tcg' ? accelerator : '', kernel: info.KernelVersion ?? '', guestKernel: detail('Guest kernel'), memory: info.MemTotal ?? 0,
    start: { process: null, vm: null }, slope: { process: null, vm: null }, slower: {}, hostSyscalls: { process: null, vm: null }, escapes: { process: null, vm: null }, notes: [],
  }
}

function valueOf(figure: Figure | undefined, subject: Subject, source: string): Measured | null {
  const result = figure?.results[subject]
  return result && !isMissing(result) ? { value: result.median, source: `${source}, median of ${result.n}` } : null
}

/** Why a comparison's figures may not hold here: sentences. */
function differences(facts: Facts, comparison: Comparison): string[] {
  const { accelerator, host } = comparison
  return [
    ...(host.kernel !== facts.kernel ? [`measured under kernel ${host.kernel}, this host runs ${facts.kernel}`] : []),
    ...(Math.abs(host.memory - facts.memory) > 0.05 * facts.memory ? [`measured on a host with ${(host.memory / 1e9).toFixed(1)} GB of RAM, this one has ${(facts.memory / 1e9).toFixed(1)}`] : []),
    ...(accelerator !== facts.accelerator ? [`measured with ${accelerator || 'no VMs'}, this daemon has ${facts.accelerator || 'none'}`] : []),
  ]
}

/** Facts with the figures of a comparison. Kernel, memory and accelerator stay the daemon's: they are true now. */
export function withComparison(facts: Facts, comparison: Comparison): Facts {
  const { sections } = comparison
  const source = `hull compare ${comparison.image.reference}, ${comparison.startedAt.slice(0, 10)}`
  const figure = (list: Figure[] | undefined, id: string) => list?.find((candidate) => candidate.id === id)
  const both = (read: (wall: Wall) => Measured | null): Record<Wall, Measured | null> => ({ process: read('process'), vm: read('vm') })
  const slower: Record<string, Measured> = {}
  for (const one of sections.perf?.figures ?? []) {
    const process = valueOf(one, 'process', source)
    const vm = valueOf(one, 'vm', source)
    if (!process || !vm || process.value <= 0 || vm.value <= 0 || one.better === 'neither') continue
    slower[one.id] = { value: one.better === 'less' ? vm.value / process.value : process.value / vm.value, source }
  }
  return {
    ...facts, slower,
    start: both((wall) => valueOf(figure(sections.start?.figures, 'start-total'), wall, source)),
    // Really started at once says more than a few that idle.
    slope: both((wall) => {
      const curve = sections.density?.curves?.[wall]
      if (curve && !isMissing(curve) && curve.bytesEach > 0) return { value: curve.bytesEach, source: `${source}, ${curve.started} at once` }
      const slope = valueOf(figure(sections.memory?.figures, 'memory-slope'), wall, source)
      return slope && slope.value > 0 ? slope : null
    }),
    hostSyscalls: both((wall) => {
      const surface = sections.surface?.facts?.[wall]
      return surface && !isMissing(surface) && surface.hostSyscalls !== null ? { value: surface.hostSyscalls, source } : null
    }),
    escapes: both((wall) => {
      const tried = (sections.drills?.drills ?? []).filter((drill) => drill.privileged && drill.results[wall] && drill.results[wall].outcome !== 'missing')
      return tried.length > 0 ? { value: tried.filter((drill) => drill.results[wall]?.outcome === 'host').length, source } : null
    }),
    notes: differences(facts, comparison).map((text) => `the figures of ${source} may not be this host's: ${text}`),
  }
}
