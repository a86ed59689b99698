import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { get } from 'node:http'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { exec, sleep, until } from '../test/lib/daemon.js'

/** An engine under measurement: the same words for all. */
export interface Engine {
  name: string
  version: string
  /** argv before the command's words. */
  cli: string[]
  env: NodeJS.ProcessEnv
  /** More words after `run` and `create`. */
  runFlags: string[]
  /** Names of the engine's own programs per container (its supervisor), to sum up their memory. */
  helpers: RegExp
  /** Extra flags of `pull` for a plain HTTP registry on loopback. */
  pullFlags: string[]
}

const repository = resolve(import.meta.dirname, '..')

async function onPath(name: string): Promise<string | undefined> {
  const said = await exec('sh', ['-c', `command -v ${name}`])
  return said.code === 0 ? said.stdout.trim() : undefined
}

function metricsOf(engine: Engine): Promise<string> {
  const socketPath = engine.env['DOCKER_HOST']!.replace('unix://', '')
  return new Promise<string>((resolve, reject) => {
    const call = get({ socketPath, path: '/metrics' }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => resolve(Buffer.concat(chunks).toString())).on('error', reject)
    })
    call.on('error', reject)
  })
}

/** A directory with an own dockerd and hulld, and podman with an own root; {@link stop} takes it all away. */
export class Bench {
  readonly engines: Engine[] = []
  /** Hull whose VMs are made ahead, a daemon of its own: for the part that knows how to wait for them. */
  pooled: Engine | undefined
  #children: ChildProcess[] = []
  #registry = ''
  /** 'hull' where the isolation does not matter. */
  readonly #renamed = new Map<Engine, Engine>()

  /** `volatile`: for what the engines keep in /run where they are installed, and this machine's /run is memory as theirs is. */
  private constructor(readonly directory: string, private readonly volatile: string) {}

  /** `only`: names of engines ('hull', 'dockerd', 'podman'); default: all that are installed. */
  static async start(only?: readonly string[]): Promise<Bench> {
    const wanted = (name: string) => !only || only.includes(name)
    const bench = new Bench(await mkdtemp(join(tmpdir(), 'hull-bench-')), await mkdtemp('/run/hull-bench-'))
    try {
      if (wanted('hull')) await bench.#hull()
      if (wanted('dockerd')) await bench.#dockerd()
      if (wanted('podman')) await bench.#podman()
    } catch (error) {
      await bench.stop()
      throw error
    }
    return bench
  }

  /** Each engine once, whatever isolations it has: for what concerns images and lists. */
  get daemons(): Engine[] {
    return this.engines.filter((engine) => engine.name !== 'hull vm').map((engine) => this.#renamed.get(engine) ?? engine)
  }

  /** Runs a daemon until {@link stop}, its words to a log file. */
  #spawn(file: string, args: string[], log: string): ChildProcess {
    const out = openSync(join(this.directory, log), 'a')
    const child = spawn(file, args, { stdio: ['ignore', out, out] })
    closeSync(out)
    this.#children.push(child)
    return child
  }

  async #ready(env: NodeJS.ProcessEnv, what: string): Promise<string> {
    return until(`${what} answers`, async () => {
      const said = await exec('docker', ['version', '--format', '{{.Server.Version}}'], { env })
      return said.code === 0 && said.stdout.trim()
    }, 60_000)
  }

  #hullFlags(name: 'hull' | 'pool'): string[] {
    return ['--data-root', join(this.directory, name), '--exec-root', join(this.volatile, name)]
  }

  /** A hulld that answers: its environment and version. */
  async #hulld(name: 'hull' | 'pool', pool: number): Promise<{ env: NodeJS.ProcessEnv; version: string }> {
    const host = `unix://${join(this.directory, `${name}.sock`)}`
    this.#spawn(join(repository, 'bin/hull'), ['daemon', '-H', host, ...this.#hullFlags(name), '--pidfile', join(this.directory, `${name}.pid`), '--vm-pool', String(pool)], `${name}d.log`)
    const env = { DOCKER_HOST: host, DOCKER_CLI_HINTS: 'false' }
    return { env, version: await this.#ready(env, 'hulld') }
  }

  async #hull(): Promise<void> {
    const { env, version } = await this.#hulld('hull', 0)
    const pooled = await this.#hulld('pool', 1)
    this.pooled = { name: 'hull vm, made ahead', ...pooled, cli: ['docker'], runFlags: ['--isolation=vm'], helpers: /^$/, pullFlags: [] }
    for (const isolation of ['process', 'vm']) {
      const engine: Engine = { name: `hull ${isolation}`, version, cli: ['docker'], env, runFlags: [`--isolation=${isolation}`], helpers: /^(hull-monitor|hull-vmm|qemu-system.*)$/, pullFlags: [] }
      this.engines.push(engine)
      if (isolation === 'process') this.#renamed.set(engine, { ...engine, name: 'hull' })
    }
  }

  async #dockerd(): Promise<void> {
    const dockerd = await onPath('dockerd')
    if (!dockerd) return
    const host = `unix://${join(this.directory, 'docker.sock')}`
    await writeFile(join(this.directory, 'daemon.json'), '{}')
    this.#spawn(
      dockerd,
      ['-H', host, '--data-root', join(this.directory, 'docker'), '--exec-root', join(this.volatile, 'docker'), '--pidfile', join(this.directory, 'docker.pid'), '--config-file', join(this.directory, 'daemon.json')],
      'dockerd.log',
    )
    const env = { DOCKER_HOST: host, DOCKER_CLI_HINTS: 'false' }
    const version = await this.#ready(env, 'dockerd')
    this.engines.push({ name: 'dockerd', version, cli: ['docker'], env, runFlags: [], helpers: /^containerd-shim.*$/, pullFlags: [] })
  }

  async #podman(): Promise<void> {
    const podman = await onPath('podman')
    if (!podman) return
    const version = (await exec(podman, ['version', '--format', '{{.Client.Version}}'])).stdout.trim()
    this.engines.push({
      name: 'podman',
      version,
      cli: [podman, '--root', join(this.directory, 'podman'), '--runroot', join(this.volatile, 'podman'), '--cgroup-manager=cgroupfs', '--runtime', 'runc'],
      env: {},
      runFlags: ['--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1024:1024'], // podman asks for more open files than a machine without CAP_SYS_RESOURCE may have
      helpers: /^conmon$/,
      pullFlags: ['--tls-verify=false'],
    })
  }

  /** Waits until a machine waits for the pooled engine's next start. */
  async poolFilled(): Promise<void> {
    await until('a virtual machine waits', async () => /^hull_vm_pool_machines [1-9]/m.test(await metricsOf(this.pooled!)), 30_000)
  }

  /** Starts `image` until it comes from the template that is made for images that are started again and again. */
  async templateMade(engine: Engine, image: string): Promise<void> {
    await until('a virtual machine is a clone of its image\'s template', async () => {
      await this.time(engine, ['run', '--rm', ...engine.runFlags, image, 'true'])
      return /^hull_vm_starts_total\{start="image"\} [1-9]/m.test(await metricsOf(engine))
    }, 120_000)
  }

  /** Runs one command of an engine; throws when it fails. Milliseconds of wall time. */
  async time(engine: Engine, words: string[]): Promise<number> {
    const [file = '', ...before] = engine.cli
    const start = process.hrtime.bigint()
    const said = await exec(file, [...before, ...words], { env: engine.env, timeoutMs: 300_000 })
    const ms = Number(process.hrtime.bigint() - start) / 1e6
    if (said.code !== 0) throw new Error(`${engine.name}: ${words.join(' ')}: exit code ${said.code}: ${said.stderr}${said.stdout}`)
    return ms
  }

  /** Debian's docker-registry on a loopback port; returns 'host:port'. */
  async registry(): Promise<string> {
    if (this.#registry) return this.#registry
    const port = 20_000 + (process.pid % 20_000)
    const config = join(this.directory, 'registry.yml')
    await mkdir(join(this.directory, 'registry'))
    await writeFile(config, `version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: ${join(this.directory, 'registry')}}\nhttp: {addr: '127.0.0.1:${port}'}\n`)
    this.#spawn('docker-registry', ['serve', config], 'registry.log')
    await until('the registry answers', async () => (await fetch(`http://127.0.0.1:${port}/v2/`).catch(() => undefined))?.ok)
    return (this.#registry = `127.0.0.1:${port}`)
  }

  /** Ends all daemons and deletes what they keep. */
  async stop(): Promise<void> {
    for (const child of this.#children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const gone = new Promise((done) => child.once('exit', done))
      child.kill('SIGTERM')
      await Promise.race([gone, sleep(20_000)])
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    }
    if (existsSync(join(repository, 'bin/hull'))) for (const name of ['hull', 'pool'] as const) await exec(join(repository, 'bin/hull'), ['daemon', ...this.#hullFlags(name), '--cleanup'])
    // Mounts that an engine left below (podman's root, dockerd's overlay) go before the files do.
    const mounts = (await exec('sh', ['-c', `grep -oE ' (${this.directory}|${this.volatile})[^ ]*' /proc/self/mounts | sort -r`])).stdout.trim().split('\n')
    for (const mount of mounts) if (mount.trim()) await exec('umount', ['-l', mount.trim()])
    for (const directory of [this.directory, this.volatile]) await rm(directory, { recursive: true, force: true })
  }
}
