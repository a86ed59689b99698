import { open, type FileHandle } from 'node:fs/promises'
import { badRequest, conflict, notFound } from '../base/errors.js'
import type { NamespaceChoice, SandboxAttachments } from '../sandbox/types.js'
import type { HostConfig } from './config-types.js'
import type { Container } from './container.js'
import type { ContainerRegistry } from './registry.js'
import type { ContainerRecord } from './store.js'

const prefix = 'container:'
/** Of 'container:NAME': NAME. */
export const donorOf = (mode: string) => (mode.startsWith(prefix) ? mode.slice(prefix.length) : undefined)

/** PidMode, IpcMode, UTSMode, CgroupnsMode and NetworkMode as the sandbox takes them; undefined: all its own. */
export function namespaceChoice(host: HostConfig): NamespaceChoice | undefined {
  const choice: NamespaceChoice = {}
  if (host.PidMode === 'host') choice.pid = 'host'
  else if (donorOf(host.PidMode) !== undefined) choice.pid = 'joined'
  if (host.IpcMode === 'host' || host.IpcMode === 'none' || host.IpcMode === 'shareable') choice.ipc = host.IpcMode
  else if (donorOf(host.IpcMode) !== undefined) choice.ipc = 'joined'
  if (host.UTSMode === 'host') choice.uts = 'host'
  if (host.CgroupnsMode === 'host') choice.cgroup = 'host'
  if (donorOf(host.NetworkMode) !== undefined) choice.network = 'joined'
  return Object.keys(choice).length > 0 ? choice : undefined
}

/** A machine has namespaces of its own kernel, and no way into the host's. 400. */
export function refuseForVm(host: HostConfig): void {
  const refuse = (option: string, why: string) => {
    throw badRequest(`${option} is not possible with isolation vm: ${why}; use --isolation process`)
  }
  const own = 'a virtual machine has a kernel of its own'
  if (host.PidMode !== '' && host.PidMode !== 'private') refuse(`--pid ${host.PidMode}`, own)
  if (host.IpcMode === 'host' || host.IpcMode.startsWith(prefix)) refuse(`--ipc ${host.IpcMode}`, own)
  if (host.UTSMode === 'host') refuse('--uts host', own)
  if (host.CgroupnsMode === 'host') refuse('--cgroupns host', own)
  if (host.Devices.length > 0) refuse(`--device ${host.Devices[0]!.PathOnHost}`, 'the host\'s devices are not reachable from a virtual machine')
  if (host.DeviceCgroupRules.length > 0) refuse('--device-cgroup-rule', 'the host\'s devices are not reachable from a virtual machine')
}

/** Names of containers in PidMode and IpcMode as IDs: a later container of that name is another one (moby adaptSharedNamespaceContainer). */
export function withDonorIds(host: HostConfig, registry: ContainerRegistry): HostConfig {
  const resolved = (mode: string) => {
    const donor = donorOf(mode)
    return donor === undefined ? mode : `${prefix}${registry.find(donor)?.id ?? idOf(donor, registry)}`
  }
  return { ...host, PidMode: resolved(host.PidMode), IpcMode: resolved(host.IpcMode) }
}

function idOf(reference: string, registry: ContainerRegistry): string {
  try {
    return registry.get(reference).id
  } catch {
    return reference // told at the start, as in Docker
  }
}

/** The namespaces of other containers that one joins; `close` when its sandbox is made. */
export interface JoinedNamespaces {
  attachments: Pick<SandboxAttachments, 'pidnsPath' | 'ipcnsPath' | 'shmPath'>
  close: () => Promise<void>
}

/** Opens the namespaces that a container joins, from the containers that have them now. Refuses in Docker's words. */
export async function joinNamespaces(record: ContainerRecord, registry: ContainerRegistry, execRoot: string): Promise<JoinedNamespaces> {
  const attachments: JoinedNamespaces['attachments'] = {}
  const files: FileHandle[] = []
  const close = async () => {
    for (const file of files.splice(0)) await file.close()
  }
  /** Held open, and then seen to be the donor's: by its pid alone the runtime could find another process there, the host's among them. */
  const join = async (mode: string, what: 'PID' | 'IPC'): Promise<{ path: string; donor: Container } | undefined> => {
    const reference = donorOf(mode)
    if (reference === undefined) return undefined
    const donor = registry.find(reference)
    if (!donor) throw badRequest(`No such container: ${reference}`, notFound(reference))
    if (donor.record.isolation === 'vm') throw badRequest(`cannot join ${what} of ${reference}: it is a virtual machine with a kernel of its own`)
    const notRunning = () => conflict(`cannot join ${what} of a non running container: ${reference}`)
    const { sandbox } = donor
    if (!donor.isUp || !sandbox) throw notRunning()
    if (sandbox.ownKernel) throw badRequest(`cannot join ${what} of ${reference}: it has a kernel of its own (gVisor)`)
    const file = await open(`/proc/${sandbox.pid}/ns/${what.toLowerCase()}`).catch(() => {
      throw notRunning()
    })
    files.push(file)
    if (!(await sandbox.signal(0))) throw notRunning()
    return { path: `/proc/${process.pid}/fd/${file.fd}`, donor }
  }
  try {
    const pid = await join(record.hostConfig.PidMode, 'PID')
    if (pid) attachments.pidnsPath = pid.path
    const ipc = await join(record.hostConfig.IpcMode, 'IPC')
    if (ipc) {
      if (ipc.donor.record.hostConfig.IpcMode !== 'shareable') throw badRequest(`container ${ipc.donor.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`)
      attachments.ipcnsPath = ipc.path
      attachments.shmPath = `${execRoot}/containers/${ipc.donor.id}/shm`
    }
    return { attachments, close }
  } catch (error) {
    await close()
    throw error
  }
}
