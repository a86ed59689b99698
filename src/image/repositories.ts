import { z } from 'zod'
import { internal } from '../base/errors.js'
import { readIfExists, writeFileAtomic } from '../base/files.js'
import { isDigest, type Digest } from './digest.js'
import { canonicalName, canonicalString, parseReference, type Reference } from './references.js'

const fileSchema = z.object({ version: z.literal(1), references: z.record(z.string(), z.string().refine(isDigest)) })

/** Which name means which image: one JSON file, replaced whole at each change. */
export class Repositories {
  private readonly ids = new Map<string, Digest>()
  private readonly references = new Map<string, Reference>()
  private readonly byId = new Map<Digest, Set<string>>()
  private saving: Promise<void> = Promise.resolve()

  private constructor(private readonly path: string) {}

  static async open(path: string): Promise<Repositories> {
    const self = new Repositories(path)
    const text = await readIfExists(path)
    if (text !== undefined) {
      let json: unknown
      try {
        json = JSON.parse(text)
      } catch (error) {
        throw internal(`${path} is damaged`, error)
      }
      for (const [key, id] of Object.entries(fileSchema.parse(json).references)) self.link(parseReference(key), id)
    }
    return self
  }

  private link(reference: Reference, id: Digest): void {
    const key = canonicalString(reference)
    this.unlink(key)
    this.ids.set(key, id)
    this.references.set(key, reference)
    const keys = this.byId.get(id) ?? new Set()
    this.byId.set(id, keys.add(key))
  }

  private unlink(key: string): void {
    const id = this.ids.get(key)
    if (id === undefined) return
    this.ids.delete(key)
    this.references.delete(key)
    const keys = this.byId.get(id)!
    keys.delete(key)
    if (keys.size === 0) this.byId.delete(id)
  }

  private save(): Promise<void> {
    // One write at a time, each with everything that was changed before it began.
    this.saving = this.saving.catch(() => {}).then(() => writeFileAtomic(this.path, JSON.stringify({ version: 1, references: Object.fromEntries(this.ids) })))
    return this.saving
  }

  get(reference: Reference): Digest | undefined {
    return this.ids.get(canonicalString(reference))
  }

  /** Every name of an image, sorted. */
  of(id: Digest): Reference[] {
    return [...(this.byId.get(id) ?? [])].sort().map((key) => this.references.get(key)!)
  }

  /** Every tag of one repository, sorted, with what it means. */
  tagsOf(repository: Pick<Reference, 'domain' | 'path'>): [Reference, Digest][] {
    const prefix = `${canonicalName(repository)}:`
    return [...this.ids].filter(([key]) => key.startsWith(prefix)).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, id]): [Reference, Digest] => [this.references.get(key)!, id])
      .filter(([reference]) => reference.digest === undefined && canonicalName(reference) === canonicalName(repository))
  }

  /** Names an image; a name that meant another one moves. */
  async set(entries: readonly [Reference, Digest][]): Promise<void> {
    if (entries.every(([reference, id]) => this.get(reference) === id)) return
    for (const [reference, id] of entries) this.link(reference, id)
    await this.save()
  }

  async delete(references: readonly Reference[]): Promise<void> {
    for (const reference of references) this.unlink(canonicalString(reference))
    await this.save()
  }

  /** Forgets names of images that do not exist (any more). */
  async prune(exists: (id: Digest) => boolean): Promise<void> {
    const dead = [...this.ids].filter(([, id]) => !exists(id)).map(([key]) => key)
    if (dead.length === 0) return
    for (const key of dead) this.unlink(key)
    await this.save()
  }
}
