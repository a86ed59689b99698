import { spawn } from 'node:child_process'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sleep, TestDaemon, until } from '../../lib/daemon.js'
import { buildTestImage, testImage } from '../../lib/image.js'
import { remains } from '../../lib/traces.js'

/** Log drivers, rotation, `docker logs` and what several attached clients do to stdin; once for each isolation. */
export function defineLogs(isolation: 'process' | 'vm'): void {
  let daemon: TestDaemon
  const ok = (...args: string[]) => daemon.ok(...args)
  const docker = (...args: string[]) => daemon.docker(args)
  const start = (name: string, script: string, ...options: string[]) => ok('run', '-d', '--name', name, `--isolation=${isolation}`, ...options, testImage, 'sh', '-c', script)
  const logPath = (name: string) => ok('inspect', '-f', '{{.LogPath}}', name)
  /** Sizes of the log's files, the newest first. */
  const files = async (name: string): Promise<number[]> => {
    const path = await logPath(name)
    const directory = path.slice(0, path.lastIndexOf('/'))
    const names = (await readdir(directory)).filter((entry) => entry.startsWith('container.log')).sort()
    return Promise.all(names.map(async (entry) => (await stat(join(directory, entry))).size))
  }
  const numbers = (text: string) => text.split('\n').filter((line) => line !== '').map((line) => Number(line.split(' ').at(-1)))
  /** The docker CLI, left running. */
  const leave = (...args: string[]) => {
    const child = spawn('docker', args, { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, DOCKER_HOST: daemon.host } })
    let text = ''
    child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
    return { child, text: () => text, ended: new Promise<void>((done) => child.once('close', () => done())) }
  }

  beforeAll(async () => {
    daemon = await TestDaemon.start()
    await buildTestImage(daemon)
  })

  afterAll(async () => {
    await daemon.destroy()
    expect(await remains(daemon)).toEqual([])
  })

  describe(`logs, isolation ${isolation}`, () => {
    it('rotates by size, keeps so many files, and a follower sees every line once', async () => {
      // 4000 lines of about 60 bytes in the file: 240 kB, in bursts, of which 3 files of 20 kB are kept.
      const script = 'i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo line $i; [ $((i % 100)) = 0 ] && sleep 0.1; done; while [ ! -e /tmp/end ]; do sleep 0.1; done'
      await start('turning', script, '--log-opt', 'max-size=20k', '--log-opt', 'max-file=3')
      const follower = leave('logs', '-f', 'turning')
      await until('all is written', async () => (await ok('logs', '--tail', '1', 'turning')) === 'line 4000', 60_000)
      await ok('exec', 'turning', 'touch', '/tmp/end')
      await ok('wait', 'turning')
      await follower.ended
      expect(numbers(follower.text())).toEqual(Array.from({ length: 4000 }, (_, i) => i + 1))
      const sizes = await files('turning')
      expect(sizes).toHaveLength(3)
      for (const size of sizes) expect(size).toBeLessThan(20_600) // a record more than 20 KiB
      const kept = numbers(await ok('logs', 'turning'))
      expect(kept.at(-1)).toBe(4000)
      expect(kept).toEqual(Array.from({ length: kept.length }, (_, i) => 4000 - kept.length + 1 + i)) // no hole
      expect(kept.length).toBeLessThan(3900)
      // A tail that reaches over the files.
      const tail = Math.min(kept.length - 1, 900)
      expect(numbers(await ok('logs', '--tail', String(tail), 'turning'))).toEqual(kept.slice(-tail))
      await ok('rm', 'turning')
    })

    it('kill -9 of the daemon in the middle: every line once, still bounded, still rotated afterwards', async () => {
      await start('busy', 'i=0; while [ ! -e /tmp/end ]; do i=$((i+1)); echo line $i; usleep 500; done', '--log-opt', 'max-size=50k', '--log-opt', 'max-file=4')
      const seen = async () => numbers(await ok('logs', 'busy'))
      await until('it writes', async () => (await seen()).length > 300)
      const first = await seen()
      await daemon.down('SIGKILL')
      await sleep(300)
      await daemon.up()
      const second = await seen()
      // One row without a hole or a repetition, and it goes on from what was there.
      expect(second).toEqual(Array.from({ length: second.length }, (_, i) => second[0]! + i))
      expect(second[0]).toBeLessThanOrEqual(first.at(-1)! + 1)
      expect(second.at(-1)).toBeGreaterThan(first.at(-1)!)
      const last = second.at(-1)!
      await until('it rotates again', async () => (await seen())[0]! > 1 && (await seen()).at(-1)! > last + 1000, 60_000)
      for (const size of await files('busy')) expect(size).toBeLessThan(51_300)
      expect(await files('busy')).toHaveLength(4)
      await ok('rm', '-f', 'busy')
    })

    it('since and until with nanoseconds, details, and none', async () => {
      await start('said', 'for i in 1 2 3; do echo $i; sleep 0.2; done', '--label', 'a=b c', '-e', 'E=f', '--log-opt', 'labels=a', '--log-opt', 'env=E,MISSING', '--log-opt', 'tag={{.Name}}/{{.ImageName}}')
      await ok('wait', 'said')
      const stamps = (await ok('logs', '-t', 'said')).split('\n').map((line) => line.split(' ')[0]!)
      expect(stamps).toHaveLength(3)
      expect(await ok('logs', '--since', stamps[1]!, 'said')).toBe('2\n3')
      expect(await ok('logs', '--until', stamps[1]!, 'said')).toBe('1\n2')
      expect(await ok('logs', '--since', stamps[1]!, '--until', stamps[1]!, 'said')).toBe('2')
      expect((await ok('logs', '--details', 'said')).split('\n')[0]).toBe(`E=f,a=b+c,tag=said%2F${encodeURIComponent(testImage)} 1`)
      expect((await ok('logs', '--details', '-t', '--tail', '1', 'said'))).toBe(`${stamps[2]} E=f,a=b+c,tag=said%2F${encodeURIComponent(testImage)} 3`)
      await start('quiet', 'echo unheard', '--log-driver', 'none')
      await ok('wait', 'quiet')
      expect((await docker('logs', 'quiet')).stderr).toContain('configured logging driver does not support reading')
      expect(await logPath('quiet')).toBe('')
      await start('local', 'echo heard', '--log-driver', 'local')
      await ok('wait', 'local')
      expect(await ok('logs', 'local')).toBe('heard')
      await ok('rm', 'said', 'quiet', 'local')
    })

    it('refuses options in Docker’s words', async () => {
      const words = async (...options: string[]) => (await docker('create', `--isolation=${isolation}`, ...options, testImage)).stderr
      expect(await words('--log-opt', 'nope=1')).toContain("unknown log opt 'nope' for json-file log driver")
      expect(await words('--log-driver', 'local', '--log-opt', 'nope=1')).toContain("unknown log opt 'nope' for log driver local")
      expect(await words('--log-driver', 'nope')).toContain("logger: no log driver named 'nope' is registered")
      expect(await words('--log-driver', 'syslog')).toContain('--log-driver syslog is not supported')
      expect(await words('--log-opt', 'max-size=0')).toContain('max-size must be a positive number')
      expect(await words('--log-opt', 'max-size=much')).toContain("invalid size: 'much'")
      expect(await words('--log-opt', 'max-file=0')).toContain('max-file cannot be less than 1')
      expect(await words('--log-opt', 'mode=odd')).toContain('logger: logging mode not supported: odd')
      expect(await words('--log-opt', 'max-buffer-size=1m')).toContain("max-buffer-size option is only supported with 'mode=non-blocking'")
      expect(await words('--log-opt', 'compress=true')).toContain('compress cannot be true when max-file is less than 2')
    })

    it('a client that reads nothing holds up the workload, not its end, and gets the rest afterwards', async () => {
      const client = spawn('docker', ['run', '--name', 'stuck', `--isolation=${isolation}`, testImage, 'sh', '-c', 'dd if=/dev/zero bs=65536 count=400 2>/dev/null; echo done; sleep 1000'], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, DOCKER_HOST: daemon.host } })
      const ended = new Promise((resolve) => client.once('close', resolve))
      let last = -1
      await until('nothing moves', async () => {
        await sleep(300)
        const [sum] = (await docker('inspect', '-f', '{{.State.Running}}', 'stuck')).stdout.trim() === 'true' ? await files('stuck') : []
        const still = sum !== undefined && sum > 0 && sum === last
        last = sum ?? -1
        return still
      })
      expect(last).toBeLessThan(400 * 65536)
      await ok('kill', 'stuck')
      expect(await ok('wait', 'stuck')).toBe('137')
      const logged = (await docker('logs', 'stuck')).stdout.length
      expect(logged).toBeGreaterThan(0)
      await ok('rm', 'stuck')
      let received = 0
      client.stdout.on('data', (chunk: Buffer) => (received += chunk.length))
      expect(await ended).toBe(137)
      expect(received).toBe(logged)
    })

    it('a client that only listens does not end stdin; the one that typed does', async () => {
      // `docker run -i` says StdinOnce: its client's end is the end of stdin. Others that come and go meanwhile are not.
      const typist = leave('run', '-i', '--name', 'once', `--isolation=${isolation}`, testImage, 'cat')
      await until('it runs', async () => (await docker('inspect', '-f', '{{.State.Status}}', 'once')).stdout.trim() === 'running')
      typist.child.stdin.write('one\n')
      await until('it echoes', async () => typist.text().includes('one'))
      for (let i = 0; i < 3; i++) {
        const listener = leave('attach', '--no-stdin', 'once')
        await sleep(300)
        typist.child.stdin.write(`heard ${i}\n`)
        await until('both hear it', async () => listener.text().includes(`heard ${i}`))
        listener.child.kill('SIGKILL')
        await listener.ended
        // Output after the listener has gone must not be held up by it either.
        typist.child.stdin.write(`after ${i}\n`)
        await until('it goes on', async () => typist.text().includes(`after ${i}`))
      }
      typist.child.stdin.end('last\n')
      await typist.ended
      expect(typist.text()).toContain('last\n')
      expect(await ok('inspect', '-f', '{{.State.ExitCode}}', 'once')).toBe('0')
      await ok('rm', 'once')
    })
  })
}
