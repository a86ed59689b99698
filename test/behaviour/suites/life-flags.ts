import { readlink } from 'node:fs/promises'
import { hostname } from 'node:os'
import { describe, expect, it } from 'vitest'
import { exec } from '../../lib/daemon.js'
import { testImage } from '../../lib/image.js'
import type { Bench } from './life.js'

/** Namespaces, devices, privileges and the smaller limits. */
export function defineFlags({ isolation, vm, ok, run, start, sh, inspect, daemon }: Bench): void {
  /** POST /containers/create with this HostConfig, for what the CLI itself refuses; removes what it made. */
  const create = async (hostConfig: object, config: object = {}) => {
    const answer = await daemon().api('POST', '/containers/create', { Image: testImage, Cmd: ['true'], ...config, HostConfig: { Isolation: isolation, ...hostConfig } })
    const body = JSON.parse(answer.body) as { message?: string; Id?: string; Warnings?: string[] }
    if (body.Id) await ok('rm', body.Id)
    return { status: answer.status, message: body.message ?? '', warnings: body.Warnings ?? [] }
  }

  describe(`flags (${isolation})`, () => {
    it('share a namespace with the host, or say why not', async () => {
      if (vm) {
        for (const option of [['--pid', 'host'], ['--ipc', 'host'], ['--uts', 'host'], ['--cgroupns', 'host'], ['--device', '/dev/null'], ['--pid', 'container:x'], ['--device-cgroup-rule', 'c 1:3 r']]) {
          const said = await run(...option, testImage, 'true')
          expect(said.code, option.join(' ')).toBe(125)
          expect(said.stderr).toContain('is not possible with isolation vm')
        }
        return
      }
      const namespaces = async (kind: string) => readlink(`/proc/self/ns/${kind}`)
      const said = await run('--pid', 'host', '--ipc', 'host', '--uts', 'host', '--cgroupns', 'host', ...sh('for n in pid ipc uts cgroup net; do readlink /proc/self/ns/$n; done; hostname'))
      const lines = said.stdout.trim().split('\n')
      expect(lines.slice(0, 3)).toEqual([await namespaces('pid'), await namespaces('ipc'), await namespaces('uts')])
      expect(lines[3]).toBe(await namespaces('cgroup'))
      expect(lines[4]).not.toBe(await namespaces('net'))
      expect(lines[5]).toBe(hostname())
      expect((await run('--uts', 'host', '-h', 'x', testImage, 'true')).stderr).toContain('onflicting options: ')
      expect((await create({ UTSMode: 'host' }, { Hostname: 'x' })).message).toBe('conflicting options: hostname and the UTS mode')
    })

    it('join a container that lets them, and no other', async () => {
      if (vm) return
      const donor = await start('--name', 'donor', '--ipc', 'shareable', '--shm-size', '8m', ...sh('echo shared > /dev/shm/x; sleep 1000'))
      const said = await run('--pid', 'container:donor', '--ipc', `container:${donor.slice(0, 12)}`, ...sh('cat /dev/shm/x; df -k /dev/shm | tail -1 | awk "{print \\$2}"; tr "\\0" " " < /proc/1/cmdline; echo; readlink /proc/self/ns/ipc'))
      expect(said.stdout).toBe(`shared\n8192\n${['sh', '-c', 'echo shared > /dev/shm/x; sleep 1000'].join(' ')} \n${await ok('exec', 'donor', 'readlink', '/proc/self/ns/ipc')}\n`.replace(/^sh -c .*$/m, said.stdout.split('\n')[2]!))
      expect(said.stdout.split('\n')[2]).toMatch(/sleep 1000/)
      await ok('stop', '-t', '0', 'donor')
      expect((await run('--pid', 'container:donor', testImage, 'true')).stderr).toContain('cannot join PID of a non running container')
      await ok('rm', 'donor')
      await start('--name', 'closed', ...sh('sleep 1000'))
      expect((await run('--ipc', 'container:closed', testImage, 'true')).stderr).toContain('non-shareable IPC (hint: use IpcMode:shareable for the donor container)')
      expect((await run('--pid', 'container:nosuch', testImage, 'true')).stderr).toContain('No such container: nosuch')
      await ok('rm', '-f', 'closed')
      expect((await run('--ipc', 'none', testImage, 'ls', '-d', '/dev/shm')).code).not.toBe(0)
    })

    it('give capabilities, take them, and take new privileges away', async () => {
      const caps = async (...options: string[]) => (await run(...options, ...sh('grep CapEff /proc/self/status'))).stdout.split('\t')[1]?.trim()
      expect(await caps('--cap-drop', 'all', '--cap-add', 'NET_BIND_SERVICE')).toBe('0000000000000400')
      if (!vm) expect(await caps('--cap-add', 'cap_sys_time')).toBe('00000000aa0425fb')
      expect(BigInt(`0x${(await caps('--cap-add', 'ALL'))!}`)).toBeGreaterThan(0x3fffffffffn)
      expect((await run('--cap-add', 'NOSUCH', testImage, 'true')).stderr).toMatch(/unknown capability|invalid CapAdd/)
      expect((await run('--security-opt', 'no-new-privileges', ...sh('grep NoNewPrivs /proc/self/status'))).stdout).toBe('NoNewPrivs:\t1\n')
      expect((await run('--security-opt', 'selinux-something=1', testImage, 'true')).stderr).toContain('invalid --security-opt')
      // The files that Docker hides are there when the user asks for them.
      expect((await run('--security-opt', 'systempaths=unconfined', ...sh('mount | grep -c " /proc/"'))).stdout.trim()).toBe('0')
    })

    it('--privileged gives everything there is behind its wall', async () => {
      const said = await run('--privileged', ...sh('mount -t tmpfs x /mnt && echo mounted; mount | grep -c " /proc/"; ls /dev | wc -l; echo 1 > /proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward; grep Seccomp: /proc/self/status'))
      const lines = said.stdout.trim().split('\n')
      expect(lines.slice(0, 2)).toEqual(['mounted', '0'])
      expect(Number(lines[2])).toBeGreaterThan(15)
      expect(lines[3]).toBe('1')
      if (!vm) expect(lines[4]).toBe('Seccomp:\t0')
    })

    it('give devices of the host, with the access asked for', async () => {
      if (vm) return
      const said = await run('--device', '/dev/zero:/dev/nothing:r', ...sh('head -c 3 /dev/nothing | wc -c; ls -l /dev/nothing | cut -c1'))
      expect(said.stdout).toBe('3\nc\n')
      expect((await run('--device', '/dev/nosuch', testImage, 'true')).stderr).toContain('error gathering device information while adding custom device "/dev/nosuch": no such file or directory')
      // /dev/kmsg (1:11) is nobody's but the host's: made with mknod it opens only when the rule says so.
      const kmsg = sh('mknod /tmp/k c 1 11; dd if=/tmp/k of=/dev/null bs=1 count=0 2>/dev/null; echo $?')
      expect((await run('--cap-add', 'SYSLOG', ...kmsg)).stdout.trim()).not.toBe('0')
      expect((await run('--cap-add', 'SYSLOG', '--device-cgroup-rule', 'c 1:11 r', ...kmsg)).stdout.trim()).toBe('0')
      expect((await create({ DeviceCgroupRules: ['c 1'] })).message).toBe("invalid device cgroup rule format: 'c 1'")
    })

    it('a value that the kernel does not take is the user’s mistake', async () => {
      await ok('create', '--name', 'odd', `--isolation=${isolation}`, '--sysctl', 'net.core.somaxconn=many', testImage, 'true')
      const answer = await daemon().api('POST', '/containers/odd/start')
      expect(answer.status, answer.body).toBe(400)
      expect(answer.body).toMatch(/somaxconn/)
      await ok('rm', 'odd')
    })

    it('set sysctls that cannot reach beyond the wall', async () => {
      const said = await run('--sysctl', 'net.core.somaxconn=77', '--sysctl', 'kernel.msgmax=9000', ...sh('cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax'))
      expect(said.stdout).toBe('77\n9000\n')
      const machine = await create({ Sysctls: { 'vm.swappiness': '11' } })
      if (vm) expect(machine.status).toBe(201)
      else {
        expect(machine).toMatchObject({ status: 400, message: 'sysctl "vm.swappiness" is not in a separate kernel namespace' })
        expect((await create({ NetworkMode: 'host', Sysctls: { 'net.core.somaxconn': '1' } })).message).toBe('sysctl "net.core.somaxconn" not allowed in host network namespace')
        expect((await create({ Sysctls: { 'net/../kernel/panic': '1' } })).status).toBe(400)
      }
    })

    it('set names, groups, shm and the smaller limits', async () => {
      const said = await run('--domainname', 'example.org', '-h', 'box', '--group-add', '2000', '--shm-size', '5m', '--oom-score-adj', '300', '--init', '--stop-timeout', '3', '--annotation', 'a.b=c', '--userns', 'host', ...sh('cat /proc/sys/kernel/domainname; id -G; df -k /dev/shm | tail -1 | awk "{print \\$2}"; cat /proc/self/oom_score_adj; grep box /etc/hosts | cut -f2'))
      expect(said.stdout).toBe('example.org\n0 2000\n5120\n300\nbox.example.org box\n')
      await start('--name', 'scored', '--oom-score-adj', '300', ...sh('sleep 1000'))
      expect(await ok('exec', 'scored', 'cat', '/proc/1/oom_score_adj', '/proc/self/oom_score_adj')).toBe('300\n300')
      await ok('rm', '-f', 'scored')
      const id = await ok('create', `--isolation=${isolation}`, '--annotation', 'a.b=c', '--stop-timeout', '3', '--memory-swappiness', '10', testImage)
      expect((await inspect(id)).HostConfig).toMatchObject({ Annotations: { 'a.b': 'c' }, MemorySwappiness: 10, IpcMode: 'private' })
      await ok('rm', id)
      if (vm) expect((await create({ MemorySwappiness: 10 })).warnings.join()).toContain('memory swappiness is discarded')
      expect((await create({ MemorySwappiness: 101 })).message).toBe('Invalid value: 101, valid memory swappiness range is 0-100')
      expect((await create({ CpuRealtimePeriod: 1000 })).status).toBe(400)
      expect((await create({ DeviceRequests: [{ Driver: '', Count: -1, Capabilities: [['gpu']] }] })).message).toBe('could not select device driver "" with capabilities: [[gpu]]')
      expect((await create({ BlkioDeviceReadBps: [{ Path: '/dev/null', Rate: 1000 }] })).message).toBe('/dev/null is not a block device')
      expect((await run('--cgroup-parent', '/hull-life-test', testImage, 'true')).code).toBe(0)
      // A parent of the user's is his to remove, as in Docker.
      await exec('find', ['/sys/fs/cgroup', '-maxdepth', '2', '-name', 'hull-life-test', '-exec', 'rmdir', '{}', ';'])
    })
  })
}
