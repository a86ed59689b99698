import { afterEach, beforeEach, expect, test } from 'vitest'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { run, runOk } from '../../../src/base/run.js'
import { Nft } from '../../../src/network/nft.js'
import { waitFor } from './lib.js'

const table = 'hulltest-nft'
const path = process.env['PATH']
let nft: Nft

beforeEach(async () => {
  nft = new Nft()
  await nft.script(`table ip ${table} {\n  map m {\n    type inet_proto . inet_service : ipv4_addr . inet_service\n  }\n}\n`)
})
afterEach(async () => {
  process.env['PATH'] = path
  nft.close()
  await run('nft', ['delete', 'table', 'ip', table])
})

const add = (port: number, to = 1) => `add element ip ${table} m { tcp . ${port} : 10.0.0.${to} . 80 }`
const remove = (port: number) => `delete element ip ${table} m { tcp . ${port} }`
async function ports(): Promise<number[]> {
  const { stdout } = await runOk('nft', ['list', 'map', 'ip', table, 'm'])
  return [...stdout.matchAll(/tcp \. (\d+) :/g)].map((match) => Number(match[1])).sort((a, b) => a - b)
}

test('a line is one transaction; errors come back with nft\'s words and change nothing', async () => {
  await nft.command([add(1), add(2)])
  expect(await ports()).toEqual([1, 2])
  await expect(nft.command([add(3), add(2, 9)])).rejects.toThrow(/File exists/)
  await expect(nft.command([remove(77)])).rejects.toThrow(/No such file or directory/)
  await expect(nft.command(['gibberish'])).rejects.toThrow(/syntax error/)
  await expect(nft.command(['a\nb'])).rejects.toThrow('newline')
  await nft.command([])
  expect(await ports()).toEqual([1, 2])
  await nft.command([remove(1), add(4)])
  expect(await ports()).toEqual([2, 4])
  expect(nft.mode).toBe('interactive')
})

test('many at once: each gets its own answer, in order', async () => {
  const results = await Promise.allSettled(Array.from({ length: 60 }, (_, i) => nft.command([i % 3 === 2 ? add(100 + i - 1, 2) : add(100 + i)])))
  expect(results.map((result) => result.status)).toEqual(Array.from({ length: 60 }, (_, i) => (i % 3 === 2 ? 'rejected' : 'fulfilled')))
  expect(await ports()).toHaveLength(40)
})

test('what others change meanwhile is seen', async () => {
  await nft.command([add(1)])
  await runOk('nft', [`delete element ip ${table} m { tcp . 1 }`])
  await nft.command([add(1, 2)])
  await runOk('nft', ['delete', 'table', 'ip', table])
  await expect(nft.command([add(2)])).rejects.toThrow(/No such file/)
})

test('a line of a thousand elements', async () => {
  const list = Array.from({ length: 1000 }, (_, i) => `tcp . ${i + 1} : 10.0.0.1 . 80`).join(', ')
  await nft.command([`add element ip ${table} m { ${list} }`])
  expect(await ports()).toHaveLength(1000)
})

test('the process is killed: the command under way is done still, the next starts another', async () => {
  await nft.command([add(1)])
  const first = nft.pid!
  process.kill(first, 'SIGKILL')
  await nft.command([add(2)])
  await waitFor(async () => {
    await nft.command([add(3)])
    return nft.pid !== undefined && nft.pid !== first
  })
  expect(await ports()).toEqual([1, 2, 3])
  expect(nft.mode).toBe('interactive')
})

test('a stopped process is given up after some seconds', async () => {
  await nft.command([add(1)])
  process.kill(nft.pid!, 'SIGSTOP')
  await nft.command([add(2)])
  expect(await ports()).toEqual([1, 2])
  expect(nft.mode).toBe('spawn')
  await nft.command([add(3)])
  expect(await ports()).toEqual([1, 2, 3])
})

test('an nft that is not interactive: a process for each command', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hull-nft-'))
  const real = (await runOk('sh', ['-c', 'command -v nft'])).stdout.trim()
  await writeFile(join(directory, 'nft'), `#!/bin/sh\n[ "$1" = -i ] && exit 1\nexec ${real} "$@"\n`)
  await chmod(join(directory, 'nft'), 0o755)
  process.env['PATH'] = `${directory}:${path}`
  await Promise.all([nft.warm(), nft.command([add(1)]), nft.command([add(2)])])
  expect(nft.mode).toBe('spawn')
  await expect(nft.command([add(2, 7)])).rejects.toThrow(/File exists/)
  expect(await ports()).toEqual([1, 2])
  await rm(directory, { recursive: true })
})

test('no nft at all is a clear error', async () => {
  process.env['PATH'] = '/nonexistent'
  await expect(nft.command([add(1)])).rejects.toThrow('nft: program not found (Debian package nftables)')
  await expect(nft.script('x')).rejects.toThrow('Debian package nftables')
})

test('close ends the process', async () => {
  await nft.warm()
  const pid = nft.pid!
  nft.close()
  await waitFor(() => {
    try {
      process.kill(pid, 0)
      return false
    } catch {
      return true
    }
  })
  await nft.command([add(9)])
  expect(await ports()).toEqual([9])
})
