import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '../..')
/**
 * What a daemon found out about KVM, handed to the next: where KVM hangs, each would wait ten seconds for it. The answer names the host's boot, kernel, QEMU and guest
 * build: a daemon for which one of them differs asks anew.
 */
const knownAccelerator = join(root, 'build/test-accelerator.json')

/** What a finished command said. */
export interface Said {
  code: number | null
  stdout: string
  stderr: string
}

/** Runs a program with optional stdin; never rejects for its exit code. `timeoutMs` kills it (code null). */
export function exec(file: string, args: string[], options: { input?: string | Buffer; env?: NodeJS.ProcessEnv; timeoutMs?: number } = {}): Promise<Said> {
  return new Promise((done, fail) => {
    const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...options.env } })
    const out: Buffer[] = []
    const err: Buffer[] = []
    const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 90_000)
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
    child.once('error', fail)
    child.once('close', (code) => {
      clearTimeout(timer)
      done({ code, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() })
    })
    child.stdin.on('error', () => {})
    child.stdin.end(options.input ?? '')
  })
}

/** Sleeps. */
export const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms))

/** Calls `probe` until it gives something truthy; throws after `timeoutMs`. */
export async function until<T>(what: string, probe: () => Promise<T | undefined | false>, timeoutMs = 30_000): Promise<T> {
  const end = Date.now() + timeoutMs
  for (;;) {
    const value = await probe()
    if (value) return value
    if (Date.now() > end) throw new Error(`timed out: ${what}`)
    await sleep(50)
  }
}

/** A daemon of its own for a test file: own directories, socket, bridge, cgroup. */
export class TestDaemon {
  #child: ChildProcess | undefined
  #exited: Promise<void> = Promise.resolve()

  private constructor(
    readonly directory: string,
    readonly flags: string[],
  ) {}

  get socket(): string {
    return join(this.directory, 'h.sock')
  }
  get host(): string {
    return `unix://${this.socket}`
  }
  get dataRoot(): string {
    return join(this.directory, 'data')
  }
  get execRoot(): string {
    return join(this.directory, 'exec')
  }
  get logFile(): string {
    return join(this.directory, 'daemon.log')
  }
  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /** Makes the directories (short names: socket paths are limited) and starts the daemon; without machines that are made ahead unless `flags` says so: they would take the processors from what is tested. */
  static async start(flags: string[] = []): Promise<TestDaemon> {
    const directory = await mkdtemp(join(tmpdir(), 'hull-'))
    await chmod(directory, 0o711) // a remapped container's root passes through
    const daemon = new TestDaemon(directory, flags.includes('--vm-pool') ? flags : [...flags, '--vm-pool', '0'])
    await mkdir(daemon.#vmDirectory, { recursive: true, mode: 0o711 })
    await copyFile(knownAccelerator, join(daemon.#vmDirectory, 'accelerator.json')).catch(() => {})
    await daemon.up()
    return daemon
  }

  get #vmDirectory(): string {
    return join(this.dataRoot, 'vm')
  }

  /** Starts the daemon process and waits until it answers. */
  async up(): Promise<void> {
    const log = openSync(this.logFile, 'a')
    const args = ['daemon', '-H', this.host, '--data-root', this.dataRoot, '--exec-root', this.execRoot, '--pidfile', join(this.directory, 'pid'), ...this.flags]
    const child = spawn(join(root, 'bin/hull'), args, { stdio: ['ignore', log, log], detached: true })
    closeSync(log)
    this.#child = child
    this.#exited = new Promise((done) => child.once('exit', () => done()))
    let gone = false
    child.once('exit', () => (gone = true))
    await until(
      'the daemon answers',
      async () => {
        if (gone) throw new Error(`the daemon ended: ${(await readFile(this.logFile, 'utf8')).slice(-2000)}`)
        return this.api('GET', '/_ping').then((answer) => answer.status === 200, () => false)
      },
      60_000,
    )
  }

  /** Ends the daemon process. Workloads stay. */
  async down(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#child && this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill(signal)
    await this.#exited
  }

  /** Removes all containers, ends the daemon, and deletes what a daemon keeps on purpose (bridge, table, directories). */
  async destroy(): Promise<void> {
    const list = await this.api('GET', '/containers/json?all=1').catch(() => undefined)
    const rows = list ? (JSON.parse(list.body) as { Id: string }[]) : []
    await Promise.all(rows.map((row) => this.api('DELETE', `/containers/${row.Id}?force=1`)))
    await this.down('SIGTERM')
    await copyFile(join(this.#vmDirectory, 'accelerator.json'), knownAccelerator).catch(() => {}) // none: it ran no VM
    await exec(join(root, 'bin/hull'), ['daemon', '--data-root', this.dataRoot, '--exec-root', this.execRoot, ...this.flags, '--cleanup'])
    await rm(this.directory, { recursive: true, force: true })
  }

  /** The docker CLI against this daemon. */
  docker(args: string[], options: { input?: string | Buffer; timeoutMs?: number } = {}): Promise<Said> {
    return exec('docker', args, { ...options, env: { DOCKER_HOST: this.host, DOCKER_CLI_HINTS: 'false' } })
  }

  /** Like {@link docker}, but an exit code other than 0 throws; returns stdout without the last newline. */
  async ok(...args: string[]): Promise<string> {
    const said = await this.docker(args)
    if (said.code !== 0) throw new Error(`docker ${args.join(' ')}: exit code ${said.code}\n${said.stderr}\n${said.stdout}`)
    return said.stdout.replace(/\n$/, '')
  }

  /** The hull CLI against this daemon. */
  hull(args: string[], options: { input?: string | Buffer; timeoutMs?: number } = {}): Promise<Said> {
    return exec(join(root, 'bin/hull'), ['-H', this.host, ...args], options)
  }

  /** One API call. */
  api(method: string, path: string, body?: unknown): Promise<{ status: number; body: string }> {
    return new Promise((done, fail) => {
      const text = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body)
      const call = request(
        { socketPath: this.socket, method, path, headers: text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) } },
        (answer) => {
          const chunks: Buffer[] = []
          answer.on('data', (chunk: Buffer) => chunks.push(chunk))
          answer.on('end', () => done({ status: answer.statusCode ?? 0, body: Buffer.concat(chunks).toString() }))
          answer.on('error', fail)
        },
      )
      call.on('error', fail)
      call.end(text)
    })
  }
}
