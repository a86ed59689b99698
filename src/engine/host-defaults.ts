import { defaultSwap } from '../oci/resources.js'
import type { Isolation } from '../sandbox/types.js'
import type { HostConfig } from './config-types.js'

/** Size of /dev/shm when none is said, bytes. */
const defaultShm = 64 << 20

/**
 * HostConfig as `inspect` shows it: what was not said has the value that it works out to, as Docker fills in at creation (moby, adaptContainerSettings). Clients go by
 * some of these: docker-py reads a container's output only when its log driver is named. The record keeps what was said, where "not said" goes on to mean the default.
 */
export function withDefaults(host: HostConfig, isolation: Isolation, defaultRuntime: string): HostConfig {
  return {
    ...host,
    Isolation: isolation,
    LogConfig: { ...host.LogConfig, Type: host.LogConfig.Type || 'json-file' },
    RestartPolicy: { ...host.RestartPolicy, Name: host.RestartPolicy.Name || 'no' },
    IpcMode: host.IpcMode || 'private',
    CgroupnsMode: host.CgroupnsMode || 'private',
    ShmSize: host.ShmSize || defaultShm,
    MemorySwap: host.Memory > 0 && host.MemorySwap === 0 ? defaultSwap(host.Memory) : host.MemorySwap,
    // A VM has no OCI runtime to choose.
    Runtime: host.Runtime || (isolation === 'process' ? defaultRuntime : ''),
  }
}
