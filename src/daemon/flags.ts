import { createHash } from 'node:crypto'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { messageOf } from '../base/errors.js'
import type { Level } from '../base/log.js'
import { diskBytesOf } from '../engine/storage-opt.js'
import { checkInsecureRegistry } from '../image/registry/settings.js'
import type { Isolation } from '../sandbox/types.js'
import { defaultDiskBytes } from '../storage/disk.js'

/** What `hull daemon` was told. Where dockerd has a flag it has dockerd's name. */
export interface DaemonFlags {
  /** Paths of unix sockets to listen on. */
  sockets: string[]
  dataRoot: string
  execRoot: string
  pidfile: string
  group: string
  defaultIsolation: Isolation
  defaultRuntime: string
  /** '' : choose a free one and keep it. */
  bip: string
  bridge: string
  mtu: number
  /** Who carries published ports: the kernel's NAT, or the daemon's sockets behind the host's input rules. */
  publishedPorts: 'nat' | 'input'
  /** '' off; 'default', or 'USER[:GROUP]' by name or number as in /etc/subuid. For process isolation. */
  usernsRemap: string
  logLevel: Level
  /** Registries without a valid certificate, or without TLS: 'host:port' or CIDR. */
  insecureRegistries: string[]
  /** Virtual machines that are made ahead for each shape that is started again and again; 0: none. */
  vmPool: number
  /** Top cgroup of everything this daemon runs. */
  cgroupParent: string
  /** Size of the writable disk of VMs whose `--storage-opt` says nothing. */
  vmDiskBytes: number
  /** Do not serve: delete what a daemon with these flags leaves in the kernel on purpose (bridge, nftables table, cgroup), and end. */
  cleanup: boolean
}

const usage = `Usage: hull daemon [OPTIONS]

  -H, --host unix://PATH          Socket to listen on, may repeat (default unix:///run/hull/hull.sock)
      --data-root DIR             Persistent state (default /var/lib/hull)
      --exec-root DIR             Runtime state (default /run/hull)
  -p, --pidfile FILE              (default EXEC-ROOT/hulld.pid)
  -G, --group NAME                Group of the socket (default hull)
      --default-isolation NAME    process or vm: what "default" means (default process)
      --default-runtime NAME      OCI runtime for process isolation (default crun)
      --bip CIDR                  Address and subnet of the bridge (default: a free one, then kept)
      --bridge NAME               Name of the bridge that this daemon makes (default hull0, or one derived from the data root)
      --mtu N                     MTU of the bridge (default 1500)
      --published-ports MODE      nat: the kernel forwards them, past the host's input rules, as Docker does (default);
                                  input: the host's firewall decides about them (ufw allow 8080/tcp); slower, see docs/docker-api.md
      --userns-remap WHO          Containers' ids are other ids on the host: default, or USER[:GROUP] of /etc/subuid and /etc/subgid
  -l, --log-level LEVEL           debug, info, warn or error (default info)
      --insecure-registry LIST    HOST[:PORT] or CIDR of registries whose certificates are not verified and that may lack TLS, may repeat
      --vm-pool N                 Virtual machines that wait, restored and rehearsed, for each shape that is started again and again:
                                  0 (none) to 16 (default 1; up to four times as many while starts follow each other closely,
                                  and of all shapes together eight, or twice N)
      --storage-opt vm.size=SIZE  Size of the writable disk of VMs without a --storage-opt of their own (default 10G)
      --cgroup-parent PATH        (default /hull, or one derived from the data root)
      --cleanup                   Do not serve: remove the bridge, nftables table and cgroup of a daemon with these flags, and end
`

/** Thrown for a bad command line; `message` is for people. `help`: they asked. */
export class UsageError extends Error {
  constructor(
    message: string,
    readonly help = false,
  ) {
    super(message)
  }
}

const defaultDataRoot = '/var/lib/hull'

/** dockerd's form: the storage driver's name stands before the option's. The one driver of ours with options is the disks of VMs. */
function storageOptions(options: readonly string[]): number {
  let bytes = defaultDiskBytes
  for (const option of options) {
    const separator = option.indexOf('=')
    if (separator < 0) throw new UsageError(`--storage-opt ${option}: unable to parse key/value option`)
    const name = option.slice(0, separator).toLowerCase()
    if (name !== 'vm.size') throw new UsageError(`--storage-opt ${option}: unknown option ${name}: want vm.size`)
    try {
      bytes = diskBytesOf(option.slice(separator + 1))
    } catch (error) {
      throw new UsageError(`--storage-opt ${option}: ${messageOf(error)}`)
    }
  }
  return bytes
}

/** Parses the arguments after `hull daemon`. */
export function parseFlags(argv: string[]): DaemonFlags {
  let values
  try {
    ;({ values } = parseArgs({
      args: argv,
      allowPositionals: false,
      options: {
        host: { type: 'string', short: 'H', multiple: true },
        'data-root': { type: 'string' },
        'exec-root': { type: 'string' },
        pidfile: { type: 'string', short: 'p' },
        group: { type: 'string', short: 'G' },
        'default-isolation': { type: 'string' },
        'default-runtime': { type: 'string' },
        bip: { type: 'string' },
        bridge: { type: 'string' },
        mtu: { type: 'string' },
        'published-ports': { type: 'string' },
        'userns-remap': { type: 'string' },
        'log-level': { type: 'string', short: 'l' },
        'insecure-registry': { type: 'string', multiple: true },
        'vm-pool': { type: 'string' },
        'storage-opt': { type: 'string', multiple: true },
        'cgroup-parent': { type: 'string' },
        cleanup: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }))
  } catch (error) {
    throw new UsageError(`${error instanceof Error ? error.message : String(error)}\n\n${usage}`)
  }
  if (values.help) throw new UsageError(usage, true)
  const sockets = (values.host ?? ['unix:///run/hull/hull.sock']).map((host) => {
    const match = /^unix:\/\/(\/.+)$/.exec(host)
    if (!match) throw new UsageError(`-H ${host}: only unix:///PATH is supported: Hull does not listen on the network`)
    if (Buffer.byteLength(match[1]!) > 107) throw new UsageError(`-H ${host}: the path is longer than a socket's may be (107 bytes, unix(7))`)
    return match[1]!
  })
  const isolation = values['default-isolation'] ?? 'process'
  if (isolation !== 'process' && isolation !== 'vm') throw new UsageError(`--default-isolation ${isolation}: want process or vm`)
  const level = values['log-level'] ?? 'info'
  if (level !== 'debug' && level !== 'info' && level !== 'warn' && level !== 'error') {
    throw new UsageError(`--log-level ${level}: want debug, info, warn or error`)
  }
  const insecureRegistries = (values['insecure-registry'] ?? []).map((text) => {
    try {
      return checkInsecureRegistry(text)
    } catch (error) {
      throw new UsageError(`--insecure-registry: ${error instanceof Error ? error.message : String(error)}`)
    }
  })
  const publishedPorts = values['published-ports'] ?? 'nat'
  if (publishedPorts !== 'nat' && publishedPorts !== 'input') throw new UsageError(`--published-ports ${publishedPorts}: want nat or input`)
  const mtu = Number(values.mtu ?? 1500)
  if (!Number.isInteger(mtu) || mtu < 576 || mtu > 65_535) throw new UsageError(`--mtu ${values.mtu}: want a number from 576 to 65535`)
  if (values['vm-pool'] !== undefined && !/^(\d|1[0-6])$/.test(values['vm-pool'])) throw new UsageError(`--vm-pool ${values['vm-pool']}: want a number from 0 to 16`)
  if (values.bip !== undefined && !/^\d{1,3}(\.\d{1,3}){3}\/\d{1,2}$/.test(values.bip)) {
    throw new UsageError(`--bip ${values.bip}: want an address with a prefix length, such as 172.29.0.1/16`)
  }
  const dataRoot = resolve(values['data-root'] ?? defaultDataRoot)
  const execRoot = resolve(values['exec-root'] ?? '/run/hull')
  // Several daemons live side by side when nothing that the kernel knows by name is shared: names follow from the data root.
  const suffix = dataRoot === defaultDataRoot ? '' : createHash('sha256').update(dataRoot).digest('hex').slice(0, 6)
  const bridge = values.bridge ?? (suffix ? `hull${suffix}` : 'hull0')
  if (!/^[a-zA-Z][a-zA-Z0-9_-]{0,14}$/.test(bridge)) throw new UsageError(`--bridge ${bridge}: want at most 15 letters, digits, - or _`)
  return {
    sockets,
    dataRoot,
    execRoot,
    pidfile: resolve(values.pidfile ?? `${execRoot}/hulld.pid`),
    group: values.group ?? 'hull',
    defaultIsolation: isolation,
    defaultRuntime: values['default-runtime'] ?? 'crun',
    bip: values.bip ?? '',
    bridge,
    mtu,
    publishedPorts,
    usernsRemap: values['userns-remap'] ?? '',
    logLevel: level,
    insecureRegistries,
    cleanup: values.cleanup ?? false,
    vmPool: Number(values['vm-pool'] ?? 1),
    vmDiskBytes: storageOptions(values['storage-opt'] ?? []),
    cgroupParent: values['cgroup-parent']?.replace(/^(?!\/)/, '/') ?? (suffix ? `/hull-${suffix}` : '/hull'),
  }
}
