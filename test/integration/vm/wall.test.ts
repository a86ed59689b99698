import { createHash } from 'node:crypto'
import { createReadStream, existsSync, readdirSync, readFileSync } from 'node:fs'
import { copyFile, readdir, readFile, rm, symlink, truncate, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { deleteLink, listLinks, openTap, setAddress, setLink } from '../../../src/host/link.js'
import { childrenOf, processStatus } from '../../../src/host/process.js'
import type { Sandbox, WorkloadSpec } from '../../../src/sandbox/types.js'
import type { VmDriver } from '../../../src/sandbox/vm/driver.js'
import { IMAGE_SLOTS } from '../../../src/sandbox/vm/qemu.js'
import { vmDirectory } from '../../../src/sandbox/vm/vmdir.js'
import { sleep } from '../../lib/daemon.js'
import { Lab, readFramed } from './lab.js'

let lab: Lab
let driver: VmDriver
const made: { sandbox: Sandbox; spec: WorkloadSpec }[] = []

beforeAll(async () => {
  lab = await Lab.make()
  driver = lab.driver()
  // All that follow are clones, whose jail has more in it than that of a machine that boots.
  const { sandbox, spec } = await create(['true'])
  await sandbox.start()
  await sandbox.exited
  await driver.templatesIdle()
  made.splice(0)
  await sandbox.destroy()
  await driver.removeState(spec)
})

afterEach(async () => {
  for (const { sandbox, spec } of made.splice(0)) {
    await sandbox.destroy()
    await driver.removeState(spec)
  }
  expect(await lab.leftovers()).toEqual([])
})

afterAll(() => lab.remove())

async function create(args: string[], more: Partial<WorkloadSpec> = {}, tapFd?: number): Promise<{ sandbox: Sandbox; spec: WorkloadSpec }> {
  const spec = lab.spec(args, more)
  const sandbox = await driver.create(spec, tapFd === undefined ? {} : { tapFd })
  made.push({ sandbox, spec })
  return { sandbox, spec }
}

async function output(args: string[], more: Partial<WorkloadSpec> = {}, tapFd?: number): Promise<{ stdout: string; stderr: string; code: number }> {
  const { sandbox } = await create(args, more, tapFd)
  const streams = readFramed((await sandbox.attach()).duplex)
  await sandbox.start()
  const { code } = await sandbox.exited
  return { ...(await streams), code }
}

async function digest(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}

describe('the wall around a virtual machine', () => {
  it('an image that is a block device is read-only on the host\'s side, whatever root in the guest tries', async () => {
    const image = join(lab.directory, 'large.erofs')
    await copyFile(lab.image, image)
    await truncate(image, IMAGE_SLOTS.at(-1)! + 4096) // more than any slot holds
    const before = await digest(image)
    const own = driver
    driver = lab.driver({ erofsFor: async () => image })
    // busybox's blockdev --setrw is BLKROSET: the guest's kernel believes that it may write, the host's descriptor says no.
    const script = 'blockdev --setrw /dev/vda; echo set=$?; dd if=/dev/urandom of=/dev/vda bs=4096 count=16 conv=fsync; echo rc=$?; blockdev --getro /dev/vda; dmesg | tail -3'
    try {
      const { stdout } = await output(['sh', '-c', script], { privileged: true })
      expect(stdout).toContain('rc=1')
      expect(await digest(image)).toBe(before)
    } finally {
      driver = own
      await rm(image)
    }
  })

  it('an image that is persistent memory is read-only on the host\'s side: what root in the guest writes there is nowhere', async () => {
    const before = await digest(lab.image)
    // At the end, where its own root file system is not: the guest believes what it has written until its cache goes. With the flush, which makes QEMU sync the file.
    const script = 'dd if=/dev/urandom of=/dev/pmem0 bs=4096 seek=30000 count=16 conv=fsync,notrunc 2>/dev/null; ' +
      'echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/pmem0 bs=4096 skip=30000 count=16 2>/dev/null | tr -d "\\0" | wc -c; head -c 1028 /dev/pmem0 | tail -c 4 | od -An -tx1; echo alive'
    const { stdout } = await output(['sh', '-c', script], { privileged: true })
    expect(stdout.replaceAll(/\s+/g, ' ').trim()).toBe('0 e2 e1 f5 e0 alive') // zeros, and EROFS's magic number
    expect(await digest(lab.image)).toBe(before)
  })

  it('the jail: no way to a file, a process, a device or a network of the host', async () => {
    const { sandbox, spec } = await create(['sleep', '1000'])
    await sandbox.start()
    const [qemu] = await childrenOf(sandbox.pid)
    for (const pid of [sandbox.pid, qemu!]) {
      const status = (await processStatus(pid))!
      expect(new Set([...status.uids, ...status.gids]).size).toBe(1)
      expect(status.uids[0]).toBeGreaterThanOrEqual(0x70000000)
      expect(status.groups.filter((group) => group !== status.gids[0])).toEqual([])
      const { inheritable, permitted, effective, bounding, ambient } = status.capabilities
      expect(inheritable | permitted | effective | bounding | ambient).toBe(0n)
      expect(status.noNewPrivileges).toBe(true)
      expect(status.seccomp).toBe(2)
    }
    // QEMU has the container's filter and its own on top.
    expect(Number((await processStatus(qemu!))!.fields['Seccomp_filters'])).toBeGreaterThan(Number((await processStatus(sandbox.pid))!.fields['Seccomp_filters']))

    const root = `/proc/${qemu}/root`
    expect(readdirSync(root).sort()).toEqual([
      'dev', 'disk.img', 'firmware', 'hull-vmm', 'image.erofs', 'initrd', 'lib', 'lib64', 'modules', 'proc', 'qemu-system-x86_64', 'vm', 'vmlinux',
    ])
    expect(existsSync(join(root, 'dev/kvm'))).toBe((await driver.info()).accelerator === 'kvm')
    expect(readFileSync(`/proc/${qemu}/net/dev`, 'utf8').split('\n').filter((line) => line.includes(':')).map((line) => line.split(':')[0]!.trim())).toEqual(['lo'])
    const mounts = readFileSync(`/proc/${qemu}/mountinfo`, 'utf8').trim().split('\n').map((line) => line.split(' '))
    const writable = mounts.filter((fields) => fields[5]!.split(',').includes('rw')).map((fields) => fields[4])
    expect(writable.sort()).toEqual(['/dev', '/disk.img', '/vm'])
    // A clone's /proc: the jail's own processes, nothing of the kernel's, not writable; and hull-vmm's part of it is root's.
    expect(readdirSync(join(root, 'proc')).filter((name) => !['self', 'thread-self', '1'].includes(name))).toHaveLength(1)
    expect(mounts.find((fields) => fields[4] === '/proc')!.at(-1)).toMatch(/subset=pid/)
    expect((await import('node:fs')).statSync(join(root, 'proc/1/fd')).uid).toBe(0)
    for (const target of ['/vm', '/disk.img', '/image.erofs', '/proc']) {
      const options = mounts.find((fields) => fields[4] === target)![5]!.split(',')
      for (const option of ['nosuid', 'nodev', 'noexec']) expect(options).toContain(option)
    }
    // What root owns there: the frames with the workload's secrets are for this uid and root alone.
    for (const name of ['config.frames', 'run.frames']) expect((await import('node:fs')).statSync(join(vmDirectory(spec.runDir), name)).mode & 0o777).toBe(0o440)
  })

  it('no descriptor of the daemon reaches the VMM', async () => {
    const { sandbox } = await create(['sleep', '1000'])
    await sandbox.start()
    const [qemu] = await childrenOf(sandbox.pid)
    const { readlinkSync } = await import('node:fs')
    const open = (pid: number) => readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`)).filter((link) => !/^(pipe|socket|anon_inode):/.test(link))
    expect(open(sandbox.pid).filter((link) => link !== '/dev/null' && !/^\/(vm\/)?qemu\.log$/.test(link))).toEqual([]) // no stdin: the monitor gives /dev/null
    expect([...new Set(open(qemu!))].sort()).toEqual(['/dev/null', '/disk.img', '/image.erofs', '/memfd:hull-template (deleted)'])
  })

  it('a trap in the VM\'s directory is not stepped on', async () => {
    const { sandbox, spec } = await create(['sleep', '1000'])
    await sandbox.start()
    // As a VMM could that had been taken over (its filter knows no symlink(2), but let us not rely on that).
    const path = join(vmDirectory(spec.runDir), 'ctl.sock')
    await unlink(path)
    await symlink('/run/docker.sock', path)
    await expect(sandbox.signal(15)).rejects.toThrow(/not the supervisor/)
    await symlink('/etc/passwd', join(vmDirectory(spec.runDir), 'status'))
    // SIGKILL always works.
    expect(await sandbox.signal(9)).toBe(true)
    expect((await sandbox.exited).code).toBe(137)
  })

  it('a user without privileges has no capabilities in the guest, root has Docker\'s', async () => {
    const caps = async (more: Partial<WorkloadSpec>, user = '') =>
      /CapEff:\s*([0-9a-f]+)/.exec((await output(['cat', '/proc/self/status'], { process: lab.process(['cat', '/proc/self/status'], { user }), ...more })).stdout)?.[1]
    expect(await caps({})).toBe('00000000a80425fb')
    expect(await caps({}, 'user')).toBe('0000000000000000')
    expect(await caps({ capDrop: ['ALL'], capAdd: ['NET_ADMIN'] })).toBe('0000000000001000')
  })

  it('has a network card on the host\'s tap, and the tap goes with the VM', async () => {
    const name = `hvt${process.pid % 100000}`
    const tapFd = openTap(name)
    try {
      setAddress(name, '10.213.77.1', 24)
      setLink(name)
      const result = await output(['sh', '-c', 'ip -o addr show eth0; ip route; ping -c1 -W5 10.213.77.1; cat /etc/hosts /etc/resolv.conf'], {
        network: { mode: 'bridge', address: '10.213.77.2', prefixLength: 24, gateway: '10.213.77.1', mac: '02:42:0a:d5:4d:02', mtu: 1400 },
      }, tapFd)
      expect(result.stdout).toContain('10.213.77.2/24')
      expect(result.stdout).toContain('default via 10.213.77.1')
      expect(result.stdout).toContain('1 packets received')
      expect(result.stdout).toContain('nameserver 192.0.2.1')
      expect(result.code).toBe(0)
      for (let n = 0; n < 100 && (await listLinks(name)).length > 0; n++) await new Promise((resolve) => setTimeout(resolve, 20))
      expect(await listLinks(name)).toEqual([])
    } finally {
      deleteLink(name)
    }
  })

  it('the tap is closed when the VM cannot be made', async () => {
    const name = `hvt${process.pid % 100000}`
    const tapFd = openTap(name)
    await expect(lab.driver({ qemu: 'qemu-nowhere' }).create(lab.spec(['true']), { tapFd })).rejects.toThrow(/qemu-nowhere/)
    expect(await listLinks(name)).toEqual([])
  })

  it('a daemon begins without waiting for what takes half a minute where KVM hangs', async () => {
    let answer = (_: unknown) => {}
    const asked = vi.spyOn(driver as unknown as { prepare: () => Promise<unknown> }, 'prepare').mockReturnValue(new Promise((resolve) => (answer = resolve)))
    try {
      const { rest } = await driver.collectGarbage() // the old one never came back from here
      expect(asked).toHaveBeenCalledTimes(1)
      expect(await Promise.race([rest.then(() => 'done'), sleep(100).then(() => 'waits')])).toBe('waits')
      asked.mockRestore()
      answer(await (driver as unknown as { prepare: () => Promise<unknown> }).prepare())
      await rest
    } finally {
      asked.mockRestore()
    }
  })

  it('jails of older builds go, the one in use stays', async () => {
    const { mkdir } = await import('node:fs/promises')
    await driver.validate(lab.spec(['true']))
    const directory = join(lab.directory, 'data/vm')
    await mkdir(join(directory, 'jail-0123456789abcdef01234567/lib'), { recursive: true })
    await mkdir(join(directory, 'tmp-0123456789ab'))
    await (await driver.collectGarbage()).rest
    const left = (await readdir(directory)).filter((entry) => entry !== 'accelerator.json' && entry !== 'templates' && !entry.startsWith('files-')) // the file server's root is in use too
    expect(left).toHaveLength(1)
    expect((await readFile(join(directory, left[0]!, 'vmlinux'))).length).toBeGreaterThan(1 << 20)
  })
})
