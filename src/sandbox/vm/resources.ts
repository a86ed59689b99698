import { badRequest } from '../../base/errors.js'
import type { Resources } from '../types.js'

const MiB = 1 << 20

/** RAM of a VM without `--memory`, bytes. */
export const DEFAULT_RAM = 256 * MiB

/**
 * RAM for the guest's kernel, the agent and room to breathe, bytes: 80 MiB, and a 64th for page structures. It comes on top of `--memory`, so that
 * the limit means the same behind both walls: what the workload itself may use. Measured: kernel and agent keep 59 MiB of 256. With less left out
 * the machine is full before the container is, and pages the container's programs in and out; at the container's own limit guest/agent_pressure.c ends that.
 */
export const kernelShare = (memory: number): number => 80 * MiB + Math.ceil(memory / 64)

/**
 * The least RAM that a guest gets, bytes. Measured (docs/decisions/0005-vm-command-line.md): with 64 MiB the kernel does not come up, with 72 it does
 * and has 13 MiB left; kernel and agent keep some 55 MiB. 128 leaves 70, so that a `--memory` of 64 MiB or less, which then
 * is the limit of the container's cgroup in the guest, can really be used.
 */
export const RAM_FLOOR = 128 * MiB

/**
 * What the VMM may use besides guest RAM, bytes. Measured with TCG: 83 MiB beyond a guest that has touched all of its RAM, of which QEMU's
 * heap and libraries are some 60 (so KVM's share, inferred); the rest is translated code, which may grow to {@link TCG_CACHE_MIB}. The
 * margin is large because the cgroup's OOM killer would take the whole machine.
 */
export const VMM_OVERHEAD = { kvm: 128 * MiB, tcg: 192 * MiB } as const

/** TCG's cache of translated code, MiB: without a bound QEMU takes up to a quarter of the guest's RAM, or 1 GiB. */
export const TCG_CACHE_MIB = 64

/** QEMU's block layer starts at most 64 worker threads; the rest are vCPUs, main loop, RCU, supervisor. */
const PIDS_BASE = 112

/** Microseconds; the kernel's default period, and Docker's. */
const DEFAULT_PERIOD = 100_000

/** The size of one VM and the limits of the jail around it. */
export interface VmSize {
  vcpus: number
  /** bytes, a multiple of 1 MiB */
  ram: number
  /** Limit of the container's cgroup inside the guest, bytes. */
  guestMemory: number
  jail: JailLimits
}

/** Limits of the cgroup around supervisor and VMM, in the units of the OCI runtime spec's linux.resources. */
export interface JailLimits {
  /** bytes */
  memory: number
  /** microseconds in each period; absent: no quota */
  cpu: { quota?: number; period?: number; shares?: number; cpus?: string; mems?: string }
  pids: number
}

/** Number of CPUs in a list as cpuset(7) writes it ('0-1,3'); throws 400 on anything else. */
export function countCpus(list: string): number {
  const seen = new Set<number>()
  for (const part of list.trim().split(',')) {
    const match = /^([0-9]{1,5})(?:-([0-9]{1,5}))?$/.exec(part.trim())
    const from = Number(match?.[1])
    const to = Number(match?.[2] ?? match?.[1])
    if (!match || to < from) throw badRequest(`Requested CPUs are not available - invalid cpuset: ${JSON.stringify(list)}`)
    for (let cpu = from; cpu <= to; cpu++) seen.add(cpu)
  }
  return seen.size
}

type CpuLimits = Pick<Resources, 'nanoCpus' | 'cpuPeriod' | 'cpuQuota' | 'cpusetCpus'>

/** Microseconds; quota 0: none. */
function cpuTime(resources: CpuLimits): { quota: number; period: number } {
  const period = resources.cpuPeriod > 0 ? resources.cpuPeriod : DEFAULT_PERIOD
  if (resources.nanoCpus > 0) return { quota: Math.floor((resources.nanoCpus * period) / 1e9), period }
  return { quota: resources.cpuQuota > 0 ? resources.cpuQuota : 0, period }
}

/** As many vCPUs as can be busy at once: `--cpus` or quota / period rounded up, at most the CPUs of `--cpuset-cpus` and of the host; 1 without a limit. */
export function wantedVcpus(resources: CpuLimits, hostCpus: number): number {
  const { quota, period } = cpuTime(resources)
  const available = resources.cpusetCpus === '' ? hostCpus : Math.min(hostCpus, countCpus(resources.cpusetCpus))
  return Math.max(1, Math.min(available, quota > 0 ? Math.ceil(quota / period) : 1))
}

/** The limit of the container's cgroup in a guest with so much RAM when the user names none, bytes. */
export const defaultGuestMemory = (ram: number): number => ram - kernelShare(ram)

/**
 * The VM that these limits ask for. The fraction of a CPU is held by the jail's cgroup, as is everything else that concerns the host, so that
 * the guest cannot exceed it whatever it does. `imageSlot`: bytes of persistent memory besides.
 */
export function sizeVm(resources: Resources, accelerator: 'kvm' | 'tcg', hostCpus: number, imageSlot = 0): VmSize {
  const { quota, period } = cpuTime(resources)
  const vcpus = wantedVcpus(resources, hostCpus)

  const asked = resources.memory > 0 ? resources.memory + kernelShare(resources.memory) : DEFAULT_RAM
  // QEMU wants whole MiB; rounding up never gives less than what was asked for.
  const own = Math.max(RAM_FLOOR, Math.ceil(asked / MiB) * MiB)
  // The guest's kernel keeps a page structure of 64 bytes for each page of persistent memory; that is not the workload's loss.
  const ram = own + imageSlot / 64
  return {
    vcpus,
    ram,
    // A limit in any case: a cgroup that is full is killed at once, a machine that is full first pages its programs in and out for minutes.
    guestMemory: resources.memory > 0 ? resources.memory : defaultGuestMemory(own),
    jail: {
      memory: ram + VMM_OVERHEAD[accelerator],
      cpu: {
        ...(quota > 0 ? { quota, period } : {}),
        ...(resources.cpuShares > 0 ? { shares: resources.cpuShares } : {}),
        ...(resources.cpusetCpus === '' ? {} : { cpus: resources.cpusetCpus }),
        ...(resources.cpusetMems === '' ? {} : { mems: resources.cpusetMems }),
      },
      pids: PIDS_BASE + vcpus,
    },
  }
}
