import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sleep, TestDaemon } from '../lib/daemon.js'
import { buildTestImage, busyboxRoot, dockerArchive } from '../lib/image.js'
import { startRegistry } from '../lib/registry.js'
import { remains } from '../lib/traces.js'
import { random } from './random.js'
import { calm, settle } from './settle.js'
import { type Isolation, Steady } from './steady.js'
import { clean, type Sources, type Verb, verbs } from './verbs.js'

export interface ChaosOptions {
  /** How often the daemon is killed. */
  kills: number
  seed: number
  isolations: readonly Isolation[]
  say: (line: string) => void
}

/** A second archive: another image, so that loading and removing it changes layers, too. */
async function otherArchive(directory: string): Promise<string> {
  const root = join(directory, 'root')
  await mkdir(root)
  await busyboxRoot(root)
  const archive = join(directory, 'other.tar')
  await dockerArchive(root, 'chaos/other:1', archive, { Labels: { other: 'yes' } })
  return archive
}

/** Brings the archive's image to the registry. */
async function publish(daemon: TestDaemon, { archive, remote }: Sources): Promise<void> {
  await daemon.ok('load', '-q', '-i', archive)
  await daemon.ok('tag', 'chaos/other:1', remote)
  await daemon.ok('push', '-q', remote)
  await daemon.ok('rmi', remote, 'chaos/other:1')
}

/**
 * Kills the daemon with SIGKILL at random moments of each verb, and looks after every restart whether anything was lost, doubled or leaked. Throws at the first
 * thing that is wrong, with the seed to repeat it. The moments are drawn from the verb's own duration, as it was without a kill.
 */
export async function chaos(options: ChaosOptions): Promise<{ kills: number; byVerb: Map<string, number> }> {
  const next = random(options.seed)
  const byVerb = new Map<string, number>()
  let kills = 0
  const daemon = await TestDaemon.start()
  const undo = [() => daemon.destroy()]
  try {
    const scratch = await mkdtemp(join(tmpdir(), 'hull-chaos-'))
    undo.push(() => rm(scratch, { recursive: true, force: true }))
    const registry = await startRegistry()
    undo.push(() => registry.stop())
    await buildTestImage(daemon)
    const steady = new Steady(daemon, options.isolations)
    await steady.start()
    const sources = { archive: await otherArchive(scratch), remote: `${registry.host}/chaos/other:1` }
    await publish(daemon, sources)
    const cases: { verb: Verb; isolation: Isolation }[] = verbs(sources).flatMap((verb) =>
      verb.isolations === 'any' ? [{ verb, isolation: 'process' }] : options.isolations.map((isolation) => ({ verb, isolation })),
    )
    const durations = new Map<string, number>()
    const usable: typeof cases = []
    for (const one of cases) {
      const took = await rehearse(daemon, one.verb, one.isolation)
      if (took === undefined) {
        options.say(`left out, this daemon does not have it: ${one.verb.name}`)
        continue
      }
      durations.set(`${one.verb.name} ${one.isolation}`, took)
      usable.push(one)
    }
    await clean(daemon)
    await daemon.down('SIGKILL')
    await daemon.up()
    const wanted = await calm(daemon)
    for (; kills < options.kills; kills++) {
      // A short run takes other verbs for other seeds.
      const { verb, isolation } = usable[options.kills < usable.length ? Math.floor(next() * usable.length) : kills % usable.length]!
      const what = `${verb.name} (${isolation})`
      const after = next() * durations.get(`${verb.name} ${isolation}`)! * 1.1
      try {
        await verb.prepare(daemon, isolation)
        const acting = verb.act(daemon, isolation).catch(() => {})
        await sleep(after)
        await daemon.down('SIGKILL')
        await acting
        await daemon.up()
        await steady.check()
        await verb.verify?.(daemon)
        await clean(daemon)
        const left = await settle(daemon, wanted)
        if (left.length > 0) throw new Error(`lost, doubled or leaked:\n  ${left.join('\n  ')}`)
      } catch (error) {
        throw new Error(`kill ${kills + 1}, ${after.toFixed(1)} ms into ${what}, seed ${options.seed}: ${error instanceof Error ? error.message : String(error)}`)
      }
      byVerb.set(what, (byVerb.get(what) ?? 0) + 1)
      options.say(`${kills + 1}/${options.kills} ${what} after ${after.toFixed(1)} ms`)
    }
  } finally {
    for (const step of undo) await step()
  }
  const left = await remains(daemon)
  if (left.length > 0) throw new Error(`left behind at the end:\n  ${left.join('\n  ')}`)
  return { kills, byVerb }
}

/** Runs a verb to its end and undoes it. Milliseconds that it took; undefined: 501. */
async function rehearse(daemon: TestDaemon, verb: Verb, isolation: Isolation): Promise<number | undefined> {
  try {
    await verb.prepare(daemon, isolation)
    const before = performance.now()
    await verb.act(daemon, isolation)
    const took = performance.now() - before
    await verb.verify?.(daemon)
    return took
  } catch (error) {
    if (/: 501 /.test(String(error))) return undefined
    throw error
  } finally {
    await clean(daemon)
  }
}
