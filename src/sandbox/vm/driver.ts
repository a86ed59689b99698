import { closeSync, existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { CAPABILITIES } from '../../base/capabilities.js'
import { badRequest, messageOf } from '../../base/errors.js'
import { log } from '../../base/log.js'
import { counter, gauge, type MetricFamily } from '../../base/metrics.js'
import { ownCopy } from '../../host/memory.js'
import { native } from '../../host/native.js'
import { effectiveCapabilities } from '../../oci/capabilities.js'
import { blockIoOf } from '../../oci/block-io.js'
import { cgroupOf, hostCgroups } from '../../oci/cgroups.js'
import { resourceSupport } from '../../oci/resources.js'
import { Supervised, type SupervisedOptions } from '../../oci/supervised.js'
import { Runtime } from '../../oci/runtime.js'
import { keepFilter, useCachedFilter } from '../../oci/seccomp-cache.js'
import { serialize } from '../../oci/spec-types.js'
import type { DriverInfo, Resources, Sandbox, SandboxAttachments, SandboxDriver, WorkloadSpec } from '../types.js'
import type { FileJob, FileOperation } from '../files.js'
import { hypervisorVersion, landlockWords } from './explain.js'
import { FileServer, fileServerDirectory } from './fileserver.js'
import { findFileServer, type FileServerParts } from './fileserver-parts.js'
import { configFrames, holdFrames, rehearseFrames, runFrames } from './guestspec.js'
import { jailRootsIn, ensureJailRoot, findVmParts, type VmParts } from './jailroot.js'
import { jailConfig } from './jailspec.js'
import { AheadMachines } from './ahead-machines.js'
import { wantedStart } from './ahead.js'
import { imageSlotOf, PLACEHOLDER_MAC } from './qemu.js'
import { AcceleratorProbe, type AcceleratorChoice } from './probe.js'
import { Maintenance, maintenanceSpec, sizeOnHost } from './maintenance.js'
import { readRecord, writeRecord, type VmRecord } from './record.js'
import { sizeVm } from './resources.js'
import { diskExists, diskPath, ensureDisk, type VmDisks } from './disks.js'
import { imageRoot, Templates, type Template, type TemplateShape } from './templates.js'
import { VmSandbox } from './sandbox.js'
import { Taps } from './taps.js'
import { checkShare, sharesOf } from './shares.js'
import { makeVmDirectory, removeRunDirectory } from './vmdir.js'
import { UidAllocator, uidFile } from './uids.js'

/** Everything that the driver needs from outside. */
export interface VmDriverOptions {
  /** Kept across boots of the host: jails and the probe's answer are below dataRoot/vm. */
  dataRoot: string
  /** Gone after a boot of the host. */
  execRoot: string
  /** Build of the guest: hull-vmm, vmlinux, initrd.cpio, manifest. */
  guestDir: string
  /** EROFS image of an image's layers (storage/): made once per chain, kept while the image is. */
  erofsFor: (chainId: string, layers: string[]) => Promise<string>
  /** How disks for containers' writable layers are made (storage/), at their first start. */
  disks: VmDisks
  /** Parent cgroup of containers without one; default '/hull'. */
  cgroupParent?: string
  /** Where the monitors write exit files; default execRoot/exits. */
  exitDir?: string
  /** crun's state; default execRoot/runtime/crun. */
  runtimeRoot?: string
  /** Program, by name or path; default qemu-system-x86_64. */
  qemu?: string
  /** virtiofsd, by path; default where Debian has it. */
  virtiofsd?: string
  /** Default /dev/kvm. */
  kvmDevice?: string
  /** Seconds that a guest gets to come up; default 60 with KVM, 180 without. */
  bootTimeout?: number
  /** Starts of an image from a template of any image that make it worth one of its own; default 2. */
  ownTemplateAfter?: number
  /** Machines that are made ahead for each shape that is started again and again; default 0: none. */
  pool?: number
  /** A tap for a machine that is made ahead: not the port of any bridge yet. Its descriptor is the driver's to close. */
  openTap?: (id: string) => Promise<number>
  /** The guest's console in runDir/vm/console.log; for finding faults. */
  console?: boolean
}

/** Milliseconds for which the files of QEMU and guest are taken to be the same. */
const PARTS_TTL = 30_000
const BOOT_TIMEOUT = { kvm: 60, tcg: 180 } as const

/** A jail that is created and not started. */
interface Launched {
  record: VmRecord
  supervised: Supervised
  files: FileServer | undefined
  onBadTemplate: (() => Promise<void>) | undefined
}

interface Prepared {
  parts: VmParts
  jailRoot: string
  choice: AcceleratorChoice
}

/** Isolation vm: QEMU in a jail that is itself a container. */
export class VmDriver implements SandboxDriver {
  readonly isolation = 'vm'
  private readonly uids = new UidAllocator()
  private readonly taps = new Taps()
  private readonly probe: AcceleratorProbe
  private readonly jails: string
  /** Jail roots of VMs that live and of their file servers, by container id. */
  private readonly live = new Map<string, string[]>()
  private fileServerParts: { at: number; value: Promise<FileServerParts> } | undefined
  private readonly maintenance: Maintenance
  private readonly templates: Templates
  private readonly ahead: AheadMachines
  private readonly starts = { boot: 0, template: 0, image: 0, pool: 0 }
  private prepared: { at: number; value: Promise<Prepared> } | undefined

  constructor(private readonly options: VmDriverOptions) {
    this.jails = join(options.dataRoot, 'vm')
    this.maintenance = new Maintenance(join(options.execRoot, 'files'), async (spec) => {
      await this.removeLeftover(spec.runDir)
      const sandbox = await this.build(spec, undefined, holdFrames())
      try {
        await sandbox.start()
        return sandbox
      } catch (error) {
        await sandbox.destroy()
        throw error
      }
    })
    this.templates = new Templates(join(this.jails, 'templates'), options.disks, options.ownTemplateAfter)
    this.ahead = new AheadMachines(options.pool ?? 0, {
      jailRoot: async () => (await this.prepare()).jailRoot,
      openTap: options.openTap,
      launch: async (spec, tapFd) => {
        await this.templates.idle() // the one of a shape's first start may be about to be ready
        return this.launch(spec, tapFd, 'ahead')
      },
      keepTap: (id, fd, over) => this.taps.keep(id, fd, over),
      forget: async (spec, uid) => {
        if (uid !== undefined) await this.forget(spec, uid, undefined)
        await rm(diskPath(spec.stateDir), { force: true })
      },
    })
    this.probe = new AcceleratorProbe(join(this.jails, 'accelerator.json'), options.kvmDevice)
  }

  async info(): Promise<DriverInfo> {
    try {
      const { jailRoot, choice } = await this.prepare()
      const manifest = await readFile(join(this.options.guestDir, 'manifest'), 'utf8').catch(() => '')
      return {
        isolation: 'vm',
        accelerator: choice.accelerator,
        warnings: warningsOf(choice),
        details: {
          Hypervisor: await hypervisorVersion(jailRoot),
          Accelerator: choice.accelerator,
          Landlock: landlockWords(native.landlockVersion()),
          'Guest kernel': /^kernel=(.+)$/m.exec(manifest)?.[1] ?? 'unknown',
        },
      }
    } catch (error) {
      // `docker info` must work on a machine that cannot run VMs, and say why it cannot.
      return { isolation: 'vm', accelerator: '', warnings: [messageOf(error)], details: {} }
    }
  }

  metrics(): MetricFamily[] {
    return [
      counter('hull_vm_starts', 'Virtual machines made for workloads, by how: booted, a clone of a memory template, a clone of one with the image mounted, or claimed from the pool.', Object.entries(this.starts).map(([start, count]) => [{ start }, count])),
      gauge('hull_vm_pool_machines', 'Virtual machines that wait for a workload.', [[{}, this.ahead.waiting]]),
    ]
  }

  async validate(spec: WorkloadSpec): Promise<string[]> {
    if (spec.network.mode === 'host') throw badRequest('isolation vm: a virtual machine has its own network stack and cannot use --network host; use --isolation process')
    if (spec.runtime !== '' && spec.runtime !== 'crun') {
      throw badRequest(`isolation vm: --runtime ${spec.runtime} has no effect on a virtual machine; leave it out or use --isolation process`)
    }
    for (const mount of spec.mounts) checkShare(mount)
    // Now and not at the start: who has no virtiofsd hears of it before there is a container.
    if (spec.mounts.some((mount) => mount.type !== 'tmpfs')) await this.fileServer()
    if (spec.seccomp !== '' && spec.seccomp !== 'default' && spec.seccomp !== 'unconfined') {
      throw badRequest('isolation vm: a custom seccomp profile is not applied inside a virtual machine; leave it out or use --isolation process')
    }
    wantedStart(spec)
    capabilitiesFor(spec, spec.privileged)
    sizeVm(spec.resources, 'tcg', availableParallelism())
    await cgroupOf(this.cgroupPath(spec)).catch((error: unknown) => {
      throw badRequest(messageOf(error), error)
    })
    const { choice } = await this.prepare()
    return [...warningsOf(choice), ...(await jailBlockIo(spec)).warnings]
  }

  async create(spec: WorkloadSpec, attachments: SandboxAttachments): Promise<Sandbox> {
    try {
      await this.maintenance.end(spec.id)
      const ahead = await this.claim(spec)
      if (ahead) return ahead
      const sandbox = await this.build(spec, attachments.tapFd, runFrames(spec, capabilitiesFor(spec, spec.privileged)))
      if (attachments.tapFd !== undefined) this.taps.keep(spec.id, attachments.tapFd, sandbox.exited)
      return sandbox
    } catch (error) {
      if (attachments.tapFd !== undefined) closeSync(attachments.tapFd)
      throw error
    }
  }

  async reserve(spec: WorkloadSpec, bridged: boolean): Promise<string | undefined> {
    return this.ahead.reserve(spec, bridged)
  }

  async settle(spec: WorkloadSpec): Promise<boolean> {
    await this.taps.gone(spec.id)
    return this.ahead.settle(spec)
  }

  /** The machine that waits under this id becomes the container's. */
  private async claim(spec: WorkloadSpec): Promise<VmSandbox | undefined> {
    const claimed = await this.ahead.claim(spec)
    if (!claimed) return undefined
    this.starts.pool++
    return this.orEnd(spec, claimed, async () => {
      const { guestMemory } = sizeVm(spec.resources, claimed.record.accelerator, availableParallelism())
      const frames = { 'config.frames': configFrames(spec, { memory: guestMemory, imageSlot: claimed.record.imageSlot ?? 0 }), 'run.frames': runFrames(spec, capabilitiesFor(spec, spec.privileged)) }
      return this.sandbox(spec, claimed.record, claimed.supervised, undefined, undefined, () => claimed.equip(frames))
    })
  }

  /** Nobody else knows of a machine that was claimed or launched: it ends when `make` fails. */
  private async orEnd<T>(spec: WorkloadSpec, machine: Pick<Launched, 'record' | 'supervised'> & Partial<Launched>, make: () => Promise<T>): Promise<T> {
    try {
      return await make()
    } catch (error) {
      await machine.supervised.destroy()
      await this.forget(spec, machine.record.uid, machine.files)
      throw error
    }
  }

  private async build(spec: WorkloadSpec, tapFd: number | undefined, run: Buffer): Promise<VmSandbox> {
    const made = (await this.launch(spec, tapFd, run))!
    this.starts[made.record.start ?? 'boot']++
    return this.orEnd(spec, made, async () => {
      if (!this.options.console) await this.ahead.used(spec)
      return this.sandbox(spec, made.record, made.supervised, made.files, made.onBadTemplate)
    })
  }

  /** The jail with everything in it, up to "created". `run`: what the machine is to run, or that it is made ahead, which needs a template: undefined without one. */
  private async launch(spec: WorkloadSpec, tapFd: number | undefined, run: Buffer | 'ahead'): Promise<Launched | undefined> {
    if (spec.network.mode === 'bridge' && tapFd === undefined) throw new Error('a bridge network without a tap')
    const [{ jailRoot, choice }, options] = await Promise.all([this.prepare(), this.supervisedOptions(spec)])
    const { blockIO } = await jailBlockIo(spec)
    const { accelerator } = choice
    const clock = choice.tscKhz === undefined ? {} : { tscKhz: choice.tscKhz }
    const { shares, sockets } = await sharesOf(spec.mounts)
    const parts = shares.length > 0 ? await this.fileServer() : undefined
    const uid = await this.uids.take(spec.id, spec.stateDir)
    this.live.set(spec.id, [jailRoot, ...(parts ? [parts.root] : [])])
    let files: { server: FileServer; connection: number } | undefined
    let template: Template | undefined
    try {
      await mkdir(spec.runDir, { recursive: true, mode: 0o700 })
      if (spec.logPath !== '') await mkdir(dirname(spec.logPath), { recursive: true, mode: 0o700 })
      const image = await this.options.erofsFor(spec.chainId, spec.layers)
      const root = await imageRoot(image)
      const imageSlot = imageSlotOf(root.size)
      const size = sizeVm(spec.resources, accelerator, availableParallelism(), imageSlot)
      const ahead = run === 'ahead'
      const guest = { memory: size.guestMemory, imageSlot }
      const frames: Record<string, Buffer> = ahead
        ? { 'rehearse.frames': rehearseFrames(spec, guest, capabilitiesFor(spec, spec.privileged)) }
        : { 'config.frames': configFrames(spec, guest, sockets), 'run.frames': run }
      // A template may have a new disk mounted: whose disk is another, or not new, takes one that has not.
      const newDisk = (spec.diskBytes ?? this.options.disks.usual) === this.options.disks.usual && !(await diskExists(spec.stateDir))
      const shape: TemplateShape = { accelerator, ...clock, vcpus: size.vcpus, ram: size.ram, network: spec.network.mode === 'bridge', image: imageSlot, disk: newDisk ? this.options.disks.usual : 0, ...(newDisk ? { root } : {}) }
      if (!this.options.console && wantedStart(spec) !== 'boot') template = await this.templates.take(shape, jailRoot)
      if (ahead && !template) {
        await this.forget(spec, uid, undefined)
        return undefined
      }
      // All to their end, before anything is undone.
      const [disk, directory, server, memory] = await Promise.allSettled([
        ensureDisk(this.options.disks, spec.stateDir, spec.diskBytes, uid, template?.disk),
        makeVmDirectory(spec.runDir, uid, frames),
        parts ? FileServer.start({ vm: options, parts, guestDir: this.options.guestDir, shares, size }) : undefined,
        // The file server is to see what the guest writes, and nobody what a template's other clones do.
        parts && template ? ownCopy(template.memory) : undefined,
      ])
      if (server.status === 'fulfilled') files = server.value
      if (template && memory.status === 'fulfilled' && memory.value !== undefined) {
        closeSync(template.memory)
        template.memory = memory.value
      }
      if (disk.status === 'rejected') throw disk.reason
      if (directory.status === 'rejected') throw directory.reason
      if (server.status === 'rejected') throw server.reason
      if (memory.status === 'rejected') throw memory.reason
      const config = jailConfig({
        root: jailRoot, directory: directory.value, image, imageSlot, disk: disk.value, uid, accelerator, ...clock, size,
        hostname: `hull-${spec.id.slice(0, 12)}`,
        ...(spec.network.mode === 'bridge' ? { mac: ahead ? PLACEHOLDER_MAC : spec.network.mac } : {}),
        shares: files !== undefined,
        clone: template !== undefined,
        ahead,
        cgroupsPath: options.cgroupPath,
        ...(blockIO ? { blockIO } : {}),
        bootTimeout: this.options.bootTimeout ?? BOOT_TIMEOUT[accelerator],
        console: this.options.console ?? false,
      })
      const record: VmRecord = { version: 1, uid, accelerator, vcpus: size.vcpus, ram: size.ram, jailRoot, cgroupsPath: options.cgroupPath, ...(imageSlot > 0 ? { imageSlot } : {}), ...(template ? { start: ahead ? ('pool' as const) : template.own ? ('image' as const) : ('template' as const) } : {}), ...(parts ? { fileServer: parts } : {}), ...(sockets.length > 0 ? { sockets: sockets.map(({ index, path }) => ({ index, path })) } : {}) }
      useCachedFilter(options.runtime, config)
      await Promise.all([writeFile(join(spec.runDir, 'config.json'), serialize(config), { mode: 0o600 }), writeRecord(spec.runDir, record)])
      // In this order: jailspec.ts counts on it.
      const preserveFds = [...(tapFd === undefined ? [] : [tapFd]), ...(files ? [files.connection] : []), ...(template ? [template.state, template.memory] : [])]
      const supervised = await Supervised.create({ ...options, preserveFds })
      void keepFilter(options.runtime, spec.id, config)
      const key = template?.key
      return { record, supervised, files: files?.server, onBadTemplate: key === undefined ? undefined : () => this.templates.distrust(key) }
    } catch (error) {
      await this.forget(spec, uid, files?.server).catch((failure: unknown) => log.error('cannot clean up after a failed start', { id: spec.id, error: messageOf(failure) }))
      throw error
    } finally {
      if (files) closeSync(files.connection)
      if (template) for (const fd of [template.state, template.memory]) closeSync(fd)
    }
  }

  async adopt(spec: WorkloadSpec): Promise<Sandbox | undefined> {
    await this.removeLeftover(maintenanceSpec(spec, this.maintenance.directory).runDir)
    if (!existsSync(spec.runDir)) return undefined
    const record = await readRecord(spec.runDir)
    const options = await this.supervisedOptions(spec, record?.cgroupsPath)
    const supervised = record && (await Supervised.adopt(options))
    if (!record || !supervised) {
      // The daemon died half-way through a start: nothing of it may stay.
      await Supervised.removeLeftovers(options)
      if (existsSync(fileServerDirectory(spec.runDir))) await FileServer.removeLeftovers(options)
      await removeRunDirectory(spec.runDir)
      return undefined
    }
    await this.uids.adopt(spec.id, spec.stateDir)
    this.live.set(spec.id, [record.jailRoot, ...(record.fileServer ? [record.fileServer.root] : [])])
    const sandbox = await this.sandbox(spec, record, supervised, await FileServer.adopt(options))
    sandbox.serveSockets()
    return sandbox
  }

  async removeState(spec: Pick<WorkloadSpec, 'id' | 'stateDir' | 'runDir'>): Promise<void> {
    await this.ahead.drop(spec.id)
    await this.maintenance.end(spec.id)
    await removeRunDirectory(spec.runDir)
    await rm(diskPath(spec.stateDir), { force: true })
    await rm(uidFile(spec.stateDir), { force: true })
  }

  async files(spec: WorkloadSpec, operation: FileOperation): Promise<FileJob> {
    if (operation.op === 'size') return sizeOnHost(diskPath(spec.stateDir))
    await this.ahead.drop(spec.id) // it has the disk
    return this.maintenance.files(spec, operation)
  }

  /** Ends a maintenance machine that a daemon left behind when it died. */
  private async removeLeftover(runDir: string): Promise<void> {
    if (!existsSync(runDir)) return
    const record = await readRecord(runDir)
    const id = basename(runDir)
    const options = await this.supervisedOptions({ ...leftoverSpec, id, runDir }, record?.cgroupsPath)
    const supervised = record && (await Supervised.adopt(options))
    await (supervised ? supervised.destroy() : Supervised.removeLeftovers(options))
    if (existsSync(fileServerDirectory(runDir))) await FileServer.removeLeftovers(options)
    await removeRunDirectory(runDir)
  }

  /** Halts what was booted for work on files, and what is being prepared: the daemon ends. */
  async endMaintenance(): Promise<void> {
    this.templates.stop() // before the machine that is being made ahead ends: it may wait for a template
    await this.ahead.close()
    await Promise.all([this.maintenance.endAll(), this.templates.close()])
  }

  private async sandbox(spec: WorkloadSpec, record: VmRecord, supervised: Supervised, files: FileServer | undefined, onBadTemplate?: () => Promise<void>, prepareClaim?: () => Promise<void>): Promise<VmSandbox> {
    return new VmSandbox(
      spec, record, supervised,
      await cgroupOf(record.cgroupsPath),
      (privileged) => capabilitiesFor(spec, privileged),
      () => this.forget(spec, record.uid, files),
      files,
      onBadTemplate,
      prepareClaim,
    )
  }

  /** What {@link create} made besides the supervised jail. */
  private async forget(spec: Pick<WorkloadSpec, 'id' | 'runDir'>, uid: number, files: FileServer | undefined): Promise<void> {
    await files?.destroy()
    this.live.delete(spec.id)
    this.uids.release(uid, spec.id)
    await removeRunDirectory(spec.runDir)
  }

  private async supervisedOptions(spec: Pick<WorkloadSpec, 'id' | 'runDir' | 'logPath' | 'logLimits' | 'openStdin' | 'stdinOnce' | 'process' | 'cgroupParent'> & { resources: Pick<Resources, 'oomScoreAdj'> }, cgroupPath = this.cgroupPath(spec)): Promise<SupervisedOptions> {
    return {
      id: spec.id,
      runDir: spec.runDir,
      exitDir: this.options.exitDir ?? join(this.options.execRoot, 'exits'),
      runtime: await Runtime.open('crun', this.options.runtimeRoot ?? join(this.options.execRoot, 'runtime/crun')),
      cgroupPath,
      logPath: spec.logPath,
      ...(spec.logLimits ? { logLimits: spec.logLimits } : {}),
      // The terminal is the guest's; the monitor sees pipes.
      tty: false,
      stdin: spec.openStdin,
      // A terminal has no end of input that a client could send by leaving.
      leaveStdinOpen: spec.process.tty || !spec.stdinOnce,
      attempt: { command: spec.process.args[0] ?? '', cwd: spec.process.cwd },
      oomScoreAdj: spec.resources.oomScoreAdj,
    }
  }

  private cgroupPath(spec: Pick<WorkloadSpec, 'id' | 'cgroupParent'>): string {
    const parent = spec.cgroupParent || this.options.cgroupParent || '/hull'
    return `${parent.startsWith('/') ? '' : '/'}${parent.replace(/\/+$/, '')}/${spec.id}`
  }

  /** QEMU, guest, jail and accelerator; looked up anew when the last look is old. */
  private prepare(): Promise<Prepared> {
    const now = performance.now()
    if (!this.prepared || now - this.prepared.at > PARTS_TTL) {
      const value = this.lookUp()
      const prepared = { at: now, value }
      this.prepared = prepared
      value.catch(() => {
        if (this.prepared === prepared) this.prepared = undefined // what is missing may be installed now
      })
    }
    return this.prepared.value
  }

  private async lookUp(): Promise<Prepared> {
    const parts = await findVmParts(this.options.guestDir, this.options.qemu)
    await mkdir(this.jails, { recursive: true, mode: 0o711 })
    const [jailRoot, choice] = await Promise.all([ensureJailRoot(this.jails, parts), this.probe.choose(parts)])
    return { parts, jailRoot, choice }
  }

  /** virtiofsd and its jail; looked up anew when the last look is old. */
  private fileServer(): Promise<FileServerParts> {
    const now = performance.now()
    if (!this.fileServerParts || now - this.fileServerParts.at > PARTS_TTL) {
      const found = { at: now, value: findFileServer(this.jails, this.options.virtiofsd) }
      this.fileServerParts = found
      found.value.catch(() => {
        if (this.fileServerParts === found) this.fileServerParts = undefined
      })
    }
    return this.fileServerParts.value
  }

  /** Resolves when no template is being made. For tests. */
  templatesIdle(): Promise<void> {
    return this.templates.idle()
  }

  /** Resolves when the pool has what it should have. For tests. */
  poolFull(): Promise<void> {
    return this.ahead.full()
  }

  /**
   * Ends machines that were made ahead by a daemon that died, and looks what lies there. For the start of the daemon, after adoption. `rest` removes what of it is a jail or template of an
   * older QEMU or kernel that no VM uses; it asks for the accelerator, which takes half a minute on a host whose KVM hangs: the daemon serves meanwhile.
   */
  async collectGarbage(): Promise<{ rest: Promise<void> }> {
    const runDirs = join(this.options.execRoot, 'containers')
    for (const id of await readdir(runDirs).catch(() => [])) {
      const record = this.live.has(id) ? undefined : await readRecord(join(runDirs, id))
      if (record?.start === 'pool') await this.removeLeftover(join(runDirs, id))
    }
    const [jails, templates] = await Promise.all([jailRootsIn(this.jails), this.templates.names()])
    return { rest: this.collectOld(jails, templates) }
  }

  private async collectOld(jails: readonly string[], templates: readonly string[]): Promise<void> {
    const { jailRoot } = await this.prepare()
    const files = await this.fileServer().then((parts) => [parts.root], () => [])
    await this.templates.collect(jailRoot, templates)
    const inUse = new Set([jailRoot, ...files, ...[...this.live.values()].flat()])
    for (const path of jails) if (!inUse.has(path)) await rm(path, { recursive: true, force: true })
  }
}

/** What of a spec the supervisor of a maintenance machine had; see maintenanceSpec. */
const leftoverSpec = {
  logPath: '', openStdin: false, stdinOnce: false, cgroupParent: '', process: { args: ['hold'], env: [], cwd: '/', user: '', groupAdd: [], tty: false, privileged: false }, resources: { oomScoreAdj: 0 },
}

/** Every capability: the guest's kernel can give what this daemon may lack, and what is given there reaches no further than the guest. */
const ALL = (1n << BigInt(CAPABILITIES.length)) - 1n

/** CAP_… names of a workload or exec session inside the guest, by Docker's rules. 400 for unknown names. */
function capabilitiesFor(spec: Pick<WorkloadSpec, 'capAdd' | 'capDrop'>, privileged: boolean): string[] {
  return effectiveCapabilities({ privileged, add: spec.capAdd, drop: spec.capDrop }, ALL).capabilities
}

const jailBlockIo = async ({ resources }: WorkloadSpec) => blockIoOf(resources.blkioWeight, resources.blkioDevices, resourceSupport(await hostCgroups()))

function warningsOf(choice: AcceleratorChoice): string[] {
  if (choice.accelerator === 'kvm') return []
  return [`isolation vm: running under software emulation (TCG): slow, and no security boundary. ${choice.reason}`]
}
