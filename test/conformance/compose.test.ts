import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exec, type Said, TestDaemon, until } from '../lib/daemon.js'
import { freePort } from '../lib/registry.js'
import { serverImages } from './lib/images.js'

// Debian's docker-compose (1.29, Python) with the application of compose/docker-compose.yml: nginx → Node → Python → PostgreSQL and Redis.
const file = resolve(import.meta.dirname, 'compose/docker-compose.yml')

interface Visit {
  rows: number
  hits: number
  kernel: string
}

let daemon: TestDaemon
let port: number

beforeAll(async () => {
  const archive = await serverImages()
  daemon = await TestDaemon.start()
  await daemon.ok('load', '-q', '-i', archive)
  port = await freePort()
}, 600_000)

afterAll(() => daemon?.destroy())

describe.each([
  { walls: 'every service a container', db: 'process', rest: 'process' },
  { walls: 'PostgreSQL in a VM, the rest in containers', db: 'vm', rest: 'process' },
  { walls: 'every service a VM', db: 'vm', rest: 'vm' },
])('Compose: $walls', ({ db, rest }) => {
  const project = `p${db[0]}${rest[0]}`
  let scratch: string

  const compose = (...args: string[]): Promise<Said> =>
    exec('docker-compose', ['-f', file, '-p', project, '--ansi', 'never', ...args], {
      timeoutMs: 560_000,
      env: { DOCKER_HOST: daemon.host, ISOLATION_DB: db, ISOLATION_REST: rest, WEB_PORT: String(port), COMPOSE_HTTP_TIMEOUT: '250', HOME: scratch },
    })
  const ok = async (...args: string[]): Promise<string> => {
    const said = await compose(...args)
    if (said.code !== 0) throw new Error(`docker-compose ${args.join(' ')}: exit code ${said.code}\n${said.stderr}\n${said.stdout}\n${(await compose('logs', '--tail=20')).stdout}`)
    return said.stdout
  }
  /** nginx accepts before it is asked to wait for anything; the way behind it is ready when depends_on says so. */
  const visit = () =>
    until('the application answers', async () => {
      const answer = await fetch(`http://127.0.0.1:${port}/`, { signal: AbortSignal.timeout(20_000) }).catch(() => undefined)
      return answer?.status === 200 && ((await answer.json()) as Visit)
    }, 60_000)

  beforeAll(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'compose-'))
  })
  afterAll(async () => {
    await compose('down', '-v', '-t', '1')
    await rm(scratch, { recursive: true, force: true })
  })

  it('comes up in the order of its health checks, and each service reaches the others by name', async () => {
    await ok('up', '-d')
    const first = await visit()
    expect(first).toMatchObject({ rows: 1, hits: 1 })
    const rows = await daemon.ok('ps', '--format', '{{.Label "com.docker.compose.service"}} {{.Status}}')
    for (const service of ['db', 'cache', 'app', 'front']) expect(rows).toMatch(new RegExp(`^${service} Up .*\\(healthy\\)`, 'm'))
    for (const service of ['db', 'cache', 'app', 'front', 'web']) {
      const id = await daemon.ok('ps', '-q', '--filter', `label=com.docker.compose.service=${service}`)
      const inspected = JSON.parse(await daemon.ok('inspect', id)) as { HostConfig: { Isolation: string } }[]
      expect(inspected[0]!.HostConfig.Isolation).toBe(service === 'db' ? db : rest)
    }
  }, 600_000)

  it('ps, exec, logs and port work', async () => {
    expect(await ok('ps')).toMatch(new RegExp(`${project}.web.1 .* Up .*127\\.0\\.0\\.1:${port}->80/tcp`))
    expect(await ok('exec', '-T', 'db', 'psql', '-U', 'shop', '-Atc', 'SELECT count(*) FROM visits')).toBe('1\n')
    expect(await ok('exec', '-T', 'cache', 'redis-cli', 'get', 'hits')).toBe('1\n')
    expect((await compose('exec', '-T', 'app', 'sh', '-c', 'exit 5')).code).toBe(5)
    expect(await ok('logs', '--no-color', 'app')).toContain('app listens on 8000')
    expect(await ok('port', 'web', '80')).toBe(`127.0.0.1:${port}\n`)
    expect(await ok('exec', '-T', 'web', 'getent', 'hosts', 'db')).toMatch(/^\d+\.\d+\.\d+\.\d+ +db$/m)
  }, 120_000)

  it('keeps its data over down and up', async () => {
    await ok('down', '-t', '20')
    expect(await daemon.ok('ps', '-aq')).toBe('')
    expect(await daemon.ok('volume', 'ls', '-q')).toContain(`${project}_data`)
    await ok('up', '-d')
    const again = await visit()
    expect(again.rows).toBe(2)
    expect(again.hits).toBe(1)
  }, 600_000)

  it('down -v leaves nothing', async () => {
    await ok('down', '-v', '-t', '20')
    expect(await daemon.ok('ps', '-aq')).toBe('')
    expect(await daemon.ok('volume', 'ls', '-q')).toBe('')
    expect(await daemon.ok('network', 'ls', '-q', '--filter', 'type=custom')).toBe('')
  }, 120_000)
})
