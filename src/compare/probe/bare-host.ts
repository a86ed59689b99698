import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { open, readFile, type FileHandle } from 'node:fs/promises'
import type { CompareContext } from '../context.js'
import { LONGEST_OUTPUT, type ToolOutput } from './exec.js'

/** Who the tools are on the host: nobody. */
const UID = '65534'
/** In the tools' image. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/**
 * The host as a place for the same binaries: processes of ours, of the host's own namespaces and cgroup, without a seccomp filter, whose root is that of a container of the tools' image that
 * does nothing. It has a volume for the disk's sake (the daemon's file system, without an overlay), and its network namespace with nothing but loopback for servers that nobody else can
 * reach. Nothing of this is to be cleaned up but the container: no mount, no directory.
 */
export class BareHost {
  readonly #servers: ChildProcess[] = []

  private constructor(
    private readonly id: string,
    private readonly context: CompareContext,
    private readonly root: FileHandle,
    private readonly net: FileHandle,
  ) {}

  /** Rejects with a sentence where the host cannot be measured. */
  static async open(context: CompareContext, image: string): Promise<BareHost> {
    if (process.getuid?.() !== 0) throw new Error('tools can be run on the bare host by root only')
    const { client, instances, ways } = context
    const token = randomBytes(16).toString('hex')
    const isolation = ways.find(({ name }) => name === 'process')?.hostConfig ?? { Isolation: 'process' }
    const id = await instances.create({ Image: image, Entrypoint: ['sleep'], Cmd: ['100000'], Env: [`HULL_PROBE=${token}`], Volumes: { '/tmp': {} }, HostConfig: { ...isolation, NetworkMode: 'none' } })
    const held: FileHandle[] = []
    try {
      await client.call('POST', `/containers/${id}/start`, { signal: context.signal })
      const { State } = await client.json<{ State: { Pid: number } }>('GET', `/containers/${id}/json`, { signal: context.signal })
      for (const what of ['root', 'ns/net']) held.push(await open(`/proc/${State.Pid}/${what}`, 'r'))
      // After they were opened: so it is this container's root, whoever has that pid in our eyes.
      if (!(await readFile(`/proc/${State.Pid}/environ`, 'utf8')).split('\0').includes(`HULL_PROBE=${token}`)) throw new Error('the processes of containers cannot be seen from here')
      return new BareHost(id, context, held[0]!, held[1]!)
    } catch (error) {
      await Promise.all(held.map((one) => one.close()))
      await instances.remove(id)
      throw error
    }
  }

  /** 3 is the root, 4 the network. Descriptors, since a pid can become another's. No setuid program of the image gains anything. */
  #words(argv: readonly string[], loopback: boolean): string[] {
    return ['setpriv', '--no-new-privs', 'nsenter', ...(loopback ? ['--net=/proc/self/fd/4'] : []), '--root=/proc/self/fd/3', '--wd=/proc/self/fd/3', '--setuid', UID, '--setgid', UID, ...argv]
  }

  /** Runs a tool to its end, for at most `seconds`, even when we are killed. `loopback`: where the servers of {@link serve} are, else in the host's network. */
  run(argv: readonly string[], seconds: number, loopback = false): Promise<ToolOutput> {
    const { signal } = this.context
    return new Promise((resolve, reject) => {
      const child = spawn('timeout', ['--kill-after=1', String(seconds), ...this.#words(argv, loopback)], { stdio: ['ignore', 'pipe', 'pipe', this.root.fd, this.net.fd], env: { PATH, LC_ALL: 'C' }, cwd: '/', signal })
      const texts = [child.stdout!, child.stderr!].map((stream) => {
        const kept = { text: '' }
        stream.on('data', (chunk: Buffer) => {
          if (kept.text.length < LONGEST_OUTPUT) kept.text += chunk.toString('latin1')
        })
        return kept
      })
      child.once('error', reject).once('close', (code) => {
        if (code === 124) reject(new Error(`${argv[0]} did not end within ${seconds} s`))
        else resolve({ code: code ?? -1, stdout: texts[0]!.text, stderr: texts[1]!.text })
      })
    })
  }

  /** Starts a server on the loopback that it shares with {@link run}. It ends with us, however we end: a shell reads a pipe of ours to its end. */
  serve(argv: readonly string[]): void {
    const child = spawn('/bin/sh', ['-c', '"$@" < /dev/null & read -r end; kill -KILL $!', 'hull', ...this.#words(argv, true)], { stdio: ['pipe', 'ignore', 'ignore', this.root.fd, this.net.fd], env: { PATH, LC_ALL: 'C' }, cwd: '/' })
    child.on('error', () => {}) // a client of it says more
    child.stdin!.on('error', () => {})
    this.#servers.push(child)
  }

  async close(): Promise<void> {
    await Promise.all(this.#servers.map((child) => new Promise<void>((resolve) => {
      if (child.exitCode !== null || child.pid === undefined) resolve()
      else child.once('close', () => resolve())
      child.stdin?.end()
    })))
    await Promise.all([this.root.close(), this.net.close()])
    await this.context.instances.remove(this.id)
  }
}
