import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync } from 'node:fs'
import { mkdir, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { diskContent, Disks } from '../../src/storage/disk.js'
import { ensureJailRoot, findVmParts, LIBRARIES } from '../../src/sandbox/vm/jailroot.js'
import { AcceleratorProbe } from '../../src/sandbox/vm/probe.js'
import { encodeFrames, FrameParser, FrameType } from '../../src/sandbox/vm/protocol.js'
import { IMAGE_SLOTS, JAIL_PATHS, qemuArguments } from '../../src/sandbox/vm/qemu.js'
import { DEFAULT_RAM } from '../../src/sandbox/vm/resources.js'
import { Templates, type TemplateShape } from '../../src/sandbox/vm/templates.js'
import { until } from '../../test/lib/daemon.js'

/**
 * Machines that are restored from a template and seeded, and have no workload: QEMU alone, without jail, supervisor and network card. What of a VM is there before anybody's program is.
 */
export class BareMachines {
  readonly children: ChildProcess[] = []

  private constructor(
    private readonly clone: () => Promise<ChildProcess>,
    private readonly templates: Templates,
  ) {}

  static async make(directory: string, guestDir: string): Promise<BareMachines> {
    await mkdir(directory, { recursive: true, mode: 0o711 })
    const parts = await findVmParts(guestDir)
    const [jailRoot, choice, disks] = await Promise.all([ensureJailRoot(directory, parts), new AcceleratorProbe(join(directory, 'accelerator.json')).choose(parts), Disks.open(directory, 2 ** 30)])
    const image = join(directory, 'image')
    await writeFile(image, '')
    await truncate(image, IMAGE_SLOTS[0])
    const { accelerator, tscKhz } = choice
    const shape: TemplateShape = { accelerator, ...(tscKhz === undefined ? {} : { tscKhz }), vcpus: 1, ram: DEFAULT_RAM + IMAGE_SLOTS[0] / 64, network: false, image: IMAGE_SLOTS[0], disk: 2 ** 30 }
    const templates = new Templates(join(directory, 'templates'), { usual: 2 ** 30, make: (path, size, uid, content) => disks.create(path, size, uid, uid, content), content: diskContent })
    const inJail = (path: string) => join(jailRoot, path)
    const take = () => templates.take(shape, jailRoot)
    const first = await until('a template is made', take, 120_000)
    closeSync(first.state)
    closeSync(first.memory)
    let count = 0
    return new BareMachines(async () => {
      const template = (await take())!
      const disk = join(directory, `disk-${count++}`)
      await disks.create(disk, 2 ** 30, 0, 0, template.disk)
      const args = qemuArguments({
        accelerator, ...(tscKhz === undefined ? {} : { tscKhz }), vcpus: shape.vcpus, ram: shape.ram, kernel: parts.kernel, initrd: parts.initrd, firmware: inJail(JAIL_PATHS.firmware), agentFd: 3,
        image, imageSlot: shape.image, disk, memory: { use: 'clone', path: '/proc/self/fd/6', qmpFd: 4 },
      })
      // The jail's own copies of QEMU and its libraries, some of which are disarmed.
      const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', inJail(JAIL_PATHS.qemu), ...args], {
        stdio: ['ignore', 'ignore', 'inherit', 'pipe', 'pipe', template.state, template.memory],
        env: { PATH: '/usr/bin:/bin', LD_LIBRARY_PATH: inJail(LIBRARIES), QEMU_MODULE_DIR: inJail(JAIL_PATHS.modules) },
      })
      closeSync(template.state)
      closeSync(template.memory)
      return child
    }, templates)
  }

  /** One more; resolves when it has confirmed its seed. Milliseconds. */
  async add(): Promise<number> {
    const started = performance.now()
    const child = await this.clone()
    this.children.push(child)
    const gone = new Promise<never>((_, reject) => child.once('exit', (code) => reject(new Error(`QEMU ended with ${code}`))))
    gone.catch(() => {})
    await Promise.race([restore(child.stdio[4] as Duplex), gone])
    await Promise.race([seed(child.stdio[3] as Duplex), gone])
    return performance.now() - started
  }

  async end(): Promise<void> {
    await Promise.all(this.children.map((child) => new Promise((done) => {
      child.once('exit', done)
      child.kill('SIGKILL')
    })))
    await this.templates.close()
  }
}

/** As hull-vmm does it (guest/vmm_qmp.c). */
async function restore(qmp: Duplex): Promise<void> {
  const steps = [
    { execute: 'qmp_capabilities' },
    { execute: 'migrate-set-capabilities', arguments: { capabilities: [{ capability: 'x-ignore-shared', state: true }] } },
    { execute: 'migrate-incoming', arguments: { uri: 'fd:5' } },
  ]
  await new Promise<void>((resolve, reject) => {
    let text = ''
    qmp.on('error', reject)
    qmp.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = text.slice(0, end)
        text = text.slice(end + 1)
        if (line.startsWith('{"error"')) reject(new Error(line))
        if (!line.startsWith('{"QMP"') && !line.startsWith('{"return"')) continue
        const next = steps.shift()
        if (next) qmp.write(`${JSON.stringify(next)}\n`)
        else resolve()
      }
    })
  })
}

/** SEED, and SEEDED for an answer (guest/PROTOCOL.md). */
async function seed(agent: Duplex): Promise<void> {
  const payload = Buffer.alloc(76)
  payload.writeBigUInt64LE(BigInt(Math.floor(Date.now() / 1000)), 0)
  randomBytes(64).copy(payload, 12)
  const answered = new Promise<void>((resolve, reject) => {
    const parser = new FrameParser()
    agent.on('error', reject)
    agent.on('data', (chunk: Buffer) => parser.push(chunk, (frame) => {
      if (frame.type === FrameType.SEEDED) resolve()
    }))
  })
  agent.write(encodeFrames(FrameType.SEED, 0, payload))
  await answered
}
