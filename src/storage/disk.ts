import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { codeOf, HullError, internal, messageOf } from '../base/errors.js'
import { runOk } from '../base/run.js'
import { Flights } from '../base/flights.js'

/** Built by native/unpack/Makefile. */
const extentsBinary = fileURLToPath(new URL('../../build/hull-extents', import.meta.url))
const systemPath = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' }

/** Size of a VM's writable disk unless somebody wants another, bytes. Virtual: a new one takes about 200 kB. */
export const defaultDiskBytes = 10 * 2 ** 30
/** What a disk's size may be, bytes. Less holds no ext4 worth the name; more than the placeholder of a memory template (sandbox/vm/qemu.ts) a clone would not see. */
export const DISK_BOUNDS = { smallest: 16 * 2 ** 20, largest: 2 ** 40 } as const

const extentsSchema = z.array(z.tuple([z.number().int().min(0), z.number().int().min(1)]))

/** What of a disk is not zero: enough to make one that is the same. */
export interface DiskContent {
  /** Bytes, virtual. */
  size: number
  extents: { offset: number; data: Buffer }[]
}

/**
 * Writable disks of VMs: sparse files with an empty ext4 in them. For the size that all have who want no other, mke2fs runs once and a new disk is a copy of the few
 * blocks that it wrote; for any other it runs each time (5 ms; 40 ms for 1 TiB), since clients choose those, and nothing may be kept for each. What mke2fs leaves to the
 * first mount (inode tables, journal) the guest's kernel does in the background.
 */
export class Disks {
  private readonly flights = new Flights<DiskContent>()
  private template: DiskContent | undefined

  private constructor(
    private readonly root: string,
    private readonly usual: number,
  ) {}

  /** `usual`: bytes of a disk when nobody wants another size. */
  static async open(dataRoot: string, usual = defaultDiskBytes): Promise<Disks> {
    const root = join(dataRoot, 'disks')
    await mkdir(root, { recursive: true, mode: 0o700 })
    const size = wholeBlocks(usual)
    for (const name of await readdir(root)) {
      if (name !== `ext4-${size}`) await rm(join(root, name), { recursive: true, force: true })
    }
    return new Disks(root, size)
  }

  /** Makes the sparse file `path` (it must not exist) of `sizeBytes` virtual bytes with an empty ext4, or that of `content`, mode 0600, owned by `uid`:`gid`. On failure nothing is left. */
  async create(path: string, sizeBytes: number, uid: number, gid: number, content?: DiskContent): Promise<void> {
    const { smallest, largest } = DISK_BOUNDS
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes < smallest || sizeBytes > largest) throw new HullError(400, `a disk must have between ${smallest} and ${largest} bytes`)
    const size = wholeBlocks(sizeBytes)
    if (content && content.size !== size) throw internal(`a disk of ${size} bytes from one of ${content.size}`)
    const template = content ?? (size === this.usual ? await this.usualTemplate() : undefined)
    const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600)
    try {
      await file.truncate(size)
      if (!template) await makeFileSystem(path)
      for (const { offset, data } of template?.extents ?? []) {
        const { bytesWritten } = await file.write(data, 0, data.length, offset)
        if (bytesWritten !== data.length) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
      }
      await file.chown(uid, gid)
    } catch (error) {
      await rm(path, { force: true })
      throw codeOf(error) === 'ENOSPC' || /no space left on device/i.test(messageOf(error)) ? new HullError(500, 'cannot make the disk: no space left on device', { cause: error }) : error
    } finally {
      await file.close()
    }
  }

  private async usualTemplate(): Promise<DiskContent> {
    return this.template ?? this.flights.run('usual', async () => {
      const path = join(this.root, `ext4-${this.usual}`)
      const there = await stat(path).then((s) => s.size === this.usual, () => false)
      if (!there) await this.makeTemplate(path)
      return (this.template = await diskContent(path))
    })
  }

  private async makeTemplate(path: string): Promise<void> {
    const temporary = join(this.root, `tmp-${randomBytes(8).toString('hex')}`)
    try {
      const file = await open(temporary, 'wx', 0o600)
      await file.truncate(this.usual)
      await file.close()
      await makeFileSystem(temporary)
      await rename(temporary, path)
    } catch (error) {
      await rm(temporary, { force: true })
      throw error
    }
  }
}

const wholeBlocks = (bytes: number) => bytes - (bytes % 4096)

/** An empty ext4 in a file of its size. No reserved blocks (there is no other user in there) and a small journal, which the first mount would write out. */
async function makeFileSystem(path: string): Promise<void> {
  await runOk('mke2fs', [
    '-q', '-F', '-t', 'ext4', '-b', '4096', '-m', '0', '-J', 'size=4', '-I', '256', '-O', '^resize_inode',
    '-E', 'lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0,nodiscard', path,
  ], { env: systemPath })
}

/** Reads what is not zero of a sparse file: a disk that is new, or nearly. Throws when it is not sparse. */
export async function diskContent(path: string): Promise<DiskContent> {
  const { stdout } = await runOk(extentsBinary, [path], { env: {} })
  const extents = extentsSchema.parse(JSON.parse(stdout))
  const total = extents.reduce((sum, [, length]) => sum + length, 0)
  // A file system without holes would fill the memory: then something is wrong with the data root.
  if (total > 64 << 20) throw internal(`${path} is not sparse: the data root's file system must support holes`)
  const file = await open(path, 'r')
  try {
    const parts: DiskContent['extents'] = []
    for (const [offset, length] of extents) {
      const data = Buffer.alloc(length)
      await file.read(data, 0, length, offset)
      if (!data.every((byte) => byte === 0)) parts.push({ offset, data })
    }
    return { size: (await file.stat()).size, extents: parts }
  } finally {
    await file.close()
  }
}
