import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, copyFileSync, cpSync, existsSync, fstatSync, ftruncateSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, utimesSync, writeFileSync, writeSync } from 'node:fs'
import { readdir, readFile, truncate } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { runOk } from '../../../src/base/run.js'
import { childrenOf } from '../../../src/host/process.js'
import { ownCopy, sealedCopy } from '../../../src/host/memory.js'
import type { Sandbox, WorkloadSpec } from '../../../src/sandbox/types.js'
import type { VmDriver } from '../../../src/sandbox/vm/driver.js'
import { IMAGE_SLOTS } from '../../../src/sandbox/vm/qemu.js'
import { TEMPLATE_UID } from '../../../src/sandbox/vm/uids.js'
import { until } from '../../lib/daemon.js'
import { Lab, readFramed } from './lab.js'

// docs/decisions/0013-templates.md names these tests.

/** How many clones are compared here; test/behaviour/clones.vm.test.ts compares many that start at once. */
const clones = 3

let lab: Lab
let driver: VmDriver
const made: { sandbox: Sandbox; spec: WorkloadSpec }[] = []

beforeAll(async () => {
  lab = await Lab.make()
  driver = lab.driver()
})

afterEach(async () => {
  for (const { sandbox, spec } of made.splice(0)) {
    await sandbox.destroy()
    await driver.removeState(spec)
  }
  expect(await lab.leftovers()).toEqual([])
})

afterAll(() => lab.remove())

async function create(args: string[], more: Partial<WorkloadSpec> = {}): Promise<{ sandbox: Sandbox; spec: WorkloadSpec }> {
  const spec = lab.spec(args, more)
  const sandbox = await driver.create(spec, {})
  made.push({ sandbox, spec })
  return { sandbox, spec }
}

/** What a workload printed, and how its machine came to life. */
async function said(args: string[], more: Partial<WorkloadSpec> = {}): Promise<{ out: string; start: string | undefined }> {
  const { sandbox, spec } = await create(args, more)
  const output = readFramed((await sandbox.attach()).duplex)
  await sandbox.start()
  const start = startOf(spec)
  expect((await sandbox.exited).code).toBe(0)
  return { out: (await output).stdout, start }
}

const startOf = (spec: WorkloadSpec) => (JSON.parse(readFileSync(join(spec.runDir, 'vm.json'), 'utf8')) as { start?: string }).start
const templates = () => join(lab.directory, 'data/vm/templates')
const theTemplate = () => {
  const names = readdirSync(templates())
  expect(names).toHaveLength(1)
  return join(templates(), names[0]!)
}
const hashOf = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex')
const identityOf = ['sh', '-c', 'cat /proc/sys/kernel/random/boot_id; od -An -N16 -tx1 /dev/urandom; date +%s']

it('the first machine of a shape boots and has a template made; the next is its clone', async () => {
  expect((await said(['true'])).start).toBeUndefined()
  // As on a busy host: a kernel that measured its own clock then would have it wrong, and all its clones with it (`time in a clone is the host’s`).
  const busy = Array.from({ length: availableParallelism() }, () => spawn('nice', ['-n', '5', 'sh', '-c', 'while :; do :; done'])) // against the builder's 10: a quarter of a processor is left
  await driver.templatesIdle()
  for (const child of busy) child.kill('SIGKILL')
  expect((await readdir(theTemplate())).sort()).toEqual(['disk', 'memory', 'stamp.json', 'state'])
  const { sandbox, spec } = await create(['sleep', '1000'])
  await sandbox.start()
  expect(startOf(spec)).toBe('template')
  const rows = (await sandbox.explain()).flatMap((facts) => facts.rows)
  expect(rows.find(([name]) => name === 'start')?.[1]).toMatch(/^from a memory template/)
})

it('clones are different machines: random numbers, boot id; the clock is the host’s', async () => {
  const seen: string[][] = []
  const before = hashOf(join(theTemplate(), 'memory'))
  for (let n = 0; n < clones; n++) {
    const { out, start } = await said(identityOf)
    expect(start).toBe('template')
    const [bootId, random, now] = out.split('\n')
    expect(Math.abs(Number(now) - Date.now() / 1000)).toBeLessThan(5)
    seen.push([bootId!, random!.trim()])
  }
  expect(new Set(seen.map(([bootId]) => bootId)).size).toBe(clones)
  expect(new Set(seen.map(([, random]) => random)).size).toBe(clones)
  expect(seen.map(([bootId]) => bootId)).not.toContain(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim())
  expect(hashOf(join(theTemplate(), 'memory'))).toBe(before)
})

it('time in a clone is the host’s: it goes as fast', async () => {
  const { sandbox, spec } = await create(['sleep', '1000'])
  await sandbox.start()
  expect(startOf(spec)).toBe('template')
  const uptime = async () => {
    const session = await sandbox.exec(lab.process(['cat', '/proc/uptime']), { stdin: false, detach: false })
    return { guest: Number((await readFramed(session.duplex)).stdout.split(' ')[0]), host: performance.now() / 1000 }
  }
  const first = await uptime()
  await new Promise((resolve) => setTimeout(resolve, 4000))
  const second = await uptime()
  expect((second.guest - first.guest) / (second.host - first.host)).toBeCloseTo(1, 0.7) // ± 0.1
})

it('clones that run at the same time share nothing that they write', async () => {
  const two = await Promise.all([1, 2].map((n) => create(['sh', '-c', `echo ${n} > /own; dd if=/dev/urandom of=/dev/shm/fill bs=1M count=20 2>/dev/null; sha256sum /dev/shm/fill; cat /own; sleep 1000`])))
  await Promise.all(two.map(({ sandbox }) => sandbox.start()))
  const outputs = await Promise.all(two.map(async ({ sandbox }) => {
    const session = await sandbox.exec(lab.process(['sh', '-c', 'while ! [ -s /dev/shm/fill ]; do sleep 0.1; done; sleep 1; sha256sum /dev/shm/fill; cat /own']), { stdin: false, detach: false })
    return (await readFramed(session.duplex)).stdout
  }))
  expect(new Set(outputs.map((text) => text.split(' ')[0])).size).toBe(2)
  expect(outputs.map((text) => text.trim().split('\n').at(-1))).toEqual(['1', '2'])
})

it('a clone’s disk is its own and in order, and the machine that has it next is not a clone with a new one', async () => {
  const first = await create(['sh', '-c', 'stat -c "%a %u:%g" /; echo kept > /kept'])
  const output = readFramed((await first.sandbox.attach()).duplex)
  await first.sandbox.start()
  expect(startOf(first.spec)).toBe('template')
  expect((await first.sandbox.exited).code).toBe(0)
  expect((await output).stdout).toBe('755 0:0\n')
  await first.sandbox.destroy()
  await runOk('e2fsck', ['-fn', join(first.spec.stateDir, 'disk.img')]) // 0: nothing to repair
  const again = await driver.create(first.spec, {})
  const kept = readFramed((await again.attach()).duplex)
  await again.start()
  expect(startOf(first.spec)).toBeUndefined() // there is no template of this shape yet
  await again.exited
  await again.destroy()
  expect((await kept).stdout).toBe('755 0:0\n')
  await driver.templatesIdle()
  expect(readdirSync(templates())).toHaveLength(2)
  const third = await driver.create({ ...first.spec, process: lab.process(['cat', '/kept']) }, {})
  const read = readFramed((await third.attach()).duplex)
  await third.start()
  expect(startOf(first.spec)).toBe('template')
  await third.exited
  await third.destroy()
  expect((await read).stdout).toBe('kept\n')
  const [withNew] = readdirSync(templates()).filter((name) => existsSync(join(templates(), name, 'disk')))
  for (const name of readdirSync(templates())) if (name !== withNew) rmSync(join(templates(), name), { recursive: true }) // the other tests know of one
})

it('a VMM that is taken over cannot write to the template: neither by its descriptor nor by /proc', async () => {
  const { sandbox, spec } = await create(['sleep', '1000'])
  await sandbox.start()
  expect(startOf(spec)).toBe('template')
  const supervisor = sandbox.pid
  const qemu = (await childrenOf(supervisor))[0]!
  const links = readdirSync(`/proc/${qemu}/fd`).map((fd) => `/proc/${qemu}/fd/${fd}`).filter((path) => readlinkSync(path).startsWith('/memfd:hull-template'))
  expect(links.length).toBeGreaterThan(0)
  for (const path of links) {
    const fd = openSync(path, 'r+') // we may: we are root. The seals stand above that.
    try {
      expect(() => writeSync(fd, 'x', 0)).toThrow(/EPERM/)
    } finally {
      closeSync(fd)
    }
    expect(() => truncateSync(path, 0)).toThrow(/EPERM/)
  }
  // No path leads from the jail to the files on disk.
  expect(readFileSync(`/proc/${qemu}/mountinfo`, 'utf8')).not.toContain('templates')
})

it.each([
  ['a changed state', (directory: string) => writeFileSync(join(directory, 'state'), 'x', { flag: 'a' })],
  ['a changed disk', (directory: string) => writeFileSync(join(directory, 'disk'), 'x', { flag: 'r+' })],
  ['a cut memory', (directory: string) => truncateSync(join(directory, 'memory'), 4096)],
  ['another stamp', (directory: string) => writeFileSync(join(directory, 'stamp.json'), JSON.stringify({ ...(JSON.parse(readFileSync(join(directory, 'stamp.json'), 'utf8')) as object), key: 'x' }))],
  ['no stamp', (directory: string) => writeFileSync(join(directory, 'stamp.json'), '{')],
])('%s: the template is refused, and the machine starts all the same', async (_name, damage) => {
  const good = join(lab.directory, 'good')
  const template = theTemplate()
  cpSync(template, good, { recursive: true })
  damage(template)
  const before = driver
  driver = lab.driver() // the next daemon
  try {
    expect((await said(['true'])).start).toBeUndefined()
  } finally {
    await driver.endMaintenance() // it would be made again, and may have been
    await before.endMaintenance()
    rmSync(template, { recursive: true, force: true })
    renameSync(good, template)
    driver = lab.driver()
  }
})

it('a template that was refused is made again', async () => {
  writeFileSync(join(theTemplate(), 'state'), 'x', { flag: 'a' })
  await driver.endMaintenance()
  driver = lab.driver()
  expect((await said(['true'])).start).toBeUndefined()
  await driver.templatesIdle()
  expect((await said(['true'])).start).toBe('template')
})

it('a template that does not load fails that start in words, leaves nothing, and is not used again', async () => {
  const state = join(theTemplate(), 'state')
  // As if QEMU itself did not like it: the stamp agrees with the damage.
  const bytes = readFileSync(state)
  bytes.fill(0xff, 64, 4096)
  writeFileSync(state, bytes)
  const stamp = join(theTemplate(), 'stamp.json')
  writeFileSync(stamp, JSON.stringify({ ...(JSON.parse(readFileSync(stamp, 'utf8')) as object), stateSha256: createHash('sha256').update(bytes).digest('hex') }))
  await driver.endMaintenance()
  driver = lab.driver()
  const { sandbox } = await create(['true'])
  await expect(sandbox.start()).rejects.toThrow(/hull-vm create failed/)
  expect(readdirSync(templates())).toEqual([])
  expect((await said(['true'])).start).toBeUndefined()
})

it('the QEMU that makes a template sits behind walls: no capability, a uid of its own, nothing of the host but the template\'s own files', async () => {
  driver = lab.driver()
  await said(['true'], { resources: { ...lab.spec([]).resources, memory: 220 << 20 } }) // a shape that there is no template of
  const qemu = await until('QEMU runs behind its filter', async () => {
    for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
      const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0')
      const filtered = (await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')).includes('\nSeccomp:\t2\n')
      if (words[0] === '/qemu-system-x86_64' && words.some((word) => word.includes('mem-path=/vm/memory')) && filtered) return pid
    }
    return undefined
  })
  const status = readFileSync(`/proc/${qemu}/status`, 'utf8')
  const field = (name: string) => new RegExp(`^${name}:\\t(.*)$`, 'm').exec(status)?.[1]
  expect(field('Uid')).toBe(Array.from({ length: 4 }, () => TEMPLATE_UID).join('\t'))
  expect(field('Gid')).toBe(Array.from({ length: 4 }, () => TEMPLATE_UID).join('\t'))
  expect(field('Groups')?.trim()).toBe('')
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']) expect(field(set)).toMatch(/^0+$/)
  expect(field('NoNewPrivs')).toBe('1')
  expect(field('Seccomp')).toBe('2')
  for (const namespace of ['net', 'mnt', 'pid', 'ipc', 'uts']) expect(readlinkSync(`/proc/${qemu}/ns/${namespace}`)).not.toBe(readlinkSync(`/proc/self/ns/${namespace}`))
  expect(readlinkSync(`/proc/${qemu}/root`)).toMatch(/\/data\/vm\/jail-[0-9a-f]+$/)
  expect(readdirSync(`/proc/${qemu}/root`).sort()).not.toContain('etc')
  expect(readFileSync(`/proc/${qemu}/environ`, 'utf8').split('\0').filter(Boolean).sort()).toEqual(['PATH=/', 'QEMU_MODULE_DIR=/modules'])
  expect(readFileSync(`/proc/${qemu}/limits`, 'utf8')).toMatch(/Max file size +\d{8,11} /)
  // A file that is not there is one that it cannot make.
  expect(statSync(`/proc/${qemu}/root/vm`).uid).toBe(0)
  await driver.templatesIdle()
  expect(existsSync(`/proc/${qemu}`)).toBe(false)
  for (const name of readdirSync(templates())) {
    for (const file of readdirSync(join(templates(), name))) expect(statSync(join(templates(), name, file)).uid).toBe(0)
  }
})

/** What a workload sees of its files and mounts, without what is another's in every machine. */
const view = ['sh', '-c', 'cut -d" " -f4- /proc/self/mountinfo; ls -lan / /etc /dev /home; cat /etc/hosts /etc/resolv.conf; cat /proc/self/cgroup; cat /proc/sys/vm/min_free_kbytes; df -k / | tail -1 | cut -c1-40; ps | grep -vc "ps$"']
/** Nor how many processes the kernel has just now, which is what links to /proc count. */
const withoutTimes = (text: string) => text.replaceAll(/^(dr-xr-xr-x +)\d+(.* proc)$/gm, '$1N$2').replaceAll(/[A-Z][a-z]{2} +\d+ +\d\d:\d\d/g, 'TIME').replaceAll(/^total \d+$/gm, '')

it('an image that is started again and again has a template of its own, with it mounted; a workload finds there what it finds in any other', async () => {
  const files = { hostname: 'x', files: { hosts: '127.0.0.1 localhost\n', hostname: 'x\n', resolvConf: 'nameserver 192.0.2.1\n' } }
  driver = lab.driver()
  await said(['true'])
  await driver.templatesIdle()
  const before = await said(view, files)
  expect(before.start).toBe('template')
  await driver.endMaintenance()
  driver = lab.driver({ ownTemplateAfter: 2 })
  for (let n = 0; n < 2; n++) expect((await said(['true'])).start).toBe('template')
  await driver.templatesIdle()
  const own = await said(view, files)
  expect(own.start).toBe('image')
  expect(withoutTimes(own.out)).toBe(withoutTimes(before.out))
  // Its disk is the container's own, in order, and kept.
  const first = await create(['sh', '-c', 'echo kept > /kept; rm /bin/noexec; ls /bin/noexec'])
  await first.sandbox.start()
  expect(startOf(first.spec)).toBe('image')
  expect((await first.sandbox.exited).code).toBe(1)
  await first.sandbox.destroy()
  await runOk('e2fsck', ['-fn', join(first.spec.stateDir, 'disk.img')])
  const again = await driver.create({ ...first.spec, process: lab.process(['sh', '-c', 'cat /kept; ls /bin/noexec']) }, {})
  const read = readFramed((await again.attach()).duplex)
  await again.start()
  expect(startOf(first.spec)).not.toBe('image') // its disk is not new
  await again.exited
  await again.destroy()
  expect((await read).stdout).toBe('kept\n')
  // Two at a time are two.
  const two = await Promise.all([said(identityOf), said(identityOf)])
  expect(two.map(({ start }) => start)).toEqual(['image', 'image'])
  expect(two[0].out).not.toBe(two[1].out)
})

it('the template of an image is for that file alone: another one in its place, or none, is another matter', async () => {
  const image = join(lab.directory, 'other.erofs')
  copyFileSync(lab.image, image)
  driver = lab.driver({ ownTemplateAfter: 1, erofsFor: async () => image })
  expect((await said(['true'])).start).toBe('template')
  await driver.templatesIdle()
  expect((await said(['true'])).start).toBe('image')
  const stamps = () => readdirSync(templates()).filter((name) => readFileSync(join(templates(), name, 'stamp.json'), 'utf8').includes(image))
  expect(stamps()).toHaveLength(1)
  copyFileSync(lab.image, `${image}.new`)
  renameSync(`${image}.new`, image)
  expect((await said(['true'])).start).toBe('template')
  await driver.templatesIdle()
  await driver.endMaintenance()
  driver = lab.driver({ ownTemplateAfter: 1, erofsFor: async () => image })
  rmSync(image)
  await (await driver.collectGarbage()).rest
  expect(stamps()).toEqual([])
})

it('an image\'s symbolic links lead nowhere when its template is made', async () => {
  const root = join(lab.directory, 'links')
  mkdirSync(join(root, 'run'), { recursive: true })
  await runOk('cp', ['-a', `${join(lab.directory, 'root')}/.`, root])
  rmSync(join(root, 'etc'), { recursive: true })
  symlinkSync('../../../../run', join(root, 'etc'))
  const image = join(lab.directory, 'links.erofs')
  await runOk('mkfs.erofs', ['-Enoinline_data', image, root])
  await truncate(image, IMAGE_SLOTS[0])
  driver = lab.driver({ ownTemplateAfter: 1, erofsFor: async () => image })
  const look = ['sh', '-c', 'ls -d /run /run/*; ls /etc/']
  const before = await said(look)
  expect(before.start).toBe('template')
  await driver.templatesIdle()
  const own = await said(look)
  expect(own.start).toBe('image')
  expect(own.out).toBe(before.out)
  expect(own.out).toContain('/run/hosts\n') // in the container's own
})

it('a daemon that is told to go ends what it is making', async () => {
  const before = readdirSync(templates())
  driver = lab.driver({ pool: 1 })
  const more = { resources: { ...lab.spec([]).resources, memory: 200 << 20 } } // a shape that there is no template of
  await Promise.all([said(['true'], more), said(['true'], more)])
  await new Promise((done) => setTimeout(done, 600)) // a machine is to be made ahead, and waits for the template
  await until('a template is being made', async () => readdirSync(templates()).some((name) => name.startsWith('tmp-')))
  await driver.endMaintenance()
  expect(readdirSync(templates())).toEqual(before) // neither half made, nor waited for
  driver = lab.driver()
  await (await driver.collectGarbage()).rest
})

it('of more shapes than are kept the one that was used longest ago goes', async () => {
  driver = lab.driver()
  rmSync(templates(), { recursive: true, force: true })
  for (let n = 0; n < 12; n++) {
    const directory = join(templates(), n.toString(16).repeat(32))
    mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, 'stamp.json'), '{}')
    utimesSync(join(directory, 'stamp.json'), 1000 + n, 1000 + n)
  }
  expect((await said(['true'])).start).toBeUndefined()
  await driver.templatesIdle()
  const left = readdirSync(templates())
  expect(left).toHaveLength(12)
  expect(left).not.toContain('0'.repeat(32))
  expect(left).toContain('1'.repeat(32))
  await (await driver.collectGarbage()).rest // and the next start takes what is no template of ours
  expect(readdirSync(templates())).toHaveLength(1)
})

it('a sealed copy has the file’s bytes, its holes, and no way to change it; a copy of that is one’s own', async () => {
  const path = join(lab.directory, 'sparse')
  writeFileSync(path, 'begin')
  truncateSync(path, 8 << 20)
  const file = openSync(path, 'r+')
  writeSync(file, 'end', (8 << 20) - 3)
  writeSync(file, Buffer.alloc(1 << 20), 0, 1 << 20, 2 << 20) // zeros that take room
  writeSync(file, 'middle', (4 << 20) - 3)
  closeSync(file)
  const fd = await sealedCopy(path)
  const copy = await ownCopy(fd)
  try {
    for (const one of [fd, copy]) {
      expect(hashOf(`/proc/self/fd/${one}`)).toBe(hashOf(path))
      expect(fstatSync(one).blocks * 512).toBe(4 * 4096)
    }
    expect(() => writeSync(fd, 'x', 0)).toThrow(/EPERM/)
    writeSync(copy, 'x', 0)
    expect(() => ftruncateSync(copy, 4096)).toThrow(/EPERM/)
    expect(hashOf(`/proc/self/fd/${fd}`)).toBe(hashOf(path))
  } finally {
    closeSync(fd)
    closeSync(copy)
  }
  expect(() => ownCopy(-1)).toThrow()
  await expect(sealedCopy(join(lab.directory, 'nowhere'))).rejects.toMatchObject({ code: 'ENOENT' })
  await expect(sealedCopy(lab.directory)).rejects.toMatchObject({ code: 'EINVAL' })
  expect((await readFile(path)).subarray(0, 5).toString()).toBe('begin')
})
