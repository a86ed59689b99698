import { spawn, type ChildProcess } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { runOk } from '../../../src/base/run.js'
import { Client, encode, T, text, type Pairs } from './frames.js'

const root = resolve(import.meta.dirname, '../../..')
/** Where `make -C guest` and `make -C guest kernel` put their results. */
const built = process.env['HULL_GUEST_DIR'] ?? join(root, 'build/guest')
/** Another QEMU than the system's: the program and its first arguments, separated by spaces. */
const emulator = (process.env['HULL_QEMU'] ?? 'qemu-system-x86_64').split(' ')

const machineType = 'q35,smm=off,sata=off,smbus=off,vmport=off,usb=off,hpet=off,i8042=off,graphics=off'
const kernelLine =
  'quiet reboot=t panic=-1 random.trust_cpu=on tsc=reliable no_timer_check cryptomgr.notests mitigations=off ' +
  'rcupdate.rcu_expedited=1 nokaslr numa=off audit=0 apparmor=0 selinux=0 lsm= 8250.nr_uarts=0 nomodeset raid=noautodetect lpj=4000000'

export const dockerCaps = ['CHOWN', 'DAC_OVERRIDE', 'FSETID', 'FOWNER', 'MKNOD', 'NET_RAW', 'SETGID', 'SETUID', 'SETFCAP', 'SETPCAP',
  'NET_BIND_SERVICE', 'SYS_CHROOT', 'KILL', 'AUDIT_WRITE']

/** What every process of these tests has. */
export function processPairs(args: string[], more: Pairs = []): Pairs {
  return [
    ...args.map((arg): [string, string] => ['arg', arg]),
    ['env', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
    ...dockerCaps.map((cap): [string, string] => ['cap', `CAP_${cap}`]),
    ...more,
  ]
}

/** A temporary directory with a busybox image and helpers to make disks and machines; `remove` in afterAll. */
export class Lab {
  readonly dir = mkdtempSync(join(tmpdir(), 'hull-guest-'))
  readonly image = join(this.dir, 'image.erofs')
  private readonly machines: Machine[] = []
  private count = 0

  /** Makes the image: busybox with its links, users root and alice, and files that cannot be executed. */
  async prepare(): Promise<void> {
    for (const file of ['agent', 'hull-vmm', 'vmlinux', 'initrd.cpio'])
      if (!existsSync(join(built, file))) throw new Error(`${join(built, file)} is missing: make -C guest all kernel KERNEL_TREE=…`)
    const tree = join(this.dir, 'image')
    for (const dir of ['bin', 'etc', 'tmp', 'usr/bin', 'home/alice', 'root', 'data']) mkdirSync(join(tree, dir), { recursive: true })
    copyFileSync('/bin/busybox', join(tree, 'bin/busybox'))
    const list = await runOk('/bin/busybox', ['--list'])
    for (const name of list.stdout.trim().split('\n')) if (name !== 'busybox') symlinkSync('busybox', join(tree, 'bin', name))
    writeFileSync(join(tree, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:A:/home/alice:/bin/sh\n')
    writeFileSync(join(tree, 'etc/group'), 'root:x:0:\nalice:x:1001:\nstaff:x:50:alice\nvideo:x:44:\n')
    writeFileSync(join(tree, 'bin/plain'), 'echo no\n', { mode: 0o644 })
    writeFileSync(join(tree, 'bin/garbage'), '\x01\x02\x03\x04', { mode: 0o755 })
    writeFileSync(join(tree, 'bin/orphan'), '#!/no/such/interpreter\n', { mode: 0o755 })
    symlinkSync('/proc/../../../../etc/passwd', join(tree, 'etc/climb'))
    await runOk('chmod', ['1777', join(tree, 'tmp')])
    await runOk('chown', ['-R', '1000:1001', join(tree, 'home/alice')])
    await runOk('mkfs.erofs', ['-E', 'noinline_data', this.image, tree])
    rmSync(tree, { recursive: true })
  }

  async disk(): Promise<string> {
    const path = join(this.dir, `disk-${this.count++}.img`)
    await runOk('truncate', ['-s', '256M', path])
    await runOk('mkfs.ext4', ['-q', '-F', path])
    return path
  }

  async boot(options: BootOptions): Promise<Machine> {
    const dir = join(this.dir, `vm-${this.count++}`)
    mkdirSync(dir)
    const machine = new Machine(dir, this.image, options.disk ?? (await this.disk()), options)
    this.machines.push(machine)
    return machine
  }

  remove(): void {
    for (const machine of this.machines) machine.kill()
    rmSync(this.dir, { recursive: true, force: true })
  }
}

export interface BootOptions {
  args: string[]
  /** Added to RUN. */
  run?: Pairs
  /** Added to CONFIG. */
  config?: Pairs
  /** stdin is a pipe and RUN says stdin=1. */
  stdin?: boolean
  disk?: string
  /** MiB */
  memory?: number
  /** More of QEMU's arguments. */
  qemu?: string[]
  /** Stands for QEMU and all its arguments. */
  command?: string[]
  bootTimeout?: number
  /** Written instead of the frames that the other options make. */
  configFrames?: Buffer
  runFrames?: Buffer
  /** rehearse.frames: the machine is made ahead, {@link Machine.putFrames} gives it its workload. */
  ahead?: Buffer
}

/** One hull-vmm with its QEMU. */
export class Machine {
  readonly process: ChildProcess
  readonly exited: Promise<number>
  /** Writes config.frames and run.frames. */
  readonly putFrames: () => void
  private readonly out: Buffer[] = []
  private readonly err: Buffer[] = []
  private readonly clients: Client[] = []
  readonly startedAt = performance.now()

  constructor(readonly dir: string, image: string, readonly disk: string, options: BootOptions) {
    // of a key that is there twice the first counts
    const config: Pairs = [...(options.config ?? []), ['hostname', 'box'], ['etc_hosts', '127.0.0.1 localhost\n'], ['etc_hostname', 'box\n'], ['etc_resolv', 'nameserver 192.0.2.53\n'],
      ['net', 'none'], ['root', '/dev/vda'], ['disk', '/dev/vdb'],
      ...['/proc/kcore', '/proc/keys', '/proc/timer_list', '/proc/acpi', '/sys/firmware'].map((path): [string, string] => ['masked', path]),
      ...['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'].map((path): [string, string] => ['ropath', path])]
    const run = processPairs(options.args, [...(options.stdin ? [['stdin', 1] as [string, number]] : []), ...(options.run ?? [])])
    this.putFrames = () => {
      writeFileSync(join(dir, 'config.frames'), options.configFrames ?? encode(T.CONFIG, text(config), 0))
      writeFileSync(join(dir, 'run.frames'), options.runFrames ?? encode(T.RUN, text(run), 1))
    }
    if (options.ahead) writeFileSync(join(dir, 'rehearse.frames'), options.ahead)
    else this.putFrames()
    const qemu = options.command ?? [...emulator, '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-M', machineType,
      '-accel', 'tcg,tb-size=64', '-cpu', 'Nehalem,+rdrand', '-m', String(options.memory ?? 256), '-smp', '1',
      '-device', 'virtio-serial-pci', '-chardev', 'socket,id=agent,fd=20', '-device', 'virtserialport,chardev=agent,name=hull',
      '-drive', `file=${image},if=none,id=d0,format=raw,readonly=on`, '-device', 'virtio-blk-pci,drive=d0',
      '-drive', `file=${disk},if=none,id=d1,format=raw,cache=unsafe`, '-device', 'virtio-blk-pci,drive=d1',
      ...(options.qemu ?? []),
      '-kernel', join(built, 'vmlinux'), '-initrd', join(built, 'initrd.cpio'), '-append', kernelLine]
    this.process = spawn(join(built, 'hull-vmm'), ['--dir', dir, '--landlock', '0', '--boot-timeout', String(options.bootTimeout ?? 60), ...(options.ahead ? ['--ahead', '1'] : []), '--', ...qemu],
      { stdio: [options.stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'] })
    this.process.stdin?.on('error', () => {})
    this.process.stdout!.on('data', (data: Buffer) => this.out.push(data))
    this.process.stderr!.on('data', (data: Buffer) => this.err.push(data))
    this.exited = new Promise((done) => this.process.on('close', (code, signal) => done(code ?? (signal === 'SIGKILL' ? 137 : 255))))
  }

  get stdout(): Buffer {
    return Buffer.concat(this.out)
  }

  get stderr(): Buffer {
    return Buffer.concat(this.err)
  }

  async client(): Promise<Client> {
    const client = await Client.open(join(this.dir, 'ctl.sock'))
    this.clients.push(client)
    return client
  }

  /** Waits until the workload runs. */
  async started(): Promise<Record<string, string>> {
    const client = await this.client()
    client.send(T.WAIT_START)
    const frame = await client.next()
    client.close()
    if (frame?.type !== T.STARTED) throw new Error(`not started: ${frame?.payload.toString() ?? 'connection closed'}`)
    return {}
  }

  /** Runs a command to its end by an exec session. */
  async exec(args: string[], more: Pairs = [], stdin?: string | Buffer) {
    const client = await this.client()
    client.send(T.EXEC, processPairs(args, [...(stdin === undefined ? [] : [['stdin', 1] as [string, number]]), ...more]))
    if (stdin !== undefined) {
      client.send(T.STDIN, Buffer.from(stdin))
      client.send(T.STDIN_EOF)
    }
    const result = await client.collect()
    client.close()
    return { ...result, out: result.stdout.toString(), err: result.stderr.toString() }
  }

  async status(): Promise<string> {
    return readFileSync(join(this.dir, 'status'), 'utf8')
  }

  /** Waits until stdout contains the text. */
  async output(wanted: string): Promise<string> {
    for (let i = 0; i < 3000 && !this.stdout.includes(wanted); i++) await new Promise((done) => setTimeout(done, 10))
    if (!this.stdout.includes(wanted)) throw new Error(`no ${JSON.stringify(wanted)} in ${this.stdout.toString()} ${this.stderr.toString()}`)
    return this.stdout.toString()
  }

  kill(): void {
    for (const client of this.clients) client.close()
    this.process.kill('SIGKILL')
  }
}
