import { existsSync, rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { conflict, messageOf } from '../../base/errors.js'
import type { Cgroup } from '../../host/cgroup.js'
import { unmount } from '../../host/mount.js'
import type { Supervised } from '../../oci/supervised.js'
import { hostCgroups } from '../../oci/cgroups.js'
import { execInContainer } from '../../oci/exec.js'
import { resourceSupport } from '../../oci/resources.js'
import { KEPT_SIGNALS, knownToGvisor } from '../../oci/runsc.js'
import { applyLimits, cpuChanges, memoryChanges, supported } from '../../oci/update.js'
import type { ExecSession, ExitStatus, Facts, NetworkChange, ProcessSpec, Resources, Sandbox, SandboxStats, StdioStream, TopResult, WorkloadSpec } from '../types.js'
import { buildExecProcess, sharedShm } from './build.js'
import type { FileJob, FileOperation } from '../files.js'
import { explainProcess } from './explain.js'
import { filesOfRunning, filesOfStored } from './files.js'
import { topFromTable } from './gvisor.js'
import { changeNetworkFiles } from './network-files.js'
import { processStats } from './stats.js'
import type { SnapshotStore } from './store.js'
import { topOf } from './top.js'

const SIGKILL = 9

/** A wall that is not the host's kernel alone. */
const GVISOR = 'gVisor: a kernel of its own (the sentry) in a process of the host, behind namespaces, cgroup and a seccomp filter of its own'

/** A container on the host's kernel. */
export class ProcessSandbox implements Sandbox {
  readonly isolation = 'process'
  #destroyed: Promise<void> | undefined

  constructor(
    private readonly spec: WorkloadSpec,
    private readonly supervised: Supervised,
    private readonly cgroup: Cgroup,
    private readonly snapshots: SnapshotStore,
    private readonly socketDirectory: string,
  ) {}

  get #runtime() {
    return this.supervised.runtime
  }

  get ownKernel(): boolean {
    return this.#runtime.kind === 'runsc'
  }

  get id(): string {
    return this.spec.id
  }

  get pid(): number {
    return this.supervised.pid
  }

  get exited(): Promise<ExitStatus> {
    return this.supervised.exited
  }

  get #rootfs(): string {
    return this.snapshots.paths(this.spec.id, this.spec.layers).merged
  }

  async start(): Promise<void> {
    await this.supervised.start()
  }

  async attach(input = true): Promise<StdioStream> {
    return { duplex: await this.supervised.attach(input) }
  }

  async exec(process: ProcessSpec, options: { stdin: boolean; detach: boolean }): Promise<ExecSession> {
    if (!(await this.supervised.isRunning())) throw conflict(`container ${this.id} is not running`)
    try {
      return await execInContainer({
        runtime: this.#runtime, id: this.id, directory: this.spec.runDir, socketDirectory: this.socketDirectory,
        process: await buildExecProcess(this.spec, process, this.#rootfs, this.ownKernel ? knownToGvisor : undefined), ...options,
      })
    } catch (error) {
      // Its first process was killed meanwhile: the runtime speaks of namespaces that are gone, some milliseconds before anybody has heard of the end.
      if (/\bsetns\b/.test(messageOf(error))) await Promise.race([this.exited, sleep(1000, undefined, { ref: false })])
      if (!(await this.supervised.isRunning())) throw conflict(`container ${this.id} is not running`, error)
      throw error
    }
  }

  async signal(signal: number): Promise<boolean> {
    if (this.ownKernel && KEPT_SIGNALS.includes(signal) && (await this.supervised.isRunning())) {
      await this.#runtime.kill(this.id, signal)
      return true
    }
    const sent = this.supervised.signal(signal)
    // A frozen process of cgroup v1 takes its SIGKILL only when it thaws. (v2's dies at once.)
    if (sent && signal === SIGKILL && (await this.#frozen())) await this.cgroup.freeze(false)
    return sent
  }

  async #frozen(): Promise<boolean> {
    if (this.cgroup.isV2) return false
    return ((await this.cgroup.read('freezer', 'freezer.state')) ?? 'THAWED').trim() !== 'THAWED'
  }

  async resize(rows: number, columns: number): Promise<void> {
    await this.supervised.resize(rows, columns)
  }

  /** The interfaces are changed from outside, in the namespace; what is left are the files that the container sees as its own. */
  async changeNetwork(change: NetworkChange): Promise<void> {
    await changeNetworkFiles(this.spec.runDir, change)
  }

  async pause(): Promise<void> {
    await this.cgroup.freeze(true)
  }

  async unpause(): Promise<void> {
    await this.cgroup.freeze(false)
  }

  async stats(): Promise<SandboxStats> {
    return processStats(this.cgroup, this.pid, this.spec.network.mode !== 'host')
  }

  async update(resources: Resources, before?: Resources): Promise<string[]> {
    const { pidsLimit } = resources
    const pids = before?.pidsLimit === pidsLimit ? {} : { pids: pidsLimit > 0 ? pidsLimit : -1 }
    const { limits, warnings } = supported({ ...memoryChanges(resources, before), ...cpuChanges(resources, before), ...pids }, resourceSupport(await hostCgroups()))
    await applyLimits(this.cgroup, limits)
    this.spec.resources = resources
    return warnings
  }

  async top(psArgs: string[]): Promise<TopResult> {
    if (this.ownKernel) return topFromTable(await this.#runtime.ps(this.id), psArgs)
    return topOf(await this.cgroup.pids(), psArgs)
  }

  async explain(): Promise<Facts[]> {
    const { program } = this.#runtime
    return explainProcess({
      pid: this.pid, monitorPid: this.supervised.monitorPid, runtime: `${program.path} ${program.version}`, cgroup: this.cgroup, ...(this.ownKernel ? { wall: GVISOR } : {}),
    })
  }

  async files(operation: FileOperation): Promise<FileJob> {
    // The process on the host is gVisor's, and sees nothing of the container's files.
    if (!this.ownKernel && (operation.op === 'stat' || operation.op === 'get' || operation.op === 'put')) {
      const job = await filesOfRunning(this.pid, () => this.supervised.isRunning(), this.spec, operation)
      if (job) return job
      throw conflict(`container ${this.id} is not running`)
    }
    const freeze = operation.op === 'layer' && operation.freeze
    if (freeze) await this.cgroup.freeze(true)
    const job = filesOfStored(this.spec, this.snapshots.paths(this.spec.id, this.spec.layers), operation)
    if (freeze) void job.done.catch(() => {}).then(() => this.cgroup.freeze(false)).catch(() => {}) // it has ended meanwhile
    return job
  }

  destroy(): Promise<void> {
    this.#destroyed ??= this.#destroy().catch((error: unknown) => {
      this.#destroyed = undefined // may be tried again
      throw error
    })
    return this.#destroyed
  }

  async #destroy(): Promise<void> {
    await this.signal(SIGKILL)
    await this.supervised.destroy()
    await releaseFiles(this.spec, this.snapshots)
  }
}

/** The mounted root and the run directory of a container that has ended. */
export async function releaseFiles(spec: Pick<WorkloadSpec, 'id' | 'runDir'>, snapshots: SnapshotStore): Promise<void> {
  while (snapshots.unmount(spec.id)); // what may be stacked there after a crash, too
  const shm = sharedShm(spec)
  if (existsSync(shm)) while (unmount(shm));
  // No mount lies in the run directory any more: nothing but our own small files goes.
  rmSync(spec.runDir, { recursive: true, force: true })
}
