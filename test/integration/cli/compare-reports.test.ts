import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { renderHtml } from '../../../src/compare/report/html.js'
import { exec } from '../../lib/daemon.js'
import { comparison } from '../../unit/compare/fixture.js'

const program = resolve(import.meta.dirname, '../../../bin/hull')
let scratch: string
let file: string
let other: string
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'hull-compare-'))
  file = join(scratch, 'a.json')
  other = join(scratch, 'b.json')
  const changed = comparison()
  changed.host.kernel = '7.0'
  await writeFile(file, JSON.stringify(comparison()))
  await writeFile(other, JSON.stringify(changed))
})
afterAll(() => rm(scratch, { recursive: true, force: true }))
// No daemon: a socket that is not there.
const compare = (...args: string[]) => exec(program, ['-H', `unix://${join(scratch, 'none.sock')}`, 'compare', ...args])

describe('hull compare, of what was measured', () => {
  it('shows a comparison as a table, as its JSON and as a page', async () => {
    const page = join(scratch, 'page.html')
    const table = await compare('--show', file, '--html', page)
    expect(table).toMatchObject({ code: 0, stderr: '' })
    expect(table.stdout).toMatch(/create, start, first output, exit +70\.0 ms/)
    expect(table.stdout).not.toContain('\u001b')
    expect(await readFile(page, 'utf8')).toBe(renderHtml(comparison()))
    expect(JSON.parse((await compare('--show', file, '--format', 'json')).stdout)).toEqual(comparison())
  })
  it('shows what changed between two', async () => {
    const said = await compare('--diff', file, other)
    expect(said.stdout).toMatch(/^A {2}\S+a\.json[\s\S]*! kernel: 6\.18\.44 → 7\.0[\s\S]*0 of 41 changed/)
    expect(JSON.parse((await compare('--format', 'json', '--diff', file, other)).stdout)).toHaveLength(41)
  })
  it.each<[string, () => string[], number, RegExp]>([
    ['no such file', () => ['--show', '/nosuch.json'], 1, /\/nosuch\.json: no such file or directory/],
    ['what is none', () => ['--diff', file, '/etc/hostname'], 1, /\/etc\/hostname: not JSON/],
    ['one file', () => ['--diff', file], 125, /--diff wants two files/],
    ['a page of two', () => ['--html', 'x', '--diff', file, other], 125, /--html is for one/],
    ['a page where none can be', () => ['--show', file, '--html', '/nosuch/page.html'], 1, /open \/nosuch\/page\.html: /],
    ['another format', () => ['--show', file, '--format', 'xml'], 125, /must be table or json/],
  ])('%s', async (_name, args, code, why) => {
    const said = await compare(...args())
    expect([said.code, said.stdout]).toEqual([code, ''])
    expect(said.stderr).toMatch(why)
  })
})
