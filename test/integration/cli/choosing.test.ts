import { readFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { busyboxRoot, dockerArchive } from '../../../src/cli/demo/archive.js'
import { exec, TestDaemon } from '../../lib/daemon.js'

const root = resolve(import.meta.dirname, '../../..')

/** Commands of the document with what they should print: lines of ```console blocks. */
const claims = [...readFileSync(join(root, 'docs/choosing.md'), 'utf8').matchAll(/^( *)```console\n([\s\S]*?)^ *```$/gm)]
  .flatMap(([, indent, block]) => block!.replace(new RegExp(`^${indent}`, 'gm'), '').split(/^\$ /m).slice(1))
  .map((text) => {
    const [command, ...expected] = text.trimEnd().split('\n')
    return { command: command!, expected }
  })

/** '…' is anything (alone on a line: any lines), a number with a point any such number, spaces are as many as there are. */
function pattern(expected: readonly string[]): RegExp {
  const lines = expected.map((line) => (line === '…' ? '(?:.*\\n)*' : `${line.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/\d+\\\.\d+/g, '\\d+\\.\\d+').replace(/\s+/g, '\\s+').replaceAll('…', '.*')} *\\n`))
  return new RegExp(`^${lines.join('')}$`)
}

let daemon: TestDaemon
beforeAll(async () => {
  daemon = await TestDaemon.start()
  const applets = (await exec('/bin/busybox', ['--list'])).stdout.split('\n').filter(Boolean)
  const archive = join(daemon.directory, 'busybox.tar')
  await writeFile(archive, dockerArchive('busybox', busyboxRoot(await readFile('/bin/busybox'), applets), { Env: ['PATH=/bin'], Cmd: ['sh'] }))
  expect(await daemon.hull(['load', '-i', archive])).toMatchObject({ code: 0 })
})
afterAll(async () => {
  await daemon.hull(['rm', '-f', 'box', 'machine'])
  await daemon.destroy()
})

describe('docs/choosing.md', () => {
  it('has claims', () => {
    expect(claims.length).toBeGreaterThan(30)
    expect('real\t0m0.176s\nuser 1\n').toMatch(pattern(['real 0m0.822s', '…']))
    expect('another kernel\n').not.toMatch(pattern(['the same kernel']))
  })
  it.each(claims)('$command', async ({ command, expected }) => {
    const said = await exec('bash', ['-c', command], { env: { ...process.env, PATH: `${join(root, 'bin')}:${process.env['PATH']}`, HULL_HOST: daemon.host, XDG_STATE_HOME: join(daemon.directory, 'state') } })
    // The warning that VMs are emulated here comes with each of them.
    const words = (said.stderr + said.stdout).split('\n').filter((line) => line.trim() !== '' && !line.startsWith('WARNING: isolation vm: running under software emulation')).map((line) => `${line}\n`).join('')
    expect(words).toMatch(pattern(expected))
  })
})
