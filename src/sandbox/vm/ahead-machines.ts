import { closeSync } from 'node:fs'
import { rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf } from '../../base/errors.js'
import { isAbsent } from '../../host/cgroup.js'
import { writeLimits } from '../../host/cgroup-limits.js'
import { cgroupOf } from '../../oci/cgroups.js'
import type { Supervised } from '../../oci/supervised.js'
import type { WorkloadSpec } from '../types.js'
import { aheadOf, memoryIsShort, poolKey } from './ahead.js'
import { VmClient } from './client.js'
import { blamesTemplate, leftFailure } from './errors.js'
import { LinkClosed } from './link.js'
import { WarmPool, type Member } from './pool.js'
import type { VmRecord } from './record.js'
import { uidFile } from './uids.js'
import { putFiles, readVmStatus, vmDirectory } from './vmdir.js'

/** v1's cpu.shares of a machine that is being made and waits: whoever else wants the processors has them. */
const LEAST_SHARES = 2
/** … and of one whose container asks for none. */
const DEFAULT_SHARES = 1024
/** Milliseconds that a machine gets to rehearse; looks at it in between. */
const REHEARSAL_TIMEOUT = 60_000
const REHEARSAL_PAUSE = 50

/** A machine in its jail. */
interface Machine {
  readonly record: VmRecord
  readonly supervised: Supervised
  /** The template that it is a clone of does not load. */
  readonly onBadTemplate: (() => Promise<void>) | undefined
}

/** … that waits for its workload. */
interface Ahead extends Member, Omit<Machine, 'onBadTemplate'> {}

/** What the driver does for {@link AheadMachines}. */
export interface AheadParts {
  jailRoot: () => Promise<string>
  /** A tap that is not the port of any bridge yet; its descriptor is the caller's to close. */
  openTap: ((id: string) => Promise<number>) | undefined
  /** The jail of a machine that is to rehearse, created and not started; undefined: there is no template. On failure nothing is left but its disk. */
  launch: (spec: WorkloadSpec, tapFd: number | undefined) => Promise<Machine | undefined>
  /** Closes the descriptor when the machine is over. */
  keepTap: (id: string, fd: number, over: Promise<unknown>) => void
  /** Removes what `launch` made; `uid`: of its machine, if there was one. */
  forget: (spec: WorkloadSpec, uid: number | undefined) => Promise<void>
}

/** Where the host has the controller. */
async function setShares({ cgroupsPath }: VmRecord, cpuShares: number): Promise<void> {
  await writeLimits(await cgroupOf(cgroupsPath), { cpuShares }).catch((error: unknown) => {
    if (!isAbsent(error)) throw error
  })
}

/** Virtual machines that wait for a workload: makes them, and hands them out. How many, and for how long, is {@link WarmPool}'s. docs/decisions/0015-warm-pool.md. */
export class AheadMachines {
  readonly #pool: WarmPool<WorkloadSpec, Ahead>

  constructor(
    size: number,
    private readonly parts: AheadParts,
  ) {
    this.#pool = new WarmPool({ size, make: (spec) => this.#make(spec), memoryIsShort })
  }

  get waiting(): number {
    return this.#pool.waiting
  }

  /** See SandboxDriver.reserve. */
  async reserve(spec: WorkloadSpec, bridged: boolean): Promise<string | undefined> {
    return this.#pool.enabled ? this.#pool.reserve(await this.#keyOf(spec, bridged)) : undefined
  }

  /** See SandboxDriver.settle. */
  async settle(spec: WorkloadSpec): Promise<boolean> {
    if (!this.#pool.enabled) return false
    if (this.#pool.keep(spec.id, await this.#keyOf(spec))) return true
    await this.#pool.drop(spec.id)
    return false
  }

  /** The machine that waits under this id, now the caller's. `equip`: puts what it is to run where its supervisor looks for it, and gives it its share of the processors. */
  async claim(spec: WorkloadSpec): Promise<(Omit<Machine, 'onBadTemplate'> & { equip: (frames: Record<string, Buffer>) => Promise<void> }) | undefined> {
    if (!this.#pool.enabled) return undefined
    const key = await this.#keyOf(spec)
    const ahead = this.#pool.claim(spec.id, key)
    if (!ahead) return undefined
    this.#pool.used(key, spec)
    const { record, supervised } = ahead
    return {
      record, supervised,
      equip: async (frames) => {
        await setShares(record, spec.resources.cpuShares || DEFAULT_SHARES)
        await putFiles(spec.runDir, record.uid, frames)
      },
    }
  }

  /** A machine like this one was started that had not been made ahead. */
  async used(spec: WorkloadSpec): Promise<void> {
    const key = this.#pool.enabled ? await this.#keyOf(spec) : ''
    if (key !== '') this.#pool.used(key, spec)
  }

  /** Lets go of the machine that waits for this container, if there is one; resolves when its disk is free. */
  drop(id: string): Promise<void> {
    return this.#pool.drop(id)
  }

  /** Ends all that wait. */
  close(): Promise<void> {
    return this.#pool.close()
  }

  /** Resolves when as many wait as should. For tests. */
  full(): Promise<void> {
    return this.#pool.full()
  }

  async #keyOf(spec: WorkloadSpec, bridged = spec.network.mode === 'bridge'): Promise<string> {
    return poolKey(spec, bridged, await this.parts.jailRoot())
  }

  async #make(like: WorkloadSpec): Promise<Ahead | undefined> {
    const spec = aheadOf(like)
    const { openTap } = this.parts
    const bridged = spec.network.mode === 'bridge'
    if (bridged && !openTap) return undefined
    let tapFd = bridged ? await openTap!(spec.id) : undefined
    let made: Machine | undefined
    const destroy = async () => {
      await made?.supervised.destroy()
      await this.#forget(spec, made?.record.uid)
    }
    try {
      made = await this.parts.launch(spec, tapFd)
      if (!made) {
        await destroy()
        return undefined
      }
      const { record, supervised } = made
      await setShares(record, LEAST_SHARES)
      await supervised.start()
      await rehearsed(spec, made)
      if (tapFd !== undefined) this.parts.keepTap(spec.id, tapFd, supervised.exited)
      tapFd = undefined
      return { id: spec.id, record, supervised, gone: supervised.exited, destroy }
    } catch (error) {
      await destroy()
      // A pool would otherwise try it again and again, for as long as nobody starts a clone of it.
      if (blamesTemplate(error)) await made?.onBadTemplate?.()
      throw error
    } finally {
      if (tapFd !== undefined) closeSync(tapFd)
    }
  }

  /** The directory of its state may be a container's by now, with a record in it. */
  async #forget(spec: WorkloadSpec, uid: number | undefined): Promise<void> {
    await this.parts.forget(spec, uid)
    await Promise.all([uidFile(spec.stateDir), ...(spec.logPath === '' ? [] : [spec.logPath])].map((path) => rm(path, { force: true })))
    await rmdir(spec.stateDir).catch((error: unknown) => {
      if (!['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(codeOf(error) ?? '')) throw error
    })
  }
}

/** Resolves when the machine waits for its workload. */
async function rehearsed(spec: WorkloadSpec, { record, supervised }: Machine): Promise<void> {
  const client = new VmClient(join(vmDirectory(spec.runDir), 'ctl.sock'), record.uid)
  const deadline = performance.now() + REHEARSAL_TIMEOUT
  for (;;) {
    const status = await client.queryText('status').catch((error: unknown) => {
      if (error instanceof LinkClosed) return new Map<string, string>() // not there yet, or over
      throw error
    })
    if (status.get('state') === 'waiting') return
    if (!(await supervised.isRunning())) throw leftFailure(await readVmStatus(spec.runDir))
    if (performance.now() > deadline) throw new Error('it did not rehearse in time')
    await new Promise((resolve) => setTimeout(resolve, REHEARSAL_PAUSE))
  }
}
