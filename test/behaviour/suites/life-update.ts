import { describe, expect, it } from 'vitest'
import type { Bench } from './life.js'

/** docker update. */
export function defineUpdate({ isolation, vm, docker, ok, start, sh, inspect, daemon }: Bench): void {
  const explained = async (name: string) => (await daemon().hull(['explain', name])).stdout

  describe(`update (${isolation})`, () => {
    it('changes the limits of a running container, in the kernel and on disk', async () => {
      await start('--name', 'limits', '--memory', '128m', '--pids-limit', '100', ...sh('sleep 1000'))
      expect((await inspect('limits')).HostConfig.MemorySwap).toBe(256 << 20) // as dockerd shows it
      await ok('update', '--memory', '64m', '--memory-swap', '64m', '--pids-limit', '15', '--cpus', '0.5', '--cpu-shares', '512', 'limits')
      const { HostConfig: host } = await inspect('limits')
      expect(host).toMatchObject({ Memory: 64 << 20, MemorySwap: 64 << 20, PidsLimit: 15, NanoCpus: 5e8, CpuShares: 512 })
      expect(await explained('limits')).toMatch(/cpus\s+0\.5\b/)
      // Both limits are felt by the workload itself, whichever kernel it has.
      expect((await docker('exec', 'limits', 'sh', '-c', 'for i in $(seq 1 40); do sleep 2 & done')).stderr).toMatch(/can't fork|Resource temporarily unavailable/)
      const stats = JSON.parse((await daemon().api('GET', '/containers/limits/stats?stream=0&one-shot=1')).body) as { memory_stats: { limit: number }; pids_stats: { limit: number } }
      expect(stats.memory_stats.limit).toBe(64 << 20)
      expect(stats.pids_stats.limit).toBe(15)
      // It holds for the next start, too, and after a restart of the daemon.
      await daemon().down('SIGKILL')
      await daemon().up()
      await ok('restart', '-t', '0', 'limits')
      expect((await inspect('limits')).HostConfig).toMatchObject({ Memory: 64 << 20, PidsLimit: 15 })
      expect(await explained('limits')).toMatch(/cpus\s+0\.5\b/)
      await ok('rm', '-f', 'limits')
    })

    it('refuses in Docker\'s words, and then changes nothing', async () => {
      await start('--name', 'refused', '--memory', '64m', '--cpu-quota', '50000', ...sh('sleep 1000'))
      const before = (await inspect('refused')).HostConfig
      const said = async (...args: string[]) => (await docker('update', ...args, 'refused')).stderr
      expect(await said('--memory', '1m')).toContain('Minimum memory limit allowed is 6MB')
      expect(await said('--memory', '256m')).toContain('Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time')
      expect(await said('--cpus', '0.5', '--pids-limit', '7')).toContain('Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set')
      expect(await said('--cpuset-cpus', '99')).toContain('Requested CPUs are not available')
      expect(await said('--pids-limit', '7', '--memory', '80m', '--memory-swap', '70m')).toContain('Minimum memoryswap limit should be larger than memory limit')
      if (vm) {
        const more = await said('--memory', '4g', '--memory-swap', '-1', '--pids-limit', '7')
        expect(more).toContain('Cannot update container')
        expect(more).toContain('memory 4294967296 (4096 MiB) is more than the running machine has')
        expect(await said('--cpu-quota', '200000')).toContain('cpu quota 200000 needs 2 CPUs and the running machine has 1')
      }
      expect((await inspect('refused')).HostConfig).toEqual(before)
      await ok('rm', '-f', 'refused')
      const remove = await ok('run', '-d', '--rm', `--isolation=${isolation}`, ...sh('sleep 1000'))
      expect((await docker('update', '--restart', 'always', remove)).stderr).toContain('Restart policy cannot be updated because AutoRemove is enabled for the container')
      await ok('rm', '-f', remove)
      expect((await docker('update', '--memory', '64m', 'nosuch')).stderr).toContain('No such container: nosuch')
    })

    it('of a container that is stopped applies when it starts', async () => {
      await ok('create', '--name', 'later', `--isolation=${isolation}`, ...sh('sleep 1000'))
      await ok('update', '--memory', '512m', '--memory-swap', '512m', '--cpus', '2', 'later')
      await ok('start', 'later')
      expect(await ok('stats', '--no-stream', '--format', '{{.MemUsage}}', 'later')).toMatch(/\/ 512MiB$/)
      if (vm) expect(await ok('exec', 'later', 'nproc')).toBe('2')
      await ok('rm', '-f', 'later')
    })
  })
}
