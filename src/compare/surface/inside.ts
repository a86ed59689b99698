import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import type { CompareContext, Way } from '../context.js'
import { putProgram } from '../drills/container.js'
import { Lines } from '../lines.js'

/** native/surface: tries system calls without making them, reads the filters of a process, is a workload, and traces one. */
export const program = fileURLToPath(new URL('../../../build/hull-surface', import.meta.url))
/** ms */
const SAYS_WITHIN = 60_000
/** A second, or many where host, tracing and guest are all emulated. */
const WORKS_WITHIN = 180_000
/** Characters; a privileged container has some hundred devices. */
const LONGEST_LINE = 32_768

const said = z.strictObject({
  boot: z.string().max(36), kernel: z.string().max(64), capabilities: z.string().regex(/^[0-9a-f]{1,16}$/), seccomp: z.enum(['0', '1', '2']), devices: z.array(z.string().max(255)),
  calls: z.int().min(-1).max(1000), why: z.string().max(200),
})
/** What the program sees from within: as the kernel tells it, but for what a hostile image made of it: its word is shown, and nothing is done with it. */
export type SeenInside = z.output<typeof said>

/** The program's line; undefined: it is none. */
export function parseSeen(line: string): SeenInside | undefined {
  try {
    const parsed = said.safeParse(JSON.parse(line))
    return parsed.success ? parsed.data : undefined
  } catch {
    return undefined
  }
}

/**
 * Runs the program as the first process of a container of the image, as the image's own would run, and looks at it from outside meanwhile. It needs nothing of the image's. The container is
 * removed. `work` has it do its workload once; false: it did not come to its end. Rejects with a sentence.
 */
export async function lookInside<T>(context: CompareContext, way: Way, meanwhile: (id: string, place: string, work: () => Promise<boolean>) => Promise<T>): Promise<{ seen: SeenInside; outside: T }> {
  const { client, instances } = context
  const place = `.hull-surface-${randomBytes(8).toString('hex')}`
  const id = await instances.create({
    Image: context.image, Entrypoint: [`/${place}/look`], Cmd: [], WorkingDir: '/', Healthcheck: { Test: ['NONE'] }, OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true,
    HostConfig: way.hostConfig,
  })
  const begins = new AbortController()
  const timer = setTimeout(() => begins.abort(), SAYS_WITHIN)
  const signal = AbortSignal.any([context.signal, begins.signal])
  let close = () => {}
  try {
    await putProgram(context, id, place, 'look', program)
    const { stream } = await client.hijack('POST', `/containers/${id}/attach`, { query: { stream: true, stdin: true, stdout: true }, signal })
    const stop = () => stream.destroy()
    signal.addEventListener('abort', stop, { once: true })
    close = () => {
      signal.removeEventListener('abort', stop)
      stream.destroy()
    }
    const lines = new Lines(stream, LONGEST_LINE)
    await client.call('POST', `/containers/${id}/start`, { signal })
    const seen = parseSeen((await lines.next()) ?? '')
    clearTimeout(timer)
    context.signal.throwIfAborted()
    if (!seen) throw new Error('the program that looks around in there ended without a word that can be understood')
    const work = async (): Promise<boolean> => {
      const late = setTimeout(stop, WORKS_WITHIN)
      stream.write('go\n')
      const said = await lines.next()
      clearTimeout(late)
      return said === 'done'
    }
    return { seen, outside: await meanwhile(id, place, work) }
  } finally {
    clearTimeout(timer)
    close()
    await instances.remove(id)
  }
}
