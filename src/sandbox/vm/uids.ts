import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { readIfExists, writeFileAtomic } from '../../base/files.js'

/**
 * Host uids and gids for jails: 0x70000000-0x7fffffff. systemd's map of the uid space (UIDS-GIDS.md) gives this range to nobody, it is
 * far from users and from subordinate ids, and below 2^31 where some programs stop.
 */
export const UID_BASE = 0x7000_0000
/** Number of uids for machines; the one that is left of the range is {@link TEMPLATE_UID}. */
export const UID_COUNT = 0x0fff_ffff
/** Of a QEMU that a memory template is made with: no container's. */
export const TEMPLATE_UID = UID_BASE + UID_COUNT

/**
 * A uid of its own for every VM, so that a VMM that breaks out of its jail finds nothing that belongs to it: no file, no process of
 * another VM. Derived from the container's id, so that the same container keeps its uid (and its disk its owner) without a
 * register; kept in stateDir for the rare case of a collision among those that are alive.
 */
export class UidAllocator {
  private readonly live = new Map<number, string>()

  /** The uid of a starting VM. The caller makes the disk belong to it. */
  async take(id: string, stateDir: string): Promise<number> {
    const stored = await this.stored(stateDir)
    let uid = stored ?? preferredUid(id)
    // From here to `set` nothing waits: two starts cannot take the same one.
    while (this.live.has(uid) && this.live.get(uid) !== id) uid = UID_BASE + ((uid - UID_BASE + 1) % UID_COUNT)
    this.live.set(uid, id)
    if (uid !== stored) {
      try {
        await mkdir(stateDir, { recursive: true, mode: 0o700 })
        await writeFileAtomic(uidFile(stateDir), `${uid}\n`)
      } catch (error) {
        this.live.delete(uid)
        throw error
      }
    }
    return uid
  }

  /** The uid of a VM that already runs; `undefined` when none was ever stored. */
  async adopt(id: string, stateDir: string): Promise<number | undefined> {
    const uid = await this.stored(stateDir)
    if (uid !== undefined) this.live.set(uid, id)
    return uid
  }

  /** The VM has ended. */
  release(uid: number, id: string): void {
    if (this.live.get(uid) === id) this.live.delete(uid)
  }

  private async stored(stateDir: string): Promise<number | undefined> {
    const text = await readIfExists(uidFile(stateDir))
    const uid = text !== undefined && /^[0-9]{1,10}\n$/.test(text) ? Number(text) : NaN
    return uid >= UID_BASE && uid < UID_BASE + UID_COUNT ? uid : undefined
  }
}

/** Where the uid is kept, below the container's state directory. */
export const uidFile = (stateDir: string) => join(stateDir, 'vm-uid')

/** The uid that a container's id asks for. */
export function preferredUid(id: string): number {
  return UID_BASE + (createHash('sha256').update(id).digest().readUInt32BE(0) % UID_COUNT)
}
