import type { Command } from 'commander'
import { boolFlag, collect, integer, listFlag, numberFlag, parsedBy, textFlag, type Flags } from '../command.js'
import { UsageError } from '../errors.js'
import { parseBytes, parseCpus, requireDuration } from '../format/units.js'
import { parsePorts } from './ports.js'
import {
  parseDevice, parseEnvironment, parseMap, parseMount, parseRestartPolicy, parseSecurityOptions, parseTmpfs, parseUlimit, parseVolumes,
  readKeyValueFile,
} from './values.js'

/** The flags that `run` and `create` share, with the names, letters and help texts of the docker CLI. */
export function containerFlags(command: Command): void {
  const text = (flags: string, help: string) => command.option(`${flags} <string>`, help)
  const many = (flags: string, help: string) => command.option(`${flags} <list>`, help, collect)
  const bytes = (flags: string, help: string, special?: string) => command.option(`${flags} <bytes>`, help, parsedBy(flags, (value) => (value === special ? -1 : parseBytes(value))))
  const int = (flags: string, help: string) => command.option(`${flags} <int>`, help, integer(flags))
  const time = (flags: string, help: string) => command.option(`${flags} <duration>`, help, parsedBy(flags, requireDuration))

  many('--add-host', 'Add a custom host-to-IP mapping (host:ip)')
  many('--annotation', 'Add an annotation to the container')
  many('-a, --attach', 'Attach to STDIN, STDOUT or STDERR')
  int('--blkio-weight', 'Block IO (relative weight), between 10 and 1000')
  many('--cap-add', 'Add Linux capabilities')
  many('--cap-drop', 'Drop Linux capabilities')
  text('--cgroup-parent', 'Optional parent cgroup for the container')
  text('--cgroupns', 'Cgroup namespace to use (host|private)')
  text('--cidfile', 'Write the container ID to the file')
  int('--cpu-period', 'Limit CPU CFS (Completely Fair Scheduler) period')
  int('--cpu-quota', 'Limit CPU CFS (Completely Fair Scheduler) quota')
  int('-c, --cpu-shares', 'CPU shares (relative weight)')
  command.option('--cpus <decimal>', 'Number of CPUs', parsedBy('--cpus', parseCpus))
  text('--cpuset-cpus', 'CPUs in which to allow execution (0-3, 0,1)')
  text('--cpuset-mems', 'MEMs in which to allow execution (0-3, 0,1)')
  many('--device', 'Add a host device to the container')
  many('--dns', 'Set custom DNS servers')
  many('--dns-option', 'Set DNS options')
  many('--dns-search', 'Set custom DNS search domains')
  text('--domainname', 'Container NIS domain name')
  text('--entrypoint', 'Overwrite the default ENTRYPOINT of the image')
  many('-e, --env', 'Set environment variables')
  many('--env-file', 'Read in a file of environment variables')
  many('--expose', 'Expose a port or a range of ports')
  many('--group-add', 'Add additional groups to join')
  text('--health-cmd', 'Command to run to check health')
  time('--health-interval', 'Time between running the check (ms|s|m|h)')
  int('--health-retries', 'Consecutive failures needed to report unhealthy')
  time('--health-start-interval', 'Time between running the check during the start period (ms|s|m|h)')
  time('--health-start-period', 'Start period for the container to initialize before starting health-retries countdown (ms|s|m|h)')
  time('--health-timeout', 'Maximum time to allow one check to run (ms|s|m|h)')
  text('-h, --hostname', 'Container host name')
  command.option('--init', 'Run an init inside the container that forwards signals and reaps processes')
  command.option('-i, --interactive', 'Keep STDIN open even if not attached')
  text('--ip', 'IPv4 address (e.g., 172.30.100.104)')
  text('--ipc', 'IPC mode to use')
  text('--isolation', 'Container isolation technology: process, vm or default')
  many('-l, --label', 'Set meta data on a container')
  many('--label-file', 'Read in a line delimited file of labels')
  text('--log-driver', 'Logging driver for the container')
  many('--log-opt', 'Log driver options')
  text('--mac-address', 'Container MAC address (e.g., 92:d0:c6:0a:29:33)')
  bytes('-m, --memory', 'Memory limit')
  bytes('--memory-reservation', 'Memory soft limit')
  bytes('--memory-swap', "Swap limit equal to memory plus swap: '-1' to enable unlimited swap", '-1')
  int('--memory-swappiness', 'Tune container memory swappiness (0 to 100)')
  many('--mount', 'Attach a filesystem mount to the container')
  text('--name', 'Assign a name to the container')
  many('--network', 'Connect a container to a network: bridge, none, host or a name')
  many('--net', 'Connect a container to a network (the same as --network)')
  many('--network-alias', 'Add network-scoped alias for the container')
  command.option('--no-healthcheck', 'Disable any container-specified HEALTHCHECK')
  command.option('--oom-kill-disable', 'Disable OOM Killer')
  int('--oom-score-adj', "Tune host's OOM preferences (-1000 to 1000)")
  text('--pid', 'PID namespace to use')
  int('--pids-limit', 'Tune container pids limit (set -1 for unlimited)')
  text('--platform', 'Set platform if server is multi-platform capable')
  command.option('--privileged', 'Give extended privileges to this container')
  many('-p, --publish', "Publish a container's port(s) to the host")
  command.option('-P, --publish-all', 'Publish all exposed ports to random ports')
  text('--pull', 'Pull image before running ("always", "missing", "never")')
  command.option('-q, --quiet', 'Suppress the pull output')
  command.option('--read-only', "Mount the container's root filesystem as read only")
  text('--restart', 'Restart policy to apply when a container exits')
  command.option('--rm', 'Automatically remove the container and its associated anonymous volumes when it exits')
  text('--runtime', 'Runtime to use for this container')
  many('--security-opt', 'Security Options')
  bytes('--shm-size', 'Size of /dev/shm')
  text('--stop-signal', 'Signal to stop the container')
  int('--stop-timeout', 'Timeout (in seconds) to stop a container')
  many('--storage-opt', 'Storage driver options for the container')
  many('--sysctl', 'Sysctl options')
  many('--tmpfs', 'Mount a tmpfs directory')
  command.option('-t, --tty', 'Allocate a pseudo-TTY')
  many('--ulimit', 'Ulimit options')
  text('-u, --user', 'Username or UID (format: <name|uid>[:<group|gid>])')
  text('--userns', 'User namespace to use')
  text('--uts', 'UTS namespace to use')
  many('-v, --volume', 'Bind mount a volume')
  many('--volumes-from', 'Mount volumes from the specified container(s)')
  text('-w, --workdir', 'Working directory inside the container')
}

/** Which of our streams a container is given. */
export interface Attachments {
  stdin: boolean
  stdout: boolean
  stderr: boolean
}

/** --attach, or what follows from -d and -i without it. */
export function attachments(flags: Flags): Attachments {
  const given = listFlag(flags, 'attach').map((name) => name.toLowerCase())
  for (const name of given) {
    if (!['stdin', 'stdout', 'stderr'].includes(name)) throw new UsageError(`invalid argument "${name}" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR`)
  }
  // -i attaches our stdin whatever -a says: its workload would wait for an end of input that nobody sends.
  if (given.length > 0) return { stdin: given.includes('stdin') || boolFlag(flags, 'interactive'), stdout: given.includes('stdout'), stderr: given.includes('stderr') }
  const attached = !boolFlag(flags, 'detach')
  return { stdin: attached && boolFlag(flags, 'interactive'), stdout: attached, stderr: attached }
}

interface NetworkOptions { ip: string; aliases: string[]; mac: string; driverOptions: Record<string, string> }

function endpointOf({ ip, aliases, mac, driverOptions }: NetworkOptions): object {
  return compact({ IPAMConfig: ip ? { IPv4Address: ip } : undefined, Aliases: aliases, MacAddress: mac, DriverOpts: driverOptions })
}

/** One --network in its short ('name') or long ('name=…,alias=…,ip=…') form. */
function parseNetwork(value: string): { name: string; options: NetworkOptions } {
  const options: NetworkOptions = { ip: '', aliases: [], mac: '', driverOptions: {} }
  if (!value.includes('=')) return { name: value, options }
  const invalid = (why: string) => new UsageError(`invalid argument "${value}" for "--network" flag: ${why}`)
  const cut = (text: string): [string, string | undefined] => (text.includes('=') ? [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)] : [text, undefined])
  let name = ''
  for (const field of value.split(',')) {
    const [key, content = ''] = cut(field)
    switch (key) {
      case 'name': name = content; break
      case 'alias': options.aliases.push(content); break
      case 'ip': options.ip = content; break
      case 'mac-address': options.mac = content; break
      case 'driver-opt': {
        const [option, setting] = cut(content)
        if (setting === undefined) throw invalid('invalid key value pair format in driver options')
        options.driverOptions[option.trim().toLowerCase()] = setting.trim()
        break
      }
      // Came with API 1.48, which the daemon does not speak: it would not look at it.
      case 'gw-priority': throw invalid('gw-priority is not supported')
      default: throw invalid(`invalid field ${key}`)
    }
  }
  if (name === '') throw invalid('network name is missing')
  return { name, options }
}

/** The networks of --network. --ip and --network-alias are from before there could be several: they are the first network's. */
function networks(flags: Flags): { mode: string; endpoints: Record<string, object> } {
  const endpoints: Record<string, object> = {}
  const given = [...listFlag(flags, 'network'), ...listFlag(flags, 'net')].map(parseNetwork)
  const first = given[0]?.options ?? { ip: '', aliases: [], mac: '', driverOptions: {} }
  first.ip ||= textFlag(flags, 'ip')
  first.aliases.push(...listFlag(flags, 'networkAlias'))
  for (const { name, options } of given) {
    const endpoint = endpointOf(options)
    if (Object.keys(endpoint).length > 0 || (!['none', 'host'].includes(name) && !name.startsWith('container:'))) endpoints[name] = endpoint
  }
  if (given.length === 0 && Object.keys(endpointOf(first)).length > 0) endpoints.default = endpointOf(first)
  return { mode: given[0]?.name || 'default', endpoints }
}

function healthcheck(flags: Flags): object | undefined {
  if (flags.healthcheck === false) return { Test: ['NONE'] }
  const command = textFlag(flags, 'healthCmd')
  const numbers = {
    Interval: numberFlag(flags, 'healthInterval'), Timeout: numberFlag(flags, 'healthTimeout'), Retries: numberFlag(flags, 'healthRetries'),
    StartPeriod: numberFlag(flags, 'healthStartPeriod'), StartInterval: numberFlag(flags, 'healthStartInterval'),
  }
  if (command === '' && Object.values(numbers).every((value) => value === undefined)) return undefined
  return { ...(command ? { Test: ['CMD-SHELL', command] } : {}), ...numbers }
}

/** Object without what is empty: '', 0, false, [], {} and undefined mean "not said" everywhere in this body. */
function compact(object: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => {
    if (value === undefined || value === '' || value === false) return false
    return !(typeof value === 'object' && value !== null && Object.keys(value).length === 0)
  }))
}

/** The body of POST /containers/create for the flags of `run` or `create`. */
export function containerBody(flags: Flags, image: string, args: readonly string[], environment: NodeJS.ProcessEnv, cwd: string): Record<string, unknown> {
  const ports = parsePorts(listFlag(flags, 'publish'), listFlag(flags, 'expose'))
  const volumes = parseVolumes(listFlag(flags, 'volume'), cwd)
  const attached = attachments(flags)
  const network = networks(flags)
  const swappiness = numberFlag(flags, 'memorySwappiness')
  if (swappiness !== undefined && swappiness !== -1 && (swappiness < 0 || swappiness > 100)) {
    throw new UsageError(`invalid value: ${swappiness}. Valid memory swappiness range is 0-100`)
  }
  const restart = parseRestartPolicy(textFlag(flags, 'restart'))
  if (boolFlag(flags, 'rm') && restart.Name !== 'no') throw new UsageError('conflicting options: cannot specify both --restart and --rm')
  if (boolFlag(flags, 'detach') && listFlag(flags, 'attach').length > 0) throw new UsageError('conflicting options: cannot specify both --attach and --detach')
  const hostConfig = compact({
    Binds: volumes.binds,
    LogConfig: compact({ Type: textFlag(flags, 'logDriver'), Config: parseMap(listFlag(flags, 'logOpt')) }),
    NetworkMode: network.mode,
    PortBindings: ports.bindings,
    RestartPolicy: restart,
    AutoRemove: boolFlag(flags, 'rm'),
    VolumesFrom: listFlag(flags, 'volumesFrom'),
    CapAdd: listFlag(flags, 'capAdd'),
    CapDrop: listFlag(flags, 'capDrop'),
    CgroupnsMode: textFlag(flags, 'cgroupns'),
    Dns: listFlag(flags, 'dns'),
    DnsOptions: listFlag(flags, 'dnsOption'),
    DnsSearch: listFlag(flags, 'dnsSearch'),
    ExtraHosts: listFlag(flags, 'addHost').map((line) => line.replace('=', ':')),
    GroupAdd: listFlag(flags, 'groupAdd'),
    IpcMode: textFlag(flags, 'ipc'),
    OomScoreAdj: numberFlag(flags, 'oomScoreAdj'),
    PidMode: textFlag(flags, 'pid'),
    Privileged: boolFlag(flags, 'privileged'),
    PublishAllPorts: boolFlag(flags, 'publishAll'),
    ReadonlyRootfs: boolFlag(flags, 'readOnly'),
    SecurityOpt: parseSecurityOptions(listFlag(flags, 'securityOpt')),
    StorageOpt: parseMap(listFlag(flags, 'storageOpt')),
    Tmpfs: parseTmpfs(listFlag(flags, 'tmpfs')),
    UTSMode: textFlag(flags, 'uts'),
    UsernsMode: textFlag(flags, 'userns'),
    ShmSize: numberFlag(flags, 'shmSize'),
    Sysctls: parseMap(listFlag(flags, 'sysctl')),
    Runtime: textFlag(flags, 'runtime'),
    Isolation: textFlag(flags, 'isolation'),
    CpuShares: numberFlag(flags, 'cpuShares'),
    Memory: numberFlag(flags, 'memory'),
    NanoCpus: numberFlag(flags, 'cpus'),
    CgroupParent: textFlag(flags, 'cgroupParent'),
    BlkioWeight: numberFlag(flags, 'blkioWeight'),
    CpuPeriod: numberFlag(flags, 'cpuPeriod'),
    CpuQuota: numberFlag(flags, 'cpuQuota'),
    CpusetCpus: textFlag(flags, 'cpusetCpus'),
    CpusetMems: textFlag(flags, 'cpusetMems'),
    Devices: listFlag(flags, 'device').map(parseDevice),
    MemoryReservation: numberFlag(flags, 'memoryReservation'),
    MemorySwap: numberFlag(flags, 'memorySwap'),
    MemorySwappiness: swappiness,
    OomKillDisable: boolFlag(flags, 'oomKillDisable'),
    PidsLimit: numberFlag(flags, 'pidsLimit'),
    Ulimits: listFlag(flags, 'ulimit').map(parseUlimit).sort((a, b) => (a.Name < b.Name ? -1 : 1)),
    Mounts: listFlag(flags, 'mount').map((flag) => parsedBy('--mount', parseMount)(flag)),
    Annotations: parseMap(listFlag(flags, 'annotation')),
    Init: flags.init === true ? true : undefined,
  })
  return compact({
    Hostname: textFlag(flags, 'hostname'),
    Domainname: textFlag(flags, 'domainname'),
    User: textFlag(flags, 'user'),
    AttachStdin: attached.stdin,
    AttachStdout: attached.stdout,
    AttachStderr: attached.stderr,
    ExposedPorts: ports.exposed,
    Tty: boolFlag(flags, 'tty'),
    OpenStdin: boolFlag(flags, 'interactive'),
    StdinOnce: attached.stdin && boolFlag(flags, 'interactive'),
    Env: parseEnvironment(listFlag(flags, 'env'), listFlag(flags, 'envFile'), environment),
    Cmd: args,
    Healthcheck: healthcheck(flags),
    Image: image,
    Volumes: volumes.anonymous,
    WorkingDir: textFlag(flags, 'workdir'),
    // --entrypoint '' clears the image's: the API spells that [''].
    Entrypoint: flags.entrypoint === undefined ? undefined : [textFlag(flags, 'entrypoint')],
    Labels: parseMap([...listFlag(flags, 'labelFile').flatMap((file) => readKeyValueFile(file)), ...listFlag(flags, 'label')]),
    StopSignal: textFlag(flags, 'stopSignal'),
    StopTimeout: numberFlag(flags, 'stopTimeout'),
    MacAddress: textFlag(flags, 'macAddress'),
    HostConfig: hostConfig,
    NetworkingConfig: { EndpointsConfig: network.endpoints },
  })
}
