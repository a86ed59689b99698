import { z } from 'zod'
import { internal } from '../base/errors.js'
import { readIfExists, writeFileAtomic } from '../base/files.js'
import { isDigest, type Digest } from './digest.js'
import { canonicalName, canonicalString, parseReference, type Reference } from './references.js'

const names = z.record(z.string(), z.string().refine(isDigest))
const fileSchema = z.object({ version: z.literal(1), references: names, pending: names.optional() })

/** Which name means which image: one JSON file, replaced whole at each change. */
export class Repositories {
  private readonly ids = new Map<string, Digest>()
  private readonly references = new Map<string, Reference>()
  private readonly byId = new Map<Digest, Set<string>>()
  /** Names that images get which are just being made: see {@link announce}. */
  private readonly pending = new Map<string, Digest>()
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
      const { references, pending } = fileSchema.parse(json)
      for (const [key, id] of Object.entries(references)) self.link(parseReference(key), id)
      for (const [key, id] of Object.entries(pending ?? {})) self.pending.set(key, id)
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
    this.saving = this.saving.catch(() => {}).then(() => writeFileAtomic(this.path, JSON.stringify({
      version: 1, references: Object.fromEntries(this.ids), ...(this.pending.size > 0 ? { pending: Object.fromEntries(this.pending) } : {}),
    })))
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
    const announced = entries.map(([reference]) => this.pending.delete(canonicalString(reference))).some(Boolean)
    if (!announced && entries.every(([reference, id]) => this.get(reference) === id)) return
    for (const [reference, id] of entries) this.link(reference, id)
    await this.save()
  }

  /** Writes down what an image that is about to appear will be called, so that a daemon that dies between its record and {@link set} leaves no nameless image. */
  async announce(entries: readonly [Reference, Digest][]): Promise<void> {
    if (entries.length === 0) return
    for (const [reference, id] of entries) this.pending.set(canonicalString(reference), id)
    await this.save()
  }

  /** The announced image does not come. Only in memory until the next change: {@link settle} would find no such image either. */
  withdraw(entries: readonly [Reference, Digest][]): void {
    for (const [reference] of entries) this.pending.delete(canonicalString(reference))
  }

  /** Forgets names. Only in memory until {@link flush}: an image that goes with them is removed in between, and a daemon that dies there has done nothing, or all. */
  forget(references: readonly Reference[]): void {
    for (const reference of references) this.unlink(canonicalString(reference))
  }

  flush(): Promise<void> {
    return this.save()
  }

  /** Ends what a dead daemon began: names of images that do not exist (any more) are forgotten, announced ones of images that do are given. */
  async settle(exists: (id: Digest) => boolean): Promise<void> {
    const dead = [...this.ids].filter(([, id]) => !exists(id)).map(([key]) => key)
    if (dead.length === 0 && this.pending.size === 0) return
    for (const key of dead) this.unlink(key)
    for (const [key, id] of this.pending) if (exists(id)) this.link(parseReference(key), id)
    this.pending.clear()
    await this.save()
  }
}
