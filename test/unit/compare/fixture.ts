import { measured } from '../../../src/compare/statistics.js'
import type { Comparison, Figure, IsolationName, MemoryParts, Result, Unit } from '../../../src/compare/types.js'

const command = 'docker run --rm debian true'
const spread = (middle: number, n = 7) => Array.from({ length: n }, (_, i) => middle * (1 + (i - (n >> 1)) * 0.02))
const result = (middle: number): Result => measured(spread(middle), command)
const figure = (id: string, title: string, unit: Unit, better: Figure['better'], values: Partial<Record<IsolationName | 'host', number | string>>): Figure => ({
  id, title, unit, better,
  results: Object.fromEntries(Object.entries(values).map(([subject, value]) => [subject, typeof value === 'number' ? result(value) : { missing: value }])),
})
const parts = (workload: number, guestKernel: number, vmm: number, supervisor: number): MemoryParts => ({ workload, guestKernel, vmm, supervisor })
const curve = (each: number, startMs: number, started = 20) => ({
  steps: Array.from({ length: started }, (_, i) => ({ index: i + 1, startMs: startMs * (1 + i / 40), available: 20e9 - each * (i + 1) })),
  bytesEach: each, predicted: Math.floor(20e9 / each), started, alive: started, command,
})
const requirements = { process: ['Linux 5.10 or newer', 'crun'], vm: ['QEMU', '/dev/kvm for more than emulation'] }

/** A comparison by hand, for tests of its readers: every section, a missing isolation, a missing figure. Not a measurement. */
export function comparison(): Comparison {
  return {
    schemaVersion: 1, kind: 'hull-comparison', startedAt: '2026-11-27T01:02:03Z', seconds: 321, command: 'hull compare debian',
    host: { kernel: '6.18.44', os: 'Debian GNU/Linux 12', cpu: 'AMD EPYC', cpus: 2, memory: 24e9, available: 20e9, load: 0.4, dataRootFs: 'ext4', cgroup: 'hybrid', kvmDevice: true },
    versions: { hull: '0.1.0', crun: '1.8.1', runsc: '', qemu: '7.2.22', guestKernel: '6.1.0-56', kernel: '6.18.44' },
    accelerator: 'tcg', image: { reference: 'debian', id: 'sha256:ab', digests: [], size: 120e6, layers: 1, architecture: 'amd64' },
    workload: { command: ['true'], port: null, behaviour: 'exits', exitCode: 0, prints: false },
    isolations: [
      { name: 'process', title: 'container', available: true, flags: ['--isolation=process'] },
      { name: 'runsc', title: 'gVisor', available: false, reason: 'runsc is not installed' },
      { name: 'vm-cold', title: 'VM that boots', available: true, flags: ['--isolation=vm'] },
      { name: 'vm', title: 'VM from a template', available: true, flags: ['--isolation=vm'] },
    ],
    warnings: ['VMs run under TCG'],
    sections: {
      start: { notes: [], seconds: 40, figures: [
        figure('start-total', 'create, start, first output, exit', 'ms', 'less', { process: 70, 'vm-cold': 1500, vm: 410 }),
        figure('start-http', 'first HTTP 200', 'ms', 'less', { process: 'no port was given', vm: 'no port was given' }),
        figure('stop', 'stop', 'ms', 'less', { process: 30, 'vm-cold': 90, vm: 80 }),
      ] },
      memory: { notes: ['MemAvailable is noisy'], seconds: 30, figures: [
        figure('memory-slope', 'one more idle instance', 'bytes', 'less', { process: 1.2e6, 'vm-cold': 181e6, vm: 60e6 }),
      ], parts: { process: parts(8e5, 0, 0, 6e5), 'vm-cold': parts(1e6, 56e6, 40e6, 9e5), vm: parts(1e6, 20e6, 37e6, 9e5) } },
      density: { notes: [], seconds: 60, asked: 20, total: 24e9, available: 20e9, curves: { process: curve(1.3e6, 60), 'vm-cold': { missing: 'not asked for' }, vm: curve(61e6, 400) } },
      perf: { notes: [], seconds: 90, figures: [
        figure('cpu', 'sysbench cpu', 'events/s', 'more', { host: 1000, process: 995, vm: 120 }),
        figure('disk-random-read', 'fio 4k random read', 'ops/s', 'more', { host: 90000, process: 80000, vm: 40000 }),
        figure('network-latency', 'round trip', 'us', 'less', { host: 20, process: 25, vm: 100 }),
      ] },
      surface: { notes: [], seconds: 10, facts: {
        process: { sharedKernel: true, kernel: '6.18.44', hostSyscalls: 311, hostSyscallsBy: 'prober', workloadSyscalls: 311, kernelFunctions: 2100, kernelFunctionsCommand: 'hull-surface functions 1', capabilities: ['CHOWN', 'KILL'], devices: ['/dev/null', '/dev/zero'], sharedNamespaces: ['user', 'time'], hostUid: 0, seccomp: 'filter', command },
        vm: { sharedKernel: false, kernel: '6.1.0-56', hostSyscalls: 58, hostSyscallsBy: 'filter', workloadSyscalls: 330, kernelFunctions: null, kernelFunctionsMissing: 'the kernel refuses to trace functions', capabilities: ['CHOWN'], devices: ['/dev/null'], sharedNamespaces: ['time'], hostUid: 700001, seccomp: 'filter', command },
        runsc: { missing: 'runsc is not installed' },
      } },
      drills: { notes: [], seconds: 20, drills: [
        { drill: 'sysctl', title: 'write a sysctl', privileged: true, results: { process: { outcome: 'host', detail: 'the host felt it', command }, vm: { outcome: 'guest', detail: 'the guest felt it', command } } },
        { drill: 'dmesg', title: 'read the kernel log', privileged: true, results: { process: { outcome: 'host', detail: 'the host\'s lines', command }, vm: { outcome: 'guest', detail: 'its own', command } } },
        { drill: 'mknod', title: 'make a device node', privileged: false, results: { process: { outcome: 'refused', detail: 'EPERM', command }, vm: { outcome: 'missing', detail: 'no mknod in the image', command } } },
      ] },
      portability: { notes: [], seconds: 5, figures: [figure('image-transfer', 'compressed layers', 'bytes', 'less', { process: 48e6, vm: 48e6 })], requirements, elsewhere: { process: ['any OCI engine'], vm: ['any OCI engine'] } },
    },
  }
}

/** Every string that is not ours, replaced. */
export function hostile(text: string): Comparison {
  const one = comparison()
  one.image.reference = text
  one.workload.command = [text]
  one.warnings = [text]
  one.host.cpu = text
  one.command = text
  one.sections.perf!.figures[0]!.title = text
  one.versions.qemu = text
  one.isolations[0]!.title = text
  const [, gvisor] = one.isolations
  if (gvisor?.available === false) gvisor.reason = text
  for (const section of Object.values(one.sections)) section.notes = [text]
  one.sections.start!.figures[0]!.title = text
  one.sections.start!.figures[1]!.results.vm = { missing: text }
  one.sections.density!.curves['vm-cold'] = { missing: text }
  const surface = one.sections.surface!.facts.process
  if (surface && !('missing' in surface)) Object.assign(surface, { kernel: text, capabilities: [text], command: text, kernelFunctionsMissing: text, kernelFunctionsCommand: text })
  one.sections.drills!.drills[0]!.title = text
  one.sections.drills!.drills[2]!.results.vm!.detail = text
  one.sections.portability!.requirements.process = [text]
  return one
}
