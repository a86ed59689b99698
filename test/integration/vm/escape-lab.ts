import { spawn, spawnSync, type ChildProcessByStdio } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { runOk } from '../../../src/base/run.js'

/** System calls of x86-64 by name, as the kernel's header has them. */
export const CALLS = new Map(
  [...readFileSync(['/usr/include/x86_64-linux-gnu/asm/unistd_64.h', '/usr/include/asm/unistd_64.h'].find((path) => existsSync(path))!, 'utf8').matchAll(/^#define __NR_(\w+) (\d+)$/gm)].map((match) => [match[1]!, Number(match[2])]),
)
/** EWOULDBLOCK is EAGAIN's other name. */
const ERRORS = new Map(Object.entries(constants.errno).filter(([name]) => name !== 'EWOULDBLOCK').map(([name, number]) => [number, name]))

/** Whether this host's kernel answers 32-bit programs at all: without IA32 emulation (`ia32_emulation=off`) their way in is not there, and int 0x80 is SIGSEGV before any filter is asked. */
export function answers32Bit(): boolean {
  const source = 'int main(void) { long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory"); return r <= 0; }'
  const { status } = spawnSync('sh', ['-c', 'd=$(mktemp -d) && echo "$0" > "$d/x.c" && gcc -o "$d/x" "$d/x.c" && "$d/x"; code=$?; rm -rf "$d"; exit $code', source], { stdio: 'ignore' })
  return status === 0
}

/** What a call is given: a number, a text (with its NUL) or bytes in the process's memory, or room for an answer. */
export type Argument = number | string | Buffer

/** Bytes of scratch memory that one argument has. */
const SLOT = 4096

/** Another process, which does the system calls that it is told (escape-puppet.c). */
export class Puppet {
  private static readonly held = new Set<Puppet>()
  private readonly lines: AsyncIterator<string>
  /** Of the process, on the host. */
  pid = 0

  private constructor(private readonly helper: ChildProcessByStdio<Writable, Readable, null>) {
    this.lines = createInterface({ input: helper.stdout })[Symbol.asyncIterator]()
  }

  static async build(directory: string): Promise<string> {
    const program = join(directory, 'escape-puppet')
    await runOk('gcc', ['-O1', '-Wall', '-Werror', '-o', program, join(import.meta.dirname, 'escape-puppet.c')])
    return program
  }

  /** `attach`: a process that runs. `exec`: what that process, which is about to be started, will start; `release` lets it. */
  static async take(program: string, how: 'attach' | 'exec', pid: number, release?: () => void): Promise<Puppet> {
    const puppet = new Puppet(spawn(program, [how, String(pid)], { stdio: ['pipe', 'pipe', 'inherit'] }))
    Puppet.held.add(puppet)
    if (how === 'exec') {
      await puppet.expect('waiting')
      release?.()
    }
    puppet.pid = Number((await puppet.expect('ready')).split(' ')[1])
    return puppet
  }

  private async line(): Promise<string> {
    const next = await this.lines.next()
    if (next.done) throw new Error('the puppet’s strings are cut')
    return next.value
  }

  private async expect(word: string): Promise<string> {
    const line = await this.line()
    if (!line.startsWith(word)) throw new Error(`puppet: ${line}`)
    return line
  }

  private async order(text: string): Promise<string> {
    this.helper.stdin.write(`${text}\n`)
    return this.line()
  }

  /** Its result, or the name of its error, or 'killed SIGNAL'. Texts and buffers lie in slots by their place among the arguments. */
  async call(name: string | number, ...args: Argument[]): Promise<number | string> {
    return this.make('c', name, args)
  }

  /** The same by the 32-bit entry. */
  async call32(number: number, ...args: Argument[]): Promise<number | string> {
    return this.make('i', number, args)
  }

  private async make(entry: 'c' | 'i', name: string | number, args: Argument[]): Promise<number | string> {
    const number = typeof name === 'number' ? name : CALLS.get(name)
    if (number === undefined) throw new Error(`no system call ${name}`)
    const words: string[] = []
    for (const [index, arg] of args.entries()) {
      if (typeof arg === 'number') words.push(String(arg))
      else {
        const bytes = typeof arg === 'string' ? Buffer.from(`${arg}\0`) : arg
        await this.order(`w ${index * SLOT} ${bytes.toString('hex')}`)
        words.push(`@${index * SLOT}`)
      }
    }
    const answer = await this.order(`${entry} ${number} ${words.join(' ')}`)
    const value = Number(answer)
    if (Number.isNaN(value)) return answer
    return value < 0 && value > -4096 ? (ERRORS.get(-value) ?? `errno ${-value}`) : value
  }

  /** What lies in the slot of an argument after a call. */
  async memory(index: number, size: number): Promise<Buffer> {
    return Buffer.from(await this.order(`r ${index * SLOT} ${size}`), 'hex')
  }

  /** Its open descriptors by /proc/self/fd: readlink needs no right but that to the process itself. */
  async descriptors(): Promise<Map<number, string>> {
    const found = new Map<number, string>()
    for (let fd = 0; fd < 128; fd++) {
      const size = await this.call('readlink', `/proc/self/fd/${fd}`, Buffer.alloc(256), 256)
      if (typeof size === 'number') found.set(fd, (await this.memory(1, size)).toString())
    }
    return found
  }

  /** It goes on as if nothing had been. */
  async release(): Promise<void> {
    this.helper.stdin.write('end\n')
    await this.expect('done')
    Puppet.held.delete(this)
  }

  /** Lets go of all that are still held, whatever becomes of them: who is traced and killed does not end while the tracer does not look. */
  static dropAll(): void {
    for (const puppet of Puppet.held) puppet.helper.kill('SIGKILL')
    Puppet.held.clear()
  }
}

/** struct sockaddr_un; a name that begins with NUL is abstract. */
export function unixAddress(name: string): Buffer {
  const address = Buffer.alloc(110)
  address.writeUInt16LE(1, 0)
  address.write(name, 2)
  return address
}

/** struct rlimit. */
export function limit(soft: bigint, hard: bigint): Buffer {
  const bytes = Buffer.alloc(16)
  bytes.writeBigUInt64LE(soft, 0)
  bytes.writeBigUInt64LE(hard, 8)
  return bytes
}
