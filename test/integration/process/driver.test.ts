import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { readLog } from '../../../src/oci/logs.js'
import { ProcessDriver } from '../../../src/sandbox/process/driver.js'
import type { ProcessSpec, Sandbox, WorkloadSpec } from '../../../src/sandbox/types.js'
import { collect, demultiplex, Fixture, openDescriptors, TestSnapshots, workload } from './fixture.js'

const fixture = new Fixture()
const snapshots = new TestSnapshots(join(fixture.directory, 'snapshots'))
const newDriver = () => new ProcessDriver({ snapshots, execRoot: fixture.directory })
const driver = newDriver()
const live: { sandbox?: Sandbox; spec: WorkloadSpec }[] = []

async function create(args: string[], extra: Partial<WorkloadSpec> = {}, process: Partial<ProcessSpec> = {}): Promise<Sandbox> {
  const spec = workload(fixture, args, extra, process)
  const entry: (typeof live)[number] = { spec }
  live.push(entry)
  return (entry.sandbox = await driver.create(spec, {}))
}

/** Runs a shell command to its end and gives what it said. */
async function sh(script: string, extra: Partial<WorkloadSpec> = {}, process: Partial<ProcessSpec> = {}): Promise<{ stdout: string; stderr: string; code: number }> {
  const sandbox = await create(['sh', '-c', script], extra, process)
  const output = collect((await sandbox.attach()).duplex)
  await sandbox.start()
  const { code } = await sandbox.exited
  return { ...demultiplex(await output), code }
}

async function running(extra: Partial<WorkloadSpec> = {}): Promise<Sandbox> {
  const sandbox = await create(['sleep', '1000'], extra)
  await sandbox.start()
  return sandbox
}

const command = (args: string[], extra: Partial<ProcessSpec> = {}): ProcessSpec => ({ args, env: ['PATH=/bin'], cwd: '/', user: '', groupAdd: [], tty: false, privileged: false, ...extra })
const exec = async (sandbox: Sandbox, args: string[], extra: Partial<ProcessSpec> = {}) => {
  const session = await sandbox.exec(command(args, extra), { stdin: false, detach: false })
  const output = await collect(session.duplex)
  return { ...(extra.tty ? { stdout: output.toString(), stderr: '' } : demultiplex(output)), code: await session.exited }
}

afterEach(async () => {
  for (const { sandbox, spec } of live.splice(0)) {
    await sandbox?.destroy()
    await driver.removeState(spec)
  }
  expect(fixture.leaks()).toEqual([])
})
afterAll(() => fixture.remove())
beforeAll(() => {
  writeFileSync(join(fixture.layer, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n')
  writeFileSync(join(fixture.layer, 'etc/group'), 'root:x:0:\nann:x:1001:\nstaff:x:50:ann\nvideo:x:44:\n')
  writeFileSync(join(fixture.layer, 'etc/data'), 'not a program\n')
  // The probes for system calls: compiled here, static, run inside.
  execFileSync('musl-gcc', ['-static', '-O1', '-o', join(fixture.layer, 'bin/probe'), join(import.meta.dirname, 'probe.c')])
  chmodSync(join(fixture.layer, 'bin/probe'), 0o755)
})

describe('a container', () => {
  it('gives streams apart, and its exit code', async () => {
    expect(await sh('echo out; echo err >&2; exit 7')).toEqual({ stdout: 'out\n', stderr: 'err\n', code: 7 })
  })

  it('runs on the host’s kernel, with its own name, pid 1 and files', async () => {
    const { stdout } = await sh('uname -r; hostname; echo $$; cat /etc/hostname /etc/hosts /etc/resolv.conf; echo $HOME; pwd', {}, { cwd: '/made/for/it' })
    expect(stdout).toBe(`${release()}\nbox\n1\nbox\n127.0.0.1\tlocalhost\nnameserver 192.0.2.1\n/root\n/made/for/it\n`)
  })

  it('keeps its writable layer across starts, and loses it with its state', async () => {
    const spec = workload(fixture, ['sh', '-c', 'echo x >> /count; wc -l < /count'])
    for (const expected of ['1\n', '2\n']) {
      const sandbox = await driver.create(spec, {})
      const output = collect((await sandbox.attach()).duplex)
      await sandbox.start()
      expect(demultiplex(await output).stdout.trim()).toBe(expected.trim())
      await sandbox.destroy()
    }
    await driver.removeState(spec)
  })

  it.each([
    ['ann', 'uid=1000(ann) gid=1001(ann) groups=50(staff),1001(ann)', '/home/ann'],
    ['ann:video', 'uid=1000(ann) gid=44(video) groups=44(video)', '/home/ann'],
    ['5:6', 'uid=5 gid=6 groups=6', '/'],
  ])('runs as %s', async (user, id, home) => {
    expect((await sh('id; echo $HOME', {}, { user })).stdout).toBe(`${id}\n${home}\n`)
  })

  it('refuses users that do not exist', async () => {
    await expect(create(['true'], {}, { user: 'nobody-here' })).rejects.toMatchObject({ message: 'unable to find user nobody-here: no matching entries in passwd file' })
    await expect(create(['true'], {}, { user: 'ann:nogroup-here' })).rejects.toMatchObject({ message: 'unable to find group nogroup-here: no matching entries in group file' })
  })

  it('has Docker’s default capabilities, none of them as another user, and no way to more', async () => {
    const { stdout } = await sh('grep -E "Cap|NoNewPrivs|Seccomp:" /proc/self/status | tr "\\t" " "')
    expect(stdout).toContain('CapInh: 0000000000000000')
    expect(stdout).toContain('CapEff: 00000000a80425fb')
    expect(stdout).toContain('CapBnd: 00000000a80425fb')
    expect(stdout).toContain('Seccomp: 2')
    expect((await sh('grep CapEff /proc/self/status', {}, { user: '1000' })).stdout).toContain('0000000000000000')
    expect((await sh('grep NoNewPrivs /proc/self/status', { noNewPrivileges: true })).stdout).toContain('1')
    expect((await sh('grep CapEff /proc/self/status', { capDrop: ['ALL'], capAdd: ['net_admin'] })).stdout).toContain('0000000000001000')
  })

  it('masks and protects what Docker does', async () => {
    const { stdout, stderr } = await sh('cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/domainname; echo x > /sys/kernel/x; mkdir /sys/fs/cgroup/memory/x')
    expect(stdout).toBe('0\n0\n')
    expect(stderr.match(/Read-only file system|can't create|Permission denied|nonexistent|No such file/g)!.length).toBeGreaterThanOrEqual(3)
  })

  it.each(['compiled for this start', 'kept from the start before'])('refuses the system calls that the profile refuses (filter %s)', async () => {
    const { stdout } = await sh('probe')
    const results = Object.fromEntries(stdout.trim().split('\n').map((line) => line.split('=') as [string, string]))
    expect(results).toEqual({
      'socket AF_INET': 'ok', 'socket AF_UNIX': 'ok', 'socket AF_ALG': 'EAFNOSUPPORT', 'socket AF_VSOCK': 'EAFNOSUPPORT', 'socket AF_ALG high bits': 'EAFNOSUPPORT',
      'socket AF_VSOCK high bits': 'EAFNOSUPPORT', 'socketpair AF_UNIX': 'ok', bpf: 'EPERM', keyctl: 'EPERM', add_key: 'EPERM', request_key: 'EPERM', userfaultfd: 'EPERM', perf_event_open: 'EPERM',
      io_uring_setup: 'EPERM', mount: 'EPERM', umount2: 'EPERM', pivot_root: 'EPERM', setns: 'EPERM', 'unshare NEWUSER': 'EPERM', 'unshare NEWNS': 'EPERM', 'clone NEWUSER': 'EPERM', 'clone NEWNET': 'EPERM', 'clone high bits': 'EPERM',
      clone3: 'ENOSYS', 'clone plain': 'ok', open_by_handle_at: 'EPERM', kexec_load: 'EPERM', init_module: 'EPERM', reboot: 'EPERM', swapon: 'EPERM', 'personality no-aslr': 'ENOSYS',
      'personality query': 'ok', 'unknown call': 'ENOSYS', ptrace: 'ok', getrandom: 'ok', 'chroot': 'ok', mbind: 'EPERM', settimeofday: 'EPERM', 'fsopen': 'EPERM', 'x32 getpid': 'killed or ENOSYS',
    })
  })

  it('takes a profile in Docker’s format, and none', async () => {
    const seccomp = JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 28 }] })
    expect((await sh('mkdir /x', { seccomp })).stderr).toContain('No space left on device')
    expect((await sh('grep Seccomp: /proc/self/status', { seccomp: 'unconfined' })).stdout).toMatch(/0$/m)
  })

  it('is privileged when it should be', async () => {
    const { stdout } = await sh('mkdir /mnt; mount -t tmpfs none /mnt && echo mounted; grep -c . /proc/timer_list; ls /dev | wc -l; grep Seccomp: /proc/self/status', { privileged: true, maskedPaths: [], readonlyPaths: [] })
    expect(stdout).toMatch(/^mounted\n/)
    expect(Number(stdout.split('\n')[2])).toBeGreaterThan(20)
    expect(stdout).toMatch(/Seccomp:\s*0/)
  })

  it('mounts what it is told to', async () => {
    const source = join(fixture.directory, 'shared')
    mkdirSync(source, { recursive: true })
    writeFileSync(join(source, 'file'), 'from the host\n')
    const { stdout, stderr } = await sh('cat /data/file; echo x > /data/file; echo kept > /rw/new; df /small | tail -1 | tr -s " " | cut -d" " -f2; ls -ld /small; mount | grep " /small "', {
      mounts: [
        { type: 'bind', source, target: '/data', readOnly: true, options: [] },
        { type: 'volume', source, target: '/rw', readOnly: false, options: [] },
        { type: 'tmpfs', source: '', target: '/small', readOnly: false, options: ['size=1m,mode=0700'] },
      ],
    })
    expect(stdout).toMatch(/^from the host\n1024\ndrwx------/)
    expect(stdout).toMatch(/nosuid,nodev,noexec/)
    expect(stderr).toContain('Read-only file system')
    expect(readFileSync(join(source, 'new'), 'utf8')).toBe('kept\n')
  })

  it('is read-only when it should be', async () => {
    const { stdout, stderr } = await sh('echo x > /x; echo y > /etc/hosts; echo z > /tmp/z && cat /tmp/z', { readOnlyRootfs: true, mounts: [{ type: 'tmpfs', source: '', target: '/tmp', readOnly: false, options: [] }] })
    expect(stdout).toBe('z\n')
    expect(stderr.match(/Read-only file system/g)).toHaveLength(2)
  })

  it('has an init that reaps and passes signals on', async () => {
    const sandbox = await create(['sh', '-c', 'trap "exit 9" TERM; echo ready; while :; do sleep 0.05; done'], { init: true })
    const stream = (await sandbox.attach()).duplex
    const ready = new Promise((resolve) => stream.once('data', resolve))
    await sandbox.start()
    await ready
    expect((await exec(sandbox, ['cat', '/proc/1/comm'])).stdout).toBe('docker-init\n')
    stream.resume()
    expect(await sandbox.signal(15)).toBe(true)
    expect((await sandbox.exited).code).toBe(9)
  })

  it('holds limits', async () => {
    const spec = workload(fixture, ['true'])
    const sandbox = await running({ resources: { ...spec.resources, memory: 64 << 20, nanoCpus: 5e8, cpuShares: 512, pidsLimit: 20, cpusetCpus: '0', ulimits: [{ name: 'nofile', soft: 100, hard: 200 }] } })
    const facts = Object.fromEntries((await sandbox.explain()).flatMap((section) => section.rows))
    expect(facts).toMatchObject({ 'memory limit': `${64 << 20} bytes`, cpus: '0.5', cpuset: '0', 'pids limit': '20', 'no new privileges': 'no' })
    expect(facts['seccomp']).toMatch(/^filter/)
    expect(facts['net']).toMatch(/its own/)
    expect(facts['masked paths']).toContain('/proc/timer_list')
    expect((await exec(sandbox, ['sh', '-c', 'ulimit -n; ulimit -Hn; nproc'])).stdout).toBe('100\n200\n1\n')
    expect((await exec(sandbox, ['sh', '-c', 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22; do sleep 2 & done'])).stderr).toMatch(/fork/)
    const stats = await sandbox.stats()
    expect(stats).toMatchObject({ memoryLimit: 64 << 20, pidsLimit: 20 })
    expect(stats.memoryUsage).toBeGreaterThan(0)
    expect(stats.cpuTotal).toBeGreaterThan(0)
  })

  it('is killed when its memory is used up, and says so', async () => {
    const spec = workload(fixture, ['true'])
    const sandbox = await create(['sh', '-c', 'x=a; while :; do x=$x$x; done'], { resources: { ...spec.resources, memory: 16 << 20, memorySwap: 16 << 20 } })
    await sandbox.start()
    expect(await sandbox.exited).toMatchObject({ code: 137, oomKilled: true })
  })

  it('pauses, and dies of SIGKILL all the same', async () => {
    const sandbox = await create(['sh', '-c', 'while :; do echo x; sleep 0.01; done'])
    const stream = (await sandbox.attach()).duplex
    let count = 0
    stream.on('data', () => count++)
    await sandbox.start()
    await expect.poll(() => count).toBeGreaterThan(2)
    await sandbox.pause()
    await new Promise((resolve) => setTimeout(resolve, 50))
    const then = count
    await new Promise((resolve) => setTimeout(resolve, 150))
    expect(count).toBe(then)
    await sandbox.unpause()
    await expect.poll(() => count).toBeGreaterThan(then)
    await sandbox.pause()
    await sandbox.signal(9)
    expect((await sandbox.exited).code).toBe(137)
  })

  it('shows its processes, and only its', async () => {
    const sandbox = await running()
    const top = await sandbox.top([])
    expect(top.Titles).toEqual(['UID', 'PID', 'PPID', 'C', 'STIME', 'TTY', 'TIME', 'CMD'])
    expect(top.Processes.map((row) => [row[1], row[7]])).toEqual([[String(sandbox.pid), 'sleep 1000']])
    expect((await sandbox.top(['-o', 'pid,args'])).Processes).toEqual([[String(sandbox.pid), 'sleep 1000']])
    await expect(sandbox.top(['-o', 'args=PID'])).rejects.toMatchObject({ statusCode: 400 })
    await expect(sandbox.top(['--no-such'])).rejects.toMatchObject({ statusCode: 400 })
  })

  it('knows runtimes by name', async () => {
    await expect(driver.validate(workload(fixture, ['true'], { runtime: 'nope' }))).rejects.toMatchObject({ statusCode: 400, message: 'unknown or invalid runtime name: nope' })
    await expect(driver.validate(workload(fixture, ['true'], { runtime: '../bin/crun' }))).rejects.toMatchObject({ statusCode: 400 })
    expect((await sh('echo by runc; exit 4', { runtime: 'runc' }))).toEqual({ stdout: 'by runc\n', stderr: '', code: 4 })
    await expect(create(['nope'], { runtime: 'runc' })).rejects.toMatchObject({ statusCode: 400, message: expect.stringMatching(/OCI runtime create failed: runc create failed: .*exec: "nope": executable file not found in \$PATH: unknown$/) })
  })

  it('warns of what the host cannot give', async () => {
    const spec = workload(fixture, ['true'], { capAdd: ['SYS_RESOURCE'] })
    spec.resources.ulimits = [{ name: 'nofile', soft: 1 << 30, hard: 1 << 30 }]
    spec.resources.oomScoreAdj = -500
    expect((await driver.validate(spec)).length).toBeGreaterThanOrEqual(2)
    expect((await sh('ulimit -n', { capAdd: spec.capAdd, resources: spec.resources })).code).toBe(0)
    await expect(driver.validate(workload(fixture, ['true'], { capAdd: ['NONSENSE'] }))).rejects.toMatchObject({ statusCode: 400 })
    await expect(driver.validate(workload(fixture, ['true'], { seccomp: '{"defaultAction":1}' }))).rejects.toMatchObject({ statusCode: 400 })
  })

  it('leaves nothing when it cannot be started', async () => {
    for (const [args, extra] of [[['nope'], {}], [['true'], { mounts: [{ type: 'bind', source: '/no/such/source', target: '/x', readOnly: false, options: [] }] }], [['true'], { sysctls: { 'net.ipv4.no_such': '1' } }]] as [string[], Partial<WorkloadSpec>][]) {
      const spec = workload(fixture, args, extra)
      await expect(driver.create(spec, {})).rejects.toThrow(/OCI runtime create failed/)
      await driver.removeState(spec)
      expect(fixture.leaks()).toEqual([])
    }
  })
})

describe('a start', () => {
  it('takes the filter that crun has made of the same profile before, and no other', async () => {
    const filterOf = (sandbox: Sandbox) => readFileSync(join(fixture.directory, 'runtime/crun', sandbox.id, 'seccomp.bpf'))
    const sandboxes = [await running(), await running()]
    expect(filterOf(sandboxes[0]!).length).toBeGreaterThan(1000)
    expect(filterOf(sandboxes[1]!)).toEqual(filterOf(sandboxes[0]!))
    for (const sandbox of sandboxes) expect((await exec(sandbox, ['grep', '^Seccomp:', '/proc/self/status', '/proc/1/status'])).stdout).toBe('/proc/self/status:Seccomp:\t2\n/proc/1/status:Seccomp:\t2\n')
    const other = await running({ capAdd: ['SYS_ADMIN'] })
    expect(filterOf(other)).not.toEqual(filterOf(sandboxes[0]!))
  })

  it('leaves nothing of the host’s below the mount point of a hybrid host’s cgroup v2', async () => {
    await sh('true')
    const below = `umount /sys/fs/cgroup/unified 2> /dev/null; ! test -e /sys/fs/cgroup/unified${fixture.cgroupParent}`
    expect(() => execFileSync('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', below])).not.toThrow()
  })

  it('leaves nothing when it is called off', async () => {
    const spec = workload(fixture, ['true'])
    await driver.begin(spec)
    await driver.callOff(spec)
    await driver.callOff(spec)
    expect(existsSync(spec.runDir)).toBe(false)
    expect(readFileSync('/proc/self/mounts', 'utf8')).not.toContain(spec.id)
    await driver.removeState(spec) // the writable layer stays the container's until then
    await expect.poll(() => fixture.leaks()).toEqual([])
  })

  it.each(['hull-monitor', 'what waits below it'])('says what became of a start that lost %s before it came', async (victim) => {
    const spec = workload(fixture, ['true'])
    await driver.begin(spec)
    const pidOf = () => {
      const monitor = Number((JSON.parse(readlinkSync(join(spec.runDir, 'supervised'))) as { monitor: { pid: number } }).monitor.pid)
      if (victim === 'hull-monitor') return monitor
      return Number(readFileSync(`/proc/${monitor}/task/${monitor}/children`, 'utf8').trim().split(' ')[0])
    }
    await expect.poll(() => lstatSync(join(spec.runDir, 'supervised'), { throwIfNoEntry: false }) && pidOf() > 0).toBe(true)
    await new Promise((resolve) => setTimeout(resolve, 100)) // at the gate
    process.kill(pidOf(), 'SIGKILL')
    await new Promise((resolve) => setTimeout(resolve, 100))
    await expect(driver.create(spec, {})).rejects.toThrow(/^failed to create task for container: (?!.*EPIPE)/)
    await driver.removeState(spec)
    await expect.poll(() => fixture.leaks()).toEqual([])
  })

  it('does not get into the way of work on the container\'s files, nor of the start after that', async () => {
    const spec = workload(fixture, ['cat', '/etc/data'])
    await driver.begin(spec)
    const job = await driver.files(spec, { op: 'stat', path: '/etc/data' })
    await job.done
    expect(readFileSync('/proc/self/mounts', 'utf8')).not.toContain(spec.id)
    await driver.begin(spec)
    const sandbox = await driver.create(spec, {})
    live.push({ spec, sandbox })
    await sandbox.start()
    expect((await sandbox.exited).code).toBe(0)
  })
})

describe('exec', () => {
  it('runs commands with their streams, codes, users and directories', async () => {
    const sandbox = await running()
    expect(await exec(sandbox, ['sh', '-c', 'echo out; echo err >&2; exit 5'])).toEqual({ stdout: 'out\n', stderr: 'err\n', code: 5 })
    expect((await exec(sandbox, ['sh', '-c', 'id -u; pwd; echo $HOME'], { user: 'ann', cwd: '/etc' })).stdout).toBe('1000\n/etc\n/home/ann\n')
    expect((await exec(sandbox, ['sh', '-c', 'echo to the device > /dev/stdout; echo other > /dev/stderr']))).toEqual({ stdout: 'to the device\n', stderr: 'other\n', code: 0 })
    expect((await exec(sandbox, ['sh', '-c', 'grep -E "CapEff|Seccomp:" /proc/self/status'])).stdout).toMatch(/00000000a80425fb[^]*2/)
    expect((await exec(sandbox, ['sh', '-c', 'kill -9 $$'])).code).toBe(137)
    expect((await exec(sandbox, ['true'])).code).toBe(0)
    expect((await exec(sandbox, ['grep', 'CapEff', '/proc/self/status'], { privileged: true })).stdout).toMatch(/1fffeffffff|1ffffffffff/)
  })

  it.each([
    [['nope'], 'OCI runtime exec failed: exec failed: unable to start container process: exec: "nope": executable file not found in $PATH: unknown'],
    [['/no/pe'], 'OCI runtime exec failed: exec failed: unable to start container process: exec: "/no/pe": stat /no/pe: no such file or directory: unknown'],
    [['/etc/data'], 'OCI runtime exec failed: exec failed: unable to start container process: exec: "/etc/data": permission denied: unknown'],
  ])('says in Docker’s words why %s does not run', async (args, message) => {
    const sandbox = await running()
    await expect(sandbox.exec(command(args), { stdin: false, detach: false })).rejects.toMatchObject({ statusCode: 400, message })
    await expect(sandbox.exec(command(args), { stdin: false, detach: true })).rejects.toMatchObject({ statusCode: 400, message })
    await expect(sandbox.exec(command(args, { tty: true }), { stdin: true, detach: false })).rejects.toMatchObject({ statusCode: 400, message })
  })

  it('passes stdin and its end on', async () => {
    const sandbox = await running()
    const session = await sandbox.exec(command(['cat']), { stdin: true, detach: false })
    const data = 'x'.repeat(300_000)
    const output = collect(session.duplex)
    session.duplex.end(data)
    expect(demultiplex(await output).stdout).toBe(data)
    expect(await session.exited).toBe(0)
  })

  it('has terminals', async () => {
    const sandbox = await running()
    const session = await sandbox.exec(command(['sh'], { tty: true, consoleSize: [22, 77] }), { stdin: true, detach: false })
    let text = ''
    session.duplex.on('data', (chunk: Buffer) => (text += chunk.toString()))
    session.duplex.write('stty size; tty\n')
    await expect.poll(() => text).toContain('22 77')
    await session.resize(65_536 + 33, 65_536 + 88) // cut to 16 bits
    session.duplex.write('stty size\n')
    await expect.poll(() => text).toContain('33 88')
    session.duplex.write('exit 6\n')
    expect(await session.exited).toBe(6)
    expect(text).toContain('/dev/pts/0')
  })

  it('can be signalled, and left', async () => {
    const sandbox = await running()
    const one = await sandbox.exec(command(['sleep', '1000']), { stdin: false, detach: false })
    one.duplex.resume()
    await one.signal(15)
    expect(await one.exited).toBe(143)
    const two = await sandbox.exec(command(['sh', '-c', 'sleep 0.3; exit 8']), { stdin: false, detach: false })
    two.duplex.destroy()
    expect(await two.exited).toBe(8)
    const three = await sandbox.exec(command(['sh', '-c', 'sleep 0.1; echo kept > /detached; exit 3']), { stdin: false, detach: true })
    expect(await three.exited).toBe(3)
    expect((await exec(sandbox, ['cat', '/detached'])).stdout).toBe('kept\n')
  })

  it('does not wait for what a command leaves behind', async () => {
    const sandbox = await running()
    const started = Date.now()
    expect((await exec(sandbox, ['sh', '-c', 'sleep 100 & echo done'])).stdout).toBe('done\n')
    expect(Date.now() - started).toBeLessThan(5000)
  })

  it('is refused when the container has ended, and ends with it', async () => {
    const sandbox = await running()
    const session = await sandbox.exec(command(['sleep', '1000']), { stdin: false, detach: false })
    session.duplex.resume()
    await sandbox.signal(9)
    await sandbox.exited
    expect(await session.exited).toBe(137)
    await expect(sandbox.exec(command(['true']), { stdin: false, detach: false })).rejects.toMatchObject({ statusCode: 409 })
  })

  it('leaks no descriptor', async () => {
    const sandbox = await running()
    await exec(sandbox, ['true'])
    const before = openDescriptors()
    for (let i = 0; i < 5; i++) {
      await exec(sandbox, ['true'])
      await exec(sandbox, ['true'], { tty: true })
      await sandbox.exec(command(['nope']), { stdin: true, detach: false }).catch(() => {})
    }
    await expect.poll(openDescriptors).toBeLessThanOrEqual(before)
  })
})

describe('another daemon', () => {
  it('finds containers again, and their logs have every line once', async () => {
    const specs = Array.from({ length: 4 }, () => workload(fixture, ['sh', '-c', 'i=0; while [ $i -lt 300 ]; do echo "line $i"; i=$((i+1)); done; until [ -e /go ]; do sleep 0.02; done; echo last; exit 2']))
    for (const spec of specs) {
      live.push({ spec, sandbox: await driver.create(spec, {}) })
      await live.at(-1)!.sandbox!.start()
    }
    const other = newDriver()
    for (const spec of specs) {
      const sandbox = (await other.adopt(spec))!
      expect((await exec(sandbox, ['echo', 'hello'])).stdout).toBe('hello\n')
      const ended = new AbortController()
      void sandbox.exited.then(() => ended.abort())
      const lines: string[] = []
      void exec(sandbox, ['touch', '/go'])
      for await (const entry of readLog(spec.logPath, { stdout: true, stderr: true, follow: true, ended: ended.signal })) lines.push(entry.bytes.toString())
      expect(lines).toEqual([...Array.from({ length: 300 }, (_, i) => `line ${i}\n`), 'last\n'])
      expect((await sandbox.exited).code).toBe(2)
      await sandbox.destroy()
    }
  })

  it('cleans up after a daemon that died half-way', async () => {
    const spec = workload(fixture, ['sleep', '1000'])
    await driver.create(spec, {})
    const { rmSync } = await import('node:fs')
    rmSync(join(spec.runDir, 'supervised')) // as if it had died before writing it
    expect(await newDriver().adopt(spec)).toBeUndefined()
    await driver.removeState(spec)
    await expect.poll(() => fixture.leaks()).toEqual([])
  })
})
