import { spawn } from 'node:child_process'
import { shellWord } from '../../base/shell.js'
import type { CompareContext, Way } from '../context.js'
import { familyOf, processes } from '../host.js'
import { program } from './inside.js'

/** ms. The kernel changes its code at some 50,000 places when tracing begins, and again when it ends: many seconds where the machine is emulated. */
const BEGINS_WITHIN = 120_000
const ENDS_WITHIN = 120_000
/** The buffers of a host are so much larger when the last ones were too small. */
const LARGER = 4
const ATTEMPTS = 3
/** Characters: of some 100,000 names, and of a few sentences. */
const MOST_NAMES = 8 << 20
const MOST_WORDS = 4096

/** What `hull-surface functions` came to: names, a reason, or KiB of buffers that were too small. */
export type Traced = { names: string[] } | { why: string } | { lostWith: number }

/** What a run of it said: exit code, names (one a line), words (the last line is its reason). */
export function parseTraced(code: number | null, out: string, words: string): Traced {
  const last = words.trimEnd().split('\n').at(-1)?.replaceAll(/[^ -~]/g, '?').slice(0, 300) ?? ''
  const lost = code === 3 ? /^events were lost: buffers of (\d{1,8}) KiB are too small$/.exec(last)?.[1] : undefined
  if (lost !== undefined) return { lostWith: Number(lost) }
  if (code !== 0) return { why: code === 1 && last !== '' ? last : 'the program that traces functions failed' }
  const names = out.split('\n')
  if (names.pop() !== '' || !names.every((name) => /^[\w.$?]{1,255}$/.test(name))) return { why: 'the program that traces functions says what cannot be understood' }
  return names.length > 0 ? { names } : { why: 'no function was seen' }
}

/**
 * Traces these processes, and all below them, while `workload` runs. Whatever becomes of us, the program sees the end of its stdin, and takes its traces out of the kernel; so it is never killed while it may still do that.
 * Rejects when the signal is aborted, or the workload rejects; nothing is left then.
 */
async function trace(roots: readonly number[], kib: number, workload: () => Promise<void>, signal: AbortSignal): Promise<Traced> {
  const child = spawn(program, ['functions', ...(kib > 0 ? ['-b', String(kib)] : []), roots.join(',')], { stdio: ['pipe', 'pipe', 'pipe'] })
  let [out, words] = ['', '']
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve).once('error', () => resolve(null)))
  const began = new Promise<boolean>((resolve) => {
    child.stderr.on('data', (chunk: Buffer) => {
      if (words.length < MOST_WORDS) words += chunk.toString('latin1')
      if (/^tracing \d+ threads\n/.test(words)) resolve(true)
    })
    void ended.then(() => resolve(false))
  })
  child.stdout.on('data', (chunk: Buffer) => {
    if (out.length < MOST_NAMES) out += chunk.toString('latin1')
  })
  child.stdin.on('error', () => {})
  const stop = () => child.stdin.destroy()
  signal.addEventListener('abort', stop, { once: true })
  const timer = setTimeout(stop, BEGINS_WITHIN)
  let inTime = false
  try {
    inTime = await began
    clearTimeout(timer)
    if (inTime && !child.stdin.destroyed) await workload()
    else inTime = false
  } finally {
    clearTimeout(timer)
    stop()
    const kill = setTimeout(() => child.kill('SIGKILL'), ENDS_WITHIN)
    await ended
    clearTimeout(kill)
    signal.removeEventListener('abort', stop)
  }
  signal.throwIfAborted()
  const code = await ended
  return code === 0 && !inTime ? { why: 'it takes the kernel too long to begin tracing' } : parseTraced(code, out, words)
}

/**
 * How many functions of the host's kernel an instance calls while its workload runs, or why that is not known: a sentence. What counts is all that its supervisor (hull-monitor) started: a container's processes; of a VM its
 * hypervisor with what watches it in there. `workload` resolves when it has run, to false where it did not come to its end.
 */
export async function functionsDuring(id: string, workload: () => Promise<boolean>, signal: AbortSignal): Promise<number | string> {
  const all = await processes()
  const supervisors = familyOf(id, all).filter(({ name, commandLine }) => name === 'hull-monitor' && commandLine.includes(id))
  const roots = all.filter(({ parent }) => supervisors.some(({ pid }) => pid === parent)).map(({ pid }) => pid)
  if (roots.length === 0) return 'its processes cannot be seen from here'
  let kib = 0
  for (let n = 0; n < ATTEMPTS; n += 1) {
    let finished = false
    const traced = await trace(roots, kib, async () => { finished = await workload() }, signal)
    if ('names' in traced) return finished ? traced.names.length : 'the workload that was to be traced did not come to its end (a filter that kills ends it)'
    if ('why' in traced) return traced.why
    kib = traced.lostWith * LARGER
  }
  return `the kernel lost events, with buffers of ${Math.round(kib / LARGER / 1024)} MiB for each processor, too`
}

/** Lists the functions of one way by hand, one a line; a listing is about as long as the figure is high. */
export function functionsCommand(context: CompareContext, way: Way): string {
  const create = ['docker', 'create', ...way.flags, '--entrypoint', '/hull-surface', context.image, 'exercise'].map(shellWord).join(' ')
  const surface = shellWord(program)
  const work = 'docker kill -s USR1 $id; until docker logs $id | grep done; do sleep 0.1; done'
  return `id=$(${create}) && docker cp ${surface} $id:/hull-surface && docker start $id > /dev/null && ${surface} functions $(docker inspect -f '{{.State.Pid}}' $id) sh -c "${work}"; docker rm -f $id > /dev/null`
}
