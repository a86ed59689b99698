import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { encode, parse, T, text, VERSION } from './frames.js'
import { Lab, type Machine } from './machine.js'

const lab = new Lab()
let counter = 0
beforeAll(() => lab.prepare())
afterAll(() => lab.remove())

async function qemuPid(vm: Machine): Promise<number> {
  const client = await vm.client()
  const status = parse(await client.query('status'))
  client.close()
  return Number(status['pid'])
}

describe('when things die', () => {
  it('QEMU: 137, and the status says how', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'echo up; sleep 1000'] })
    await vm.output('up\n')
    process.kill(await qemuPid(vm), 'SIGKILL')
    expect(await vm.exited).toBe(137)
    expect(await vm.status()).toBe('code=137\noom=0\nmessage=the virtual machine ended: QEMU was killed by signal 9\n')
    expect(existsSync(join(vm.dir, 'ctl.sock'))).toBe(false)
  })

  it('QEMU before the workload runs: 125', async () => {
    const vm = await lab.boot({ args: ['true'] })
    await sleep(200)
    process.kill(await qemuPid(vm), 'SIGKILL')
    expect(await vm.exited).toBe(125)
    expect(await vm.status()).toContain('message=the virtual machine ended before the workload started: QEMU was killed by signal 9')
  })

  it('the supervisor by kill -9: QEMU goes with it', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'echo up; sleep 1000'] })
    await vm.output('up\n')
    const pid = await qemuPid(vm)
    vm.process.kill('SIGKILL')
    await vm.exited
    // its new parent may not have waited for it yet: a zombie is dead
    const alive = () => existsSync(`/proc/${pid}/stat`) && !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
    for (let i = 0; i < 100 && alive(); i++) await sleep(10)
    expect(alive()).toBe(false)
  })

  it('the guest kernel by panic: 137', async () => {
    const vm = await lab.boot({ args: ['sh', '-c', 'echo up; echo c > /proc/sysrq-trigger; sleep 1000'],
      configFrames: encode(T.CONFIG, text([['root', '/dev/vda'], ['disk', '/dev/vdb'], ['privileged', 1]])) })
    expect(await vm.exited).toBe(137)
    expect(await vm.status()).toContain('message=the virtual machine ended: QEMU ended with code 0')
  })

  it('a QEMU that cannot start: 125, with its words in the status and in qemu.log, none on stderr', async () => {
    const vm = await lab.boot({ args: ['true'], qemu: ['-device', 'no-such-device'] })
    expect(await vm.exited).toBe(125)
    expect(await vm.status()).toContain("'no-such-device' is not a valid device model name")
    expect(readFileSync(join(vm.dir, 'qemu.log'), 'utf8')).toContain('no-such-device')
    expect(vm.stderr.toString()).toBe('')
  })

  it('a program that is not there: 125', async () => {
    const vm = await lab.boot({ args: ['true'], command: ['/no/qemu'] })
    expect(await vm.exited).toBe(125)
    expect(await vm.status()).toContain('/no/qemu: No such file or directory')
  })

  it('a machine that never answers: 125 after the boot timeout', async () => {
    const vm = await lab.boot({ args: ['true'], command: ['sleep', '1000'], bootTimeout: 1 })
    const client = await vm.client()
    client.send(T.WAIT_START)
    expect(parse((await client.expect(T.FAILED)).payload)).toEqual({ code: '125', message: 'the guest did not answer in time' })
    expect(await vm.exited).toBe(125)
  })

  it('QEMU that talks without end fills no disk', async () => {
    const vm = await lab.boot({ args: ['true'], command: ['sh', '-c', 'head -c 2000000 /dev/zero | tr "\\0" x; echo; echo last words; exit 1'] })
    expect(await vm.exited).toBe(125)
    expect(await vm.status()).toContain('QEMU ended with code 1: last words')
    expect(readFileSync(join(vm.dir, 'qemu.log')).length).toBe(262_144)
  })

  it.each([
    ['an empty file', Buffer.alloc(0)],
    ['half a frame', encode(T.CONFIG, Buffer.from('a=b\0')).subarray(0, 14)],
    ['another type', encode(T.RUN, Buffer.from('a=b\0'))],
    ['another stream', encode(T.CONFIG, Buffer.from('a=b\0'), 1)],
    ['text without its end', encode(T.CONFIG, Buffer.from('a=b'))],
    ['text without a key', encode(T.CONFIG, Buffer.from('=b\0'))],
    ['two texts', Buffer.concat([encode(T.CONFIG, Buffer.from('a=b\0')), encode(T.CONFIG, Buffer.from('a=b\0'))])],
    ['more than a MiB', encode(T.CONFIG, Buffer.concat([Buffer.from('a='), Buffer.alloc(1 << 20, 120), Buffer.from('\0')]))],
  ])('config.frames with %s: 125 at once', async (_name, configFrames) => {
    const vm = await lab.boot({ args: ['true'], configFrames, disk: '/nowhere' })
    expect(await vm.exited).toBe(125)
    expect(vm.stderr.toString()).toMatch(/^hull-vmm: config.frames: /)
    expect(await vm.status()).toMatch(/^code=125\noom=0\nmessage=config.frames: /)
  })
})

it('a machine that does not confirm its seed gets no workload', async () => {
  const bytes = join(lab.dir, 'hello')
  writeFileSync(bytes, encode(T.HELLO, text([['proto', VERSION]])))
  const vm = await lab.boot({ args: ['true'], command: ['bash', '-c', 'cat "$0" >&20; exec cat <&20 > "$0.got"', bytes], bootTimeout: 1 })
  expect(await vm.exited).toBe(125)
  expect(await vm.status()).toContain('message=the guest did not answer in time\n')
  const got = readFileSync(`${bytes}.got`)
  expect([got.readUInt32LE(0), got[4], got.length]).toEqual([76, T.SEED, 12 + 76]) // and not one byte of CONFIG
})

/** What a machine that is made ahead hears, frame by frame: its guest is a script that says what it is given, each when something has come. */
describe('a machine that waits', () => {
  const rehearseFrames = encode(T.REHEARSE, text([['arg', 'x']]))
  const hello = encode(T.HELLO, text([['proto', VERSION]]))

  /** Says the next of `says` after each frame that it gets. */
  async function guest(says: Buffer[], bootTimeout = 5): Promise<{ vm: Machine; got: string }> {
    const bytes = join(lab.dir, `says-${counter++}`)
    says.forEach((frame, index) => writeFileSync(`${bytes}.${index}`, frame))
    const script = 'exec <&20; n=0; while [ -e "$0.$n" ]; do cat "$0.$n" >&20; n=$((n+1)); head -c 12 > "$0.head" || exit; [ -s "$0.head" ] || exit; cat "$0.head" >> "$0.got"; head -c $(od -An -tu4 -N4 "$0.head") >> "$0.got"; done; exec cat >> "$0.got"'
    const vm = await lab.boot({ args: ['true'], command: ['bash', '-c', script, bytes], ahead: rehearseFrames, bootTimeout })
    return { vm, got: `${bytes}.got` }
  }
  const types = (path: string) => {
    const found: number[] = []
    for (let bytes = readFileSync(path); bytes.length >= 12; bytes = bytes.subarray(12 + bytes.readUInt32LE(0))) found.push(bytes[4]!)
    return found
  }
  const until = async (what: () => boolean) => {
    for (let n = 0; n < 200 && !what(); n++) await sleep(25)
    expect(what()).toBe(true)
  }

  it('has heard nothing of a workload, is in no hurry, and gets one when it is claimed and has confirmed another seed', async () => {
    const { vm, got } = await guest([hello, encode(T.SEEDED), encode(T.REHEARSED), encode(T.SEEDED), encode(T.READY), encode(T.STARTED, text([['pid', 2]]), 1)], 1)
    await until(() => existsSync(got) && types(got).length === 2)
    await sleep(1500) // longer than a boot may take
    expect(types(got)).toEqual([T.SEED, T.REHEARSE])
    const client = await vm.client()
    expect(parse(await client.query('status'))['state']).toBe('waiting')
    vm.putFrames()
    client.send(T.CLAIM)
    await client.expect(T.STARTED)
    expect(types(got).slice(0, 5)).toEqual([T.SEED, T.REHEARSE, T.SEED, T.CONFIG, T.RUN])
    const bytes = readFileSync(got)
    expect(bytes.subarray(12 + 12, 12 + 76)).not.toEqual(bytes.subarray(12 + 76 + rehearseFrames.length + 12 + 12, 12 + 76 + rehearseFrames.length + 12 + 76))
    const second = await vm.client()
    second.send(T.CLAIM)
    expect(parse((await second.expect(T.FAILED)).payload)).toEqual({ code: '125', message: 'not a machine that waits for a workload' })
    vm.kill()
  })

  it('gets no workload when it does not confirm the second seed', async () => {
    const { vm, got } = await guest([hello, encode(T.SEEDED), encode(T.REHEARSED), encode(T.READY)])
    const client = await vm.client()
    vm.putFrames()
    client.send(T.CLAIM) // before it waits: it is claimed when it does
    expect(parse((await client.expect(T.FAILED)).payload)['message']).toContain('a frame out of order')
    expect(await vm.exited).toBe(125)
    expect(types(got)).toEqual([T.SEED, T.REHEARSE, T.SEED])
  })

  it.each([
    ['does not rehearse in time', [hello, encode(T.SEEDED)], 'the guest did not answer in time'],
    ['fails at its rehearsal', [hello, encode(T.SEEDED), encode(T.FAILED, text([['code', 125], ['message', 'rehearsal: no']]))], 'rehearsal: no'],
    ['says READY for it', [hello, encode(T.SEEDED), encode(T.READY)], 'protocol error of the guest: a frame out of order'],
    ['says that it has rehearsed before it has its seed', [hello, encode(T.REHEARSED)], 'protocol error of the guest: a frame out of order'],
  ])('is none: it %s', async (_name, says, message) => {
    const { vm } = await guest(says, 1)
    expect(await vm.exited).toBe(125)
    expect(await vm.status()).toContain(`message=${message}`)
  })

  it('claimed without a workload is over', async () => {
    const { vm } = await guest([hello, encode(T.SEEDED), encode(T.REHEARSED)])
    const client = await vm.client()
    client.send(T.CLAIM)
    expect(parse((await client.expect(T.FAILED)).payload)['message']).toMatch(/^config.frames: /)
    expect(await vm.exited).toBe(125)
  })

  it('is not what any other machine is: CLAIM is refused', async () => {
    const vm = await lab.boot({ args: ['true'], command: ['sleep', '1000'] })
    const client = await vm.client()
    client.send(T.CLAIM)
    expect(parse((await client.expect(T.FAILED)).payload)['code']).toBe('125')
    vm.kill()
  })
})

/** A guest in the place of QEMU: hostile bytes on descriptor 20. */
describe('a guest that breaks the protocol', () => {
  const hello = encode(T.HELLO, text([['proto', VERSION]]))
  const seeded = encode(T.SEEDED, text([['kernel', 'x\x1b[31m']]))
  const ready = encode(T.READY)
  const started = encode(T.STARTED, text([['pid', 2]]), 1)
  const up = [hello, seeded, ready, started]

  it.each([
    ['a length beyond the limit', [Buffer.from([1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0])], 'a malformed frame'],
    ['text without its end', [encode(T.HELLO, Buffer.from('proto=2'))], 'a malformed frame'],
    ['READY before HELLO', [ready], 'a frame out of order'],
    ['another version', [encode(T.HELLO, text([['proto', VERSION + 1]]))], 'another protocol version'],
    ['READY without SEEDED', [hello, ready], 'a frame out of order'],
    ['SEEDED before HELLO', [seeded], 'a frame out of order'],
    ['EXIT before STARTED', [hello, seeded, ready, encode(T.EXIT, text([['code', 0]]), 1)], 'a frame out of order'],
    ['STDOUT before STARTED', [hello, seeded, ready, encode(T.STDOUT, Buffer.from('x'), 1)], 'a frame out of order'],
    ['a daemon frame', [...up, encode(T.EXEC, Buffer.alloc(0), 1)], 'a frame out of order'],
    ['a stream that was never opened', [...up, encode(T.STDOUT, Buffer.from('x'), 7)], 'a frame for a stream that was never opened'],
    ['output beyond its window', [...up, ...Array.from({ length: 20 }, () => encode(T.STDOUT, Buffer.alloc(65_536), 1))], 'output beyond its window'],
  ] as [string, Buffer[], string][])('%s', async (_name, frames, message) => {
    const bytes = join(lab.dir, 'bytes')
    writeFileSync(bytes, Buffer.concat(frames))
    const vm = await lab.boot({ args: ['true'], command: ['bash', '-c', 'cat "$0" >&20; exec sleep 5', bytes] })
    vm.process.stdout!.pause() // nobody reads: the window stays closed
    const code = await Promise.race([vm.exited, sleep(1500).then(() => { vm.process.stdout!.resume(); return vm.exited })])
    expect([125, 137]).toContain(code)
    expect(await vm.status()).toContain(`message=protocol error of the guest: ${message}\n`)
  })
})
