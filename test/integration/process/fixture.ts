import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, rmdirSync, existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cgroupHierarchies } from '../../../src/oci/cgroups.js'

/** A directory of one test file, with its own cgroup parent and a busybox root file system. */
export class Fixture {
  readonly directory = mkdtempSync(join(tmpdir(), 'hull-process-'))
  readonly cgroupParent = `/hull-test-${randomBytes(4).toString('hex')}`
  readonly exitDir = join(this.directory, 'exits')
  readonly runtimeRoot = join(this.directory, 'runtime')
  readonly layer = join(this.directory, 'layer')

  constructor() {
    for (const name of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev', 'root']) mkdirSync(join(this.layer, name), { recursive: true })
    execFileSync('cp', ['/bin/busybox', join(this.layer, 'bin/busybox')])
    execFileSync('chroot', [this.layer, '/bin/busybox', '--install', '-s', '/bin'])
  }

  id(): string {
    return randomBytes(32).toString('hex')
  }

  /** What must be as it was at the end: cgroups of ours, processes that have our directory in their command line, mounts below it. */
  leaks(): string[] {
    const found: string[] = []
    for (const hierarchy of cgroupHierarchies()) {
      const parent = hierarchy + this.cgroupParent
      if (existsSync(parent)) found.push(...readdirSync(parent, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => join(parent, entry.name)))
    }
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      try {
        if (Number(pid) !== process.pid && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(this.directory)) found.push(`process ${pid}: ${readFileSync(`/proc/${pid}/cmdline`, 'utf8')}`)
      } catch {
        // gone
      }
    }
    found.push(...readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter((line) => line.includes(this.directory)))
    for (const directory of [this.exitDir, this.runtimeRoot]) if (existsSync(directory)) found.push(...readdirSync(directory).map((name) => join(directory, name)))
    return found
  }

  remove(): void {
    for (const hierarchy of cgroupHierarchies()) {
      try {
        rmdirSync(hierarchy + this.cgroupParent)
      } catch {
        // was never made
      }
    }
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** Number of descriptors that this process has open. */
export const openDescriptors = () => readdirSync('/proc/self/fd').length

/** Everything that a stream says until it ends. */
export async function collect(stream: NodeJS.ReadableStream): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** Takes Docker's multiplexed framing apart. */
export function demultiplex(data: Buffer): { stdout: string; stderr: string } {
  const out: Record<number, Buffer[]> = { 1: [], 2: [] }
  for (let at = 0; at < data.length; ) {
    const length = data.readUInt32BE(at + 4)
    out[data[at]!]!.push(data.subarray(at + 8, at + 8 + length))
    at += 8 + length
  }
  return { stdout: Buffer.concat(out[1]!).toString(), stderr: Buffer.concat(out[2]!).toString() }
}
