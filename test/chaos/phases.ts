import { join } from 'node:path'
import { type Said, type TestDaemon, until } from '../lib/daemon.js'
import { testImage } from '../lib/image.js'
import type { Victim } from './victims.js'

/** The container that a kill is about. */
export const name = 'victim'

/** What is going on when somebody is killed. */
export interface Phase {
  name: 'create' | 'start' | 'running' | 'exec' | 'cp' | 'cp, not running' | 'stop' | 'rm'
  /** Milliseconds that it takes, roughly: the moment of a kill is drawn from them. */
  takes: { process: number; vm: number }
  /** Only the daemon can be killed: nothing else of the container's is there. */
  daemonOnly?: readonly string[]
  prepare: (daemon: TestDaemon, victim: Victim) => Promise<void>
  act: (daemon: TestDaemon, victim: Victim) => Promise<Said>
}

/** Ends with 3 when it is told to, a moment later. */
const workload = 'trap "sleep 0.1; exit 3" TERM; while :; do echo line; sleep 0.05; done'
const createArgs = ({ isolation, volume }: Victim) => ['create', '--name', name, `--isolation=${isolation}`, ...(volume ? ['-v', '/data'] : []), testImage, 'sh', '-c', workload]
const created = async (daemon: TestDaemon, victim: Victim) => void (await daemon.ok(...createArgs(victim)))
const running = async (daemon: TestDaemon, victim: Victim) => {
  await created(daemon, victim)
  await daemon.ok('start', name)
  await until('the workload has set its trap', async () => (await daemon.ok('logs', '--tail', '1', name)) !== '')
}
/** 8 MiB, made by the caller. */
export const payload = (daemon: TestDaemon): string => join(daemon.directory, 'payload')
const copy = (daemon: TestDaemon) => daemon.docker(['cp', '-q', payload(daemon), `${name}:/root/copied`])

export const phases: readonly Phase[] = [
  { name: 'create', takes: { process: 60, vm: 60 }, daemonOnly: ['process', 'vm'], prepare: async () => {}, act: (daemon, victim) => daemon.docker(createArgs(victim)) },
  { name: 'start', takes: { process: 120, vm: 1200 }, prepare: created, act: (daemon) => daemon.docker(['start', name]) },
  { name: 'running', takes: { process: 200, vm: 500 }, prepare: running, act: (daemon) => daemon.docker(['wait', name]) },
  { name: 'exec', takes: { process: 350, vm: 400 }, prepare: running, act: (daemon) => daemon.docker(['exec', name, 'sh', '-c', 'echo begun; sleep 0.2; echo done; exit 5']) },
  { name: 'cp', takes: { process: 130, vm: 350 }, prepare: running, act: copy },
  { name: 'cp, not running', takes: { process: 150, vm: 2000 }, daemonOnly: ['process'], prepare: created, act: copy },
  { name: 'stop', takes: { process: 180, vm: 300 }, prepare: running, act: (daemon) => daemon.docker(['stop', '-t', '20', name]) },
  { name: 'rm', takes: { process: 60, vm: 180 }, prepare: running, act: (daemon) => daemon.docker(['rm', '-f', '-v', name]) },
]
