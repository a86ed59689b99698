import { createHash, randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { createSocket } from 'node:dgram'
import { release } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildTestImage, testImage } from '../lib/image.js'
import { sleep, TestDaemon, until } from '../lib/daemon.js'
import { remaining, type Snapshot, snapshot } from '../lib/leaks.js'
import { onTerminal } from '../lib/pty.js'

interface Inspected {
  Id: string
  State: { Status: string; ExitCode: number; OOMKilled: boolean; Pid: number; Error: string }
  HostConfig: { Isolation: string }
  Config: { Hostname: string; Labels: Record<string, string> }
  NetworkSettings: { Networks: { bridge: { IPAddress: string; Gateway: string } } }
}

/** One TCP exchange: connects, optionally sends, reads to the end. */
function tcp(host: string, port: number, send = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, allowHalfOpen: true })
    const chunks: Buffer[] = []
    socket.setTimeout(10_000, () => socket.destroy(new Error('timeout')))
    socket.once('connect', () => socket.end(send))
    socket.on('data', (chunk) => chunks.push(chunk))
    socket.once('end', () => resolve(Buffer.concat(chunks).toString()))
    socket.once('error', reject)
  })
}

function udp(port: number, message: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4')
    socket.once('error', reject)
    const timer = setTimeout(() => {
      socket.close()
      reject(new Error('no answer'))
    }, 3000)
    socket.once('message', (answer) => {
      clearTimeout(timer)
      socket.close()
      resolve(answer.toString())
    })
    socket.send(message, port, '127.0.0.1')
  })
}

/**
 * What a user of Docker sees, once for each isolation: the same words, the same answers. Every difference between the
 * isolations is an `if` in here and a sentence in docs/docker-api.md.
 */
export function defineSuite(isolation: 'process' | 'vm'): void {
  const vm = isolation === 'vm'
  const other = vm ? 'process' : 'vm'
  let daemon: TestDaemon
  let before: Snapshot

  const docker = (...args: string[]) => daemon.docker(args)
  const run = (...args: string[]) => daemon.docker(['run', '--rm', `--isolation=${isolation}`, ...args])
  const ok = (...args: string[]) => daemon.ok(...args)
  /** `docker run -d`, returns the ID. */
  const start = (...args: string[]) => daemon.ok('run', '-d', `--isolation=${isolation}`, ...args)
  const inspect = async (name: string) => (JSON.parse(await ok('inspect', name)) as Inspected[])[0]!
  const sh = (script: string) => [testImage, 'sh', '-c', script]

  beforeAll(async () => {
    before = await snapshot()
    daemon = await TestDaemon.start(isolation === 'vm' ? ['--vm-pool', '1'] : [])
    await buildTestImage(daemon)
  })

  afterAll(async () => {
    await daemon.destroy()
    // The kernel frees some things (a namespace whose last process has just ended) a moment later.
    expect(await remaining(before)).toEqual([])
  })

  describe(`run (${isolation})`, () => {
    it('keeps the streams apart and returns the exit code', async () => {
      const said = await run(...sh('echo out; echo err >&2; exit 7'))
      expect(said).toMatchObject({ code: 7, stdout: 'out\n' })
      expect(said.stderr.replace(/^WARNING:.*\n/gm, '')).toBe('err\n')
    })

    it(vm ? 'has a kernel of its own' : "has the host's kernel", async () => {
      const kernel = (await run(testImage, 'uname', '-r')).stdout.trim()
      if (vm) expect(kernel).not.toBe(release())
      else expect(kernel).toBe(release())
      expect(kernel).toMatch(/^\d+\.\d+/)
    })

    it('says in inspect which wall it is, and what default means', async () => {
      const id = await ok('create', `--isolation=${isolation}`, testImage, 'true')
      expect((await inspect(id)).HostConfig.Isolation).toBe(isolation)
      await ok('rm', id)
      if (vm) {
        const alias = await ok('create', '--isolation=hyperv', testImage, 'true')
        expect((await inspect(alias)).HostConfig.Isolation).toBe('vm')
        await ok('rm', alias)
      } else {
        const plain = await ok('create', testImage, 'true')
        expect((await inspect(plain)).HostConfig.Isolation).toBe('process')
        await ok('rm', plain)
      }
    })

    it('makes the command PID 1 of a small world', async () => {
      const said = await run(...sh('echo $$; hostname; ls -d /proc/[0-9]* | wc -l; cat /proc/self/uid_map | wc -l'))
      const lines = said.stdout.trim().split('\n')
      expect(lines[0]).toBe('1')
      expect(lines[1]).toMatch(/^[0-9a-f]{12}$/)
      expect(Number(lines[2])).toBeLessThanOrEqual(4)
    })

    it('takes -h, -e, --env-file, -w, -u, --label and --entrypoint', async () => {
      const file = join(daemon.directory, 'env')
      await writeFile(file, 'FROM_FILE=yes\n# comment\n')
      const said = await run('-h', 'box', '-e', 'A=1 2', '--env-file', file, '-w', '/srv/work', '-u', '1000:1001', ...sh('hostname; echo "$A $FROM_FILE"; pwd; id -u; id -g; echo $HOSTNAME'))
      expect(said.stdout).toBe('box\n1 2 yes\n/srv/work\n1000\n1001\nbox\n')
      const entry = await run('--entrypoint', 'echo', testImage, 'a', 'b')
      expect(entry.stdout).toBe('a b\n')
      const id = await ok('create', `--isolation=${isolation}`, '--label', 'x=y', testImage, 'true')
      expect((await inspect(id)).Config.Labels).toMatchObject({ x: 'y' })
      await ok('rm', id)
    })

    it('resolves users by name and knows their home', async () => {
      expect((await run('-u', 'daemon', ...sh('id -un; id -gn; echo $HOME'))).stdout).toBe('daemon\ndaemon\n/usr/sbin\n')
      const unknown = await run('-u', 'nobodyhere', testImage, 'true')
      expect(unknown.code).not.toBe(0)
      expect(unknown.stderr).toContain('unable to find user nobodyhere')
    })

    it('exits 127 for an unknown command and 126 for one that cannot be run', async () => {
      const missing = await run(testImage, 'nosuchcommand')
      expect(missing.code).toBe(127)
      expect(missing.stderr).toContain('executable file not found in $PATH')
      const directory = await run(testImage, '/etc')
      expect(directory.code).toBe(126)
      expect(directory.stderr).toMatch(/is a directory|permission denied/)
      expect((await docker('ps', '-aq')).stdout).toBe('')
    })

    it('has the root file system read-only with --read-only, and tmpfs where asked', async () => {
      const said = await run('--read-only', '--tmpfs', '/scratch:size=1m,mode=1777', ...sh('touch /x; echo $?; touch /scratch/x; echo $?; df -k /scratch | tail -1 | awk "{print \\$2}"; dd if=/dev/zero of=/scratch/big bs=1k count=2000 2>/dev/null; echo $?'))
      const lines = said.stdout.trim().split('\n')
      expect(lines[0]).not.toBe('0')
      expect(lines.slice(1)).toEqual(['0', '1024', '1'])
    })

    it('hides what Docker hides and gives the capabilities that Docker gives', async () => {
      const said = await run(...sh('grep CapEff /proc/self/status; cat /proc/kcore 2>/dev/null | wc -c; mount -t tmpfs x /mnt 2>/dev/null; echo $?; echo 1 > /proc/sys/kernel/panic 2>/dev/null; echo $?'))
      const lines = said.stdout.trim().split('\n')
      expect(lines[0]).toBe('CapEff:\t00000000a80425fb')
      expect(lines[1]).toBe('0')
      expect(lines[2]).not.toBe('0')
      expect(lines[3]).not.toBe('0')
    })

    it('limits memory and reports the OOM kill', async () => {
      const id = await start('--memory', '96m', '--tmpfs', '/t:size=1g', testImage, 'dd', 'if=/dev/zero', 'of=/t/x', 'bs=1M')
      expect(await ok('wait', id)).toBe('137')
      expect((await inspect(id)).State.OOMKilled).toBe(true)
      await ok('rm', id)
    })

    it('kills what grows slowly up to its limit, and does not let it crawl there', async () => {
      const id = await start('--memory', '32m', testImage, 'awk', 'BEGIN { while (1) { n++; a[n] = n } }')
      expect(await ok('wait', id)).toBe('137')
      expect((await inspect(id)).State.OOMKilled).toBe(true)
      await ok('rm', id)
    })

    it('limits the number of processes', async () => {
      const said = await run('--pids-limit', '20', ...sh('for i in $(seq 1 60); do sleep 3 & done 2>&1; echo survived'))
      expect(`${said.stdout}${said.stderr}`).toMatch(/can't fork|Resource temporarily unavailable/)
    })

    it('gives CPUs as asked', async () => {
      if (vm) {
        expect((await run('--cpus', '2', testImage, 'nproc')).stdout.trim()).toBe('2')
        expect((await run(testImage, 'nproc')).stdout.trim()).toBe('1')
      } else {
        expect((await run('--cpuset-cpus', '1', testImage, 'nproc')).stdout.trim()).toBe('1')
      }
    })

    it('has no network but lo with --network none', async () => {
      const said = await run('--network', 'none', ...sh('ls /sys/class/net; cat /proc/net/route | wc -l'))
      expect(said.stdout.trim().split('\n')).toEqual(['lo', '1'])
    })

    it('treats --network host as this isolation must', async () => {
      const said = await run('--network', 'host', ...sh('ls /sys/class/net'))
      if (vm) {
        expect(said.code).toBe(125)
        expect(said.stderr).toContain('--network host is not possible with isolation vm')
      } else {
        expect(said.stdout).toContain('lo')
        expect(said.code).toBe(0)
      }
    })

    it('puts tini before the command with --init', async () => {
      const said = await run('--init', ...sh('echo $$; tr "\\0" " " < /proc/1/cmdline'))
      expect(said.stdout).not.toMatch(/^1\n/)
      expect(said.stdout).toMatch(/init|tini/)
    })

    it('sets ulimits', async () => {
      expect((await run('--ulimit', 'nofile=512:1024', ...sh('ulimit -n; ulimit -Hn'))).stdout).toBe('512\n1024\n')
    })

    it('passes stdin and its end', async () => {
      const data = randomBytes(3_000_000).toString('base64')
      const said = await daemon.docker(['run', '--rm', '-i', `--isolation=${isolation}`, ...sh('cat | md5sum; echo end')], { input: data })
      expect(said.stdout).toBe(`${createHash('md5').update(data).digest('hex')}  -\nend\n`)
      expect(said.code).toBe(0)
    })

    it('delivers much output whole and in order', async () => {
      const said = await run(...sh('seq 1 200000'))
      expect(said.stdout.length).toBe(1_288_895)
      expect(said.stdout.endsWith('199999\n200000\n')).toBe(true)
    })

    it('has Docker-shaped /etc files and /dev', async () => {
      const said = await run('--add-host', 'peer:192.0.2.9', ...sh('cat /etc/hosts; cat /etc/hostname; grep -c nameserver /etc/resolv.conf; ls /dev | tr "\\n" " "; echo; echo x > /dev/null && echo null; stat -c %a /dev/shm'))
      expect(said.stdout).toContain('192.0.2.9\tpeer')
      expect(said.stdout).toContain('127.0.0.1\tlocalhost')
      expect(said.stdout).toMatch(/fd full .*null .*ptmx pts random shm stderr stdin stdout tty urandom zero/)
      expect(said.stdout).toContain('null\n1777')
    })
  })

  describe(`a running one (${isolation})`, () => {
    let id: string
    const name = `main-${isolation}`

    beforeAll(async () => {
      id = await start('--name', name, '-p', '0:80', '-p', '0:7/udp', '--label', 'role=main', ...sh('echo ready; trap "echo got-usr1" USR1; trap "echo bye; exit 3" TERM; while :; do sleep 0.1; done'))
      await until('it is ready', async () => (await ok('logs', name)).includes('ready'))
    })

    afterAll(async () => {
      await docker('rm', '-f', name)
    })

    it('is in ps, with filters and formats', async () => {
      expect(await ok('ps', '-q', '--no-trunc')).toBe(id)
      expect(await ok('ps', '--filter', 'name=main', '--format', '{{.Names}} {{.Image}} {{.State}}')).toBe(`${name} ${testImage} running`)
      expect(await ok('ps', '-q', '--filter', 'label=role=main')).toBe(id.slice(0, 12))
      expect(await ok('ps', '-q', '--filter', 'label=role=other')).toBe('')
      expect(await ok('ps', '-q', '--filter', 'status=exited')).toBe('')
      expect(await ok('ps', '-q', '--filter', `ancestor=${testImage}`)).toBe(id.slice(0, 12))
      expect(await ok('ps', '--format', '{{.Ports}}')).toMatch(/0\.0\.0\.0:\d+->80\/tcp/)
    })

    it('runs exec with its options and exit codes', async () => {
      expect(await ok('exec', name, 'echo', 'hi')).toBe('hi')
      expect((await docker('exec', name, 'sh', '-c', 'echo o; echo e >&2; exit 9'))).toMatchObject({ code: 9, stdout: 'o\n', stderr: 'e\n' })
      expect(await ok('exec', '-u', '1000', '-w', '/tmp', '-e', 'V=w', name, 'sh', '-c', 'id -u; pwd; echo $V')).toBe('1000\n/tmp\nw')
      expect((await daemon.docker(['exec', '-i', name, 'cat'], { input: 'through\n' })).stdout).toBe('through\n')
      expect((await docker('exec', name, 'nosuch')).code).toBe(127)
      expect((await docker('exec', name, '/etc')).code).toBe(126)
      await ok('exec', '-d', name, 'sh', '-c', 'echo detached > /tmp/d')
      await until('the detached command wrote', async () => (await docker('exec', name, 'cat', '/tmp/d')).stdout === 'detached\n')
    })

    it('shares one process table and one file system with exec', async () => {
      expect(await ok('exec', name, 'sh', '-c', 'tr "\\0" " " < /proc/1/cmdline')).toContain('echo ready')
      expect(await ok('exec', name, 'hostname')).toBe(id.slice(0, 12))
    })

    it('has an address, which the gateway and the other isolation reach', async () => {
      const { NetworkSettings: net } = await inspect(name)
      const address = net.Networks.bridge.IPAddress
      expect(await ok('exec', name, 'sh', '-c', 'ip -4 addr show eth0 | grep -o "inet [0-9.]*"')).toBe(`inet ${address}`)
      expect((await docker('exec', name, 'ping', '-c1', '-W5', net.Networks.bridge.Gateway)).code).toBe(0)
      const said = await daemon.docker(['run', '--rm', `--isolation=${other}`, testImage, 'ping', '-c1', '-W5', address])
      expect(said.code, said.stdout + said.stderr).toBe(0)
    })

    it('answers on published ports, tcp and udp', async () => {
      await ok('exec', '-d', name, 'sh', '-c', 'while :; do echo served | nc -l -p 80; done')
      const port = Number((await ok('port', name, '80/tcp')).split('\n')[0]!.split(':').pop())
      const answer = await until('the port answers', async () => (await tcp('127.0.0.1', port).catch(() => '')) || undefined)
      expect(answer).toBe('served\n')
      await ok('exec', '-d', name, 'udp-echo', '7')
      const udpPort = Number((await ok('port', name, '7/udp')).split('\n')[0]!.split(':').pop())
      expect(await until('the udp port answers', async () => (await udp(udpPort, 'echo').catch(() => '')) || undefined)).toBe('echo')
    })

    it('gets signals', async () => {
      await ok('kill', '-s', 'USR1', name)
      await until('the trap ran', async () => (await ok('logs', name)).includes('got-usr1'))
      expect((await docker('kill', '-s', 'NOSUCH', name)).stderr).toContain('Invalid signal')
    })

    it('shows its processes in top and its use in stats', async () => {
      const top = await ok('top', name)
      expect(top.split('\n')[0]).toMatch(/UID\s+PID\s+PPID\s+C\s+STIME\s+TTY\s+TIME\s+CMD/)
      expect(top).toContain('while')
      const stats = await ok('stats', '--no-stream', '--format', '{{.MemUsage}} {{.PIDs}}', name)
      expect(stats).toMatch(/^[\d.]+[KM]iB \/ [\d.]+[MG]iB \d+/)
    })

    it('can be paused and goes on', async () => {
      await ok('pause', name)
      expect((await inspect(name)).State.Status).toBe('paused')
      expect((await docker('exec', name, 'true')).stderr).toContain('is paused')
      await ok('unpause', name)
      expect(await ok('exec', name, 'echo', 'awake')).toBe('awake')
    })

    it('attaches to its output without ending it', async () => {
      const attached = daemon.docker(['attach', '--no-stdin', '--sig-proxy=false', name], { timeoutMs: 6000 })
      await sleep(1500)
      await ok('kill', '-s', 'USR1', name)
      expect((await attached).stdout).toContain('got-usr1')
      expect((await inspect(name)).State.Status).toBe('running')
    })

    it('is explained', async () => {
      const said = await daemon.hull(['explain', name])
      expect(said.code, said.stderr).toBe(0)
      if (vm) expect(said.stdout).toMatch(/accelerator|Accelerator/)
      else expect(said.stdout).toMatch(/pid:\[\d+\]|\bpid\b/)
      expect(said.stdout).toMatch(/seccomp/i)
    })

    it('stops with its own signal handler and exit code', async () => {
      await ok('stop', name)
      const { State } = await inspect(name)
      expect(State).toMatchObject({ Status: 'exited', ExitCode: 3 })
      expect(await ok('logs', name)).toContain('bye')
      expect((await docker('exec', name, 'true')).code).not.toBe(0)
    })

    it('starts again with its files', async () => {
      await ok('start', name)
      await until('files are there', async () => (await docker('exec', name, 'cat', '/tmp/d')).stdout === 'detached\n')
      await ok('restart', '-t', '1', name)
      expect(await ok('exec', name, 'cat', '/tmp/d')).toBe('detached')
      expect((await docker('rm', name)).stderr).toContain('container is running')
      await ok('rm', '-f', name)
      expect(await ok('ps', '-aq')).toBe('')
    })
  })

  describe(`logs (${isolation})`, () => {
    it('have every line, tail, since, timestamps, and follow to the end', async () => {
      const id = await start(...sh('for i in 1 2 3; do echo line$i; done; echo err >&2; sleep 2; echo late; printf unfinished'))
      const followed = daemon.docker(['logs', '-f', id])
      expect(await ok('wait', id)).toBe('0')
      const all = await docker('logs', id)
      expect(all.stdout).toBe('line1\nline2\nline3\nlate\nunfinished')
      expect(all.stderr).toBe('err\n')
      expect((await followed).stdout).toBe(all.stdout)
      expect((await docker('logs', '--tail', '1', id)).stdout).toBe('unfinished')
      const stamped = (await docker('logs', '-t', id)).stdout.split('\n')
      expect(stamped[0]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line1$/)
      const late = stamped.find((line) => line.endsWith('late'))!.split(' ')[0]!
      expect((await docker('logs', '--since', late, id)).stdout).toBe('late\nunfinished')
      await ok('rm', id)
    })
  })

  describe(`ending (${isolation})`, () => {
    it('kills after the timeout what ignores the signal', async () => {
      const id = await start(...sh('trap "" TERM; echo up; while :; do sleep 0.1; done'))
      await until('up', async () => (await ok('logs', id)).includes('up'))
      await ok('stop', '-t', '1', id)
      expect((await inspect(id)).State.ExitCode).toBe(137)
      await ok('rm', id)
    })

    it('uses --stop-signal', async () => {
      const id = await start('--stop-signal', 'USR2', ...sh('trap "exit 42" USR2; echo up; while :; do sleep 0.1; done'))
      await until('up', async () => (await ok('logs', id)).includes('up'))
      await ok('stop', id)
      expect((await inspect(id)).State.ExitCode).toBe(42)
      await ok('rm', id)
    })

    it('leaves nothing of --rm, whatever kills it', async () => {
      const id = await start('--rm', testImage, 'sleep', '1000')
      await ok('kill', id)
      await until('it is gone', async () => (await docker('inspect', id)).code !== 0)
    })

    it('restarts on failure as often as asked', async () => {
      const id = await start('--restart', 'on-failure:2', ...sh('echo try; exit 1'))
      await until('it gave up', async () => (await inspect(id)).State.Status === 'exited' && (await ok('logs', id)).split('try').length === 4, 60_000)
      await ok('rm', id)
    })
  })

  describe(`terminals (${isolation})`, () => {
    const prompt = '[$#] '

    it('give a shell with job control, Ctrl-C and the window size', async () => {
      const session = await onTerminal(
        daemon.host,
        ['docker', 'run', '-it', '--rm', `--isolation=${isolation}`, testImage, 'sh'],
        [
          { expect: prompt },
          { send: 'stty size; tty\r' },
          { expect: '30 100\r\n/dev/pts/\\d' },
          { resize: [41, 121] },
          { sleep: 1 },
          { send: 'stty size\r' },
          { expect: '41 121' },
          { send: 'sleep 100\r' },
          { sleep: 1 },
          { control: 'c' },
          { expect: prompt },
          { send: 'echo after=$?\r' },
          { expect: 'after=130' },
          { send: 'sleep 50 &\r' },
          { send: 'jobs\r' },
          { expect: 'Running' },
          { send: 'exit 5\r' },
          { eof: true },
        ],
        [30, 100],
      )
      expect(session.error, session.output).toBeUndefined()
      expect(session.code).toBe(5)
    })

    it('can be left with Ctrl-P Ctrl-Q and taken up again', async () => {
      const name = `tty-${isolation}`
      const first = await onTerminal(daemon.host, ['docker', 'run', '-it', '--name', name, `--isolation=${isolation}`, testImage, 'sh'], [
        { expect: prompt },
        { send: 'MARK=kept\r' },
        { expect: prompt },
        { control: 'p' },
        { control: 'q' },
        { eof: true },
      ])
      expect(first.error, first.output).toBeUndefined()
      expect((await inspect(name)).State.Status).toBe('running')
      const second = await onTerminal(daemon.host, ['docker', 'attach', name], [{ send: 'echo $MARK-again\r' }, { expect: 'kept-again' }, { send: 'exit 0\r' }, { eof: true }])
      expect(second.error, second.output).toBeUndefined()
      await ok('rm', '-f', name)
    })

    it('work in exec', async () => {
      const name = `ttyexec-${isolation}`
      await start('--name', name, testImage, 'sleep', '1000')
      const session = await onTerminal(
        daemon.host,
        ['docker', 'exec', '-it', name, 'sh'],
        [{ expect: prompt }, { send: 'stty size; test -t 0 && echo is-a-tty\r' }, { expect: '33 99' }, { expect: '\nis-a-tty' }, { send: 'exit 6\r' }, { eof: true }],
        [33, 99],
      )
      expect(session.error, session.output).toBeUndefined()
      expect(session.code).toBe(6)
      await ok('rm', '-f', name)
    })
  })
}
