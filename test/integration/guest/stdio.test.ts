import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { T } from './frames.js'
import { Lab } from './machine.js'

const lab = new Lab()
beforeAll(() => lab.prepare())
afterAll(() => lab.remove())

const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex')

describe('the main process', () => {
  it('keeps stdout and stderr apart and ends with its code', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'echo out; echo err >&2; exit 7'] })
    expect(await vm.exited).toBe(7)
    expect(vm.stdout.toString()).toBe('out\n')
    expect(vm.stderr.toString()).toBe('err\n')
    expect(await vm.status()).toBe('code=7\noom=0\n')
  })

  it('reads stdin to its end', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'cat; echo end'], stdin: true })
    vm.process.stdin!.write('one\n')
    await vm.output('one\n')
    vm.process.stdin!.end('two\n')
    expect(await vm.exited).toBe(0)
    expect(vm.stdout.toString()).toBe('one\ntwo\nend\n')
  })

  it('has /dev/null as stdin without stdin=1', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'cat; readlink /proc/self/fd/0'] })
    expect(await vm.exited).toBe(0)
    expect(vm.stdout.toString()).toBe('/dev/null\n')
  })

  it('moves 8 MiB byte for byte to a reader that sleeps, while exec stays quick', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'seq 1 1300000 | head -c 8388608; echo done >&2; sleep 1'] })
    await vm.started()
    vm.process.stdout!.pause()
    await sleep(2000)
    expect(vm.stderr.toString()).toBe('') // the workload is held up, nothing is thrown away
    const before = performance.now()
    expect((await vm.exec(['echo', 'quick'])).out).toBe('quick\n')
    expect(performance.now() - before).toBeLessThan(3000)
    vm.process.stdout!.resume()
    expect(await vm.exited).toBe(0)
    let wanted = ''
    for (let i = 1; wanted.length < 8_388_608; i++) wanted += `${i}\n`
    expect(vm.stdout.length).toBe(8_388_608)
    expect(sha256(vm.stdout)).toBe(sha256(Buffer.from(wanted.slice(0, 8_388_608))))
    expect(vm.stderr.toString()).toBe('done\n')
  })

  it('takes 4 MiB of stdin byte for byte', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'sleep 1; sha256sum'], stdin: true })
    const data = Buffer.alloc(4 << 20)
    for (let i = 0; i < data.length; i++) data[i] = (i * 31) >> 3
    vm.process.stdin!.end(data)
    expect(await vm.exited).toBe(0)
    expect(vm.stdout.toString()).toBe(`${sha256(data)}  -\n`)
  })

  it('does not wait for daemons that hold its stdout', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'sleep 1000 & (setsid sleep 1000 &) ; echo bye; exit 3'] })
    expect(await vm.exited).toBe(3)
    expect(vm.stdout.toString()).toBe('bye\n')
  })

  it('gets the signals that come to hull-vmm', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'trap "echo term; exit 9" TERM; trap "echo usr1" USR1; echo up; while :; do sleep 0.1; done'] })
    await vm.output('up\n')
    vm.process.kill('SIGUSR1')
    await vm.output('usr1\n')
    vm.process.kill('SIGTERM')
    expect(await vm.exited).toBe(9)
    expect(vm.stdout.toString()).toBe('up\nusr1\nterm\n')
  })

  it('is not disturbed by signals during the boot', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'trap "exit 9" HUP; echo up; while :; do sleep 0.1; done'] })
    await sleep(300)
    vm.process.kill('SIGTERM') // comes to a PID 1 that has no handler for it: nothing happens, as in Docker
    await vm.output('up\n')
    vm.process.kill('SIGHUP')
    expect(await vm.exited).toBe(9)
  })

  it('ends with 128 + the signal that killed it', async () => {
    const vm = await lab.boot({ args: ['sleep', '1000'] })
    await vm.started()
    const client = await vm.client()
    client.send(T.SIGNAL, [['signal', 15]]) // PID 1 without a handler ignores it, as in Docker
    expect((await client.expect(T.REPLY)).payload.toString()).toBe('ok=1\0')
    await sleep(300)
    client.send(T.SIGNAL, [['signal', 9]])
    expect((await client.expect(T.REPLY)).payload.toString()).toBe('ok=1\0')
    expect(await vm.exited).toBe(137)
    expect(await vm.status()).toBe('code=137\noom=0\n')
  })

  it('goes on when nobody reads its output any more', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'echo up; sleep 1; seq 1 200000; exit 4'] })
    await vm.output('up\n')
    vm.process.stdout!.destroy()
    expect(await vm.exited).toBe(4)
  })

  it('has a terminal with tty=1: raw bytes, size, resize, Ctrl-C', async () => {
    const script = 'stty size; tty; ls -l /dev/console | cut -c1; trap "echo int" INT; trap "stty size" WINCH; echo up; while :; do sleep 0.1; done'
    const vm = await lab.boot({ args: ['sh', '-c', script], stdin: true, run: [['tty', 1], ['rows', 33], ['columns', 101]] })
    expect(await vm.output('up\r\n')).toBe('33 101\r\n/dev/pts/0\r\nc\r\nup\r\n')
    const client = await vm.client()
    client.send(T.RESIZE_MAIN, [['rows', 44], ['columns', 55]])
    expect((await client.expect(T.REPLY)).payload.toString()).toBe('ok=1\0')
    await vm.output('44 55\r\n')
    vm.process.stdin!.write('\x03')
    await vm.output('int\r\n')
    client.send(T.SIGNAL, [['signal', 9]])
    expect(await vm.exited).toBe(137)
    expect(vm.stderr.length).toBe(0)
  })

  it('loses nothing of a terminal at its end', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'seq 1 20000; echo last'], run: [['tty', 1]] })
    expect(await vm.exited).toBe(0)
    const lines = vm.stdout.toString().split('\r\n')
    expect(lines.length).toBe(20_002)
    expect(lines[19_999]).toBe('20000')
    expect(lines[20_000]).toBe('last')
  })
})
