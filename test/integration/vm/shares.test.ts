import { mkdirSync, statSync, writeFileSync } from 'node:fs'
import { appendFile, chmod, copyFile, readdir, readFile, stat, symlink, truncate, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { runOk } from '../../../src/base/run.js'
import { childrenOf, killPid, namespacesOf, processStatus } from '../../../src/host/process.js'
import type { MountSpec, Sandbox, WorkloadSpec } from '../../../src/sandbox/types.js'
import type { VmDriver } from '../../../src/sandbox/vm/driver.js'
import { Lab, readFramed } from './lab.js'

let lab: Lab
let driver: VmDriver
let number = 0
const made: { sandbox: Sandbox; spec: WorkloadSpec }[] = []

beforeAll(async () => {
  lab = await Lab.make()
  driver = lab.driver()
  await output(['true'], []) // asks for the template
  await driver.templatesIdle()
}, 120_000)

afterEach(async () => {
  for (const { sandbox, spec } of made.splice(0)) {
    await sandbox.destroy()
    await driver.removeState(spec)
  }
  expect(await lab.leftovers()).toEqual([])
})

afterAll(() => lab.remove())

/** A directory of the host of this test's own. */
function hostDirectory(): string {
  const path = join(lab.directory, `host${++number}`)
  mkdirSync(path)
  return path
}

const bind = (source: string, target: string, readOnly = false, options: string[] = []): MountSpec => ({ type: 'bind', source, target, readOnly, options })

/** How the machines of a test come to life: by a boot, or as clones of a template, which has no such device. */
let start: 'boot' | 'template' = 'template'

async function create(args: string[], mounts: MountSpec[], more: Partial<WorkloadSpec> = {}): Promise<{ sandbox: Sandbox; spec: WorkloadSpec }> {
  const spec = lab.spec(args, { mounts, annotations: { 'org.hull.vm.start': start }, ...more })
  const sandbox = await driver.create(spec, {})
  made.push({ sandbox, spec })
  if (mounts.length > 0) expect((JSON.parse(await readFile(join(spec.runDir, 'vm.json'), 'utf8')) as { start?: string }).start ?? 'boot').toBe(start)
  return { sandbox, spec }
}

async function output(args: string[], mounts: MountSpec[], more: Partial<WorkloadSpec> = {}): Promise<{ stdout: string; stderr: string; code: number }> {
  const { sandbox } = await create(args, mounts, more)
  const streams = readFramed((await sandbox.attach()).duplex)
  await sandbox.start()
  const { code } = await sandbox.exited
  return { ...(await streams), code }
}

async function exec(sandbox: Sandbox, ...args: string[]): Promise<string> {
  const session = await sandbox.exec(lab.process(args), { stdin: false, detach: false })
  const said = readFramed(session.duplex)
  await session.exited
  const { stdout, stderr } = await said
  return stdout + stderr
}

/** Host pid of the file server, as explain tells it. */
async function serverOf(sandbox: Sandbox): Promise<number> {
  const facts = (await sandbox.explain()).find((section) => section.title === 'File server of the mounts')
  return Number(/pid (\d+);/.exec(facts!.rows.find(([name]) => name === 'program')![1])![1])
}

describe.each(['boot', 'template'] as const)('a directory of the host in a virtual machine (%s)', (how) => {
  beforeAll(() => {
    start = how
  })

  it('is a file system that programs are content with', async () => {
    const host = hostDirectory()
    await chmod(host, 0o777)
    const probe = join(lab.directory, 'probe')
    await runOk('gcc', ['-D_GNU_SOURCE', '-static', '-O2', '-o', probe, join(import.meta.dirname, 'share-probe.c')])
    const said = await output(['/probe', '/share'], [bind(host, '/share'), bind(probe, '/probe', true)])
    expect(said.stderr).toBe('')
    const bad = said.stdout.trim().split('\n').filter((line) => !line.endsWith(' ok'))
    // QEMU's virtiofsd (Debian 12) acts with the user's first group alone: docs/docker-api.md.
    expect(bad.filter((line) => line !== 'group-creates EACCES')).toEqual([])
    expect(said.stdout.split('\n')).toHaveLength(17)
    // What it left is on the host as the guest meant it.
    const second = statSync(join(host, 'second'))
    expect([second.uid, second.gid, second.mode & 0o7777]).toEqual([1234, 5678, 0o4751])
    expect(statSync(join(host, 'open/mine')).uid).toBe(1000)
    expect((await readFile(join(host, 'mapped'))).subarray(5000, 5003).toString()).toBe('map')
  })

  it('shows each side what the other does, also to those who have files open', async () => {
    const host = hostDirectory()
    await writeFile(join(host, 'log'), 'one\n')
    await writeFile(join(host, 'same'), 'aaaa')
    // A reader that keeps its file open, and one that has read the whole of it into its page cache.
    const { sandbox } = await create(['sh', '-c', 'tail -f /h/log'], [bind(host, '/h')])
    await sandbox.start()
    expect(await exec(sandbox, 'cat', '/h/same')).toBe('aaaa')
    await new Promise((resolve) => setTimeout(resolve, 50))
    await writeFile(join(host, 'same'), 'bbbb')
    expect(await exec(sandbox, 'cat', '/h/same')).toBe('bbbb')
    await appendFile(join(host, 'log'), 'two\n')
    await exec(sandbox, 'sh', '-c', 'echo three >> /h/log')
    expect(await readFile(join(host, 'log'), 'utf8')).toBe('one\ntwo\nthree\n')
    await truncate(join(host, 'log'), 4)
    expect(await exec(sandbox, 'cat', '/h/log')).toBe('one\n')
    await utimes(join(host, 'log'), 1000, 1000)
    expect(await exec(sandbox, 'stat', '-c', '%Y', '/h/log')).toBe('1000\n')
  })

  it('does not let root of the guest do on the host what the mount does not allow', async () => {
    const [ro, rw] = [hostDirectory(), hostDirectory()]
    const canary = join(lab.directory, 'canary')
    await Promise.all([writeFile(canary, 'untouched'), writeFile(join(ro, 'file'), 'fixed\n'), writeFile(join(rw, 'file'), 'loose\n'), symlink(canary, join(rw, 'out')), symlink('../canary', join(rw, 'up'))])
    await runOk('mknod', [join(rw, 'disk'), 'b', '254', '0'])
    // The guest's own flags are taken away first: what is left is the host's word.
    const script = `
      try() { echo "$1: $(sh -c "$2" 2>&1 | tail -n 1 | sed 's/.*: //')"; }
      mount -o remount,bind,rw,dev,suid /ro; mount -o remount,bind,rw,dev,suid /rw
      try flags 'grep " /ro " /proc/mounts | cut -d " " -f 4 | cut -d , -f 1'
      try write-ro 'echo x > /ro/file && echo WROTE'
      try create-ro 'touch /ro/new && echo WROTE'
      try unlink-ro 'rm /ro/file && echo WROTE'
      try chmod-ro 'chmod 777 /ro/file && echo WROTE'
      try chown-ro 'chown 5 /ro/file && echo WROTE'
      try touch-ro 'touch -d @0 /ro/file && echo WROTE'
      try link-ro 'ln /ro/file /ro/link && echo WROTE'
      try rename-ro 'mv /ro/file /ro/file2 && echo WROTE'
      try link-across 'ln /ro/file /rw/link && echo WROTE'
      mkdir -p /again
      try again 'mount -t virtiofs hull /again && ls /again/../../../canary /again/../canary'
      try up 'cd /rw && cat ../../../../../canary'
      try absolute 'cat /rw/out'
      try relative 'cat /rw/up'
      try magic 'cat /proc/1/root/rw/out /proc/self/cwd/rw/up'
      try through 'echo gotcha > /rw/out'
      try make-device 'mknod /rw/null c 1 3 && echo MADE'
      try open-device 'dd if=/rw/disk of=/dev/null bs=512 count=1 2>/dev/null && echo read'
    `
    const said = await output(['sh', '-c', script], [bind(ro, '/ro', true), bind(rw, '/rw')], { privileged: true })
    const result = Object.fromEntries(said.stdout.trim().split('\n').map((line) => line.split(/: (.*)/s).slice(0, 2))) as Record<string, string>
    expect(said.stdout).not.toMatch(/WROTE|MADE|untouched/)
    expect(result['flags']).toBe('rw')
    for (const name of ['write', 'create', 'unlink', 'chmod', 'chown', 'touch', 'link', 'rename']) expect([name, result[`${name}-ro`]]).toEqual([name, 'Read-only file system'])
    expect(result['make-device']).toBe('Operation not permitted')
    // A device node that was there means the guest's own device to the guest, as it would on any of its disks; the server opens none.
    expect(result['link-across']).toMatch(/cross-device|Read-only|Operation not permitted/i)
    expect(await readFile(join(ro, 'file'), 'utf8')).toBe('fixed\n')
    expect((await stat(join(ro, 'file'))).mode & 0o777).toBe(0o644)
    expect(await readFile(canary, 'utf8')).toBe('untouched')
  })

  it('is served by a process that is nobody on the host', async () => {
    const { sandbox } = await create(['sleep', '1000'], [bind(hostDirectory(), '/h')])
    await sandbox.start()
    const pid = await serverOf(sandbox)
    const [own, theirs, status] = await Promise.all([namespacesOf('self'), namespacesOf(pid), processStatus(pid)])
    for (const kind of ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts'] as const) expect([kind, theirs[kind] === own[kind]]).toEqual([kind, false])
    expect(status).toMatchObject({ noNewPrivileges: true, seccomp: 2 })
    const table = (await readFile(`/proc/${pid}/mountinfo`, 'utf8')).trim().split('\n').map((line) => line.split(' '))
    expect(table.map((fields) => fields[4])).toEqual(['/', '/0'])
    expect(table[1]![5]).toMatch(/rw,nosuid,nodev,noexec/)
    expect(table[0]![5]).toMatch(/^ro/)
  })
})

/** The memory that QEMU has mapped for its guest, by the name and inode of its file (proc(5), maps). */
async function memoryOf(sandbox: Sandbox): Promise<{ name: string; inode: string; shared: boolean }[]> {
  const maps = await readFile(`/proc/${(await childrenOf(sandbox.pid))[0]!}/maps`, 'utf8')
  const found = [...maps.matchAll(/^\S+ ..(?:.)(.) \S+ \S+ (\d+)\s+\/memfd:(\S+)/gm)].map(([, kind, inode, name]) => ({ name: name!, inode: inode!, shared: kind === 's' }))
  return [...new Map(found.map((one) => [one.inode, one])).values()]
}

it('a clone with mounts has memory of its own, which its file server shares; the template is in nobody’s hands', async () => {
  const machines = await Promise.all([1, 2].map(() => create(['sleep', '1000'], [bind(hostDirectory(), '/h')])))
  for (const { sandbox } of machines) await sandbox.start()
  const memories = (await Promise.all(machines.map(({ sandbox }) => memoryOf(sandbox)))).flat()
  expect(memories.map(({ name, shared }) => [name, shared])).toEqual([['hull-memory', true], ['hull-memory', true]])
  expect(new Set(memories.map(({ inode }) => inode)).size).toBe(2)
  const servers = await Promise.all(machines.map(async ({ sandbox }) => readFile(`/proc/${await serverOf(sandbox)}/maps`, 'utf8')))
  servers.forEach((maps, index) => expect([...new Set([...maps.matchAll(/ (\d+)\s+\/memfd:/gm)].map(([, inode]) => inode))]).toEqual([memories[index]!.inode]))
  // A machine without mounts: the template itself, privately.
  const plain = await create(['sleep', '1000'], [])
  await plain.sandbox.start()
  expect(await memoryOf(plain.sandbox)).toEqual([{ name: 'hull-template', inode: expect.any(String), shared: false }])
})

describe('the file server', () => {
  it('takes the machine with it when it dies, and leaves nothing', async () => {
    const { sandbox } = await create(['sh', '-c', 'while :; do date > /h/now; done'], [bind(hostDirectory(), '/h')])
    await sandbox.start()
    killPid(await serverOf(sandbox), 9)
    expect((await sandbox.exited).code).toBe(137)
  })

  it('goes when QEMU is killed', async () => {
    const { sandbox } = await create(['sh', '-c', 'while :; do date > /h/now; done'], [bind(hostDirectory(), '/h')])
    await sandbox.start()
    const pid = await serverOf(sandbox)
    killPid((await childrenOf(sandbox.pid))[0]!, 9)
    expect((await sandbox.exited).code).toBe(137)
    for (let n = 0; n < 100 && (await processStatus(pid))?.state; n++) await new Promise((resolve) => setTimeout(resolve, 50))
    expect(await processStatus(pid)).toBeUndefined()
  })

  it('is found again by the next daemon', async () => {
    const host = hostDirectory()
    const { spec } = await create(['sh', '-c', 'sleep 1000'], [bind(host, '/h')])
    const first = made.pop()!
    await first.sandbox.start()
    driver = lab.driver()
    const sandbox = (await driver.adopt(spec))!
    made.push({ sandbox, spec })
    expect(await exec(sandbox, 'sh', '-c', 'echo still > /h/x; cat /h/x')).toBe('still\n')
    expect((await sandbox.explain()).map((section) => section.title)).toContain('File server of the mounts')
  })

  it('that cannot be started is an error that leaves nothing', async () => {
    const broken = join(lab.directory, 'virtiofsd')
    await copyFile('/bin/false', broken)
    const other = lab.driver({ virtiofsd: broken, bootTimeout: 5 })
    for (const how of ['boot', 'template']) {
      const spec = lab.spec(['true'], { mounts: [bind(hostDirectory(), '/h')], annotations: { 'org.hull.vm.start': how } })
      const sandbox = await other.create(spec, {})
      await expect(sandbox.start()).rejects.toMatchObject({ statusCode: 500, message: expect.stringMatching(/file server of the mounts|virtual machine ended/) })
      await sandbox.destroy()
      await other.removeState(spec)
    }
    // It is not the template's fault.
    expect((await readdir(join(lab.directory, 'data/vm/templates'))).length).toBeGreaterThan(0)
  })

  it('does not serve what only the host\'s kernel can', async () => {
    const host = hostDirectory()
    writeFileSync(join(host, 'file'), '')
    await runOk('mkfifo', [join(host, 'fifo')])
    const refused: [string, RegExp][] = [[join(host, 'fifo'), /is a named pipe/], ['/dev/null', /is a device/], [join(host, 'absent'), /bind source path does not exist/]]
    for (const [source, words] of refused) {
      await expect(driver.create(lab.spec(['true'], { mounts: [bind(source, '/x')] }), {})).rejects.toMatchObject({ statusCode: 400, message: expect.stringMatching(words) })
    }
    await expect(driver.validate(lab.spec(['true'], { mounts: [bind(host, '/x', false, ['rshared'])] }))).rejects.toMatchObject({ statusCode: 400 })
  })
})
