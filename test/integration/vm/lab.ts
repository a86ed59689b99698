import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { mkdtemp, readFile, readdir, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { runOk } from '../../../src/base/run.js'
import { diskContent, Disks } from '../../../src/storage/disk.js'
import { IMAGE_SLOTS } from '../../../src/sandbox/vm/qemu.js'
import { VmDriver, type VmDriverOptions } from '../../../src/sandbox/vm/driver.js'
import type { ProcessSpec, WorkloadSpec } from '../../../src/sandbox/types.js'

/** bytes */
const DISK = 1 << 28
const here = new URL('../../../', import.meta.url).pathname

/** A place of its own for one test file: directories, an image, a driver, and the look for what is left. */
export class Lab {
  private counter = 0
  private readonly drivers: VmDriver[] = []
  private readonly disks: Promise<Disks>

  private constructor(
    readonly directory: string,
    readonly cgroupParent: string,
    readonly image: string,
  ) {
    this.disks = Disks.open(join(directory, 'data'), DISK)
  }

  static async make(): Promise<Lab> {
    const directory = await mkdtemp(join(tmpdir(), 'hull-vm-'))
    const root = join(directory, 'root')
    for (const path of ['bin', 'etc', 'tmp', 'dev', 'proc', 'sys', 'home/user']) mkdirSync(join(root, path), { recursive: true })
    copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
    const { stdout } = await runOk('/bin/busybox', ['--list'])
    for (const applet of stdout.split('\n').filter((name) => name !== '' && name !== 'busybox')) symlinkSync('busybox', join(root, 'bin', applet))
    writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n')
    writeFileSync(join(root, 'etc/group'), 'root:x:0:\nuser:x:1000:\n')
    writeFileSync(join(root, 'bin/noexec'), '#!/bin/sh\n', { mode: 0o644 })
    const image = join(directory, 'image.erofs')
    await runOk('mkfs.erofs', ['-Enoinline_data', image, root])
    await truncate(image, IMAGE_SLOTS[0])
    return new Lab(directory, `/hull-vm-test-${directory.slice(-6)}`, image)
  }

  driver(options: Partial<VmDriverOptions> = {}): VmDriver {
    const driver = new VmDriver({
      dataRoot: join(this.directory, 'data'),
      execRoot: join(this.directory, 'exec'),
      guestDir: process.env.HULL_GUEST_DIR ?? join(here, 'build/guest'),
      erofsFor: async () => this.image,
      disks: {
        usual: DISK,
        make: async (path, size, uid, content) => (await this.disks).create(path, size, uid, uid, content),
        content: diskContent,
      },
      cgroupParent: this.cgroupParent,
      ownTemplateAfter: Infinity, // nothing is made that a test does not ask for
      ...options,
    })
    this.drivers.push(driver)
    return driver
  }

  process(args: string[], more: Partial<ProcessSpec> = {}): ProcessSpec {
    return { args, env: [], cwd: '/', user: '', groupAdd: [], tty: false, privileged: false, ...more }
  }

  /** A workload on no network. Each call is another container. */
  spec(args: string[], more: Partial<WorkloadSpec> = {}): WorkloadSpec {
    const id = (++this.counter).toString(16).padStart(4, '0') + process.pid.toString(16).padStart(8, '0') + 'f'.repeat(52)
    const stateDir = join(this.directory, 'data/containers', id)
    mkdirSync(stateDir, { recursive: true })
    return {
      id, name: `vm${this.counter}`, process: this.process(args), openStdin: false, stdinOnce: false, hostname: id.slice(0, 12), domainname: '',
      layers: [], chainId: 'sha256:0', readOnlyRootfs: false, mounts: [],
      resources: {
        memory: 0, memorySwap: 0, memoryReservation: 0, nanoCpus: 0, cpuShares: 0, cpuPeriod: 0, cpuQuota: 0, cpusetCpus: '', cpusetMems: '', pidsLimit: 0,
        ulimits: [], oomKillDisable: false, oomScoreAdj: 0, blkioWeight: 0,
      },
      network: { mode: 'none' }, init: false, privileged: false, capAdd: [], capDrop: [], noNewPrivileges: false, seccomp: 'default', sysctls: {}, shmSize: 0,
      files: { hosts: '127.0.0.1 localhost\n', hostname: `${id.slice(0, 12)}\n`, resolvConf: 'nameserver 192.0.2.1\n' },
      runtime: '', maskedPaths: ['/proc/kcore'], readonlyPaths: ['/proc/sys'], cgroupParent: '', logPath: join(stateDir, 'log'), stateDir,
      runDir: join(this.directory, 'exec/containers', id),
      ...more,
    }
  }

  async remove(): Promise<void> {
    for (const driver of this.drivers) await driver.endMaintenance() // templates that are being made
    await rm(this.directory, { recursive: true, force: true })
    for (const controller of await readdir('/sys/fs/cgroup')) {
      await rm(join('/sys/fs/cgroup', controller, this.cgroupParent), { recursive: false }).catch(() => {})
      const { rmdir } = await import('node:fs/promises')
      await rmdir(join('/sys/fs/cgroup', controller, this.cgroupParent)).catch(() => {})
    }
  }

  /** Everything of ours that the kernel or the disk still has: processes, mounts, cgroups, files of a run. Sorted lines. */
  async leftovers(): Promise<string[]> {
    const found: string[] = []
    for (const line of (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')) if (line.includes(this.directory)) found.push(`mount ${line.split(' ')[4]}`)
    for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
      const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
      const cgroup = await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '')
      if (text.includes(`${this.directory}/exec`) || cgroup.includes(this.cgroupParent)) found.push(`process ${text.replaceAll('\0', ' ').slice(0, 80)}`)
    }
    for (const controller of await readdir('/sys/fs/cgroup')) {
      for (const name of await readdir(join('/sys/fs/cgroup', controller, this.cgroupParent)).catch(() => [])) {
        if (/^[0-9a-f]{64}$/.test(name)) found.push(`cgroup ${controller}/${name}`)
      }
    }
    for (const part of ['exec/runtime/crun', 'exec/exits']) {
      for (const name of await readdir(join(this.directory, part)).catch(() => [])) found.push(`file ${part}/${name}`)
    }
    for (const id of await readdir(join(this.directory, 'exec/containers')).catch(() => [])) {
      found.push(`directory containers/${id.slice(0, 4)}`)
    }
    return found.sort()
  }
}

/** Reads a stream in Docker's multiplexed framing to its end. */
export async function readFramed(stream: Duplex): Promise<{ stdout: string; stderr: string }> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  let bytes = Buffer.concat(chunks)
  const out: Buffer[][] = [[], [], []]
  while (bytes.length >= 8) {
    const length = bytes.readUInt32BE(4)
    out[bytes[0]!]!.push(bytes.subarray(8, 8 + length))
    bytes = bytes.subarray(8 + length)
  }
  return { stdout: Buffer.concat(out[1]!).toString(), stderr: Buffer.concat(out[2]!).toString() }
}

/** The messages of a CRI log, stream by stream. */
export async function readLog(path: string): Promise<{ stdout: string; stderr: string }> {
  const result = { stdout: '', stderr: '' }
  for (const line of (await readFile(path, 'utf8')).split('\n')) {
    const match = /^\S+ (stdout|stderr) ([FP]) (.*)$/.exec(line)
    if (match) result[match[1] as 'stdout' | 'stderr'] += match[3]! + (match[2] === 'F' ? '\n' : '')
  }
  return result
}
