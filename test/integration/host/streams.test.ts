import { spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { native } from '../../../src/host/native.js'
import { receiveTerminal, Terminal } from '../../../src/host/streams.js'
import { attachMonitor } from '../../../src/oci/monitor-client.js'
import { collect, Containers, demultiplex, descriptors, eventually, temporary, threads, type Container } from './support.js'

let containers: Containers
let directory: string
const made: Container[] = []
beforeAll(() => { containers = new Containers(); directory = temporary() })
afterEach(async () => { for (const container of made.splice(0)) await container.remove() })
afterAll(async () => { await containers.close(); rmSync(directory, { recursive: true }) })

async function create(...args: Parameters<Containers['create']>): Promise<Container> {
  const container = await containers.create(...args)
  made.push(container)
  return container
}

/** CPU ticks of a thread or process. */
const ticks = (path: string) => readFileSync(path, 'utf8').split(') ')[1]!.split(' ').slice(11, 13).map(Number).reduce((a, b) => a + b)

describe('the monitor\'s attach socket', () => {
  it('keeps the two streams apart, and ends when the container ends', async () => {
    const container = await create(['sh', '-c', 'echo out; echo err >&2; exit 7'])
    const stream = await attachMonitor(container.attach, { raw: false, input: true })
    const data = collect(stream)
    await container.start()
    expect(demultiplex(await data)).toEqual({ out: 'out\n', err: 'err\n' })
    expect(stream.destroyed).toBe(true)
  })

  it('passes end of input on and goes on reading', async () => {
    const container = await create(['sh', '-c', 'cat; sleep 0.3; echo after'])
    const stream = await attachMonitor(container.attach, { raw: false, input: true })
    const data = collect(stream)
    await container.start()
    stream.end('input')
    expect(demultiplex(await data).out).toBe('inputafter\n')
  })

  it('carries 20 MB through cat, byte for byte', async () => {
    const container = await create(['cat'])
    const stream = await attachMonitor(container.attach, { raw: true, input: true })
    const data = collect(stream)
    await container.start()
    const sent = Buffer.alloc(20e6)
    for (let i = 0; i + 4 <= sent.length; i += 4) sent.writeUInt32LE(i * 2654435761 % 2 ** 32, i)
    stream.end(sent)
    expect((await data).equals(sent)).toBe(true)
  })

  it('holds the container up while nobody reads, without burning CPU, and loses nothing', async () => {
    const container = await create(['sh', '-c', 'dd if=/dev/zero bs=64k count=200 2>/dev/null; echo end >&2'])
    const stream = await attachMonitor(container.attach, { raw: false, input: true })
    await container.start()
    await sleep(500)
    const before = process.cpuUsage()
    const monitor = ticks(`/proc/${container.monitorPid}/stat`)
    await sleep(1000)
    const spent = process.cpuUsage(before)
    expect(spent.user + spent.system).toBeLessThan(200_000)
    expect(ticks(`/proc/${container.monitorPid}/stat`) - monitor).toBeLessThan(10)
    const { out, err } = demultiplex(await collect(stream))
    expect([out.length, err]).toEqual([200 * 65536, 'end\n'])
  })

  it('delivers all output when input is left over that the container never read', async () => {
    const container = await create(['sh', '-c', 'sleep 0.5; echo bye'])
    const stream = await attachMonitor(container.attach, { raw: false, input: true })
    const data = collect(stream) // rejects on EPIPE or ECONNRESET
    await container.start()
    stream.write(Buffer.alloc(5e6))
    expect(demultiplex(await data).out).toBe('bye\n')
  })

  it('delivers what was written before our end went away', async () => {
    const container = await create(['sh', '-c', 'cat; echo "($?)"'])
    const watcher = await attachMonitor(container.attach, { raw: true, input: true })
    const data = collect(watcher)
    await container.start()
    const stream = await attachMonitor(container.attach, { raw: true, input: true })
    stream.write('last words', () => stream.destroy())
    expect((await data).toString()).toBe('last words(0)\n')
  })

  it('ends the container’s input when a client leaves in the middle of its output', async () => {
    for (let round = 0; round < 5; round++) {
      const container = await create(['sh', '-c', '(while :; do echo x; done) & cat > /dev/null; kill $!; wait; echo over'])
      const watcher = await attachMonitor(container.attach, { raw: true, input: true })
      let tail = ''
      watcher.on('data', (chunk: Buffer) => (tail = (tail + chunk.toString('latin1')).slice(-100)))
      const over = new Promise((resolve) => watcher.once('close', resolve))
      await container.start()
      const stream = await attachMonitor(container.attach, { raw: true, input: true })
      await new Promise((resolve) => stream.once('data', resolve))
      stream.destroy()
      await over
      expect(tail).toMatch(/over\n$/)
    }
  }, 30_000)

  it('lets go when our end is destroyed; the container and a second client go on', async () => {
    const container = await create(['sh', '-c', 'sleep 1; echo hi'], { stdin: false })
    const [fds, tasks] = [descriptors(), threads()]
    const first = await attachMonitor(container.attach, { raw: false, input: true })
    await container.start()
    first.destroy()
    await eventually(() => threads() <= tasks && descriptors() <= fds)
    const second = await attachMonitor(container.attach, { raw: false, input: true })
    expect(demultiplex(await collect(second)).out).toBe('hi\n')
  })

  it('ends when the monitor is killed', async () => {
    const container = await create(['sleep', '60'])
    const stream = await attachMonitor(container.attach, { raw: false, input: true })
    await container.start()
    const data = collect(stream)
    native.kill(container.monitorPid, 9)
    expect(await data).toHaveLength(0)
  })

  it('carries a terminal raw', async () => {
    const container = await create(['cat'], { tty: true })
    const stream = await attachMonitor(container.attach, { raw: true, input: true })
    const data = collect(stream)
    await container.start()
    stream.write('typed\r\x04')
    expect((await data).toString()).toBe('typed\r\ntyped\r\n')
  })

  it('rejects with the reason', async () => {
    await expect(attachMonitor(join(directory, 'none'), { raw: false, input: true })).rejects.toMatchObject({ code: 'ENOENT', syscall: 'connect' })
    await expect(attachMonitor(join(directory, 'no/dir'), { raw: false, input: true })).rejects.toMatchObject({ code: 'ENOENT', syscall: 'open' })
    await expect(attachMonitor(directory + '/', { raw: false, input: true })).rejects.toMatchObject({ code: 'EINVAL' })
    await expect(attachMonitor(join(directory, 'x'.repeat(200)), { raw: false, input: true })).rejects.toMatchObject({ code: 'ENAMETOOLONG' })
    writeFileSync(join(directory, 'file'), '')
    await expect(attachMonitor(join(directory, 'file'), { raw: false, input: true })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })
})

describe('a terminal from an OCI runtime', () => {
  it('reads, types, resizes and ends', async () => {
    // Longer than sun_path, with the name of a socket at its end.
    const deep = join(directory, 'd'.repeat(120))
    mkdirSync(deep, { recursive: true })
    const path = join(deep, 'console.sock')
    const { id, path: bundle } = containers.bundle(['sh', '-c', 'read x; stty size; read x; stty size; echo "[$x]"'], true)
    const pending = receiveTerminal(path, { timeoutMs: 10_000 })
    expect(existsSync(path)).toBe(true)
    // The runtime knows no trick for long paths: it gets a short one to the same directory.
    const link = join(directory, 'l')
    symlinkSync(deep, link)
    const running = containers.run('run', '--bundle', bundle, '--console-socket', join(link, 'console.sock'), id)
    const terminal = await pending
    expect(existsSync(path)).toBe(false)
    let shown = ''
    const closed = collect(terminal.stream)
    terminal.stream.on('data', (chunk: Buffer) => { shown += chunk.toString() })
    terminal.resize(24, 80)
    terminal.stream.write('go\r')
    await eventually(() => shown.endsWith('go\r\n24 80\r\n'))
    terminal.resize(40, 132)
    terminal.stream.write('hello\r')
    expect((await closed).toString()).toBe('go\r\n24 80\r\nhello\r\n40 132\r\n[hello]\r\n')
    terminal.close()
    terminal.close()
    terminal.resize(1, 1)
    expect(await running).toBe(0)
    await containers.run('delete', '--force', id)
  })

  it('hangs up when it is closed', async () => {
    const path = join(directory, 'hup.sock')
    const { id, path: bundle } = containers.bundle(['sh', '-c', 'cat; exit 5'], true)
    const pending = receiveTerminal(path, { timeoutMs: 10_000 })
    const running = containers.run('run', '--bundle', bundle, '--console-socket', path, id)
    const terminal = await pending
    terminal.close()
    expect(await running).toBe(5) // cat dies of SIGHUP or reads end of file; the shell is PID 1 of its namespace, and does not
    await containers.run('delete', '--force', id)
  })

  it('gives up in time, and leaves no socket', async () => {
    const path = join(directory, 'late.sock')
    await expect(receiveTerminal(path, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'ETIMEDOUT', syscall: 'accept' })
    expect(existsSync(path)).toBe(false)
  })

  it('can be aborted', async () => {
    const path = join(directory, 'abort.sock')
    const controller = new AbortController()
    const pending = receiveTerminal(path, { timeoutMs: 60_000, signal: controller.signal })
    controller.abort(new Error('the runtime failed'))
    await expect(pending).rejects.toThrow('the runtime failed')
    expect(existsSync(path)).toBe(false)
    await expect(receiveTerminal(path, { timeoutMs: 1, signal: controller.signal })).rejects.toThrow('the runtime failed')
  })

  it('refuses a path that is taken and a directory that is not there', async () => {
    writeFileSync(join(directory, 'taken'), 'mine')
    await expect(receiveTerminal(join(directory, 'taken'), { timeoutMs: 10 })).rejects.toMatchObject({ code: 'EADDRINUSE' })
    expect(readFileSync(join(directory, 'taken'), 'utf8')).toBe('mine')
    await expect(receiveTerminal(join(directory, 'no/x'), { timeoutMs: 10 })).rejects.toMatchObject({ code: 'ENOENT' })
  })

  // What a broken or hostile runtime could send. Python can pass descriptors; Node cannot.
  const send = (path: string, body: string) => spawn('python3', ['-c', `import socket,os,sys,time\ns=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n${body}`, path], { stdio: 'inherit' })
  it.each([
    ['no descriptor', 's.send(b"x")', 'EPROTO'],
    ['nothing', 's.close()', 'EPROTO'],
    ['two descriptors', 'a,b=os.openpty(); socket.send_fds(s,[b"x"],[a,b])', 'EPROTO'],
    ['forty descriptors', 'a,b=os.openpty(); socket.send_fds(s,[b"x"],[a]*40)', 'EPROTO'],
    ['a file', 'socket.send_fds(s,[b"x"],[os.open("/etc/hostname",0)])', 'ENOTTY'],
    ['the wrong end of a terminal', 'a,b=os.openpty(); socket.send_fds(s,[b"x"],[b])', 'ENOTTY'],
    ['a connection and silence', 'time.sleep(3)', 'ETIMEDOUT'],
  ])('refuses %s', async (name, body, code) => {
    const fds = descriptors()
    const path = join(directory, 'odd.sock')
    const pending = receiveTerminal(path, { timeoutMs: name.includes('silence') ? 1000 : 10_000 })
    const child = send(path, body)
    const exited = new Promise((resolve) => child.on('exit', resolve))
    await expect(pending).rejects.toMatchObject({ code })
    child.kill()
    await exited
    await eventually(() => descriptors() <= fds)
    expect(existsSync(path)).toBe(false)
  })

  it('does not take what is no terminal', () => {
    expect(() => native.bridgePty(-1)).toThrow(RangeError)
    expect(() => native.bridgePty(999_999)).toThrow(expect.objectContaining({ code: 'EBADF' }))
    expect(() => native.ttyResize(0, 70_000, 1)).toThrow(RangeError)
    expect(() => new Terminal(999_998)).toThrow()
  })

  it('types into a terminal that nobody reads without spinning, and lets go', async () => {
    const path = join(directory, 'deaf.sock')
    const [fds, tasks] = [descriptors(), threads()]
    const pending = native.receiveConsole(path, 10_000)
    const child = send(path, 'import tty\na,b=os.openpty(); tty.setraw(b); socket.send_fds(s,[b"x"],[a]); time.sleep(30)')
    const master = await pending
    const terminal = new Terminal(master)
    terminal.stream.write(Buffer.alloc(1e6, 'x'))
    await sleep(200)
    const before = process.cpuUsage()
    await sleep(500)
    const spent = process.cpuUsage(before)
    expect(spent.user + spent.system).toBeLessThan(150_000)
    terminal.close()
    expect(() => closeSync(master)).toThrow()
    child.kill()
    await new Promise((resolve) => child.on('exit', resolve))
    await eventually(() => threads() <= tasks && descriptors() <= fds)
  })
})
