import { existsSync, readFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { release } from 'node:os'
import { join } from 'node:path'
import { badRequest } from '../../base/errors.js'
import { parseStatus } from '../../host/process.js'
import type { IdMapping } from '../../host/subid.js'
import { capUlimits, isRlimitName, rlimitPowers, type RlimitPowers } from '../../host/rlimit.js'
import { effectiveCapabilities } from '../../oci/capabilities.js'
import { hostCgroups } from '../../oci/cgroups.js'
import { oomScoreFor } from '../../oci/oom-score.js'
import { rootPropagation } from '../../oci/propagation.js'
import { buildResources, resourceSupport } from '../../oci/resources.js'
import { locateRuntime } from '../../oci/runtime.js'
import { seccompFor, type SeccompConfig } from '../../oci/seccomp.js'
import { buildProcess, buildSpec, type ProcessInput } from '../../oci/spec.js'
import type { OciConfig, OciDevice, OciIdMapping, OciProcess, OciResources } from '../../oci/spec-types.js'
import { resolveUserIn } from '../../oci/users.js'
import { checkSysctls } from '../../oci/sysctls.js'
import type { ProcessSpec, SandboxAttachments, WorkloadSpec } from '../types.js'
import { customDevices, deviceRule, hostDevices } from './devices.js'

/** Docker's default for /dev/shm. */
const DEFAULT_SHM = 64 << 20
const TINI = ['/usr/bin/tini-static', '/usr/libexec/docker/docker-init', '/usr/bin/docker-init']

interface OwnPowers {
  rlimits: RlimitPowers
  capabilities: bigint
}
let own: OwnPowers | undefined

/** What this daemon can give away; it does not change while it runs. */
function ownPowers(): OwnPowers {
  own ??= {
    rlimits: rlimitPowers(),
    capabilities: parseStatus(readFileSync('/proc/self/status', 'utf8')).capabilities.bounding,
  }
  return own
}

/** What a workload's root may do, as far as this daemon can give it; with CAP_. */
export const capabilitiesOf = (spec: Pick<WorkloadSpec, 'privileged' | 'capAdd' | 'capDrop'>): string[] =>
  effectiveCapabilities({ privileged: spec.privileged, add: spec.capAdd, drop: spec.capDrop }, ownPowers().capabilities).capabilities

/** The parts of a workload's wall that do not depend on its files: decided, checked, with warnings. */
export interface Wall {
  capabilities: string[]
  seccomp: SeccompConfig | undefined
  resources: OciResources
  /** Of --device. */
  devices: OciDevice[]
  ulimits: ProcessInput['ulimits']
  oomScoreAdj: number | undefined
  init: string | undefined
  warnings: string[]
}

/** Checks a workload and decides its wall. 400 for what is wrong in it, warnings for what this host cannot do. */
export async function buildWall(spec: WorkloadSpec): Promise<Wall> {
  const powers = ownPowers()
  const warnings: string[] = []
  const { capabilities, missing } = effectiveCapabilities({ privileged: spec.privileged, add: spec.capAdd, drop: spec.capDrop }, powers.capabilities)
  if (missing.length > 0) warnings.push(`This host cannot give ${missing.join(', ')}: the daemon does not have it. Discarded.`)
  const seccomp = spec.privileged && spec.seccomp === 'default' ? undefined : seccompFor(spec.seccomp, capabilities)
  const built = buildResources(spec.resources, resourceSupport(await hostCgroups()), spec.privileged)
  warnings.push(...built.warnings)
  const custom = customDevices(spec.devices ?? [])
  const rules = [...custom.rules, ...(spec.deviceRules ?? []).map(deviceRule)]
  if (rules.length > 0) built.resources.devices = [...(built.resources.devices ?? []), ...rules]
  const shared = spec.namespaces ?? {}
  checkSysctls(spec.sysctls, {
    ipc: shared.ipc !== 'host' && shared.ipc !== 'joined', network: spec.network.mode !== 'host', uts: shared.uts !== 'host',
  })
  for (const { name, soft, hard } of spec.resources.ulimits) {
    if (!isRlimitName(name)) throw badRequest(`invalid ulimit type: ${name}`)
    if (hard >= 0 && (soft > hard || soft < 0)) throw badRequest(`ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`)
  }
  const { ulimits, capped } = capUlimits(spec.resources.ulimits, powers.rlimits)
  if (capped.length > 0) warnings.push(`The ulimits ${capped.join(', ')} are above what this host allows the daemon to set. Lowered to that.`)
  const { oomScoreAdj, refused } = oomScoreFor(spec.resources.oomScoreAdj)
  if (refused && spec.resources.oomScoreAdj !== 0) warnings.push(`oom_score_adj ${spec.resources.oomScoreAdj} needs CAP_SYS_RESOURCE, which the daemon does not have. Discarded.`)
  const init = spec.init ? TINI.find((path) => existsSync(path)) : undefined
  if (spec.init && init === undefined) throw badRequest('--init needs an init: apt-get install tini (/usr/bin/tini-static)')
  return { capabilities, seccomp, resources: built.resources, devices: custom.nodes, ulimits, oomScoreAdj, init, warnings }
}

/** The /dev/shm of a container that lets others join its ipc namespace: mounted here, so that they can be given it. */
export const sharedShm = (spec: Pick<WorkloadSpec, 'runDir'>): string => join(spec.runDir, 'shm')

/** Where the namespaces come from. A path in the attachments is another container's. */
function namespacesOf(spec: WorkloadSpec, attachments: SandboxAttachments): Pick<Parameters<typeof buildSpec>[0], 'namespaces' | 'shm'> {
  const { pid, ipc, uts = 'new', cgroup = 'new' } = spec.namespaces ?? {}
  const joined = (path: string | undefined, what: string) => {
    if (path === undefined) throw new Error(`a joined ${what} namespace without a path`)
    return { path }
  }
  return {
    namespaces: {
      pid: pid === 'joined' ? joined(attachments.pidnsPath, 'pid') : (pid ?? 'new'),
      ipc: ipc === 'joined' ? joined(attachments.ipcnsPath, 'ipc') : ipc === 'host' || ipc === 'none' ? ipc : 'new',
      uts, cgroup,
    },
    shm: ipc === 'host' ? '/dev/shm' : ipc === 'shareable' ? sharedShm(spec) : attachments.shmPath,
  }
}

const isFile = (path: string) => stat(path).then((found) => !found.isDirectory(), () => false) // what is not there is the runtime's to report

/** mount_setattr(2) is there (5.12), and the runtime knows `rro`: crun since 1.4, runc since 1.1, which older ones would not get past runtime-floor.ts. */
async function recursiveReadOnly(runtime: string): Promise<boolean> {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  return (major > 5 || (major === 5 && minor >= 12)) && ['crun', 'runc'].includes((await locateRuntime(runtime)).kind)
}

const ociMappings = (mappings: readonly IdMapping[]): OciIdMapping[] => mappings.map((m) => ({ containerID: m.containerId, hostID: m.hostId, size: m.count }))

/** config.json of a workload whose root file system is mounted at `rootfs`. */
export async function buildConfig(
  spec: WorkloadSpec,
  wall: Wall,
  place: { rootfs: string; cgroupPath: string; runDir: string; attachments: SandboxAttachments; userns?: string },
): Promise<OciConfig> {
  const user = await resolveUserIn(place.rootfs, spec.process.user, spec.process.groupAdd)
  const propagation = await rootPropagation(spec.mounts)
  const { network } = spec
  const { netnsPath } = place.attachments
  if (network.mode === 'bridge' && netnsPath === undefined) throw new Error('a bridged container without a network namespace')
  return buildSpec({
    process: {
      args: spec.process.args, env: spec.process.env, cwd: spec.process.cwd, user, tty: spec.process.tty,
      ...(spec.process.consoleSize ? { consoleSize: spec.process.consoleSize } : {}),
      capabilities: wall.capabilities, noNewPrivileges: spec.noNewPrivileges, ulimits: wall.ulimits,
      ...(wall.oomScoreAdj === undefined ? {} : { oomScoreAdj: wall.oomScoreAdj }),
    },
    rootfs: place.rootfs,
    readOnlyRootfs: spec.readOnlyRootfs,
    hostname: spec.hostname,
    domainname: spec.domainname,
    mounts: await Promise.all(spec.mounts.map(async (mount) => ({ ...mount, file: mount.type !== 'tmpfs' && (await isFile(mount.source)) }))),
    files: { '/etc/resolv.conf': join(place.runDir, 'resolv.conf'), '/etc/hostname': join(place.runDir, 'hostname'), '/etc/hosts': join(place.runDir, 'hosts') },
    init: wall.init,
    ...namespacesOf(spec, place.attachments),
    annotations: spec.annotations ?? {},
    network: network.mode === 'host' ? 'host' : netnsPath === undefined ? 'new' : { path: netnsPath },
    cgroupPath: place.cgroupPath,
    resources: wall.resources,
    seccomp: wall.seccomp,
    sysctls: spec.sysctls,
    shmSize: spec.shmSize > 0 ? spec.shmSize : DEFAULT_SHM,
    privileged: spec.privileged,
    devices: [...(spec.privileged ? hostDevices() : []), ...wall.devices],
    maskedPaths: spec.maskedPaths,
    readonlyPaths: spec.readonlyPaths,
    recursiveReadOnly: await recursiveReadOnly(spec.runtime),
    ...(propagation ? { rootfsPropagation: propagation } : {}),
    ...(place.userns !== undefined && spec.idMap ? { userns: { path: place.userns, uids: ociMappings(spec.idMap.uids), gids: ociMappings(spec.idMap.gids) } } : {}),
  })
}

function oomScore(spec: WorkloadSpec): { oomScoreAdj?: number } {
  const { oomScoreAdj } = oomScoreFor(spec.resources.oomScoreAdj)
  return oomScoreAdj === undefined ? {} : { oomScoreAdj }
}

/** An exec session's process: the container's wall, and all capabilities when it is privileged, of those that its kernel `knows`. */
export async function buildExecProcess(spec: WorkloadSpec, process: ProcessSpec, rootfs: string, knows = (names: string[]) => names): Promise<OciProcess> {
  const powers = ownPowers()
  const { capabilities } = effectiveCapabilities({ privileged: spec.privileged || process.privileged, add: spec.capAdd, drop: spec.capDrop }, powers.capabilities)
  return buildProcess({
    args: process.args, env: process.env, cwd: process.cwd, user: await resolveUserIn(rootfs, process.user, process.groupAdd), tty: process.tty,
    ...(process.consoleSize ? { consoleSize: process.consoleSize } : {}),
    capabilities: knows(capabilities), noNewPrivileges: spec.noNewPrivileges, ulimits: capUlimits(spec.resources.ulimits, powers.rlimits).ulimits,
    ...oomScore(spec),
  })
}
