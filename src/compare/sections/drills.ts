import { messageOf } from '../../base/errors.js'
import { shellWord } from '../../base/shell.js'
import type { CompareContext, Way } from '../context.js'
import { CATALOG, type DrillDefinition } from '../drills/catalog.js'
import { DrillContainer, isVm, MEMORY_LIMIT, PIDS_LIMIT } from '../drills/container.js'
import { judge, judgePanic, type Judgement } from '../drills/judge.js'
import { usageOf, type Usage } from '../drills/limits.js'
import { program, Stage } from '../drills/stage.js'
import type { Drill, DrillSection } from '../types.js'

const wordsOf = (drill: DrillDefinition, stage: Stage) => [`boot=${stage.boot.slice(0, 8)}`, ...(drill.planted === 'device' ? [`device=${stage.device}`] : [])]

/** A command line that tries it again. The program needs no shell of the image's. */
function commandOf(context: CompareContext, way: Way, privileged: boolean, drill: DrillDefinition, stage: Stage): string {
  const limits = isVm(way) ? [] : ['--memory', `${MEMORY_LIMIT >> 20}m`, '--memory-swap', `${MEMORY_LIMIT >> 20}m`]
  const words = ['docker', 'run', '--rm', ...way.flags, ...(privileged ? ['--privileged'] : []), '--user', '0:0', '--pids-limit', String(PIDS_LIMIT), ...limits, '-v', `${program}:/hull-drills:ro`, '--entrypoint', '/hull-drills', context.image, drill.name, ...wordsOf(drill, stage)]
  const plant = drill.judged === 'token' ? `sleep 9 | ${shellWord(program)} host ${stage.token} > /dev/null & sleep 1; ` : ''
  return plant + words.map(shellWord).join(' ')
}

/** The two containers of one way, without --privileged and with it. */
class Pair {
  readonly #containers = new Map<boolean, DrillContainer>()
  readonly #failed = new Map<boolean, unknown>()

  constructor(
    private readonly context: CompareContext,
    private readonly way: Way,
  ) {}

  /** One that runs: a new one where a drill has ended the last. Rejects: it cannot be had, and is not tried again. */
  async get(privileged: boolean): Promise<DrillContainer> {
    if (this.#failed.has(privileged)) throw this.#failed.get(privileged)
    const found = this.#containers.get(privileged)
    if (found && (await found.state()).Running) return found
    await found?.remove()
    this.#containers.delete(privileged)
    try {
      const made = await DrillContainer.start(this.context, this.way, privileged)
      this.#containers.set(privileged, made)
      return made
    } catch (error) {
      this.#failed.set(privileged, error)
      throw error
    }
  }

  async remove(): Promise<void> {
    await Promise.all([...this.#containers.values()].map((container) => container.remove()))
  }
}

async function drillIn(way: Way, privileged: boolean, drill: DrillDefinition, stage: Stage, pair: Pair): Promise<Judgement> {
  const absent = drill.planted === undefined ? '' : stage.missing[drill.planted]
  if (absent !== '') return { outcome: 'missing', detail: absent }
  if (drill.judged === 'machine' && !isVm(way)) return { outcome: 'missing', detail: way.name === 'runsc' ? 'never tried: were gVisor to pass it on, it would be the end of the host' : 'never tried on the host\'s own kernel: it would be the end of the host' }
  const container = await pair.get(privileged)
  const words = wordsOf(drill, stage)
  if (drill.judged === 'machine') {
    // The other one must live on.
    const other = await pair.get(!privileged)
    const end = await container.tryToEnd(drill.name, words)
    return judgePanic(end.report, { ...end, others: (await other.try('sysctl', [])) !== undefined })
  }
  const { Pid } = await container.state()
  let during: Usage | null = null
  const report = await container.try(drill.name, words, async () => {
    if (drill.judged === 'limit') during = await usageOf(Pid)
  })
  // Who has ended without a word holds nothing any more.
  return judge(drill, report, { boot: stage.boot, token: stage.token, before: container.before, during: report ? during : container.before })
}

/** The drills of one way. What cannot be tried since there is no container is told as well. */
async function drillsIn(context: CompareContext, way: Way, stage: Stage, told: (drill: DrillDefinition, privileged: boolean, judgement: Judgement) => void): Promise<void> {
  const pair = new Pair(context, way)
  try {
    for (const drill of CATALOG) {
      for (const privileged of [false, true]) {
        context.signal.throwIfAborted()
        context.progress(`drills: ${way.title}${privileged ? ', privileged' : ''}, ${drill.title}`)
        try {
          told(drill, privileged, performance.now() > context.deadline ? { outcome: 'missing', detail: 'the time was over' } : await drillIn(way, privileged, drill, stage, pair))
        } catch (error) {
          context.signal.throwIfAborted()
          told(drill, privileged, { outcome: 'missing', detail: messageOf(error) })
        }
      }
    }
  } finally {
    await pair.remove()
  }
}

/**
 * What a workload would try that wants out, tried in every isolation without --privileged and with it: {@link CATALOG} says what, and why nothing can come of it. It is not measured unless it
 * is asked for: on a host that is watched for attacks it looks like what it is.
 */
export async function drillSection(context: CompareContext): Promise<DrillSection> {
  const begun = performance.now()
  const drills: Drill[] = [false, true].flatMap((privileged) => CATALOG.map(({ name, title }): Drill => ({ drill: name, title, privileged, results: {} })))
  let stage: Stage
  try {
    stage = await Stage.open(context.signal)
  } catch (error) {
    context.signal.throwIfAborted()
    return { drills: [], skipped: `the host's side of the drills cannot be started: ${messageOf(error)}`, notes: [], seconds: (performance.now() - begun) / 1000 }
  }
  try {
    for (const way of context.ways) {
      await drillsIn(context, way, stage, (drill, privileged, judgement) => {
        drills.find((one) => one.drill === drill.name && one.privileged === privileged)!.results[way.name] = { ...judgement, command: commandOf(context, way, privileged, drill, stage) }
      })
    }
  } finally {
    await stage.close()
  }
  return {
    drills, seconds: (performance.now() - begun) / 1000,
    notes: [
      'As root of the container. HOST: the host saw it, by its own eyes; guest: the workload\'s own kernel did it, and the host saw nothing; refused: nothing happened. Each is harmless even where it succeeds: docs/drills.md says why.',
      'A container that is refused here is held by rules of the one kernel that it shares with the host; holes in that kernel are not tried.',
    ],
  }
}
