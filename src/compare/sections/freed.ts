import { setTimeout as sleep } from 'node:timers/promises'
import type { CompareContext, Way } from '../context.js'
import { memAvailable } from '../host.js'
import { measured } from '../statistics.js'
import type { Result } from '../types.js'

/** MiB that are taken and freed in an instance: a file in /dev/shm, which has 64 MiB unless somebody wants another size. */
const TAKEN = 48
/** Milliseconds that a host gets to have its memory back. */
const REST = 3000
/** … and that a command gets. */
const TIMEOUT = 60_000

const take = ['dd', 'if=/dev/zero', 'of=/dev/shm/hull-compare', 'bs=1048576', `count=${TAKEN}`]
const free = ['rm', '/dev/shm/hull-compare']

/** Runs a program of the image in an instance, to its end. Its exit code; 127 also when there is none of that name. */
async function run({ client, signal }: CompareContext, id: string, Cmd: readonly string[]): Promise<number> {
  const { Id } = await client.json<{ Id: string }>('POST', `/containers/${id}/exec`, { body: { Cmd }, signal })
  try {
    await client.call('POST', `/exec/${Id}/start`, { body: { Detach: true }, signal })
  } catch {
    signal.throwIfAborted()
    return 127
  }
  for (const end = performance.now() + TIMEOUT; performance.now() < end; await sleep(50, undefined, { signal })) {
    const { Running, ExitCode } = await client.json<{ Running: boolean; ExitCode: number | null }>('GET', `/exec/${Id}/json`, { signal })
    if (!Running) return ExitCode ?? 127
  }
  return 124
}

/**
 * What the host does not have back after a workload has taken memory and freed it: bytes of MemAvailable, one row for each instance. Once in each: a guest that has had memory takes the same again.
 */
export async function freedOf(context: CompareContext, way: Way, ids: readonly string[]): Promise<Result> {
  const rows: number[] = []
  for (const id of ids) {
    context.progress(`memory: ${way.title}, freed again`)
    const before = await memAvailable()
    const code = await run(context, id, take)
    if (code !== 0) return { missing: code === 127 ? 'the image has no dd to take memory with' : `dd of ${TAKEN} MiB into /dev/shm ended with ${code}` }
    const held = before - (await memAvailable())
    if ((await run(context, id, free)) !== 0) return { missing: 'the image has no rm to free memory with' }
    await sleep(REST, undefined, { signal: context.signal })
    // Where the host did not see it go, or saw others take more, it cannot tell whether it came back.
    const kept = Math.max(0, before - (await memAvailable()))
    if (held > (TAKEN << 20) / 2 && Math.max(held, kept) < (TAKEN << 20) * 2) rows.push(kept)
  }
  if (rows.length === 0) return { missing: `${TAKEN} MiB were lost in the noise of MemAvailable` }
  return measured(rows, `docker exec ID ${take.join(' ')}; docker exec ID ${free.join(' ')}; free -b`)
}
