import { cpus } from 'node:os'
import { badRequest, notImplemented } from '../base/errors.js'
import type { IdMap } from '../host/subid.js'
import type { Isolation } from '../sandbox/types.js'
import { refuseForVm } from './namespaces.js'
import type { CreateContainerRequest, HostConfig } from './api-types.js'
import { checkLogConfig, logWarnings } from './log-config.js'
import { diskSize } from './storage-opt.js'

const mebibyte = 1024 * 1024

/** Numbers of a cpuset list such as '0-1,3' (cpuset(7), list format); undefined when it is not one. */
export function parseCpuList(text: string): number[] | undefined {
  const numbers: number[] = []
  for (const part of text.split(',')) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part.trim())
    if (!match) return undefined
    const first = Number(match[1])
    const last = Number(match[2] ?? match[1])
    if (last < first || last - first > 8192) return undefined
    for (let cpu = first; cpu <= last; cpu++) numbers.push(cpu)
  }
  return numbers
}

/** The limits of a request, checked as moby does (daemon_unix.go, verifyPlatformContainerResources). Throws 400. Changes nothing. */
export function checkResources(host: HostConfig, options: { update: boolean } = { update: false }): void {
  const available = cpus().length
  if (host.Memory < 0) throw badRequest('Invalid memory limit: it cannot be negative')
  if (host.Memory > 0 && host.Memory < 6 * mebibyte) throw badRequest('Minimum memory limit allowed is 6MB')
  if (!options.update && host.MemorySwap > 0 && host.Memory === 0) {
    throw badRequest('You should always set the Memory limit when using Memoryswap limit, see usage')
  }
  if (host.MemorySwap > 0 && host.MemorySwap < host.Memory) {
    throw badRequest('Minimum memoryswap limit should be larger than memory limit, see usage')
  }
  if (host.MemoryReservation > 0 && host.MemoryReservation < 6 * mebibyte) throw badRequest('Minimum memory reservation allowed is 6MB')
  if (host.Memory > 0 && host.MemoryReservation > host.Memory) {
    throw badRequest('Minimum memory limit can not be less than memory reservation limit, see usage')
  }
  if (host.NanoCpus !== 0) {
    if (host.CpuPeriod > 0) throw badRequest('Conflicting options: Nano CPUs and CPU Period cannot both be set')
    if (host.CpuQuota > 0) throw badRequest('Conflicting options: Nano CPUs and CPU Quota cannot both be set')
    // Less than the message's 0.01 comes to a quota that no kernel takes.
    if (host.NanoCpus < 1e7 || host.NanoCpus > available * 1e9) {
      throw badRequest(`range of CPUs is from 0.01 to ${available}.00, as there are only ${available} CPUs available`)
    }
  }
  if (host.CpuPeriod !== 0 && (host.CpuPeriod < 1000 || host.CpuPeriod > 1_000_000)) {
    throw badRequest('CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)')
  }
  if (host.CpuQuota > 0 && host.CpuQuota < 1000) throw badRequest('CPU cfs quota can not be less than 1ms (i.e. 1000)')
  // The kernel's own limit (kernel/sched/core.c, max_cfs_runtime), in microseconds.
  if (host.CpuQuota >= 2 ** 44) throw badRequest('CPU cfs quota is larger than the kernel takes')
  if (host.CpuShares < 0) throw badRequest(`shares must be positive: ${host.CpuShares}`)
  if (host.CpusetCpus !== '') {
    const wanted = parseCpuList(host.CpusetCpus)
    if (!wanted) throw badRequest(`Invalid value ${host.CpusetCpus} for cpuset cpus`)
    if (wanted.some((cpu) => cpu >= available)) {
      throw badRequest(`Requested CPUs are not available - requested ${host.CpusetCpus}, available: 0-${available - 1}`)
    }
  }
  if (host.CpusetMems !== '' && !parseCpuList(host.CpusetMems)) throw badRequest(`Invalid value ${host.CpusetMems} for cpuset mems`)
  if (host.OomScoreAdj < -1000 || host.OomScoreAdj > 1000) {
    throw badRequest(`Invalid value ${host.OomScoreAdj}, range for oom score adj is [-1000, 1000]`)
  }
  if (host.MemorySwappiness !== null && (host.MemorySwappiness < -1 || host.MemorySwappiness > 100)) {
    throw badRequest(`Invalid value: ${host.MemorySwappiness}, valid memory swappiness range is 0-100`)
  }
  if (host.ShmSize < 0) throw badRequest('SHM size can not be less than 0')
  if (host.BlkioWeight !== 0 && (host.BlkioWeight < 10 || host.BlkioWeight > 1000)) {
    throw badRequest('Range of blkio weight is from 10 to 1000')
  }
  for (const { Name, Soft, Hard } of host.Ulimits) {
    if (Hard !== -1 && (Soft > Hard || Soft === -1)) {
      throw badRequest(`ulimit soft limit must be less than or equal to hard limit: ${Name}: ${Soft} > ${Hard}`)
    }
  }
}

/**
 * The ids of a container's user namespace: the daemon's (--userns-remap), unless it has `--userns host`. 400 in Docker's words for what a user namespace
 * would make meaningless (moby daemon_unix.go, verifyPlatformContainerSettings).
 */
export function idMapOf(host: HostConfig, daemon: IdMap | undefined): IdMap | undefined {
  if (!daemon || host.UsernsMode === 'host') return undefined
  if (host.Privileged) throw badRequest('privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode')
  if (host.NetworkMode === 'host') throw badRequest("cannot share the host's network namespace when user namespaces are enabled")
  if (host.IpcMode === 'host') throw badRequest("cannot share the host's IPC namespace when user namespaces are enabled")
  if (host.PidMode === 'host') throw badRequest('cannot share the host PID namespace when user namespaces are enabled')
  return daemon
}

/** What --security-opt said. */
export interface SecurityOptions {
  noNewPrivileges: boolean
  /** 'default', 'unconfined' or the text of a profile. */
  seccomp: string
}

/** Docker's --security-opt. What Hull does not know is refused: a security option that is silently dropped is a hole. */
export function parseSecurityOptions(options: readonly string[], privileged: boolean): SecurityOptions {
  const result: SecurityOptions = { noNewPrivileges: false, seccomp: privileged ? 'unconfined' : 'default' }
  for (const option of options) {
    const separator = /[=:]/.exec(option)
    const name = separator ? option.slice(0, separator.index) : option
    const value = separator ? option.slice(separator.index + 1) : ''
    if (name === 'no-new-privileges') {
      if (!['', 'true', 'false'].includes(value)) throw badRequest(`invalid --security-opt 2: "${option}"`)
      result.noNewPrivileges = value !== 'false'
    } else if (name === 'seccomp') {
      if (value === '') throw badRequest(`invalid --security-opt 2: "${option}"`)
      result.seccomp = value === 'builtin' ? 'default' : value
    } else if ((name === 'apparmor' || name === 'label') && (value === 'unconfined' || value === 'disable')) {
      continue // neither is in force, so there is nothing to switch off
    } else {
      throw badRequest(`invalid --security-opt 2: "${option}" is not supported by Hull (no-new-privileges and seccomp are)`)
    }
  }
  return result
}

/**
 * Options that Hull does not have yet. Each would change what the workload is or how it is walled in, so none is dropped
 * silently: 501 with the option's name. What is merely cosmetic on Linux (ConsoleSize, CpuCount, …) passes.
 */
export function refuseUnsupported(request: CreateContainerRequest, isolation: Isolation): void {
  const host = request.hostConfig
  const refuse = (present: boolean, what: string) => {
    if (present) throw notImplemented(`${what} is not supported by Hull yet`)
  }
  if (isolation === 'vm') refuseForVm(host)
  for (const { Driver, Capabilities } of host.DeviceRequests) {
    throw badRequest(`could not select device driver ${JSON.stringify(Driver)} with capabilities: [${Capabilities.map((list) => `[${list.join(' ')}]`).join(' ')}]`)
  }
  if (host.CpuRealtimePeriod !== 0) throw badRequest('Your kernel does not support CPU real-time period')
  if (host.CpuRealtimeRuntime !== 0) throw badRequest('Your kernel does not support CPU real-time runtime')
  if (host.UTSMode === 'host' && request.config.Hostname !== '') throw badRequest('conflicting options: hostname and the UTS mode')
  diskSize(host.StorageOpt, isolation)
  refuse(['awslogs', 'etwlogs', 'fluentd', 'gcplogs', 'gelf', 'journald', 'splunk', 'syslog'].includes(host.LogConfig.Type), `--log-driver ${host.LogConfig.Type}`)
  checkLogConfig(host.LogConfig)
  for (const mount of request.mounts) {
    refuse(!['bind', 'volume', 'tmpfs'].includes(mount.type), `a mount of type ${mount.type} (${mount.target})`)
  }
  const mode = host.NetworkMode
  if (mode === 'host' && isolation === 'vm') {
    throw badRequest('--network host is not possible with isolation vm: a virtual machine has a network stack of its own')
  }
  if (mode.startsWith('container:') && isolation === 'vm') {
    throw badRequest(`--network ${mode} is not possible with isolation vm: a virtual machine has a network stack of its own`)
  }
  for (const port of request.ports) refuse(port.protocol === 'sctp', 'publishing an SCTP port')
  if (request.ports.length > 0 && mode === 'host') return // moby: published ports are discarded with host networking
}

/** Options that are taken and do nothing, said so that nobody counts on them. */
export function ignoredWarnings(host: HostConfig, isolation: Isolation): string[] {
  const warnings: string[] = []
  warnings.push(...logWarnings(host.LogConfig))
  if (isolation === 'vm') {
    if (host.MemorySwappiness !== null && host.MemorySwappiness !== -1) warnings.push('isolation vm: memory swappiness is discarded: the guest\'s cgroups (v2) have no such setting.')
    if (host.OomKillDisable) warnings.push('isolation vm: OomKillDisable is discarded: the guest\'s cgroups (v2) have no such setting.')
  }
  if (host.KernelMemoryTCP > 0) warnings.push('A kernel memory TCP limit is not applied.')
  return warnings
}
