import { defaultSwap } from '../oci/resources.js'
import type { HostConfig } from './api-types.js'
import { maskedPaths, readonlyPaths } from '../sandbox/hidden-paths.js'

/** Docker's default for /dev/shm, bytes. */
const defaultShmSize = 64 << 20

/** HostConfig as Docker keeps and shows it: what the user left open is filled in when the container is made (moby adaptContainerSettings). */
export function adaptHostConfig(host: HostConfig): HostConfig {
  return {
    ...host,
    MemorySwap: host.Memory > 0 && host.MemorySwap === 0 ? defaultSwap(host.Memory) : host.MemorySwap,
    ShmSize: host.ShmSize === 0 ? defaultShmSize : host.ShmSize,
    OomKillDisable: host.OomKillDisable ?? false,
    MaskedPaths: host.MaskedPaths ?? (host.Privileged ? null : maskedPaths),
    ReadonlyPaths: host.ReadonlyPaths ?? (host.Privileged ? null : readonlyPaths),
    // The kernel's range (moby: linuxMinCPUShares, linuxMaxCPUShares).
    CpuShares: host.CpuShares > 0 ? Math.min(262_144, Math.max(2, host.CpuShares)) : host.CpuShares,
  }
}
