import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, messageOf } from '../base/errors.js'
import { sweepTemporaries, writeFileAtomic } from '../base/files.js'
import { log } from '../base/log.js'
import { native } from '../host/native.js'
import { removeTree } from '../host/remove-tree.js'
import type { IdMap } from '../host/subid.js'
import type { Isolation } from '../sandbox/types.js'
import type { ContainerConfig, HostConfig, PublishedPort } from './api-types.js'
import type { NetworkAttachment } from './attachment.js'
import { KeyedLock } from './lock.js'
import type { ContainerMount } from './mounts.js'

/** What is kept of a container on disk: `containers/<id>/config.json`. The truth; memory is a cache of it. */
export interface ContainerRecord {
  version: 1
  id: string
  name: string
  /** ISO 8601. */
  created: string
  imageId: string
  /** As the user named the image. */
  imageRef: string
  isolation: Isolation
  /** --userns-remap at the time of its creation: its files on disk have these ids for good. */
  idMap?: IdMap
  /** Merged with the image's. */
  config: ContainerConfig
  hostConfig: HostConfig
  ports: PublishedPort[]
  mounts: ContainerMount[]
  /** The bridged networks that it is connected to, in the order of its interfaces. Empty with --network none, host and container:ID. */
  networks: NetworkAttachment[]
  warnings: string[]
  restartCount: number
  state: {
    status: 'created' | 'running' | 'paused' | 'restarting' | 'removing' | 'exited' | 'dead'
    /** A start is under way: after a crash it is undone. */
    starting: boolean
    exitCode: number
    error: string
    oomKilled: boolean
    startedAt?: string
    finishedAt?: string
    /** It has ended like this, and what it leaves is being cleaned up, the supervisor's own note of the end included. */
    ending?: { code: number; oomKilled: boolean; finishedAt: string }
    /** `docker stop` or `kill`: the restart policy does not bring it back. */
    stoppedByUser: boolean
    /** An update of the running container is under way: what is written here may not be in force yet. */
    updating?: true
    /** It is being removed, and the volumes that were made for it with it (`rm -v`). */
    removeVolumes?: boolean
  }
}

const file = 'config.json'
/** Milliseconds between two attempts at what could not be written. */
const retryMs = 2000

/** The records of all containers, one directory each. */
export class ContainerStore {
  /** One write of a record at a time. */
  readonly #lock = new KeyedLock()
  /** What {@link keep} could not write yet. */
  readonly #unwritten = new Map<string, ContainerRecord>()
  #retry: NodeJS.Timeout | undefined

  constructor(readonly root: string) {}

  directory(id: string): string {
    return join(this.root, id)
  }

  /** All records. A directory without a whole record is left over from a create that did not finish: it is removed. One that cannot be read is somebody's: rejects. */
  async load(): Promise<ContainerRecord[]> {
    await mkdir(this.root, { recursive: true, mode: 0o710 })
    const records: ContainerRecord[] = []
    for (const id of await readdir(this.root)) {
      try {
        await sweepTemporaries(join(this.root, id))
        records.push(JSON.parse(await readFile(join(this.root, id, file), 'utf8')) as ContainerRecord)
      } catch (error) {
        if (!(error instanceof SyntaxError) && !['ENOENT', 'ENOTDIR'].includes(codeOf(error) ?? '')) throw error
        log.warn('dropping an unfinished container directory', { id, error: messageOf(error) })
        await rm(join(this.root, id), { recursive: true, force: true })
      }
    }
    return records
  }

  /**
   * Makes the directory and the first record. `durable`: also safe from a crash of the host (fsync, some milliseconds);
   * a container that removes itself does not outlive its host anyway.
   */
  async create(record: ContainerRecord, durable: boolean): Promise<void> {
    const directory = this.directory(record.id)
    await mkdir(directory, { recursive: true, mode: 0o710 }) // there is one already when a sandbox was made ahead
    if (durable) await writeFileAtomic(join(directory, file), JSON.stringify(record))
    else await writeFile(join(directory, file), JSON.stringify(record), { mode: 0o600 })
  }

  /**
   * Replaces a record. Safe from a crash of the daemon (rename); not fsynced, because after a crash of the host nothing runs and
   * every state is made anew from what is found. `durable`: fsynced too, for what the user has configured.
   */
  async save(record: ContainerRecord, durable = false): Promise<void> {
    const path = join(this.directory(record.id), file)
    await this.#lock.run(record.id, async () => {
      if (durable) {
        await writeFileAtomic(path, JSON.stringify(record))
      } else {
        await native.replaceFile(path, `${path}.tmp`, JSON.stringify(record), 0o600)
      }
      this.#unwritten.delete(record.id)
    })
  }

  /**
   * {@link save} for what has happened already, or must happen: a container's end, a signal. On a full disk that goes on (who wants to make room must be able to kill and remove), and
   * the record is written when it can be. Until then it is known in memory alone. Never rejects.
   */
  async keep(record: ContainerRecord): Promise<void> {
    try {
      await this.save(record)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return // removed meanwhile
      if (!this.#unwritten.has(record.id)) log.error('cannot write the record of a container; it is tried again until it can be', { id: record.id, error: messageOf(error) })
      this.#unwritten.set(record.id, record)
      if (this.#retry === undefined) this.#retry = setTimeout(() => void this.#writeAgain(), retryMs).unref()
    }
  }

  async #writeAgain(): Promise<void> {
    this.#retry = undefined
    for (const record of [...this.#unwritten.values()]) if (this.#unwritten.has(record.id)) await this.keep(record)
  }

  /** Forgets a container. */
  async remove(id: string): Promise<void> {
    this.#unwritten.delete(id)
    await this.#lock.run(id, () => removeTree(this.directory(id)))
  }
}
