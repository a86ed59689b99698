import { describe, expect, it } from 'vitest'
import { until } from '../../lib/daemon.js'
import type { Bench } from './life.js'

/** Health checks. */
export function defineHealth({ isolation, docker, ok, start, sh, inspect, daemon }: Bench): void {
  const health = async (name: string) => (await inspect(name)).State.Health!
  const becomes = (name: string, status: string) => until(`${name} is ${status}`, async () => (await health(name)).Status === status, 60_000)

  describe(`health checks (${isolation})`, () => {
    it('run in the container, tell starting from healthy from unhealthy, in inspect, ps and events', async () => {
      const since = String(Date.now() / 1000)
      await start('--name', 'checked', '-u', '1000', '--health-cmd', 'id -u; test -e /tmp/fine', '--health-interval', '300ms', '--health-retries', '2', '--health-start-period', '20s', '--health-start-interval', '200ms', ...sh('sleep 1000'))
      expect(await ok('ps', '--filter', 'name=checked', '--format', '{{.Status}}')).toMatch(/^Up .* \(health: starting\)$/)
      await until('it was asked', async () => (await health('checked')).Log.length > 1)
      expect(await health('checked')).toMatchObject({ Status: 'starting', FailingStreak: 0 })
      expect(await ok('ps', '-q', '--filter', 'health=starting')).not.toBe('')
      await ok('exec', 'checked', 'touch', '/tmp/fine')
      await becomes('checked', 'healthy')
      expect((await health('checked')).Log.at(-1)).toMatchObject({ ExitCode: 0, Output: '1000\n' })
      expect(await ok('ps', '--filter', 'health=healthy', '--format', '{{.Names}} {{.Status}}')).toMatch(/^checked Up .* \(healthy\)$/)
      await ok('exec', 'checked', 'rm', '/tmp/fine')
      await becomes('checked', 'unhealthy')
      const { Log: log, FailingStreak: streak } = await health('checked')
      expect(streak).toBeGreaterThanOrEqual(2)
      expect(log.length).toBeLessThanOrEqual(5)
      expect(await ok('ps', '-q', '--filter', 'health=none')).toBe('')
      const events = await ok('events', '--since', since, '--until', String(Date.now() / 1000), '--filter', 'container=checked', '--filter', 'event=health_status', '--format', '{{.Action}}')
      expect(events.split('\n')).toEqual(['health_status: healthy', 'health_status: unhealthy'])
      await ok('rm', '-f', 'checked')
    })

    it('kill a probe that takes too long, with what it has started', async () => {
      await start('--init', '--name', 'slow', '--health-cmd', 'echo begun; sleep 333; echo never', '--health-interval', '200ms', '--health-timeout', '700ms', '--health-retries', '1', ...sh('sleep 1000'))
      await becomes('slow', 'unhealthy')
      expect((await health('slow')).Log[0]).toMatchObject({ ExitCode: -1, Output: 'Health check exceeded timeout (700ms): begun\n' })
      await until('three were asked', async () => (await health('slow')).Log.length >= 3)
      // At most the one that runs now.
      expect((await ok('top', 'slow', '-o', 'pid,args')).split('\n').filter((line) => /\bsleep 333$/.test(line) && !line.includes('echo')).length).toBeLessThanOrEqual(1)
      await ok('rm', '-f', 'slow')
    })

    it('are said to be broken when the command is not there, and cut long output', async () => {
      await start('--name', 'broken', '--health-cmd', 'seq 1 5000', '--health-interval', '200ms', ...sh('sleep 1000'))
      await becomes('broken', 'healthy')
      const { Output: output } = (await health('broken')).Log[0]!
      expect(output).toHaveLength(4096 + 3)
      expect(output.endsWith('...')).toBe(true)
      await ok('rm', '-f', 'broken')
      const made = JSON.parse((await daemon().api('POST', '/containers/create?name=nocmd', { Image: 'test/busybox:1', Cmd: ['sleep', '1000'], Healthcheck: { Test: ['CMD', 'nosuchcommand'], Interval: 2e8, Retries: 1 }, HostConfig: { Isolation: isolation } })).body) as { Id: string }
      await ok('start', made.Id)
      await becomes('nocmd', 'unhealthy')
      expect((await health('nocmd')).Log[0]).toMatchObject({ ExitCode: -1 })
      expect((await health('nocmd')).Log[0]!.Output).toContain('executable file not found in $PATH')
      await ok('rm', '-f', 'nocmd')
    })

    it('pause with the container, end with it, and begin anew with it', async () => {
      await start('--name', 'paused', '--health-cmd', 'true', '--health-interval', '300ms', ...sh('trap "exit 0" TERM; while :; do sleep 0.1; done'))
      expect((await inspect('paused')).State.Health?.Status).toBeDefined()
      await becomes('paused', 'healthy')
      await ok('pause', 'paused')
      const asked = (await health('paused')).Log.at(-1)!.Start
      await new Promise((done) => setTimeout(done, 1000))
      expect((await health('paused')).Log.at(-1)!.Start).toBe(asked)
      await ok('unpause', 'paused')
      await becomes('paused', 'healthy')
      await ok('stop', 'paused')
      expect((await health('paused')).Status).toBe('unhealthy') // as dockerd says of a container that does not run
      await ok('start', 'paused')
      await becomes('paused', 'healthy')
      await ok('rm', '-f', 'paused')
    })

    it('go on after a kill -9 of the daemon, and nothing is forgotten', async () => {
      await start('--name', 'kept', '--health-cmd', 'echo asked', '--health-interval', '500ms', ...sh('sleep 1000'))
      await start('--name', 'off', '--no-healthcheck', ...sh('sleep 1000'))
      await becomes('kept', 'healthy')
      await daemon().down('SIGKILL')
      await daemon().up()
      const found = await health('kept')
      expect(found.Status).toBe('healthy')
      const last = found.Log.at(-1)!.Start
      await until('it is asked again', async () => (await health('kept')).Log.at(-1)!.Start > last)
      expect((await health('kept')).Status).toBe('healthy')
      expect((await inspect('off')).State.Health).toBeUndefined()
      expect((await docker('ps', '--filter', 'health=none', '--format', '{{.Names}}')).stdout.trim()).toBe('off')
      await ok('rm', '-f', 'kept', 'off')
    })
  })
}
