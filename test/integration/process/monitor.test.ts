import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { processStat } from '../../../src/host/process.js'
import { oomScoreFor } from '../../../src/oci/oom-score.js'
import { Supervised } from '../../../src/oci/supervised.js'
import { Runtime } from '../../../src/oci/runtime.js'
import { readLog } from '../../../src/oci/logs.js'
import { collect, demultiplex, Fixture } from './fixture.js'
import { Workloads } from './workloads.js'

const fixture = new Fixture()
const workloads = new Workloads(fixture)
const monitorPath = fileURLToPath(new URL('../../../build/hull-monitor', import.meta.url))

const running = (pid: number) => existsSync(`/proc/${pid}`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))

async function logged(path: string): Promise<{ stdout: string; stderr: string }> {
  const all = { stdout: '', stderr: '' }
  for await (const { stream, bytes } of readLog(path, { stdout: true, stderr: true, follow: false })) all[stream] += bytes.toString('latin1')
  return all
}

afterEach(async () => {
  await workloads.end()
  await expect.poll(() => fixture.leaks()).toEqual([])
})
afterAll(() => fixture.remove())

describe('the log', () => {
  it('has every byte, however it was written, in records of the CRI’s format', async () => {
    const script = `head -c 60000 /dev/urandom | base64 -w 0; head -c 60000 /dev/urandom | base64; printf 'a\\n\\nb' >&2; sleep 0.05; printf 'c\\n' >&2; printf '\\n\\n'; head -c 100000 /dev/zero; printf end`
    const supervised = await workloads.create(['sh', '-c', script])
    const output = collect(await supervised.attach())
    const before = BigInt(Date.now()) * 1_000_000n
    await supervised.start()
    await supervised.exited
    const seen = demultiplex(await output)
    expect(seen.stderr).toBe('a\n\nbc\n')
    expect(seen.stdout.length).toBe(80_000 + 80_000 + Math.ceil(80_000 / 76) + 2 + 100_000 + 3)
    const path = workloads.logOf(supervised)
    expect(await logged(path)).toEqual(seen)
    // Not by our own reader: nothing but such lines, in whole reads' times.
    const lines = readFileSync(path, 'latin1').split('\n')
    expect(lines.pop()).toBe('')
    for (const line of lines) expect(line).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] /)
    expect(lines.filter((line) => line.includes(' stderr ')).map((line) => line.slice(31))).toEqual(['stderr F a', 'stderr F ', 'stderr P b', 'stderr F c'])
    const [first] = lines
    const time = BigInt(Date.parse(`${first!.slice(0, 19)}Z`)) * 1_000_000n + BigInt(first!.slice(20, 29))
    expect(time >= before && time <= BigInt(Date.now() + 1) * 1_000_000n).toBe(true)
  })

  const sequence = async (path: string) => (await logged(path)).stdout.trim().split('\n').map(Number)

  it.each([
    [2000, 3, 5000],
    [100_000, 2, 30_000],
    [10, 4, 300], // each record a file
  ])('is rotated at %i bytes, %i files: the last lines, without a gap, and no file larger than that and a record', async (maxSize, maxFiles, count) => {
    const supervised = await workloads.create(['sh', '-c', `seq 1 ${count}`], { logLimits: { maxSize, maxFiles } })
    await supervised.start()
    await supervised.exited
    const path = workloads.logOf(supervised)
    const names = Array.from({ length: maxFiles }, (_, i) => (i === 0 ? path : `${path}.${i}`))
    for (const name of names) expect(statSync(name).size).toBeLessThan(maxSize + 60)
    expect(existsSync(`${path}.${maxFiles}`)).toBe(false)
    const numbers = await sequence(path)
    expect(numbers.at(-1)).toBe(count)
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, i) => count - numbers.length + 1 + i))
    expect(numbers.length * 44).toBeGreaterThan(Math.min(maxSize, 44) * (maxFiles - 1))
  })

  it('takes limits that are beyond all bounds', async () => {
    const supervised = await workloads.create(['echo', '1'], { logLimits: { maxSize: 1e22, maxFiles: 1_000_001 } })
    await supervised.start()
    await supervised.exited
    expect(await sequence(workloads.logOf(supervised))).toEqual([1])
  })

  it('with one file begins anew', async () => {
    const supervised = await workloads.create(['sh', '-c', 'seq 1 1000'], { logLimits: { maxSize: 1000, maxFiles: 1 } })
    await supervised.start()
    await supervised.exited
    const path = workloads.logOf(supervised)
    expect(statSync(path).size).toBeLessThan(1060)
    expect(existsSync(`${path}.1`)).toBe(false)
    expect((await sequence(path)).at(-1)).toBe(1000)
  })

  it('loses nothing to one who follows through many rotations', async () => {
    const supervised = await workloads.create(['sh', '-c', 'i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i; [ $((i % 20)) -ne 0 ] || sleep 0.02; done'], { logLimits: { maxSize: 4000, maxFiles: 10 } })
    const ended = new AbortController()
    const following = (async () => {
      const seen: number[] = []
      for await (const { bytes } of readLog(workloads.logOf(supervised), { stdout: true, stderr: true, follow: true, ended: ended.signal })) seen.push(Number(bytes.toString()))
      return seen
    })()
    await supervised.start()
    await supervised.exited
    ended.abort()
    expect(await following).toEqual(Array.from({ length: 400 }, (_, i) => i + 1))
  })

  it('goes on where an earlier life stopped, and over a hole in the numbers', async () => {
    const path = join(fixture.directory, 'continued.log')
    writeFileSync(path, '2026-11-26T00:00:00.000000000Z stdout F 1\n')
    writeFileSync(`${path}.2`, '2026-11-25T00:00:00.000000000Z stdout F 0\n') // the monitor was killed between two renames
    const supervised = await workloads.create(['echo', '2'], { logPath: path, logLimits: { maxSize: 20, maxFiles: 4 } })
    await supervised.start()
    await supervised.exited
    expect(await sequence(path)).toEqual([0, 1, 2])
    expect(readdirSync(fixture.directory).filter((name) => name.startsWith('continued')).sort()).toEqual(['continued.log', 'continued.log.1', 'continued.log.3'])
  })

  it('on a full disk: the output goes on, no record is cut, and it is said', async () => {
    const small = join(fixture.directory, 'small')
    mkdirSync(small)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', small])
    try {
      const supervised = await workloads.create(['sh', '-c', 'head -c 300000 /dev/zero | tr "\\0" x; echo; echo out; sleep 100'], { logPath: join(small, 'log') })
      let length = 0
      const stream = await supervised.attach()
      stream.on('data', (chunk: Buffer) => (length += chunk.length))
      await supervised.start()
      await expect.poll(() => length).toBeGreaterThan(300_000)
      for (const line of readFileSync(join(small, 'log'), 'latin1').split('\n').slice(0, -1)) expect(line).toMatch(/^\S+Z stdout [FP] (x+|out|)$/)
      expect(readFileSync(join(workloads.runDirOf(supervised), 'monitor.err'), 'utf8')).toMatch(/^(hull-monitor: the log cannot be written: No space left on device\n){1,20}$/)
      stream.destroy()
    } finally {
      await workloads.end()
      execFileSync('umount', [small])
    }
  })

  it('that is emptied before the disk is full gets no hole', async () => {
    const small = join(fixture.directory, 'emptied')
    mkdirSync(small)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', small])
    const path = join(small, 'log')
    try {
      const supervised = await workloads.create(['sh', '-c', 'head -c 50000 /dev/zero | tr "\\0" x; read x; head -c 100000 /dev/zero | tr "\\0" y; echo end >&2; sleep 100'], { logPath: path, stdin: true })
      const stream = await supervised.attach()
      let said = ''
      stream.on('data', (chunk: Buffer) => (said += chunk.toString('latin1')))
      await supervised.start()
      await expect.poll(() => statSync(path).size).toBeGreaterThan(50_000)
      truncateSync(path)
      stream.write('\n')
      await expect.poll(() => said).toContain('end')
      const text = readFileSync(path, 'latin1')
      expect(text).not.toContain('\0')
      for (const line of text.split('\n').slice(0, -1)) expect(line).toMatch(/^\S+Z std(out|err) [FP] (y+|end|)$/)
      stream.destroy()
    } finally {
      await workloads.end()
      execFileSync('umount', [small])
    }
  })

  it('loses no older file when there can be no new one', async () => {
    const full = join(fixture.directory, 'full')
    mkdirSync(full)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'nr_inodes=3', 'none', full]) // the directory and two files
    const path = join(full, 'log')
    try {
      writeFileSync(`${path}.1`, '2026-11-25T00:00:00.000000000Z stdout F 0\n')
      const supervised = await workloads.create(['sh', '-c', 'printf "1\n2\n3\n4\n5\n6\n"'], { logPath: path, logLimits: { maxSize: 20, maxFiles: 4 } })
      await supervised.start()
      await supervised.exited
      expect(readdirSync(full).sort()).toEqual(['log.1', 'log.2'])
      expect(await sequence(path)).toEqual([0, 1])
      expect(readFileSync(join(workloads.runDirOf(supervised), 'monitor.err'), 'utf8')).toBe('hull-monitor: a new log cannot be opened: No space left on device\n')
    } finally {
      await workloads.end()
      execFileSync('umount', [full])
    }
  })

  it('whose last record was cut off goes on with a whole one', async () => {
    const path = join(fixture.directory, 'torn.log')
    writeFileSync(path, '2026-11-26T00:00:00.000000000Z stdout F 1\n2026-11-26T00:00')
    const supervised = await workloads.create(['echo', '2'], { logPath: path })
    await supervised.start()
    await supervised.exited
    expect(await sequence(path)).toEqual([1, 2])
    expect(readFileSync(path, 'latin1').split('\n')).toEqual(['2026-11-26T00:00:00.000000000Z stdout F 1', '2026-11-26T00:00', expect.stringMatching(/ stdout F 2$/), ''])
  })

  it('that cannot be made is a refusal', async () => {
    await expect(workloads.create(['true'], { logPath: join(fixture.directory, 'none/log') })).rejects.toThrow(/crun: log .*none\/log: no such file or directory: unknown$/)
  })
})

describe('clients', () => {
  it('hold up the container, but neither its end nor the others’ output', async () => {
    const supervised = await workloads.create(['sh', '-c', 'head -c 3000000 /dev/zero; sleep 100'])
    const slow = await supervised.attach() // nobody reads it
    await supervised.start()
    await sleep(200)
    supervised.signal(9)
    expect((await supervised.exited).code).toBe(137)
    const monitor = supervised.monitorPid
    await supervised.destroy()
    expect(running(monitor)).toBe(true) // what is left for the slow one
    const { stdout } = demultiplex(await collect(slow))
    expect(stdout.length).toBeGreaterThan(64 << 10)
    expect(stdout.length).toBeLessThan(3_000_000)
    expect(stdout).toMatch(/^\0+$/)
    await expect.poll(() => running(monitor)).toBe(false)
  })

  it('get all of the output, however late they read, when the container has gone', async () => {
    const supervised = await workloads.create(['sh', '-c', 'head -c 250000 /dev/zero; printf end'])
    const slow = await supervised.attach()
    const fast = collect(await supervised.attach())
    await supervised.start()
    expect((await supervised.exited).code).toBe(0)
    await supervised.destroy()
    expect(demultiplex(await fast).stdout.length).toBe(250_003)
    await sleep(300)
    const { stdout } = demultiplex(await collect(slow))
    expect(stdout.length).toBe(250_003)
    expect(stdout.endsWith('end')).toBe(true)
  })

  it('that cannot be kept are told that it is the end', async () => {
    const supervised = await workloads.create(['sh', '-c', 'sleep 0.5; head -c 3000000 /dev/zero; sleep 100'])
    const slow = await supervised.attach() // nobody reads it
    await supervised.start()
    execFileSync('prlimit', [`--pid=${supervised.monitorPid}`, '--as=1']) // no more memory
    await expect.poll(() => statSync(workloads.logOf(supervised)).size, { timeout: 10_000 }).toBeGreaterThan(3_000_000) // nobody is held up
    const { length } = await collect(slow)
    expect(length).toBeGreaterThan(32 << 10)
    expect(length).toBeLessThan(3_000_000)
    expect(readFileSync(join(workloads.runDirOf(supervised), 'monitor.err'), 'utf8')).toContain('is left without the rest')
  })

  it('that there are no descriptors for cost no processor, and are served when there are', async () => {
    const supervised = await workloads.create(['sh', '-c', 'read x; echo out'], { stdin: true })
    const monitor = supervised.monitorPid
    const descriptors = () => readdirSync(`/proc/${monitor}/fd`).map(Number)
    await supervised.start()
    const before = []
    while (descriptors().length <= Math.max(...descriptors())) { // what is free between those that are open
      before.push(await supervised.attach())
      await sleep(50)
    }
    execFileSync('prlimit', [`--pid=${monitor}`, `--nofile=${descriptors().length}:`])
    const output = collect(await supervised.attach())
    const ticks = async () => {
      const { userTicks, systemTicks } = (await processStat(monitor))!
      return userTicks + systemTicks
    }
    const spent = await ticks()
    await sleep(1000)
    expect((await ticks()) - spent).toBeLessThan(10)
    execFileSync('prlimit', [`--pid=${monitor}`, '--nofile=1024:'])
    await sleep(500)
    before[0]!.write('\n')
    expect(demultiplex(await output).stdout).toBe('out\n')
    for (const stream of before) stream.destroy()
  })

  it.each([['to the container', 2], ['to nobody', 0]])('that never stop talking %s keep neither the output nor the end from anybody', async (_, flags) => {
    const supervised = await workloads.create(['sh', '-c', 'exec <&-; sleep 1; echo out; exec sleep 100'], { stdin: true })
    const output = collect(await supervised.attach(false))
    await supervised.start()
    // On the monitor's processor, and before it: there is always something to read.
    const processor = /^Cpus_allowed_list:\t(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]!
    execFileSync('taskset', ['-pc', processor, String(supervised.monitorPid)])
    execFileSync('renice', ['-n', '19', '-p', String(supervised.monitorPid)])
    const talk = `import os,socket,sys\nos.sched_setaffinity(0, [${processor}]); s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.send(b"A\\${flags}\\0\\0\\0\\0")\nwhile True: s.send(bytes(1<<20))`
    const children = Array.from({ length: 4 }, () => spawn('python3', ['-c', talk, join(workloads.runDirOf(supervised), 'attach')], { stdio: 'ignore' }))
    await sleep(2000)
    process.kill(supervised.monitorPid, 'SIGTERM')
    try {
      expect(await Promise.race([supervised.exited, sleep(5000, 'still there')])).toMatchObject({ code: 137 })
    } finally {
      for (const child of children) child.kill()
    }
    expect(demultiplex(await output).stdout).toBe('out\n')
  })

  it('that come to one that has ended are told so', async () => {
    const supervised = await workloads.create(['true'])
    const stream = await supervised.attach()
    await supervised.start()
    await supervised.exited
    await expect(supervised.attach()).rejects.toMatchObject({ statusCode: 409 }) // while the first keeps the monitor
    await collect(stream)
    await expect.poll(() => running(supervised.monitorPid)).toBe(false)
    await expect(supervised.attach()).rejects.toMatchObject({ statusCode: 409 })
  })

  it('end the input only if they had it, and only where it has an end', async () => {
    const once = await workloads.create(['sh', '-c', 'cat; echo over'], { stdin: true })
    const listener = await once.attach(false)
    const output = collect(await once.attach(false))
    await once.start()
    listener.end('not heard')
    listener.destroy()
    const first = await once.attach()
    await new Promise((resolve) => first.write('heard ', resolve))
    const second = await once.attach()
    await sleep(50)
    expect(await Promise.race([once.exited, sleep(100, 'still there')])).toBe('still there')
    second.end('too ')
    first.destroy()
    expect(demultiplex(await output).stdout).toBe('heard too over\n')

    const open = await workloads.create(['sh', '-c', 'read a; read b; echo "$a $b"'], { stdin: true, leaveStdinOpen: true })
    const lines = collect(await open.attach(false))
    await open.start()
    ;(await open.attach()).end('one\n')
    await sleep(50)
    ;(await open.attach()).end('two\n')
    expect(demultiplex(await lines).stdout).toBe('one two\n')
  })

  it('that say nonsense, or nothing, are nobody’s trouble', async () => {
    const supervised = await workloads.create(['sh', '-c', 'sleep 0.3; echo out'])
    const output = collect(await supervised.attach())
    const path = join(workloads.runDirOf(supervised), 'attach')
    const say = (bytes: string) => spawn('python3', ['-c', `import socket,sys,time\ns=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.send(${bytes}); time.sleep(9)`, path])
    const children = ['b"A"', 'b"\\xff" * 6', 'b"W\\0\\0\\1\\0\\1"', 'b"A\\2\\0\\0\\0\\0" + b"x" * 100000', 'b""'].map(say)
    await supervised.start()
    expect((await supervised.exited).code).toBe(0)
    expect(demultiplex(await output).stdout).toBe('out\n')
    for (const child of children) child.kill()
    await expect.poll(() => running(supervised.monitorPid)).toBe(false)
  })
})

describe('a terminal', () => {
  it('has the size that was said last, and takes none when it is gone', async () => {
    const supervised = await workloads.create(['sh', '-c', 'read x; stty size'], { tty: true, stdin: true, leaveStdinOpen: true })
    const stream = await supervised.attach()
    const output = collect(stream)
    await supervised.start()
    await Promise.all(Array.from({ length: 50 }, (_, i) => supervised.resize(10 + i, 100 + i)))
    stream.write('\n')
    expect((await output).toString()).toBe('\r\n59 149\r\n')
    await supervised.exited
    await supervised.resize(1, 1)
  })

  it('has the lower 16 bits of a size', async () => {
    const supervised = await workloads.create(['sh', '-c', 'read x; stty size'], { tty: true, stdin: true })
    const stream = await supervised.attach()
    const output = collect(stream)
    await supervised.start()
    await supervised.resize(65_536 + 33, 2 ** 32 - 65_536 + 88)
    stream.write('\n')
    expect((await output).toString()).toBe('\r\n33 88\r\n')
  })

  it('comes by a socket whose path is short enough in bytes', async () => {
    const exitDir = join(fixture.directory, '深'.repeat(30), 'exits')
    const supervised = await workloads.create(['sh', '-c', 'tty'], { tty: true, exitDir })
    const output = collect(await supervised.attach())
    await supervised.start()
    expect((await output).toString()).toBe('/dev/pts/0\r\n')
  })

  it('may be closed and opened again', async () => {
    const script = 'tty=$(readlink /proc/self/fd/0); echo before; exec <&- >&- 2>&-; sleep 0.5; exec >"$tty"; echo after; sleep 0.5'
    const supervised = await workloads.create(['sh', '-c', script], { tty: true })
    const output = collect(await supervised.attach())
    await supervised.start()
    expect((await output).toString()).toBe('before\r\nafter\r\n')
    expect((await supervised.exited).code).toBe(0)
  })

  it('that the runtime never sends is a refusal', async () => {
    const runtime = join(fixture.directory, 'no-terminal')
    // A runtime that forgets it: the container's config says that it has none, hull-monitor was told of one.
    symlinkSync('/usr/bin/crun', runtime)
    const options = await workloads.prepare(['sleep', '100'], { tty: true })
    const config = join(options.runDir, 'config.json')
    writeFileSync(config, readFileSync(config, 'utf8').replace('"terminal":true', '"terminal":false'))
    await expect(Supervised.create({ ...options, runtime: await Runtime.open(runtime, fixture.runtimeRoot) })).rejects.toThrow(/terminal|console/)
  })
})

describe('the monitor', () => {
  it('has no capability but to kill, no directory, and descriptors of its own alone', async () => {
    const supervised = await workloads.create(['sleep', '100'], { stdin: true })
    await supervised.start()
    const status = readFileSync(`/proc/${supervised.monitorPid}/status`, 'utf8')
    expect(/^CapEff:\t(\w+)$/m.exec(status)![1]).toBe('0000000000000020')
    expect(/^CapPrm:\t(\w+)$/m.exec(status)![1]).toBe('0000000000000020')
    expect(/^NoNewPrivs:\t(\d)$/m.exec(status)![1]).toBe('1')
    const at = (name: string) => execFileSync('readlink', [`/proc/${supervised.monitorPid}/${name}`], { encoding: 'utf8' }).trim()
    expect(at('cwd')).toBe('/')
    expect(readdirSync(`/proc/${supervised.monitorPid}/fd`).map((fd) => at(`fd/${fd}`).replace(/\d+/, 'N').replace(/\/.*\//, '').replace(/.*\.log$/, 'log')).sort()).toEqual(['log', 'null', 'null', 'null', 'pipe:[N]', 'pipe:[N]', 'pipe:[N]', 'socket:[N]'])
    expect(at('exe')).toBe(monitorPath)
  })

  it('gives what runs under it the score for the OOM killer that it is to have, whatever the runtime does', async () => {
    const supervised = await workloads.create(['sh', '-c', 'cat /proc/self/oom_score_adj'], { oomScoreAdj: 300 })
    const output = collect(await supervised.attach())
    await supervised.start()
    expect(demultiplex(await output).stdout).toBe('300\n')
    const own = await workloads.create(['sh', '-c', 'cat /proc/self/oom_score_adj'])
    const inherited = collect(await own.attach())
    await own.start()
    expect(Number(demultiplex(await inherited).stdout)).toBe(oomScoreFor(0).oomScoreAdj ?? Number(readFileSync('/proc/self/oom_score_adj', 'utf8')))
  })

  it('ends its container when it is told to end, and leaves the exit code', async () => {
    const supervised = await workloads.create(['sleep', '100'])
    await supervised.start()
    process.kill(supervised.monitorPid, 'SIGTERM')
    expect((await supervised.exited).code).toBe(137)
  })

  it('leaves a workload the signals as they are by default', async () => {
    const supervised = await workloads.create(['sh', '-c', 'grep -E "^Sig(Blk|Ign)" /proc/self/status; sleep 0'])
    const output = collect(await supervised.attach())
    await supervised.start()
    // The lower 31: two more are the C library's own, and may be ignored by whoever started us.
    expect(demultiplex(await output).stdout.split('\n').map((line) => (Number.parseInt(line.slice(-8), 16) & 0x7fffffff) || 0)).toEqual([0, 0, 0])
  })

  it.each([
    [[], 'usage: '],
    [['--id', 'x', '--bundle', '/', '--exit-dir', '/', '--sync', '-3', '--', 'crun'], 'not a number: -3'],
    [['--id', 'x', '--bundle', '/', '--exit-dir', '/', '--sync', '1', '--', 'crun'], 'usage: '],
    [['--log-size', '99999999999999999999'], 'not a number'],
    [['--nonsense'], 'unrecognized option'],
  ])('refuses %j', async (args, message) => {
    const child = spawn(monitorPath, args)
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
    expect(await new Promise((resolve) => child.on('close', resolve))).toBe(125)
    expect(said).toContain(message)
  })
})
