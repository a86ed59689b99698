import { request } from 'node:http'
import { expect } from 'vitest'
import { cases, check, refused, sleep, type Context, until } from './harness.js'

check('system', 'ping says what it is', async (c) => {
  const answer = await raw(c, 'GET', '/_ping')
  expect(answer).toMatchObject({ status: 200, body: 'OK' })
  expect(answer.headers).toMatchObject({ 'api-version': expect.stringMatching(/^1\.\d+$/), ostype: 'linux', 'docker-experimental': 'false', server: expect.any(String), 'cache-control': expect.stringContaining('no-cache') })
  expect((await raw(c, 'HEAD', '/_ping')).headers['api-version']).toBe(answer.headers['api-version'])
})

check('system', 'version and info agree', async (c) => {
  const [version, info] = [await c.docker.version(), (await c.docker.info()) as Record<string, unknown>]
  expect(info).toMatchObject({ ServerVersion: version.Version, KernelVersion: version.KernelVersion, OSType: 'linux', Architecture: 'x86_64', Plugins: { Network: expect.arrayContaining(['bridge', 'host', 'null']), Volume: ['local'], Log: expect.arrayContaining(['json-file', 'local']) }, SecurityOptions: expect.arrayContaining([expect.stringContaining('name=seccomp')]) })
})

check('system', 'disk usage', async (c) => {
  const made = await c.create()
  const said = (await c.docker.df()) as { Containers: { Id: string }[]; Images: unknown[]; Volumes: unknown[]; BuildCache: unknown; LayersSize: number }
  expect(said.Containers.map((row) => row.Id)).toContain(made.id)
  expect(said.Images.length).toBeGreaterThan(0)
  expect(Array.isArray(said.Volumes)).toBe(true)
})

check('events', 'as they happen, with the cause', async (c) => {
  const stream = await c.docker.getEvents({ filters: { type: ['container'], label: ['watched=yes'] } } as object)
  const seen: { Action: string; Actor: { ID: string; Attributes: Record<string, string> } }[] = []
  stream.on('data', (chunk: Buffer) => {
    for (const line of chunk.toString().split('\n')) if (line !== '') seen.push(JSON.parse(line) as (typeof seen)[0])
  })
  const made = await c.create({ script: 'exit 5', Labels: { watched: 'yes' } })
  await c.create()
  await made.start()
  await made.wait()
  await made.remove()
  await until('all came', async () => seen.some((event) => event.Action === 'destroy'))
  expect(seen.map((event) => event.Action)).toEqual(['create', 'start', 'die', 'destroy'])
  expect(seen[2]!.Actor).toMatchObject({ ID: made.id, Attributes: { exitCode: '5', watched: 'yes' } })
  ;(stream as unknown as { destroy(): void }).destroy()
})

check('events', 'of the past, to an end', async (c) => {
  const since = Math.floor(Date.now() / 1000) - 1
  const made = await c.create()
  await sleep(1100)
  const stream = await c.docker.getEvents({ since, until: Math.floor(Date.now() / 1000), filters: { container: [made.id] } } as object)
  let text = ''
  for await (const chunk of stream) text += String(chunk)
  expect(text.trim().split('\n').map((line) => (JSON.parse(line) as { Action: string }).Action)).toEqual(['create'])
})

check('events', 'of a time that ends before it begins', async (c) => {
  await refused(400, /since.*until|cannot be after/, c.docker.getEvents({ since: 20, until: 10 } as object))
})

check('system', 'login to a registry that asks nothing', async (c) => {
  expect(await c.docker.checkAuth({ username: 'u', password: 'p', serveraddress: c.target.registry })).toMatchObject({ Status: 'Login Succeeded' })
})

/** One request, with nothing between it and the socket. */
function raw(c: Context, method: string, path: string, body?: string, headers: Record<string, string> = {}): Promise<{ status: number; body: string; headers: Record<string, unknown> }> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath: c.target.socket, method, path, headers: { ...headers, ...(body === undefined ? {} : { 'content-type': headers['content-type'] ?? 'application/json', 'content-length': Buffer.byteLength(body) }) } }, (answer) => {
      let text = ''
      answer.on('data', (chunk: Buffer) => (text += chunk.toString()))
      answer.on('end', () => resolve({ status: answer.statusCode!, body: text, headers: answer.headers }))
    })
    call.on('error', reject)
    call.end(body)
  })
}

cases<[string, string, string | undefined, number, RegExp]>('system', 'answers as Docker does', [
  ['unknown path', 'GET', '/nosuch', undefined, 404, /"page not found"/],
  ['unknown path of a version', 'GET', '/v1.41/nosuch', undefined, 404, /"page not found"/],
  ['version too new', 'GET', '/v1.99/info', undefined, 400, /client version 1\.99 is too new\. Maximum supported API version is 1\./],
  ['swarm', 'GET', '/swarm', undefined, 503, /This node is not a swarm manager/],
  ['nodes', 'GET', '/nodes', undefined, 503, /This node is not a swarm manager/],
  ['services', 'GET', '/services', undefined, 503, /This node is not a swarm manager/],
  ['secrets', 'GET', '/secrets', undefined, 503, /This node is not a swarm manager/],
  ['configs', 'GET', '/configs', undefined, 503, /This node is not a swarm manager/],
  ['tasks', 'GET', '/tasks', undefined, 503, /This node is not a swarm manager/],
  ['plugins', 'GET', '/plugins', undefined, 200, /^\[\]/],
  ['broken filters', 'GET', '/containers/json?filters=%7Bbroken', undefined, 400, /invalid|filter/i],
  ['filters of the old form', 'GET', '/containers/json?filters=%7B%22label%22%3A%7B%22nosuchlabel%22%3Atrue%7D%7D', undefined, 200, /^\[\]/],
  ['events with a filter that is not known', 'GET', '/events?since=1&until=2&filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D', undefined, 200, /^$/],
  ['broken body', 'POST', '/containers/create', '{"Image":', 400, /message/],
  ['no body', 'POST', '/containers/create', '', 400, /message/],
  ['unknown fields are let by', 'POST', '/volumes/create', '{"Name":"conformance-unknown","Nosuch":1}', 201, /conformance-unknown/],
  ['field names in any case', 'POST', '/volumes/create', '{"name":"conformance-unknown"}', 201, /conformance-unknown/],
  ['remove that volume', 'DELETE', '/volumes/conformance-unknown', undefined, 204, /^$/],
  ['prune of the build cache', 'POST', '/build/prune', undefined, 200, /SpaceReclaimed/],
], async (c, method, path, body, status, words) => {
  const answer = await raw(c, method, path, body)
  expect(`${answer.status} ${answer.body}`).toMatch(new RegExp(`^${status} `))
  expect(answer.body).toMatch(words)
})
