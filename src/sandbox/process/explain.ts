import { readFile, readlink } from 'node:fs/promises'
import { release } from 'node:os'
import { CAPABILITIES, capabilityNames } from '../../base/capabilities.js'
import type { Cgroup } from '../../host/cgroup.js'
import { parseMountinfo } from '../../host/mountinfo.js'
import { namespaceKinds, namespacesOf, processStatus } from '../../host/process.js'
import { limitsInForce } from '../../oci/resources.js'
import type { Facts } from '../types.js'

const shorten = (bits: bigint): string => {
  const names = capabilityNames(bits)
  if (names.length === 0) return 'none'
  if (names.length >= CAPABILITIES.length - 1) return `${names.length} of ${CAPABILITIES.length}: nearly all of root's`
  return names.map((name) => name.slice(4)).join(' ')
}

async function namespaceFacts(pid: number): Promise<Facts> {
  const [own, host] = await Promise.all([namespacesOf(pid), namespacesOf('self')])
  return {
    title: 'Namespaces',
    rows: namespaceKinds
      .filter((kind) => own[kind] !== undefined)
      .map((kind) => [kind, own[kind] === host[kind] ? `${own[kind]} (the host's)` : `${own[kind]} (its own; the host has ${host[kind]})`]),
  }
}

async function securityFacts(pid: number): Promise<Facts> {
  const status = await processStatus(pid)
  const [uidMap, profile] = await Promise.all([
    readFile(`/proc/${pid}/uid_map`, 'utf8').catch(() => ''), readFile(`/proc/${pid}/attr/current`, 'utf8').catch(() => ''),
  ])
  const map = uidMap.trim().replace(/\s+/g, ' ')
  const seccomp = ['off', 'strict', `filter (${status?.fields['Seccomp_filters'] ?? '?'} program(s))`][status?.seccomp ?? 0] ?? 'unknown'
  const rows: Facts['rows'] = [
    ['seccomp', seccomp],
    ['no new privileges', status?.noNewPrivileges ? 'yes' : 'no'],
    ['uid of PID 1', String(status?.uids[1] ?? 'unknown')],
    ['user mapping', map === '0 0 4294967295' || map === '' ? 'none: root inside is root outside, less its capabilities' : map],
    ['capabilities, in force', shorten(status?.capabilities.effective ?? 0n)],
    ['capabilities, reachable', shorten(status?.capabilities.bounding ?? 0n)],
  ]
  const label = profile.replace(/\0/g, '').trim()
  if (label !== '') rows.push(['security module', label])
  return { title: 'Privileges', rows }
}

async function fileFacts(pid: number): Promise<Facts> {
  const mounts = parseMountinfo(await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => ''))
  const root = mounts.findLast((mount) => mount.target === '/')
  const rows: Facts['rows'] = []
  if (root) rows.push(['root', `${root.fstype}, ${root.options.includes('ro') ? 'read-only' : 'writable'}`])
  const hidden = mounts.filter((mount) => (mount.root === '/null' && mount.target !== '/dev/null') || (mount.fstype === 'tmpfs' && mount.options.includes('ro') && /^\/(proc|sys)\//.test(mount.target)))
  rows.push(['masked paths', hidden.length > 0 ? hidden.map((mount) => mount.target).join(' ') : 'none'])
  const readOnly = mounts.filter((mount) => mount.fstype === 'proc' && mount.target !== '/proc' && mount.options.includes('ro'))
  rows.push(['read-only paths', readOnly.length > 0 ? readOnly.map((mount) => mount.target).join(' ') : 'none'])
  const system = /^\/($|proc|sys|dev)/
  const others = mounts.filter((mount) => !system.test(mount.target))
  for (const mount of others) rows.push([`mount ${mount.target}`, `${mount.fstype}, ${mount.options.includes('ro') ? 'read-only' : 'writable'}`])
  return { title: 'Files', rows }
}

/** What surrounds a container, as the kernel has it. */
export async function explainProcess(options: { pid: number; monitorPid: number; runtime: string; cgroup: Cgroup; wall?: string }): Promise<Facts[]> {
  const { pid, cgroup } = options
  const [namespaces, security, files, limits, exe] = await Promise.all([
    namespaceFacts(pid), securityFacts(pid), fileFacts(pid), limitsInForce(cgroup), readlink(`/proc/${pid}/exe`).catch(() => 'unknown'),
  ])
  return [
    {
      title: 'Isolation',
      rows: [
        ['wall', options.wall ?? 'process: namespaces and cgroups on the host\'s kernel'], ['kernel', options.wall === undefined ? `${release()} (the host's)` : `gVisor's, on ${release()}`], ['runtime', options.runtime],
        ['PID 1', `${pid} on the host, ${exe}`], ['supervisor', `hull-monitor, pid ${options.monitorPid}`],
      ],
    },
    namespaces,
    { title: 'Cgroup', rows: [['path', cgroup.path], ['version', cgroup.isV2 ? '2' : '1'], ...limits] },
    security,
    files,
  ]
}
