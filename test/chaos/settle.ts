import { sleep, type TestDaemon } from '../lib/daemon.js'
import { difference, shape } from './shape.js'

/** How long what is going away may take to be gone, milliseconds. */
const settleMs = 15_000

/** Milliseconds more for the memory template of a shape of machine, which gives way to all others. */
const makingMs = 60_000

/** Compares until nothing differs: a kill's aftermath is undone in the background. The flapping container makes its own differences: seen twice, they count. */
export async function settle(daemon: TestDaemon, wanted: readonly string[]): Promise<string[]> {
  const end = Date.now() + settleMs
  for (;;) {
    const left = difference(wanted, await shape(daemon))
    // A template that is being made is nothing that was lost; one that stays is.
    const making = left.some((line) => line.includes('/vm/templates/tmp-'))
    if (left.length === 0 || Date.now() > (making ? end + makingMs : end)) return left
    await sleep(150)
  }
}

/** A shape that has been seen twice in a row while the restarting container ran. */
export async function calm(daemon: TestDaemon): Promise<string[]> {
  for (;;) {
    const first = await shape(daemon)
    await sleep(400)
    if (difference(first, await shape(daemon)).length === 0) return first
  }
}
