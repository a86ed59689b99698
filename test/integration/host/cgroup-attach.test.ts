import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { expect, it } from 'vitest'
import { expectAttach, keepAttachQuick } from '../../../src/host/cgroup-attach.js'

// How much it helps is a figure of `make bench` (docs/decisions/0010-life-of-a-container.md); here: what it does to this process.

/** Descriptors of ours that are a cgroup.procs. */
const open = () => readdirSync('/proc/self/fd').filter((fd) => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).endsWith('/cgroup.procs')
  } catch {
    return false // the directory's own
  }
}).length

it('uses the lock while somebody holds it, leaves this process where it is, and nothing open', async () => {
  const cgroups = readFileSync('/proc/self/cgroup', 'utf8')
  const first = keepAttachQuick()
  const second = keepAttachQuick()
  await expect.poll(open).toBe(1)
  first()
  first() // counts once
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(open()).toBe(1)
  second()
  await expect.poll(open).toBe(0)
  expect(readFileSync('/proc/self/cgroup', 'utf8')).toBe(cgroups)
  const again = keepAttachQuick()
  await expect.poll(open).toBe(1)
  again()
  await expect.poll(open).toBe(0)
})

it('is called off by itself when what was expected does not come', async () => {
  expectAttach()
  await expect.poll(open).toBe(1)
  const held = keepAttachQuick()
  await new Promise((resolve) => setTimeout(resolve, 150))
  expect(open()).toBe(1) // somebody else still holds it
  held()
  await expect.poll(open).toBe(0)
  expectAttach()
  await expect.poll(open).toBe(1)
  await expect.poll(open).toBe(0)
})
