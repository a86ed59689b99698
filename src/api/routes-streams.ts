import { pipeline } from 'node:stream/promises'
import type { Readable } from 'node:stream'
import { badRequest } from '../base/errors.js'
import { log } from '../base/log.js'
import type { StatsSample, WaitCondition } from '../engine/api-types.js'
import { parseDetachKeys } from './detach.js'
import type { Exchange } from './exchange.js'
import { outputFilter } from './frames.js'
import type { Hijackable } from './hijack.js'
import { execJson, statsJson } from './mapping-container.js'
import type { Router } from './router.js'
import { archivePath, statHeader } from './routes-containers.js'
import { execBody, execStartBody } from './schema-container.js'

const rawStream = 'application/vnd.docker.raw-stream'
const multiplexed = 'application/vnd.docker.multiplexed-stream'
/** API 1.42 and later tell framed output by its content type. */
const streamType = (tty: boolean, minor: number): string => (!tty && minor >= 42 ? multiplexed : rawStream)

/** Containers' and exec sessions' endpoints whose answer goes on. */
export function streamRoutes(router: Router): void {
  router.hijack('/containers/:id/attach', attach)
  router.on('GET', '/containers/:id/logs', logs)
  router.on('POST', '/containers/:id/wait', wait)
  router.on('GET', '/containers/:id/stats', stats)
  router.on('GET', '/containers/:id/export', async (x) => {
    await sendTar(x, await x.engine.containers.export(x.param('id'), x.signal))
  })
  router.on('GET', '/containers/:id/archive', async (x) => {
    const { stat, tar } = await x.engine.containers.archiveGet(x.param('id'), archivePath(x), x.signal)
    x.response.setHeader('X-Docker-Container-Path-Stat', statHeader(stat))
    await sendTar(x, tar)
  })
  router.on('POST', '/containers/:id/exec', execCreate)
  router.hijack('/exec/:id/start', execStart)
  router.on('GET', '/exec/:id/json', async (x) => x.send(200, execJson(await x.engine.execs.inspect(x.param('id')))))
  router.on('POST', '/exec/:id/resize', async (x) => {
    const rows = x.query.dimension('h', 'height')
    await x.engine.execs.resize(x.param('id'), rows, x.query.dimension('w', 'width'))
    x.empty(200)
  })
}

/** A tar as the answer. A failure in the middle cuts the connection, so that nobody takes half a tar for a whole one. */
export async function sendTar(x: Exchange, tar: Readable): Promise<void> {
  x.begin('application/x-tar')
  await pipeline(tar, x.response).catch((error: unknown) => {
    if (!x.signal.aborted) log.warn('tar stream ended early', { id: x.requestId, error })
    x.response.destroy()
  })
}

async function attach(x: Exchange, connection: Hijackable): Promise<void> {
  const { query } = x
  const wishes = { stdin: query.bool('stdin'), stdout: query.bool('stdout'), stderr: query.bool('stderr'), detachKeys: parseDetachKeys(query.text('detachKeys')) }
  const live = query.bool('stream')
  const stream = await x.engine.containers.attach(x.param('id'), {
    logs: query.bool('logs'), stream: live, stdin: live && wishes.stdin, stdout: wishes.stdout, stderr: wishes.stderr,
  })
  const hijacked = connection.take(connection.upgrade ? streamType(stream.tty, x.minor) : rawStream)
  await hijacked.pump(stream, { ...wishes, stdin: live && wishes.stdin })
}

async function execCreate(x: Exchange): Promise<void> {
  const body = await x.json(execBody)
  if (body.Cmd === null || body.Cmd.length === 0) throw badRequest('No exec command specified')
  parseDetachKeys(body.DetachKeys)
  const size = x.minor >= 42 && body.ConsoleSize ? body.ConsoleSize : undefined
  const id = await x.engine.execs.create(x.param('id'), {
    attachStdin: body.AttachStdin, attachStdout: body.AttachStdout, attachStderr: body.AttachStderr, tty: body.Tty, detachKeys: body.DetachKeys, env: body.Env,
    cmd: body.Cmd, privileged: body.Privileged, user: body.User, workingDir: body.WorkingDir, ...(size ? { consoleSize: size } : {}),
  })
  x.send(201, { Id: id })
}

async function execStart(x: Exchange, connection: Hijackable): Promise<void> {
  const body = await x.json(execStartBody)
  const id = x.param('id')
  const { request } = await x.engine.execs.checkStart(id)
  const size = x.minor >= 42 && request.tty && body.ConsoleSize ? { consoleSize: body.ConsoleSize } : {}
  if (body.Detach) {
    await x.engine.execs.start(id, { detach: true, ...size })
    return x.empty(200)
  }
  const detachKeys = parseDetachKeys(request.detachKeys)
  const hijacked = connection.take(connection.upgrade ? streamType(request.tty, x.minor) : rawStream)
  let stream
  try {
    stream = await x.engine.execs.start(id, { detach: false, ...size })
  } catch (error) {
    // Docker says it in the stream; the client then asks inspect for the exit code (126, 127).
    log.debug('exec failed', { id: x.requestId, error })
    return hijacked.fail(error, request.tty)
  }
  if (!stream) return hijacked.close()
  await hijacked.pump(stream, { stdin: request.attachStdin, stdout: request.attachStdout, stderr: request.attachStderr, detachKeys })
}

async function logs(x: Exchange): Promise<void> {
  const { query } = x
  const wanted = { stdout: query.bool('stdout'), stderr: query.bool('stderr') }
  if (!wanted.stdout && !wanted.stderr) throw badRequest("Bad parameters: you must choose at least one stream")
  const since = query.time('since')
  const until = query.time('until') || undefined // 0 is what clients send for none
  const tail = query.text('tail')
  const lines = /^\d{1,9}$/.test(tail) ? Number(tail) : undefined // 'all' and, as in Docker, anything else
  const { tty, output } = await x.engine.containers.logs(x.param('id'), {
    follow: query.bool('follow'), timestamps: query.bool('timestamps'), details: query.bool('details'), signal: x.signal, ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }), ...(lines === undefined ? {} : { tail: lines }),
  })
  x.begin(streamType(tty, x.minor))
  const filter = outputFilter(tty, wanted)
  await (filter ? pipeline(output, filter, x.response) : pipeline(output, x.response)).catch((error: unknown) => {
    if (!x.signal.aborted) log.warn('log stream ended early', { id: x.requestId, error })
    x.response.destroy()
  })
}

const conditions: readonly string[] = ['not-running', 'next-exit', 'removed'] satisfies WaitCondition[]

async function wait(x: Exchange): Promise<void> {
  const text = x.minor >= 30 ? x.query.text('condition') || 'not-running' : 'not-running'
  if (!conditions.includes(text)) throw badRequest(`invalid condition: ${JSON.stringify(text)}`)
  const { exit } = await x.engine.containers.wait(x.param('id'), text as WaitCondition, x.signal)
  // The client starts the container when it has these headers: the waiter is there by now, no exit can be missed.
  if (x.minor >= 30) x.begin('application/json')
  let result: { exitCode: number; error?: string }
  try {
    result = await exit
  } catch (error) {
    if (x.signal.aborted) return
    throw error
  }
  const body = { StatusCode: result.exitCode, ...(result.error === undefined ? {} : { Error: { Message: result.error } }) }
  if (x.minor < 30) return x.send(200, body)
  x.response.end(JSON.stringify(body) + '\n')
}

async function stats(x: Exchange): Promise<void> {
  const stream = x.query.bool('stream', true)
  const once = x.minor >= 41 && x.query.bool('one-shot')
  const samples = await x.engine.containers.stats(x.param('id'), { once: !stream && once, signal: x.signal })
  if (stream) x.begin('application/json')
  let before: StatsSample | undefined
  for await (const sample of samples) {
    if (stream) {
      if (!(await x.write(JSON.stringify(statsJson(sample, before)) + '\n'))) return
    } else if (once || before || !sample.stats) {
      return x.send(200, statsJson(sample, before))
    }
    before = sample
  }
  if (stream) x.response.end()
  else if (before && !x.signal.aborted) x.send(200, statsJson(before, undefined)) // it ended between the two samples
}
