import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chown, lstat, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { release, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { busyboxRoot, dockerArchive } from '../../../src/cli/demo/archive.js'
import { exec, sleep, TestDaemon, until } from '../../lib/daemon.js'
import { onTerminal } from '../../lib/pty.js'
import { comparison } from '../../unit/compare/fixture.js'

const program = resolve(import.meta.dirname, '../../../bin/hull')
const image = 'cli/busybox:1'
const prompt = '[#$] '
let daemon: TestDaemon
let scratch: string
const hull = (args: string[], input?: string) => daemon.hull(args, input === undefined ? {} : { input })
const ok = async (...args: string[]) => {
  const said = await hull(args)
  expect(said.code, `hull ${args.join(' ')}: ${said.stderr}`).toBe(0)
  return said.stdout.trim()
}

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'hull-cli-'))
  daemon = await TestDaemon.start()
  const applets = (await exec('/bin/busybox', ['--list'])).stdout.split('\n').filter(Boolean)
  await writeFile(join(scratch, 'image.tar'), dockerArchive(image, busyboxRoot(await readFile('/bin/busybox'), applets), { Env: ['PATH=/bin'], Cmd: ['sh'] }))
  expect(await ok('load', '-i', join(scratch, 'image.tar'))).toContain(`Loaded image: ${image}`)
})
afterAll(async () => {
  await daemon.destroy()
  await rm(scratch, { recursive: true, force: true })
})

describe('hull run', () => {
  it('keeps stdout and stderr apart and passes the exit code on', async () => {
    const said = await hull(['run', '--rm', image, 'sh', '-c', 'echo out; echo err >&2; exit 7'])
    expect(said).toEqual({ code: 7, stdout: 'out\n', stderr: 'err\n' })
  })
  it('passes the end of input on', async () => {
    expect(await hull(['run', '--rm', '-i', image, 'sh', '-c', 'cat; echo end'], 'in\n')).toMatchObject({ code: 0, stdout: 'in\nend\n' })
  })
  it('carries a megabyte each way unharmed', async () => {
    const text = Array.from({ length: 40_000 }, (_, i) => `line ${i} of the stream\n`).join('')
    const said = await hull(['run', '--rm', '-i', image, 'cat'], text)
    expect(said.code).toBe(0)
    expect(said.stdout === text).toBe(true)
  })
  it.each<[string, string[], number, RegExp]>([
    ['no such command', [image, 'nosuch'], 127, /^hull: Error response from daemon: .*exec: "nosuch": executable file not found in \$PATH/],
    ['not executable', [image, '/etc/passwd'], 126, /permission denied/],
    ['a directory', [image, '/bin'], 126, /is a directory/],
    ['unknown isolation', ['--isolation=glass', image], 125, /^hull: Error response from daemon: invalid isolation "glass"/],
    ['no such image', ['--pull=never', 'nosuch:1'], 125, /No such image: nosuch:1\n\nRun 'hull run --help'/],
    ['too little memory', ['-m', '1m', image], 125, /Minimum memory limit/],
    ['a network that is not there', ['--network', 'nosuch', image, 'true'], 125, /nosuch/],
  ])('%s', async (_name, args, code, why) => {
    const said = await hull(['run', '--rm', ...args])
    expect([said.code, said.stdout]).toEqual([code, ''])
    expect(said.stderr).toMatch(why)
    expect(await ok('ps', '-aq')).toBe('')
  })
  it('says where an image could not be pulled from', async () => {
    const said = await hull(['run', '--rm', '127.0.0.1:1/nosuch:1'])
    expect(said.code).toBe(125)
    expect(said.stderr).toMatch(/^Unable to find image '127\.0\.0\.1:1\/nosuch:1' locally\n/)
  })
  it('refuses a name that is taken', async () => {
    const id = await ok('create', '--name', 'taken', image)
    const said = await hull(['run', '--name', 'taken', image])
    expect(said.code).toBe(125)
    expect(said.stderr).toContain(`Conflict. The container name "/taken" is already in use by container "${id}"`)
    await ok('rm', 'taken')
  })
  it('writes a cidfile once', async () => {
    const file = join(scratch, 'cid')
    await ok('run', '--rm', '--cidfile', file, image, 'true')
    expect(await readFile(file, 'utf8')).toMatch(/^[0-9a-f]{64}$/)
    expect((await hull(['run', '--rm', '--cidfile', file, image, 'true'])).stderr).toContain('container ID file found')
    const other = join(scratch, 'cid2')
    expect((await hull(['run', '--rm', '--cidfile', other, '--pull=never', 'nosuch', 'true'])).code).toBe(125)
    expect(existsSync(other)).toBe(false)
  })
  it('proxies signals to the workload', async () => {
    const child = spawn(program, ['-H', daemon.host, 'run', '--rm', '--name', 'sig', image, 'sh', '-c', 'trap "echo caught; exit 9" TERM; echo ready; while :; do sleep 0.1; done'])
    let text = ''
    child.stdout.on('data', (chunk: Buffer) => { text += chunk.toString() })
    await until('the workload is ready', () => Promise.resolve(text.includes('ready')))
    const ended = new Promise((done) => child.once('close', done))
    child.kill('SIGTERM')
    expect(await ended).toBe(9)
    expect(text).toContain('caught')
  })
  it('ends quietly when nobody reads it any more', async () => {
    const said = await exec('sh', ['-c', `${program} -H ${daemon.host} run --rm --name gone ${image} sh -c 'while :; do echo y; done' | head -n 1`])
    expect(said).toMatchObject({ stdout: 'y\n', stderr: '' })
    await hull(['rm', '-f', 'gone'])
  })
  it('gives a virtual machine on demand, with its own kernel', async () => {
    const said = await hull(['run', '--rm', '--isolation=vm', image, 'sh', '-c', 'uname -r; exit 3'])
    expect(said.code, said.stderr).toBe(3)
    expect(said.stdout.trim()).not.toBe(release())
  })
})

describe('on a terminal', () => {
  const at = (...args: string[]) => [program, '-H', daemon.host, ...args]
  it('has job control, Ctrl-C, resize and exit codes', async () => {
    const session = await onTerminal('', at('run', '-it', '--rm', image, 'sh'), [
      { expect: prompt }, { send: 'stty size; tty\r' }, { expect: '30 100\r\n/dev/pts/\\d' }, { resize: [41, 121] }, { sleep: 1 }, { send: 'stty size\r' }, { expect: '41 121' },
      { send: 'sleep 100\r' }, { sleep: 1 }, { control: 'c' }, { expect: prompt }, { send: 'echo after=$?\r' }, { expect: 'after=130' }, { send: 'exit 5\r' }, { eof: true },
    ], [30, 100])
    expect(session.error, session.output).toBeUndefined()
    expect(session.code).toBe(5)
  })
  it('detaches and attaches again', async () => {
    const first = await onTerminal('', at('run', '-it', '--name', 'det', image, 'sh'), [
      { expect: prompt }, { send: 'MARK=kept; echo is-$MARK\r' }, { expect: 'is-kept' }, { expect: prompt }, { control: 'p' }, { control: 'q' }, { expect: 'read escape sequence' }, { eof: true },
    ])
    expect([first.error, first.code], first.output).toEqual([undefined, 0])
    expect(await ok('inspect', '-f', '{{.State.Status}}', 'det')).toBe('running')
    const second = await onTerminal('', at('attach', 'det'), [{ send: 'echo $MARK-again\r' }, { expect: 'kept-again' }, { send: 'exit 4\r' }, { eof: true }])
    expect([second.error, second.code], second.output).toEqual([undefined, 4])
    await ok('rm', 'det')
  })
  it('takes other detach keys', async () => {
    const session = await onTerminal('', at('run', '-it', '--name', 'det2', '--detach-keys', 'ctrl-x,x', image, 'sh'), [
      { expect: prompt }, { control: 'p' }, { control: 'q' }, { send: 'echo still-$((40+2))\r' }, { expect: 'still-42' }, { control: 'x' }, { send: 'x' }, { expect: 'read escape sequence' }, { eof: true },
    ])
    expect([session.error, session.code], session.output).toEqual([undefined, 0])
    await ok('rm', '-f', 'det2')
  })
  it('leaves the terminal as it was', async () => {
    const session = await onTerminal('', ['sh', '-c', `${at('run', '-it', '--rm', image, 'true').join(' ')}; stty -a | grep -o " -\\?echo "; echo done`], [{ expect: 'done' }, { eof: true }])
    expect(session.output).toMatch(/ echo /)
  })
  it('execs', async () => {
    await ok('run', '-d', '--name', 'ex', image, 'sleep', '1000')
    const session = await onTerminal('', at('exec', '-it', 'ex', 'sh'), [{ expect: prompt }, { send: 'stty size\r' }, { expect: '33 99' }, { send: 'exit 6\r' }, { eof: true }], [33, 99])
    expect([session.error, session.code], session.output).toEqual([undefined, 6])
    await ok('rm', '-f', 'ex')
  })
  it('says that stdin is no terminal', async () => {
    expect(await hull(['run', '-it', '--rm', image, 'sh'], '')).toMatchObject({ code: 1, stderr: 'the input device is not a TTY\n' })
  })
})

describe('the other commands', () => {
  it('print what the docker CLI prints', async () => {
    // Still once it runs: two CLIs are asked one after the other, and the second must find the same processes and lines.
    await ok('run', '-d', '--name', 'same', '-p', '127.0.0.1::80', '-l', 'a=b', image, 'sh', '-c', 'for i in 1 2 3; do echo line $i; done; exec sleep 1000')
    const commands = [
      ['ps'], ['ps', '-a', '--no-trunc'], ['ps', '-q'], ['ps', '--format', '{{.ID}} {{.Names}} {{.Labels}} {{.Label "a"}} {{.Networks}} {{.State}}'], ['ps', '-f', 'name=nosuch'],
      ['ps', '--format', 'table {{.Names}}\t{{.Ports}}'], ['images'], ['images', '--no-trunc'], ['images', '-q'], ['images', '--format', '{{.Repository}}:{{.Tag}} {{.Size}}'], ['port', 'same'],
      ['inspect', 'same'], ['inspect', '-f', '{{.Name}} {{.State.Running}} {{json .Config.Cmd}} {{.HostConfig.Isolation}}', 'same'], ['inspect', '--type', 'image', image],
      ['inspect', '-f', '{{range $p, $c := .NetworkSettings.Ports}}{{$p}}->{{(index $c 0).HostPort}}{{end}}', 'same'], ['inspect', 'nosuch'], ['history', image], ['top', 'same', '-o', 'pid,comm'], ['rm', 'same'],
      ['rm', 'nosuch'], ['kill', 'nosuch'], ['exec', 'nosuch', 'true'], ['exec', 'same', 'sh', '-c', 'echo o; echo e >&2; exit 4'], ['logs', '--tail', '1', 'nosuch'], ['rmi', 'nosuch'], ['tag', 'nosuch', 'x'],
      ['stop', '-t', '0', 'same'], ['wait', 'same'], ['logs', 'same'], ['logs', '--tail', '1', 'same'], ['start', 'nosuch'],
    ]
    for (const command of commands) {
      if (command[0] === 'stop') { // changes things: both get their turn from the same state
        expect(await daemon.docker(command)).toMatchObject({ code: 0, stdout: 'same\n' })
        expect(await hull(command)).toMatchObject({ code: 0, stdout: 'same\n' })
        continue
      }
      const theirs = await daemon.docker(command)
      const ours = await hull(command)
      // Seconds pass between the two.
      const level = (text: string) => text.replace(/(\d+ seconds?|Less than a second|About a minute)( ago)?/g, 'T').replace(/ {2,}/g, '  ').replace(/Up T/g, 'Up')
      expect({ command, code: ours.code, stdout: level(ours.stdout) }).toEqual({ command, code: theirs.code, stdout: level(theirs.stdout) })
      expect(level(ours.stderr).replace(/^hull: /gm, ''), command.join(' ')).toBe(level(theirs.stderr).replace(/^docker: /gm, ''))
    }
    await ok('rm', 'same')
  })
  it('follow a log to its end', async () => {
    await ok('run', '-d', '--name', 'fol', image, 'sh', '-c', 'for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.3; done')
    const said = await hull(['logs', '-f', 'fol'])
    expect([said.stdout, said.stderr]).toEqual(['out 1\nout 2\nout 3\n', 'err 1\nerr 2\nerr 3\n'])
    expect((await hull(['logs', '--since', '1h', '--until', '0s', '-t', 'fol'])).stdout).toMatch(/^\d{4}-\d\d-\d\dT\S+Z out 1\n/)
    await ok('rm', 'fol')
  })
  it('carry out a life: create, start, pause, restart, kill, wait, rename, rm', async () => {
    const id = await ok('create', '--name', 'life', image, 'sleep', '1000')
    expect(await ok('start', 'life')).toBe('life')
    expect(await ok('pause', 'life')).toBe('life')
    expect(await ok('ps', '-f', 'status=paused', '--format', '{{.Names}}')).toBe('life')
    await ok('unpause', 'life')
    await ok('restart', '-t', '0', 'life')
    await ok('rename', 'life', 'life2')
    const waiting = hull(['wait', 'life2'])
    await sleep(300)
    await ok('kill', 'life2')
    expect((await waiting).stdout).toBe('137\n')
    const removed = await hull(['rm', '-f', 'life2', 'nosuch'])
    expect(removed.code, removed.stderr).toBe(0)
    expect(removed.stdout).toBe('life2\n')
    expect(id).toMatch(/^[0-9a-f]{64}$/)
  })
  it('tag, import and remove images', async () => {
    await ok('tag', image, 'cli/other:2')
    expect(await ok('images', '--format', '{{.Repository}}:{{.Tag}}', 'cli/other')).toContain('cli/other:2')
    expect(await ok('rmi', 'cli/other:2')).toBe('Untagged: cli/other:2')
    const root = join(scratch, 'root.tar')
    expect((await exec('tar', ['-C', '/', '-cf', root, 'bin/busybox'])).code).toBe(0)
    expect(await ok('import', '-c', 'CMD ["/bin/busybox","echo","imported"]', '-m', 'a message', root, 'cli/imported:1')).toMatch(/^sha256:[0-9a-f]{64}$/)
    expect(await ok('run', '--rm', 'cli/imported:1')).toBe('imported')
    expect(await ok('rmi', 'cli/imported:1')).toContain('Deleted: sha256:')
  })
  it('explain a container', async () => {
    await ok('run', '-d', '--name', 'exp', image, 'sleep', '1000')
    const text = await ok('explain', 'exp')
    expect(text).toMatch(/^exp \([0-9a-f]{12}\), isolation process\n/)
    for (const word of ['Namespaces', 'Cgroup', 'seccomp']) expect(text).toContain(word)
    expect(JSON.parse(await ok('explain', '-f', 'json', 'exp'))).toMatchObject({ Isolation: 'process' })
    await ok('rm', '-f', 'exp')
    expect((await hull(['explain', 'exp'])).stderr).toBe('Error response from daemon: No such container: exp\n')
  })
  it('tell version and info, and that there is no daemon', async () => {
    expect(await ok('version', '--format', '{{.Server.ApiVersion}} {{.Client.Version}}')).toMatch(/^1\.\d+ \d+\.\d+\.\d+$/)
    expect(await ok('info', '--format', '{{.Images}}')).toMatch(/^\d+$/)
    const nobody = await exec(program, ['-H', `unix://${scratch}/none`, 'ps'])
    expect(nobody).toEqual({ code: 1, stdout: '', stderr: `Cannot connect to the Hull daemon at unix://${scratch}/none. Is the hull daemon running?\n` })
    expect((await exec(program, ['-H', `unix://${scratch}/none`, 'version'])).stdout).toMatch(/^Client: Hull\n/)
  })
})

describe('hull advise', () => {
  it('judges a container that is there, an image with flags, and says what it knows of this host', async () => {
    await ok('create', '--name', 'advised', '--privileged', '-v', 'state:/d', image, 'true')
    const said = JSON.parse(await ok('advise', 'advised', '--trust', 'own', '--format', 'json')) as { facts: { kernel: string; accelerator: string; guestKernel: string }; advice: { name: string; isolation: string; reasons: { rule: string }[]; warnings: string[] }[] }
    await ok('rm', '-v', 'advised')
    expect(said.facts.kernel).toBe(release())
    expect(said.facts.guestKernel).toMatch(/^\d+\./)
    expect(said.advice[0]).toMatchObject({ name: 'advised', isolation: 'vm' })
    expect(said.advice[0]!.reasons.map((reason) => reason.rule)).toEqual(['privileged', 'trusted', ...(said.facts.accelerator === 'tcg' ? ['emulation'] : []), 'stateful'])
    expect(said.advice[0]!.warnings.join().includes('no security boundary')).toBe(said.facts.accelerator === 'tcg')
    expect(await ok('advise', '--trust', 'tenant', '--device', '/dev/null', image)).toMatch(/--isolation=process\n {2}must {2}\+ process {2}--device \/dev\/null[\s\S]*a container is all that can be had here/)
    expect(await hull(['advise', '--modules', '--pid', 'host', image])).toMatchObject({ code: 1, stdout: expect.stringContaining('neither') as string })
  })
  it('goes through a Compose file and writes what it says, whole or not at all', async () => {
    const path = join(scratch, 'compose.yaml')
    const link = join(scratch, 'link.yaml')
    const text = '# ours\nservices:\n  web: # first\n    image: web\n  jobs:\n    image: jobs\n    x-hull: { trust: tenant }\n'
    await writeFile(path, text, { mode: 0o640 })
    await chown(path, 1234, 1235)
    await symlink(path, link)
    await ok('advise', '--trust', 'own', path)
    expect(await readFile(path, 'utf8')).toBe(text)
    await ok('advise', '--trust', 'own', link, '--write')
    expect(await readFile(path, 'utf8')).toBe('# ours\nservices:\n  web: # first\n    isolation: process\n    image: web\n  jobs:\n    isolation: vm\n    image: jobs\n    x-hull: { trust: tenant }\n')
    expect(await stat(path)).toMatchObject({ mode: 0o100640, uid: 1234, gid: 1235 })
    expect((await lstat(link)).isSymbolicLink()).toBe(true)
    const refused = 'services:\n  web: { image: web }\n  jobs:\n    image: jobs\n'
    await writeFile(path, refused)
    expect(await hull(['advise', path, '--write'])).toMatchObject({ code: 1, stderr: expect.stringMatching(/nothing written: services\.web is not a block of lines/) as string })
    expect(await readFile(path, 'utf8')).toBe(refused)
  })
  it('has the last comparison behind its reasons, and goes on without one that it cannot read', async () => {
    const advise = async (stored: string) => {
      await mkdir(join(scratch, 'hull'), { recursive: true })
      await writeFile(join(scratch, 'hull/compare.json'), stored)
      return exec(program, ['-H', daemon.host, 'advise', '--start-budget', '100ms', image], { env: { XDG_STATE_HOME: scratch } })
    }
    expect((await advise(JSON.stringify(comparison()))).stdout).toMatch(/--isolation=process\n {4}80 {2}\+ process {2}a VM takes 410 ms from create to exit, the budget is 100 ms \(hull compare debian, 2026-11-27, median of 7\)/)
    expect(await advise('{}')).toMatchObject({ code: 0, stdout: expect.stringMatching(/compare\.json is left aside: not a comparison/) as string })
  })
  it.each<[string, string[], number, RegExp]>([
    ['no such file', ['nosuch.yaml'], 1, /open nosuch\.yaml: no such file or directory/],
    ['--write without a file', ['--write', image], 125, /--write is for a Compose file/],
    ['an unknown trust', ['--trust', 'me', image], 125, /must be one of own, team/],
    ['no comparison', ['--facts', '/etc/hostname', image], 1, /\/etc\/hostname: not JSON/],
    ['not a file', ['--facts', '/dev/null', image], 1, /not a regular file/],
  ])('%s', async (_name, args, code, why) => {
    const said = await hull(['advise', ...args])
    expect([said.code, said.stdout]).toEqual([code, ''])
    expect(said.stderr).toMatch(why)
  })
})
