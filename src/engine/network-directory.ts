import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { badRequest, messageOf, notFound } from '../base/errors.js'
import { writeFileAtomic } from '../base/files.js'
import { log } from '../base/log.js'
import type { NetworkSpec } from '../network/types.js'
import type { CreateNetworkRequest } from './api-types.js'
import type { networkIds } from './views.js'

/** What is kept of a user-defined network on disk: `networks/<id>.json`. */
export interface NetworkRecord {
  version: 1
  id: string
  name: string
  /** ISO 8601. */
  created: string
  attachable: boolean
  labels: Record<string, string>
  /** As the user wrote them. */
  options: Record<string, string>
  /** As the user wrote it, with the subnet that was chosen where none was given. */
  ipam: CreateNetworkRequest['ipam']
  /** The user named the subnet: containers may ask for addresses of it. */
  chosen: boolean
  spec: NetworkSpec
}

/** A network by what it is called. */
export interface NetworkName {
  id: string
  name: string
  /** 'bridge' for user-defined ones too. */
  driver: 'bridge' | 'host' | 'null'
  /** User-defined. */
  record?: NetworkRecord
}

/** All networks of this daemon: the three that every Docker engine has, and those on disk. */
export class NetworkDirectory {
  readonly #records = new Map<string, NetworkRecord>()
  readonly #builtin: NetworkName[]

  constructor(
    readonly root: string,
    readonly ids: ReturnType<typeof networkIds>,
  ) {
    this.#builtin = [
      { id: ids.bridge, name: 'bridge', driver: 'bridge' },
      { id: ids.host, name: 'host', driver: 'host' },
      { id: ids.none, name: 'none', driver: 'null' },
    ]
  }

  /** Reads the disk. A file that is no record is told of and left alone. */
  async load(): Promise<NetworkSpec[]> {
    await mkdir(this.root, { recursive: true, mode: 0o700 })
    for (const file of await readdir(this.root)) {
      if (!/^[0-9a-f]{64}\.json$/.test(file)) {
        if (file.endsWith('.tmp')) await rm(join(this.root, file), { force: true })
        continue
      }
      try {
        const record = JSON.parse(await readFile(join(this.root, file), 'utf8')) as NetworkRecord
        this.#records.set(record.id, record)
      } catch (error) {
        log.error('cannot read a network', { file, error: messageOf(error) })
      }
    }
    return [...this.#records.values()].map((record) => record.spec)
  }

  async add(record: NetworkRecord): Promise<void> {
    await writeFileAtomic(join(this.root, `${record.id}.json`), JSON.stringify(record))
    this.#records.set(record.id, record)
  }

  async remove(id: string): Promise<void> {
    await rm(join(this.root, `${id}.json`), { force: true })
    this.#records.delete(id)
  }

  all(): NetworkName[] {
    return [...this.#builtin, ...[...this.#records.values()].map(nameOf)]
  }

  get(id: string): NetworkName | undefined {
    const record = this.#records.get(id)
    return record ? nameOf(record) : this.#builtin.find((network) => network.id === id)
  }

  /** By ID, then name, then unambiguous prefix of an ID, as Docker looks. 404, 400. */
  find(reference: string): NetworkName {
    const all = this.all()
    const exact = this.get(reference) ?? all.find((network) => network.name === reference)
    if (exact) return exact
    const found = /^[0-9a-f]{1,64}$/.test(reference) ? all.filter((network) => network.id.startsWith(reference)) : []
    if (found.length > 1) throw badRequest(`network ${reference} is ambiguous (${found.length} matches found based on ID prefix)`)
    if (!found[0]) throw notFound(`network ${reference} not found`)
    return found[0]
  }

  /** The id by which the network floor knows a bridged network. */
  floorId(id: string): string {
    return id === this.ids.bridge ? '' : id
  }
}

const nameOf = (record: NetworkRecord): NetworkName => ({ id: record.id, name: record.name, driver: 'bridge', record })
