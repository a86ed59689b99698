import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { DetachedChild } from '../../../src/host/child.js'
import { sealedProgram } from '../../../src/host/memory.js'
import { native } from '../../../src/host/native.js'
import { childPipe } from '../../../src/host/streams.js'

let directory: string
const open: number[] = []
const fd = (path: string, flags: string) => {
  open.push(openSync(path, flags))
  return open.at(-1)!
}
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hull-child-'))
})
afterAll(async () => {
  for (const one of open) closeSync(one)
  await rm(directory, { recursive: true })
})

const ended = (child: DetachedChild) => new Promise<[number | null, NodeJS.Signals | null]>((resolve) => child.once('exit', (code, signal) => resolve([code, signal])))
function sh(script: string, fds: number[] = [], more: Partial<Parameters<typeof DetachedChild.spawn>[0]> = {}): DetachedChild {
  const nothing = fd('/dev/null', 'r+')
  return DetachedChild.spawn({ file: '/bin/sh', args: ['sh', '-c', script], env: { PATH: '/usr/bin:/bin', NAME: 'a = b' }, cwd: directory, fds: [nothing, nothing, nothing, ...fds], ...more })
}

it('has its place, its variables, its descriptors and no other; a session of its own; signals as at the beginning', async () => {
  const ignored = () => {}
  process.on('SIGUSR2', ignored)
  const out = fd(join(directory, 'out'), 'w')
  // No pipe behind ls: while it is made the shell has it itself.
  const child = sh('exec >&5; { pwd; echo "$NAME"; env | wc -l; ls -m /proc/$$/fd; cut -d" " -f1,5,6 /proc/$$/stat; grep -E "^Sig(Blk|Ign|Cgt)" /proc/$$/status | cut -f2; }', [fd(join(directory, 'three'), 'w'), fd('/dev/null', 'r'), out])
  expect(await ended(child)).toEqual([0, null])
  process.off('SIGUSR2', ignored)
  const [place, name, variables, descriptors, ids, blocked, ignoredSet] = readFileSync(join(directory, 'out'), 'utf8').split('\n')
  expect([place, name]).toEqual([directory, 'a = b'])
  expect(Number(variables)).toBeLessThanOrEqual(4) // and what the shell adds: PWD, _
  expect(descriptors!.split(', ')).toEqual(['0', '1', '2', '3', '4', '5'])
  expect(ids!.split(' ')).toEqual(Array.from({ length: 3 }, () => String(child.pid)))
  expect(Number(`0x${blocked}`)).toBe(0)
  expect(BigInt(`0x${ignoredSet}`) & 0x7fff_ffffn).toBe(0n) // 32 and 33 are the C library's own
})

it('descriptors may change places', async () => {
  const [a, b] = [fd(join(directory, 'a'), 'w'), fd(join(directory, 'b'), 'w')]
  // The numbers of both as targets of one another, whatever they are here.
  const fds = Array.from({ length: Math.max(a, b) + 1 }, () => fd('/dev/null', 'r+'))
  fds[a] = b
  fds[b] = a
  expect(await ended(DetachedChild.spawn({ file: '/bin/bash', args: ['bash', '-c', `echo to-b >&${a}; echo to-a >&${b}`], env: {}, cwd: '/', fds }))).toEqual([0, null])
  expect([readFileSync(join(directory, 'a'), 'utf8'), readFileSync(join(directory, 'b'), 'utf8')]).toEqual(['to-a\n', 'to-b\n'])
})

it('says how it ended, each of many; a signal by its name; nobody is left to be reaped', async () => {
  const many = Array.from({ length: 20 }, (_, n) => sh(`exit ${n}`))
  expect(await Promise.all(many.map(ended))).toEqual(many.map((_, n) => [n, null]))
  const sleeper = sh('sleep 1000')
  const end = ended(sleeper)
  expect(sleeper.ended).toBe(false)
  expect(sleeper.kill('SIGTERM')).toBe(true)
  expect(await end).toEqual([null, 'SIGTERM'])
  expect([sleeper.ended, sleeper.kill('SIGKILL')]).toEqual([true, false])
  for (const { pid } of [...many, sleeper]) expect(existsSync(`/proc/${pid}`)).toBe(false)
  expect(process.listenerCount('SIGCHLD')).toBe(0)
})

it('does not disturb the children of Node, nor they it', async () => {
  const { spawn } = await import('node:child_process')
  const ours = sh('sleep 0.2; exit 3')
  const theirs = spawn('sh', ['-c', 'sleep 0.1; exit 4'])
  const both = await Promise.all([ended(ours), new Promise((resolve) => theirs.once('exit', (code) => resolve(code)))])
  expect(both).toEqual([[3, null], 4])
})

it('a pipe of ours is its own end’s alone', async () => {
  const pipe = childPipe('read')
  const child = sh('echo words >&3', [pipe.fd])
  pipe.closeChild()
  let text = ''
  for await (const chunk of pipe.stream) text += String(chunk)
  expect(text).toBe('words\n')
  await (child.ended || ended(child))
})

it('what cannot be started throws, and leaves nothing', () => {
  const before = readFileSync('/proc/self/status', 'utf8')
  for (const [more, code] of [
    [{ file: '/nowhere' }, 'ENOENT'], [{ file: directory }, 'EACCES'], [{ cwd: '/nowhere' }, 'ENOENT'], [{ fds: [9999] }, 'EBADF'],
  ] as const) expect(() => sh('true', [], more), code).toThrow(expect.objectContaining({ code }))
  writeFileSync(join(directory, 'garbage'), 'garbage', { mode: 0o755 })
  expect(() => sh('true', [], { file: join(directory, 'garbage') })).toThrow(expect.objectContaining({ code: 'ENOEXEC' }))
  expect(() => sh('true', [], { args: ['a\0b'] })).toThrow(TypeError)
  expect(() => sh('true', [], { fds: [-1] })).toThrow(RangeError)
  expect(() => native.spawn('/bin/true', 'true' as unknown as string[], [], '/', [])).toThrow(TypeError)
  expect(() => native.spawn('/bin/true', ['true'], [], '/', Array.from({ length: 65 }, () => 0))).toThrow(/too long/)
  expect(() => native.waitpid(1)).toThrow(expect.objectContaining({ code: 'ECHILD' }))
  expect(/FDSize:.*/.exec(readFileSync('/proc/self/status', 'utf8'))![0]).toBe(/FDSize:.*/.exec(before)![0])
  expect(process.listenerCount('SIGCHLD')).toBe(0)
})

it('a sealed program is the program, and nobody can write to it', async () => {
  const copy = await sealedProgram('/bin/sh')
  expect(copy).toMatch(new RegExp(`^/proc/${process.pid}/fd/\\d+$`))
  expect(await sealedProgram('/bin/sh')).toBe(copy)
  expect(readFileSync(copy).equals(readFileSync('/bin/sh'))).toBe(true)
  expect(await ended(DetachedChild.spawn({ file: copy, args: ['named', '-c', 'test "$0" = named && exit 9'], env: {}, cwd: '/', fds: [] }))).toEqual([9, null])
  expect(() => writeFileSync(copy, 'x', { flag: 'r+' })).toThrow(/EPERM/)
  expect(await sealedProgram('/bin/sh').then(() => sealedProgram(directory))).toBe(directory) // no program: what is wrong with it is told by who runs it
})
