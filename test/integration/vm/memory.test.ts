import { mkdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { childrenOf } from '../../../src/host/process.js'
import type { Sandbox } from '../../../src/sandbox/types.js'
import type { VmDriver } from '../../../src/sandbox/vm/driver.js'
import { sleep, until } from '../../lib/daemon.js'
import { Lab, readFramed } from './lab.js'

let lab: Lab
let driver: VmDriver

beforeAll(async () => {
  lab = await Lab.make()
  driver = lab.driver()
  const spec = lab.spec(['true'])
  const sandbox = await driver.create(spec, {}) // asks for the template
  await sandbox.start()
  await sandbox.exited
  await sandbox.destroy()
  await driver.removeState(spec)
  await driver.templatesIdle()
}, 120_000)

afterAll(async () => {
  expect(await lab.leftovers()).toEqual([])
  await lab.remove()
})

/** What QEMU has of the host's memory, MiB (proc(5), smaps_rollup: Pss). */
async function taken(sandbox: Sandbox): Promise<number> {
  const text = await readFile(`/proc/${(await childrenOf(sandbox.pid))[0]!}/smaps_rollup`, 'utf8')
  return Number(/^Pss:\s+(\d+)/m.exec(text)![1]) / 1024
}

/** MiB that the guest takes and gives back at once. */
const BLOCK = 64

it.each([
  ['boots', 'boot', false], ['is a clone', 'template', false], ['is a clone and has mounts', 'template', true],
])('a machine that %s returns to the host what its guest has freed', async (_, start, mounted) => {
  const source = join(lab.directory, 'source')
  mkdirSync(source, { recursive: true })
  const spec = lab.spec(['sleep', '1000'], { annotations: { 'org.hull.vm.start': start }, ...(mounted ? { mounts: [{ type: 'bind', source, target: '/h', readOnly: false, options: [] }] } : {}) })
  const sandbox = await driver.create(spec, {})
  try {
    await sandbox.start()
    expect((JSON.parse(await readFile(join(spec.runDir, 'vm.json'), 'utf8')) as { start?: string }).start ?? 'boot').toBe(start)
    const run = async (script: string) => readFramed((await sandbox.exec(lab.process(['sh', '-c', script]), { stdin: false, detach: false })).duplex)
    await run('mkfifo /go')
    await sleep(6000) // what a boot has used and freed, in huge pages, is reported as well
    const before = await taken(sandbox)
    // dd keeps a buffer of that size for as long as nobody reads what it writes.
    const said = run(`dd if=/dev/zero bs=${BLOCK}M count=1 2> /dev/null | sh -c 'read -r x < /go; cat > /dev/null'; echo freed`)
    const full = await until('the guest has taken it', async () => {
      const now = await taken(sandbox)
      return now > before + BLOCK * 0.7 && now
    }, 30_000)
    await run('echo now > /go')
    expect((await said).stdout).toBe('freed\n')
    await until('much of it is the host’s again', async () => (await taken(sandbox)) < full - BLOCK * 0.4, 30_000)
    expect(await readFile(join(spec.runDir, 'vm/qemu.log'), 'utf8')).toBe('')
  } finally {
    await sandbox.destroy()
    await driver.removeState(spec)
  }
}, 120_000)
