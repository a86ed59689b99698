import { lstatSync, readdirSync, realpathSync, type Stats } from 'node:fs'
import { basename, join } from 'node:path'
import { badRequest, codeOf } from '../../base/errors.js'
import type { OciDevice, OciDeviceRule } from '../../oci/spec-types.js'
import type { DeviceSpec } from '../types.js'

/** More than any host's /dev has that a container could want. */
const MAX_DEVICES = 4096

/** A node's numbers: makedev(3), glibc's layout: 12 + 20 bits of minor, 12 + 20 of major. */
export function deviceNumbers(rdev: number): { major: number; minor: number } {
  const bits = BigInt(rdev)
  return { major: Number(((bits >> 8n) & 0xfffn) | ((bits >> 32n) & 0xfffff000n)), minor: Number((bits & 0xffn) | ((bits >> 12n) & 0xffffff00n)) }
}

const isDevice = (stat: Stats) => stat.isCharacterDevice() || stat.isBlockDevice()

function node(path: string, stat: Stats): OciDevice {
  return { path, type: stat.isBlockDevice() ? 'b' : 'c', ...deviceNumbers(stat.rdev), fileMode: stat.mode & 0o7777, uid: stat.uid, gid: stat.gid }
}

/** Calls `visit` with every device node below a directory of the host; `target`: the same place in the container. Does not follow links. */
function walk(directory: string, target: string, depth: number, visit: (path: string, target: string, stat: Stats) => void, skip: ReadonlySet<string> = new Set()): void {
  for (const name of readdirSync(directory)) {
    if (skip.has(name)) continue
    let stat
    try {
      stat = lstatSync(join(directory, name))
    } catch {
      continue // gone
    }
    if (stat.isDirectory()) {
      if (depth < 4) walk(join(directory, name), join(target, name), depth + 1, visit)
    } else if (isDevice(stat)) visit(join(directory, name), join(target, name), stat)
  }
}

/** The host's device nodes, which a privileged container sees (moby WithDevices). Bounded, and without what /dev has mounted in it. */
export function hostDevices(): OciDevice[] {
  const skip = new Set(['pts', 'shm', 'fd', 'mqueue', '.lxc', '.lxd-mounts', '.udev', 'hugepages'])
  const standard = new Set(['/dev/null', '/dev/zero', '/dev/full', '/dev/random', '/dev/urandom', '/dev/tty', '/dev/console', '/dev/ptmx'])
  const devices: OciDevice[] = []
  walk('/dev', '/dev', 0, (path, _target, stat) => {
    if (devices.length < MAX_DEVICES && !standard.has(path)) devices.push(node(path, stat))
  }, skip)
  return devices
}

/** `--device`: a node of the host, or all nodes below a directory of it, at a place in the container. 400 in Docker's words. */
export function customDevices(wanted: readonly DeviceSpec[]): { nodes: OciDevice[]; rules: OciDeviceRule[] } {
  const nodes = new Map<string, OciDevice>()
  const rules: OciDeviceRule[] = []
  const add = (target: string, stat: Stats, access: string) => {
    const made = node(target, stat)
    nodes.set(target, made)
    rules.push({ allow: true, type: made.type, major: made.major, minor: made.minor, access })
  }
  for (const { hostPath, path, permissions } of wanted) {
    const failed = (why: string) => badRequest(`error gathering device information while adding custom device "${hostPath}": ${why}`)
    const access = permissions === '' ? 'rwm' : permissions
    if (!/^[rwm]{1,3}$/.test(access)) throw badRequest(`invalid device permissions: ${permissions}`)
    const target = path === '' ? hostPath : path
    if (!hostPath.startsWith('/') || !target.startsWith('/') || target.split('/').includes('..')) throw failed('not an absolute path')
    try {
      const real = realpathSync(hostPath) // /dev/disk/by-id and its like are links
      const stat = lstatSync(real)
      if (isDevice(stat)) add(target, stat, access)
      else if (stat.isDirectory()) walk(real, target, 0, (_path, at, found) => add(at, found, access))
      else throw failed('not a device node')
    } catch (error) {
      const code = codeOf(error)
      if (code === undefined) throw error
      throw failed(code === 'ENOENT' ? 'no such file or directory' : `${basename(hostPath)}: ${code}`)
    }
  }
  return { nodes: [...nodes.values()].slice(0, MAX_DEVICES), rules }
}

/** `--device-cgroup-rule`: 'c 1:3 mr', 'a *:* rwm' (devices.allow of cgroup v1). 400 in Docker's words. */
export function deviceRule(text: string): OciDeviceRule {
  const match = /^([acb]) (\d{1,7}|\*):(\d{1,7}|\*) ([rwm]{1,3})$/.exec(text)
  if (!match) throw badRequest(`invalid device cgroup rule format: '${text}'`)
  const [, type, major, minor, access] = match
  return { allow: true, type: type!, ...(major === '*' ? {} : { major: Number(major) }), ...(minor === '*' ? {} : { minor: Number(minor) }), access: access! }
}
