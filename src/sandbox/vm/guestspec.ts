import { badRequest } from '../../base/errors.js'
import type { DefaultRoute, GuestInterface } from '../../network/types.js'
import type { NetworkChange, ProcessSpec, SandboxNetwork, WorkloadSpec } from '../types.js'
import type { SocketMount } from './shares.js'
import { guestDevices, PLACEHOLDER_MAC } from './qemu.js'
import { encodeFrames, encodeText, FrameType, type TextEntry } from './protocol.js'

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** Docker's default for /dev/shm, bytes. */
const DEFAULT_SHM = 64 << 20

/** What the sandbox adds to a process besides its spec. */
export interface ProcessContext {
  hostname: string
  /** CAP_… names: bounding, permitted and effective set. */
  capabilities: readonly string[]
  noNewPrivileges: boolean
  ulimits: WorkloadSpec['resources']['ulimits']
  oomScoreAdj: number
  stdin: boolean
}

/** The environment with what Docker adds: PATH, HOSTNAME and TERM, unless the image or the user set them. HOME comes from the guest's passwd. */
export function completeEnvironment(env: readonly string[], hostname: string, tty: boolean): string[] {
  const has = (name: string) => env.some((line) => line.startsWith(`${name}=`))
  return [
    ...(has('PATH') ? [] : [DEFAULT_PATH]),
    ...(has('HOSTNAME') ? [] : [`HOSTNAME=${hostname}`]),
    ...(tty && !has('TERM') ? ['TERM=xterm'] : []),
    ...env,
  ]
}

/** RUN and EXEC (guest/PROTOCOL.md). */
export function processEntries(process: ProcessSpec, context: ProcessContext): TextEntry[] {
  if ((process.args[0] ?? '') === '') throw badRequest('no command specified')
  for (const text of [...process.args, ...process.env, process.cwd, process.user]) {
    if (text.includes('\0')) throw badRequest('a NUL byte in an argument, the environment, the user or the working directory')
  }
  const flag = (on: boolean) => (on ? '1' : '0')
  const entries: TextEntry[] = process.args.map((arg) => ['arg', arg] as const)
  for (const line of completeEnvironment(process.env, context.hostname, process.tty)) entries.push(['env', line])
  entries.push(['cwd', process.cwd === '' ? '/' : process.cwd], ['user', process.user])
  for (const group of process.groupAdd) entries.push(['group', group])
  entries.push(['tty', flag(process.tty)], ['stdin', flag(context.stdin)])
  if (process.tty && process.consoleSize) {
    entries.push(['rows', String(process.consoleSize[0])], ['columns', String(process.consoleSize[1])])
  }
  for (const capability of context.capabilities) entries.push(['cap', capability])
  entries.push(['nnp', flag(context.noNewPrivileges)])
  for (const { name, soft, hard } of context.ulimits) entries.push(['rlimit', `${name.toUpperCase()}:${soft}:${hard}`])
  if (context.oomScoreAdj !== 0) entries.push(['oom_score_adj', String(context.oomScoreAdj)])
  return entries
}

/** Parents before children; the index is that of the share (shares.ts). */
function mountEntries(mounts: WorkloadSpec['mounts'], sockets: readonly SocketMount[]): string[] {
  const depth = (path: string) => path.split('/').filter(Boolean).length
  return mounts
    .map((mount, index) => ({ mount, index }))
    .sort((a, b) => depth(a.mount.target) - depth(b.mount.target)) // stable
    .map(({ mount, index }) => {
      const socket = sockets.find((candidate) => candidate.index === index)
      if (socket) return `socket:${index}:${socket.mode.toString(8)}:${socket.uid}:${socket.gid}:${mount.target}`
      if (mount.type !== 'tmpfs') return `share:${index}:${mount.readOnly ? 'ro' : ''}:${mount.target}`
      const options = mount.readOnly ? [...mount.options, 'ro'] : mount.options
      return `tmpfs:${options.filter((option) => option !== '').join(',')}:${mount.target}`
    })
}

const interfacesOf = (network: Extract<SandboxNetwork, { mode: 'bridge' }>): GuestInterface[] =>
  network.interfaces ?? [{ name: 'eth0', mac: network.mac, address: network.address, prefixLength: network.prefixLength, mtu: network.mtu }]

/** NAME MAC ADDRESS/PREFIX MTU [ADDRESS6/PREFIX6] */
function interfaceText({ name, mac, address, prefixLength, mtu, ipv6 }: GuestInterface): string {
  return [name, mac, `${address}/${prefixLength}`, String(mtu), ...(ipv6 ? [`${ipv6.address}/${ipv6.prefixLength}`] : [])].join(' ')
}

/** NAME GATEWAY [GATEWAY6] */
function routeText({ interfaceName, gateway, gateway6 }: DefaultRoute): string {
  return [interfaceName, gateway, ...(gateway6 === '' ? [] : [gateway6])].join(' ')
}

/** QUERY what=network. */
export function networkChangeEntries(change: NetworkChange): TextEntry[] {
  const entries: TextEntry[] = []
  if (change.remove !== undefined) entries.push(['remove', change.remove])
  if (change.add) entries.push(['interface', interfaceText(change.add)])
  if (change.route) entries.push(['route', routeText(change.route)])
  for (const address of change.forget) entries.push(['forget', address])
  for (const line of change.hosts) entries.push(['host', line])
  if (change.resolvConf !== undefined) entries.push(['etc_resolv', change.resolvConf])
  return entries
}

/** What of its machine a container's configuration tells. */
export interface GuestParts {
  /** Limit of the container's cgroup, bytes. */
  memory: number
  /** As in {@link Machine}. */
  imageSlot: number
}

/** CONFIG: the machine's identity, network, disks and the container's limits. */
export function configEntries(spec: WorkloadSpec, guest: GuestParts, sockets: readonly SocketMount[] = []): TextEntry[] {
  const { resources, network } = spec
  const devices = guestDevices(guest.imageSlot)
  const entries: TextEntry[] = [
    ['hostname', spec.hostname],
    ['domainname', spec.domainname],
    ['etc_hosts', spec.files.hosts],
    ['etc_hostname', spec.files.hostname],
    ['etc_resolv', spec.files.resolvConf],
  ]
  if (network.mode === 'bridge') {
    entries.push(['net', 'eth'])
    for (const each of interfacesOf(network)) entries.push(['interface', interfaceText(each)])
    const route = network.route ?? { interfaceName: 'eth0', gateway: network.gateway, gateway6: '' }
    if (route.gateway !== '') entries.push(['route', routeText(route)])
  } else entries.push(['net', 'none'])
  entries.push(
    ['root', devices.root],
    ['disk', devices.disk],
    ['readonly', spec.readOnlyRootfs ? '1' : '0'],
    ['ephemeral', spec.ephemeral ? '1' : '0'],
    ['shm_size', String(spec.shmSize > 0 ? spec.shmSize : DEFAULT_SHM)],
  )
  for (const mount of mountEntries(spec.mounts, sockets)) entries.push(['mount', mount])
  for (const [name, value] of Object.entries(spec.sysctls)) entries.push(['sysctl', `${name}=${value}`])
  entries.push(
    ['memory', String(guest.memory)],
    // Docker's --memory-swap counts both; the guest has no swap of its own, so only the sum is passed on.
    ['swap', String(Math.max(0, resources.memorySwap))],
    ['reservation', String(Math.max(0, resources.memoryReservation))],
    ['pids', String(resources.pidsLimit > 0 ? resources.pidsLimit : 0)],
    ['init', spec.init ? '1' : '0'],
    ['privileged', spec.privileged ? '1' : '0'],
  )
  if (!spec.privileged) {
    for (const path of spec.maskedPaths) entries.push(['masked', path])
    for (const path of spec.readonlyPaths) entries.push(['ropath', path])
  }
  return entries
}

/** config.frames: read by the supervisor, passed on verbatim. */
export function configFrames(spec: WorkloadSpec, guest: GuestParts, sockets: readonly SocketMount[] = []): Buffer {
  return encodeFrames(FrameType.CONFIG, 0, encodeText(configEntries(spec, guest, sockets)))
}

/** run.frames: the main process, on stream 1. */
export function runFrames(spec: WorkloadSpec, capabilities: readonly string[]): Buffer {
  return encodeFrames(FrameType.RUN, 1, encodeText(processEntries(spec.process, mainContext(spec, capabilities))))
}

/** run.frames of a machine without a workload: its main process only waits (guest/PROTOCOL.md, "Files"). */
export function holdFrames(): Buffer {
  return encodeFrames(FrameType.RUN, 1, encodeText([['builtin', 'files'], ['arg', 'hold']]))
}

/** TEST-NET-1 (RFC 5737): nobody's. */
const NOBODYS: GuestInterface = { name: 'eth0', mac: PLACEHOLDER_MAC, address: '192.0.2.2', prefixLength: 24, mtu: 1500 }

/**
 * rehearse.frames: CONFIG and RUN of a container of this shape that is nobody's. No name, address, variable, file, mount or command of the user's is in it: what is kept is what decides which
 * ways a start takes through kernel and agent. Nor is there a tmpfs: the directory that it is mounted on would stay in the machine's disk, and the next container of the shape need not have it.
 */
export function rehearseFrames(spec: WorkloadSpec, guest: GuestParts, capabilities: readonly string[]): Buffer {
  const nobody: WorkloadSpec = {
    ...spec, hostname: 'hull', domainname: '', sysctls: {}, init: false, ephemeral: false, openStdin: false,
    files: { hosts: '127.0.0.1\tlocalhost\n', hostname: 'hull\n', resolvConf: 'nameserver 192.0.2.1\n' },
    mounts: [],
    network: spec.network.mode === 'bridge' ? { ...NOBODYS, mode: 'bridge', gateway: '192.0.2.1', interfaces: [NOBODYS], route: { interfaceName: 'eth0', gateway: '192.0.2.1', gateway6: '' } } : { mode: 'none' },
    process: { args: ['hull-agent', '--rehearsal'], env: [], cwd: '/', user: '', groupAdd: [], tty: false, privileged: false },
  }
  return encodeFrames(FrameType.REHEARSE, 0, encodeText([...configEntries(nobody, guest), ...processEntries(nobody.process, mainContext(nobody, capabilities))]))
}

/** What the main process gets from its container. */
export function mainContext(spec: WorkloadSpec, capabilities: readonly string[]): ProcessContext {
  return {
    hostname: spec.hostname,
    capabilities,
    noNewPrivileges: spec.noNewPrivileges,
    ulimits: spec.resources.ulimits,
    oomScoreAdj: spec.resources.oomScoreAdj,
    stdin: spec.openStdin,
  }
}
