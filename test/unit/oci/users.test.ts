import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { parseGroup, parsePasswd, resolveUser, resolveUserIn } from '../../../src/oci/users.js'
import { random } from './random.js'

const passwd = parsePasswd('root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\nbad line\n# comment:x:5:5\nno:x:abc:1::/:\n1234:x:77:78::/num:\nnohome:x:9:9\n')
const group = parseGroup('root:x:0:\nann:x:1001:\nstaff:x:50:ann,root\nvideo:x:44:bob\nbroken:x:y:\n')
const resolve = (user: string, add: string[] = []) => resolveUser(user, add, passwd, group)

describe('users', () => {
  it.each([
    ['', { uid: 0, gid: 0, additionalGids: [0, 50], home: '/root' }],
    ['root', { uid: 0, gid: 0, additionalGids: [0, 50], home: '/root' }],
    ['ann', { uid: 1000, gid: 1001, additionalGids: [1001, 50], home: '/home/ann' }],
    ['1000', { uid: 1000, gid: 1001, additionalGids: [1001, 50], home: '/home/ann' }],
    ['ann:video', { uid: 1000, gid: 44, additionalGids: [44], home: '/home/ann' }],
    ['ann:7', { uid: 1000, gid: 7, additionalGids: [7], home: '/home/ann' }],
    ['5', { uid: 5, gid: 0, additionalGids: [0], home: '/' }],
    ['5:6', { uid: 5, gid: 6, additionalGids: [6], home: '/' }],
    [':video', { uid: 0, gid: 44, additionalGids: [44], home: '/root' }],
    ['1234', { uid: 77, gid: 78, additionalGids: [78], home: '/num' }],
    ['nohome', { uid: 9, gid: 9, additionalGids: [9], home: '/' }],
  ])('%j', (user, expected) => expect(resolve(user)).toEqual(expected))

  it('have further groups', () => {
    expect(resolve('ann', ['video', '99', 'staff']).additionalGids).toEqual([1001, 50, 44, 99])
    expect(() => resolve('ann', ['none'])).toThrow('unable to find group none: no matching entries in group file')
  })

  it.each([
    ['bob', 'unable to find user bob: no matching entries in passwd file'], ['0x0', 'unable to find user 0x0: no matching entries in passwd file'], ['-1', 'unable to find user -1: no matching entries in passwd file'],
    ['ann:none', 'unable to find group none: no matching entries in group file'], ['4294967295', 'uids must be in range 0-2147483647'], ['0:4294967295', 'gids must be in range 0-2147483647'],
  ])('%s is refused', (user, message) => expect(() => resolve(user)).toThrow(expect.objectContaining({ statusCode: 400, message }) as Error))

  it('never become root by accident', () => {
    const next = random(4)
    for (let i = 0; i < 5000; i++) {
      const user = Array.from({ length: 1 + next(6) }, () => '0123456789:abx -+.'[next(18)]).join('')
      try {
        const { uid } = resolve(user)
        if (uid === 0) expect(user.split(':')[0]).toMatch(/^0*$/)
      } catch (error) {
        expect(error).toMatchObject({ statusCode: 400 })
      }
    }
  })
})

describe('a hostile tree', () => {
  const root = mkdtempSync(join(tmpdir(), 'hull-users-'))
  afterAll(() => rmSync(root, { recursive: true }))

  it('cannot make us read the host’s files, block, or read for ever', async () => {
    mkdirSync(join(root, 'etc'))
    expect(await resolveUserIn(root, '7:8', [])).toMatchObject({ uid: 7, gid: 8 })
    symlinkSync('/../../../../etc/passwd', join(root, 'etc/passwd')) // itself, below its own root
    await expect(resolveUserIn(root, 'daemon', [])).rejects.toThrow('unable to find user daemon')
    rmSync(join(root, 'etc/passwd'))
    execFileSync('mkfifo', [join(root, 'etc/passwd')])
    await expect(resolveUserIn(root, 'daemon', [])).rejects.toThrow('unable to find user daemon')
    rmSync(join(root, 'etc/passwd'))
    mkdirSync(join(root, 'etc/passwd'))
    expect((await resolveUserIn(root, '3', [])).uid).toBe(3)
    rmSync(join(root, 'etc/passwd'), { recursive: true })
    writeFileSync(join(root, 'etc/passwd'), 'x\n'.repeat(3 << 20))
    await expect(resolveUserIn(root, '3', [])).rejects.toMatchObject({ statusCode: 400 })
  })
})
