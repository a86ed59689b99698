import { closeSync, openSync, write } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { messageOf } from '../base/errors.js'
import { readIfExists } from '../base/files.js'
import { log } from '../base/log.js'
import { detectCgroups, parseProcCgroup } from './cgroup-layout.js'

/** Milliseconds between two uses: less than a grace period. */
const PAUSE = 3
/** Clients start what they create, and run what they make an exec of, at once: mostly within so many milliseconds. */
const EXPECTED = 60
/** However long a start takes: who waits for longer than this has other worries. */
const MOST = 2000

let holders = 0
let running: Promise<void> | undefined
let path: Promise<string | undefined> | undefined

/** cgroup.procs of the cgroup that this process is in, in any hierarchy: they share the lock. */
async function ownProcs(): Promise<string | undefined> {
  const [mounts, text] = await Promise.all([detectCgroups(), readIfExists('/proc/self/cgroup')])
  const own = parseProcCgroup(text ?? '')
  for (const [controller, mount] of [...Object.entries(mounts.controllers), ...(mounts.unified ? [['', mounts.unified] as const] : [])]) {
    const cgroup = own.get(controller)
    if (cgroup !== undefined) return join(mount, cgroup, 'cgroup.procs')
  }
  return undefined
}

/** To where it is. In a thread: the first one waits for the grace period. */
const move = (file: number) => promisify(write)(file, String(process.pid))

async function use(): Promise<void> {
  const procs = await (path ??= ownProcs())
  if (procs === undefined) return
  const file = openSync(procs, 'w') // at once: a grace period is longer than most of what it is to be hidden behind
  try {
    for (const end = performance.now() + MOST; holders > 0 && performance.now() < end; await sleep(PAUSE)) await move(file)
  } finally {
    closeSync(file)
  }
}

/**
 * Makes it quick to move processes into cgroups, until the function that it returns is called. Such a move takes the kernel's cgroup_threadgroup_rwsem for writing, and when nobody has done so for some
 * milliseconds that begins with the wait for an RCU grace period (kernel/rcu/sync.c; 6 to 8 ms measured on Linux 6.18), in the middle of each start of a container. While the lock is in use there is no
 * wait. So it is used beforehand, beside other work: this process is moved to where it is. (Mounting with `favordynmods` would do the same, for the whole host and at a price for every fork.)
 */
export function keepAttachQuick(): () => void {
  holders++
  running ??= use()
    .catch((error: unknown) => {
      log.debug('cannot keep moves between cgroups quick', { error: messageOf(error) })
    })
    .finally(() => (running = undefined))
  let held = true
  return () => {
    if (held) holders--
    held = false
  }
}

/** The same for some milliseconds, when a client has made what it is likely to start next: a start is through with its preparations in less than a grace period. */
export function expectAttach(): void {
  setTimeout(keepAttachQuick(), EXPECTED).unref()
}
