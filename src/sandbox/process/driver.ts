import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { chmod, chown, mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { badRequest, internal, messageOf } from '../../base/errors.js'
import { log } from '../../base/log.js'
import { toHost } from '../../host/subid.js'
import { ensureUserns } from '../../host/userns.js'
import { MS, mountTmpfs } from '../../host/mount.js'
import { cgroupOf, hostCgroups } from '../../oci/cgroups.js'
import { Supervised, type Begun, type SupervisedOptions } from '../../oci/supervised.js'
import { shareMasks } from '../../oci/masks.js'
import { locateRuntime, Runtime } from '../../oci/runtime.js'
import { knownToGvisor, runscFlags } from '../../oci/runsc.js'
import { keepFilter, useCachedFilter } from '../../oci/seccomp-cache.js'
import { serialize } from '../../oci/spec-types.js'
import type { DriverInfo, Sandbox, SandboxAttachments, SandboxDriver, WorkloadSpec } from '../types.js'
import type { FileJob, FileOperation } from '../files.js'
import { buildConfig, buildWall, capabilitiesOf, sharedShm } from './build.js'
import { filesOfStored } from './files.js'
import { checkForGvisor } from './gvisor.js'
import { ProcessSandbox, releaseFiles } from './sandbox.js'
import type { MappedOwners, MountedSnapshot, SnapshotStore } from './store.js'

/** Where one daemon keeps its containers' things, apart from every other daemon's. */
export interface ProcessDriverOptions {
  snapshots: SnapshotStore
  /** The daemon's exec root (/run/hull): `exits` and `runtime` are made in it. */
  execRoot: string
  /** For workloads that name none: '/hull'. */
  cgroupParent?: string
}

/** What goes when the container ends need not reach the disk: unmounting the overlay of others writes out all that waits for the file system below it. */
const mountOptions = (spec: WorkloadSpec, owners: MappedOwners | undefined) => ({ volatile: spec.ephemeral ?? false, ...(owners ? { owners } : {}) })

/** A start whose supervisor runs, and whose root is being mounted. */
interface BegunStart {
  supervisor: Begun
  root: Promise<Root>
}

interface Root {
  snapshot: MountedSnapshot
  /** Undefined: the host's ids. */
  owners: MappedOwners | undefined
}

/** The process isolation: OCI spec → hull-monitor → crun (or another runtime). */
export class ProcessDriver implements SandboxDriver {
  readonly isolation = 'process'
  /** Overlays of containers that do not run, mounted for work on their files: how many jobs use each. */
  readonly #mounted = new Map<string, number>()
  /** Starts that have begun and have no attachments yet. */
  readonly #begun = new Map<string, BegunStart>()

  constructor(private readonly options: ProcessDriverOptions) {}

  async info(): Promise<DriverInfo> {
    const warnings: string[] = []
    const details: Record<string, string> = {}
    try {
      const program = await locateRuntime('')
      details['crun version'] = program.version
      if (program.verdict.warn) warnings.push(program.verdict.warn)
    } catch (error) {
      warnings.push(messageOf(error))
    }
    const { layout } = await hostCgroups()
    details['cgroup layout'] = layout
    return { isolation: this.isolation, accelerator: '', warnings, details }
  }

  async validate(spec: WorkloadSpec): Promise<string[]> {
    const program = await locateRuntime(spec.runtime)
    const gvisor = program.kind === 'runsc' ? checkForGvisor(spec) : []
    const wall = await buildWall(spec)
    await cgroupOf(this.#cgroupPath(spec)).catch((error: unknown) => {
      throw badRequest(messageOf(error), error)
    })
    return [...(program.verdict.warn ? [program.verdict.warn] : []), ...gvisor, ...wall.warnings]
  }

  #cgroupPath(spec: Pick<WorkloadSpec, 'id' | 'cgroupParent'>): string {
    const parent = spec.cgroupParent || this.options.cgroupParent || '/hull'
    return `${parent.startsWith('/') ? '' : '/'}${parent.replace(/\/+$/, '')}/${spec.id}`
  }

  async #supervisedOptions(spec: WorkloadSpec): Promise<SupervisedOptions> {
    const program = await locateRuntime(spec.runtime)
    const flags = program.kind === 'runsc' ? runscFlags({ network: spec.network.mode, capabilities: capabilitiesOf(spec) }) : []
    return {
      id: spec.id,
      runDir: spec.runDir,
      exitDir: join(this.options.execRoot, 'exits'),
      // A directory for each runtime: they do not read one another's state.
      runtime: await Runtime.open(spec.runtime, join(this.options.execRoot, 'runtime', program.kind === 'other' ? program.name.replaceAll('/', '_') : program.kind), flags),
      logPath: spec.logPath,
      ...(spec.logLimits ? { logLimits: spec.logLimits } : {}),
      tty: spec.process.tty,
      stdin: spec.openStdin,
      // With a terminal Docker never closes stdin when a client leaves; without, the first one's end is the end when it said so.
      leaveStdinOpen: spec.process.tty || !spec.stdinOnce,
      attempt: { command: spec.process.args[0] ?? '', cwd: spec.process.cwd },
      cgroupPath: this.#cgroupPath(spec),
      oomScoreAdj: spec.resources.oomScoreAdj,
    }
  }

  get #socketDirectory(): string {
    return Buffer.byteLength(this.options.execRoot) <= 80 ? this.options.execRoot : '/run'
  }

  async begin(spec: WorkloadSpec): Promise<void> {
    if (this.#begun.has(spec.id)) return
    const options = await this.#supervisedOptions(spec)
    // Then nothing would be started, and runsc's flags are by a network that only the start has.
    if (options.runtime.waits === undefined) return
    this.#begun.set(spec.id, await this.#begin(spec, options))
  }

  async #begin(spec: WorkloadSpec, options: SupervisedOptions): Promise<BegunStart> {
    await this.#makeDirectories(spec)
    const supervisor = Supervised.begin(options)
    const root = this.#mountRoot(spec)
    root.catch(() => {}) // told by create
    return { supervisor, root }
  }

  async callOff(spec: Pick<WorkloadSpec, 'id' | 'runDir'>): Promise<void> {
    const begun = this.#begun.get(spec.id)
    if (!begun) return
    this.#begun.delete(spec.id)
    await begun.supervisor.callOff()
    await begun.root.catch(() => {})
    await releaseFiles(spec, this.options.snapshots)
  }

  async create(spec: WorkloadSpec, attachments: SandboxAttachments): Promise<Sandbox> {
    const { snapshots } = this.options
    const supervisedOptions = await this.#supervisedOptions(spec)
    const begun = this.#begun.get(spec.id) ?? (await this.#begin(spec, supervisedOptions))
    this.#begun.delete(spec.id)
    try {
      const wall = await buildWall(spec)
      if (supervisedOptions.runtime.kind === 'runsc') wall.capabilities = knownToGvisor(wall.capabilities)
      const { snapshot, owners } = await begun.root
      await this.#writeFiles(spec, owners)
      const config = await buildConfig(spec, wall, { rootfs: snapshot.merged, cgroupPath: supervisedOptions.cgroupPath, runDir: spec.runDir, attachments, ...(owners ? { userns: owners.userns } : {}) })
      useCachedFilter(supervisedOptions.runtime, config)
      if (supervisedOptions.runtime.kind === 'crun') shareMasks(config, join(this.options.execRoot, 'empty'))
      writeFileSync(join(spec.runDir, 'config.json'), serialize(config), { mode: 0o600 }) // at once: /run is memory
      const supervised = await begun.supervisor.create()
      void keepFilter(supervisedOptions.runtime, spec.id, config)
      // crun has a copy of its own, and this one lies in memory for nothing.
      if (supervisedOptions.runtime.kind === 'crun') rmSync(join(spec.runDir, 'config.json'), { force: true })
      return new ProcessSandbox(spec, supervised, await cgroupOf(supervisedOptions.cgroupPath), snapshots, this.#socketDirectory)
    } catch (error) {
      await begun.supervisor.callOff().catch((failure: unknown) => log.error('cannot call off a start', { id: spec.id, error: messageOf(failure) }))
      await begun.root.catch(() => {}) // to its end, before it is undone
      await releaseFiles(spec, snapshots).catch((failure: unknown) => log.error('cannot clean up after a failed start', { id: spec.id, error: messageOf(failure) }))
      throw error
    }
  }

  /** Undefined: the host's ids. */
  async #owners(spec: WorkloadSpec): Promise<MappedOwners | undefined> {
    if (!spec.idMap) return undefined
    const [uid, gid] = [toHost(spec.idMap.uids, 0), toHost(spec.idMap.gids, 0)]
    if (uid === undefined || gid === undefined) throw internal('a user namespace without root')
    return { userns: await ensureUserns(this.options.execRoot, spec.idMap), uid, gid }
  }

  async #mountRoot(spec: WorkloadSpec): Promise<Root> {
    const { snapshots } = this.options
    const owners = await this.#owners(spec)
    while (snapshots.unmount(spec.id)); // left by a daemon that died between two steps
    const snapshot = await snapshots.prepare(spec.id, spec.layers)
    await snapshots.mount(snapshot, mountOptions(spec, owners))
    return { snapshot, owners }
  }

  async #makeDirectories(spec: WorkloadSpec): Promise<void> {
    mkdirSync(spec.runDir, { recursive: true, mode: 0o700 })
    if (spec.logPath !== '' && !existsSync(dirname(spec.logPath))) await mkdir(dirname(spec.logPath), { recursive: true, mode: 0o700 })
  }

  async #writeFiles(spec: WorkloadSpec, owners: MappedOwners | undefined): Promise<void> {
    const { hosts, hostname, resolvConf } = spec.files
    // Bind-mounted into the container: readable for every uid in there. The directory around them is not.
    await Promise.all(Object.entries({ hosts, hostname, 'resolv.conf': resolvConf }).map(async ([name, text]) => {
      const path = join(spec.runDir, name)
      writeFileSync(path, text, { mode: 0o644 }) // at once: /run is memory
      if (owners) await chown(path, owners.uid, owners.gid)
    }))
    if (spec.namespaces?.ipc === 'shareable') {
      await mkdir(sharedShm(spec), { mode: 0o711 })
      mountTmpfs(sharedShm(spec), `mode=1777,size=${spec.shmSize > 0 ? spec.shmSize : 64 << 20}`, MS.NOSUID | MS.NODEV | MS.NOEXEC)
    }
    // The runtime reaches the files as the namespace's root.
    if (owners) await chown(spec.runDir, 0, owners.gid).then(() => chmod(spec.runDir, 0o710))
  }

  async adopt(spec: WorkloadSpec): Promise<Sandbox | undefined> {
    if (!existsSync(spec.runDir)) {
      while (this.options.snapshots.unmount(spec.id)); // work on its files that a daemon died in
      return undefined
    }
    const options = await this.#supervisedOptions(spec)
    const supervised = await Supervised.adopt(options)
    if (supervised) return new ProcessSandbox(spec, supervised, await cgroupOf(options.cgroupPath), this.options.snapshots, this.#socketDirectory)
    // The daemon died half-way through a start: nothing of it may stay.
    await Supervised.removeLeftovers(options)
    await releaseFiles(spec, this.options.snapshots)
    return undefined
  }

  async files(spec: WorkloadSpec, operation: FileOperation): Promise<FileJob> {
    const { snapshots } = this.options
    await this.callOff(spec) // it has the root mounted
    const snapshot = await snapshots.prepare(spec.id, spec.layers)
    if (operation.op === 'layer' || operation.op === 'size' || operation.op === 'changes') return filesOfStored(spec, snapshot, operation)
    const users = this.#mounted.get(spec.id) ?? 0
    const owners = await this.#owners(spec)
    if (users === 0) {
      while (snapshots.unmount(spec.id)); // left by a daemon that died
      await snapshots.mount(snapshot, mountOptions(spec, owners))
    }
    this.#mounted.set(spec.id, (this.#mounted.get(spec.id) ?? 0) + 1)
    const job = filesOfStored(spec, snapshot, operation, owners)
    const release = () => {
      const left = (this.#mounted.get(spec.id) ?? 1) - 1
      if (left > 0) return void this.#mounted.set(spec.id, left)
      this.#mounted.delete(spec.id)
      snapshots.unmount(spec.id)
    }
    // Before anyone else who waits for the job learns of its end.
    const done = job.done.finally(release)
    done.catch(() => {})
    return { ...job, done }
  }

  async removeState(spec: Pick<WorkloadSpec, 'id' | 'stateDir' | 'runDir' | 'ephemeral'>): Promise<void> {
    await this.callOff(spec)
    await releaseFiles(spec, this.options.snapshots)
    await this.options.snapshots.remove(spec.id, spec.ephemeral)
  }
}
