import { messageOf } from '../../base/errors.js'
import { shellWord } from '../../base/shell.js'
import type { CompareContext, Way } from '../context.js'
import { CATALOG, type DrillDefinition } from '../drills/catalog.js'
import { DrillContainer, isVm, MEMORY_LIMIT, PIDS_LIMIT } from '../drills/container.js'
import { judge, judgePanic, type Judgement } from '../drills/judge.js'
import { usageOf, type Usage } from '../drills/limits.js'
import { program, Stage } from '../drills/stage.js'
import type { Drill, DrillResult, DrillSection } from '../types.js'

/** ms that a machine gets to be gone after its kernel has crashed. */
const CRASHES_WITHIN = 60_000

const wordsOf = (drill: DrillDefinition, stage: Stage) => [`boot=${stage.boot.slice(0, 8)}`, ...(drill.planted === 'device' ? [`device=${stage.device}`] : [])]

/** A command line that tries it again. The program needs no shell of the image's. */
function commandOf(context: CompareContext, way: Way, privileged: boolean, drill: DrillDefinition, stage: Stage): string {
  const limits = isVm(way) ? [] : ['--memory', `${MEMORY_LIMIT >> 20}m`, '--memory-swap', `${MEMORY_LIMIT >> 20}m`]
  const words = ['docker', 'run', '--rm', ...way.flags, ...(privileged ? ['--privileged'] : []), '--user', '0:0', '--pids-limit', String(PIDS_LIMIT), ...limits, '-v', `${program}:/hull-drills:ro`, '--entrypoint', '/hull-drills', context.image, drill.name, ...wordsOf(drill, stage)]
  const plant = drill.judged === 'token' ? `sleep 9 | ${shellWord(program)} host ${stage.token} > /dev/null & sleep 1; ` : ''
  return plant + words.map(shellWord).join(' ')
}

/** The drills of one way: in one container, and in a new one after a drill that has ended it. Rejects: a container cannot be had. */
async function drillsIn(context: CompareContext, way: Way, privileged: boolean, stage: Stage, told: (drill: DrillDefinition, judgement: Judgement) => void): Promise<void> {
  let container = await DrillContainer.start(context, way, privileged)
  try {
    for (const drill of CATALOG) {
      context.signal.throwIfAborted()
      if (performance.now() > context.deadline) return
      context.progress(`drills: ${way.title}${privileged ? ', privileged' : ''}, ${drill.title}`)
      if (!(await container.state()).Running) {
        await container.remove()
        container = await DrillContainer.start(context, way, privileged)
      }
      told(drill, await drillIn(context, way, privileged, drill, stage, container))
    }
  } finally {
    await container.remove()
  }
}

async function drillIn(context: CompareContext, way: Way, privileged: boolean, drill: DrillDefinition, stage: Stage, container: DrillContainer): Promise<Judgement> {
  const absent = drill.planted === undefined ? '' : stage.missing[drill.planted]
  if (absent !== '') return { outcome: 'missing', detail: absent }
  if (drill.judged === 'machine') {
    return isVm(way) ? panicIn(context, way, privileged, drill, stage, container) : { outcome: 'missing', detail: 'never tried on the host\'s own kernel: it would be the end of the host' }
  }
  const { Pid } = await container.state()
  let during: Usage | null = null
  const report = await container.try(drill.name, wordsOf(drill, stage), async () => {
    if (drill.judged === 'limit') during = await usageOf(Pid)
  })
  // Who has ended without a word holds nothing any more.
  return judge(drill, report, { boot: stage.boot, token: stage.token, before: container.before, during: report ? during : container.before })
}

/** Has a machine of its own crash, beside one that must not. */
async function panicIn(context: CompareContext, way: Way, privileged: boolean, drill: DrillDefinition, stage: Stage, other: DrillContainer): Promise<Judgement> {
  // Kept when it ends: its state is what is judged.
  const container = await DrillContainer.start(context, way, privileged, false)
  try {
    const report = await container.try(drill.name, wordsOf(drill, stage)).catch((error: unknown) => {
      context.signal.throwIfAborted()
      if (error instanceof Error) return undefined // the connection went with the machine
      throw error
    })
    let state = await container.state()
    for (const end = performance.now() + CRASHES_WITHIN; state.Running && !report && performance.now() < end; state = await container.state()) {
      context.signal.throwIfAborted()
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    return judgePanic(report, { running: state.Running, exitCode: state.ExitCode, others: (await other.try('sysctl', [])) !== undefined })
  } finally {
    await container.remove()
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
      for (const privileged of [false, true]) {
        const told = (drill: DrillDefinition, judgement: Judgement) => {
          const result: DrillResult = { ...judgement, command: commandOf(context, way, privileged, drill, stage) }
          drills.find((one) => one.drill === drill.name && one.privileged === privileged)!.results[way.name] = result
        }
        let absent = 'the time was over'
        try {
          if (performance.now() < context.deadline) await drillsIn(context, way, privileged, stage, told)
        } catch (error) {
          context.signal.throwIfAborted()
          absent = messageOf(error)
        }
        for (const drill of CATALOG) {
          if (!drills.some((one) => one.drill === drill.name && one.privileged === privileged && one.results[way.name])) told(drill, { outcome: 'missing', detail: absent })
        }
      }
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
