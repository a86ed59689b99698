import { mkdtemp, rm } from 'node:fs/promises'
import { release, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exec, TestDaemon, until } from '../lib/daemon.js'
import { serverImages } from './lib/images.js'

// Testcontainers for Node, real, with a reaper of our own image that speaks ryuk's protocol: ryuk's own comes from a registry that tests cannot reach.
const session = resolve(import.meta.dirname, 'testcontainers/session.ts')

describe.each(['process', 'vm'] as const)('Testcontainers on a daemon whose default is %s', (isolation) => {
  let daemon: TestDaemon
  let home: string

  beforeAll(async () => {
    home = await mkdtemp(join(tmpdir(), 'testcontainers-'))
    const archive = await serverImages()
    daemon = await TestDaemon.start(['--default-isolation', isolation])
    await daemon.ok('load', '-q', '-i', archive)
  }, 600_000)
  afterAll(async () => {
    await daemon?.destroy()
    await rm(home, { recursive: true, force: true })
  })

  it('PostgreSQL and Redis start and answer, and the reaper takes away what the session left', async () => {
    const said = await exec(process.execPath, ['--import', 'tsx', session], {
      timeoutMs: 560_000,
      env: { DOCKER_HOST: daemon.host, RYUK_CONTAINER_IMAGE: 'test/reaper:1', TESTCONTAINERS_RYUK_RECONNECTION_TIMEOUT: '1s', HOME: home, DEBUG: '' },
    })
    expect(said.code, `${said.stderr}${said.stdout}`).toBe(0)
    const answer = JSON.parse(said.stdout.trim().split('\n').at(-1)!) as { rows: string[]; redis: string; reached: string; kernel: string; ids: string[]; network: string }
    expect(answer).toMatchObject({ rows: ['from a query', 'from init'], redis: '$5\r\nhello\r\n', reached: 'database:5432 - accepting connections' })
    if (isolation === 'vm') expect(answer.kernel).not.toBe(release())
    else expect(answer.kernel).toBe(release())
    await until('the reaper removed everything, itself included', async () => (await daemon.ok('ps', '-aq')) === '', 60_000)
    expect(await daemon.ok('network', 'ls', '-q', '--no-trunc', '--filter', 'type=custom')).toBe('')
    expect(await daemon.ok('volume', 'ls', '-q')).toBe('')
  }, 600_000)
})
