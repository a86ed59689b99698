import { readdir, readFile } from 'node:fs/promises'
import { request } from 'node:http'
import { createRouter } from '../../src/api/server.js'
import type { TestDaemon } from '../lib/daemon.js'
import { Random } from './random.js'
import { makeRequest, type Sent, type World } from './requests.js'

/** What a run has seen. */
export interface Result {
  /** Answers by status. */
  statuses: Map<number, number>
  /** Endpoints that were asked. */
  endpoints: Set<string>
  /** Resident memory of the daemon, bytes: after the first tenth, and at the end. */
  memory: { early: number; late: number }
}

interface Answer {
  status: number
  body: string
}

/** An answer that has not ended by then is a hang, unless it may be endless. */
const hangMs = 90_000
/** How long an endless answer is listened to before the client goes away. */
const patienceMs = 400

/**
 * Failures that Docker, too, answers with 500: the machine, not the request, is in the way. Everything else with that status is a bug.
 */
const docker500 = [/--storage-opt is supported only for overlay over xfs/, /port is already allocated/, /dial tcp 127\.0\.0\.1:1: connect: connection refused/, /error gathering device information/, /could not find an available|no available|overlap/]

function send(socket: string, sent: Sent): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath: socket, method: sent.method, path: sent.path, headers: { ...sent.headers, ...(sent.body ? { 'content-length': sent.body.length } : {}) } })
    let status = 0
    let body = ''
    const timer = setTimeout(
      () => {
        call.destroy()
        if (sent.endless) resolve({ status, body })
        else reject(new Error(`no answer in ${hangMs} ms`))
      },
      sent.endless ? patienceMs : hangMs,
    )
    const end = (): void => {
      clearTimeout(timer)
      resolve({ status, body })
    }
    call.on('response', (answer) => {
      status = answer.statusCode ?? 0
      answer.on('data', (chunk: Buffer) => {
        if (body.length < 100_000) body += chunk.toString()
      })
      answer.on('end', end)
      answer.on('error', end)
    })
    call.on('upgrade', (answer, stream) => {
      status = answer.statusCode ?? 0
      stream.on('data', () => {})
      stream.on('error', () => {})
      stream.on('close', end)
      stream.write('input\n')
    })
    call.on('error', (error) => {
      clearTimeout(timer)
      // Ours, after an endless answer; or the daemon's, which has the right to cut who breaks HTTP. The next ping tells whether it is alive.
      if (sent.endless || status !== 0) resolve({ status, body })
      else reject(error)
    })
    call.end(sent.body)
  })
}

/** As a line for a shell. */
const asCurl = (sent: Sent): string =>
  [`curl -X ${sent.method} --unix-socket SOCKET 'http://x${sent.path}'`, ...Object.entries(sent.headers).map(([name, value]) => `-H '${name}: ${value}'`), ...(sent.body ? [`-d ${JSON.stringify(sent.body.toString().slice(0, 3000))}`] : [])].join(' ')

/** The container that a request was about, if it is still there: its configuration is half of what failed. */
async function containerOf(daemon: TestDaemon, sent: Sent): Promise<string> {
  const name = /\/containers\/([^/?]+)\//.exec(sent.path)?.[1]
  if (name === undefined || name === 'create') return ''
  const answer = await daemon.api('GET', `/containers/${name}/json`)
  if (answer.status !== 200) return ''
  const { HostConfig, Config } = JSON.parse(answer.body) as { HostConfig: Record<string, unknown>; Config: unknown }
  const set = Object.fromEntries(Object.entries(HostConfig).filter(([, value]) => value && (typeof value !== 'object' || Object.keys(value).length > 0)))
  return `\nHostConfig ${JSON.stringify(set)}\nConfig ${JSON.stringify(Config)}`
}

const memoryOf = async (pid: number): Promise<number> => Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024
/** Open descriptors of a process. */
export const descriptorsOf = async (pid: number): Promise<number> => (await readdir(`/proc/${pid}/fd`)).length

/** Takes away containers, networks, volumes and images that requests made; the daemon must be able to, in time. */
async function tidy(daemon: TestDaemon, image: string, everything: boolean): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => (timer = setTimeout(() => reject(new Error(`what requests made cannot be removed in ${hangMs} ms`)), hangMs)))
  await Promise.race([tidyAll(daemon, image, everything), late]).finally(() => clearTimeout(timer))
}

async function tidyAll(daemon: TestDaemon, image: string, everything: boolean): Promise<void> {
  const rows = JSON.parse((await daemon.api('GET', '/containers/json?all=1')).body) as { Id: string; Names: string[] }[]
  for (const row of rows) {
    if (!everything && rows.length < 12) break
    const { status, body } = await daemon.api('DELETE', `/containers/${row.Id}?force=1&v=1`)
    if (![204, 404, 409].includes(status)) throw new Error(`a container cannot be removed: ${status} ${body}`)
  }
  if (!everything) return
  for (const row of JSON.parse((await daemon.api('GET', '/networks')).body) as { Id: string; Name: string }[]) if (!['bridge', 'host', 'none'].includes(row.Name)) await daemon.api('DELETE', `/networks/${row.Id}`)
  for (const row of (JSON.parse((await daemon.api('GET', '/volumes')).body) as { Volumes: { Name: string }[] | null }).Volumes ?? []) await daemon.api('DELETE', `/volumes/${row.Name}?force=1`)
  for (const row of JSON.parse((await daemon.api('GET', '/images/json?all=1')).body) as { Id: string; RepoTags: string[] | null }[]) if (!row.RepoTags?.includes(image)) await daemon.api('DELETE', `/images/${row.Id}?force=1`)
}

/**
 * Sends `count` requests that the seed decides, some at a time, to a real daemon, at every endpoint there is. Throws, naming seed, number and request, for an answer with
 * 500 (or another of the server's faults), a daemon that is gone, and one that does not answer.
 */
export async function fuzzApi(daemon: TestDaemon, options: { seed: number; count: number; image: string; scratch: string; progress?: (done: number) => void }): Promise<Result> {
  const endpoints = createRouter().endpoints
  const world: World = { image: options.image, scratch: options.scratch, execs: [] }
  const random = new Random(options.seed)
  const result: Result = { statuses: new Map(), endpoints: new Set(), memory: { early: 0, late: 0 } }
  // Eight at a time: they meet each other, and the daemon's locks, halfway.
  const atOnce = 8
  const only = process.env.HULL_FUZZ_ONLY === undefined ? undefined : Number(process.env.HULL_FUZZ_ONLY)
  const failures = new Map<string, string>()
  const one = async (index: number): Promise<void> => {
    const sent = makeRequest(random.fork(index), world, endpoints)
    // The only image must stay for the others.
    if (sent.method === 'DELETE' && sent.path.includes('/images/')) sent.path = sent.path.replace(options.image, 'i0:1')
    if (sent.path.includes('/images/prune')) sent.path = sent.path.replace(/\?.*/, '')
    if (only !== undefined && index !== only) return
    result.endpoints.add(sent.endpoint)
    /** Notes a failure; the run goes on, so that one run shows all that it can. Ids and numbers of requests apart, each is told once. */
    const fail = (why: string): void => {
      const kind = `${sent.endpoint} ${why.replace(/[0-9a-f]{12,64}/g, 'ID')}`
      if (!failures.has(kind)) failures.set(kind, `seed ${options.seed}, request ${index}: ${why}\n${asCurl(sent)}`)
    }
    const answer = await send(daemon.socket, sent).catch((error: unknown) => String(error))
    if (typeof answer === 'string') return fail(answer)
    result.statuses.set(answer.status, (result.statuses.get(answer.status) ?? 0) + 1)
    if (answer.status >= 500 && answer.status !== 501 && answer.status !== 503 && !docker500.some((known) => known.test(answer.body))) fail(`${answer.status} ${answer.body.slice(0, 500)}${await containerOf(daemon, sent)}`)
    if (answer.body.includes('"errorDetail"') && /internal error|TypeError|undefined/.test(answer.body)) fail(`the stream says ${answer.body.slice(-500)}`)
    if (sent.endpoint.endsWith('/exec') && answer.status === 201) {
      world.execs.push((JSON.parse(answer.body) as { Id: string }).Id)
      if (world.execs.length > 20) world.execs.shift()
    }
  }
  const pid = daemon.pid
  for (let done = 0; done < options.count; done += atOnce) {
    await Promise.all(Array.from({ length: Math.min(atOnce, options.count - done) }, (_, n) => one(done + n)))
    if (done % (atOnce * 10) === 0) {
      await tidy(daemon, options.image, done % (atOnce * 100) === 0)
      options.progress?.(done)
    }
    if (result.memory.early === 0 && done >= options.count / 10) result.memory.early = await memoryOf(pid)
  }
  await tidy(daemon, options.image, true)
  result.memory.late = await memoryOf(pid)
  if ((await daemon.api('GET', '/_ping')).status !== 200 || daemon.pid !== pid) throw new Error(`seed ${options.seed}: the daemon is not the one that was asked first`)
  if (failures.size > 0) throw new Error(`${failures.size} kinds of failures\n\n${[...failures.values()].slice(0, 30).join('\n\n')}`)
  return result
}
