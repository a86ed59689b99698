import type { Duplex } from 'node:stream'
import type { CompareContext, Way } from '../context.js'
import { resultsOf, rounds } from '../rounds.js'
import type { Figure, FigureSection } from '../types.js'

/** A service that has not answered by then will not, ms. */
const SERVES_WITHIN = 120_000

const since = (begun: number) => performance.now() - begun

/** Resolves with the time of the first byte, and of the end of output; both on performance.now()'s clock. */
function watch(stream: Duplex): { first: Promise<number | undefined>; end: Promise<number> } {
  let first: number | undefined
  const end = new Promise<number>((resolve, reject) => {
    stream.on('data', () => (first ??= performance.now()))
    stream.on('end', () => resolve(performance.now())).on('close', () => resolve(performance.now())).on('error', reject)
  })
  end.catch(() => {})
  const seen = new Promise<number | undefined>((resolve, reject) => {
    stream.once('data', () => resolve(performance.now()))
    end.then(() => resolve(first), reject)
  })
  seen.catch(() => {})
  return { first: seen, end }
}

/** ms until the first answer with status 200 of the port that the container publishes. */
async function firstOk(context: CompareContext, id: string, port: number, begun: number): Promise<number> {
  const details = await context.client.json<{ NetworkSettings: { Ports?: Record<string, { HostPort: string }[] | null> } }>('GET', `/containers/${id}/json`)
  const published = details.NetworkSettings.Ports?.[`${port}/tcp`]?.[0]?.HostPort
  if (published === undefined) throw new Error(`port ${port} is not published`)
  for (const end = performance.now() + SERVES_WITHIN; performance.now() < end; await new Promise((resolve) => setTimeout(resolve, 2))) {
    context.signal.throwIfAborted()
    const answer = await fetch(`http://127.0.0.1:${published}/`, { signal: AbortSignal.any([context.signal, AbortSignal.timeout(5000)]), redirect: 'manual' }).catch(() => undefined)
    await answer?.body?.cancel()
    if (answer?.status === 200) return since(begun)
  }
  throw new Error(`no answer with status 200 on port ${port} within ${SERVES_WITHIN / 1000} s`)
}

export function bodyOf(context: Pick<CompareContext, 'image' | 'workload'>, way: Way, more: Record<string, unknown> = {}): Record<string, unknown> {
  const { command, port } = context.workload
  return {
    Image: context.image, ...(command.length > 0 ? { Cmd: command } : {}), AttachStdout: true, AttachStderr: true,
    ...(port !== null ? { ExposedPorts: { [`${port}/tcp`]: {} } } : {}),
    HostConfig: { ...way.hostConfig, ...(port !== null ? { PortBindings: { [`${port}/tcp`]: [{ HostIp: '127.0.0.1', HostPort: '' }] } } : {}) },
    ...more,
  }
}

/** One life. What exits is waited for; what stays is stopped as soon as it is seen to run. */
async function life(context: CompareContext, way: Way): Promise<Record<string, number>> {
  const { client, instances, workload } = context
  const row: Record<string, number> = {}
  const begun = performance.now()
  const id = await instances.create(bodyOf(context, way))
  try {
    row['start-create'] = since(begun)
    const { stream } = await client.hijack('POST', `/containers/${id}/attach`, { query: { stream: true, stdout: true, stderr: true } })
    try {
      const output = watch(stream)
      await client.call('POST', `/containers/${id}/start`)
      row['start-running'] = since(begun)
      if (workload.port !== null) row['start-http'] = await firstOk(context, id, workload.port, begun)
      if (workload.prints) {
        const first = await output.first
        if (first !== undefined) row['start-output'] = first - begun
      }
      if (workload.behaviour === 'exits') {
        await client.json('POST', `/containers/${id}/wait`, { signal: context.signal })
        row['start-total'] = since(begun)
      } else {
        row['start-total'] = row['start-http'] ?? row['start-output'] ?? row['start-running']
        const stopping = performance.now()
        await client.call('POST', `/containers/${id}/stop`, { signal: context.signal })
        row['stop'] = since(stopping)
      }
    } finally {
      stream.destroy()
    }
  } finally {
    const removing = performance.now()
    await instances.remove(id)
    row['remove'] = since(removing)
  }
  return row
}

/** How VMs came to life, from GET /metrics: 'boot 2, template 9'. */
export async function startsOfVms(context: CompareContext): Promise<Map<string, number>> {
  const text = await context.client.text('GET', '/metrics').catch(() => '')
  return new Map([...text.matchAll(/^hull_vm_starts_total\{start="(\w+)"\} (\d+)$/gm)].map(([, start, count]) => [start!, Number(count)]))
}

export async function startSection(context: CompareContext): Promise<FigureSection> {
  const { workload, ways } = context
  const begun = performance.now()
  const before = await startsOfVms(context)
  const done = await rounds({
    subjects: ways, measure: (way) => life(context, way), leading: 'start-total', deadline: context.deadline, signal: context.signal, nameOf: ({ title }) => title,
    progress: (round, of) => context.progress(`start: ${of}, ${round === 0 ? 'warming up' : `round ${round}`}`),
  })
  const after = await startsOfVms(context)
  const exits = workload.behaviour === 'exits'
  const titles: [string, string][] = [
    ['start-create', 'create'], ['start-running', 'create, start'], ['start-output', 'create, start, first output'], ['start-http', 'create, start, first HTTP 200'],
    ['start-total', exits ? 'create, start, exit' : workload.port !== null ? 'create, start, first HTTP 200' : 'create, start'], ['stop', 'stop'], ['remove', 'remove'],
  ]
  const figures = titles.flatMap(([id, title]): Figure[] => {
    const results = resultsOf(done, id, (way) => way.name, (way) => `time ${context.commandOf(way)}`)
    // A subject that failed is told of once, with what counts.
    const some = id === 'start-total' ? results : Object.fromEntries(Object.entries(results).filter(([, result]) => !('missing' in result)))
    return Object.keys(some).length > 0 ? [{ id, title, unit: 'ms', better: 'less', results: some }] : []
  })
  const hows = [...after].map(([how, count]) => [how, count - (before.get(how) ?? 0)] as const).filter(([, count]) => count > 0)
  return {
    figures, seconds: since(begun) / 1000,
    notes: [
      'Over the API, without a client\'s own start: add some 15 ms for docker\'s. The command in each row measures that, too.',
      ...(hows.length > 0 ? [`Of the VMs that were started, warming up included: ${hows.map(([how, count]) => `${count} ${{ boot: 'booted', template: 'were clones of a template', image: 'were clones of a template with the image mounted', pool: 'were made ahead' }[how] ?? how}`).join(', ')}.`] : []),
    ],
  }
}
