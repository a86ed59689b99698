import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { sleep, until } from '../../lib/daemon.js'
import type { Bench } from './life.js'

/** Restart policies. */
export function defineRestart({ isolation, docker, ok, start, sh, inspect, daemon }: Bench): void {
  const restarts = (name: string, count: number) => until(`${name} was restarted ${count} times`, async () => (await inspect(name)).RestartCount >= count, 90_000)
  const now = () => String(Date.now() / 1000)

  describe(`restart policies (${isolation})`, () => {
    it('always: again and again, until it is stopped; in between it counts as running', async () => {
      const since = now()
      await start('--name', 'again', '--restart', 'always', ...sh('exit 3'))
      // Whatever it does at the moment, it is not removed without force: it ran when it was asked, and waits when it is looked at again.
      for (const end = Date.now() + 1500; Date.now() < end; ) expect((await daemon().api('DELETE', '/containers/again')).status).toBe(409)
      await restarts('again', 2)
      // By now the waits are long enough to be met in one.
      await until('it waits', async () => (await inspect('again')).State.Status === 'restarting', 60_000)
      const waiting = await inspect('again')
      if (waiting.State.Restarting) expect(waiting.State).toMatchObject({ Running: true, ExitCode: 3, Pid: 0 })
      expect(await ok('start', 'again')).toBe('again') // 304: nothing to do
      expect((await docker('rm', 'again')).stderr).toMatch(/container is (restarting|running)/)
      await until('it waits again', async () => (await inspect('again')).State.Status === 'restarting', 60_000)
      const waited = docker('wait', 'again')
      await sleep(300)
      await ok('stop', 'again')
      expect((await waited).stdout.trim()).toBe('3')
      const stopped = await inspect('again')
      expect(stopped.State).toMatchObject({ Status: 'exited', Running: false, ExitCode: 3 })
      await sleep(1500)
      expect((await inspect('again')).State.StartedAt).toBe(stopped.State.StartedAt)
      const actions = (await ok('events', '--since', since, '--until', now(), '--filter', 'container=again', '--filter', 'type=container', '--format', '{{.Action}}')).split('\n')
      expect(actions.slice(0, 5)).toEqual(['create', 'start', 'die', 'start', 'die'])
      expect(actions.at(-1)).toBe('stop')
      // Started by hand the count begins anew.
      await ok('start', 'again')
      expect((await inspect('again')).RestartCount).toBeLessThan(2)
      await ok('rm', '-f', 'again')
    })

    it('wait hears of every end, also of one that is followed by another life', async () => {
      await start('--name', 'heard', '--restart', 'always', ...sh('sleep 1; exit 4'))
      expect(await ok('wait', 'heard')).toBe('4')
      await ok('rm', '-f', 'heard')
    })

    it('a kill that comes while it is being started waits for that, and kills; one that comes too late is told so', async () => {
      const id = await ok('create', '--name', 'early', `--isolation=${isolation}`, ...sh('sleep 1000'))
      const started = daemon().api('POST', '/containers/early/start')
      const begun = join(daemon().execRoot, 'containers', id)
      while (!existsSync(begun)) await sleep(1)
      expect((await daemon().api('POST', '/containers/early/kill')).status).toBe(204)
      expect((await started).status).toBe(204)
      expect((await inspect('early')).State).toMatchObject({ Status: 'exited', ExitCode: 137 })
      expect((await docker('kill', 'early')).stderr).toMatch(new RegExp(`: cannot kill container: early: container ${id} is not running$`, 'im'))
      const same = await daemon().api('POST', '/containers/early/rename?name=early')
      expect(same.status).toBe(400)
      await ok('rm', 'early')
    })

    it('on-failure:2 gives up after two, and does nothing after success', async () => {
      await start('--name', 'twice', '--restart', 'on-failure:2', ...sh('echo try; exit 9'))
      await until('it gave up', async () => (await inspect('twice')).State.Status === 'exited', 60_000)
      expect(await inspect('twice')).toMatchObject({ RestartCount: 2, State: { ExitCode: 9 } })
      expect((await ok('logs', 'twice')).split('\n')).toEqual(['try', 'try', 'try'])
      await start('--name', 'fine', '--restart', 'on-failure', ...sh('exit 0'))
      await until('it ended', async () => (await inspect('fine')).State.Status === 'exited')
      await sleep(500)
      expect((await inspect('fine')).RestartCount).toBe(0)
      await ok('rm', 'twice', 'fine')
    })

    it('kill ends a container that waits for its restart; update changes the policy of a running one', async () => {
      await start('--name', 'killed', '--restart', 'always', ...sh('sleep 0.1; exit 1'))
      await restarts('killed', 2)
      await until('it waits', async () => (await inspect('killed')).State.Status === 'restarting', 60_000)
      // It waits for a tenth of a second, and the answer to whether it does takes as long: a kill that comes between two of its lives is told that it does not run.
      await until('it is killed', async () => (await docker('kill', 'killed')).code === 0)
      await until('it stays down', async () => (await inspect('killed')).State.Status === 'exited')
      await ok('rm', 'killed')
      await start('--name', 'changed', ...sh('trap "exit 1" TERM; while :; do sleep 0.1; done'))
      await ok('update', '--restart', 'on-failure:5', 'changed')
      // It may end with what it ends, before it has ended itself: 137 then.
      expect([0, 137]).toContain((await docker('exec', 'changed', 'kill', '-TERM', '1')).code)
      await restarts('changed', 1)
      await ok('rm', '-f', 'changed')
    })

    it('hold over a kill -9 of the daemon and a death of everything, as at a boot of the host', async () => {
      const loop = sh('trap "exit 0" TERM; while :; do sleep 0.1; done')
      for (const [name, policy] of [['always', 'always'], ['user-always', 'always'], ['user-unless', 'unless-stopped'], ['failure', 'on-failure'], ['never', 'no']] as const) await start('--name', name, '--restart', policy, ...loop)
      await ok('stop', 'user-always', 'user-unless')
      // It can only start when the other runs: at a boot it waits for it.
      await start('--name', 'a-linked', '--link', 'always:other', '--restart', 'always', ...loop)
      const dead = await Promise.all(['always', 'failure', 'never', 'a-linked'].map(async (name) => (await inspect(name)).State.Pid))
      await daemon().down('SIGKILL')
      for (const pid of dead) {
        const parent = Number(/^PPid:\s*(\d+)$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))![1])
        process.kill(parent, 'SIGKILL') // its supervisor first: nobody is left to write down an exit code
        process.kill(pid, 'SIGKILL')
      }
      await daemon().up()
      const running = async () => (await ok('ps', '--filter', 'status=running', '--format', '{{.Names}}')).split('\n').sort()
      await until('the policies were applied', async () => (await running()).length === 4, 90_000)
      expect(await running()).toEqual(['a-linked', 'always', 'failure', 'user-always'])
      expect((await inspect('user-unless')).State.Status).toBe('exited')
      const { State: never } = await inspect('never')
      expect(never.Status).toBe('exited')
      expect([137, 255]).toContain(never.ExitCode) // nobody knows it

      await ok('rm', '-f', 'always', 'a-linked', 'user-always', 'user-unless', 'failure', 'never')
    })
  })
}
