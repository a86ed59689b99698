import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { exec } from '../lib/daemon.js'
import { busyboxRoot, dockerArchive, testImage } from '../lib/image.js'
import { startRegistry, type TestRegistry } from '../lib/registry.js'
import { differences, type On } from './differences.js'
import { checks, Context, type Target } from './dockerode/index.js'
import { pythonChecks, PythonRun } from './lib/docker-py.js'

/** What the suite needs of a daemon. */
interface Daemon {
  socket: string
  ok(...args: string[]): Promise<string>
  destroy(): Promise<void>
}

const remote = 'remote/busybox'
/** `CONFORMANCE=pattern` runs a part: what is told of a check that failed is enough to run it alone. */
const wanted = new RegExp(process.env.CONFORMANCE ?? '')

/**
 * The public behaviour of dockerode and docker-py against one daemon, black-box. Each check is a test; where {@link differences} says that it turns out otherwise here, it
 * has to: a difference that is gone fails as a new one does. `sideBySide`: docker-py gets a daemon of its own and runs at the same time. `share` N: only every Nth
 * check, where all of them take too long.
 */
export async function defineConformance(on: On, start: () => Promise<Daemon>, options: { sideBySide: boolean; share?: number }): Promise<void> {
  // Of system/ all: they take no time, and some go on from the one before.
  const chosen = (name: string, index: number) => index % (options.share ?? 1) === 0 || /^\S+ system\//.test(name)
  const python = (await pythonChecks()).map((name) => `docker-py ${name}`).filter((name) => wanted.test(name)).filter(chosen)
  const node = checks.map((check) => ({ ...check, name: `dockerode ${check.name}` })).filter(({ name }) => wanted.test(name)).filter(({ name }, index) => chosen(name, index))
  const names = new Set([...(await pythonChecks()).map((name) => `docker-py ${name}`), ...checks.map(({ name }) => `dockerode ${name}`)])
  const daemons: Daemon[] = []
  let registry: TestRegistry | undefined
  let target: Target
  let run: PythonRun | undefined
  const pattern = `^(?:${python.map((name) => name.replace(/^docker-py /, '').replace(/[^A-Za-z0-9_/ ]/g, '\\$&')).join('|')})$`

  beforeAll(async () => {
    registry = await startRegistry()
    daemons.push(await start())
    if (options.sideBySide && python.length > 0 && node.length > 0) daemons.push(await start())
    const scratch = await mkdtemp(join(tmpdir(), 'conformance-'))
    try {
      const root = join(scratch, 'root')
      await mkdir(root)
      await busyboxRoot(root)
      await dockerArchive(root, testImage, join(scratch, 'image.tar'))
      for (const daemon of daemons) await daemon.ok('load', '-q', '-i', join(scratch, 'image.tar'))
      const pushed = await exec('skopeo', ['copy', '-q', '--dest-tls-verify=false', `docker-archive:${join(scratch, 'image.tar')}`, `docker://${registry.host}/${remote}:1`])
      if (pushed.code !== 0) throw new Error(pushed.stderr)
    } finally {
      await rm(scratch, { recursive: true, force: true })
    }
    target = { socket: daemons[0]!.socket, registry: registry.host, remote }
    if (daemons.length > 1) run = new PythonRun({ ...target, socket: daemons[1]!.socket }, pattern)
  })

  afterAll(async () => {
    run?.end()
    for (const daemon of daemons) {
      await Context.endShared(daemon.socket)
      const left = await daemon.ok('ps', '-aq', '--filter', 'label=shared=yes')
      for (const id of left.split('\n').filter((line) => line !== '')) await daemon.ok('rm', '-fv', id).catch(() => undefined)
    }
    for (const daemon of daemons) await daemon.destroy()
    await registry?.stop()
  })

  it("names each of Hull's differences in docs/docker-api.md", () => {
    const docs = readFileSync(resolve(import.meta.dirname, '../../docs/docker-api.md'), 'utf8')
    expect(differences.filter((difference) => !difference.on.includes('dockerd') && !docs.includes(difference.reason)).map(({ reason }) => reason)).toEqual([])
  })

  it('has a reason for each difference, of a check that there is', () => {
    expect(differences.filter(({ check, reason }) => !names.has(check) || reason.length < 20).map(({ check }) => check)).toEqual([])
  })

  /** Runs a check, turned round where a difference is expected. */
  const judged = async (name: string, check: () => Promise<void>): Promise<void> => {
    const expected = differences.find((difference) => difference.check === name && difference.on.includes(on))
    if (!expected) return check()
    const failed = await check().then(() => false, () => true)
    if (!failed && !expected.maybe) throw new Error(`this no longer differs on ${on}: take its line out of differences.ts ("${expected.reason}")`)
  }

  for (const { name, run: check } of node) {
    it(name, () =>
      judged(name, async () => {
        const context = new Context(target)
        try {
          await check(context)
        } finally {
          await context.end()
        }
      }))
  }

  // One process runs them all, one after the other; each test waits for its own. It may have to wait long when the others were quicker.
  for (const name of python) {
    it(name, { timeout: 600_000 }, () =>
      judged(name, () => {
        run ??= new PythonRun(target, pattern)
        return run.result(name.replace(/^docker-py /, ''))
      }))
  }
}
