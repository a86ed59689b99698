import { spawn } from 'node:child_process'
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { createVeth, deleteLink } from '../../../src/host/link.js'
import { configureInterface, createNetns, deleteNetns } from '../../../src/host/netns.js'
import { receiveTerminal } from '../../../src/host/streams.js'
import { attachMonitor } from '../../../src/oci/monitor-client.js'
import { Containers, descriptors, eventually, temporary, threads } from './support.js'

const CYCLES = 200

/** Runs `cycle` a few times to warm up, then `CYCLES` times, and compares descriptors and threads. */
async function leaks(cycle: (index: number) => Promise<void>): Promise<void> {
  for (let i = 0; i < 5; i++) await cycle(i)
  await eventually(() => readdirSync('/proc/self/task').length > 0)
  const before = [descriptors(), threads()] as const
  for (let i = 0; i < CYCLES; i++) await cycle(5 + i)
  await eventually(() => descriptors() <= before[0] && threads() <= before[1])
}

it('attach and detach', async () => {
  const containers = new Containers()
  const container = await containers.create(['sh', '-c', 'while :; do echo x; sleep 0.01; done'], { stdin: false })
  await container.start()
  const theirs = () => readdirSync(`/proc/${container.monitorPid}/fd`).length
  const before = theirs()
  await leaks(async (index) => {
    const stream = await attachMonitor(container.attach, { raw: index % 2 === 0, input: true })
    if (index % 3 === 0) await new Promise((resolve) => stream.once('data', resolve))
    const closed = new Promise((resolve) => stream.once('close', resolve))
    stream.destroy()
    await closed
  })
  await eventually(() => theirs() <= before)
  // Twenty at once, which end with the container.
  const many = await Promise.all(Array.from({ length: 20 }, () => attachMonitor(container.attach, { raw: true, input: true })))
  const ended = Promise.all(many.map((stream) => new Promise((resolve) => stream.on('close', resolve).resume())))
  const [fds, tasks] = [descriptors() - 20, threads()]
  await container.remove()
  await ended
  await eventually(() => descriptors() <= fds && threads() <= tasks)
  await containers.close()
})

it('terminals', async () => {
  const base = temporary()
  const path = join(base, 'console')
  const script = `
import os, socket, sys, time
while True:
    s = socket.socket(socket.AF_UNIX)
    try: s.connect(sys.argv[1])
    except OSError: time.sleep(0.001); continue
    master, slave = os.openpty()
    os.write(slave, b'prompt')
    try: socket.send_fds(s, [b'/dev/pts/x'], [master])
    except OSError: pass # it was the listener of the round before, about to close
    s.close(); os.close(master); time.sleep(0.001); os.close(slave)
`
  const child = spawn('python3', ['-c', script, path], { stdio: 'inherit' })
  await leaks(async (index) => {
    const terminal = await receiveTerminal(path, { timeoutMs: 30_000 })
    const closed = new Promise((resolve) => terminal.stream.once('close', resolve))
    terminal.resize(24, 80)
    if (index % 2) terminal.stream.resume() // ends by itself: the other side is closed
    else terminal.close()
    await closed
    terminal.close()
  })
  child.kill('SIGKILL')
  await new Promise((resolve) => child.on('exit', resolve))
  rmSync(base, { recursive: true })
})

it('failed calls', async () => {
  const base = temporary()
  await leaks(async () => {
    await expect(attachMonitor(join(base, 'none'), { raw: true, input: true })).rejects.toThrow()
    await expect(receiveTerminal(join(base, 'late'), { timeoutMs: 0 })).rejects.toThrow()
    await expect(createNetns(join(base, 'none/none'))).rejects.toThrow()
    await expect(configureInterface('/etc/hostname', { name: 'x', address: '10.0.0.1', prefixLength: 8 })).rejects.toThrow()
  })
  rmSync(base, { recursive: true })
})

it('network namespaces', async () => {
  const base = temporary()
  const name = `hnl${process.pid % 100000}`
  await leaks(async (index) => {
    const path = join(base, `ns${index}`)
    await createNetns(path)
    await createVeth({ name, peer: 'eth0', netns: path })
    await configureInterface(path, { name: 'eth0', address: '10.211.6.2', prefixLength: 24, gateway: '10.211.6.1' })
    deleteLink(name)
    deleteNetns(path)
  })
  expect(readdirSync(base)).toEqual([])
  rmSync(base, { recursive: true })
})
