import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { exec, type Said, until } from '../../lib/daemon.js'

/**
 * Debian's dockerd with directories of its own, to prove the checks right. It makes a bridge and iptables rules in the network namespace that it is in: `make
 * conformance-dockerd` gives it, and the checks, one of their own.
 */
export class Dockerd {
  private constructor(
    readonly directory: string,
    private readonly child: ChildProcess,
  ) {}

  get socket(): string {
    return join(this.directory, 's')
  }

  static async start(): Promise<Dockerd> {
    const directory = await mkdtemp(join(tmpdir(), 'cd-'))
    const log = openSync(join(directory, 'log'), 'a')
    // No configuration of the machine's own.
    await writeFile(join(directory, 'daemon.json'), '{}')
    const places = ['--data-root', 'd', '--exec-root', 'e', '--pidfile', 'pid', '--config-file', 'daemon.json'].map((word) => (word.startsWith('--') ? word : join(directory, word)))
    const child = spawn('dockerd', ['-H', `unix://${join(directory, 's')}`, ...places], { stdio: ['ignore', log, log] })
    closeSync(log)
    const daemon = new Dockerd(directory, child)
    await until('dockerd answers', async () => {
      if (child.exitCode !== null) throw new Error(`dockerd ended: ${(await readFile(join(directory, 'log'), 'utf8')).slice(-2000)}`)
      return (await daemon.docker(['version'])).code === 0
    })
    return daemon
  }

  docker(args: string[]): Promise<Said> {
    return exec('docker', args, { env: { DOCKER_HOST: `unix://${this.socket}` }, timeoutMs: 120_000 })
  }

  /** Like {@link docker}; an exit code other than 0 throws. */
  async ok(...args: string[]): Promise<string> {
    const said = await this.docker(args)
    if (said.code !== 0) throw new Error(`docker ${args.join(' ')}: ${said.stderr}`)
    return said.stdout.trimEnd()
  }

  /** Ends it and deletes what it keeps. Its containers end with the checks. */
  async destroy(): Promise<void> {
    const gone = new Promise((done) => this.child.once('exit', done))
    this.child.kill('SIGTERM')
    await gone
    for (const mount of (await readFile('/proc/self/mounts', 'utf8')).split('\n').map((line) => line.split(' ')[1] ?? '').filter((path) => path.startsWith(`${this.directory}/`)).toReversed()) {
      await exec('umount', ['-l', mount])
    }
    await rm(this.directory, { recursive: true, force: true })
  }
}
