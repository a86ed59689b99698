import { describe, expect, it } from 'vitest'
import { sleep, until } from '../../lib/daemon.js'
import { testImage } from '../../lib/image.js'
import type { Bench } from './life.js'

interface Stats {
  read: string
  preread: string
  memory_stats: { usage: number; limit: number; stats: Record<string, number> }
  cpu_stats: { cpu_usage: { total_usage: number }; system_cpu_usage: number; online_cpus: number }
  precpu_stats: { cpu_usage: { total_usage: number } }
  pids_stats: { current: number }
  hull?: { memory_usage: number; memory_limit: number; cpu_total_usage: number }
}

/** stats, events, wait, prune, metrics. */
export function defineWatch({ isolation, vm, docker, ok, start, sh, inspect, daemon }: Bench): void {
  const now = () => String(Date.now() / 1000)
  const stats = async (query: string) => JSON.parse((await daemon().api('GET', `/containers/busy/stats?${query}`)).body) as Stats

  describe(`watching (${isolation})`, () => {
    it('stats: the workload\'s own figures, two samples or one, and what a machine costs the host', async () => {
      await start('--name', 'busy', '--memory', '64m', ...sh('while :; do :; done'))
      const two = await stats('stream=0')
      expect(two.memory_stats.limit).toBe(64 << 20)
      expect(two.memory_stats.usage).toBeGreaterThan(0)
      expect(two.cpu_stats.cpu_usage.total_usage).toBeGreaterThan(two.precpu_stats.cpu_usage.total_usage)
      expect(Date.parse(two.read)).toBeGreaterThan(Date.parse(two.preread))
      expect(two.pids_stats.current).toBe(1)
      const one = await stats('stream=0&one-shot=1')
      expect(one.precpu_stats.cpu_usage.total_usage).toBe(0)
      if (vm) {
        expect(two.hull!.memory_usage).toBeGreaterThan(two.memory_stats.usage)
        expect(two.hull!.memory_limit).toBeGreaterThan(64 << 20)
        expect(two.hull!.cpu_total_usage).toBeGreaterThan(0)
        expect(two.memory_stats.stats['inactive_file']).toBeDefined()
      } else expect(two.hull).toBeUndefined()
      expect(await ok('stats', '--no-stream', '--format', '{{.Name}} {{.PIDs}} {{.MemUsage}} {{.CPUPerc}}', 'busy')).toMatch(/^busy 1 \S+ \/ 64MiB [1-9]/)
      await ok('rm', '-f', 'busy')
    })

    it('events: Docker\'s names in Docker\'s order, and its filters', async () => {
      const since = now()
      const id = await start('--name', 'told', '--label', 'team=a', ...sh('trap "exit 4" TERM; while :; do sleep 0.1; done'))
      await ok('exec', 'told', 'true')
      await ok('pause', 'told')
      await ok('unpause', 'told')
      await ok('rename', 'told', 'renamed')
      await ok('stop', 'renamed')
      await ok('rm', 'renamed')
      const told = (...filters: string[]) => ok('events', '--since', since, '--until', now(), ...filters.flatMap((filter) => ['--filter', filter]), '--format', '{{.Type}} {{.Action}}')
      const all = (await told('type=container', `container=${id.slice(0, 12)}`)).split('\n')
      expect(all).toEqual(['create', 'start', 'exec_create: true', 'exec_start: true', 'exec_die', 'pause', 'unpause', 'rename', 'kill', 'die', 'stop', 'destroy'].map((action) => `container ${action}`))
      expect(await told('event=die', 'event=start')).toBe('container start\ncontainer die')
      expect(await told('event=exec_start')).toBe('container exec_start: true')
      expect(await told('label=team=a', 'event=create')).toBe('container create')
      expect(await told('label=team=b')).toBe('')
      expect(await told(`image=${testImage.split(':')[0]}`, 'event=die')).toBe('container die')
      expect(await told('type=volume')).toBe('')
      expect(await told('daemon=nosuch')).toBe('')
      await sleep(1100) // the CLI makes whole seconds of durations
      expect(await ok('events', '--since', '10m', '--until', '0s', '--filter', 'container=renamed', '--filter', 'event=die', '--format', '{{.Actor.Attributes.exitCode}}')).toBe('4')
      expect((await docker('events', '--since', '2', '--until', '1')).stderr).toContain('cannot be after')
    })

    it('wait: for the next exit, for the removal, and of what has ended', async () => {
      const wait = async (name: string, condition: string) => {
        const answer = await daemon().api('POST', `/containers/${name}/wait?condition=${condition}`)
        return answer.status === 200 ? (JSON.parse(answer.body) as { StatusCode: number }).StatusCode : answer.status
      }
      await start('--name', 'again', ...sh('exit 5'))
      await until('it ended', async () => (await inspect('again')).State.Status === 'exited')
      expect(await wait('again', 'not-running')).toBe(5)
      const next = wait('again', 'next-exit')
      await sleep(300)
      await ok('start', 'again')
      expect(await next).toBe(5)
      const removed = wait('again', 'removed')
      await sleep(300)
      await ok('rm', 'again')
      expect(await removed).toBe(5)
      expect(await wait('again', 'removed')).toBe(404)
      expect(await wait('again', 'nonsense')).not.toBe(200)
      const id = await ok('run', '-d', '--rm', `--isolation=${isolation}`, ...sh('sleep 1; exit 6'))
      expect(await Promise.all([wait(id, 'removed'), wait(id, 'not-running'), wait(id, 'next-exit')])).toEqual([6, 6, 6])
    })

    it('prune takes what has ended and fits the filters, and says how much it was', async () => {
      await start('--name', 'keep', '--label', 'keep', ...sh('exit 0'))
      await start('--name', 'drop', ...sh('dd if=/dev/urandom of=/root/big bs=1M count=3 2>/dev/null'))
      const running = await start(...sh('sleep 1000'))
      await until('they ended', async () => (await ok('ps', '-q')).split('\n').length === 1)
      const said = await ok('container', 'prune', '-f', '--filter', 'label!=keep')
      expect(said).toMatch(/Total reclaimed space: ([3-9]|\d\d+)\.\d+\s?[MG]B/)
      expect((await ok('ps', '-a', '--format', '{{.Names}}')).split('\n')).toContain('keep')
      expect((await docker('inspect', 'drop')).code).not.toBe(0)
      expect(await ok('container', 'prune', '-f', '--filter', 'until=10m')).toContain('Total reclaimed space: 0B')
      await ok('system', 'prune', '-f')
      expect(await ok('ps', '-aq', '--no-trunc')).toBe(running)
      await ok('rm', '-f', running)
    })

    it('metrics: OpenMetrics with states, start times, events and requests', async () => {
      await start('--name', 'counted', ...sh('sleep 1000'))
      const answer = await daemon().api('GET', '/metrics')
      expect(answer.status).toBe(200)
      expect(answer.body).toMatch(new RegExp(`^engine_daemon_container_states_containers\\{state="running",isolation="${isolation}"\\} 1$`, 'm'))
      expect(answer.body).toMatch(new RegExp(`^engine_daemon_container_start_seconds_count\\{isolation="${isolation}"\\} [1-9]`, 'm'))
      expect(answer.body).toMatch(/^hull_events_by_action_total\{type="container",action="start"\} [1-9]/m)
      expect(answer.body).toMatch(/^hull_api_request_seconds_bucket\{method="POST",code="201",le="\+Inf"\} [1-9]/m)
      expect(answer.body.endsWith('# EOF\n')).toBe(true)
      await ok('rm', '-f', 'counted')
    })
  })
}
