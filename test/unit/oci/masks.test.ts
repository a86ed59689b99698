import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { shareMasks } from '../../../src/oci/masks.js'
import type { OciConfig, OciMount } from '../../../src/oci/spec-types.js'

let directory: string
beforeEach(() => { directory = mkdtempSync(join(tmpdir(), 'hull-masks-')) })
afterEach(() => rmSync(directory, { recursive: true }))

const proc = { destination: '/proc', type: 'proc', source: 'proc' }
const sys = { destination: '/sys', type: 'sysfs', source: 'sysfs' }
const masked = ['/proc/fs', '/proc/version', '/proc/none', '/sys/kernel']

/** What is left to the runtime, and what is mounted. */
function share(mounts: OciMount[], capabilities: string[] = ['CAP_CHOWN']): { left: string[]; shared: string[] } {
  const sets = { bounding: capabilities, effective: capabilities, permitted: capabilities }
  const config = { mounts: [...mounts], process: { capabilities: sets }, linux: { maskedPaths: [...masked] } } as unknown as OciConfig
  shareMasks(config, join(directory, 'empty'))
  expect(config.mounts.slice(0, mounts.length)).toEqual(mounts)
  const added = config.mounts.slice(mounts.length)
  for (const mount of added) expect(mount).toMatchObject({ type: 'bind', source: join(directory, 'empty'), options: ['bind', 'rprivate', 'ro', 'nosuid', 'nodev', 'noexec'] })
  return { left: config.linux.maskedPaths!, shared: added.map(({ destination }) => destination) }
}

it('are one empty directory where they are directories of the container’s own /proc and /sys', () => {
  expect(share([proc, sys])).toEqual({ left: ['/proc/version', '/proc/none'], shared: ['/proc/fs', '/sys/kernel'] })
  expect(statSync(join(directory, 'empty')).mode & 0o777).toBe(0o555)
})

it('stay the runtime’s where something of the user’s is mounted', () => {
  const bind = (destination: string) => ({ destination, type: 'bind', source: '/srv' })
  expect(share([proc, bind('/sys')])).toEqual({ left: ['/proc/version', '/proc/none', '/sys/kernel'], shared: ['/proc/fs'] })
  expect(share([proc, sys, bind('/sys/kernel/')]).shared).toEqual(['/proc/fs'])
  expect(share([proc, sys, bind('/sys/kernel/debug'), bind('/sys/ker')]).shared).toEqual(['/proc/fs', '/sys/kernel'])
  expect(share([proc, bind('/proc')]).shared).toEqual([])
  expect(share([bind('/')]).shared).toEqual([])
})

it('are each one’s own for a container that may mount', () => {
  expect(share([proc, sys], ['CAP_CHOWN', 'CAP_SYS_ADMIN'])).toEqual({ left: masked, shared: [] })
  expect(existsSync(join(directory, 'empty'))).toBe(false)
})
