import { PassThrough } from 'node:stream'
import { describe, expect, it, vi } from 'vitest'
import { Archive, archivePathOf, goFileMode } from '../../../src/engine/archive.js'
import { changedConfig } from '../../../src/engine/commit.js'
import type { Container } from '../../../src/engine/container.js'
import { FileJobs } from '../../../src/engine/file-jobs.js'
import type { Lifecycle } from '../../../src/engine/lifecycle.js'
import { applyChange } from '../../../src/image/changes.js'
import { FileError, fileJob, splitFrames, type FileJob } from '../../../src/sandbox/files.js'

describe('paths and modes of docker cp', () => {
  it('keep the slash or dot at the end, which means the directory behind a link', () => {
    const cases: [string, string][] = [
      ['a', '/a'], ['/a/', '/a/'], ['/a/.', '/a/.'], ['.', '/.'], ['/', '/'], ['//a//b/../c', '/a/c'], ['../../x', '/x'], ['/a/./', '/a/'], ['/a/b/..', '/a'], ['/..', '/'],
    ]
    for (const [given, expected] of cases) expect(archivePathOf(given), given).toBe(expected)
    expect(() => archivePathOf('/a\0b')).toThrow('NUL')
  })

  it('are Go’s', () => {
    expect(goFileMode(0o100644)).toBe(0o644)
    expect(goFileMode(0o040755)).toBe(2147484141) // ModeDir | 0755
    expect(goFileMode(0o120777)).toBe(134218239) // ModeSymlink | 0777
    expect(goFileMode(0o104711)).toBe(2 ** 23 + 0o711)
    expect(goFileMode(0o041777)).toBe(2 ** 31 + 2 ** 20 + 0o777)
    expect(goFileMode(0o020666)).toBe(2 ** 26 + 2 ** 21 + 0o666)
    expect(goFileMode(0o010600)).toBe(2 ** 25 + 0o600)
  })
})

describe('docker commit --change', () => {
  it('takes the old CMD away with a new ENTRYPOINT, unless a CMD came first', () => {
    expect(changedConfig({ Cmd: ['old'] }, ['ENTRYPOINT ["e"]'])).toEqual({ Entrypoint: ['e'] })
    expect(changedConfig({ Cmd: ['old'] }, ['CMD ["new"]', 'ENTRYPOINT ["e"]'])).toEqual({ Cmd: ['new'], Entrypoint: ['e'] })
    expect(changedConfig({ Cmd: ['old'] }, ['entrypoint ["e"]', 'CMD ["new"]'])).toEqual({ Cmd: ['new'], Entrypoint: ['e'] })
  })

  it('knows health checks', () => {
    const health = (line: string) => {
      const config = {}
      applyChange(config, line)
      return (config as { Healthcheck: object }).Healthcheck
    }
    expect(health('HEALTHCHECK NONE')).toEqual({ Test: ['NONE'] })
    expect(health('HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=2s --retries=3 CMD curl -f /')).toEqual({
      Test: ['CMD-SHELL', 'curl -f /'], Interval: 90e9, Timeout: 5e8, StartPeriod: 2e9, Retries: 3,
    })
    expect(health('healthcheck CMD ["a","b"]')).toEqual({ Test: ['CMD', 'a', 'b'] })
    for (const [line, words] of [
      ['HEALTHCHECK --interval=x CMD a', 'invalid duration'], ['HEALTHCHECK --nope=1 CMD a', 'Unknown flag'], ['HEALTHCHECK RUN a', 'Unknown type "RUN"'], ['HEALTHCHECK CMD', 'Missing command'],
      ['HEALTHCHECK NONE x', 'takes no arguments'], ['HEALTHCHECK --interval=1us CMD a', 'less than 1ms'],
    ]) expect(() => health(line!), line).toThrow(words)
  })
})

/** A hull-files whose ends the test holds. */
function fake(operation: Parameters<typeof fileJob>[1], whenKilled: () => void = () => {}) {
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()]
  let end!: (how: string) => void
  const ended = new Promise<string>((resolve) => (end = resolve))
  let killed = 0
  const kill = () => {
    if (killed++ === 0) whenKilled()
  }
  const job = fileJob({ stdin, stdout, stderr, ended, kill }, operation)
  const finish = (how: string) => {
    stdout.end()
    stderr.end()
    setImmediate(() => end(how))
  }
  return { job, stdout, stderr, finish, killed: () => killed }
}

describe('the reports of hull-files', () => {
  it('tell the stat first and the verdict last; the output ends with the verdict', async () => {
    const { job, stdout, stderr, finish } = fake({ op: 'get', path: '/x', name: 'x' })
    stderr.write('{"mode":33188,"size":5,"mtime":1.5,"li')
    stderr.write('nk":""}\nnoise that is no JSON\n')
    expect(await job.head).toMatchObject({ mode: 0o100644, size: 5, link: '' })
    stdout.write('bytes')
    stderr.write('{"ok":true,"size":7}\n')
    finish('exit code 0')
    const chunks: Buffer[] = []
    for await (const chunk of job.output) chunks.push(chunk as Buffer)
    expect(Buffer.concat(chunks).toString()).toBe('bytes')
    expect(await job.done).toEqual({ size: 7 })
  })

  it('make the output fail when the work does', async () => {
    const { job, stdout, stderr, finish } = fake({ op: 'export' })
    stdout.write('half')
    stderr.write('{"error":"no \\u0007 space","errno":28}\n')
    finish('exit code 1')
    await expect((async () => {
      for await (const _ of job.output);
    })()).rejects.toThrow('no ? space')
    await expect(job.done).rejects.toMatchObject({ errno: 28 })
  })

  it('are not believed without an end: a killed one has failed', async () => {
    const { job, finish } = fake({ op: 'stat', path: '/' })
    job.output.resume()
    finish('SIGKILL')
    await expect(job.head).rejects.toBeInstanceOf(FileError)
    await expect(job.done).rejects.toThrow('ended early (SIGKILL)')
  })

  it('end the work when nobody reads it any more', async () => {
    const { job, killed } = fake({ op: 'export' })
    job.output.destroy()
    await new Promise((resolve) => setImmediate(resolve))
    expect(killed()).toBe(1)
  })
})

describe('docker diff', () => {
  const container = { id: 'c' } as Container
  const archiveOf = (job: FileJob) => new Archive({ openFiles: async () => job } as unknown as Lifecycle)
  const never = new AbortController().signal

  it('takes the paths apart, wherever the output is cut', async () => {
    const text = Buffer.from('C/etc\0A/etc/naïve\nname\0X/no kind\0A\0\0D/mnt\0')
    for (const size of [1, 2, 3, 7, text.length]) {
      const { job, stdout, stderr, finish } = fake({ op: 'changes' })
      const changes = archiveOf(job).changes(container, never)
      for (let at = 0; at < text.length; at += size) stdout.write(text.subarray(at, at + size))
      stderr.write('{"ok":true}\n')
      finish('exit code 0')
      expect(await changes).toEqual([{ kind: 0, path: '/etc' }, { kind: 1, path: '/etc/naïve\nname' }, { kind: 2, path: '/mnt' }])
    }
  })

  it.each([
    ['text', `A/${'x'.repeat(4000)}\0`.repeat(16)],
    ['paths', 'A/\0'.repeat(20_000)],
    ['one path', 'A'.repeat(60_000)],
    ['nothing that is a path', '\0'.repeat(60_000)],
  ])('a guest that tells of it without an end is cut off: %s', async (_what, piece) => {
    let cut = false
    const { job, stdout, finish } = fake({ op: 'changes' }, () => (cut = true))
    const changes = archiveOf(job).changes(container, never)
    const refused = expect(changes).rejects.toThrow('more changes than can be listed')
    const chunk = Buffer.from(piece)
    let sent = 0
    for (; !cut && sent < 200e6; sent += chunk.length) {
      if (!stdout.write(chunk)) await new Promise((resolve) => setImmediate(resolve))
    }
    finish('SIGKILL')
    expect(cut).toBe(true)
    expect(sent).toBeLessThan(80e6)
    await refused
  })

  it('ends when its client goes', async () => {
    const { job, stdout, finish } = fake({ op: 'changes' }, () => finish('SIGKILL'))
    const client = new AbortController()
    const changes = archiveOf(job).changes(container, client.signal)
    const failed = expect(changes).rejects.toThrow('SIGKILL')
    stdout.write('A/x\0')
    await new Promise((resolve) => setTimeout(resolve, 20))
    client.abort()
    await failed
  })
})

describe('a size', () => {
  it.each(['1e300', '-1', '1.5'])('is not taken from a guest that says %s: no client’s int64 holds it', async (size) => {
    const { job, stderr, finish } = fake({ op: 'size' })
    stderr.write(`{"ok":true,"size":${size}}\n`)
    finish('exit code 0')
    await expect(new Archive({ openFiles: async () => job } as unknown as Lifecycle).size({ id: 'c' } as Container)).rejects.toThrow('does not tell its size')
  })
})

describe('framed output', () => {
  it('comes apart at any boundary', async () => {
    const frame = (stream: number, text: string) => Buffer.concat([Buffer.from([stream, 0, 0, 0, 0, 0, 0, text.length]), Buffer.from(text)])
    const all = Buffer.concat([frame(1, 'one'), frame(2, 'err'), frame(1, ''), frame(1, 'two')])
    for (const size of [1, 2, 3, 7, 9, all.length]) {
      const source = new PassThrough()
      const { stdout, stderr } = splitFrames(source)
      const text = { out: '', err: '' }
      stdout.on('data', (chunk: Buffer) => (text.out += chunk.toString()))
      stderr.on('data', (chunk: Buffer) => (text.err += chunk.toString()))
      const over = Promise.all([stdout, stderr].map((stream) => new Promise((resolve) => stream.once('end', resolve))))
      for (let at = 0; at < all.length; at += size) source.write(all.subarray(at, at + size))
      source.end()
      await over
      expect(text).toEqual({ out: 'onetwo', err: 'err' })
    }
  })
})

describe('work on files before a start', () => {
  it('is waited for', async () => {
    const jobs = new FileJobs()
    await jobs.settled()
    let finish!: () => void
    const done = new Promise<{ size: number }>((resolve) => (finish = () => resolve({ size: 0 })))
    jobs.add({ done, cancel: () => {} } as unknown as FileJob)
    let settled = false
    const waiting = jobs.settled().then(() => (settled = true))
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(settled).toBe(false)
    finish()
    await waiting
    await jobs.settled()
  })

  it('is ended when it takes too long, and does not hold the container for ever when it cannot be', async () => {
    vi.useFakeTimers()
    try {
      const jobs = new FileJobs()
      let cancelled = 0
      jobs.add({ done: new Promise(() => {}), cancel: () => void cancelled++ } as unknown as FileJob)
      let outcome = ''
      jobs.settled().then(() => (outcome = 'settled'), (error: Error) => (outcome = error.message))
      await vi.advanceTimersByTimeAsync(9999)
      expect([cancelled, outcome]).toEqual([0, ''])
      await vi.advanceTimersByTimeAsync(1)
      expect([cancelled, outcome]).toEqual([1, ''])
      await vi.advanceTimersByTimeAsync(10_000)
      expect(outcome).toContain('does not end')
      // One that ends when it is told to.
      const others = new FileJobs()
      let end!: () => void
      others.add({ done: new Promise<void>((resolve) => (end = resolve)), cancel: () => end() } as unknown as FileJob)
      const settled = others.settled()
      await vi.advanceTimersByTimeAsync(10_000)
      await settled
      expect(others.idle).toBe(true)
    } finally {
      vi.useRealTimers()
    }
  })
})
