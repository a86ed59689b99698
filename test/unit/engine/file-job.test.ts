import { spawn } from 'node:child_process'
import { expect, it } from 'vitest'
import { fileJob, type FileJob } from '../../../src/sandbox/files.js'

/** A job with more output than its pipe holds. */
function talkative(): FileJob {
  const child = spawn('sh', ['-c', 'head -c 3000000 /dev/zero; echo \'{"ok":true,"size":1}\' >&2'], { stdio: ['pipe', 'pipe', 'pipe'] })
  const ended = new Promise<string>((resolve) => void child.once('close', (code, signal) => resolve(signal ?? `exit code ${code}`)))
  return fileJob({ stdin: child.stdin, stdout: child.stdout, stderr: child.stderr, ended, kill: () => void child.kill('SIGKILL') }, { op: 'export' })
}

const settled = (job: FileJob) => job.done.then(() => 'done', () => 'failed')
const moment = () => new Promise((resolve) => setTimeout(resolve, 200))

// A removal of the container waits for the end of its jobs (found by make fuzz-api, seed 20261126: it waited for ever).
it('a job that is cancelled ends, though nobody has read its output', async () => {
  const job = talkative()
  await moment()
  job.cancel()
  job.cancel()
  expect(await settled(job)).toBe('failed')
  await moment()
  expect(job.output.destroyed).toBe(true)
})

it('a job ends when the reader of its output goes away in the middle', async () => {
  const job = talkative()
  await new Promise((resolve) => job.output.once('data', resolve))
  job.output.pause()
  await moment()
  job.output.destroy()
  expect(await settled(job)).toBe('failed')
})

it('a job whose output is read to its end is done, and a late cancel changes nothing', async () => {
  const job = talkative()
  let size = 0
  for await (const chunk of job.output) size += (chunk as Buffer).length
  expect(size).toBe(3_000_000)
  expect(await settled(job)).toBe('done')
  job.cancel()
})
