import { afterAll, beforeAll, expect } from 'vitest'
import { TestDaemon } from '../../lib/daemon.js'
import { buildTestImage, testImage } from '../../lib/image.js'
import { remaining, type Snapshot, snapshot } from '../../lib/leaks.js'
import { defineFlags } from './life-flags.js'
import { defineHealth } from './life-health.js'
import { defineRestart } from './life-restart.js'
import { defineWatch } from './life-watch.js'
import { defineUpdate } from './life-update.js'

/** What the parts of this suite work with: one daemon, one isolation. */
export interface Bench {
  isolation: 'process' | 'vm'
  vm: boolean
  daemon: () => TestDaemon
  docker: (...args: string[]) => ReturnType<TestDaemon['docker']>
  ok: (...args: string[]) => Promise<string>
  /** `docker run -d` in this isolation; the ID. */
  start: (...args: string[]) => Promise<string>
  /** `docker run --rm` in this isolation. */
  run: (...args: string[]) => ReturnType<TestDaemon['docker']>
  /** Image and a shell script. */
  sh: (script: string) => string[]
  inspect: (name: string) => Promise<Inspected>
}

/** What of `docker inspect` is looked at. */
export interface Inspected {
  Id: string
  RestartCount: number
  State: {
    Status: string
    Running: boolean
    Restarting: boolean
    ExitCode: number
    OOMKilled: boolean
    Pid: number
    Error: string
    StartedAt: string
    Health?: { Status: string; FailingStreak: number; Log: { Start: string; End: string; ExitCode: number; Output: string }[] }
  }
  HostConfig: Record<string, unknown> & { Memory: number; MemorySwap: number; NanoCpus: number; RestartPolicy: { Name: string; MaximumRetryCount: number } }
}

/** Health, restarts, limits, events and flags, as a user of Docker sees them; once for each isolation. */
export function defineLife(isolation: 'process' | 'vm'): void {
  let daemon: TestDaemon
  let before: Snapshot
  const ok = (...args: string[]) => daemon.ok(...args)
  const bench: Bench = {
    isolation,
    vm: isolation === 'vm',
    daemon: () => daemon,
    docker: (...args) => daemon.docker(args),
    ok,
    start: (...args) => ok('run', '-d', `--isolation=${isolation}`, ...args),
    run: (...args) => daemon.docker(['run', '--rm', `--isolation=${isolation}`, ...args]),
    sh: (script) => [testImage, 'sh', '-c', script],
    inspect: async (name) => (JSON.parse(await ok('inspect', name)) as Inspected[])[0]!,
  }

  beforeAll(async () => {
    before = await snapshot()
    daemon = await TestDaemon.start()
    await buildTestImage(daemon)
  })

  afterAll(async () => {
    await daemon.destroy()
    expect(await remaining(before)).toEqual([])
  })

  defineHealth(bench)
  defineRestart(bench)
  defineUpdate(bench)
  defineFlags(bench)
  defineWatch(bench)
}
