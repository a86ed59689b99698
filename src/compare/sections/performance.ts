import { setTimeout as sleep } from 'node:timers/promises'
import { messageOf } from '../../base/errors.js'
import { differentWhenRunning, type CompareContext } from '../context.js'
import { BareHost } from '../probe/bare-host.js'
import { PROBES, type Probe } from '../probe/catalog.js'
import { probeImage } from '../probe/image.js'
import { hostPlace, openInstance, type Place } from '../probe/place.js'
import { resultsOf, rounds } from '../rounds.js'
import type { Figure, FigureSection, Subject } from '../types.js'

/** Milliseconds that a server in an instance gets to answer for the first time. */
const SERVES_WITHIN = 20_000
/** Characters of a tool's last words. */
const LAST_WORDS = 160

/** iperf3's own words, as JSON: it may end with 0 all the same. */
const errorIn = (stdout: string) => /^\s*"error":\s*"([^"\n]*)"/m.exec(stdout)?.[1]
/** What a tool that failed says of it; the others do so in their last line. */
const lastWords = (stdout: string, stderr: string) => (errorIn(stdout) ?? (stderr.trim() || stdout.trim()).split('\n').at(-1)!).slice(0, LAST_WORDS)

/** One row. Rejects with a sentence. */
async function measure(place: Place, probe: Probe): Promise<Record<string, number>> {
  const { code, stdout, stderr } = await place.run(probe)
  const [tool = ''] = probe.words({ cpu: 0, address: '', slow: false })
  if (code === 127) throw new Error(`the probe image has no ${tool}`)
  if (code !== 0 || errorIn(stdout) !== undefined) throw new Failed(`${tool} ended with ${code}: ${lastWords(stdout, stderr)}`)
  return probe.parse(stdout)
}

/** A tool that ended in failure: its server may not be there yet, or not again (iperf3's closes its port after each client, for a moment). */
class Failed extends Error {}

/** The same, for a client. */
async function measureSoon(place: Place, probe: Probe, signal: AbortSignal): Promise<Record<string, number>> {
  for (const end = performance.now() + SERVES_WITHIN; ; await sleep(300, undefined, { signal })) {
    try {
      return await measure(place, probe)
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof Failed) || performance.now() > end) throw error
    }
  }
}

async function figuresOf(context: CompareContext, probe: Probe, places: readonly Place[], absent: Partial<Record<Subject, { missing: string }>>, deadline: number): Promise<Figure[]> {
  const done = await rounds({
    subjects: places, leading: probe.figures[0].id, deadline, signal: context.signal, nameOf: ({ title }) => title,
    measure: (place) => (probe.side === 'client' ? measureSoon(place, probe, context.signal) : measure(place, probe)),
    progress: (round, of) => context.progress(`speed: ${probe.name}, ${of}, ${round === 0 ? 'warming up' : `round ${round}`}`),
  })
  return probe.figures.map((figure) => ({ ...figure, results: { ...absent, ...resultsOf(done, figure.id, ({ subject }) => subject, (place) => place.commandOf(probe)) } }))
}

/** What the tools of the probe image say in an instance of each isolation and on the bare host, in turn. Its instances stay up until the section's end. */
export async function performanceSection(context: CompareContext): Promise<FigureSection> {
  const begun = performance.now()
  const seconds = () => (performance.now() - begun) / 1000
  let image: string
  try {
    image = await probeImage(context)
  } catch (error) {
    context.signal.throwIfAborted()
    return { figures: [], notes: [], skipped: messageOf(error), seconds: seconds() }
  }
  const ways = differentWhenRunning(context.ways)
  const places: Place[] = []
  const absent: Partial<Record<Subject, { missing: string }>> = {}
  const figures: Figure[] = []
  try {
    context.progress('speed: the bare host')
    let host: BareHost | { missing: string }
    try {
      host = await BareHost.open(context, image)
      places.push(await hostPlace(host, image))
    } catch (error) {
      context.signal.throwIfAborted()
      host = { missing: messageOf(error) }
      absent.host = host
    }
    for (const way of ways) {
      context.progress(`speed: ${way.title}`)
      try {
        places.push(await openInstance(context, way, image, host))
      } catch (error) {
        context.signal.throwIfAborted()
        absent[way.name] = { missing: messageOf(error) }
      }
    }
    let left = PROBES.reduce((sum, probe) => sum + probe.seconds, 0)
    for (const probe of PROBES) {
      context.signal.throwIfAborted()
      const now = performance.now()
      figures.push(...await figuresOf(context, probe, places, absent, now + (Math.max(0, context.deadline - now) * probe.seconds) / left))
      left -= probe.seconds
    }
  } finally {
    await Promise.all(places.map((place) => place.close()))
  }
  return {
    figures, seconds: seconds(),
    notes: [
      `By the tools in the image ${image}, one thread each; the host runs the same binaries, as nobody, in no cgroup, namespace or filter of an instance's.`,
      'Disk: a file of 64 MiB with direct I/O, one request at a time (fsync: through the page cache). A container\'s is in its writable layer, the host\'s in the same file system; before a VM\'s lies the page cache of the host, which is why it may read faster than the host.',
      ...(ways.some(({ name }) => name === 'runsc') ? ['gVisor keeps files in memory of its own and hands direct I/O and fsync on as it sees fit: its disk figures are largely of that memory.'] : []),
      'Network: from the instance over the bridge to the host; the bare host\'s is its loopback.',
      ...(ways.length < context.ways.length ? ['A VM that boots is, when it runs, the machine that comes from a template: it is measured once.'] : []),
    ],
  }
}
