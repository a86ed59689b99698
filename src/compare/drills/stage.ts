import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'

/** The program that is tried in containers, and plants on the host. */
export const program = fileURLToPath(new URL('../../../build/hull-drills', import.meta.url))
/** ms */
const PLANTED_WITHIN = 15_000
const GONE_WITHIN = 5000

const planted = z.strictObject({ device: z.string().regex(/^(\d{1,4}:\d{1,7})?$/), why: z.string().exactOptional(), log: z.string() })

/**
 * What the host plants for the drills: a process, a line in the kernel's log, a disk of memory. All but the line goes with a child process, which goes with us: it reads a pipe of ours to
 * its end. So there is nothing to clean up, whatever ends this process.
 */
export class Stage {
  private constructor(
    private readonly child: ChildProcess,
    /** What it all is called. */
    readonly token: string,
    /** The host's boot id. */
    readonly boot: string,
    /** 'MAJOR:MINOR', '': there is no disk. */
    readonly device: string,
    /** Why something is not there; '': it is. */
    readonly missing: { device: string; log: string },
  ) {}

  static async open(signal: AbortSignal): Promise<Stage> {
    const token = `hd-${randomBytes(6).toString('hex')}`
    const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    const child = spawn(program, ['host', token], { stdio: ['pipe', 'pipe', 'ignore'] })
    try {
      const line = await new Promise<string>((resolve, reject) => {
        const timer = AbortSignal.any([signal, AbortSignal.timeout(PLANTED_WITHIN)])
        timer.addEventListener('abort', () => reject(timer.reason as Error), { once: true })
        let text = ''
        child.once('error', reject).once('close', () => reject(new Error('hull-drills ended before it had planted anything')))
        child.stdin.on('error', () => {})
        child.stdout.on('data', (chunk: Buffer) => {
          text += chunk.toString('latin1')
          if (text.includes('\n') || text.length > 4096) resolve(text)
        })
      })
      const { device, why, log } = planted.parse(JSON.parse(line))
      return new Stage(child, token, boot, device, { device: why ?? '', log: log === '' ? '' : `the host's log cannot be written: ${log}` })
    } catch (error) {
      child.kill('SIGKILL')
      throw error
    }
  }

  /** Takes all away that can be taken away. */
  async close(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const gone = new Promise<void>((resolve) => this.child.once('exit', () => resolve()))
    this.child.stdin?.end()
    const timer = setTimeout(() => this.child.kill('SIGKILL'), GONE_WITHIN)
    await gone
    clearTimeout(timer)
  }
}
