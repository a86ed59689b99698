import { mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { log } from '../base/log.js'
import { readIfExists, writeFileAtomic } from '../base/files.js'
import { isDigest, type Digest } from './digest.js'

const digest = z.string().refine(isDigest)
const fileSchema = z.object({
  version: z.literal(1), compressed: z.record(digest, z.object({ digest, size: z.number() })), seen: z.record(digest, z.array(z.string())),
})

/** Blobs of which is remembered where they are, and repositories for each; moby keeps 50 of them, too. */
const blobLimit = 5000
const repositoryLimit = 50

/**
 * What pulls and pushes have taught about registries: into which blob a layer that is kept uncompressed was compressed (so that it need not
 * be done again to learn that the registry has it), and which repositories hold a blob (so that another one of the same registry can mount
 * it). Hints alone: what is lost or wrong costs time and nothing else.
 */
export class PushMemory {
  private readonly compressed = new Map<Digest, { digest: Digest; size: number }>()
  private readonly seen = new Map<Digest, string[]>()

  private constructor(private readonly path: string) {}

  static async open(dataRoot: string): Promise<PushMemory> {
    const self = new PushMemory(join(dataRoot, 'image', 'registry-hints.json'))
    try {
      const text = await readIfExists(self.path)
      if (text === undefined) return self
      const file = fileSchema.parse(JSON.parse(text))
      for (const [diffId, blob] of Object.entries(file.compressed)) self.compressed.set(diffId as Digest, blob)
      for (const [blob, repositories] of Object.entries(file.seen)) self.seen.set(blob as Digest, repositories)
    } catch (error) {
      log.warn('what was known of registries is lost: pushes will send more', { path: self.path, error })
    }
    return self
  }

  compressedOf(diffId: Digest): { digest: Digest; size: number } | undefined {
    return this.compressed.get(diffId)
  }

  rememberCompressed(diffId: Digest, blob: { digest: Digest; size: number }): void {
    this.compressed.set(diffId, blob)
    if (this.compressed.size > blobLimit) this.compressed.delete(this.compressed.keys().next().value!)
  }

  /** Other repositories of `domain` that held the blob, the latest first. */
  repositoriesWith(blob: Digest, domain: string, except: string): string[] {
    return (this.seen.get(blob) ?? []).filter((name) => name.startsWith(`${domain}/`)).map((name) => name.slice(domain.length + 1)).filter((path) => path !== except)
  }

  rememberSeen(blob: Digest, domain: string, path: string): void {
    const name = `${domain}/${path}`
    const names = [name, ...(this.seen.get(blob) ?? []).filter((other) => other !== name)].slice(0, repositoryLimit)
    this.seen.delete(blob)
    this.seen.set(blob, names)
    if (this.seen.size > blobLimit) this.seen.delete(this.seen.keys().next().value!)
  }

  async save(): Promise<void> {
    await mkdir(dirname(this.path), { recursive: true, mode: 0o700 })
    await writeFileAtomic(this.path, JSON.stringify({ version: 1, compressed: Object.fromEntries(this.compressed), seen: Object.fromEntries(this.seen) }))
  }
}
