import type { Facts, Measured, Needs, Rule, Wall } from './types.js'

const said = (text: string, { source }: Measured) => `${text} (${source})`
const mega = (bytes: number) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`
const list = (words: readonly string[], most = 3) => words.slice(0, most).join(', ') + (words.length > most ? ` and ${words.length - most} more` : '')

/** Capabilities with which code in a container can change the host's kernel, read its memory, or reach much more of its code (capabilities(7)). */
const DANGEROUS = ['ALL', 'SYS_ADMIN', 'SYS_MODULE', 'SYS_PTRACE', 'SYS_RAWIO', 'SYS_BOOT', 'SYS_TIME', 'DAC_READ_SEARCH', 'BPF', 'PERFMON', 'NET_ADMIN', 'SYSLOG']
const dangerous = (needs: Needs) => needs.capabilities.filter((name) => DANGEROUS.includes(name))

/** A figure has to be this many times worse in a VM before a rule speaks of it: less is noise, or nobody's problem. */
const WORSE = 1.25
/** What instances may take of the host's RAM; the rest is the host's own. */
const SHARE = 0.9

/** '6.1' is met by 6.1.0-56 and 6.1, not by 6.12. */
export const kernelMeets = (version: string, wanted: string): boolean => version === wanted || (version.startsWith(wanted) && /[.+~-]/.test(version[wanted.length] ?? ''))

function surface({ hostSyscalls: { process, vm } }: Facts): string {
  return process && vm ? said(`; a container may make ${process.value} system calls of it, a VM's monitor ${vm.value}`, process) : ''
}

function slower(prefix: string, facts: Facts): string | null {
  const worst = Object.entries(facts.slower).filter(([id, { value }]) => id.startsWith(prefix) && value >= WORSE).sort((a, b) => b[1].value - a[1].value)[0]
  return worst ? said(`${worst[0]} is ${worst[1].value.toFixed(1)} times slower in a VM`, worst[1]) : null
}

const tooLate = (wall: Wall, needs: Needs, facts: Facts) => {
  const start = facts.start[wall]
  return start && needs.startBudget !== null && start.value > needs.startBudget ? start : null
}

const fitting = (wall: Wall, facts: Facts) => {
  const slope = facts.slope[wall]
  return slope && { slope, count: Math.floor((facts.memory * SHARE) / slope.value) }
}

/**
 * Every rule of `hull advise`, as data. A must cannot be had behind the other wall. The heaviest of the others decides alone: 90 and more is code that one does not trust or that is root,
 * 70 to 80 a budget that is known to be missed, 60 a wider door to the kernel, 54 to 56 speed that was measured, below that a preference. No weight stands for both walls, so there is
 * never a draw. docs/choosing.md has the table, and a test holds it to this one.
 */
export const rules: readonly Rule[] = [
  {
    id: 'no-vm', about: 'the daemon cannot run VMs', for: 'process', weight: 100, must: true,
    when: (_needs, facts) => (facts.accelerator === '' ? 'this daemon cannot run VMs (`hull doctor` says why)' : null),
  },
  {
    id: 'host-namespace', about: '`--pid`, `--ipc`, `--uts`, `--cgroupns`, `--network` of the host or of another container', for: 'process', weight: 100, must: true,
    when: (needs) => (needs.namespaces.length > 0 ? `${list(needs.namespaces)}: a VM has a kernel of its own and cannot join a namespace of another` : null),
  },
  {
    id: 'device', about: '`--device`, `--device-cgroup-rule`', for: 'process', weight: 100, must: true,
    when: (needs) => (needs.devices.length > 0 ? `${list(needs.devices)}: devices of the host are not reachable from a VM` : null),
  },
  {
    id: 'process-only', about: 'another `--runtime`, a seccomp profile of one\'s own, a mount that propagates to the host', for: 'process', weight: 100, must: true,
    when: (needs) => (needs.processOnly.length > 0 ? `${list(needs.processOnly)}: not possible in a VM` : null),
  },
  {
    id: 'kernel-absent', about: '`--kernel`: a version that neither the host nor a guest has', for: 'process', weight: 100, must: true,
    when: (needs, facts) => (needs.kernel !== '' && facts.guestKernel !== '' && !kernelMeets(facts.guestKernel, needs.kernel) && !kernelMeets(facts.kernel, needs.kernel)
      ? `a VM has no kernel ${needs.kernel} either: it runs ${facts.guestKernel}` : null),
  },
  {
    id: 'modules', about: '`--modules`: kernel modules of its own', for: 'vm', weight: 100, must: true,
    when: (needs) => (needs.modules ? 'it loads kernel modules: in a container they would be the host\'s' : null),
  },
  {
    id: 'kernel', about: '`--kernel`: another version than the host\'s', for: 'vm', weight: 100, must: true,
    when: (needs, facts) => (needs.kernel !== '' && !kernelMeets(facts.kernel, needs.kernel)
      ? `it wants kernel ${needs.kernel}; the host's is ${facts.kernel}, and a container has no other${facts.guestKernel === '' ? '' : `; a VM's is ${facts.guestKernel}`}` : null),
  },
  {
    id: 'tenant', about: '`--trust tenant`: code of somebody else', for: 'vm', weight: 95, security: true,
    when: (needs, facts) => (needs.trust === 'tenant' ? `the code is somebody else's, and a container shares the host's kernel${surface(facts)}` : null),
  },
  {
    id: 'privileged', about: '`--privileged`', for: 'vm', weight: 90, security: true,
    when: (needs, { escapes: { process, vm } }) => {
      if (!needs.privileged) return null
      return `--privileged is root on the host from a container, root of the guest in a VM${process && vm ? said(`; of the escape drills ${process.value} reached the host from a container, ${vm.value} from a VM`, process) : ''}`
    },
  },
  {
    id: 'start-budget', about: '`--start-budget` that a VM misses and a container keeps', for: 'process', weight: 80,
    when: (needs, facts) => {
      const late = tooLate('vm', needs, facts)
      return late && !tooLate('process', needs, facts) ? said(`a VM takes ${late.value.toFixed(0)} ms from create to exit, the budget is ${needs.startBudget} ms`, late) : null
    },
  },
  {
    id: 'density', about: '`--instances` that fit as containers and not as VMs', for: 'process', weight: 70,
    when: (needs, facts) => {
      const vm = fitting('vm', facts)
      const process = fitting('process', facts)
      if (needs.instances < 2 || !vm || vm.count >= needs.instances || (process && process.count < needs.instances)) return null
      return said(`${needs.instances} instances: an idle VM costs ${mega(vm.slope.value)}, so some ${vm.count} fit in ${SHARE * 100} % of the host's ${mega(facts.memory)}`, vm.slope)
    },
  },
  {
    id: 'capability', about: '`--cap-add` of what reaches deep into the kernel', for: 'vm', weight: 60, security: true,
    when: (needs) => (dangerous(needs).length > 0 && !needs.privileged ? `with ${list(dangerous(needs))} the workload acts on the host's kernel in a container, on the guest's in a VM` : null),
  },
  { id: 'disk', about: '`--io disk`, and a disk figure is 1.25 times worse in a VM', for: 'process', weight: 56, when: (needs, facts) => (needs.io === 'disk' ? slower('disk-', facts) : null) },
  { id: 'network', about: '`--io network`, and a network figure is 1.25 times worse in a VM', for: 'process', weight: 55, when: (needs, facts) => (needs.io === 'network' ? slower('network-', facts) : null) },
  { id: 'cpu', about: '`--io cpu`, and the processor is 1.25 times slower in a VM', for: 'process', weight: 54, when: (needs, facts) => (needs.io === 'cpu' ? slower('cpu', facts) : null) },
  {
    id: 'trusted', about: '`--trust own` or `team`', for: 'process', weight: 40,
    when: (needs) => (needs.trust === 'own' || needs.trust === 'team' ? `the code is ${needs.trust === 'own' ? 'your own' : 'your team\'s'}: a container holds accidents, and costs least` : null),
  },
  {
    id: 'emulation', about: 'a host without KVM', for: 'process', weight: 35,
    when: (_needs, facts) => (facts.accelerator === 'tcg' ? 'no KVM here: a VM is emulated (TCG), slow, and TCG is no security boundary' : null),
  },
  {
    id: 'unknown-code', about: '`--trust unknown`: nobody said whose code it is', for: 'vm', weight: 30,
    when: (needs) => (needs.trust === 'unknown' ? 'nobody said whose code it is, and a kernel of its own forgives a wrong guess' : null),
  },
  {
    id: 'exposed', about: 'published ports of code that is not your own', for: 'vm', weight: 25,
    when: (needs) => (needs.ports > 0 && needs.trust !== 'own' ? `${needs.ports} published port${needs.ports === 1 ? '' : 's'}: whoever takes the service over stands before the kernel` : null),
  },
  {
    id: 'engine-socket', about: 'an engine\'s socket inside', for: 'process', weight: 15,
    when: (needs) => (needs.engineSockets.length > 0 ? `${list(needs.engineSockets)} hands the workload the engine: a thicker wall beside an open door` : null),
  },
  {
    id: 'binds', about: 'bind mounts', for: 'process', weight: 10,
    when: (needs) => (needs.binds.length > 0 ? `bind mounts (${list(needs.binds)}) go through virtiofs in a VM, and such a VM boots instead of being cloned` : null),
  },
  {
    id: 'stateful', about: 'named volumes', for: 'process', weight: 8,
    when: (needs) => (needs.volumes.length > 0 ? `state in volumes (${list(needs.volumes)}) is the same behind both walls; a VM reaches it through virtiofs, slower for many small files` : null),
  },
]
