import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { native } from '../../../src/host/native.js'
import { cgroupOf } from '../../../src/oci/cgroups.js'
import type { FileJob } from '../../../src/sandbox/files.js'
import type { Sandbox, WorkloadSpec } from '../../../src/sandbox/types.js'
import type { VmDriver } from '../../../src/sandbox/vm/driver.js'
import { Lab, readFramed } from './lab.js'

// What `docker cp` is told when the machine that does its work is killed. What it does otherwise: test/behaviour/suites.

let lab: Lab
let driver: VmDriver
const made: { sandbox?: Sandbox; spec: WorkloadSpec }[] = []

beforeAll(async () => {
  lab = await Lab.make()
  driver = lab.driver()
})

afterEach(async () => {
  for (const { sandbox, spec } of made.splice(0)) {
    await sandbox?.destroy()
    await driver.removeState(spec)
  }
  expect(await lab.leftovers()).toEqual([])
})

afterAll(() => lab.remove())

/** Kills the QEMU of a machine. */
async function killQemu(id: string): Promise<void> {
  const pids = await (await cgroupOf(join(lab.cgroupParent, id))).pids()
  native.kill(pids.find((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('qemu'))!, 9)
}

const put = { op: 'put', path: '/home', noOverwrite: false, owner: '' } as const

/** A tar of one file. */
async function tarOf(name: string, text: string): Promise<Buffer> {
  const directory = await mkdtemp(join(lab.directory, 'tar-'))
  writeFileSync(join(directory, name), text)
  return execFileSync('tar', ['-C', directory, '-c', name])
}

/** Its machine is killed when it is ready for an archive, which never comes. What it says. */
async function cutOff(job: FileJob, id: string): Promise<string> {
  job.output.resume()
  await job.head
  await killQemu(id)
  return job.done.then(() => 'done', (error: unknown) => String(error))
}

it('QEMU of a running container killed in the middle: the container is not running', async () => {
  const spec = lab.spec(['sleep', '1000'])
  const sandbox = await driver.create(spec, {})
  made.push({ sandbox, spec })
  await sandbox.start()
  expect(await cutOff(await sandbox.files(put), spec.id)).toBe(`HullError: container ${spec.id} is not running`)
  expect((await sandbox.exited).code).toBe(137)
})

it('QEMU of the machine for the files of a container that does not run killed in the middle: it is said so, and the next job has another machine', async () => {
  const spec = lab.spec(['true'])
  made.push({ spec })
  const machine = `${spec.id.slice(0, 58)}-files`
  expect(await cutOff(await driver.files(spec, put), machine)).toBe('HullError: the virtual machine that worked on the files of the container ended before it was done')
  const stat = async () => {
    const job = await driver.files(spec, { op: 'stat', path: '/etc/passwd' })
    job.output.resume()
    await job.done
    return (await job.head)!.size
  }
  const size = await stat()
  expect(size).toBeGreaterThan(0)
  // Killed while it waits for a next job.
  await killQemu(machine)
  expect(await stat()).toBe(size)
})

it('what was copied into a container that does not run is there, whoever is killed then', async () => {
  const spec = lab.spec(['cat', '/home/copied'])
  const put = await driver.files(spec, { op: 'put', path: '/home', noOverwrite: false, owner: '' })
  put.output.resume()
  put.input.end(await tarOf('copied', 'whole\n'))
  await put.done
  await killQemu(`${spec.id.slice(0, 58)}-files`)
  const sandbox = await driver.create(spec, {})
  made.push({ sandbox, spec })
  const output = readFramed((await sandbox.attach()).duplex)
  await sandbox.start()
  expect((await sandbox.exited).code).toBe(0)
  expect((await output).stdout).toBe('whole\n')
})
