import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { codeOf, HullError, internal, messageOf } from '../../base/errors.js'
import { log } from '../../base/log.js'
import type { FileJob, FileOperation } from '../files.js'
import type { WorkloadSpec } from '../types.js'
import { isShareable } from './shares.js'
import type { VmSandbox } from './sandbox.js'

/** Milliseconds that a machine is kept for the next job: `docker cp` asks twice, a user often once more. */
const LINGER = 3000
/** Milliseconds that a guest gets to write its disk and end. */
const HALT_GRACE = 5000
const SIGTERM = 15

interface Machine {
  sandbox: Promise<VmSandbox>
  jobs: number
  timer: NodeJS.Timeout | undefined
}

/** What a maintenance machine is made from: the container's disk and image; no workload, no network, no log, a cgroup and directory of its own. */
export function maintenanceSpec(spec: WorkloadSpec, directory: string): WorkloadSpec {
  const id = `${spec.id.slice(0, 58)}-files`
  return {
    ...spec,
    id,
    process: { args: ['hold'], env: [], cwd: '/', user: '', groupAdd: [], tty: false, privileged: false },
    openStdin: false,
    stdinOnce: false,
    // As Docker mounts them for a container that does not run. What is not there now (a volume with options, a part of one) is left out.
    mounts: spec.mounts.filter((mount) => mount.type !== 'tmpfs' && isShareable(mount.source)),
    network: { mode: 'none' },
    init: false,
    sysctls: {},
    resources: {
      memory: 0, memorySwap: 0, memoryReservation: 0, nanoCpus: 0, cpuShares: 0, cpuPeriod: 0, cpuQuota: 0, cpusetCpus: '', cpusetMems: '', pidsLimit: 0,
      ulimits: [], oomKillDisable: false, oomScoreAdj: 0, blkioWeight: 0,
    },
    logPath: '',
    runDir: join(directory, id),
  }
}

const isNotRunning = (error: unknown): boolean => error instanceof HullError && error.statusCode === 409

/** The container does not run, and nobody has said that it does: it is the machine for its files that has ended. */
function inWords(error: unknown): never {
  throw isNotRunning(error) ? internal('the virtual machine that worked on the files of the container ended before it was done', error) : error
}

/**
 * Work on the files of virtual machines that do not run. Their disk was written by a guest: the host's kernel never mounts it. A machine of the
 * same image and disk is booted without the workload, does the work inside, and is halted when nobody has asked it for a while.
 */
export class Maintenance {
  readonly #machines = new Map<string, Machine>()
  /** Those that are being halted: their disk is not free yet. */
  readonly #ending = new Map<string, Promise<void>>()

  constructor(
    /** Run directories, below the exec root. */
    readonly directory: string,
    private readonly boot: (spec: WorkloadSpec) => Promise<VmSandbox>,
  ) {}

  async files(spec: WorkloadSpec, operation: FileOperation): Promise<FileJob> {
    for (let ending; (ending = this.#ending.get(spec.id)); ) await ending.catch(() => {})
    let machine = this.#machines.get(spec.id)
    const waited = machine !== undefined && machine.jobs === 0
    machine ??= this.#make(spec)
    const used = machine
    clearTimeout(used.timer)
    used.jobs++
    try {
      // Nobody knows of this machine: when it is killed, what was said to be done must be on the container's disk.
      const job = await (await used.sandbox).files(operation.op === 'put' ? { ...operation, flush: true } : operation)
      const done = job.done.catch(inWords).finally(() => this.#release(spec.id, used))
      const head = job.head.catch(inWords)
      for (const promise of [done, head]) promise.catch(() => {})
      return { ...job, head, done }
    } catch (error) {
      used.jobs--
      if (this.#machines.get(spec.id) === used && (used.jobs === 0 || isNotRunning(error))) await this.end(spec.id)
      // It had ended since the last job, and nobody was told.
      if (waited && isNotRunning(error)) return this.files(spec, operation)
      return inWords(error)
    }
  }

  #make(spec: WorkloadSpec): Machine {
    const machine: Machine = { sandbox: this.boot(maintenanceSpec(spec, this.directory)), jobs: 0, timer: undefined }
    this.#machines.set(spec.id, machine)
    return machine
  }

  #release(id: string, machine: Machine): void {
    machine.jobs--
    if (machine.jobs > 0 || this.#machines.get(id) !== machine) return
    machine.timer = setTimeout(() => {
      this.end(id).catch((error: unknown) => log.error('cannot end a maintenance machine', { id, error: messageOf(error) }))
    }, LINGER)
  }

  /** Halts the machine, if there is one; resolves when the disk is free. */
  end(id: string): Promise<void> {
    const machine = this.#machines.get(id)
    if (!machine) return this.#ending.get(id) ?? Promise.resolve()
    clearTimeout(machine.timer)
    this.#machines.delete(id)
    const ending = halt(machine).finally(() => this.#ending.delete(id))
    this.#ending.set(id, ending)
    return ending
  }

  /** Halts all, for the daemon's end: nothing would use them. */
  async endAll(): Promise<void> {
    await Promise.allSettled([...[...this.#machines.keys()].map((id) => this.end(id)), ...this.#ending.values()])
  }
}

async function halt(machine: Machine): Promise<void> {
  const sandbox = await machine.sandbox.catch(() => undefined) // what a failed boot made is gone already
  if (!sandbox) return
  await sandbox.signal(SIGTERM).catch(() => false)
  let timer: NodeJS.Timeout | undefined
  await Promise.race([sandbox.exited, new Promise((resolve) => (timer = setTimeout(resolve, HALT_GRACE)))])
  clearTimeout(timer)
  await sandbox.destroy()
}

/** A disk's size as the host sees it, for a machine that does not run: booting one to add up its files would be too dear for `docker ps -s`. */
export async function sizeOnHost(disk: string): Promise<FileJob> {
  const size = await stat(disk).then(
    (st) => st.blocks * 512,
    (error: unknown) => {
      if (codeOf(error) === 'ENOENT') return 0 // never started
      throw error
    },
  )
  const output = new PassThrough()
  output.end()
  const input = new PassThrough()
  return { head: Promise.resolve(undefined), output, input, done: Promise.resolve({ size }), cancel: () => {} }
}
