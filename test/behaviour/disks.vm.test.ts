import { stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exec, TestDaemon } from '../lib/daemon.js'
import { buildTestImage, testImage } from '../lib/image.js'
import { remaining, type Snapshot, snapshot } from '../lib/leaks.js'

/** The writable disks of VMs: how large they are, and what the guest hears when the host has no room behind them. */
describe('disks of virtual machines', () => {
  let daemon: TestDaemon
  let before: Snapshot
  const ok = (...args: string[]) => daemon.ok(...args)
  const sh = (script: string) => [testImage, 'sh', '-c', script]
  /** KiB of the root's file system, as `df` in the container says. */
  const sizeIn = async (name: string) => Number(await ok('exec', name, 'sh', '-c', "df -k / | tail -n 1 | awk '{ print $2 }'"))
  const diskOf = async (name: string) => stat(join(daemon.dataRoot, 'containers', await ok('inspect', '-f', '{{.Id}}', name), 'disk.img'))

  beforeAll(async () => {
    before = await snapshot()
    // No pool: a machine that waits would have its disk on the file system that a test takes away.
    daemon = await TestDaemon.start(['--storage-opt', 'vm.size=1G', '--vm-pool', '0'])
    await buildTestImage(daemon)
  })

  afterAll(async () => {
    await daemon.destroy()
    expect(await remaining(before)).toEqual([])
  })

  it('vm.size of the daemon, where nobody says another', async () => {
    await ok('run', '-d', '--name', 'usual', '--isolation=vm', ...sh('exec sleep 100000'))
    const size = await sizeIn('usual')
    expect(size).toBeLessThanOrEqual(2 ** 20)
    expect(size).toBeGreaterThan(0.9 * 2 ** 20)
    await ok('rm', '-f', 'usual')
  }, 120_000)

  it('--storage-opt size: in inspect, in df, full when it is full, and the same disk after stop, start and restart', async () => {
    await ok('run', '-d', '--name', 'sized', '--isolation=vm', '--storage-opt', 'size=64m', ...sh('exec sleep 100000'))
    expect(await ok('inspect', '-f', '{{json .HostConfig.StorageOpt}}', 'sized')).toBe('{"size":"64m"}')
    expect((await diskOf('sized')).size).toBe(64 * 2 ** 20)
    const size = await sizeIn('sized')
    expect(size).toBeLessThanOrEqual(64 * 1024)
    expect(size).toBeGreaterThan(50 * 1024)
    const filled = await daemon.docker(['exec', 'sized', 'sh', '-c', 'dd if=/dev/zero of=/fill bs=64k; wc -c < /fill'])
    expect(filled.stderr).toContain('No space left on device')
    expect(Number(filled.stdout)).toBeGreaterThan(45 * 2 ** 20)
    expect(Number(filled.stdout)).toBeLessThan(64 * 2 ** 20)
    await ok('exec', 'sized', 'sh', '-c', 'rm /fill && echo kept > /kept')
    await ok('stop', '-t', '1', 'sized')
    await ok('start', 'sized')
    expect([await ok('exec', 'sized', 'cat', '/kept'), await sizeIn('sized')]).toEqual(['kept', size])
    await ok('restart', '-t', '1', 'sized')
    expect([await ok('exec', 'sized', 'cat', '/kept'), await sizeIn('sized')]).toEqual(['kept', size])
    const path = join(daemon.dataRoot, 'containers', await ok('inspect', '-f', '{{.Id}}', 'sized'))
    await ok('rm', '-f', 'sized')
    await expect(stat(path)).rejects.toThrow(/ENOENT/)
  }, 120_000)

  it('larger than the RAM and than the others’, when it is first touched by cp', async () => {
    await ok('create', '--name', 'large', '--isolation=vm', '--storage-opt', 'size=100G', ...sh('exec sleep 100000'))
    await ok('cp', join(import.meta.dirname, 'disks.vm.test.ts'), 'large:/copied')
    await ok('start', 'large')
    expect(Number(await ok('exec', 'large', 'sh', '-c', 'wc -c < /copied'))).toBe((await stat(join(import.meta.dirname, 'disks.vm.test.ts'))).size)
    expect(await sizeIn('large')).toBeGreaterThan(95 * 2 ** 20)
    expect((await diskOf('large')).blocks * 512).toBeLessThan(64 * 2 ** 20)
    await ok('rm', '-f', 'large')
  }, 120_000)

  it('root of a privileged guest, which may believe the disk to be larger, gets nothing behind its end', async () => {
    await ok('run', '-d', '--name', 'greedy', '--isolation=vm', '--privileged', '--storage-opt', 'size=64m', ...sh('exec sleep 100000'))
    await ok('exec', 'greedy', 'sh', '-c', 'mknod /disk b $(tr : " " < /sys/block/vda/dev)') // before anybody writes: a dd would make a file of that name
    const at = (megabyte: number) => daemon.docker(['exec', 'greedy', 'sh', '-c', `dd if=/dev/zero of=/disk bs=1M count=1 seek=${megabyte} conv=fsync,notrunc`])
    for (const megabyte of [64, 65, 1000, 2 ** 20 - 1, 2 ** 20]) expect((await at(megabyte)).code, `at ${megabyte} MiB`).toBe(1)
    expect((await diskOf('greedy')).size).toBe(64 * 2 ** 20)
    await ok('rm', '-f', 'greedy')
  }, 120_000)

  it('a host without room: writes fail in the guest, which goes on; nothing stands still, and all that makes room works', async () => {
    // Everything of the containers, on a file system of its own: its size is the host's room.
    const place = join(daemon.dataRoot, 'containers')
    await exec('mount', ['-t', 'tmpfs', '-o', 'size=200m', 'tmpfs', place])
    /** So many bytes are free from now on. */
    const leave = async (bytes: number) => {
      const { blocks, bfree, bsize } = await statfs(place)
      expect((await exec('mount', ['-o', `remount,size=${(blocks - bfree) * bsize + bytes}`, place])).code).toBe(0)
    }
    const inside = (script: string) => daemon.docker(['exec', 'squeezed', 'sh', '-c', script])
    const write = (file: string) => inside(`dd if=/dev/urandom of=${file} bs=64k count=256 conv=fsync`)
    try {
      await ok('run', '-d', '--name', 'squeezed', '--isolation=vm', ...sh('exec sleep 100000'))
      expect((await inside('dd if=/dev/zero of=/before bs=64k count=16 conv=fsync; sync')).code).toBe(0)
      await leave(8 * 2 ** 20)
      const failed = await write('/fill')
      expect([failed.code, failed.stderr]).toEqual([1, expect.stringContaining('Input/output error')])
      expect(await ok('inspect', '-f', '{{.State.Status}} {{.State.Running}}', 'squeezed')).toBe('running true')
      expect((await inside('wc -c < /before')).stdout).toBe('1048576\n')
      await leave(100 * 2 ** 20)
      expect(await write('/after')).toMatchObject({ code: 0 })

      // Worse: not even the file system's own blocks. It becomes read-only, and is whole again at the next start.
      await leave(4096)
      expect((await inside('for n in $(seq 2000); do mkdir /d$n && echo $n > /d$n/f || exit 1; sync; done')).code).toBe(1)
      expect((await inside('wc -c < /before')).stdout).toBe('1048576\n')
      await leave(0)
      await ok('kill', 'squeezed')
      expect(await ok('inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', 'squeezed')).toBe('exited 137')
      expect((await daemon.docker(['start', 'squeezed'])).stderr).toContain('no space left on device')
      await leave(100 * 2 ** 20)
      await ok('start', 'squeezed')
      expect((await inside('wc -c < /before; wc -c < /after')).stdout).toBe('1048576\n16777216\n')
      expect(await write('/again')).toMatchObject({ code: 0 })
      await leave(0)
      await ok('rm', '-f', 'squeezed')
    } finally {
      await daemon.docker(['rm', '-f', 'squeezed'])
      await exec('umount', [place])
    }
  }, 180_000)
})
