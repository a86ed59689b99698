import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Runtime } from '../../../src/oci/runtime.js'
import { Supervised, type SupervisedOptions } from '../../../src/oci/supervised.js'
import type { Fixture } from './fixture.js'

/** Commands under hull-monitor and crun, without an engine. */
export class Workloads {
  readonly #live = new Map<Supervised, SupervisedOptions>()

  constructor(private readonly fixture: Fixture) {}

  /** A bundle, and what {@link Supervised.create} needs. */
  async prepare(args: string[], extra: Partial<SupervisedOptions> = {}): Promise<SupervisedOptions> {
    const { fixture } = this
    const id = fixture.id()
    const runDir = join(fixture.directory, 'bundles', id)
    mkdirSync(runDir, { recursive: true })
    const cgroupPath = `${fixture.cgroupParent}/${id}`
    writeFileSync(join(runDir, 'config.json'), JSON.stringify({
      ociVersion: '1.0.2',
      process: { terminal: extra.tty ?? false, user: { uid: 0, gid: 0 }, args, env: ['PATH=/bin', 'TERM=xterm'], cwd: '/' },
      root: { path: fixture.layer, readonly: true },
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' }, { destination: '/dev', type: 'tmpfs', source: 'tmpfs' }, { destination: '/tmp', type: 'tmpfs', source: 'tmpfs' },
        { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['newinstance', 'ptmxmode=0666'] },
      ],
      linux: { cgroupsPath: cgroupPath, namespaces: ['pid', 'mount', 'ipc', 'uts', 'network'].map((type) => ({ type })) },
    }))
    return {
      id, runDir, exitDir: fixture.exitDir, runtime: await Runtime.open('crun', fixture.runtimeRoot), logPath: join(fixture.directory, `${id}.log`),
      tty: false, stdin: false, leaveStdinOpen: false, attempt: { command: args[0]!, cwd: '/' }, cgroupPath, ...extra,
    }
  }

  async create(args: string[], extra: Partial<SupervisedOptions> = {}): Promise<Supervised> {
    const options = await this.prepare(args, extra)
    const supervised = await Supervised.create(options)
    this.#live.set(supervised, options)
    return supervised
  }

  /** Ends with the others. */
  own(supervised: Supervised, options: SupervisedOptions): void {
    this.#live.set(supervised, options)
  }

  logOf(supervised: Supervised): string {
    return this.#live.get(supervised)!.logPath
  }

  runDirOf(supervised: Supervised): string {
    return this.#live.get(supervised)!.runDir
  }

  async end(): Promise<void> {
    for (const supervised of this.#live.keys()) await supervised.destroy()
    this.#live.clear()
  }
}
