import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import type { CompareContext, Way } from '../context.js'
import { firstLine, putProgram } from '../drills/container.js'

/** native/surface: tries system calls without making them, and reads the filters of a process. */
export const program = fileURLToPath(new URL('../../../build/hull-surface', import.meta.url))
/** ms */
const SAYS_WITHIN = 60_000
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
 * removed. Rejects with a sentence.
 */
export async function lookInside<T>(context: CompareContext, way: Way, meanwhile: (id: string, place: string) => Promise<T>): Promise<{ seen: SeenInside; outside: T }> {
  const { client, instances } = context
  const place = `.hull-surface-${randomBytes(8).toString('hex')}`
  const id = await instances.create({
    Image: context.image, Entrypoint: [`/${place}/look`], Cmd: [], WorkingDir: '/', Healthcheck: { Test: ['NONE'] }, OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true,
    HostConfig: way.hostConfig,
  })
  const signal = AbortSignal.any([context.signal, AbortSignal.timeout(SAYS_WITHIN)])
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
    const ended = new Promise<void>((resolve) => stream.once('close', resolve).once('end', resolve))
    const line = firstLine(stream, ended, LONGEST_LINE)
    await client.call('POST', `/containers/${id}/start`, { signal })
    const seen = parseSeen((await line) ?? '')
    context.signal.throwIfAborted()
    if (!seen) throw new Error('the program that looks around in there ended without a word that can be understood')
    return { seen, outside: await meanwhile(id, place) }
  } finally {
    close()
    await instances.remove(id)
  }
}
