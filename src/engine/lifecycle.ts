import { badRequest, conflict, HullError, internal, messageOf } from '../base/errors.js'
import { log } from '../base/log.js'
import { within } from '../base/timers.js'
import { keepAttachQuick } from '../host/cgroup-attach.js'
import type { ImageService } from '../image/types.js'
import type { NetworkManager } from '../network/types.js'
import type { Isolation, Sandbox, SandboxDriver, WorkloadSpec } from '../sandbox/types.js'
import type { FileJob, FileOperation } from '../sandbox/files.js'
import { Connections } from './connections.js'
import { type Container, recordExit } from './container.js'
import type { EventBus } from './events.js'
import { ExpectedStarts } from './expected-starts.js'
import { HealthMonitor } from './health-monitor.js'
import { KeyedLock } from './lock.js'
import { EngineMetrics } from './metrics.js'
import { joinNamespaces } from './namespaces.js'
import type { ContainerRegistry } from './registry.js'
import { neededAreUp } from './needed.js'
import { nextWait, restartsAfterExit } from './restart-policy.js'
import { parseSignal, SIGKILL } from './signals.js'
import type { NetworkDirectory } from './network-directory.js'
import { type SpecPaths, workloadSpec } from './spec.js'
import type { ContainerRecord, ContainerStore } from './store.js'
import type { Volumes } from './volumes.js'

/** What the life cycle works with. */
export interface LifecycleParts {
  store: ContainerStore
  registry: ContainerRegistry
  images: ImageService
  network: NetworkManager
  directory: NetworkDirectory
  drivers: Record<Isolation, SandboxDriver>
  events: EventBus
  volumes: Volumes
  paths: SpecPaths
}

/** Seconds between SIGTERM and SIGKILL when neither the container nor the client says (Docker). */
const defaultStopTimeout = 10
/** Milliseconds for which a SIGKILL is waited for (moby). */
const killWaitMs = 10_000

/** The names that events carry of a container (moby logEvent): image, name, labels. */
function eventAttributes(record: ContainerRecord): Record<string, string> {
  return { ...record.config.Labels, image: record.imageRef, name: record.name }
}

/**
 * The states of a container and the steps between them. Steps on one container are serialized; each writes the record to disk
 * before it reports success, and undoes in the kernel what it could not finish.
 */
export class Lifecycle {
  readonly #lock = new KeyedLock()
  readonly #restartDelay = new Map<string, number>()
  readonly #expected = new ExpectedStarts({
    possible: (container) => !this.#stopping && container.mayStart && container.fileJobs.idle && this.parts.drivers[container.record.isolation].begin !== undefined,
    begin: (container) => this.#begin(container),
    callOff: (container) => this.#destroy(container, undefined),
    exclusive: (container, section) => this.exclusive(container, section),
  })
  readonly health: HealthMonitor
  readonly metrics: EngineMetrics
  #stopping = false

  readonly connections: Connections

  constructor(readonly parts: LifecycleParts) {
    this.connections = new Connections(parts)
    this.metrics = new EngineMetrics(parts.registry, parts.events)
    this.health = new HealthMonitor(
      (id) => parts.store.directory(id),
      (container, action, attributes) => this.announce(container, action, attributes),
    )
  }

  // events -------------------------------------------------------------------------------------------------

  announce(container: Container, action: string, attributes: Record<string, string> = {}): void {
    this.parts.events.publish('container', action, container.id, { ...eventAttributes(container.record), ...attributes })
  }

  /** Runs a section that no step of this container's life interrupts. */
  exclusive<T>(container: Container, section: () => Promise<T>): Promise<T> {
    return this.#lock.run(container.id, section)
  }

  // start --------------------------------------------------------------------------------------------------

  /** True: started. False: it ran already. */
  start(container: Container): Promise<boolean> {
    return this.#lock.run(container.id, async () => {
      const { status } = container.record.state
      // Docker counts a container between two lives of its restart policy as running.
      if (status === 'running' || status === 'restarting') return false
      if (status === 'paused') throw conflict('cannot start a paused container, try unpause instead')
      if (status === 'removing' || status === 'dead') {
        throw conflict('container is marked for removal and cannot be started')
      }
      container.record.state.stoppedByUser = false
      container.record.restartCount = 0
      this.#restartDelay.delete(container.id)
      await this.#start(container)
      return true
    })
  }

  async #begin(container: Container): Promise<void> {
    await this.parts.drivers[container.record.isolation].begin?.(await this.specOf(container.record))
  }

  /** A client waits for the output of a container that does not run, or has made one that removes itself: docker run and docker start do so some milliseconds before they start it. */
  expectStart(container: Container): void {
    this.#expected.expect(container)
  }

  async #start(container: Container): Promise<void> {
    this.#expected.come(container)
    const { record } = container
    clearTimeout(container.restartTimer)
    const begun = performance.now()
    let sandbox: Sandbox | undefined
    const attached = keepAttachQuick()
    try {
      await container.fileJobs.settled()
      record.state.starting = true
      record.state.error = ''
      // The addresses are on disk before anything is in the kernel, so that a crash leaves nothing that nobody knows.
      await this.connections.allocate(record)
      const [, root] = await Promise.all([this.parts.store.save(record), this.parts.images.rootfs(record.imageId), this.#begin(container)])
      await this.parts.volumes.mount(record)
      const spec = await workloadSpec(record, root, this.parts.paths, await this.connections.place(record, true))
      const driver = this.parts.drivers[record.isolation]
      const ahead = await driver.settle?.(spec)
      if (ahead) attached() // it is in its cgroup
      const attachments = await this.connections.plug(record, ahead)
      const joined = await joinNamespaces(record, this.parts.registry, this.parts.paths.execRoot)
      try {
        sandbox = await driver.create(spec, { ...attachments, ...joined.attachments })
      } finally {
        await joined.close()
      }
      attached()
      await Promise.all([
        container.connectAttaches(sandbox),
        this.connections.publish(record),
      ])
      await sandbox.start()
    } catch (error) {
      attached()
      await this.#startFailed(container, sandbox, error)
      throw error instanceof HullError ? error : internal(messageOf(error), error)
    }
    record.state.status = 'running'
    record.state.starting = false
    record.state.exitCode = 0
    record.state.oomKilled = false
    record.state.startedAt = new Date().toISOString()
    delete record.state.finishedAt
    this.hold(container, sandbox)
    await this.parts.store.keep(record)
    this.health.begin(container)
    this.metrics.starts.observe({ isolation: record.isolation }, (performance.now() - begun) / 1000)
    this.connections.announceConnects(record)
    this.announce(container, 'start')
  }

  async #startFailed(container: Container, sandbox: Sandbox | undefined, error: unknown): Promise<void> {
    const { record } = container
    const message = messageOf(error)
    await this.#release(container, sandbox)
    record.state.starting = false
    if (record.state.status !== 'created') record.state.status = 'exited'
    record.state.error = message
    record.state.exitCode = exitCodeOfStartError(message)
    container.closeAttaches()
    container.endRun()
    await this.parts.store.keep(record)
    container.notify(['next-exit', 'not-running'], { exitCode: record.state.exitCode })
    if (record.hostConfig.AutoRemove) await this.#remove(container)
  }

  async #release(container: Container, sandbox: Sandbox | undefined): Promise<void> {
    // Side by side: neither needs the other, and who waits for a `docker run --rm` waits for both.
    await Promise.all([
      this.#destroy(container, sandbox).catch((error: unknown) => log.error('cannot clean up a sandbox', { id: container.id, error: messageOf(error) })),
      this.connections.release(container.record),
    ])
    try {
      await this.parts.volumes.release(container.record)
    } catch (error) {
      log.error('cannot release the volumes of a container', { id: container.id, error: messageOf(error) })
    }
  }

  /** Of a start that failed before there was a sandbox: what it had begun. */
  async #destroy(container: Container, sandbox: Sandbox | undefined): Promise<void> {
    if (sandbox) await sandbox.destroy()
    else await this.parts.drivers[container.record.isolation].callOff?.({ id: container.id, runDir: this.#runDir(container) })
  }

  #runDir({ id }: Container): string {
    return `${this.parts.paths.execRoot}/containers/${id}`
  }

  // exit ---------------------------------------------------------------------------------------------------

  /** The sandbox is the container's from here on, until it ends: it was started, or it outlived an earlier daemon. */
  hold(container: Container, sandbox: Sandbox): void {
    container.sandbox = sandbox
    container.ended = sandbox.exited
      .then((exit) => this.#lock.run(container.id, () => this.#exited(container, sandbox, exit)))
      .catch((error: unknown) => log.error('cannot finish an exit', { id: container.id, error: messageOf(error) }))
  }

  async #exited(container: Container, sandbox: Sandbox, exit: Awaited<Sandbox['exited']>): Promise<void> {
    if (container.sandbox !== sandbox) return
    const { record } = container
    const ranMs = record.state.startedAt ? exit.finishedAt.getTime() - Date.parse(record.state.startedAt) : 0
    container.sandbox = undefined
    // Before the supervisor's note of it goes: a daemon that dies meanwhile leaves the next one to guess otherwise.
    record.state.ending = { code: exit.code, oomKilled: exit.oomKilled, finishedAt: exit.finishedAt.toISOString() }
    // What removes itself then is removed by the next daemon whatever it was, so that nobody asks for its end.
    const passing = record.hostConfig.AutoRemove && !container.keep
    await Promise.all([this.health.end(container), passing ? undefined : this.parts.store.keep(record)])
    await this.#release(container, sandbox)
    recordExit(record, exit)
    container.endRun()
    const again = !this.#stopping && restartsAfterExit(record)
    const remove = record.hostConfig.AutoRemove && !again && !container.keep
    if (again) {
      record.state.status = 'restarting'
      record.restartCount++
    } else if (remove) {
      record.state.status = 'removing'
    }
    if (exit.oomKilled) this.announce(container, 'oom')
    this.announce(container, 'die', { exitCode: String(exit.code), execDuration: String(Math.max(0, Math.floor(ranMs / 1000))) })
    // What removes itself goes now, and after a crash as well: its end is on record, and what has ended is not kept.
    if (!remove) await this.parts.store.keep(record)
    // Both, though it counts as running until its next life: who waits for it hears of every end (moby SetRestarting).
    container.notify(['next-exit', 'not-running'], { exitCode: exit.code })
    if (again) this.#scheduleRestart(container, ranMs)
    else if (remove) await this.#remove(container)
  }

  #scheduleRestart(container: Container, ranMs: number): void {
    const wait = nextWait(this.#restartDelay.get(container.id), ranMs)
    this.#restartDelay.set(container.id, wait)
    const timer = setTimeout(() => void this.#restartNow(container, timer), wait)
    container.restartTimer = timer
  }

  async #restartNow(container: Container, timer: NodeJS.Timeout): Promise<void> {
    const called = () => !this.#stopping && container.restartTimer === timer && container.record.state.status === 'restarting'
    await neededAreUp(container.record, this.parts.registry, called)
    await this.#lock.run(container.id, async () => {
      if (!called()) return
      // As in Docker: a restart that cannot even start is the end, with the reason in State.Error.
      await this.#start(container).catch((error: unknown) => log.warn('a restart failed', { id: container.id, error: messageOf(error) }))
    })
  }

  // stop, kill, restart ------------------------------------------------------------------------------------

  /** True: stopped. False: it did not run. `timeout` in seconds, -1: for ever. */
  async stop(container: Container, options: { timeout?: number; signal?: number }): Promise<boolean> {
    if (await this.#cancelRestart(container, true)) return true
    if (!container.isUp || !container.sandbox) return false
    await this.#markStopped(container)
    // It may have ended by itself before it was marked, and wait for its next life now.
    if (await this.#cancelRestart(container, true)) return true
    await this.#bringDown(container, options)
    this.announce(container, 'stop')
    return true
  }

  /** On disk before the signal, if there is room: a daemon that dies meanwhile must not start it again. */
  #markStopped(container: Container): Promise<void> {
    return this.#lock.run(container.id, async () => {
      container.record.state.stoppedByUser = true
      if (container.isUp) await this.parts.store.keep(container.record)
    })
  }

  async #bringDown(container: Container, options: { timeout?: number; signal?: number }): Promise<void> {
    const { record, sandbox } = container
    if (!sandbox) return
    const signal = options.signal ?? (record.config.StopSignal ? parseSignal(record.config.StopSignal) : 15)
    const timeout = options.timeout ?? record.config.StopTimeout ?? defaultStopTimeout
    if (record.state.status === 'paused') await this.unpause(container)
    const { ended } = container
    this.announce(container, 'kill', { signal: String(signal) })
    await sandbox.signal(signal).catch((error: unknown) => log.warn('cannot signal', { id: container.id, error: messageOf(error) }))
    if ((await (timeout < 0 ? ended : within(ended, timeout * 1000))) !== 'timeout') return
    this.announce(container, 'kill', { signal: String(SIGKILL) })
    await sandbox.signal(SIGKILL)
    await ended
  }

  /** A container between two lives of its restart policy has nothing to signal: it stays down. */
  #cancelRestart(container: Container, announce: boolean): Promise<boolean> {
    return this.#lock.run(container.id, async () => {
      if (container.record.state.status !== 'restarting') return false
      clearTimeout(container.restartTimer)
      container.record.state.status = 'exited'
      container.record.state.stoppedByUser = true
      await this.parts.store.keep(container.record)
      container.notify(['not-running'], { exitCode: container.record.state.exitCode })
      if (announce) this.announce(container, 'stop')
      return true
    })
  }

  /** 409 when it does not run. */
  async kill(container: Container, signal: number): Promise<void> {
    const { record } = container
    if (await this.#cancelRestart(container, false)) return
    const { sandbox } = container // now: a start that was under way is over
    if (!container.isUp || !sandbox) throw conflict(`container ${record.id} is not running`)
    const stopSignal = record.config.StopSignal ? parseSignal(record.config.StopSignal) : 15
    const ending = signal === SIGKILL || signal === stopSignal
    // A frozen process sees signals when it is thawed: those that are to end it thaw it, as in Docker; others wait.
    if (record.state.status === 'paused' && ending) await this.unpause(container)
    if (ending) await this.#markStopped(container)
    // It may have ended by itself before it was marked, and wait for its next life now.
    if (ending && (await this.#cancelRestart(container, false))) return
    const { ended } = container
    const there = await sandbox.signal(signal)
    if (!there && signal === SIGKILL) {
      // It has ended in this very moment: what was asked for has come about (moby killPossiblyDeadProcess).
      await within(ended, killWaitMs)
      return
    }
    if (!there) throw conflict(`container ${record.id} is not running`)
    this.announce(container, 'kill', { signal: String(signal) })
    if (signal === SIGKILL) await within(ended, killWaitMs)
  }

  async restart(container: Container, options: { timeout?: number; signal?: number }): Promise<void> {
    const { record } = container
    if (record.state.status === 'removing' || record.state.status === 'dead') {
      throw conflict('container is marked for removal and cannot be started')
    }
    await this.#cancelRestart(container, true)
    if (container.isUp) {
      await this.#markStopped(container)
      container.keep = true // moby: a restart is not an end, --rm or not
      try {
        await this.#bringDown(container, options)
      } finally {
        container.keep = false
      }
      this.announce(container, 'stop')
    }
    await this.start(container)
    this.announce(container, 'restart')
  }

  // pause --------------------------------------------------------------------------------------------------

  pause(container: Container): Promise<void> {
    return this.#lock.run(container.id, async () => {
      const { record, sandbox } = container
      if (record.state.status === 'paused') throw conflict(`container ${record.id} is already paused`)
      if (record.state.status !== 'running' || !sandbox) throw conflict(`container ${record.id} is not running`)
      // First: a probe in a frozen sandbox could not even be killed.
      await this.health.end(container)
      try {
        await sandbox.pause()
      } catch (error) {
        this.health.resume(container)
        throw error
      }
      record.state.status = 'paused'
      await this.parts.store.keep(record)
      this.announce(container, 'pause')
    })
  }

  unpause(container: Container): Promise<void> {
    return this.#lock.run(container.id, async () => {
      const { record, sandbox } = container
      if (record.state.status !== 'paused' || !sandbox) throw conflict(`Container ${record.id} is not paused`)
      await sandbox.unpause()
      record.state.status = 'running'
      this.health.resume(container)
      await this.parts.store.keep(record)
      this.announce(container, 'unpause')
    })
  }

  // files --------------------------------------------------------------------------------------------------

  /** Begins work on a container's files, whether it runs or not. A start or a removal waits for its end. */
  openFiles(container: Container, operation: FileOperation): Promise<FileJob> {
    return this.#lock.run(container.id, async () => {
      const { record, sandbox } = container
      if (record.state.status === 'removing' || record.state.status === 'dead') throw conflict(`container ${record.id} is marked for removal`)
      if (container.isUp && sandbox) return container.fileJobs.add(await sandbox.files(operation))
      const root = await this.parts.images.rootfs(record.imageId)
      const spec = await workloadSpec(record, root, this.parts.paths, await this.connections.place(record, false))
      return container.fileJobs.add(await this.parts.drivers[record.isolation].files(spec, operation))
    })
  }

  // rename, remove -----------------------------------------------------------------------------------------

  rename(container: Container, name: string): Promise<void> {
    return this.#lock.run(container.id, async () => {
      const { record } = container
      const old = record.name
      const taken = this.parts.registry.names.take(name, container.id)
      if (taken === old) throw badRequest('Renaming a container with the same name as its current name')
      record.name = taken
      this.connections.renamed(record)
      try {
        await this.parts.store.save(record)
      } catch (error) {
        record.name = old
        this.connections.renamed(record)
        this.parts.registry.names.free(taken, container.id)
        throw error
      }
      this.parts.registry.names.free(old, container.id)
      this.announce(container, 'rename', { oldName: `/${old}` })
    })
  }

  async remove(container: Container, force: boolean, volumes = false): Promise<void> {
    const { record } = container
    const refuseRestarting = () => {
      if (!force && record.state.status === 'restarting') throw conflict(`cannot remove container "/${record.name}": container is restarting: stop the container before removing or force remove`)
    }
    refuseRestarting()
    if (force) await this.#cancelRestart(container, false)
    if (container.isUp) {
      if (!force) {
        const what = record.state.status === 'paused' ? 'paused: unpause and then' : 'running:'
        throw conflict(`cannot remove container "/${record.name}": container is ${what} stop the container before removing or force remove`)
      }
      record.state.stoppedByUser = true
      const { ended } = container
      await this.kill(container, SIGKILL).catch((error: unknown) => {
        if (container.isUp) throw error
      })
      await ended
    }
    await this.#lock.run(container.id, async () => {
      if (record.state.status === 'dead') return
      refuseRestarting() // it ran a moment ago, and its policy will bring it back
      if (container.isUp || record.state.starting) throw conflict(`cannot remove container "/${record.name}": container is running`)
      record.state.status = 'removing'
      if (volumes && record.mounts.some((mount) => mount.anonymous)) record.state.removeVolumes = true
      // Before its files go: what is half removed must not be started again by a later daemon.
      await this.parts.store.keep(record)
      await this.#remove(container)
    })
  }

  /** Under the lock. The record on disk says `removing`, or `--rm` and no end that is to be restarted: a crash in between is finished at the next start. */
  async #remove(container: Container): Promise<void> {
    const { record } = container
    if (record.state.status === 'dead') return
    try {
      await container.fileJobs.settled()
      await this.parts.drivers[record.isolation].removeState({
        id: record.id,
        stateDir: this.parts.store.directory(record.id),
        runDir: this.#runDir(container),
        ephemeral: record.hostConfig.AutoRemove,
      })
      if (record.state.removeVolumes || record.hostConfig.AutoRemove) await this.parts.volumes.removeAnonymous(record)
      await this.parts.store.remove(record.id)
    } catch (error) {
      log.error('cannot remove a container', { id: record.id, error: messageOf(error) })
      container.notify(['removed', 'next-exit', 'not-running'], { exitCode: record.state.exitCode, error: messageOf(error) })
      throw error
    }
    record.state.status = 'dead'
    this.parts.registry.delete(container)
    this.#restartDelay.delete(record.id)
    container.closeAttaches()
    container.endRun()
    this.announce(container, 'destroy')
    container.notify(['removed', 'next-exit', 'not-running'], { exitCode: record.state.exitCode })
  }

  // daemon start and stop ----------------------------------------------------------------------------------

  /** What a sandbox is told of a container, as it is now; without the image when that is gone. */
  async specOf(record: ContainerRecord): Promise<WorkloadSpec> {
    const root = await this.parts.images.rootfs(record.imageId).catch(() => ({ layers: [], chainId: '' }))
    return workloadSpec(record, root, this.parts.paths, await this.connections.place(record, false))
  }

  /** Removes what was being removed, or goes by itself. A failure is told in the log and tried again by the next daemon. */
  async finishRemoval(container: Container): Promise<void> {
    await this.#lock.run(container.id, () => this.#remove(container)).catch(() => {})
  }

  /** Its restart policy starts it in a moment. */
  async startByPolicy(container: Container): Promise<void> {
    const { state } = container.record
    state.stoppedByUser = false
    state.status = 'restarting'
    await this.parts.store.keep(container.record)
    this.#scheduleRestart(container, 0)
  }

  /** The daemon leaves; workloads stay. No more restarts from here. */
  leave(): void {
    this.#stopping = true
    this.health.leave()
    for (const container of this.parts.registry.all()) clearTimeout(container.restartTimer)
  }
}

/** The exit code that Docker keeps for a start that failed (moby setExitCodeFromError). */
function exitCodeOfStartError(message: string): number {
  if (/executable file not found|no such file or directory|system cannot find the file/.test(message)) return 127
  if (/permission denied|not a directory|is a directory|exec format error/.test(message)) return 126
  return 128
}
