import { afterAll, beforeAll, expect, it } from 'vitest'
import { Harness } from './harness.js'

/** Reproducible: the seed is in the failure's name. */
function generator(seed: number): (n: number) => number {
  let state = seed
  return (n) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % n
  }
}

let h: Harness
const rejections: unknown[] = []
const onRejection = (reason: unknown) => rejections.push(reason)
beforeAll(async () => {
  process.on('unhandledRejection', onRejection)
  process.on('uncaughtException', onRejection)
  h = await Harness.start()
  await h.running({}, '?name=web')
})
afterAll(async () => {
  await h.stop()
  process.off('unhandledRejection', onRejection)
  process.off('uncaughtException', onRejection)
})

const methods = ['GET', 'POST', 'DELETE', 'HEAD', 'PUT', 'OPTIONS', 'PATCH']
const endpoints = [
  'GET /_ping', 'HEAD /_ping', 'GET /info', 'GET /version', 'GET /events?until=1', 'GET /system/df', 'POST /auth', 'GET /containers/json', 'POST /containers/create', 'POST /containers/create',
  'POST /containers/create', 'POST /containers/prune', 'GET /containers/web/json', 'GET /containers/web/top', 'GET /containers/web/logs', 'POST /containers/web/start', 'POST /containers/web/stop',
  'POST /containers/web/restart', 'POST /containers/web/kill', 'POST /containers/nosuch/wait', 'POST /containers/web/resize', 'POST /containers/nosuch/attach', 'POST /containers/web/rename',
  'POST /containers/web/update', 'POST /containers/web/exec', 'POST /exec/x/start', 'POST /exec/x/resize', 'GET /exec/x/json', 'HEAD /containers/web/archive', 'PUT /containers/web/archive',
  'GET /containers/web/archive', 'GET /containers/web/changes', 'DELETE /containers/web', 'GET /containers/web/stats?stream=0', 'GET /containers/web/hull/explain', 'POST /commit', 'GET /images/json',
  'POST /images/create', 'POST /images/load', 'GET /images/a/b/json', 'GET /images/a/history', 'POST /images/a/tag', 'POST /images/a/push', 'DELETE /images/a', 'GET /images/get', 'GET /images/search',
  'POST /images/prune', 'GET /networks', 'GET /networks/bridge', 'POST /networks/create', 'POST /networks/bridge/connect', 'POST /networks/bridge/disconnect', 'GET /volumes', 'GET /volumes/x',
  'POST /volumes/create', 'GET /swarm', 'GET /plugins', 'POST /build', 'POST /session', 'GET /distribution/a/json',
].map((endpoint) => endpoint.split(' ') as [method: string, path: string])
const keys = [
  'all', 'limit', 'size', 'filters', 'name', 'platform', 't', 'signal', 'h', 'w', 'stdout', 'stderr', 'tail', 'since', 'until', 'timestamps', 'condition', 'fromImage', 'fromSrc', 'repo', 'tag', 'names',
  'stream', 'one-shot', 'path', 'force', 'v', 'detachKeys', 'term', 'type', 'ps_args', 'changes', 'quiet', 'stdin', 'logs',
]
const values = [
  '', '0', '1', '-1', 'true', '99999999999999999999', '1e9', 'NaN', '%00', '%0a', '%ff', '../../etc/passwd', '{}', '{"label":["a"]}', '{"label":{"a":1}}', '[[[', '{"__proto__":["x"]}', 'null', 'ctrl-p,ctrl-q',
  'SIGKILL', 'a/b/c', 'sha256:', '%F0%9F%98%80', '<script>', "'; drop", '1700000000.999999999999999', '-', 'removed', 'linux/amd64', 'x'.repeat(500),
]
const fields = [
  'Image', 'Cmd', 'Env', 'HostConfig', 'Memory', 'PortBindings', 'Binds', 'Mounts', 'Tmpfs', 'RestartPolicy', 'NetworkingConfig', 'EndpointsConfig', 'Labels', 'Entrypoint', 'Healthcheck', 'ExposedPorts', 'Ulimits',
  'ConsoleSize', 'Isolation', 'LogConfig', 'Devices', '__proto__', 'constructor', 'Detach', 'Tty', 'Name', 'IPAM', 'Container', 'username', 'StopSignal', 'PidsLimit', 'Volumes', 'toString',
]

function randomJson(random: (n: number) => number, depth: number): unknown {
  switch (random(depth > 3 ? 7 : 10)) {
    case 0: return null
    case 1: return random(2) === 0
    case 2: return [0, -1, 1.5, 1e308, 2 ** 53, -(2 ** 63), 80][random(7)]
    case 3: case 4: return [...values, 'busybox', '80/tcp', '/a:/b:ro', 'KEY=value', 'always', '8080', 'vm'][random(values.length + 7)]
    case 5: return []
    case 6: return {}
    case 7: return Array.from({ length: random(4) }, () => randomJson(random, depth + 1))
    default: {
      const object: Record<string, unknown> = {}
      for (let n = random(8); n > 0; n--) {
        const key = random(5) === 0 ? values[random(values.length)]! : fields[random(fields.length)]!
        Object.defineProperty(object, key, { value: randomJson(random, depth + 1), enumerable: true, configurable: true, writable: true })
      }
      return object
    }
  }
}

/** Where the double answers as an engine would whose state is its own affair, 501 and 503 are answers too. */
const expected = (status: number) => (status >= 200 && status < 500) || status === 501 || status === 503

it('5000 requests of every kind: no 500, no crash, every answer whole', async () => {
  const seed = Number(process.env.HULL_FUZZ_SEED ?? 20261123)
  const random = generator(seed)
  const seen = new Map<number, number>()
  const one = async (index: number): Promise<void> => {
    const version = ['', '', '/v1.47', '/v1.24', '/v1.40', '/v9.9', '/v1.x'][random(7)]!
    const [usual, plain] = endpoints[random(endpoints.length)]!
    let path = plain
    if (random(6) === 0) path = path.replace(/web|a\/b|bridge/, () => values[random(values.length)]!.replace(/[ <>'"{}[\]]/g, '') || 'x')
    let query = ''
    for (let n = random(4); n > 0; n--) query += `&${keys[random(keys.length)]!}=${values[random(values.length)]!.replace(/[^\x21-\x7e]/g, '')}`
    const method = random(8) === 0 ? methods[random(methods.length)]! : usual
    // A waiter on a workload that nobody ends would be right to wait.
    if (/follow|\/events|\/wait/.test(path)) query = path.includes('events') ? '&until=1' : query
    let body: unknown
    const headers: Record<string, string> = {}
    if (method !== 'GET' && method !== 'HEAD') {
      if (random(6) === 0) body = { Image: 'busybox', Cmd: ['x'] }
      else body = random(3) === 0 ? JSON.stringify(randomJson(random, 0)).slice(0, random(200)) : Object.assign(Object(randomJson(random, 0)) as object, random(2) === 0 ? { Image: 'busybox' } : {})
      if (typeof body === 'string') headers['Content-Type'] = ['application/json', 'text/plain', 'application/x-tar'][random(3)]!
    }
    if (random(10) === 0) headers['X-Registry-Auth'] = values[random(values.length)]!.replace(/[^\x21-\x7e]/g, '')
    const url = `${version}${path}${path.includes('?') ? '' : '?'}${query}`
    const answer = await h.call(method, url, body, headers)
    seen.set(answer.status, (seen.get(answer.status) ?? 0) + 1)
    if (!expected(answer.status)) throw new Error(`seed ${seed}, request ${index}: ${method} ${url} ${JSON.stringify(body)}: ${answer.status} ${answer.text}`)
    if (answer.status >= 400 && method !== 'HEAD' && String(answer.headers['content-type']).startsWith('application/json')) expect(answer.json()).toHaveProperty('message')
  }
  for (let done = 0; done < 5000; done += 20) {
    if (!(await h.call('GET', '/containers/web/json')).text.includes('"Running":true')) await h.running({}, '?name=web') // a DELETE, kill or rename got it
    await Promise.all(Array.from({ length: 20 }, (_, n) => one(done + n)))
  }
  // A fuzzer that only ever gets 404 tests nothing.
  for (const status of [200, 201, 204, 400, 404, 501]) expect(seen.get(status) ?? 0, `answers with ${status} among ${JSON.stringify([...seen])}`).toBeGreaterThan(10)
  expect((await h.call('GET', '/_ping')).status).toBe(200)
  expect(rejections).toEqual([])
  expect(({} as Record<string, unknown>).Image).toBeUndefined()
}, 60_000)

it('1000 connections of raw, mutated and cut bytes: the server lives', async () => {
  const random = generator(7)
  const heads = [
    'POST /containers/web/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nstdin',
    'POST /containers/web/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nstdin',
    'POST /exec/x/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}',
    'POST /exec/x/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n2\r\n{}\r\n0\r\n\r\n',
    'POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{"Image":"busybox"}GET /info HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /containers/web/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n',
    'POST /containers/web/wait HTTP/1.1\r\nHost: x\r\n\r\n',
  ]
  const one = async (): Promise<void> => {
    const bytes = Buffer.from(heads[random(heads.length)]!)
    for (let n = random(4); n > 0; n--) bytes[random(bytes.length)] = random(256)
    const client = await h.raw()
    const cut = random(bytes.length)
    client.send(bytes.subarray(0, cut))
    if (random(2) === 0) await new Promise((resolve) => setImmediate(resolve))
    if (random(4) > 0 && !client.socket.destroyed) client.send(bytes.subarray(cut))
    if (random(2) === 0) client.socket.end()
    await new Promise((resolve) => setTimeout(resolve, random(3)))
    client.socket.destroy()
  }
  for (let done = 0; done < 1000; done += 20) await Promise.all(Array.from({ length: 20 }, one))
  expect((await h.call('GET', '/_ping')).status).toBe(200)
  // Silent half-closed clients are found by the probe; nothing else may be left.
  await new Promise((resolve) => setTimeout(resolve, 6000))
  const open = await new Promise<number>((resolve, reject) => h.server.getConnections((error, count) => (error ? reject(error) : resolve(count))))
  expect(open).toBeLessThanOrEqual(1)
  expect(rejections).toEqual([])
}, 60_000)
