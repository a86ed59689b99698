import { badRequest } from '../../base/errors.js'
import { knownToGvisor } from '../../oci/runsc.js'
import type { TopResult, WorkloadSpec } from '../types.js'

const WARNING = 'gVisor: --privileged gives root\'s capabilities in gVisor\'s own kernel; the host\'s devices are not there.'

/** What gVisor cannot do, by the option's name (400): it would otherwise pass over most of it in silence. Warnings for the rest. */
export function checkForGvisor(spec: WorkloadSpec): string[] {
  const refuse = (present: boolean, option: string, why: string) => {
    if (present) throw badRequest(`${option} is not possible with runtime ${spec.runtime}: ${why}`)
  }
  const { pid, ipc, uts, network } = spec.namespaces ?? {}
  const own = 'gVisor has a kernel of its own'
  refuse(pid !== undefined, pid === 'host' ? '--pid host' : '--pid container', own)
  refuse(ipc === 'host' || ipc === 'joined', ipc === 'host' ? '--ipc host' : '--ipc container', own)
  refuse(uts === 'host', '--uts host', own)
  refuse(network === 'joined', '--network container', 'gVisor would take the addresses away from the container that has them')
  refuse(spec.idMap !== undefined, '--userns-remap', 'gVisor has a user namespace of its own; use --userns host')
  refuse((spec.devices ?? []).length > 0, '--device', 'gVisor passes no device of the host on')
  refuse((spec.deviceRules ?? []).length > 0, '--device-cgroup-rule', 'gVisor passes no device of the host on')
  refuse(spec.seccomp !== 'default' && spec.seccomp !== 'unconfined', 'a seccomp profile', 'system calls are gVisor\'s to answer, and its own are filtered by itself')
  refuse(Object.keys(spec.sysctls).length > 0, `--sysctl ${Object.keys(spec.sysctls)[0] ?? ''}`, own)
  const added = spec.capAdd.map((name) => name.toUpperCase().replace(/^(CAP_)?/, 'CAP_')).filter((name) => knownToGvisor([name]).length === 0)
  return [...(spec.privileged ? [WARNING] : []), ...(added.length > 0 ? [`runtime ${spec.runtime}: gVisor has no ${added.join(', ')}. Discarded.`] : [])]
}

/** `runsc ps` for docker top: the processes inside, which no ps of the host shows. It has one table: 400 for what would be another. */
export function topFromTable(table: string, psArgs: readonly string[]): TopResult {
  if (psArgs.length > 0 && psArgs.join(' ') !== '-ef') throw badRequest('gVisor shows its processes as ps -ef does, and in no other way')
  const [titles = [], ...rows] = table.trim().split('\n').map((line) => line.trim().split(/\s+/))
  return { Titles: titles, Processes: rows.map((row) => [...row.slice(0, titles.length - 1), row.slice(titles.length - 1).join(' ')]) }
}
