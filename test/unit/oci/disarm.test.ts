import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { disarm, neededLibraries, neededWithout } from '../../../src/oci/disarm.js'

let directory: string
const at = (name: string) => join(directory, name)
const cc = (...args: string[]) => {
  const said = spawnSync('gcc', ['-O1', '-w', ...args], { cwd: directory, encoding: 'utf8' })
  if (said.status !== 0) throw new Error(said.stderr)
}
const run = (...args: string[]) => spawnSync(at('program'), args, { env: { LD_LIBRARY_PATH: directory }, encoding: 'utf8' })

/** A library with a constructor, a destructor, a relocated table and a library of its own; a program that calls it when it is told to. */
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'hull-disarm-'))
  writeFileSync(at('deep.c'), 'int deep(void) { return 7; }')
  writeFileSync(at('lib.c'), `
    #include <stdio.h>
    int deep(void);
    static int one(void) { return deep(); }
    int (*const table[])(void) = {one, one, one, one};
    __attribute__((constructor)) static void begin(void) { puts("begin"); }
    __attribute__((destructor)) static void end(void) { puts("end"); }
    int call(int n) { return table[n](); }`)
  writeFileSync(at('program.c'), `
    #include <stdio.h>
    int call(int n);
    int main(int argc, char **argv) { puts("main"); fflush(stdout); return argc > 1 ? call(argc & 3) : 0; }`)
  cc('-shared', '-fPIC', '-Wl,-soname,libdeep.so.1', '-o', 'libdeep.so.1', 'deep.c')
  cc('-shared', '-fPIC', '-Wl,-z,relro,-z,now', '-Wl,-soname,libtried.so.1', '-o', 'libtried.so.1', 'lib.c', 'libdeep.so.1')
  cc('-Wl,-z,now', '-o', 'program', 'program.c', 'libtried.so.1', '-Wl,-rpath-link,.')
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

describe('a disarmed library', () => {
  it('asks for what it says, through each other', () => {
    expect(neededLibraries(readFileSync(at('program')))).toEqual(['libtried.so.1', 'libc.so.6'])
    const library = (name: string) => (name.startsWith('libc.') ? undefined : readFileSync(at(name)))
    expect([...neededWithout([readFileSync(at('program'))], library, new Set())]).toEqual([['libtried.so.1', false], ['libdeep.so.1', false], ['libc.so.6', false]])
    expect([...neededWithout([readFileSync(at('program'))], library, new Set(['libtried.so.1']))]).toEqual([['libtried.so.1', true], ['libc.so.6', false]])
  })

  it('has its names and nothing else: no constructor, no library of its own, no call that comes back', () => {
    const armed = readFileSync(at('libtried.so.1'))
    expect(run().stdout).toBe('begin\nmain\nend\n')
    expect(run('call').status).toBe(7)
    const kept = Buffer.from(armed)
    const disarmed = disarm(armed)
    expect(armed.equals(kept)).toBe(true)
    writeFileSync(at('libtried.so.1'), disarmed)
    rmSync(at('libdeep.so.1'))
    expect(run()).toMatchObject({ status: 0, stdout: 'main\n' })
    expect(run('call')).toMatchObject({ signal: 'SIGSEGV', stdout: 'main\n' })
    expect(neededLibraries(disarmed)).toEqual([])
    expect(spawnSync('readelf', ['-lW', at('libtried.so.1')], { encoding: 'utf8' }).stdout.split('\n').filter((line) => /^ +LOAD/.test(line) && / E /.test(line))).toEqual([])
    writeFileSync(at('libtried.so.1'), armed)
  })

  it('is not made of what is none', () => {
    const armed = readFileSync(at('libtried.so.1'))
    const changed = (offset: number, value: number) => {
      const file = Buffer.from(armed)
      file[offset] = value
      return file
    }
    for (const file of [Buffer.alloc(0), Buffer.from('#!/bin/sh\n'), armed.subarray(0, 63), changed(4, 1), changed(5, 2), changed(0, 0)]) expect(() => disarm(file)).toThrow(/not an ELF/)
    for (const file of [armed.subarray(0, 100), changed(54, 0), changed(39, 1), changed(57, 255)]) expect(() => disarm(file)).toThrow(/program headers/)
    expect(() => disarm(armed.subarray(0, 1024))).toThrow(/dynamic section/)
    expect(() => neededLibraries(armed.subarray(0, 1024))).toThrow(/dynamic section/)
  })
})
