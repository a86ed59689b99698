import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sectionsOf } from '../../bench/report.js'
import { interleave } from '../../bench/interleave.js'
import { exec } from '../lib/daemon.js'

const root = resolve(import.meta.dirname, '../..')
let directory: string

beforeAll(async () => void (directory = await mkdtemp(join(tmpdir(), 'hull-benchtest-'))))
afterAll(() => rm(directory, { recursive: true, force: true }))

const bench = (out: string, env: NodeJS.ProcessEnv) => exec('npx', ['--no-install', 'tsx', join(root, 'bench/main.ts')], { env: { ENGINES: 'hull', ROUNDS: '1', OUT: out, ...env }, timeoutMs: 280_000 })

describe('make bench', () => {
  it('measures the parts that are asked for, writes its report, and keeps what it did not measure', async () => {
    const out = join(directory, 'report.md')
    await writeFile(out, '# Old\n\n### Pull\n\nkept as it was\n\n### Exec\n\nold figures\n')
    const said = await bench(out, { BENCH: 'exec,many', MANY: '5' })
    expect(said.code, said.stderr + said.stdout).toBe(0)
    const report = sectionsOf(await readFile(out, 'utf8'))
    expect(report.get('Pull')).toBe('kept as it was')
    expect(report.get('Exec')).toMatch(/\| hull process \| \d+\.\d \| .*\| 1 \| 1\.000 \|/)
    expect(report.get('Exec')).toMatch(/\| hull vm \| \d+\.\d \|/)
    expect(report.get('ps and inspect beside 5 containers')).toMatch(/docker inspect[^]*\| hull \| \d/)
  }, 300_000)

  it('make bench-density fills the machine, writes its figures beside the others, and draws them', async () => {
    const out = join(directory, 'density')
    await mkdir(out)
    await writeFile(join(out, 'benchmarks.md'), '# Benchmarks\n\nhead\n\n### Pull\n\nkept as it was\n')
    const env = { DENSITY_VMS: '2', DENSITY_CONTAINERS: '3', DENSITY_PEER: '0', DENSITY_IDLE: '1', DENSITY_OUT: out }
    const said = await exec('npx', ['--no-install', 'tsx', join(root, 'bench/density/main.ts')], { env, timeoutMs: 280_000 })
    expect(said.code, said.stderr + said.stdout).toBe(0)
    const text = await readFile(join(out, 'benchmarks.md'), 'utf8')
    expect(text).toMatch(/^# Benchmarks\n\nhead\n/)
    expect(sectionsOf(text).get('Pull')).toBe('kept as it was')
    const figures = /\| (VM before a workload|VM with a sleeping shell|hull, container) \| (\d) \| -?[\d.]+ \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \| (\d+) \| (\d+) \|/g
    const rows = [...text.matchAll(figures)]
    expect(rows.map((row) => [row[1], row[2]])).toEqual([['VM before a workload', '2'], ['VM with a sleeping shell', '2'], ['hull, container', '3']])
    const [bare, shell, container] = rows.map((row) => Number(row[3]))
    expect(container).toBeGreaterThan(0)
    expect(bare).toBeGreaterThan(5 * container!)
    expect(shell).toBeGreaterThan(bare!)
    expect(await readFile(join(out, 'benchmarks-density.svg'), 'utf8')).toMatch(/^<svg [^]*VM with a sleeping shell[^]*<\/svg>\n$/)
  }, 300_000)

  it('names the parts there are when it is asked for others', async () => {
    const said = await bench(join(directory, 'none.md'), { BENCH: 'run,nosuch' })
    expect(said.code).toBe(2)
    expect(said.stderr).toContain('BENCH=nosuch: want some of run, exec, pull, memory, dns, port, many, cp')
  })

  it('stops when its time is over, but counts one round', async () => {
    const results = await interleave(['a', 'b'], 1000, async () => {
      await new Promise((done) => setTimeout(done, 5))
      return 1
    }, 1)
    expect(results.get('a')!.n).toBeGreaterThanOrEqual(1)
    expect(results.get('a')!.n).toBeLessThan(1000)
  })
})
