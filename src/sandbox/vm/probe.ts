import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, readFile, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { constants } from 'node:fs'
import { release } from 'node:os'
import type { Duplex } from 'node:stream'
import { messageOf } from '../../base/errors.js'
import { readIfExists, sweepTemporaries, writeFileAtomic } from '../../base/files.js'
import { log } from '../../base/log.js'
import { measureTscKhz } from '../../host/clock.js'
import type { VmParts } from './jailroot.js'
import { cleanMessage, decodeText, FrameParser, FrameType, textMap } from './protocol.js'
import { qemuArguments, type Accelerator } from './qemu.js'
import { RAM_FLOOR } from './resources.js'

/** What {@link bootGuest} saw. */
export interface BootResult {
  ok: boolean
  /** Milliseconds from the start of QEMU to the agent's HELLO. */
  milliseconds: number
  /** HELLO's fields; absent when there was none. */
  kernel?: string
  agent?: string
  /** Why not. */
  reason?: string
  /** The guest was given up: on a machine that is busy enough it may come up another time. */
  timedOut?: boolean
}

/** The accelerator that VMs get, and why not a better one. */
export interface AcceleratorChoice {
  accelerator: Accelerator
  /** Empty for KVM. One line. */
  reason: string
  /** TCG: see {@link Machine} (qemu.ts). */
  tscKhz?: number
}

/**
 * Boots our kernel and agent with nothing else (no disk, no network) until the agent says HELLO, and ends it. No jail: kernel and agent are
 * our own and see no hostile byte; QEMU's seccomp filter is on.
 */
export async function bootGuest(parts: VmParts, accelerator: Accelerator, timeoutMs: number, console?: string): Promise<BootResult> {
  const started = process.hrtime.bigint()
  const elapsed = () => Number((process.hrtime.bigint() - started) / 1_000_000n)
  const args = qemuArguments({
    accelerator, vcpus: 1, ram: RAM_FLOOR, kernel: parts.kernel, initrd: parts.initrd, agentFd: 3,
    ...(console === undefined ? {} : { console }),
  })
  return new Promise<BootResult>((resolve) => {
    // Node makes 'pipe' a connected pair of stream sockets: just what a QEMU chardev by descriptor wants.
    // It dies with us (setpriv(1), PR_SET_PDEATHSIG): a guest that hangs on a bad KVM would otherwise outlive a daemon that is killed meanwhile.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', parts.qemu, ...args], { stdio: ['ignore', 'ignore', 'pipe', 'pipe'], env: { PATH: '/usr/bin:/bin' } })
    let words = ''
    let result: BootResult | undefined
    const decide = (decided: BootResult) => {
      result ??= decided
      child.kill('SIGKILL')
    }
    const timer = setTimeout(
      () => decide({ ok: false, milliseconds: elapsed(), timedOut: true, reason: `no sign of life from the guest within ${timeoutMs / 1000} seconds` }),
      timeoutMs,
    )
    const parser = new FrameParser()
    const agent = child.stdio[3] as Duplex
    agent.on('error', () => {}) // QEMU's end is seen by 'close'
    agent.on('data', (chunk: Buffer) => {
      try {
        parser.push(chunk, (frame) => {
          if (frame.type !== FrameType.HELLO) return
          const hello = textMap(decodeText(frame.payload))
          const field = (key: string) => cleanMessage(hello.get(key) ?? '')
          decide({ ok: true, milliseconds: elapsed(), kernel: field('kernel'), agent: field('agent') })
        })
      } catch (error) {
        decide({ ok: false, milliseconds: elapsed(), reason: messageOf(error) })
      }
    })
    child.stderr!.on('data', (chunk: Buffer) => {
      if (words.length < 4096) words += chunk.toString('utf8')
    })
    child.on('error', (error) => {
      clearTimeout(timer)
      resolve({ ok: false, milliseconds: elapsed(), reason: error.message })
    })
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      const why = cleanMessage(words.split('\n').filter((line) => line.trim() !== '')[0] ?? '')
      resolve(result ?? { ok: false, milliseconds: elapsed(), reason: why || `QEMU ended with ${signal ?? `exit code ${code}`} before the guest came up` })
    })
  })
}

interface Cached {
  key: string
  choice: AcceleratorChoice
  /** Milliseconds of the epoch after which the answer is no longer believed; absent: never. */
  until?: number
}

/**
 * Milliseconds that a guest on KVM gets to come up. It needs a fraction of a second, but 10 to 15 where the host is itself emulated, and "software emulation" is a bad answer to give a
 * user for a busy minute.
 */
export const KVM_TIMEOUT = 30_000
/** Milliseconds for which it is believed that KVM hangs: a host whose KVM does is not to wait for it with each restart of the daemon, one that was busy shall not stay without KVM until it boots. */
const TIMEOUT_BELIEVED = 3_600_000

/** Chooses the accelerator: KVM only when a guest really boots with it. */
export class AcceleratorProbe {
  private known: { key: string; found: Promise<Cached> } | undefined

  constructor(
    /** Where the answer is kept across restarts of the daemon; '' : nowhere. */
    private readonly cacheFile: string,
    private readonly device = '/dev/kvm',
    private readonly timeoutMs = KVM_TIMEOUT,
  ) {}

  /** The choice for these parts. Boots a guest at most once for each host boot, host kernel, QEMU and guest build, and again an hour after one that hung. */
  async choose(parts: VmParts): Promise<AcceleratorChoice> {
    const key = await this.key(parts)
    const { known } = this
    if (known?.key === key) {
      const found = await known.found
      if (!expired(found)) return found.choice
      if (this.known === known) this.known = undefined
    }
    if (this.known?.key !== key) {
      const found = this.find(parts, key)
      this.known = { key, found }
      found.catch(() => (this.known = undefined))
    }
    return (await this.known.found).choice
  }

  private async find(parts: VmParts, key: string): Promise<Cached> {
    const cached = await this.read()
    if (cached?.key === key && !expired(cached)) return cached
    const { timedOut, ...probed } = await this.probe(parts)
    // Here, since the answer is kept for this boot of the host: a figure that differed by a kilohertz would be another template.
    const tscKhz = probed.accelerator === 'tcg' ? await measureTscKhz() : undefined
    const choice = { ...probed, ...(tscKhz === undefined ? {} : { tscKhz }) }
    const until = timedOut ? { until: Date.now() + TIMEOUT_BELIEVED } : {}
    if (this.cacheFile !== '') {
      // Only a saved second: not being able to keep it must not stop anything.
      await writeFileAtomic(this.cacheFile, JSON.stringify({ key, ...choice, ...until })).catch((error: unknown) =>
        log.warn('cannot keep the result of the KVM probe', { path: this.cacheFile, error: messageOf(error) }),
      )
    }
    return { key, choice, ...until }
  }

  private async probe(parts: VmParts): Promise<AcceleratorChoice & { timedOut?: boolean }> {
    try {
      await access(this.device, constants.R_OK | constants.W_OK)
    } catch (error) {
      return { accelerator: 'tcg', reason: `${this.device} cannot be used: ${messageOf(error)}` }
    }
    const boot = await bootGuest(parts, 'kvm', this.timeoutMs)
    if (boot.ok) return { accelerator: 'kvm', reason: '' }
    return { accelerator: 'tcg', reason: `${this.device} exists but does not boot a guest: ${boot.reason ?? 'unknown'}`, ...(boot.timedOut ? { timedOut: true } : {}) }
  }

  private async read(): Promise<Cached | undefined> {
    if (this.cacheFile === '') return undefined
    await sweepTemporaries(dirname(this.cacheFile))
    try {
      const value: unknown = JSON.parse((await readIfExists(this.cacheFile)) ?? 'null')
      if (typeof value !== 'object' || value === null) return undefined
      const { key, accelerator, reason, tscKhz, until } = value as Record<string, unknown>
      if (typeof key !== 'string' || typeof reason !== 'string' || (accelerator !== 'kvm' && accelerator !== 'tcg')) return undefined
      if (tscKhz !== undefined && (typeof tscKhz !== 'number' || !Number.isInteger(tscKhz) || tscKhz <= 0)) return undefined
      if (until !== undefined && typeof until !== 'number') return undefined
      return { key, choice: { accelerator, reason, ...(tscKhz === undefined ? {} : { tscKhz }) }, ...(until === undefined ? {} : { until }) }
    } catch {
      return undefined // unreadable: probed again and written anew
    }
  }

  private async key(parts: VmParts): Promise<string> {
    const hash = createHash('sha256').update(`probe 2\n${release()}\n${await readFile('/proc/sys/kernel/random/boot_id', 'utf8')}`)
    for (const path of [parts.qemu, parts.kernel, parts.initrd, this.device]) {
      const s = await stat(path).catch(() => undefined)
      hash.update(`${path} ${s ? `${s.size} ${path === this.device ? s.rdev : s.mtimeMs} ${s.ino} ${s.mode}` : 'absent'}\n`)
    }
    return hash.digest('hex')
  }
}

/** Also when the clock was set back by more than the time that is believed. */
function expired({ until }: Cached): boolean {
  return until !== undefined && (Date.now() > until || until - Date.now() > TIMEOUT_BELIEVED)
}
