import { readdir, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from '../../base/run.js'
import type { Cgroup } from '../../host/cgroup.js'
import { cpuStats, memoryStats, pidsStats } from '../../host/cgroup-stats.js'
import { childrenOf, commandLine, namespacesOf, processStatus } from '../../host/process.js'
import { parseMountinfo } from '../../host/mountinfo.js'
import { readIfExists } from '../../base/files.js'
import { limitsInForce } from '../../oci/resources.js'
import type { Facts } from '../types.js'
import type { VmClient } from './client.js'
import type { FileServer } from './fileserver.js'
import { cleanMessage } from './protocol.js'
import { parseProcesses } from './ps.js'
import type { VmRecord } from './record.js'

/** What is asked about. */
export interface ExplainInput {
  /** Host pid of hull-vmm. */
  supervisor: number
  /** Host pid of hull-monitor. */
  monitor: number
  record: VmRecord
  cgroup: Cgroup
  client: VmClient
  files?: FileServer | undefined
}

type Row = [name: string, value: string]

const mebibytes = (bytes: number) => `${Math.round(bytes / (1 << 20))} MiB`
const unknown = 'unknown'

/** The value that follows an option of QEMU's real command line. */
function option(args: readonly string[], name: string): string {
  const index = args.indexOf(name)
  return index < 0 ? unknown : (args[index + 1] ?? unknown)
}

const versions = new Map<string, Promise<string>>()

/** 'QEMU 7.2.22 (Debian …)': what the very files in a jail say of themselves, run by the jail's own loader. A jail never changes: asked once. */
export function hypervisorVersion(jailRoot: string): Promise<string> {
  let version = versions.get(jailRoot)
  if (!version) {
    version = run(
      join(jailRoot, 'lib64/ld-linux-x86-64.so.2'),
      ['--library-path', join(jailRoot, 'lib/x86_64-linux-gnu'), join(jailRoot, 'qemu-system-x86_64'), '--version'],
      { timeoutMs: 5000, env: {} },
    ).then(
      (result) => result.stdout.split('\n', 1)[0]!.replace(/^QEMU emulator version /, 'QEMU ') || 'QEMU',
      () => 'QEMU',
    )
    versions.set(jailRoot, version)
  }
  return version
}

/** Files that a process holds open, with the mode in which the kernel let it open them. */
async function openFiles(pid: number): Promise<{ path: string; writable: boolean; tap: string }[]> {
  const files: { path: string; writable: boolean; tap: string }[] = []
  for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
    try {
      const [path, info] = await Promise.all([readlink(`/proc/${pid}/fd/${fd}`), readFile(`/proc/${pid}/fdinfo/${fd}`, 'utf8')])
      const flags = parseInt(/^flags:\s*([0-7]+)$/m.exec(info)?.[1] ?? '0', 8)
      files.push({ path, writable: (flags & 3) !== 0, tap: /^iff:\s*(\S+)/m.exec(info)?.[1] ?? '' })
    } catch {
      // closed while we looked
    }
  }
  return files
}

const startWords = {
  boot: 'booted',
  template: 'from a memory template (docs/decisions/0013)',
  image: 'from a memory template with the image mounted (docs/decisions/0013)',
  pool: 'from a memory template, made ahead (docs/decisions/0015)',
} as const

async function machineFacts(input: ExplainInput, qemu: number | undefined): Promise<Facts> {
  const args = (qemu === undefined ? undefined : await commandLine(qemu)) ?? []
  const files = qemu === undefined ? [] : await openFiles(qemu)
  const rows: Row[] = [
    ['hypervisor', await hypervisorVersion(input.record.jailRoot)],
    ['accelerator', option(args, '-accel').split(',')[0] === 'kvm' ? 'kvm (hardware)' : 'tcg (software emulation: not a security boundary)'],
    ['start', startWords[input.record.start ?? 'boot']],
    ['processor', option(args, '-cpu')],
    ['vCPUs', option(args, '-smp')],
    ['RAM', option(args, '-m').split(',')[0]!],
  ]
  const opened = (path: string) => {
    const open = files.filter((file) => file.path === path || file.path.endsWith(path))
    return open.length === 0 ? 'not open' : open.some((file) => file.writable) ? 'read-write' : 'read-only'
  }
  const memory = args.map((arg) => /^memory-backend-file,id=root,.*mem-path=([^,]+)/.exec(arg)?.[1]).find((path) => path !== undefined)
  if (memory !== undefined) rows.push(['disk root', `${memory}, opened ${opened(memory)} by the VMM, mapped as persistent memory`])
  for (const [index, arg] of args.entries()) {
    if (args[index - 1] !== '-blockdev') continue
    const node = JSON.parse(arg) as { 'node-name'?: unknown; file?: { filename?: unknown } }
    const path = String(node.file?.filename)
    rows.push([`disk ${String(node['node-name'])}`, `${path}, opened ${opened(path)} by the VMM`])
  }
  const taps = files.filter((file) => file.tap !== '')
  const mac = /(?:^|,)mac=([0-9a-f:]+)/i.exec(args.find((arg) => arg.startsWith('virtio-net-pci')) ?? '')?.[1]
  rows.push(['network card', mac === undefined ? 'none' : `virtio-net, ${mac}, host tap ${taps.map((file) => file.tap).join(', ') || unknown}`])
  return { title: 'Virtual machine', rows }
}

async function guestFacts(client: VmClient, answer: Promise<Map<string, string>>): Promise<Facts> {
  const rows: Row[] = []
  try {
    const status = await answer
    const value = (key: string) => cleanMessage(status.get(key) ?? '') || unknown
    rows.push(['kernel', value('kernel')], ['boot id', value('bootid')], ['init', `hull-agent ${value('agent')}`], ['state', value('state')])
    const first = parseProcesses(await client.query('top')).find((process) => process.pid === 1)
    if (first) rows.push(['container pid 1', first.args])
  } catch (error) {
    rows.push(['guest', `does not answer: ${cleanMessage(error instanceof Error ? error.message : String(error))}`])
  }
  return { title: 'Guest (as it says itself)', rows }
}

/** What `docker info` says of the Landlock ABI that a jail gets on this kernel. */
export const landlockWords = (version: number): string => (version > 0 ? `ABI ${version}` : 'none: this kernel has it not, or it is switched off')

/**
 * The kernel shows nobody which Landlock domain a process is in: the supervisor tells, which set it before it heard a byte of the guest's, and would not have started QEMU without it where
 * the kernel has it.
 */
async function landlockRow(answer: Promise<Map<string, string>>): Promise<Row> {
  const version = /^\d{1,4}$/.exec((await answer.catch(() => undefined))?.get('landlock') ?? '')?.[0]
  return ['Landlock', version === undefined ? unknown : `${landlockWords(Number(version))}${version === '0' ? '' : ', on VMM and supervisor (as the supervisor says)'}`]
}

const seccompModes = ['off', 'strict', 'filter']

async function jailFacts(input: ExplainInput, qemu: number | undefined, answer: Promise<Map<string, string>>): Promise<Facts[]> {
  const pid = qemu ?? input.supervisor
  const [status, ours, theirs, memory, cpu, pids, limits, mounts] = await Promise.all([
    processStatus(pid), namespacesOf('self'), namespacesOf(pid), memoryStats(input.cgroup), cpuStats(input.cgroup), pidsStats(input.cgroup), limitsInForce(input.cgroup),
    readIfExists(`/proc/${pid}/mountinfo`).catch(() => undefined),
  ])
  const namespaces: Row[] = Object.entries(theirs).map(([kind, id]) => [
    kind,
    ours[kind as keyof typeof ours] === id ? `${id} (the host's)` : `${id} (its own; the host has ${ours[kind as keyof typeof ours] ?? 'none'})`,
  ])
  const table = parseMountinfo(mounts ?? '')
  const writable = table.filter((mount) => mount.options.includes('rw')).map((mount) => mount.target)
  const capabilities = status ? status.capabilities.effective | status.capabilities.permitted | status.capabilities.bounding | status.capabilities.ambient : undefined
  const process: Row[] = [
    ['supervisor', `hull-vmm, pid ${input.supervisor}`],
    ['VMM', qemu === undefined ? 'not running' : `pid ${qemu}`],
    ['user', status ? `uid ${status.uids[1]}, gid ${status.gids[1]}` : unknown],
    ['capabilities', capabilities === undefined ? unknown : capabilities === 0n ? 'none' : `0x${capabilities.toString(16)}`],
    ['no new privileges', status ? (status.noNewPrivileges ? 'yes' : 'no') : unknown],
    ['seccomp', status ? `${seccompModes[status.seccomp] ?? unknown}${status.fields['Seccomp_filters'] ? `, ${status.fields['Seccomp_filters']} filters` : ''}` : unknown],
    await landlockRow(answer),
    ['root file system', table.find((mount) => mount.target === '/')?.options.includes('ro') ? 'read-only' : 'writable'],
    ['writable places', writable.join(', ') || 'none'],
  ]
  const usage: Row[] = [
    ['memory in use', mebibytes(memory?.usage ?? 0)],
    ['cpu time used', `${Math.round((cpu?.total ?? 0) / 1e6)} ms`],
    ['tasks', String(pids?.current ?? 0)],
  ]
  return [
    { title: 'Jail around the VMM', rows: process },
    { title: 'Jail namespaces', rows: namespaces },
    { title: 'Jail cgroup', rows: [['path', input.cgroup.path], ['version', input.cgroup.isV2 ? '2' : '1'], ...limits, ...usage] },
  ]
}

/** The file server of the mounts and its jail, from its own process. */
async function fileServerFacts(files: FileServer, record: VmRecord): Promise<Facts> {
  const [status, ours, theirs, map, mounts] = await Promise.all([
    processStatus(files.pid), namespacesOf('self'), namespacesOf(files.pid), readIfExists(`/proc/${files.pid}/uid_map`).catch(() => undefined),
    readIfExists(`/proc/${files.pid}/mountinfo`).catch(() => undefined),
  ])
  const own = Object.entries(theirs).filter(([kind, id]) => ours[kind as keyof typeof ours] !== id).map(([kind]) => kind)
  const rows: Row[] = [
    ['program', `${record.fileServer?.version ?? 'virtiofsd'}, pid ${files.pid}; hull-monitor, pid ${files.monitorPid}`],
    ['user', status ? `uid ${status.uids[1]} in a user namespace of its own (${(map ?? '').trim().replace(/\s+/g, ' ')}): root over shared files, nobody elsewhere` : unknown],
    ['capabilities', status ? `0x${status.capabilities.effective.toString(16)}, in its own user namespace only` : unknown],
    ['no new privileges', status ? (status.noNewPrivileges ? 'yes' : 'no') : unknown],
    ['seccomp', status ? `${seccompModes[status.seccomp] ?? unknown}${status.fields['Seccomp_filters'] ? `, ${status.fields['Seccomp_filters']} filters` : ''}` : unknown],
    ['own namespaces', own.join(' ') || 'none'],
  ]
  for (const mount of parseMountinfo(mounts ?? '')) {
    const share = /^(?:\/shares)?\/(\d+)$/.exec(mount.target)?.[1] // it has made /shares its root
    if (share !== undefined) rows.push([`share ${share}`, `${mount.root} on ${mount.fstype}, ${mount.options.includes('ro') ? 'read-only' : 'writable'}`])
  }
  return { title: 'File server of the mounts', rows }
}

/** What surrounds a VM's workload, from the kernel: the VMM's own command line and open files, its namespaces, credentials and cgroup. */
export async function explainVm(input: ExplainInput): Promise<Facts[]> {
  // The supervisor has one child: the VMM.
  const qemu = (await childrenOf(input.supervisor))[0]
  const answer = input.client.queryText('status')
  const [machine, guest, jail] = await Promise.all([machineFacts(input, qemu), guestFacts(input.client, answer), jailFacts(input, qemu, answer)])
  const accelerator = machine.rows.find(([name]) => name === 'accelerator')?.[1] ?? unknown
  const wall: Row[] = [
    ['wall', 'vm: a kernel of its own behind a hypervisor, and a jail around the hypervisor'],
    ['accelerator', accelerator],
    ['supervisor', `hull-monitor, pid ${input.monitor}; hull-vmm, pid ${input.supervisor}`],
  ]
  return [{ title: 'Isolation', rows: wall }, machine, guest, ...jail, ...(input.files ? [await fileServerFacts(input.files, input.record)] : [])]
}
