import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import type { VmParts } from './jailroot.js'
import { cleanMessage, FrameParser, FrameType } from './protocol.js'
import { PLACEHOLDER_FILE, qemuArguments } from './qemu.js'
import { templateMachine, type TemplateShape } from './templates.js'

/** The guest's memory, sparse, the state of its devices, and its disk if it has one, in a template's directory. */
export const MEMORY_FILE = 'memory'
export const STATE_FILE = 'state'
export const DISK_FILE = 'disk'

/** Milliseconds for boot and saving; a loaded machine under TCG needs some seconds. */
const TIMEOUT = 120_000
/** stdio of the child: 3 and 4 are connected pairs of stream sockets. */
const FDS = { agent: 3, qmp: 4 } as const

/**
 * Boots a machine of our kernel and agent until the agent says HELLO, and keeps its memory and state in `directory`, where its disk is already. No jail, as in the probe: no byte of anybody else's is in it; it has a network
 * namespace of its own for its tap. It dies with the daemon, and gives way to all others.
 */
export async function buildTemplate(directory: string, shape: TemplateShape, parts: VmParts, signal: AbortSignal): Promise<{ stateSha256: string }> {
  await writeFile(join(directory, MEMORY_FILE), '', { mode: 0o600 })
  await truncate(join(directory, MEMORY_FILE), shape.ram)
  await writeFile(join(directory, STATE_FILE), '', { mode: 0o600 })
  if (shape.image > 0) {
    await writeFile(join(directory, PLACEHOLDER_FILE), '', { mode: 0o400 })
    await truncate(join(directory, PLACEHOLDER_FILE), shape.image)
  }
  const child = spawn(
    'setpriv', ['--pdeathsig', 'KILL', '--', 'unshare', '--net', '--', 'nice', '-n', '10', '--', parts.qemu, ...qemuArguments(templateMachine(shape, parts, FDS))],
    { cwd: directory, stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'], env: { PATH: '/usr/bin:/bin:/usr/sbin:/sbin' } },
  )
  let words = ''
  child.stderr!.on('data', (chunk: Buffer) => {
    if (words.length < 4096) words += chunk.toString('utf8')
  })
  const ended = new Promise<never>((_, reject) => {
    child.on('error', reject)
    child.on('close', (code, reason) => reject(new Error(cleanMessage(words.split('\n').filter((line) => line.trim() !== '')[0] ?? '') || `QEMU ended with ${reason ?? `code ${code}`}`)))
  })
  ended.catch(() => {})
  const kill = () => void child.kill('SIGKILL')
  const timer = setTimeout(kill, TIMEOUT)
  signal.addEventListener('abort', kill)
  try {
    const qmp = new Qmp(child.stdio[FDS.qmp] as Duplex)
    await Promise.race([hello(child.stdio[FDS.agent] as Duplex), ended])
    await Promise.race([save(qmp), ended])
    await Promise.race([qmp.call('quit'), ended]).catch(() => {}) // its end is the answer
    await ended.catch((error: unknown) => {
      if (child.exitCode !== 0) throw error
    })
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', kill)
    kill()
    await ended.catch(() => {})
    await rm(join(directory, PLACEHOLDER_FILE), { force: true })
  }
  return { stateSha256: createHash('sha256').update(await readFile(join(directory, STATE_FILE))).digest('hex') }
}

/** Resolves when the agent has said HELLO. */
function hello(agent: Duplex): Promise<void> {
  return new Promise((resolve, reject) => {
    const parser = new FrameParser()
    agent.on('error', reject)
    agent.on('data', (chunk: Buffer) => {
      try {
        parser.push(chunk, (frame) => (frame.type === FrameType.HELLO ? resolve() : reject(new Error('the agent said something else than HELLO'))))
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)))
      }
    })
  })
}

/** The running machine's state into the file; its memory is one already. Not stopped before: what was saved running goes on running by itself. */
async function save(qmp: Qmp): Promise<void> {
  await qmp.call('qmp_capabilities')
  await qmp.call('migrate-set-capabilities', { capabilities: [{ capability: 'x-ignore-shared', state: true }] })
  await qmp.call('migrate', { uri: `exec:exec cat > ${STATE_FILE}` })
  for (;;) {
    const { status, 'error-desc': why } = (await qmp.call('query-migrate')) as { status?: string; 'error-desc'?: string }
    if (status === 'completed') return
    if (status === 'failed' || status === 'cancelled') throw new Error(`saving the template ${status}${why === undefined ? '' : `: ${cleanMessage(why)}`}`)
    await new Promise((done) => setTimeout(done, 20))
  }
}

/** One question at a time to QEMU's monitor (QEMU, docs/interop/qmp-spec): lines of JSON. */
class Qmp {
  private text = ''
  private waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void } | undefined

  constructor(private readonly socket: Duplex) {
    socket.on('error', (error) => this.waiting?.reject(error))
    socket.on('data', (chunk: Buffer) => {
      this.text += chunk.toString('utf8')
      for (let end = this.text.indexOf('\n'); end >= 0; end = this.text.indexOf('\n')) {
        this.line(this.text.slice(0, end))
        this.text = this.text.slice(end + 1)
      }
    })
  }

  private line(line: string): void {
    const answer = JSON.parse(line) as { return?: unknown; error?: { desc?: string } }
    if (answer.error !== undefined) this.waiting?.reject(new Error(cleanMessage(answer.error.desc ?? 'QEMU refused')))
    else if ('return' in answer) this.waiting?.resolve(answer.return)
  }

  call(execute: string, args?: object): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject }
      this.socket.write(`${JSON.stringify({ execute, ...(args === undefined ? {} : { arguments: args }) })}\n`)
    })
  }
}
