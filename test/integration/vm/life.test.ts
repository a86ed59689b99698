import { readFile, stat } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Sandbox, WorkloadSpec } from '../../../src/sandbox/types.js'
import type { VmDriver } from '../../../src/sandbox/vm/driver.js'
import { Lab, readFramed, readLog } from './lab.js'

let lab: Lab
let driver: VmDriver
const made: { sandbox: Sandbox; spec: WorkloadSpec }[] = []

beforeAll(async () => {
  lab = await Lab.make()
  driver = lab.driver()
})

afterEach(async () => {
  for (const { sandbox, spec } of made.splice(0)) {
    await sandbox.destroy()
    await driver.removeState(spec)
  }
  expect(await lab.leftovers()).toEqual([])
})

afterAll(() => lab.remove())

async function create(args: string[], more: Partial<WorkloadSpec> = {}): Promise<{ sandbox: Sandbox; spec: WorkloadSpec }> {
  const spec = lab.spec(args, more)
  const sandbox = await driver.create(spec, {})
  made.push({ sandbox, spec })
  return { sandbox, spec }
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let n = 0; n < 300; n++) {
    if (await condition()) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error('it never happened')
}

describe('a container behind a virtual machine', () => {
  it('runs on a kernel of its own, keeps the two streams apart and hands on the exit code', async () => {
    const { sandbox, spec } = await create(['sh', '-c', 'echo out; echo err >&2; uname -r; cat /proc/sys/kernel/random/boot_id; exit 7'])
    const output = readFramed((await sandbox.attach()).duplex)
    await sandbox.start()
    expect(await sandbox.exited).toMatchObject({ code: 7, oomKilled: false })
    const { stdout, stderr } = await output
    expect(stderr).toBe('err\n')
    const [out, kernel, bootId] = stdout.split('\n')
    expect(out).toBe('out')
    expect(kernel).not.toBe((await readFile('/proc/sys/kernel/osrelease', 'utf8')).trim())
    expect(bootId).not.toBe((await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim())
    expect(await readLog(spec.logPath)).toEqual({ stdout, stderr })
  })

  it('says in Docker\'s words why a command cannot run', async () => {
    const failures = [
      [['nosuch'], /: exec: "nosuch": executable file not found in \$PATH: unknown$/],
      [['/bin/noexec'], /: exec: "\/bin\/noexec": permission denied: unknown$/],
      [['/etc'], /: exec: "\/etc": is a directory: unknown$/],
    ] as const
    for (const [args, words] of failures) {
      const { sandbox } = await create([...args])
      await expect(sandbox.start()).rejects.toMatchObject({ statusCode: 400, message: expect.stringMatching(words) })
      expect((await sandbox.exited).code).toBe(args[0] === 'nosuch' ? 127 : 126)
    }
  })

  it('is entered by exec, listed by top, measured by stats, explained', async () => {
    const { sandbox } = await create(['sleep', '1000'], { resources: { ...lab.spec([]).resources, memory: 128 << 20, nanoCpus: 5e8, pidsLimit: 50 } })
    await sandbox.start()

    const session = await sandbox.exec(lab.process(['sh', '-c', 'cat; echo err >&2; id -u; exit 3'], { user: 'user' }), { stdin: true, detach: false })
    session.duplex.end('typed\n')
    expect(await readFramed(session.duplex)).toEqual({ stdout: 'typed\n1000\n', stderr: 'err\n' })
    expect(await session.exited).toBe(3)

    await expect(sandbox.exec(lab.process(['nosuch']), { stdin: false, detach: false })).rejects.toMatchObject({
      statusCode: 400, message: 'OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": executable file not found in $PATH: unknown',
    })

    const long = await sandbox.exec(lab.process(['sleep', '500']), { stdin: false, detach: true })
    const top = await sandbox.top([])
    expect(top.Titles).toEqual(['UID', 'PID', 'PPID', 'C', 'STIME', 'TTY', 'TIME', 'CMD'])
    expect(top.Processes.map((row) => row.at(-1))).toEqual(expect.arrayContaining(['sleep 1000', 'sleep 500']))
    await long.signal(15)
    expect(await long.exited).toBe(143)

    const stats = await sandbox.stats()
    // What --memory says is the workload's own: the guest's kernel lives on top of it.
    expect(stats.memoryLimit).toBeGreaterThan(80 << 20)
    expect(stats.memoryLimit).toBeLessThanOrEqual(128 << 20)
    expect(stats.memoryUsage).toBeGreaterThan(0)
    expect(stats.host?.memoryUsage).toBeGreaterThan(stats.memoryUsage)
    expect(stats.cpuTotal).toBeGreaterThan(0)
    expect(stats.onlineCpus).toBe(availableParallelism()) // of the host, as a container's
    expect(stats.pids).toBeGreaterThan(0)

    const facts = new Map<string, string>((await sandbox.explain()).flatMap((section) => section.rows.map(([name, value]) => [`${section.title}/${name}`, value] as const)))
    const fact = (name: string) => facts.get(name) ?? 'absent'
    expect(fact('Virtual machine/hypervisor')).toMatch(/^QEMU \d/)
    expect(fact('Virtual machine/RAM')).toBe('212M')
    expect(fact('Virtual machine/disk root')).toBe('/image.erofs, opened read-only by the VMM, mapped as persistent memory')
    expect(fact('Virtual machine/disk disk')).toBe('/disk.img, opened read-write by the VMM')
    expect(fact('Guest (as it says itself)/container pid 1')).toBe('sleep 1000')
    expect(fact('Jail around the VMM/capabilities')).toBe('none')
    expect(fact('Jail around the VMM/no new privileges')).toBe('yes')
    expect(fact('Jail around the VMM/seccomp')).toMatch(/^filter/)
    expect(fact('Jail around the VMM/root file system')).toBe('read-only')
    for (const kind of ['pid', 'mnt', 'ipc', 'uts', 'net', 'cgroup']) expect(fact(`Jail namespaces/${kind}`)).toMatch(/its own/)
    expect(Number(/uid (\d+)/.exec(fact('Jail around the VMM/user'))![1])).toBeGreaterThanOrEqual(0x70000000)
    expect(fact('Jail cgroup/cpus')).toBe('0.5')
    expect(fact('Isolation/wall')).toMatch(/^vm: /)
  })

  it('has a terminal: size, resize, raw bytes', async () => {
    const { sandbox } = await create(['sh', '-c', 'stty size; read x; stty size; test -t 1 && echo tty'], {
      process: lab.process(['sh', '-c', 'stty size; read x; stty size; test -t 1 && echo tty'], { tty: true, consoleSize: [30, 100] }), openStdin: true, stdinOnce: true,
    })
    const { duplex } = await sandbox.attach()
    let text = ''
    duplex.on('data', (chunk: Buffer) => (text += chunk.toString()))
    await sandbox.start()
    await until(async () => text.includes('30 100'))
    await sandbox.resize(40, 120)
    duplex.write('go\r')
    await sandbox.exited
    await until(async () => text.includes('tty\r\n'))
    expect(text).toBe('30 100\r\ngo\r\n40 120\r\ntty\r\n')
    duplex.destroy()
  })

  it('stdin: bytes, then its end', async () => {
    const { sandbox } = await create(['sh', '-c', 'wc -c'], { openStdin: true, stdinOnce: true })
    const { duplex } = await sandbox.attach()
    await sandbox.start()
    duplex.end(Buffer.alloc(1_000_000, 'x'))
    expect((await readFramed(duplex)).stdout.trim()).toBe('1000000')
    expect((await sandbox.exited).code).toBe(0)
  })

  it('takes signals; SIGKILL leaves a whole disk behind', async () => {
    const script = 'trap "echo got term" TERM; echo data > /kept; echo ready; while :; do sleep 0.1; done'
    const { sandbox, spec } = await create(['sh', '-c', script])
    await sandbox.start()
    await until(async () => (await readLog(spec.logPath)).stdout.includes('ready'))
    expect(await sandbox.signal(15)).toBe(true)
    await until(async () => (await readLog(spec.logPath)).stdout.includes('got term'))
    expect(await sandbox.signal(9)).toBe(true)
    expect((await sandbox.exited).code).toBe(137)
    expect(await sandbox.signal(15)).toBe(false)
    await sandbox.destroy()
    // Started again: what was written is there.
    const again = await driver.create({ ...spec, process: lab.process(['cat', '/kept']) }, {})
    made.push({ sandbox: again, spec })
    const output = readFramed((await again.attach()).duplex)
    await again.start()
    expect((await output).stdout).toBe('data\n')
  })

  it('pauses and goes on; a paused one can be killed', async () => {
    const { sandbox, spec } = await create(['sh', '-c', 'while :; do echo x; sleep 0.05; done'])
    await sandbox.start()
    const size = async () => (await stat(spec.logPath)).size
    await until(async () => (await size()) > 200)
    await sandbox.pause()
    await new Promise((resolve) => setTimeout(resolve, 100)) // what the monitor still had
    const before = await size()
    await new Promise((resolve) => setTimeout(resolve, 400))
    expect(await size()).toBe(before)
    expect((await sandbox.stats()).memoryUsage).toBeGreaterThan(0)
    await sandbox.unpause()
    await until(async () => (await size()) > before)
    await sandbox.pause()
    expect(await sandbox.signal(9)).toBe(true)
    expect((await sandbox.exited).code).toBe(137)
  })

  it('lives on without its daemon and is found again; so is one that ended meanwhile', async () => {
    const { sandbox, spec } = await create(['sh', '-c', 'sleep 2; echo done; exit 5'])
    await sandbox.start()
    const later = lab.driver()
    const found = await later.adopt(spec)
    expect(found?.pid).toBe(sandbox.pid)
    expect((await found!.top([])).Processes.length).toBeGreaterThan(0)
    expect((await found!.exited).code).toBe(5)
    const last = await lab.driver().adopt(spec)
    expect((await last!.exited).code).toBe(5)
    expect((await readLog(spec.logPath)).stdout).toBe('done\n')
    await last!.destroy()
    expect(await lab.driver().adopt(spec)).toBeUndefined()
  })

  it('the workload\'s memory limit is the guest\'s: the host sees an OOM kill', async () => {
    const { sandbox } = await create(['sh', '-c', 'tail /dev/zero; exit 9'], { resources: { ...lab.spec([]).resources, memory: 32 << 20 } })
    await sandbox.start()
    const exit = await sandbox.exited
    expect(exit.oomKilled).toBe(true)
  })

  it('a VMM that is killed is an exit of 137, and nothing is left', async () => {
    const { sandbox } = await create(['sleep', '1000'])
    await sandbox.start()
    process.kill(sandbox.pid, 'SIGKILL')
    expect((await sandbox.exited).code).toBe(137)
  })

  it('a guest that does not come up is an error that says so', async () => {
    const broken = lab.driver({ bootTimeout: 0 })
    const spec = lab.spec(['true'])
    const sandbox = await broken.create(spec, {})
    await expect(sandbox.start()).rejects.toMatchObject({ statusCode: 500, message: expect.stringContaining('did not answer in time') })
    await sandbox.destroy()
    await broken.removeState(spec)
  })

  it('what fails while it is made leaves nothing', async () => {
    const spec = lab.spec(['true'])
    for (const options of [
      { erofsFor: async () => Promise.reject(new Error('no image')) },
      { erofsFor: async () => join(lab.directory, 'nothing') },
      { disks: { usual: 1 << 28, make: async () => Promise.reject(new Error('no disk')), content: async () => Promise.reject(new Error('no disk')) } },
      { guestDir: join(lab.directory, 'nowhere') },
      { qemu: 'qemu-nowhere' },
    ]) {
      const failing = lab.spec(['true'])
      await expect(lab.driver(options).create(failing, {})).rejects.toThrow()
      await driver.removeState(failing)
      expect(await lab.leftovers()).toEqual([])
    }
    await expect(lab.driver({ qemu: 'qemu-nowhere' }).validate(spec)).rejects.toThrow(/apt-get install qemu-system-x86/)
    await expect(lab.driver({ guestDir: '/nowhere' }).validate(spec)).rejects.toThrow(/make setup/)
    expect((await lab.driver({ qemu: 'qemu-nowhere' }).info()).warnings[0]).toMatch(/QEMU/)
    await driver.removeState(spec)
  })

  it('refuses what a virtual machine cannot do, warns of what it does otherwise', async () => {
    const refused: [Partial<WorkloadSpec>, RegExp][] = [
      [{ network: { mode: 'host' } }, /--network host/],
      [{ runtime: 'runc' }, /--runtime runc/],
      [{ mounts: [{ type: 'bind', source: '/', target: '/x', readOnly: false, options: ['rshared'] }] }, /cannot be rshared/],
      [{ mounts: [{ type: 'bind', source: '/', target: '/proc/x', readOnly: false, options: [] }] }, /inside \/proc/],
      [{ seccomp: '{}' }, /seccomp/],
      [{ resources: { ...lab.spec([]).resources, cpusetCpus: 'x' } }, /cpuset/],
    ]
    for (const [more, words] of refused) {
      await expect(driver.validate(lab.spec(['true'], more))).rejects.toMatchObject({ statusCode: 400, message: expect.stringMatching(words) })
    }
    const warnings = await driver.validate(lab.spec(['true'], { privileged: true, resources: { ...lab.spec([]).resources, memory: 8 << 20 } }))
    if ((await driver.info()).accelerator === 'tcg') expect(warnings.join('\n')).toMatch(/software emulation/)
  })
})
