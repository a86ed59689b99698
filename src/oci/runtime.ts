import { closeSync, constants, existsSync, openSync, readdirSync, rmSync, statSync, unlinkSync, writeSync } from 'node:fs'
import { access, rm, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { badRequest, codeOf, internal } from '../base/errors.js'
import { run, runOk } from '../base/run.js'
import { sealedProgram } from '../host/memory.js'
import { removeCgroup } from './cgroups.js'
import { CRUN_NEVER_CALLS, lightEnvironment } from './libraries.js'
import { judge, type Verdict } from './runtime-floor.js'
import { startError } from './runtime-errors.js'
import { whyRunscFails } from './runsc.js'

/** Which program it is, whatever it is called: known from what `--version` prints. */
export type RuntimeKind = 'crun' | 'runc' | 'runsc' | 'other'

/** A runtime program on this host. */
export interface RuntimeProgram {
  /** As the user wrote it. */
  name: string
  /** Absolute. */
  path: string
  kind: RuntimeKind
  version: string
  verdict: Verdict
}

const WRAPPER = fileURLToPath(new URL('../../build/crun-wrap', import.meta.url))
const RUNSC_WRAPPER = fileURLToPath(new URL('../../build/runsc-wrap', import.meta.url))
const GATE = fileURLToPath(new URL('../../build/hull-gate.so', import.meta.url))
const known = new Map<string, { mtimeMs: number; program: RuntimeProgram }>()
/** Where a name was found: looked for again when it is not there any more. */
const places = new Map<string, string>()

async function find(name: string): Promise<string | undefined> {
  const candidates = name.startsWith('/')
    ? [name]
    : /^[A-Za-z0-9][A-Za-z0-9._+-]*$/.test(name)
      ? `${process.env.PATH ?? ''}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin`.split(':').filter((directory) => directory.startsWith('/')).map((directory) => join(directory, name))
      : []
  for (const path of candidates) {
    try {
      if (!(await stat(path)).isFile()) continue
      await access(path, constants.X_OK)
      return path
    } catch {
      continue
    }
  }
  return undefined
}

/**
 * Finds a runtime by name on PATH or by absolute path ('' is crun) and asks its version, once for each file.
 * 400 in Docker's words when there is none, or when it is too old to be a wall (see runtime-floor.ts). gVisor is tried as well: not every host lets it work.
 */
export async function locateRuntime(name: string): Promise<RuntimeProgram> {
  const wanted = name === '' ? 'crun' : name
  const place = places.get(wanted)
  const there = place === undefined ? undefined : statSync(place, { throwIfNoEntry: false })
  if (place !== undefined && there) {
    const cached = known.get(place)
    if (cached?.mtimeMs === there.mtimeMs) return working(cached.program, wanted, there.mtimeMs)
  }
  const path = await find(wanted)
  if (path === undefined) throw badRequest(`unknown or invalid runtime name: ${wanted}`)
  places.set(wanted, path)
  const { mtimeMs } = await stat(path)
  const cached = known.get(path)
  if (cached?.mtimeMs === mtimeMs) return working(cached.program, wanted, mtimeMs)
  const said = await run(path, ['--version'], { timeoutMs: 10_000 }).catch(() => undefined)
  const text = said?.code === 0 ? said.stdout : ''
  const match = /^(crun|runc|runsc)(?:\.\w+)? version (?:release-)?(\S+)/m.exec(text)
  const kind: RuntimeKind = match ? (match[1] as RuntimeKind) : 'other'
  const version = match?.[2] ?? ''
  const program: RuntimeProgram = { name: wanted, path, kind, version, verdict: judge(kind, version, text) }
  if (program.verdict.refuse) throw badRequest(`runtime ${wanted} is not safe to use: ${program.verdict.refuse}`)
  known.set(path, { mtimeMs, program })
  return working(program, wanted, mtimeMs)
}

async function working(program: RuntimeProgram, name: string, mtimeMs: number): Promise<RuntimeProgram> {
  const reason = program.kind === 'runsc' ? await whyRunscFails(program.path, mtimeMs) : undefined
  if (reason !== undefined) throw badRequest(`runtime ${name} does not work on this host: ${reason}`)
  return { ...program, name }
}

/** A runtime with the directory where it keeps the state of one daemon's containers. */
export class Runtime {
  private constructor(
    readonly program: RuntimeProgram,
    /** --root: one per daemon, so that daemons side by side do not see one another's containers. */
    readonly root: string,
    /** What is executed: {@link sealedProgram}; undefined: the program itself, without {@link WRAPPER}. */
    private readonly sealed: string | undefined,
    /** What the program is to find in its environment ({@link lightEnvironment}). */
    readonly environment: Readonly<Record<string, string>>,
    private readonly flags: readonly string[],
  ) {}

  /** {@link locateRuntime}, bound to a state directory. `flags` are given before each subcommand. */
  static async open(name: string, root: string, flags: readonly string[] = []): Promise<Runtime> {
    const program = await locateRuntime(name)
    if (program.kind === 'runsc' && !existsSync(RUNSC_WRAPPER)) throw internal(`${RUNSC_WRAPPER} is missing: run make build`)
    if (program.kind !== 'crun') return new Runtime(program, root, undefined, {}, flags)
    if (!existsSync(WRAPPER)) throw internal(`${WRAPPER} is missing: run make build`)
    const environment = await lightEnvironment(join(dirname(root), '.libraries'), [{ path: program.path, never: CRUN_NEVER_CALLS }])
    return new Runtime(program, root, await sealedProgram(program.path), environment, flags)
  }

  /** The library that makes it wait when it is started ahead of what it works on; undefined: it cannot wait (LD_PRELOAD has no word for some names, and only a program that has a loader heeds it). */
  get waits(): string | undefined {
    return this.sealed !== undefined && this.environment['LD_LIBRARY_PATH'] !== undefined && !/[\s:]/.test(GATE) && existsSync(GATE) ? GATE : undefined
  }

  get kind(): RuntimeKind {
    return this.program.kind
  }

  /** The name that messages carry: 'crun'. */
  get name(): string {
    return basename(this.program.path)
  }

  /** Program and arguments before the subcommand. */
  command(): { file: string; args: string[] } {
    const args = ['--root', this.root, ...this.flags]
    if (this.kind === 'crun') args.push('--cgroup-manager=cgroupfs')
    return this.sealed === undefined ? { file: this.program.path, args } : { file: WRAPPER, args: [this.sealed, this.program.path, ...args] }
  }

  /** As {@link command}, for `exec` with a terminal of runsc's: see runsc-wrap.c. The listener at `socket` gets the terminal. */
  commandWithTerminal(socket: string): { file: string; args: string[] } {
    const { file, args } = this.command()
    return { file: RUNSC_WRAPPER, args: ['-t', socket, file, file, ...args] }
  }

  async #call(...args: string[]): Promise<string> {
    const command = this.command()
    return (await runOk(command.file, [...command.args, ...args], { timeoutMs: 60_000 })).stdout
  }

  /**
   * `start`. crun's container waits for one byte in a FIFO: writing it here saves a process (3 ms). The FIFO is crun's own
   * interface between `create` and `start` since 0.1; where it is not found, or for other runtimes, the program is called.
   */
  async start(id: string): Promise<void> {
    if (this.kind === 'crun') {
      const fifo = join(this.root, id, 'exec.fifo')
      try {
        // Without a detour through threads: none of it waits for anything.
        const file = openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK)
        try {
          unlinkSync(fifo)
          writeSync(file, new Uint8Array(1))
        } finally {
          closeSync(file)
        }
        return
      } catch (error) {
        if (codeOf(error) === 'ENXIO') throw internal('the container ended before it was started', error) // no reader
        if (codeOf(error) !== 'ENOENT') throw error
      }
    }
    if (this.kind === 'runsc') {
      // Only now it looks for the command, and at its network: see runsc-wrap.c.
      const { file, args } = this.command()
      const said = await run(RUNSC_WRAPPER, ['-n', file, file, ...args, 'start', id], { timeoutMs: 60_000 })
      if (said.code !== 0) throw startError(said.stderr || said.stdout)
      return
    }
    await this.#call('start', id)
  }

  /** The program's own view: 'creating', 'created', 'running', 'stopped', 'paused'; `undefined` when it knows no such container. */
  async state(id: string): Promise<{ status: string; pid: number } | undefined> {
    const command = this.command()
    const said = await run(command.file, [...command.args, 'state', id], { timeoutMs: 60_000 })
    if (said.code !== 0) return undefined
    const parsed: unknown = JSON.parse(said.stdout)
    if (typeof parsed !== 'object' || parsed === null || !('status' in parsed) || typeof parsed.status !== 'string') throw internal(`${this.name} state ${id}: unexpected answer`)
    return { status: parsed.status, pid: 'pid' in parsed && typeof parsed.pid === 'number' ? parsed.pid : 0 }
  }

  async kill(id: string, signal: number): Promise<void> {
    await this.#call('kill', id, String(signal))
  }

  /** runsc: a signal to one process, by its pid inside. */
  async killInside(id: string, pid: number, signal: number): Promise<void> {
    await this.#call('kill', '--pid', String(pid), id, String(signal))
  }

  /** runsc: a table of the processes inside, as `ps -ef` has it. */
  async ps(id: string): Promise<string> {
    return this.#call('ps', id)
  }

  async pause(id: string): Promise<void> {
    await this.#call('pause', id)
  }

  async resume(id: string): Promise<void> {
    await this.#call('resume', id)
  }

  /** `update --resources -`: new limits, a runtime-spec `linux.resources`. */
  async update(id: string, resources: unknown): Promise<void> {
    const command = this.command()
    const file = join(this.root, `${id}.resources.json`)
    await writeFile(file, JSON.stringify(resources), { mode: 0o600 })
    try {
      await runOk(command.file, [...command.args, 'update', '--resources', file, id], { timeoutMs: 60_000 })
    } finally {
      await rm(file, { force: true })
    }
  }

  /**
   * Removes what the runtime keeps of a container whose init has ended, and its cgroup. For crun this does by hand what
   * `crun delete` does (state directory, cgroups): 1 ms in place of 5 to 100, as crun polls for the cgroup to empty.
   */
  async delete(id: string, cgroupPath: string): Promise<void> {
    if (this.kind !== 'crun') {
      const command = this.command()
      const said = await run(command.file, [...command.args, 'delete', '--force', id], { timeoutMs: 60_000 })
      // A directory of this name, or runsc's files: ID_sandbox:ID.state.
      const kept = existsSync(this.root) && readdirSync(this.root).some((name) => name.startsWith(id) && !name.endsWith('.lock'))
      if (said.code !== 0 && kept) throw internal(`${this.name} delete: ${(said.stderr || said.stdout).trim().slice(-1000)}`)
    }
    rmSync(join(this.root, id), { recursive: true, force: true }) // a few files in /run
    await removeCgroup(cgroupPath)
  }
}
