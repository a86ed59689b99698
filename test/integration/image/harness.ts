import { execFileSync } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FetcherOptions } from '../../../src/image/fetch.js'
import type { RegistrySettings } from '../../../src/image/registry/settings.js'
import { openImageService } from '../../../src/image/service.js'
import type { ImageService, ProgressMessage } from '../../../src/image/types.js'
import { openStorage, type Storage } from '../../../src/storage/storage.js'

/** An image service in a directory of its own. */
export interface Harness {
  root: string
  dataRoot: string
  images: ImageService
  storage: Storage
  messages: ProgressMessage[]
  onProgress: (message: ProgressMessage) => void
  /** 'status id' lines so far. */
  said(): string[]
  /** Opens the same directories again, as a new daemon would. */
  reopen(): Promise<void>
  close(): Promise<void>
  /** Every file below the data root that belongs to images, relative. */
  files(): Promise<string[]>
}

export async function harness(options: { fetcher?: FetcherOptions; tmpfs?: string; registries?: RegistrySettings } = {}): Promise<Harness> {
  const root = await mkdtemp(join(tmpdir(), 'hull-image-'))
  if (options.tmpfs) execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${options.tmpfs}`, 'tmpfs', root])
  const dataRoot = join(root, 'data')
  const execRoot = join(root, 'exec')
  const messages: ProgressMessage[] = []
  const open = async () => {
    const storage = await openStorage({ dataRoot, execRoot })
    const images = await openImageService({ dataRoot, storage, fetcher: { backoffMs: 20, ...options.fetcher }, ...(options.registries ? { registries: options.registries } : {}) })
    return { storage, images }
  }
  const self: Harness = {
    root, dataRoot, messages, ...(await open()),
    onProgress: (message) => void messages.push(message),
    said: () => messages.map((m) => (m.stream ?? `${m.status}${m.id ? ` ${m.id}` : ''}`).trim()),
    reopen: async () => void Object.assign(self, await open()),
    close: async () => {
      await self.storage.layers.settled()
      if (options.tmpfs) execFileSync('umount', [root])
      await rm(root, { recursive: true, force: true })
    },
    files: async () => {
      await self.storage.layers.settled()
      const found: string[] = []
      for (const directory of ['image', 'layers', 'overlay', 'erofs', 'disks']) {
        for (const entry of await readdir(join(dataRoot, directory), { recursive: true, withFileTypes: true })) {
          const path = join(entry.parentPath, entry.name).slice(dataRoot.length + 1)
          if (!entry.isDirectory() || /^layers\/[^/]+$/.test(path) || /tmp/.test(path.replace(/^layers\/tmp$/, ''))) found.push(path)
        }
      }
      return found.filter((path) => path !== 'layers/tmp' && path !== 'image/repositories.json' && path !== 'image/registry-hints.json')
    },
  }
  return self
}
