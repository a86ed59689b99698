import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmdirSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { Supervised } from '../../../src/oci/supervised.js'
import { collect, demultiplex, Fixture, openDescriptors } from './fixture.js'
import { Workloads } from './workloads.js'

const fixture = new Fixture()
const workloads = new Workloads(fixture)

const prepare = (...args: Parameters<Workloads['prepare']>) => workloads.prepare(...args)
const create = (...args: Parameters<Workloads['create']>) => workloads.create(...args)

/** crun stands at the gate: its libraries are loaded, ours among them, and it has read nothing. */
function waiting(runDir: string): boolean {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.some((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`create\0--bundle\0${runDir}`) && readFileSync(`/proc/${pid}/maps`, 'utf8').includes('hull-gate.so') && /^0 /.test(readFileSync(`/proc/${pid}/syscall`, 'utf8'))
    } catch {
      return false // gone
    }
  })
}

describe('Supervised', () => {
  afterEach(async () => {
    await workloads.end()
    expect(fixture.leaks()).toEqual([])
  })
  afterAll(() => fixture.remove())

  it('runs a command: both streams apart, from the first byte, exit code, log', async () => {
    const supervised = await create(['sh', '-c', 'echo out; echo err >&2; exit 7'])
    const output = collect(await supervised.attach())
    await supervised.start()
    expect((await supervised.exited).code).toBe(7)
    expect(demultiplex(await output)).toEqual({ stdout: 'out\n', stderr: 'err\n' })
  })

  it('misses nothing of a lot of output that begins at once', async () => {
    const supervised = await create(['sh', '-c', 'i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); done'])
    const output = collect(await supervised.attach())
    await supervised.start()
    const lines = demultiplex(await output).stdout.split('\n')
    expect(lines).toHaveLength(20001)
    expect(lines[19999]).toBe('line 19999')
  })

  it('passes stdin and its end on', async () => {
    const supervised = await create(['cat'], { stdin: true })
    const stream = await supervised.attach()
    const output = collect(stream)
    await supervised.start()
    stream.end('to and fro')
    expect(demultiplex(await output).stdout).toBe('to and fro')
    expect((await supervised.exited).code).toBe(0)
  })

  it('has a terminal of the size that it is given', async () => {
    const supervised = await create(['sh', '-c', 'read x; stty size; read x; stty size'], { tty: true, stdin: true, leaveStdinOpen: true })
    const stream = await supervised.attach()
    let text = ''
    stream.on('data', (chunk: Buffer) => (text += chunk.toString()))
    await supervised.start()
    await Promise.all([supervised.resize(10, 20), supervised.resize(30, 100), supervised.resize(33, 101)])
    await expect.poll(() => { stream.write('\n'); return text }).toContain('33 101')
    expect((await supervised.exited).code).toBe(0)
  })

  it('reports signals as 128 + n', async () => {
    const supervised = await create(['sleep', '100'])
    await supervised.start()
    expect(supervised.signal(9)).toBe(true)
    expect((await supervised.exited).code).toBe(137)
    expect(supervised.signal(9)).toBe(false)
  })

  it.each([
    ['nope', 400, 'failed to create task for container: failed to create shim task: OCI runtime create failed: crun create failed: unable to start container process: error during container init: exec: "nope": executable file not found in $PATH: unknown'],
    ['/nope', 400, /exec: "\/nope": stat \/nope: no such file or directory: unknown$/],
    ['/etc', 400, /exec: "\/etc": is a directory: unknown$/],
  ])('says in Docker’s words why %s cannot be run', async (command, statusCode, message) => {
    await expect(create([command])).rejects.toMatchObject({ statusCode, message: typeof message === 'string' ? message : expect.stringMatching(message) })
  })

  it('passes descriptors on from 3', async () => {
    const path = join(fixture.directory, 'passed')
    writeFileSync(path, 'by descriptor\n')
    const { openSync, closeSync } = await import('node:fs')
    const fd = openSync(path, 'r')
    const supervised = await create(['sh', '-c', 'cat <&3; ls /proc/self/fd | tr "\\n" " "'], { preserveFds: [fd] })
    closeSync(fd)
    const output = collect(await supervised.attach())
    await supervised.start()
    expect(demultiplex(await output).stdout).toMatch(/^by descriptor\n0 1 2 3 4 $/) // 4 is ls's own
  })

  it('is found again by a later daemon, running or ended', async () => {
    const options = await prepare(['sh', '-c', 'echo one; sleep 0.5; echo two; exit 3'])
    const first = await Supervised.create(options)
    await first.start()
    const second = await Supervised.adopt(options)
    expect(second!.pid).toBe(first.pid)
    expect((await second!.exited).code).toBe(3)
    const third = await Supervised.adopt(options)
    expect((await third!.exited).code).toBe(3)
    await third!.destroy()
    await first.destroy()
    expect(await Supervised.adopt(options)).toBeUndefined()
    expect(readFileSync(options.logPath, 'utf8').split('\n').map((line) => line.split(' ').slice(1).join(' '))).toEqual(['stdout F one', 'stdout F two', ''])
  })

  it('kills the container when its supervisor was killed', async () => {
    const options = await prepare(['sleep', '100'])
    const supervised = await Supervised.create(options)
    workloads.own(supervised, options)
    await supervised.start()
    const adopted = await Supervised.adopt(options)
    workloads.own(adopted!, options)
    process.kill(supervised.monitorPid, 'SIGKILL')
    // Whoever comes first kills it; the other finds nothing to kill, and nobody who could tell the code.
    const codes = [(await supervised.exited).code, (await adopted!.exited).code]
    expect(codes).toContain(137)
    for (const code of codes) expect([137, 255]).toContain(code)
  })

  it('reads an end again that could not be read when it was told', async () => {
    const options = await prepare(['sh', '-c', 'exit 7'])
    const supervised = await Supervised.create(options)
    workloads.own(supervised, options)
    mkdirSync(join(options.runDir, 'monitor.err')) // what cannot be read
    await supervised.start()
    await expect.poll(() => existsSync(`/proc/${supervised.monitorPid}`)).toBe(false)
    expect(await Promise.race([supervised.exited, sleep(200, 'nobody knows')])).toBe('nobody knows')
    rmdirSync(join(options.runDir, 'monitor.err'))
    expect((await supervised.exited).code).toBe(7)
  })

  it('finds an end that inotify does not tell, while the monitor stays for a slow client', async () => {
    const exitDir = join(fixture.directory, 'unwatched')
    const supervised = await create(['sh', '-c', 'head -c 250000 /dev/zero; exit 7'], { exitDir })
    const slow = await supervised.attach() // nobody reads it
    renameSync(exitDir, `${exitDir}.old`) // and the watch with it
    mkdirSync(exitDir)
    await supervised.start()
    expect((await supervised.exited).code).toBe(7)
    expect(existsSync(`/proc/${supervised.monitorPid}`)).toBe(true)
    slow.destroy()
  })

  it('leaves nothing of a monitor that it could not take note of', async () => {
    const options = await prepare(['sleep', '100'])
    const before = openDescriptors()
    const obstacle = join(options.runDir, 'supervised.tmp')
    mkdirSync(obstacle)
    await expect(Supervised.create(options)).rejects.toThrow(obstacle)
    await expect.poll(() => fixture.leaks()).toEqual([])
    await expect(Supervised.begin(options).create()).rejects.toThrow(obstacle)
    rmdirSync(obstacle)
    await expect.poll(() => fixture.leaks()).toEqual([])
    await expect.poll(openDescriptors).toBeLessThanOrEqual(before)
  })

  it('is destroyed while it is created and while it runs', async () => {
    await (await create(['sleep', '100'])).destroy()
    const running = await create(['sleep', '100'])
    await running.start()
    await running.destroy()
    expect((await running.exited).code).toBe(137)
  })

  it('is begun before there is anything to run, and waits', async () => {
    const options = await prepare(['sh', '-c', 'echo out; exit 7'])
    const config = join(options.runDir, 'config.json')
    const text = readFileSync(config, 'utf8')
    unlinkSync(config)
    const begun = Supervised.begin(options)
    await expect.poll(() => waiting(options.runDir)).toBe(true)
    writeFileSync(config, text)
    const supervised = await begun.create()
    workloads.own(supervised, options)
    await begun.callOff() // too late: of no effect
    const output = collect(await supervised.attach())
    await supervised.start()
    expect((await supervised.exited).code).toBe(7)
    expect(demultiplex(await output).stdout).toBe('out\n')
  })

  it.each(['at once', 'while it waits'])('leaves nothing of a start that is called off %s', async (when) => {
    const options = await prepare(['true'])
    const before = openDescriptors()
    const begun = Supervised.begin(options)
    if (when === 'while it waits') await expect.poll(() => waiting(options.runDir)).toBe(true)
    await begun.callOff()
    expect(readdirSync(options.runDir)).toEqual(['config.json'])
    await expect.poll(() => fixture.leaks()).toEqual([])
    await expect.poll(openDescriptors).toBeLessThanOrEqual(before)
  })

  it('ends when the daemon dies that has begun it, and the next one finds nothing to adopt', async () => {
    const options = await prepare(['true'])
    const script = `import { Supervised } from ${JSON.stringify(join(import.meta.dirname, '../../../src/oci/supervised.js'))}
      import { Runtime } from ${JSON.stringify(join(import.meta.dirname, '../../../src/oci/runtime.js'))}
      Supervised.begin({ ...${JSON.stringify(options)}, runtime: await Runtime.open('crun', ${JSON.stringify(fixture.runtimeRoot)}) })
      setInterval(() => {}, 1000)`
    const file = join(fixture.directory, 'begin.mts')
    writeFileSync(file, script)
    const daemon = spawn(process.execPath, ['--import', 'tsx', file], { stdio: 'inherit' })
    await expect.poll(() => waiting(options.runDir), { timeout: 20_000 }).toBe(true)
    daemon.kill('SIGKILL')
    expect(await Supervised.adopt(options)).toBeUndefined()
    await Supervised.removeLeftovers(options)
    expect(readdirSync(options.runDir)).toEqual(['config.json'])
    await expect.poll(() => fixture.leaks()).toEqual([])
  })

  it('gives the workload nothing of the environment that the runtime has', async () => {
    const supervised = await create(['sleep', '100'])
    await supervised.start()
    await expect.poll(() => readFileSync(`/proc/${supervised.pid}/environ`, 'utf8').split('\0').filter(Boolean)).toEqual(['PATH=/bin', 'TERM=xterm', 'HOME=/'])
  })

  it('leaks no descriptor', async () => {
    const cycle = async () => {
      const supervised = await Supervised.create(await prepare(['true']))
      const output = collect(await supervised.attach())
      await supervised.start()
      await supervised.exited
      await output
      await supervised.destroy()
    }
    await cycle()
    const before = openDescriptors()
    for (let i = 0; i < 5; i++) await cycle()
    expect(openDescriptors()).toBeLessThanOrEqual(before)
  })
})
