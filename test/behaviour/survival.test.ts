import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exec, sleep, TestDaemon, until } from '../lib/daemon.js'
import { buildTestImage, testImage } from '../lib/image.js'
import { remaining, type Snapshot, snapshot } from '../lib/leaks.js'

const each = 10

/** Numbers of the lines 'n 1', 'n 2', … in a log, in order. */
const numbers = (log: string) => [...log.matchAll(/^n (\d+)$/gm)].map((match) => Number(match[1]))

describe('kill -9 of the daemon', () => {
  let daemon: TestDaemon
  let before: Snapshot
  const names: string[] = []

  beforeAll(async () => {
    before = await snapshot()
    daemon = await TestDaemon.start()
    await buildTestImage(daemon)
  })

  afterAll(async () => {
    await daemon.destroy()
    expect(await remaining(before)).toEqual([])
  })

  it(`leaves ${each} workloads of each kind running, their logs whole and every line once`, async () => {
    for (const isolation of ['process', 'vm'] as const) {
      for (let i = 0; i < each; i++) {
        const name = `${isolation}-${i}`
        names.push(name)
        await daemon.ok('run', '-d', '--name', name, `--isolation=${isolation}`, ...(i === 0 ? ['-p', '0:80'] : []), testImage, 'sh', '-c', 'i=0; while :; do i=$((i+1)); echo n $i; sleep 0.2; done')
      }
    }
    await daemon.down('SIGKILL')
    await sleep(3000)
    await daemon.up()
    expect((await daemon.ok('ps', '-q')).split('\n')).toHaveLength(2 * each)
    await sleep(1000)
    for (const name of names) {
      const [first] = await Promise.all([daemon.ok('logs', name)])
      const seen = numbers(first)
      expect(seen, name).toEqual(Array.from({ length: seen.length }, (_, index) => index + 1))
      await until(`${name} goes on`, async () => numbers(await daemon.ok('logs', name)).length > seen.length)
    }
    for (const name of [`process-1`, `vm-1`]) {
      expect(await daemon.ok('exec', name, 'echo', 'alive')).toBe('alive')
    }
    expect(await daemon.ok('port', 'process-0', '80/tcp')).toMatch(/:\d+$/m)
  }, 300_000)

  it('an exit code that the daemon had read when it was killed is not lost, though the supervisor’s note of it is gone', async () => {
    const id = await daemon.ok('run', '-d', '--name', 'read', testImage, 'sh', '-c', 'exit 7')
    expect(await daemon.ok('wait', id)).toBe('7')
    await daemon.down('SIGKILL')
    // As it is on disk when the daemon is killed between taking away what the container left and writing down its end.
    const path = join(daemon.dataRoot, 'containers', id, 'config.json')
    const record = JSON.parse(await readFile(path, 'utf8')) as { state: object }
    await writeFile(path, JSON.stringify({ ...record, state: { ...record.state, status: 'running', exitCode: 0, ending: { code: 7, oomKilled: false, finishedAt: new Date().toISOString() } } }))
    await daemon.up()
    expect(await daemon.ok('inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', id)).toBe('exited 7')
    await daemon.ok('rm', id)
  })

  it('the last start of a restart policy that was cut off: the container is down, and can be removed', async () => {
    const id = await daemon.ok('run', '-d', '--name', 'last', '--restart', 'on-failure:1', testImage, 'sh', '-c', 'exit 7')
    await until('it gave up', async () => (await daemon.ok('inspect', '-f', '{{.State.Status}} {{.RestartCount}}', id)) === 'exited 1')
    await daemon.down('SIGKILL')
    const path = join(daemon.dataRoot, 'containers', id, 'config.json')
    const record = JSON.parse(await readFile(path, 'utf8')) as { state: object }
    await writeFile(path, JSON.stringify({ ...record, state: { ...record.state, status: 'restarting', starting: true } }))
    await daemon.up()
    expect(await daemon.ok('wait', id)).toBe('7')
    await daemon.ok('rm', id)
  })

  it('--rm holds for what does not run when the daemon starts', async () => {
    await daemon.ok('create', '--rm', '--name', 'never-begun', testImage, 'true')
    await daemon.ok('create', '--name', 'kept', testImage, 'true')
    await daemon.down('SIGKILL')
    await daemon.up()
    expect(await daemon.ok('ps', '-a', '--filter', 'status=created', '--format', '{{.Names}}')).toBe('kept')
    await daemon.ok('rm', 'kept')
  })

  it('what could not be removed to its end is not started by its policy, and is removed when it can be', async () => {
    const id = await daemon.ok('run', '-d', '--name', 'stuck', '--restart', 'always', testImage, 'sleep', '1000')
    await daemon.ok('stop', '-t', '0', 'stuck')
    const busy = join(daemon.dataRoot, 'overlay', id, 'busy')
    await mkdir(busy)
    await exec('mount', ['-t', 'tmpfs', 'tmpfs', busy])
    expect((await daemon.docker(['rm', 'stuck'])).stderr).toMatch(/internal error/) // EBUSY, in the daemon's log
    await daemon.down('SIGKILL')
    await daemon.up()
    await sleep(1000)
    expect(await daemon.ok('inspect', '-f', '{{.State.Status}}', id)).toBe('removing')
    await exec('umount', [busy])
    await daemon.down('SIGKILL')
    await daemon.up()
    expect(await daemon.ok('ps', '-aq', '--filter', 'name=stuck')).toBe('')
  })

  it('SIGTERM leaves them running too, and an exit while the daemon is away is seen', async () => {
    await daemon.ok('run', '-d', '--name', 'short-process', '--isolation=process', testImage, 'sh', '-c', 'sleep 2; exit 33')
    await daemon.ok('run', '-d', '--name', 'short-vm', '--isolation=vm', testImage, 'sh', '-c', 'sleep 2; exit 34')
    await daemon.down('SIGTERM')
    await sleep(4000)
    await daemon.up()
    expect(await daemon.ok('wait', 'short-process', 'short-vm')).toBe('33\n34')
    expect((await daemon.ok('ps', '-q')).split('\n')).toHaveLength(2 * each)
    await daemon.ok('stop', '-t', '1', 'process-2', 'vm-2')
    await daemon.ok('rm', '-f', ...names, 'short-process', 'short-vm')
    expect(await daemon.ok('ps', '-aq')).toBe('')
  }, 180_000)
})
