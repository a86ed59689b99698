import type { SeccompConfig } from './seccomp.js'

/** runtime-spec config.md, mounts. */
export interface OciMount {
  destination: string
  type?: string
  source?: string
  options?: string[]
}

/** A number where the spec says uint64 and means "no limit": RLIM_INFINITY does not fit into a JavaScript number. */
export const UNLIMITED = Symbol('RLIM_INFINITY')

export interface OciRlimit {
  /** 'RLIMIT_NOFILE' */
  type: string
  soft: number | typeof UNLIMITED
  hard: number | typeof UNLIMITED
}

export interface OciCapabilities {
  bounding: string[]
  effective?: string[]
  permitted?: string[]
  inheritable?: string[]
  ambient?: string[]
}

/** runtime-spec config.md, process. */
export interface OciProcess {
  terminal: boolean
  consoleSize?: { height: number; width: number }
  user: { uid: number; gid: number; umask?: number; additionalGids?: number[] }
  args: string[]
  env: string[]
  cwd: string
  capabilities?: OciCapabilities
  rlimits?: OciRlimit[]
  noNewPrivileges?: boolean
  oomScoreAdj?: number
}

/** runtime-spec config-linux.md, resources. */
export interface OciResources {
  devices?: OciDeviceRule[]
  memory?: { limit?: number; swap?: number; reservation?: number; disableOOMKiller?: boolean; swappiness?: number }
  cpu?: { shares?: number; quota?: number; period?: number; cpus?: string; mems?: string }
  pids?: { limit: number }
  blockIO?: OciBlockIo
}

/** An entry of the devices cgroup; without numbers: all. */
export interface OciDeviceRule {
  allow: boolean
  type?: string
  major?: number
  minor?: number
  access?: string
}

interface OciThrottle {
  major: number
  minor: number
  rate: number
}

export interface OciBlockIo {
  weight?: number
  weightDevice?: { major: number; minor: number; weight: number }[]
  throttleReadBpsDevice?: OciThrottle[]
  throttleWriteBpsDevice?: OciThrottle[]
  throttleReadIOPSDevice?: OciThrottle[]
  throttleWriteIOPSDevice?: OciThrottle[]
}

export interface OciDevice {
  path: string
  type: 'c' | 'b'
  major: number
  minor: number
  fileMode: number
  uid: number
  gid: number
}

export interface OciIdMapping {
  containerID: number
  hostID: number
  size: number
}

/** config.json: the parts of the OCI runtime-spec 1.0.2 that we write. */
export interface OciConfig {
  ociVersion: string
  process: OciProcess
  root: { path: string; readonly: boolean }
  hostname?: string
  domainname?: string
  mounts: OciMount[]
  annotations?: Record<string, string>
  linux: {
    namespaces: { type: string; path?: string }[]
    cgroupsPath: string
    resources?: OciResources
    devices?: OciDevice[]
    sysctl?: Record<string, string>
    seccomp?: SeccompConfig
    maskedPaths?: string[]
    readonlyPaths?: string[]
    rootfsPropagation?: string
    uidMappings?: OciIdMapping[]
    gidMappings?: OciIdMapping[]
  }
}

/** JSON with {@link UNLIMITED} written as the number that it is. */
export function serialize(value: OciConfig | OciProcess | OciResources): string {
  const mark = `unlimited-${Math.random().toString(36).slice(2)}-${Date.now()}`
  const text = JSON.stringify(value, (_key, part: unknown) => (part === UNLIMITED ? mark : part))
  return text.replaceAll(`"${mark}"`, '18446744073709551615')
}
