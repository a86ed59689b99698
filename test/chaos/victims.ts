import { familyOf, processes } from '../../src/compare/host.js'
import type { Isolation } from './steady.js'

/** A process that stands between a client and a workload, or is the workload. */
export interface Victim {
  name: string
  isolation: Isolation
  /** Its name in /proc/PID/stat; undefined: the daemon. */
  program: RegExp | undefined
  /** With a volume: in a VM there is a file server then. */
  volume: boolean
}

export const victims: readonly Victim[] = [
  { name: 'monitor of a container', isolation: 'process', program: /^hull-monitor$/, volume: false },
  { name: 'a container’s first process', isolation: 'process', program: /^sh$/, volume: true },
  { name: 'the daemon of a container', isolation: 'process', program: undefined, volume: false },
  { name: 'monitor of a VM', isolation: 'vm', program: /^hull-monitor$/, volume: false },
  { name: 'hull-vmm', isolation: 'vm', program: /^hull-vmm$/, volume: false },
  { name: 'QEMU', isolation: 'vm', program: /^qemu-system-x86/, volume: false },
  { name: 'QEMU of a VM with a volume', isolation: 'vm', program: /^qemu-system-x86/, volume: true },
  { name: 'the file server', isolation: 'vm', program: /^virtiofsd$/, volume: true },
  { name: 'the daemon of a VM', isolation: 'vm', program: undefined, volume: false },
]

/** Digits of an id that the machine which works on the files of a VM that does not run has, too (src/sandbox/vm/maintenance.ts). */
const SHARED = 58

/** Kills the parts of a container that are such a one with SIGKILL. How many there were. */
export async function killParts(id: string, program: RegExp): Promise<number> {
  const found = familyOf(id.slice(0, SHARED), await processes()).filter(({ name }) => program.test(name))
  return found.filter(({ pid }) => {
    try {
      return process.kill(pid, 'SIGKILL')
    } catch {
      return false // it had just gone by itself
    }
  }).length
}
