import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runOk } from '../../../src/base/run.js'
import { encode, T, text } from './frames.js'
import { Lab, processPairs, type BootOptions } from './machine.js'

const lab = new Lab()
beforeAll(() => lab.prepare())
afterAll(() => lab.remove())

/** Boots, runs to the end, and returns what it said. */
async function run(script: string, options: Partial<BootOptions> = {}) {
  const vm = await lab.boot({ args: ['sh', '-c', script], ...options })
  const code = await vm.exited
  return { code, out: vm.stdout.toString(), err: vm.stderr.toString(), status: await vm.status(), vm }
}

describe('the container in the guest', () => {
  it('has its names, files, devices and mounts', async () => {
    const result = await run(`hostname; dnsdomainname -y 2>/dev/null; cat /etc/hosts /etc/hostname /etc/resolv.conf; cat /etc/climb | head -n 1
      ls /dev | tr '\\n' ' '; echo; stat -c '%a %n' /dev/shm /dev/mqueue /dev/pts /dev/null; df -k /dev/shm | tail -n 1 | awk '{print $2}'
      wc -c < /proc/kcore; ls /sys/firmware | wc -l; ls /proc/acpi | wc -l; touch /sys/x; touch /proc/sys/x; echo 1 > /proc/sys/vm/panic_on_oom; touch /sys/fs/cgroup/x
      for p in / /dev /proc /sys /sys/fs/cgroup /proc/sys; do awk -v p=$p '$5==p{print p, $6}' /proc/self/mountinfo; done; cat /proc/sys/net/ipv4/ping_group_range`,
    { config: [['domainname', 'example'], ['shm_size', 1 << 20]] })
    expect(result.out).toBe(`box
127.0.0.1 localhost
box
nameserver 192.0.2.53
root:x:0:0:root:/root:/bin/sh
core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero${' '}
1777 /dev/shm
1777 /dev/mqueue
755 /dev/pts
666 /dev/null
1024
0
0
0
/ rw,nodev,relatime
/dev rw,nosuid
/proc rw,nosuid,nodev,noexec,relatime
/sys ro,nosuid,nodev,noexec,relatime
/sys/fs/cgroup ro,nosuid,nodev,noexec,relatime
/proc/sys ro,nosuid,nodev,noexec,relatime
0\t2147483647
`)
    expect(result.err.match(/Read-only file system|nonexistent directory|can't create|Permission denied/g)?.length).toBeGreaterThanOrEqual(4)
  })

  it('runs with its user, makes the working directory, and counts from pid 1', async () => {
    const result = await run('id -u; pwd; echo $HOME $$; stat -c "%u %a" .; touch here', { run: [['user', 'alice:staff'], ['cwd', '/made/for/you']] })
    expect(result.out).toBe('1000\n/made/for/you\n/home/alice 1\n0 755\n')
    expect(result.err).toContain('Permission denied')
  })

  it('is read-only with readonly=1, but for tmpfs', async () => {
    const result = await run('touch /x || touch /data/file && stat -c "%a %U" /data /new && echo a > /new/x && awk \'$5=="/data"{print $6}\' /proc/self/mountinfo; mount -o remount,rw / 2>&1',
      { config: [['readonly', 1], ['mount', 'tmpfs::/data'], ['mount', 'tmpfs:size=1m,mode=700,exec:/new']] })
    expect(result.err).toContain('Read-only file system')
    expect(result.out).toMatch(/^755 root\n700 root\nrw,nosuid,nodev,noexec,relatime\nmount: .*\n$/)
  })

  it('sets sysctls, and refuses those that do not exist', async () => {
    const ok = await run('cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax', { config: [['sysctl', 'net.core.somaxconn=77'], ['sysctl', 'kernel.msgmax=9999']] })
    expect(ok.out).toBe('77\n9999\n')
    const bad = await run('true', { config: [['sysctl', 'net.no.such=1']] })
    expect(bad.code).toBe(126)
    expect(bad.status).toContain('message=sysctl net.no.such=1: No such file or directory')
    const climb = await run('true', { config: [['sysctl', 'net/../../../etc/passwd=1']] })
    expect(climb.status).toContain('message=invalid sysctl')
  })

  it('puts tini first with init=1', async () => {
    const result = await run('cat /proc/1/comm; tr "\\0" " " < /proc/1/cmdline; (sleep 0.2 &); sleep 1; cat /proc/[0-9]*/stat | grep -c ") Z "; exit 6', { config: [['init', 1]] })
    expect(result.out).toBe('tini\n/sbin/docker-init -- sh -c ' + expectScript + '0\n')
    expect(result.code).toBe(6)
  })
  const expectScript = 'cat /proc/1/comm; tr "\\0" " " < /proc/1/cmdline; (sleep 0.2 &); sleep 1; cat /proc/[0-9]*/stat | grep -c ") Z "; exit 6 '

  it('privileged: all of /dev and /sys', async () => {
    const result = await run('ls /dev/vda /dev/kmsg; echo + > /dev/null; mkdir /sys/fs/cgroup/x && echo made; ls /dev/vport* 2>/dev/null', { config: [['privileged', 1]], run: [['cap', 'CAP_SYS_ADMIN']] })
    expect(result.out).toBe('/dev/kmsg\n/dev/vda\nmade\n')
  })

  it('kills at the memory limit and says so', async () => {
    const result = await run('head -c 100000000 /dev/zero | tail -c 90000000 | wc -c; echo never', { config: [['memory', 24 << 20]], args: ['tail', '/dev/zero'] })
    expect(result.code).toBe(137)
    expect(result.status).toBe('code=137\noom=1\n')
  })

  it('kills a container that crawls at its limit instead of letting it page its own program in and out for minutes', async () => {
    const result = await run('', { config: [['memory', 24 << 20]], args: ['awk', 'BEGIN { while (1) { n++; a[n] = n } }'] })
    expect(result.status).toBe('code=137\noom=1\n')
  }, 60_000)

  it('does not kill who only reads and writes more than the limit', async () => {
    const result = await run('dd if=/dev/zero of=/big bs=1M count=48 2>/dev/null; for i in 1 2; do cat /big | wc -c; done', { config: [['memory', 24 << 20]] })
    expect(result.out).toBe('50331648\n50331648\n')
    expect(result.status).toBe('code=0\noom=0\n')
  }, 60_000)

  it('kills the greedy one when the whole machine is short of memory', async () => {
    const result = await run('', { args: ['tail', '/dev/zero'], memory: 128 })
    expect(result.status).toBe('code=137\noom=1\n')
  })

  it('limits processes and weighs the cpu', async () => {
    const result = await run('for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; cat /sys/fs/cgroup/cpu.weight /sys/fs/cgroup/pids.max', { config: [['pids', 5], ['cpu_shares', 512]] })
    expect(result.err).toContain("can't fork")
    expect((await run('cat /sys/fs/cgroup/cpu.weight /sys/fs/cgroup/pids.max', { config: [['pids', 5], ['cpu_shares', 512]] })).out).toBe('20\n5\n')
  })

  it('has its network from CONFIG', async () => {
    const result = await run('ip -o addr | tr -s " "; ip link show eth0; ip route; ping -c 1 -w 5 10.0.2.2 >/dev/null && echo reached; ping -c1 -w 2 127.0.0.1 >/dev/null && echo self', {
      config: [['net', 'eth'], ['interface', 'eth0 02:42:0a:00:02:09 10.0.2.9/24 1400'], ['route', 'eth0 10.0.2.2']],
      qemu: ['-netdev', 'user,id=n0,restrict=on', '-device', 'virtio-net-pci,netdev=n0,romfile='],
    })
    expect(result.out).toContain('inet 10.0.2.9/24 brd 10.0.2.255')
    expect(result.out).toContain('link/ether 02:42:0a:00:02:09')
    expect(result.out).toContain('mtu 1400')
    expect(result.out).toContain('default via 10.0.2.2 dev eth0')
    expect(result.out).not.toContain('eth0 inet6')
    expect(result.out).toContain('reached\nself\n')
  })

  it('has another random pool and boot id at each boot, and the right time', async () => {
    const script = 'head -c 32 /dev/urandom | sha256sum; cat /proc/sys/kernel/random/boot_id; date +%s'
    const [first, second] = [(await run(script)).out.split('\n'), (await run(script)).out.split('\n')]
    expect(first[0]).toMatch(/^[0-9a-f]{64}/)
    expect(first[0]).not.toBe(second[0])
    expect(first[1]).not.toBe(second[1])
    expect(Math.abs(Number(second[2]) - Date.now() / 1000)).toBeLessThan(2)
  })

  it('keeps its disk between starts, cleanly unmounted', async () => {
    const disk = await lab.disk()
    const first = await run('echo kept > /file; rm /bin/vi; mkdir /bin/dir; chmod 700 /tmp; setfattr 2>/dev/null; seq 1 100000 > /many; exit 0', { disk })
    expect(first.code).toBe(0)
    expect((await runOk('e2fsck', ['-fn', disk])).code).toBe(0)
    expect((await runOk('dumpe2fs', ['-h', disk])).stdout).not.toContain('needs_recovery')
    const second = await run('cat /file; ls -d /bin/vi /bin/dir; stat -c %a /tmp; wc -l < /many', { disk })
    expect(second.out).toBe('kept\n/bin/dir\n700\n100000\n')
  })

  it('survives the loss of power', async () => {
    const disk = await lab.disk()
    const vm = await lab.boot({ args: ['sh', '-c', 'echo safe > /file; sync; echo synced; sleep 1000'], disk })
    await vm.output('synced\n')
    vm.kill()
    await vm.exited
    expect((await run('cat /file', { disk })).out).toBe('safe\n')
  })
})

describe('a workload that cannot start', () => {
  it.each([
    [127, 'exec: "nope": executable file not found in $PATH', { args: ['nope'] }],
    [127, 'exec: "/nope": stat /nope: no such file or directory', { args: ['/nope'] }],
    [126, 'exec: "/bin/plain": permission denied', { args: ['/bin/plain'] }],
    [126, 'exec /bin/garbage: exec format error', { args: ['garbage'] }],
    [126, 'unable to find user bob: no matching entries in passwd file', { args: ['true'], run: [['user', 'bob']] }],
    [127, 'chdir to cwd ("/etc/passwd") set in config.json failed: not a directory', { args: ['true'], run: [['cwd', '/etc/passwd']] }],
    [125, 'no command specified', { args: [] }],
    [125, "the working directory 'x' is invalid, it needs to be an absolute path", { args: ['true'], run: [['cwd', 'x']] }],
    [125, 'mount /dev/vdz on /run/lower: No such file or directory', { args: ['true'], configFrames: encode(T.CONFIG, text([['root', '/dev/vdz']])) }],
    [125, 'mount /dev/vdb on /run/lower: Invalid argument', { args: ['true'], configFrames: encode(T.CONFIG, text([['root', '/dev/vdb']])) }],
    [125, 'mount /dev/vda on /run/disk: Resource busy', { args: ['true'], configFrames: encode(T.CONFIG, text([['root', '/dev/vda'], ['disk', '/dev/vda']])) }],
    [125, 'no root device', { args: ['true'], configFrames: encode(T.CONFIG, text([['net', 'none']])) }],
    [125, 'eth0: No such device', { args: ['true'], config: [['net', 'eth'], ['interface', 'eth0 02:00:00:00:00:01 10.0.0.2/24 1500']] }],
    [125, 'invalid interface: eth0 02:00:00:00:00:01 10.0.0/24 1500', { args: ['true'], config: [['net', 'eth'], ['interface', 'eth0 02:00:00:00:00:01 10.0.0/24 1500']] }],
    [125, 'invalid memory: lots', { args: ['true'], config: [['memory', 'lots']] }],
    [126, 'invalid tmpfs option: remount:/tmp', { args: ['true'], config: [['mount', 'tmpfs:remount:/tmp']] }],
  ] as [number, string, BootOptions][])('ends with %i: %s', async (code, message, options) => {
    const vm = await lab.boot(options)
    expect(await vm.exited).toBe(code)
    expect(await vm.status()).toBe(`code=${code}\noom=0\nmessage=${message}\n`)
    expect(vm.stdout.length + vm.stderr.length).toBe(0)
  })

  it('tells those who wait for the start', async () => {
    const vm = await lab.boot({ args: ['nope'] })
    await expect(vm.started()).rejects.toThrow('executable file not found')
    expect(await vm.exited).toBe(127)
  })

  it('takes RUN in several frames', async () => {
    const big = 'y'.repeat(90_000)
    const vm = await lab.boot({ args: [], runFrames: encode(T.RUN, text(processPairs(['sh', '-c', 'echo ${#A}'], [['env', `A=${big}`]])), 1) })
    expect(await vm.exited).toBe(0)
    expect(vm.stdout.toString()).toBe('90000\n')
  })
})
