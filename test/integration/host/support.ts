import { execFileSync, spawn } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { detectCgroups } from '../../../src/host/cgroup-layout.js'
import { Cgroup } from '../../../src/host/cgroup.js'

const monitorPath = fileURLToPath(new URL('../../../build/hull-monitor', import.meta.url))

/** A directory of this test's own, without other users' rights. */
export function temporary(): string {
  return mkdtempSync(join(tmpdir(), 'hull-host-'))
}

/** Everything that a stream gives until it closes. An error is one. */
export function collect(stream: Duplex): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    stream.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', reject).on('close', () => resolve(Buffer.concat(chunks)))
  })
}

/** Takes Docker's framing apart; throws when it is not whole. */
export function demultiplex(data: Buffer): { out: string; err: string } {
  const streams = ['', '', '']
  for (let at = 0; at < data.length; ) {
    const [stream, a, b, c] = data.subarray(at, at + 4)
    const length = data.readUInt32BE(at + 4)
    if ((stream !== 1 && stream !== 2) || a || b || c || at + 8 + length > data.length || length === 0) throw new Error(`bad frame at ${at}`)
    streams[stream] += data.toString('latin1', at + 8, at + 8 + length)
    at += 8 + length
  }
  return { out: streams[1]!, err: streams[2]! }
}

export const descriptors = () => readdirSync('/proc/self/fd').length
export const threads = () => readdirSync('/proc/self/task').length

/** Waits until `probe` gives true; throws after `timeoutMs`. */
export async function eventually(probe: () => boolean | Promise<boolean>, timeoutMs = 5000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await probe())) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${probe.toString()}`)
    await sleep(10)
  }
}

/** The cgroup below which the containers of these tests live. */
export const cgroupParent = `/hull-test-host-${process.pid}`

/** Containers of real crun under hull-monitor, with busybox as their root file system. */
export class Containers {
  readonly base = temporary()
  readonly crun = join(this.base, 'crun.sh')
  #count = 0

  constructor() {
    // crun 1.8.1 refuses hosts with v1 and v2 side by side; it is content when it does not see the v2 tree.
    const hide = 'mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec crun --cgroup-manager=cgroupfs "$@"'
    writeFileSync(this.crun, `#!/bin/sh\nexec unshare -m sh -c '${hide}' -- "$@"\n`)
    chmodSync(this.crun, 0o755)
  }

  bundle(args: string[], tty: boolean): { id: string; path: string } {
    const id = `hullhost${process.pid}n${this.#count++}`
    const path = join(this.base, id)
    for (const directory of ['bin', 'proc', 'dev', 'tmp']) mkdirSync(join(path, 'rootfs', directory), { recursive: true })
    copyFileSync('/bin/busybox', join(path, 'rootfs/bin/busybox'))
    for (const applet of ['sh', 'cat', 'sleep', 'dd', 'stty', 'true']) symlinkSync('busybox', join(path, 'rootfs/bin', applet))
    const namespaces = ['pid', 'ipc', 'uts', 'mount', 'network'].map((type) => ({ type }))
    writeFileSync(join(path, 'config.json'), JSON.stringify({
      ociVersion: '1.0.0',
      process: { terminal: tty, user: { uid: 0, gid: 0 }, args, env: ['PATH=/bin'], cwd: '/' },
      root: { path: 'rootfs' },
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' }, { destination: '/dev', type: 'tmpfs', source: 'tmpfs' },
        { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['newinstance', 'ptmxmode=0666'] },
      ],
      linux: { namespaces, cgroupsPath: `${cgroupParent}/${id}` },
    }))
    return { id, path }
  }

  run(...args: string[]): Promise<number | null> {
    return new Promise((resolve, reject) => spawn(this.crun, args, { stdio: ['ignore', 'inherit', 'inherit'] }).on('error', reject).on('exit', resolve))
  }

  /** Up to "created" under hull-monitor; its attach socket is ready. */
  async create(args: string[], options: { tty?: boolean; stdin?: boolean } = {}): Promise<Container> {
    const { id, path } = this.bundle(args, options.tty ?? false)
    const monitor = spawn(monitorPath, [
      '--id', id, '--bundle', path, '--exit-dir', path, '--sync', '3', '--log', join(path, 'log'), ...(options.tty ? ['--console', join(path, 'console')] : []), ...(options.stdin === false ? [] : ['--stdin-once']), '--', this.crun,
    ], { stdio: ['ignore', 'inherit', 'inherit', 'pipe'] })
    let answer = ''
    for await (const chunk of monitor.stdio[3] as Duplex) answer += String(chunk)
    if (!answer.startsWith('+')) throw new Error(answer)
    return {
      id, pid: Number(answer.slice(1)), monitorPid: monitor.pid!, attach: join(path, 'attach'),
      start: async () => { if ((await this.run('start', id)) !== 0) throw new Error('crun start failed') },
      remove: async () => { await this.run('delete', '--force', id) },
    }
  }

  async close(): Promise<void> {
    await eventually(() => this.monitors().length === 0)
    rmSync(this.base, { recursive: true })
    await new Cgroup(await detectCgroups(), cgroupParent).remove()
  }

  private monitors(): string[] {
    return readdirSync('/proc').filter((pid) => {
      try {
        return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith(`${monitorPath}\0`) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(this.base)
      } catch {
        return false
      }
    })
  }
}

export interface Container {
  id: string
  pid: number
  monitorPid: number
  /** Path of the attach socket. */
  attach: string
  start(): Promise<void>
  remove(): Promise<void>
}

export const ip = (...args: string[]) => execFileSync('ip', args, { encoding: 'utf8' })
