import { join } from 'node:path'
import { conflict, internal, messageOf } from '../../base/errors.js'
import { log } from '../../base/log.js'
import type { Cgroup } from '../../host/cgroup.js'
import type { Supervised } from '../../oci/supervised.js'
import type { ExecSession, ExitStatus, Facts, NetworkChange, ProcessSpec, Resources, Sandbox, SandboxStats, StdioStream, TopResult, WorkloadSpec } from '../types.js'
import { StartFailure, VmClient } from './client.js'
import type { FileJob, FileOperation } from '../files.js'
import { blamesTemplate, execError, leftFailure, startError } from './errors.js'
import type { FileServer } from './fileserver.js'
import { explainVm } from './explain.js'
import { guestFiles } from './files.js'
import { networkChangeEntries, processEntries } from './guestspec.js'
import { LinkClosed } from './link.js'
import { formatPs, parseProcesses } from './ps.js'
import type { VmRecord } from './record.js'
import { SocketProxy } from './sockets.js'
import { readStats } from './stats.js'
import { updateVm } from './update.js'
import { readQemuLog, readVmStatus, vmDirectory, type VmStatus } from './vmdir.js'

/** Milliseconds that the guest gets, after SIGKILL, to flush the container's disk before the VM itself is killed. */
const KILL_GRACE = 3000
/** Milliseconds between looks for the supervisor's socket, at first; and how long it may take to appear at all. */
const FIRST_PAUSE = 1
const SOCKET_TIMEOUT = 30_000

/** Milliseconds from the end of a machine's connections to its exit code, at most. */
const END_IS_TOLD = 2000

const SIGKILL = 9
/** The supervisor's and the agent's words (guest/vmm_client.c). */
const NOT_RUNNING = 'container is not running'

/** A container behind a VM: hull-monitor → crun → hull-vmm → QEMU → kernel → agent → workload. */
export class VmSandbox implements Sandbox {
  readonly isolation = 'vm'
  readonly exited: Promise<ExitStatus>
  private readonly client: VmClient
  private readonly sockets: SocketProxy
  private ended = false
  private destroyed: Promise<void> | undefined
  private killer: NodeJS.Timeout | undefined

  constructor(
    private readonly spec: WorkloadSpec,
    private readonly record: VmRecord,
    private readonly supervised: Supervised,
    private readonly cgroup: Cgroup,
    /** CAP_… names of the workload, and of exec sessions. */
    private readonly capabilities: (privileged: boolean) => readonly string[],
    private readonly onDestroyed: () => Promise<void>,
    private readonly fileServer?: FileServer,
    /** The template that the machine is a clone of does not load. */
    private readonly onBadTemplate?: () => Promise<void>,
    /** The machine was made ahead: puts what it is to run where its supervisor looks for it. */
    private readonly prepareClaim?: () => Promise<void>,
  ) {
    this.client = new VmClient(join(vmDirectory(spec.runDir), 'ctl.sock'), record.uid)
    this.sockets = new SocketProxy(this.client, record.sockets ?? [])
    this.exited = this.watch()
  }

  get id(): string {
    return this.spec.id
  }

  get pid(): number {
    return this.supervised.pid
  }

  private async watch(): Promise<ExitStatus> {
    const exit = await this.supervised.exited
    this.ended = true
    this.sockets.stop()
    clearTimeout(this.killer)
    const status = await readVmStatus(this.spec.runDir).catch((error: unknown) => {
      log.warn('cannot read how a virtual machine ended', { id: this.id, error: messageOf(error) })
      return undefined
    })
    // The code is the supervisor's own exit code; the guest alone knows of its OOM killer, the host's cgroup of the VMM's.
    return { code: exit.code, oomKilled: exit.oomKilled || status?.oom === true, finishedAt: exit.finishedAt }
  }

  async start(): Promise<void> {
    if (!this.prepareClaim) await this.supervised.start()
    try {
      await this.prepareClaim?.()
      await (this.prepareClaim ? this.client.claim() : this.waitForStart())
      this.serveSockets()
    } catch (error) {
      // The VM ended before it said anything: what it left tells why.
      const status = error instanceof LinkClosed ? (await this.exited, await readVmStatus(this.spec.runDir)) : undefined
      if (this.onBadTemplate && blamesTemplate(status ? leftFailure(status) : error)) await this.onBadTemplate()
      throw await this.startFailure(error, status)
    }
  }

  private async startFailure(error: unknown, status: VmStatus | undefined): Promise<unknown> {
    if (error instanceof StartFailure) return startError(error.failure)
    if (!(error instanceof LinkClosed)) return error
    const exit = await this.exited
    const words = status?.message || (await readQemuLog(this.spec.runDir))
    if (status?.code === 126 || status?.code === 127) return startError({ code: status.code, message: status.message })
    const oom = exit.oomKilled ? ' (the host ended it: out of memory)' : ''
    return startError({ code: 125, message: `the virtual machine ended with code ${exit.code} before the workload ran${oom}${words ? `: ${words}` : ''}` })
  }

  /** The workload runs: its connections to sockets of the host are taken from here on. */
  serveSockets(): void {
    this.sockets.start()
  }

  /** The socket appears when the supervisor runs, some milliseconds after crun let it go. */
  private async waitForStart(): Promise<void> {
    const deadline = performance.now() + SOCKET_TIMEOUT
    for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 2, 20)) {
      try {
        await this.client.waitStart()
        return
      } catch (error) {
        if (!(error instanceof LinkClosed) || this.ended || !(await this.supervised.isRunning())) throw error
        if (performance.now() > deadline) {
          this.killVm()
          throw error
        }
      }
      await new Promise((resolve) => setTimeout(resolve, pause))
    }
  }

  async attach(input = true): Promise<StdioStream> {
    // The terminal is the guest's: on this side there are pipes, but their bytes are for the user as they are.
    return { duplex: await this.supervised.attach(input, this.spec.process.tty) }
  }

  async exec(process: ProcessSpec, options: { stdin: boolean; detach: boolean }): Promise<ExecSession> {
    const entries = processEntries(process, {
      hostname: this.spec.hostname,
      capabilities: this.capabilities(process.privileged || this.spec.privileged),
      noNewPrivileges: this.spec.noNewPrivileges,
      ulimits: this.spec.resources.ulimits,
      oomScoreAdj: this.spec.resources.oomScoreAdj,
      stdin: options.stdin,
    })
    try {
      return await this.client.exec(entries, { tty: process.tty, ...options })
    } catch (error) {
      if (error instanceof StartFailure && error.failure.code !== 125) throw execError(error.failure)
      if (error instanceof LinkClosed || (error instanceof StartFailure && error.message === NOT_RUNNING)) throw conflict(`container ${this.id} is not running`, error)
      if (error instanceof StartFailure) throw execError(error.failure)
      throw error
    }
  }

  async signal(signal: number): Promise<boolean> {
    if (this.ended) return false
    if (signal !== SIGKILL) return this.client.signal(signal)
    // First as a signal to the workload: the guest then ends in order and its disk has all that was written, as a container's directory would.
    // But SIGKILL always works: a guest that does not end by itself is ended.
    this.killer ??= setTimeout(() => this.killVm(), KILL_GRACE)
    if (await this.frozen()) this.killVm()
    else {
      const delivered = await this.client.signal(SIGKILL).catch(() => false)
      if (!delivered) this.killVm()
    }
    return true
  }

  private killVm(): void {
    if (this.ended) return
    this.supervised.signal(SIGKILL)
    // A frozen process of cgroup v1 dies only when it thaws.
    this.cgroup.freeze(false).catch((error: unknown) => log.debug('thaw', { id: this.id, error: messageOf(error) }))
  }

  private async frozen(): Promise<boolean> {
    // Not cgroup.events: with KVM it may never say so (src/host/cgroup.ts).
    if (this.cgroup.isV2) return ((await this.cgroup.read('freezer', 'cgroup.freeze')) ?? '').trim() === '1'
    return ((await this.cgroup.read('freezer', 'freezer.state')) ?? '').trim() !== 'THAWED'
  }

  async resize(rows: number, columns: number): Promise<void> {
    if (!this.spec.process.tty) return
    if (!(await this.client.resize(rows, columns))) throw conflict(`container ${this.id} is not running`)
  }

  async changeNetwork(change: NetworkChange): Promise<void> {
    await this.client.changeNetwork(networkChangeEntries(change))
  }

  async pause(): Promise<void> {
    await this.cgroup.freeze(true)
  }

  async unpause(): Promise<void> {
    await this.cgroup.freeze(false)
  }

  async stats(): Promise<SandboxStats> {
    const guest = this.ended || (await this.frozen()) ? undefined : await this.client.queryText('stats').catch(() => undefined)
    return readStats(this.cgroup, this.record, guest)
  }

  async update(resources: Resources, before?: Resources): Promise<string[]> {
    if (await this.frozen()) throw conflict('isolation vm: the machine is paused and cannot be told of new limits: unpause it first')
    const warnings = await updateVm({ cgroup: this.cgroup, client: this.client, record: this.record }, resources, before)
    this.spec.resources = resources
    return warnings
  }

  async top(psArgs: string[]): Promise<TopResult> {
    let answer: Buffer
    try {
      answer = await this.client.query('top')
    } catch (error) {
      if (error instanceof LinkClosed) throw conflict(`container ${this.id} is not running`, error)
      throw internal(`cannot list the processes of ${this.id}: ${messageOf(error)}`, error)
    }
    return formatPs(parseProcesses(answer), psArgs, { now: Date.now() / 1000, memory: this.record.ram / 1024 })
  }

  async files(operation: FileOperation): Promise<FileJob> {
    // The guest would do the work, and it stands still.
    if (!this.ended && (await this.frozen())) throw conflict(`container ${this.id} is paused: unpause the virtual machine first`)
    try {
      return await guestFiles(this.client, operation, () => this.goneMeanwhile())
    } catch (error) {
      if (error instanceof LinkClosed || (error instanceof StartFailure && error.message === NOT_RUNNING)) throw conflict(`container ${this.id} is not running`, error)
      throw internal(messageOf(error), error)
    }
  }

  /** Why work in the guest broke off: the machine has ended, or is about to be known to have. */
  private async goneMeanwhile(): Promise<Error | undefined> {
    let timer: NodeJS.Timeout | undefined
    await Promise.race([this.exited, new Promise((resolve) => (timer = setTimeout(resolve, END_IS_TOLD)))])
    clearTimeout(timer)
    return this.ended ? conflict(`container ${this.id} is not running`) : undefined
  }

  explain(): Promise<Facts[]> {
    return explainVm({ supervisor: this.pid, monitor: this.supervised.monitorPid, record: this.record, cgroup: this.cgroup, client: this.client, files: this.fileServer })
  }

  destroy(): Promise<void> {
    this.destroyed ??= this.remove().catch((error: unknown) => {
      this.destroyed = undefined // may be tried again
      throw error
    })
    return this.destroyed
  }

  private async remove(): Promise<void> {
    clearTimeout(this.killer)
    if (!this.ended && (await this.frozen().catch(() => false))) {
      this.supervised.signal(SIGKILL)
      await this.cgroup.freeze(false)
    }
    await this.supervised.destroy()
    await this.exited
    await this.onDestroyed()
  }
}
