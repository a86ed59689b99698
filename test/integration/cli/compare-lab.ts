import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { exec, TestDaemon, type Said } from '../../lib/daemon.js'
import { buildTestImage } from '../../lib/image.js'

export const program = resolve(import.meta.dirname, '../../../bin/hull')

/** A daemon with the test image, and a place where `hull compare` keeps its last comparison. */
export class CompareLab {
  private constructor(
    readonly daemon: TestDaemon,
    readonly state: string,
  ) {}

  /** `flags`: more for the daemon. */
  static async open(flags: string[] = []): Promise<CompareLab> {
    const lab = new CompareLab(await TestDaemon.start(flags), await mkdtemp(join(tmpdir(), 'hull-state-')))
    await buildTestImage(lab.daemon)
    return lab
  }

  async close(): Promise<void> {
    await this.daemon.destroy()
    await rm(this.state, { recursive: true, force: true })
  }

  /** For a child that is to run, and to be ended, beside the test. */
  get env(): NodeJS.ProcessEnv {
    return { ...process.env, XDG_STATE_HOME: this.state }
  }

  arguments(...args: string[]): string[] {
    return ['-H', this.daemon.host, 'compare', ...args]
  }

  compare(...args: string[]): Promise<Said> {
    return exec(program, this.arguments(...args), { env: { XDG_STATE_HOME: this.state }, timeoutMs: 280_000 })
  }

  /** An image of these directories (none: of nothing), made by `docker import`. */
  async importImage(name: string, prepare: string): Promise<string> {
    const place = await mkdtemp(join(this.state, 'image-'))
    const made = await exec('sh', ['-ec', `mkdir "$1/root"; cd "$1/root"; ${prepare}; tar -cf "$1/image.tar" .`, 'sh', place])
    if (made.code !== 0) throw new Error(made.stderr)
    await this.daemon.ok('import', join(place, 'image.tar'), name)
    return name
  }
}
