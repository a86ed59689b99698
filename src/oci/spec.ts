import { badRequest } from '../base/errors.js'
import type { Ulimit } from '../host/rlimit.js'
import { buildMounts, type MountInput } from './mounts.js'
import type { SeccompConfig } from './seccomp.js'
import { UNLIMITED, type OciCapabilities, type OciConfig, type OciDevice, type OciIdMapping, type OciProcess, type OciResources, type OciRlimit } from './spec-types.js'
import type { ResolvedUser } from './users.js'

/** What runs: everything resolved. */
export interface ProcessInput {
  args: string[]
  env: string[]
  cwd: string
  user: ResolvedUser
  tty: boolean
  /** [rows, columns] */
  consoleSize?: [number, number]
  /** 'CAP_…' */
  capabilities: string[]
  noNewPrivileges: boolean
  /** Capped already; -1: unlimited. */
  ulimits: Ulimit[]
  /** undefined: inherited. */
  oomScoreAdj?: number
}

/** The file of a user namespace, and its ids. */
export interface UsernsInput {
  path: string
  uids: OciIdMapping[]
  gids: OciIdMapping[]
}

/** A new one, the host's, or one that is there. */
export type Namespace = { path: string } | 'new' | 'host'

function namespace(type: string, choice: Namespace | 'none'): { type: string; path?: string }[] {
  if (choice === 'host') return []
  return [typeof choice === 'object' ? { type, path: choice.path } : { type }]
}

/** A container as the builder wants it: everything resolved, nothing looked up. */
export interface SpecInput {
  process: ProcessInput
  /** Absolute path of the mounted root file system. */
  rootfs: string
  readOnlyRootfs: boolean
  hostname: string
  domainname: string
  mounts: MountInput[]
  /** Host path by target: '/etc/hosts', … */
  files: Record<string, string>
  /** Host path of a static init that becomes PID 1, or undefined. */
  init: string | undefined
  /** As {@link network}; ipc 'none' is new, and has no /dev/shm. */
  namespaces: { pid: Namespace; ipc: Namespace | 'none'; uts: 'new' | 'host'; cgroup: 'new' | 'host' }
  /** Host directory that is /dev/shm; undefined: a new one. */
  shm: string | undefined
  annotations: Record<string, string>
  /** Path of a network namespace; 'new': an empty one; 'host'. */
  network: Namespace
  cgroupPath: string
  resources: OciResources
  seccomp: SeccompConfig | undefined
  sysctls: Record<string, string>
  /** bytes */
  shmSize: number
  privileged: boolean
  /** Host devices besides the standard ones (--privileged). */
  devices: OciDevice[]
  maskedPaths: string[]
  readonlyPaths: string[]
  /** Kernel and runtime can make a bind mount and all below it read-only. */
  recursiveReadOnly: boolean
  /** From oci/propagation.ts. */
  rootfsPropagation?: string
  /** User namespace, when root in the container is not root on the host. */
  userns?: UsernsInput
}

/** Where Docker puts its init in a container. */
export const INIT_PATH = '/sbin/docker-init'

function capabilitySets(process: ProcessInput): OciCapabilities {
  const { capabilities } = process
  // Others than root get what execve would leave them: a bounding set (moby oci.SetCapabilities). Inheritable stays empty: CVE-2022-24769.
  return process.user.uid === 0 ? { bounding: capabilities, effective: capabilities, permitted: capabilities } : { bounding: capabilities }
}

function rlimits(ulimits: readonly Ulimit[]): OciRlimit[] {
  const value = (number: number) => (number < 0 ? UNLIMITED : number)
  return ulimits.map(({ name, soft, hard }) => ({ type: `RLIMIT_${name.toUpperCase()}`, soft: value(soft), hard: value(hard) }))
}

/** HOME from the passwd file, unless it is set (what runc does; crun leaves it to us). */
function withHome(env: readonly string[], home: string): string[] {
  return env.some((line) => line.startsWith('HOME=')) ? [...env] : [...env, `HOME=${home}`]
}

/** The runtime-spec's process: for a container, and for `exec --process`. */
export function buildProcess(input: ProcessInput): OciProcess {
  if (input.args.length === 0 || input.args[0] === '') throw badRequest('no command specified')
  for (const text of [...input.args, ...input.env, input.cwd]) if (text.includes('\0')) throw badRequest('a NUL byte in an argument, the environment or the working directory')
  if (!input.cwd.startsWith('/')) throw badRequest(`the working directory '${input.cwd}' is invalid, it needs to be an absolute path`)
  const { uid, gid, additionalGids } = input.user
  return {
    terminal: input.tty,
    ...(input.tty && input.consoleSize ? { consoleSize: { height: input.consoleSize[0], width: input.consoleSize[1] } } : {}),
    user: { uid, gid, additionalGids },
    args: input.args,
    env: withHome(input.env, input.user.home),
    cwd: input.cwd,
    capabilities: capabilitySets(input),
    ...(input.ulimits.length > 0 ? { rlimits: rlimits(input.ulimits) } : {}),
    noNewPrivileges: input.noNewPrivileges,
    ...(input.oomScoreAdj === undefined ? {} : { oomScoreAdj: input.oomScoreAdj }),
  }
}

/** Sysctls that Docker sets in a container's own network namespace: ports below 1024 and ping for everybody. */
const NETWORK_SYSCTLS = { 'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ping_group_range': '0 2147483647' }

/** In a user namespace not all of the groups exist that ping_group_range would name (moby leaves it out, too). */
const REMAPPED_SYSCTLS = { 'net.ipv4.ip_unprivileged_port_start': '0' }

/** config.json for a container. Throws 400 for what cannot be said in it. */
export function buildSpec(input: SpecInput): OciConfig {
  const process = buildProcess(input.process)
  if (input.init !== undefined) process.args = [INIT_PATH, '--', ...process.args]
  const { network, userns } = input
  const namespaces = [
    ...namespace('pid', input.namespaces.pid),
    { type: 'mount' },
    ...namespace('uts', input.namespaces.uts),
    ...namespace('ipc', input.namespaces.ipc),
    ...namespace('cgroup', input.namespaces.cgroup),
    ...namespace('network', network),
    ...(userns ? [{ type: 'user', path: userns.path }] : []),
  ]
  const sysctl = { ...(network === 'host' ? {} : userns ? REMAPPED_SYSCTLS : NETWORK_SYSCTLS), ...input.sysctls }
  return {
    ociVersion: '1.0.2',
    process,
    root: { path: input.rootfs, readonly: input.readOnlyRootfs },
    // The host's names are not the container's to set.
    ...(input.namespaces.uts === 'host' ? {} : { hostname: input.hostname, ...(input.domainname === '' ? {} : { domainname: input.domainname }) }),
    ...(Object.keys(input.annotations).length > 0 ? { annotations: input.annotations } : {}),
    mounts: buildMounts({
      mounts: input.mounts, files: input.files, filesReadOnly: input.readOnlyRootfs, init: input.init, shmSize: input.shmSize, shm: input.namespaces.ipc === 'none' ? 'none' : input.shm,
      writableSystem: input.privileged, mapVolumes: userns !== undefined, recursiveReadOnly: input.recursiveReadOnly,
    }),
    linux: {
      namespaces,
      cgroupsPath: input.cgroupPath,
      resources: input.resources,
      ...(input.devices.length > 0 ? { devices: input.devices } : {}),
      ...(Object.keys(sysctl).length > 0 ? { sysctl } : {}),
      ...(input.seccomp ? { seccomp: input.seccomp } : {}),
      ...(input.maskedPaths.length > 0 ? { maskedPaths: input.maskedPaths } : {}),
      ...(input.readonlyPaths.length > 0 ? { readonlyPaths: input.readonlyPaths } : {}),
      ...(input.rootfsPropagation ? { rootfsPropagation: input.rootfsPropagation } : {}),
      ...(userns ? { uidMappings: userns.uids, gidMappings: userns.gids } : {}),
    },
  }
}
