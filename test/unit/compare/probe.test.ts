import { execFile } from 'node:child_process'
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { PROBES } from '../../../src/compare/probe/catalog.js'
import { PROBE_IMAGE, withProbeArchive } from '../../../src/compare/probe/image.js'
import { fioJobs, iperfReceived, perfBench, qperfLatency, sysbenchCpu, sysbenchMemory, wrkRequests } from '../../../src/compare/probe/parse.js'

/** What the tools of Debian 12 really said (test/unit/compare/outputs). */
const output = (name: string) => readFile(join(import.meta.dirname, 'outputs', name), 'utf8')
const none = /cannot be understood/

describe('what tools say', () => {
  it('is read', async () => {
    expect(sysbenchCpu(await output('sysbench-cpu.txt'))).toBe(3334.4)
    expect(sysbenchMemory(await output('sysbench-memory.txt'))).toBeCloseTo(10_205.28 * 1.048576, 6)
    expect(perfBench(await output('perf-syscall.txt'))).toBe(5_019_551)
    expect(perfBench(await output('perf-pipe.txt'))).toBe(128_148)
    expect(qperfLatency(await output('qperf.txt'))).toBe(56.066)
    expect(wrkRequests(await output('wrk.txt'))).toBe(91_704.35)
    expect(iperfReceived(await output('iperf3.json'))).toBeCloseTo(12_819.492771724077, 6)
    const jobs = fioJobs(await output('fio.json'))
    expect([...jobs.keys()]).toEqual(['sequential-write', 'sequential-read', 'random-read', 'random-write', 'fsync'])
    expect(jobs.get('sequential-write')!.megabytes).toBeCloseTo(2272.961, 3)
    expect(jobs.get('random-read')).toEqual({ megabytes: expect.closeTo(32.948, 3) as number, operations: 8043.912176, fsync: 0 })
    expect(jobs.get('fsync')!.fsync).toBe(179.2)
  })

  const texts: [string, string, (text: string) => unknown][] = [
    ['sysbench cpu', 'sysbench-cpu.txt', sysbenchCpu], ['sysbench memory', 'sysbench-memory.txt', sysbenchMemory], ['perf', 'perf-syscall.txt', perfBench], ['qperf', 'qperf.txt', qperfLatency],
    ['wrk', 'wrk.txt', wrkRequests], ['iperf3', 'iperf3.json', iperfReceived], ['fio', 'fio.json', fioJobs],
  ]
  it.each(texts)('%s: what says nothing, says it twice, or says another tool\'s words is refused', async (_name, file, parse) => {
    const text = await output(file)
    for (const bad of ['', '\n', '\0'.repeat(1000), 'a'.repeat(1 << 18), '{}', '[]', 'null', '{"end":null}', '{"jobs":[{}]}', '{"__proto__":{"jobs":[]},"jobs":1}', text + text, text.slice(0, text.length / 3)]) expect(() => parse(bad), bad.slice(0, 40)).toThrow(none)
    for (const [, other] of texts.filter(([, name]) => name.split('.')[0] !== file.split('.')[0] && !name.startsWith('sysbench'))) {
      const words = await output(other)
      expect(() => parse(words), other).toThrow(none)
    }
  })
  it.each<[string, string, string, (text: string) => unknown]>([
    ['zero', '3334.40', '0.00', sysbenchCpu], ['below zero', '3334.40', '-5.00', sysbenchCpu], ['no number', '3334.40', 'nan', sysbenchCpu], ['too great', '3334.40', '9999999999999.00', sysbenchCpu],
    ['an exponent', '3334.40', '1e300', sysbenchCpu], ['a cursor that moves', '3334.40', '\u001b[2K3.00', sysbenchCpu],
  ])('%s is no figure', async (_name, word, other, parse) => {
    const text = await output('sysbench-cpu.txt')
    expect(text).toContain(word)
    expect(() => parse(text.replace(word, other))).toThrow(none)
  })
  it('numbers of JSON have bounds, too', async () => {
    const text = await output('iperf3.json')
    for (const bad of ['-1', '0', '1e300', '"13"', 'null', '1e999']) expect(() => iperfReceived(text.replace(/("sum_received":[^}]*"bits_per_second":\s*)[\d.]+/, `$1${bad}`)), bad).toThrow(/cannot be understood: end\.sum_received/)
    expect(() => iperfReceived('{"error":"unable to connect"}')).toThrow(none)
    const fio = await output('fio.json')
    expect(() => fioJobs(fio.replace('"error" : 0', '"error" : 22'))).toThrow(/jobs\.0\.error/)
    expect(() => fioJobs(fio.replace('"jobname" : "seq', '"jobname" : 7, "x" : "seq'))).toThrow(/jobs\.0\.jobname/)
  })
  it('fio may warn before it begins, and must tell of every job', async () => {
    const disk = PROBES.find(({ name }) => name === 'disk')!
    const fio = await output('fio.json')
    expect(Object.keys(disk.parse(`fio: this is a warning {\n${fio}`)).sort()).toEqual(disk.figures.map(({ id }) => id).sort())
    expect(() => disk.parse(fio.replace('"jobname" : "fsync"', '"jobname" : "other"'))).toThrow(/nothing of its job fsync/)
  })
  it('answers that are errors are no speed', async () => {
    expect(() => wrkRequests(`${'  Non-2xx or 3xx responses: 7\n'}${'Requests/sec: 12.00\n'}`)).toThrow(/errors for answers/)
    expect(() => wrkRequests(`${'  Socket errors: connect 0, read 3, write 0, timeout 0\n'}${'Requests/sec: 12.00\n'}`)).toThrow(/errors for answers/)
  })
})

describe('the probe image', () => {
  let directory: string
  const path = process.env['PATH']
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'hull-probe-test-'))
    process.env['TMPDIR'] = directory
  })
  afterEach(async () => {
    process.env['PATH'] = path
    delete process.env['TMPDIR']
    await rm(directory, { recursive: true, force: true })
  })
  const mmdebstrap = async (script: string) => {
    const bin = await mkdtemp(join(directory, 'bin-'))
    await writeFile(join(bin, 'mmdebstrap'), `#!/bin/sh\n${script}\n`)
    await chmod(join(bin, 'mmdebstrap'), 0o755)
    process.env['PATH'] = `${bin}:${path}`
  }
  const left = async () => (await readdir(directory)).filter((name) => !name.startsWith('bin-'))
  const unused = () => Promise.reject(new Error('there is an archive'))

  it('is a docker-archive of what mmdebstrap wrote', async () => {
    await mmdebstrap('printf layer')
    const chunks: Buffer[] = []
    await withProbeArchive(new AbortController().signal, async (archive) => {
      expect(await left()).toEqual([]) // its file has no name
      for await (const chunk of archive) chunks.push(chunk as Buffer)
    })
    const file = join(directory, 'bin-archive')
    await writeFile(file, Buffer.concat(chunks))
    const run = promisify(execFile)
    const member = async (name: string) => (await run('tar', ['-xOf', file, name])).stdout
    const [manifest] = JSON.parse(await member('manifest.json')) as [{ Config: string; RepoTags: string[]; Layers: string[] }]
    expect(manifest).toMatchObject({ RepoTags: [PROBE_IMAGE], Layers: ['layer.tar'] })
    expect(await member('layer.tar')).toBe('layer')
    // echo -n layer | sha256sum
    expect(JSON.parse(await member(manifest.Config))).toMatchObject({ rootfs: { diff_ids: ['sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85'] } })
  })
  it.each<[string, string, RegExp]>([
    ['fails', 'echo "E: apt-get update failed" >&2; exit 25', /^mmdebstrap ended with 25: E: apt-get update failed$/], ['says nothing', 'exit 1', /^mmdebstrap ended with 1: $/],
    ['floods', 'head -c 10000000 /dev/zero | tr "\\0" x >&2; exit 1', /^mmdebstrap ended with 1: x{1,2000}$/],
  ])('an mmdebstrap that %s', async (_name, script, why) => {
    await mmdebstrap(script)
    await expect(withProbeArchive(new AbortController().signal, unused)).rejects.toThrow(why)
    expect(await left()).toEqual([])
  })
  it('no mmdebstrap', async () => {
    process.env['PATH'] = directory
    await expect(withProbeArchive(new AbortController().signal, unused)).rejects.toThrow(/mmdebstrap is not installed \(apt-get install mmdebstrap\)/)
    expect(await left()).toEqual([])
  })
  it('is given up when that is wanted', async () => {
    await mmdebstrap('trap "echo gone > $TMPDIR/bin-gone; exit 1" TERM; echo ready > $TMPDIR/bin-ready; while :; do sleep 0.05; done')
    const wanted = new AbortController()
    const made = withProbeArchive(wanted.signal, unused)
    made.catch(() => {})
    while (!(await readdir(directory)).includes('bin-ready')) await new Promise((resolve) => setTimeout(resolve, 20))
    wanted.abort(new Error('enough'))
    await expect(made).rejects.toThrow('enough')
    expect(await readFile(join(directory, 'bin-gone'), 'utf8')).toBe('gone\n') // it was waited for
  })
})
