import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { preferredUid, UID_BASE, UID_COUNT, UidAllocator, uidFile } from '../../../src/sandbox/vm/uids.js'

let directory: string
beforeEach(async () => (directory = await mkdtemp(join(tmpdir(), 'hull-uids-'))))
afterEach(() => rm(directory, { recursive: true, force: true }))

const id = (n: number) => n.toString(16).padStart(64, '0')

describe('uids of jails', () => {
  it('are far from users, and the same at every start', async () => {
    const uid = await new UidAllocator().take(id(1), join(directory, '1'))
    expect(uid).toBeGreaterThanOrEqual(UID_BASE)
    expect(uid).toBeLessThan(UID_BASE + UID_COUNT)
    expect(await new UidAllocator().take(id(1), join(directory, '1'))).toBe(uid)
    expect(uid).toBe(preferredUid(id(1)))
  })

  it('never belong to two that are alive, also after a restart of the daemon', async () => {
    const first = new UidAllocator()
    const uid = await first.take(id(1), join(directory, '1'))
    // Two containers whose ids ask for the same uid: forced by what is stored.
    const second = join(directory, '2')
    await first.take(id(2), second)
    await writeFile(uidFile(second), `${uid}\n`)
    const restarted = new UidAllocator()
    expect(await restarted.adopt(id(1), join(directory, '1'))).toBe(uid)
    expect(await restarted.take(id(2), second)).toBe(UID_BASE + ((uid - UID_BASE + 1) % UID_COUNT))
    expect(await readFile(uidFile(second), 'utf8')).toBe(`${UID_BASE + ((uid - UID_BASE + 1) % UID_COUNT)}\n`)
    restarted.release(uid, id(9)) // not the owner: no effect
    await writeFile(uidFile(second), `${uid}\n`)
    restarted.release(uid, id(1))
    expect(await restarted.take(id(2), second)).toBe(uid)
  })

  it('concurrent starts do not meet', async () => {
    const allocator = new UidAllocator()
    const uids = await Promise.all(Array.from({ length: 200 }, (_, n) => allocator.take(id(n), join(directory, String(n)))))
    expect(new Set(uids).size).toBe(200)
  })

  it('a damaged file is not believed', async () => {
    const state = join(directory, '1')
    await new UidAllocator().take(id(1), state)
    for (const bad of ['0\n', '', `${UID_BASE + UID_COUNT}\n`, 'root\n']) {
      await writeFile(uidFile(state), bad)
      expect(await new UidAllocator().take(id(1), state)).toBe(preferredUid(id(1)))
    }
    expect(await new UidAllocator().adopt(id(1), join(directory, 'none'))).toBeUndefined()
  })
})
