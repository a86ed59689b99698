import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { deleteLink, openTap } from '../../../src/host/link.js'
import { native } from '../../../src/host/native.js'
import { childrenOf, processStatus } from '../../../src/host/process.js'
import type { Sandbox, WorkloadSpec } from '../../../src/sandbox/types.js'
import { NEVER_CALLED } from '../../../src/sandbox/vm/never-called.js'
import type { VmDriver } from '../../../src/sandbox/vm/driver.js'
import { jailSeccomp } from '../../../src/sandbox/vm/jailseccomp.js'
import { vmDirectory } from '../../../src/sandbox/vm/vmdir.js'
import { answers32Bit, CALLS, limit, Puppet, unixAddress, type Argument } from './escape-lab.js'
import { Lab, readFramed } from './lab.js'

// The VMM of a clone as a puppet: QEMU's own process does what an attacker's code in it could. docs/decisions/0014-jail.md says why this way.

let lab: Lab
let driver: VmDriver
let program: string
let daemonSocket: Server
const made: { sandbox: Sandbox; spec: WorkloadSpec }[] = []
const taps = new Set<string>()
const landlock = native.landlockVersion()

beforeAll(async () => {
  lab = await Lab.make()
  driver = lab.driver()
  program = await Puppet.build(lab.directory)
  // In the place of the daemon's: below the very directory in which the jail's own is.
  mkdirSync(join(lab.directory, 'exec'), { mode: 0o711 })
  daemonSocket = createServer().listen(join(lab.directory, 'exec/hull.sock'))
  await create(['true']).then(async ({ sandbox }) => {
    await sandbox.start()
    await sandbox.exited
  })
  await end()
  await driver.templatesIdle()
})

afterEach(async () => {
  await end()
  expect(await lab.leftovers()).toEqual([])
})

afterAll(async () => {
  daemonSocket.close()
  await lab.remove()
})

async function end(): Promise<void> {
  Puppet.dropAll()
  for (const { sandbox, spec } of made.splice(0)) {
    await sandbox.destroy()
    await driver.removeState(spec)
  }
  for (const name of taps) deleteLink(name)
  taps.clear()
}

/** With a network card: its tap is one more thing that a VMM has. */
async function create(args: string[]): Promise<{ sandbox: Sandbox; spec: WorkloadSpec }> {
  const name = `hve${made.length}x${process.pid % 100000}`
  taps.add(name)
  const spec = lab.spec(args, { network: { mode: 'bridge', address: '10.213.78.2', prefixLength: 24, gateway: '10.213.78.1', mac: '02:42:0a:d5:4e:02', mtu: 1500 } })
  const sandbox = await driver.create(spec, { tapFd: openTap(name) })
  made.push({ sandbox, spec })
  return { sandbox, spec }
}

/** Its QEMU, before its first instruction: all that the jail has given it, and not yet the filter that QEMU gives itself. */
async function takeAtStart(sandbox: Sandbox): Promise<{ puppet: Puppet; started: Promise<void> }> {
  let started: Promise<void> | undefined
  const puppet = await Puppet.take(program, 'exec', sandbox.pid, () => {
    started = sandbox.start()
    started.catch(() => {}) // asked later
  })
  return { puppet, started: started! }
}

async function exec(sandbox: Sandbox, ...args: string[]): Promise<string> {
  const session = await sandbox.exec(lab.process(args), { stdin: false, detach: false })
  const said = readFramed(session.duplex)
  await session.exited
  return (await said).stdout
}

const AT_FDCWD = -100
const [O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_DIRECTORY] = [0, 1, 2, 0o100, 0o200000]
const room = () => Buffer.alloc(64)
const open = (path: string, flags: number): Attempt => ['openat', AT_FDCWD, path, flags, 0o600]
type Attempt = [call: string, ...args: Argument[]]

/** What is tried, and what must come of it. */
interface Escape {
  what: string
  attempt: Attempt
  outcome: string | string[]
}

const not = (what: string, outcome: string | string[], ...attempt: Attempt): Escape => ({ what, outcome, attempt })

/** Without arguments that mean anything: a call that is not refused before it looks at them says something else. */
const KERNEL = `bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register keyctl add_key request_key ptrace process_vm_readv process_vm_writev process_madvise
  pidfd_open pidfd_getfd pidfd_send_signal kcmp mount umount2 pivot_root chroot unshare setns open_by_handle_at name_to_handle_at kexec_load kexec_file_load init_module finit_module delete_module
  fsopen fsmount open_tree move_mount mount_setattr mknod mknodat link linkat symlink symlinkat chmod fchmod fchmodat chown fchown lchown setxattr setuid setgid setreuid setresuid setresgid setgroups setfsuid
  capset capget setrlimit sched_setscheduler sched_setaffinity sched_setattr setpriority ioprio_set mbind move_pages migrate_pages personality syslog reboot swapon swapoff acct quotactl sethostname
  iopl ioperm modify_ldt vmsplice splice tee remap_file_pages memfd_secret fanotify_init inotify_init1 mq_open shmget msgget semget execveat clone3 connect settimeofday adjtimex clock_settime
  uselib lookup_dcookie mlockall setsid setpgid sync creat mkdir rmdir truncate openat2 io_setup getgroups getdents timerfd_create timer_create pause sync_file_range`.split(/\s+/)

/** What would change the host even so. */
const NOT_WHEN_FREE = new Set('kexec_load kexec_file_load acct reboot settimeofday adjtimex clock_settime sync swapon swapoff pause setsid'.split(' '))

function attempts(victim: { pid: number; spec: WorkloadSpec; qemu: number }, own: WorkloadSpec): Escape[] {
  const AF = { INET: 2, IPX: 4, INET6: 10, KEY: 15, NETLINK: 16, PACKET: 17, BLUETOOTH: 31, ALG: 38, VSOCK: 40, XDP: 44 }
  const [STREAM, DGRAM, RAW] = [1, 2, 3]
  const hostPaths = [daemonSocket.address() as string, '/etc/shadow', '/etc/passwd', lab.directory, vmDirectory(own.runDir), join(victim.spec.runDir, 'config.json'), join(vmDirectory(victim.spec.runDir), 'ctl.sock'), join(victim.spec.runDir, 'attach'), join(victim.spec.stateDir, 'disk.img'), lab.image]
  for (const path of hostPaths) expect(existsSync(path), path).toBe(true)
  return [
    ...KERNEL.filter((name) => CALLS.has(name)).map((name) => not(`the kernel: ${name}`, 'ENOSYS', name, -1, -1, -1, -1, -1, -1)),
    ...Object.entries(AF).map(([name, family]) => not(`a socket of AF_${name}`, 'EPERM', 'socket', family, name === 'PACKET' || name === 'ALG' ? RAW : DGRAM, 0)),
    not('a raw IP socket', 'EPERM', 'socket', AF.INET, RAW, 1),
    not('TCP', 'EPERM', 'socket', AF.INET, STREAM, 0),
    not('a socket that sends by address', 'ENOSYS', 'socket', 1, DGRAM, 0),
    not('a pair of them', 'ENOSYS', 'socketpair', 1, DGRAM, 0, room()),
    not('the daemon, by its socket', 'ENOSYS', 'connect', 20, unixAddress(daemonSocket.address() as string), 110),
    not('an abstract socket of the host', 'ENOSYS', 'connect', 20, unixAddress('\0hull'), 7),
    not('a datagram to it', 'ENOSYS', 'sendto', 20, room(), 4, 0, unixAddress('\0hull'), 7),
    ...[0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000].map((flag) => not(`a new namespace (${flag.toString(16)})`, 'EPERM', 'clone', flag | 17, 0, 0, 0, 0)),
    not('keystrokes for a terminal (TIOCSTI)', 'ENOSYS', 'ioctl', 0, 0x5412, 'x'),
    not('its selection (TIOCLINUX)', 'ENOSYS', 'ioctl', 0, 0x541c, 'x'),
    not('another network by the tap (TUNSETIFF)', 'ENOSYS', 'ioctl', 3, 0x400454ca, room()),
    not('a program for the tap (TUNSETSTEERINGEBPF)', 'ENOSYS', 'ioctl', 3, 0x800454e0, room()),
    not('a tap for everybody (TUNSETPERSIST)', 'ENOSYS', 'ioctl', 3, 0x400454cb, 1),
    not('capabilities kept (PR_SET_KEEPCAPS)', 'ENOSYS', 'prctl', 8, 1, 0, 0, 0),
    not('its own memory map (PR_SET_MM)', 'ENOSYS', 'prctl', 35, 1, 0, 0, 0),
    not('new privileges again', 'EINVAL', 'prctl', 38, 0, 0, 0, 0),
    not('a tracer of its choice (PR_SET_PTRACER)', 'ENOSYS', 'prctl', 0x59616d61, 1, 0, 0, 0),
    not('more files', 'ENOSYS', 'prlimit64', 0, 7, limit(65536n, 65536n), 0),
    not('a core file', 'ENOSYS', 'prlimit64', 0, 4, limit(1n << 40n, 1n << 40n), 0),
    ...hostPaths.map((path) => not(`a file of the host: ${path.split('/').slice(-2).join('/')}`, 'ENOENT', ...open(path, O_RDONLY))),
    not('a way up', 'ENOENT', ...open('/vm/../../../../../../etc/passwd', O_RDONLY)),
    ...['/dev/mem', '/dev/kmsg', '/dev/net/tun', '/dev/vda', '/dev/sda', '/dev/fuse', '/dev/vhost-net', '/dev/userfaultfd', '/sys', '/sys/fs/cgroup', '/proc/kcore', '/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/kallsyms', `/proc/${victim.qemu}/mem`, `/proc/${victim.pid}/root`, `/proc/${process.pid}/environ`]
      .map((path) => not(`what the jail lacks: ${path}`, 'ENOENT', ...open(path, O_RDONLY))),
    not('its own program', ['EROFS', 'EACCES', 'ETXTBSY'], ...open('/qemu-system-x86_64', O_WRONLY)),
    not('the supervisor’s', ['EROFS', 'EACCES', 'ETXTBSY'], ...open('/hull-vmm', O_WRONLY)),
    not('the image', ['EROFS', 'EACCES'], ...open('/image.erofs', O_RDWR)),
    not('the firmware', ['EROFS', 'EACCES'], ...open('/firmware/pvh.bin', O_WRONLY)),
    not('a file in the root', ['EROFS', 'EACCES'], ...open('/x', O_CREAT | O_WRONLY)),
    not('a file in /dev', 'EACCES', ...open('/dev/x', O_CREAT | O_WRONLY)),
    not('the supervisor’s memory', 'EACCES', ...open('/proc/1/mem', O_RDONLY)),
    not('the supervisor’s environment', 'EACCES', ...open('/proc/1/environ', O_RDONLY)),
    not('the supervisor’s root', 'EACCES', ...open('/proc/1/root/vm', O_RDONLY)),
    not('the supervisor’s descriptors', 'EACCES', 'readlink', '/proc/1/fd/0', room(), 64),
    not('the score for the OOM killer', ['EROFS', 'EACCES'], ...open('/proc/self/oom_score_adj', O_WRONLY)),
    not('a map of users', ['EROFS', 'EACCES'], ...open('/proc/self/uid_map', O_WRONLY)),
    not('another VM’s process: a signal', 'ESRCH', 'kill', victim.qemu, 9),
    not('the daemon: a signal', 'ESRCH', 'kill', process.pid, 9),
    // The template: its state is descriptor 4, its memory 5.
    not('the template’s state: its descriptor', 'EBADF', 'write', 4, 'x', 1),
    not('… opened anew', 'EACCES', ...open('/proc/self/fd/4', O_WRONLY)),
    not('… made shorter', ['EBADF', 'EINVAL'], 'ftruncate', 4, 0),
    not('the template’s memory: its descriptor', ['EBADF', 'EPERM'], 'pwrite64', 5, 'x', 1, 0),
    not('… shared pages of it', ['EACCES', 'EPERM'], 'mmap', 0, 4096, 3, 1, 5, 0),
    not('… holes', ['EBADF', 'EPERM'], 'fallocate', 5, 3, 0, 4096),
    not('… another size', ['EINVAL', 'EPERM'], 'ftruncate', 5, 0),
    not('… other seals', 'EPERM', 'fcntl', 5, 1033, 0),
    not('memory of the host from a hook (/proc/self/mem is its own at most)', ['EACCES', 'ENOENT'], ...open(`/proc/${victim.pid}/mem`, O_RDWR)),
    ...(landlock > 0
      ? [
          not('Landlock: the workload’s secrets', 'EACCES', ...open('/vm/run.frames', O_RDONLY)),
          not('Landlock: the supervisor’s directory', 'EACCES', ...open('/vm', O_RDONLY | O_DIRECTORY)),
          not('Landlock: a file there', 'EACCES', ...open('/vm/x', O_CREAT | O_WRONLY)),
          not('Landlock: its socket taken away', 'EACCES', 'unlink', '/vm/ctl.sock'),
          not('Landlock: another status', ['EACCES', 'ENOENT'], 'rename', '/vm/qemu.log', '/vm/status'),
          not('Landlock: a list of processes', 'EACCES', ...open('/proc', O_RDONLY | O_DIRECTORY)),
          not('Landlock: its own map', 'EACCES', ...open('/proc/self/maps', O_RDONLY)),
          not('Landlock: the supervisor’s program', 'EACCES', ...open('/hull-vmm', O_RDONLY)),
          not('Landlock: another program', 'EACCES', 'execve', '/hull-vmm', 0, 0),
        ]
      : []),
    ...(landlock >= 6 ? [not('Landlock: a signal to the supervisor', 'EPERM', 'kill', 1, 15)] : []),
  ]
}

/** Those that did not end as they must. */
async function escaped(puppet: Puppet, list: Escape[]): Promise<string[]> {
  const bad: string[] = []
  for (const { what, attempt: [call, ...args], outcome } of list) {
    const result = await puppet.call(call, ...args)
    if (![outcome].flat().includes(String(result))) bad.push(`${what}: ${call} gave ${result}, not ${[outcome].flat().join(' or ')}`)
    if (String(result).startsWith('killed')) break
  }
  return bad
}

describe('a VMM that is taken over', () => {
  it('… tries what a process without a jail can do', async () => {
    // The same calls, without the jail: they are there, so that it is the jail that says ENOSYS. With arguments and descriptors that nothing can be done to: it is root of the host.
    const free = spawn('unshare', ['--uts', '--ipc', '--mount', 'sleep', '1000'], { stdio: 'pipe' })
    try {
      await expect.poll(() => readFileSync(`/proc/${free.pid}/comm`, 'utf8')).toBe('sleep\n')
      const puppet = await Puppet.take(program, 'attach', free.pid!)
      let there = 0
      for (const name of KERNEL) if (CALLS.has(name) && !NOT_WHEN_FREE.has(name) && (await puppet.call(name, -1, -1, -1, -1, -1, -1)) !== 'ENOSYS') there++
      expect(statSync('/dev/null').mode & 0o777).toBe(0o666)
      expect(there).toBeGreaterThan(90)
      expect(await puppet.call('socket', 2, 3, 1)).toBeTypeOf('number')
      expect(await puppet.call('openat', AT_FDCWD, daemonSocket.address() as string, 0o10000000, 0)).toBeTypeOf('number') // O_PATH
      expect(await puppet.call('openat', AT_FDCWD, '/proc/1/environ', O_RDONLY, 0)).toBeTypeOf('number')
    } finally {
      Puppet.dropAll()
      free.kill('SIGKILL')
    }
  })

  it('finds no way out of its jail, and the jail is one in which it works', async () => {
    const victim = await create(['sleep', '1000'])
    await victim.sandbox.start()
    const [victimQemu] = await childrenOf(victim.sandbox.pid)
    const { sandbox, spec } = await create(['sleep', '1000'])
    const { puppet, started } = await takeAtStart(sandbox)
    // The strings hold: it is QEMU to be, in the jail, and what it may do it can.
    expect(await puppet.call('getpid')).toBe(2)
    expect(readFileSync(`/proc/${puppet.pid}/cmdline`, 'utf8')).toMatch(/^\/qemu-system-x86_64\0/)
    for (const [path, flags] of [['/vmlinux', O_RDONLY], ['/disk.img', O_RDWR], ['/image.erofs', O_RDONLY], ['/dev/null', O_RDWR], ['/proc/self/fd/5', O_RDWR]] as const) {
      const fd = await puppet.call('openat', AT_FDCWD, path, flags, 0)
      expect(fd, path).toBeTypeOf('number')
      await puppet.call('close', fd)
    }
    // Nothing is open but what its command line names: the tap, the template's state and memory, the agent, QMP.
    const descriptors = await puppet.descriptors()
    expect([...descriptors.keys()]).toEqual([0, 1, 2, 3, 4, 5, 20, 21])
    expect([0, 3, 5].map((fd) => descriptors.get(fd))).toEqual(['/dev/null', '/dev/net/tun', '/memfd:hull-template (deleted)'])
    expect(await puppet.call('umask', 0o077)).toBe(0o077)
    // No group but its own.
    const { gids, groups } = (await processStatus(puppet.pid))!
    expect(groups.filter((group) => group !== gids[0])).toEqual([])

    const list = attempts({ pid: victim.sandbox.pid, qemu: victimQemu!, spec: victim.spec }, spec)
    expect(list.length).toBeGreaterThan(150)
    expect(await escaped(puppet, list)).toEqual([])

    // It goes on, and is a machine: nothing of what was tried has changed it, or the other one.
    await puppet.release()
    await started
    expect(await exec(sandbox, 'cat', '/proc/1/comm')).toContain('sleep')
    expect(await exec(victim.sandbox, 'echo', 'alive')).toBe('alive\n')
  })

  it('no system call but those of the list, by whatever number', async () => {
    const { sandbox } = await create(['sleep', '1000'])
    const { puppet, started } = await takeAtStart(sandbox)
    const known = new Set(jailSeccomp().syscalls.flatMap((rule) => rule.names).map((name) => CALLS.get(name)))
    const answered: string[] = []
    // uretprobe and uprobe, which the kernel lets pass by any filter, and which work for its own trampoline alone.
    for (const number of [335, 336]) known.add(number)
    // Those of the day after tomorrow are refused as well.
    for (let number = 0; number < 640; number++) {
      if (known.has(number)) continue
      const result = await puppet.call(number, -1, -1, -1, -1, -1, -1)
      if (result !== 'ENOSYS') answered.push(`${number}: ${result}`)
      if (String(result).startsWith('killed')) break
    }
    expect(answered).toEqual([])
    await puppet.release()
    await started
  })

  it('a fork bomb ends at the jail’s limit, and the machine lives', async () => {
    const { sandbox } = await create(['sleep', '1000'])
    const { puppet, started } = await takeAtStart(sandbox)
    const children: number[] = []
    let result: number | string
    for (;;) {
      result = await puppet.call('fork')
      if (typeof result !== 'number' || children.length > 1000) break
      children.push(result)
    }
    expect(result).toBe('EAGAIN')
    expect(children.length).toBeLessThan(150)
    expect(children.length).toBeGreaterThan(50)
    for (const child of children) expect(await puppet.call('kill', child, 9)).toBe(0)
    for (let left = children.length, rounds = 0; left > 0 && rounds < 5000; rounds++) if ((await puppet.call('wait4', -1, 0, 1, 0)) !== 0) left--
    await puppet.release()
    await started
    expect(await exec(sandbox, 'echo', 'alive')).toBe('alive\n')
  })

  it('once it runs: less than the jail allows, nothing open but its machine’s, and a new program is its end', async () => {
    const { sandbox, spec } = await create(['sleep', '1000'])
    await sandbox.start()
    const [qemu] = await childrenOf(sandbox.pid)
    // What is told of Landlock is what the kernel has.
    const told = landlock > 0 ? `ABI ${landlock}` : 'none'
    expect((await driver.info()).details.Landlock).toContain(told)
    expect((await sandbox.explain()).flatMap((section) => section.rows).find(([name]) => name === 'Landlock')![1]).toContain(told)
    const puppet = await Puppet.take(program, 'attach', qemu!)
    const open = await puppet.descriptors()
    const files = [...open.values()].filter((link) => !/^(socket|pipe|anon_inode):/.test(link))
    expect([...new Set(files)].sort()).toEqual(['/dev/net/tun', '/dev/null', '/disk.img', '/image.erofs', '/memfd:hull-template (deleted)'])
    // Sockets: the agent's. QMP is closed, and there is no other.
    expect([...open].filter(([, link]) => link.startsWith('socket:')).map(([fd]) => fd)).toEqual([20])
    const image = [...open].find(([, link]) => link === '/image.erofs')![0]
    expect(await puppet.call('pwrite64', image, 'x', 1, 0)).toBe('EBADF')
    expect(['EROFS', 'EACCES']).toContain(await puppet.call('openat', AT_FDCWD, `/proc/self/fd/${image}`, O_RDWR, 0))
    for (const fd of [...open].filter(([, link]) => link.startsWith('/memfd:')).map(([n]) => n)) {
      expect(['EPERM', 'EBADF']).toContain(await puppet.call('pwrite64', fd, 'x', 1, 0))
      expect(['EPERM', 'EACCES']).toContain(await puppet.call('mmap', 0, 4096, 3, 1, fd, 0))
    }
    // Of libraries that no machine calls there is nothing that could be run (disarm.ts): and what those would need is not there at all.
    const version = /^\D*(\d+\.\d+)\./.exec((await driver.info()).details.Hypervisor ?? '')?.[1] ?? ''
    const maps = readFileSync(`/proc/${qemu}/maps`, 'utf8').trim().split('\n')
    const never = NEVER_CALLED[version] ?? []
    for (const library of never) {
      const mapped = maps.filter((line) => line.endsWith(`/${library}`))
      expect(mapped.length, library).toBeGreaterThan(0)
      expect(mapped.filter((line) => / ..x/.test(line)), library).toEqual([])
    }
    if (never.includes('libpmem.so.1')) expect(maps.filter((line) => /libndctl|libcrypto/.test(line))).toEqual([])
    expect(await puppet.call('socket', 2, 1, 0)).toBe('EPERM')
    if (landlock > 0) expect(await puppet.call('openat', AT_FDCWD, '/vm/run.frames', O_RDONLY, 0)).toBe('EACCES')
    // QEMU's own filter (spawn=deny) is on top.
    expect(await puppet.call('execve', '/qemu-system-x86_64', 0, 0)).toBe('killed 31')
    expect((await sandbox.exited).code).toBe(137)
    expect(readFileSync(join(vmDirectory(spec.runDir), 'status'), 'utf8')).toContain('SIGSYS')
  })

  it('and so for the supervisor, which reads the guest’s bytes', async () => {
    const { sandbox, spec } = await create(['sleep', '1000'])
    await sandbox.start()
    const puppet = await Puppet.take(program, 'attach', sandbox.pid)
    const escapes: Escape[] = [
      not('a link that the daemon would follow', 'ENOSYS', 'symlink', '/etc/passwd', '/vm/status'),
      not('a socket to the daemon', 'ENOSYS', 'connect', 0, unixAddress(daemonSocket.address() as string), 110),
      not('the internet', 'EPERM', 'socket', 2, 1, 0),
      not('QEMU’s memory', 'ENOSYS', 'process_vm_readv', 2, 0, 0, 0, 0, 0),
      not('QEMU, traced', 'ENOSYS', 'ptrace', 16, 2, 0, 0),
      not('QEMU’s memory by /proc', ['EACCES', 'EPERM'], ...open('/proc/2/mem', O_RDONLY)),
      not('the host’s files', 'ENOENT', ...open('/etc/passwd', O_RDONLY)),
      not('a device', 'ENOSYS', 'mknod', '/vm/mem', 0o20666, 0x101),
      not('a program', ['EACCES', 'EFAULT'], 'execve', landlock > 0 ? '/qemu-system-x86_64' : '/vm/status', 0, 0),
      ...(landlock > 0
        ? [
            not('Landlock: the disk', 'EACCES', ...open('/disk.img', O_RDWR)),
            not('Landlock: the image', 'EACCES', ...open('/image.erofs', O_RDONLY)),
            not('Landlock: a socket where the daemon looks', 'ENOENT', ...open('/vm/other.sock', O_RDONLY)),
            not('Landlock: a directory', 'ENOSYS', 'mkdir', '/vm/d', 0o700),
          ]
        : []),
    ]
    expect(await escaped(puppet, escapes)).toEqual([])
    // No tap, no disk, nothing of the template.
    expect([...(await puppet.descriptors()).values()].filter((link) => link.startsWith('/') && !/^\/(dev\/null|vm\/qemu\.log)$/.test(link))).toEqual([])
    // What it needs it has.
    expect(await puppet.call('openat', AT_FDCWD, '/vm/run.frames', O_RDONLY, 0)).toBeTypeOf('number')
    await puppet.release()
    expect(await exec(sandbox, 'echo', 'alive')).toBe('alive\n')
    expect(statSync(join(vmDirectory(spec.runDir), 'ctl.sock')).mode & 0o777).toBe(0o600)
    expect(readdirSync(`/proc/${sandbox.pid}/task`)).toHaveLength(1)
  })

  // Last: a start that fails so is the template's fault, as the driver sees it.
  const others = [['an x32 program', (puppet: Puppet) => puppet.call(0x40000000 + 39)], ['a 32-bit program', (puppet: Puppet) => puppet.call32(20)]] as const
  const possible = answers32Bit()
  if (!possible) it.skip('is killed when it calls the kernel as a 32-bit program: this host’s kernel has no such calls')
  it.each(possible ? others : others.slice(0, 1))('is killed when it calls the kernel as %s, and the start says why', async (_what, call) => {
    const { sandbox } = await create(['sleep', '1000'])
    const { puppet, started } = await takeAtStart(sandbox)
    expect(await call(puppet)).toBe('killed 31')
    await expect(started).rejects.toThrow(/QEMU was killed by signal 31 \(SIGSYS: a system call that a seccomp filter forbids\)/)
  })
})
