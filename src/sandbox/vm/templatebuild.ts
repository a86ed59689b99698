import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, constants, createWriteStream } from 'node:fs'
import { chmod, lchown, open, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { openTapAlone } from '../../host/link.js'
import { cleanMessage, FrameParser, FrameType } from './protocol.js'
import { JAIL_PATHS, PLACEHOLDER_FILE, qemuArguments } from './qemu.js'
import { templateMachine, type TemplateShape } from './templates.js'
import { TEMPLATE_UID } from './uids.js'

/** The guest's memory, sparse, the state of its devices, and its disk if it has one, in a template's directory. */
export const MEMORY_FILE = 'memory'
export const STATE_FILE = 'state'
export const DISK_FILE = 'disk'
/** Where QEMU says the state. */
const STATE_SOCKET = 'state.sock'

/** Bytes; it is some hundred thousand. */
const MAX_STATE = 32 << 20
/** Bytes of one thing that QEMU's monitor says; they are some hundred. */
const MAX_LINE = 1 << 20
/** Milliseconds for boot and saving; a loaded machine under TCG needs some seconds. */
const TIMEOUT = 120_000
/**
 * Milliseconds between HELLO and the saving: what the kernel puts off until after its boot (one second for the refinement of its clock's frequency, which stops all processors; reading a disk's bitmaps) is then done once in
 * the template, and not in each of its clones while its workload starts.
 */
const SETTLE = 3500
/** stdio of the child: 3 and 4 are connected pairs of stream sockets, 5 a tap, if there is a network card. */
const FDS = { agent: 3, qmp: 4, tap: 5 } as const

/**
 * The walls round QEMU: the root file system that clones have, with this template's directory as the only writable one; own namespaces, no network but a tap that nobody is at the other end of, a uid of its own without
 * capabilities. An image's file system is mounted in there, whose names and contents are a stranger's. The shell stays, as pid 1: whatever ends it ends all.
 * $1 root, $2 directory, $3 image or '', $4 uid, $5 '1': KVM, $6 what a file may grow to, in units of 512 bytes; then QEMU's arguments.
 */
const CONFINED = `
root=$1 directory=$2 image=$3 uid=$4 kvm=$5
ulimit -f "$6"
shift 6
mount -t tmpfs -o nosuid,noexec,mode=755,size=64k tmpfs "$root/dev"
node() { mknod -m 600 "$root/dev/$1" c "$2" "$3" && chown "$uid" "$root/dev/$1"; }
node null 1 3
if [ "$kvm" ]; then node kvm 10 232; fi
mount --bind "$directory" "$root${JAIL_PATHS.directory}"
mount -o remount,bind,nosuid,nodev,noexec "$root${JAIL_PATHS.directory}"
if [ "$image" ]; then
  mount --bind "$image" "$root${JAIL_PATHS.image}"
  mount -o remount,bind,ro,nosuid,nodev,noexec "$root${JAIL_PATHS.image}"
fi
code=0
nice -n 10 setpriv --no-new-privs -- env -i PATH=/ QEMU_MODULE_DIR=${JAIL_PATHS.modules} "$(command -v chroot)" --userspec="$uid:$uid" --groups= "$root" ${JAIL_PATHS.qemu} "$@" || code=$?
exit $code`

/**
 * Boots a machine of our kernel and agent until the agent says HELLO and is quiet, and keeps its memory and state in `directory`, where its disk is already. It dies with the daemon, and gives way to all others.
 */
export async function buildTemplate(directory: string, shape: TemplateShape, jailRoot: string, signal: AbortSignal): Promise<{ stateSha256: string }> {
  await writeFile(join(directory, MEMORY_FILE), '', { mode: 0o600 })
  await truncate(join(directory, MEMORY_FILE), shape.ram)
  if (shape.root === undefined && shape.image > 0) {
    await writeFile(join(directory, PLACEHOLDER_FILE), '', { mode: 0o400 })
    await truncate(join(directory, PLACEHOLDER_FILE), shape.image)
  }
  // The files and not the directory: whoever takes QEMU over can make no further ones.
  const own = async (uid: number) => {
    for (const name of await readdir(directory)) await lchown(join(directory, name), uid, uid)
  }
  await chmod(directory, 0o711)
  // By a short way: a socket's path has room for 107 bytes.
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  const state = await received(`/proc/self/fd/${handle.fd}/${STATE_SOCKET}`, join(directory, STATE_FILE))
  let child: ChildProcess
  try {
    await own(TEMPLATE_UID)
    child = await startConfined(directory, shape, jailRoot)
  } catch (error) {
    await state.close()
    await handle.close()
    throw error
  }
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
  if (signal.aborted) kill() // while it was being prepared
  try {
    const qmp = new Qmp(child.stdio[FDS.qmp] as Duplex)
    await Promise.race([hello(child.stdio[FDS.agent] as Duplex), ended])
    await Promise.race([new Promise((done) => setTimeout(done, SETTLE)), ended])
    await Promise.race([save(qmp), ended])
    await Promise.race([state.whole, ended])
    await Promise.race([qmp.call('quit'), ended]).catch(() => {}) // its end is the answer
    await ended.catch((error: unknown) => {
      if (child.exitCode !== 0) throw error
    })
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', kill)
    kill()
    await ended.catch(() => {})
    await state.close()
    await handle.close()
    for (const name of [PLACEHOLDER_FILE, STATE_SOCKET]) await rm(join(directory, name), { force: true })
    await own(0)
  }
  return { stateSha256: createHash('sha256').update(await readFile(join(directory, STATE_FILE))).digest('hex') }
}

/** QEMU behind {@link CONFINED}; {@link FDS} are its descriptors. */
async function startConfined(directory: string, shape: TemplateShape, jailRoot: string): Promise<ChildProcess> {
  const tap = shape.network ? await openTapAlone() : undefined
  try {
    return spawn(
      'setpriv',
      [
        '--pdeathsig', 'KILL', '--', 'unshare', '--net', '--mount', '--pid', '--ipc', '--uts', '--fork', '--kill-child', '--propagation', 'private', '--', 'sh', '-ec', CONFINED, 'template',
        jailRoot, directory, shape.root?.path ?? '', String(TEMPLATE_UID), shape.accelerator === 'kvm' ? '1' : '', String(Math.max(shape.ram, shape.disk) / 512), ...qemuArguments(templateMachine(shape, FDS)),
      ],
      { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe', ...(tap === undefined ? [] : [tap])], env: { PATH: '/usr/bin:/bin:/usr/sbin:/sbin' } },
    )
  } finally {
    if (tap !== undefined) closeSync(tap)
  }
}

async function* bounded(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let size = 0
  for await (const chunk of chunks) {
    size += chunk.length
    if (size > MAX_STATE) throw new Error(`its state is larger than ${MAX_STATE} bytes`)
    yield chunk
  }
}

/** A socket whose first caller's words go to a new file; later callers are sent away, for the socket's end would wait for theirs. `whole` resolves at the end of the words. */
export async function received(socketPath: string, file: string): Promise<{ whole: Promise<void>; close: () => Promise<void> }> {
  const server = createServer()
  const whole = once(server, 'connection').then(([caller]: Socket[]) => pipeline(caller!, bounded, createWriteStream(file, { flags: 'wx', mode: 0o600 })))
  whole.catch(() => {})
  let callers = 0
  server.on('connection', (caller) => {
    if (callers++ > 0) caller.destroy()
  })
  server.listen(socketPath)
  await once(server, 'listening')
  return { whole, close: async () => {
    const gone = once(server, 'close')
    server.close()
    await gone
  } }
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
  await qmp.call('migrate', { uri: `unix:${JAIL_PATHS.directory}/${STATE_SOCKET}` })
  for (;;) {
    const { status, 'error-desc': why } = ((await qmp.call('query-migrate')) ?? {}) as { status?: unknown; 'error-desc'?: unknown }
    if (status === 'completed') return
    if (status === 'failed' || status === 'cancelled') throw new Error(`saving the template ${status}${typeof why === 'string' ? `: ${cleanMessage(why)}` : ''}`)
    await new Promise((done) => setTimeout(done, 20))
  }
}

/**
 * One question at a time to QEMU's monitor (QEMU, docs/interop/qmp-spec): lines of JSON. An image's file system is mounted in that machine, so QEMU may be anybody's: whatever it says that is no answer ends the conversation, and
 * nothing it says ends more than that.
 */
export class Qmp {
  private text = ''
  private waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void } | undefined
  private broken: Error | undefined

  constructor(private readonly socket: Duplex) {
    socket.on('error', (error) => this.end(error))
    socket.on('data', (chunk: Buffer) => {
      if (this.broken) return
      try {
        this.take(chunk)
      } catch (error) {
        this.end(error instanceof Error ? error : new Error(String(error)))
      }
    })
  }

  private take(chunk: Buffer): void {
    const text = chunk.toString('latin1') // a byte a character: where it is cut does not matter
    let begin = 0
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', begin)) {
      this.keep(text.slice(begin, end))
      const line = this.text
      this.text = ''
      this.line(Buffer.from(line, 'latin1').toString('utf8'))
      begin = end + 1
    }
    this.keep(text.slice(begin))
  }

  private keep(text: string): void {
    this.text += text
    if (this.text.length > MAX_LINE) throw new Error(`QEMU said more than ${MAX_LINE} bytes in a line`)
  }

  /** Keeps nothing: what waits, and whoever asks later, has the reason. */
  private end(error: Error): void {
    this.broken ??= error
    this.text = ''
    this.socket.destroy()
    this.waiting?.reject(this.broken)
  }

  private line(line: string): void {
    let answer: unknown
    try {
      answer = JSON.parse(line)
    } catch {
      throw new Error('QEMU said what is no JSON')
    }
    if (typeof answer !== 'object' || answer === null) throw new Error('QEMU said what is no answer')
    const { error } = answer as { error?: unknown }
    if (error !== undefined) this.waiting?.reject(new Error(refusal(error)))
    else if ('return' in answer) this.waiting?.resolve(answer.return)
  }

  call(execute: string, args?: object): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.broken) return reject(this.broken)
      this.waiting = { resolve, reject }
      this.socket.write(`${JSON.stringify({ execute, ...(args === undefined ? {} : { arguments: args }) })}\n`)
    })
  }
}

function refusal(error: unknown): string {
  const desc = typeof error === 'object' && error !== null && 'desc' in error ? error.desc : undefined
  return (typeof desc === 'string' && cleanMessage(desc)) || 'QEMU refused'
}
