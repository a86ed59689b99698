import { spawn } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { PROBES } from '../../../src/compare/probe/catalog.js'
import { parseComparison } from '../../../src/compare/schema.js'
import { isMissing, type FigureSection, type Subject } from '../../../src/compare/types.js'
import { exec, type TestDaemon, until, type Said } from '../../lib/daemon.js'
import { testImage } from '../../lib/image.js'
import { probeArchive } from '../../lib/probe-image.js'
import { CompareLab, program } from './compare-lab.js'

// Section `perf` of `hull compare`.

const ids = PROBES.flatMap(({ figures }) => figures.map(({ id }) => id))
let lab: CompareLab
let daemon: TestDaemon

beforeAll(async () => {
  lab = await CompareLab.open()
  ;({ daemon } = lab)
}, 60_000)
afterAll(() => lab.close())

const words = (...args: string[]) => ['--sections', 'perf', '--format', 'json', ...args, testImage]
const compare = (...args: string[]): Promise<Said> => lab.compare(...words(...args))
const perfOf = (said: Said): FigureSection => {
  expect(said.stderr).toBe('')
  return parseComparison(said.stdout).sections.perf!
}
const resultOf = ({ figures }: FigureSection, id: string, subject: Subject) => figures.find((figure) => figure.id === id)?.results[subject]

/** Command lines of the processes that there are: this file has a pid namespace of its own. */
async function processes(): Promise<string[]> {
  const found = await Promise.all((await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')))
  return found.map((line) => line.replaceAll('\0', ' ').trim())
}
const toolsThatRun = async () => (await processes()).filter((line) => /^(timeout|setpriv|nsenter|sysbench|fio|iperf3|qperf|nginx|wrk|perf|taskset)\b|\/bin\/sh -c "\$@"/.test(line))
async function nothingIsLeft(): Promise<void> {
  expect(await daemon.ok('ps', '-aq')).toBe('')
  expect(await daemon.ok('volume', 'ls', '-q')).toBe('')
  // Of the host's own: none needs more than the moment in which its end is seen.
  await until('the tools are gone', async () => (await toolsThatRun()).length === 0, 5000)
}

// First: the image is not there yet, and tests see no network.
it('without the tools\' image and a way to make it the section says so', async () => {
  const section = perfOf(await compare('--isolation', 'process'))
  expect(section).toMatchObject({ figures: [], skipped: expect.stringMatching(/^the image hull-probe:1 is not there, and cannot be made: mmdebstrap ended with \d+: .*; --probe takes another/) as string })
}, 60_000)

it('measures both isolations and the bare host, in figures that commands repeat, and leaves nothing', async () => {
  await daemon.ok('load', '-q', '-i', await probeArchive())
  const section = perfOf(await compare('--isolation', 'process,vm-cold,vm', '--time', '10'))
  expect(section.figures.map(({ id }) => id)).toEqual(ids)
  for (const { id, results } of section.figures) {
    expect(Object.keys(results), id).toEqual(['host', 'process', 'vm'])
    for (const [subject, result] of Object.entries(results)) {
      expect(isMissing(result) ? result.missing : '', `${id}, ${subject}`).toBe('')
      if (!isMissing(result)) expect(result.median, `${id}, ${subject}`).toBeGreaterThan(0)
    }
  }
  expect(section.notes.join(' ')).toMatch(/hull-probe:1.*A VM that boots is, when it runs/)
  await nothingIsLeft()
  const run = (id: string, subject: Subject) => {
    const result = resultOf(section, id, subject)!
    return exec('sh', ['-c', isMissing(result) ? 'false' : result.command], { env: { DOCKER_HOST: daemon.host } })
  }
  for (const subject of ['host', 'process', 'vm'] as const) expect((await run('cpu', subject)).stdout, subject).toMatch(/events per second: +\d/)
  // The client of these is the person's own, on the host: the bare host's has both ends.
  expect((await run('network-latency', 'host')).stdout).toMatch(/latency += +\d/)
  await nothingIsLeft()
}, 300_000)

it.each<[string, () => Promise<string>, Record<string, RegExp>]>([
  ['an image without the tools', () => Promise.resolve(testImage), { cpu: /^the probe image has no sysbench$/, 'disk-fsync': /^the probe image has no fio$/, 'network-latency': /^the probe image has no qperf$/ }],
  ['an image without anything', () => lab.importImage('test/empty:1', 'true'), { cpu: /sleep.*(not found|no such file)/i, 'network-requests': /sleep.*(not found|no such file)/i }],
])('%s: every row says why it is missing', async (_name, image, reasons) => {
  const section = perfOf(await compare('--isolation', 'process,vm', '--time', '10', '--probe', await image()))
  for (const [id, reason] of Object.entries(reasons)) {
    for (const subject of ['host', 'process', 'vm'] as const) expect(resultOf(section, id, subject), `${id}, ${subject}`).toMatchObject({ missing: expect.stringMatching(reason) as string })
  }
  await nothingIsLeft()
}, 120_000)

it('an image that is not there', async () => {
  expect(await compare('--probe', 'nosuch:1')).toMatchObject({ code: 1, stderr: expect.stringMatching(/No such image: nosuch:1/) as string })
})

it.each(['SIGINT', 'SIGKILL'] as const)('%s: nothing is left, or the next comparison finds it', async (signal) => {
  const child = spawn(program, lab.arguments(...words('--isolation', 'process')), { stdio: 'ignore', env: lab.env })
  const code = new Promise<number | null>((done) => child.once('exit', done))
  await until('a tool runs on the bare host', async () => (await processes()).some((line) => /^sysbench/.test(line)))
  child.kill(signal)
  expect(await code).toBe(signal === 'SIGINT' ? 130 : null)
  if (signal === 'SIGKILL') {
    expect(await daemon.ok('ps', '-aq')).not.toBe('')
    // Servers on the host end with the one that wanted them, at once.
    await until('the servers are gone', async () => !(await processes()).some((line) => /\/bin\/sh -c "\$@"/.test(line)), 5000)
    expect((await lab.compare('--isolation', 'process', '--sections', 'portability', testImage, 'true')).code).toBe(0)
  }
  await nothingIsLeft()
}, 120_000)
