import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, rmdirSync, existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mountOverlay, unmount } from '../../../src/host/mount.js'
import type { MountedSnapshot, SnapshotStore } from '../../../src/sandbox/process/store.js'
import type { ProcessSpec, WorkloadSpec } from '../../../src/sandbox/types.js'

/** Every mounted cgroup tree. */
const cgroupHierarchies = () =>
  [...readFileSync('/proc/self/mountinfo', 'utf8').matchAll(/^(?:\S+ ){4}(\S+) .* - cgroup2? /gm)].map((match) => match[1]!)

/** A directory of one test file, with its own cgroup parent and a busybox root file system. */
export class Fixture {
  readonly directory = mkdtempSync(join(tmpdir(), 'hull-process-'))
  readonly cgroupParent = `/hull-test-${randomBytes(4).toString('hex')}`
  readonly exitDir = join(this.directory, 'exits')
  readonly runtimeRoot = join(this.directory, 'runtime')
  readonly layer = join(this.directory, 'layer')

  constructor() {
    for (const name of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev', 'root']) mkdirSync(join(this.layer, name), { recursive: true })
    execFileSync('cp', ['/bin/busybox', join(this.layer, 'bin/busybox')])
    execFileSync('chroot', [this.layer, '/bin/busybox', '--install', '-s', '/bin'])
  }

  id(): string {
    return randomBytes(32).toString('hex')
  }

  /** What must be as it was at the end: cgroups of ours, processes that have our directory in their command line, mounts below it. */
  leaks(): string[] {
    const found: string[] = []
    for (const hierarchy of cgroupHierarchies()) {
      const parent = hierarchy + this.cgroupParent
      if (existsSync(parent)) found.push(...readdirSync(parent, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => join(parent, entry.name)))
    }
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      try {
        if (Number(pid) !== process.pid && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(this.directory)) found.push(`process ${pid}: ${readFileSync(`/proc/${pid}/cmdline`, 'utf8')}`)
      } catch {
        // gone
      }
    }
    found.push(...readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter((line) => line.includes(this.directory)))
    for (const directory of [this.exitDir, this.runtimeRoot, join(this.runtimeRoot, 'crun'), join(this.directory, 'run'), join(this.directory, 'snapshots')]) if (existsSync(directory)) found.push(...readdirSync(directory).filter((name) => name !== 'crun' && name !== 'runc' && !name.startsWith('.')).map((name) => join(directory, name)))
    return found
  }

  remove(): void {
    for (const match of readFileSync('/proc/self/mounts', 'utf8').matchAll(/^\S+ (\S+) /gm)) if (match[1]!.startsWith(`${this.directory}/`)) unmount(match[1]!)
    for (const hierarchy of cgroupHierarchies()) {
      try {
        rmdirSync(hierarchy + this.cgroupParent)
      } catch {
        // was never made
      }
    }
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** The least that storage/snapshots.ts does. */
export class TestSnapshots implements SnapshotStore {
  constructor(private readonly root: string) {}

  paths(id: string, layers: readonly string[]): MountedSnapshot {
    const at = (name: string) => join(this.root, id, name)
    return { layers, upper: at('upper'), work: at('work'), merged: at('merged') }
  }

  async prepare(id: string, layers: readonly string[]): Promise<MountedSnapshot> {
    const paths = this.paths(id, layers)
    for (const path of [paths.upper, paths.work, paths.merged]) mkdirSync(path, { recursive: true })
    return paths
  }

  async mount(snapshot: MountedSnapshot): Promise<void> {
    await mountOverlay({ lower: [...snapshot.layers], upper: snapshot.upper, work: snapshot.work, target: snapshot.merged })
  }

  unmount(id: string): boolean {
    return unmount(join(this.root, id, 'merged'))
  }

  async remove(id: string): Promise<void> {
    this.unmount(id)
    rmSync(join(this.root, id), { recursive: true, force: true })
  }
}

/** A workload with nothing special about it. */
export function workload(fixture: Fixture, args: string[], extra: Partial<WorkloadSpec> = {}, process: Partial<ProcessSpec> = {}): WorkloadSpec {
  const id = fixture.id()
  return {
    id, name: id.slice(0, 12),
    process: { args, env: ['PATH=/bin'], cwd: '/', user: '', groupAdd: [], tty: false, privileged: false, ...process },
    openStdin: false, stdinOnce: false, hostname: 'box', domainname: '', layers: [fixture.layer], chainId: 'sha256:test', readOnlyRootfs: false, mounts: [],
    resources: {
      memory: 0, memorySwap: 0, memoryReservation: 0, nanoCpus: 0, cpuShares: 0, cpuPeriod: 0, cpuQuota: 0, cpusetCpus: '', cpusetMems: '',
      pidsLimit: 0, ulimits: [], oomKillDisable: false, oomScoreAdj: 0, blkioWeight: 0,
    },
    network: { mode: 'none' }, init: false, privileged: false, capAdd: [], capDrop: [], noNewPrivileges: false, seccomp: 'default', sysctls: {}, shmSize: 0,
    files: { hosts: '127.0.0.1\tlocalhost\n', hostname: 'box\n', resolvConf: 'nameserver 192.0.2.1\n' }, runtime: '',
    maskedPaths: ['/proc/kcore', '/proc/timer_list', '/sys/firmware'], readonlyPaths: ['/proc/sys', '/proc/sysrq-trigger'],
    cgroupParent: fixture.cgroupParent, logPath: join(fixture.directory, 'state', id, 'container.log'), stateDir: join(fixture.directory, 'state', id),
    runDir: join(fixture.directory, 'run', id), ...extra,
  }
}

/** Number of descriptors that this process has open. */
export const openDescriptors = () => readdirSync('/proc/self/fd').length

/** Everything that a stream says until it ends. */
export async function collect(stream: NodeJS.ReadableStream): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** Takes Docker's multiplexed framing apart. */
export function demultiplex(data: Buffer): { stdout: string; stderr: string } {
  const out: Record<number, Buffer[]> = { 1: [], 2: [] }
  for (let at = 0; at < data.length; ) {
    const length = data.readUInt32BE(at + 4)
    out[data[at]!]!.push(data.subarray(at + 8, at + 8 + length))
    at += 8 + length
  }
  return { stdout: Buffer.concat(out[1]!).toString(), stderr: Buffer.concat(out[2]!).toString() }
}
