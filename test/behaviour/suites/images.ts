import { spawn } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exec, TestDaemon, until } from '../../lib/daemon.js'
import { buildTestImage, testImage } from '../../lib/image.js'
import { remaining, type Snapshot, snapshot } from '../../lib/leaks.js'
import { startRegistry, type TestRegistry } from '../../lib/registry.js'
import { tar } from '../../lib/tar.js'

/** Building, saving and pushing images, as a user of Docker sees them; RUN steps and what was built run in `isolation`. */
export function defineImages(isolation: 'process' | 'vm'): void {
  const vm = isolation === 'vm'
  let daemon: TestDaemon
  let before: Snapshot
  let scratch: string
  let registry: TestRegistry
  const ok = (...args: string[]) => daemon.ok(...args)
  const run = (...args: string[]) => ok('run', '--rm', `--isolation=${isolation}`, ...args)

  beforeAll(async () => {
    before = await snapshot()
    daemon = await TestDaemon.start([`--default-isolation=${isolation}`])
    await buildTestImage(daemon)
    registry = await startRegistry()
    scratch = await mkdtemp(join(tmpdir(), 'hull-build-'))
  })

  afterAll(async () => {
    await registry?.stop()
    await rm(scratch, { recursive: true, force: true })
    await daemon.destroy()
    expect(await remaining(before)).toEqual([])
  })

  /** A context of these files; those that begin with '#!' can be run. */
  async function context(files: Record<string, string | Buffer>): Promise<string> {
    const directory = await mkdtemp(join(scratch, 'c-'))
    for (const [name, content] of Object.entries(files)) {
      await mkdir(join(directory, name, '..'), { recursive: true })
      await writeFile(join(directory, name), content)
      if (content.toString().startsWith('#!')) await chmod(join(directory, name), 0o755)
    }
    return directory
  }
  const build = (directory: string, ...args: string[]) => exec('docker', ['build', ...args, directory], { env: { DOCKER_HOST: daemon.host, DOCKER_BUILDKIT: '0' } })
  /** What an interrupted or failed build must not leave. */
  async function nothingLeft(): Promise<void> {
    expect(await ok('ps', '-aq')).toBe('')
    expect(await readdir(join(daemon.dataRoot, 'image/ingest'))).toEqual([])
    expect((await readdir(join(daemon.dataRoot, 'overlay'))).filter((name) => name !== 'l' && name !== '.removed')).toEqual([])
    await until('what was moved aside is deleted', async () => (await readdir(join(daemon.dataRoot, 'overlay/.removed'))).length === 0)
    expect((await readFile('/proc/self/mountinfo', 'utf8')).split('\n').filter((line) => line.includes(`${daemon.dataRoot}/overlay`))).toEqual([])
  }

  describe(`images, isolation ${isolation}`, () => {
    it('build: RUN behind the wall, COPY, ADD, ARG, ENV, stages; the result runs', async () => {
      const directory = await context({
        Dockerfile: [
          `ARG BASE=${testImage}`, 'FROM $BASE AS maker', 'ARG WHO=nobody', 'ENV GREETING="hello $WHO" OTHER=\'$WHO\'',
          'WORKDIR /work/deep', 'RUN uname -r > /kernel; id -u > /uid; echo "$GREETING" > /greeting; ln -s greeting /link; pwd > where && echo "$WHO" > who',
          `FROM ${testImage}`, 'LABEL stage=last', 'COPY --from=maker /kernel /uid /link /made/', 'COPY --from=0 /work /work', 'COPY a*.txt dir/ /ctx/', 'COPY --chown=user:extra --chmod=640 secret /home/user/own',
          'ADD archive.tar.gz /unpacked/', 'COPY archive.tar.gz /', 'USER user', 'RUN id -u > /tmp/as', 'ENTRYPOINT ["cat"]', 'CMD ["/made/link"]',
        ].join('\n'),
        'a1.txt': 'one', 'a2.txt': 'two', 'dir/tool': '#!/bin/sh\necho tool', 'dir/sub/x': 'x', secret: 's', ignored: 'i', '.dockerignore': 'ignored\n',
        'archive.tar.gz': gzipSync(tar([{ name: 'inside', content: 'from the archive', uid: 5, gid: 6 }])),
      })
      const said = await build(directory, '--build-arg', 'WHO=me', '--build-arg', 'UNUSED=1', '-t', 'built:1', '-t', 'built:also', '--label', 'x=y z')
      expect(said).toMatchObject({ code: 0 })
      expect(said.stdout).toMatch(/Step 1\/19 : ARG BASE=/)
      expect(said.stdout).toMatch(/ ---> Running in [0-9a-f]{12}\n/)
      expect(said.stdout).toContain('[Warning] One or more build-args [UNUSED] were not consumed')
      expect(said.stdout).toMatch(/Successfully built [0-9a-f]{12}\nSuccessfully tagged built:1\nSuccessfully tagged built:also\n$/)
      expect(await run('built:1')).toBe('hello me')
      const host = (await exec('uname', ['-r'])).stdout.trim()
      // The kernel that the step ran on, and the result.
      const seen = await run('--entrypoint=sh', 'built:1', '-c', 'cat /made/kernel /made/uid /work/deep/where /work/deep/who /tmp/as /ctx/a1.txt /ctx/sub/x /unpacked/inside; /ctx/tool; stat -c "%U:%G %a" /home/user/own; stat -c %u:%g /unpacked/inside; ls /archive.tar.gz /ctx/ignored 2>/dev/null; true')
      const [kernel, ...rest] = seen.split('\n')
      expect(kernel === host).toBe(!vm)
      expect(rest.join('\n')).toBe('0\n/work/deep\nme\n1000\nonexfrom the archivetool\nuser:extra 640\n5:6\n/archive.tar.gz')
      const [image] = JSON.parse(await ok('image', 'inspect', 'built:1')) as [{ Id: string; Parent: string; Config: { Labels: object; User: string; Entrypoint: string[]; Cmd: string[] } }]
      expect(image.Config).toMatchObject({ Labels: { stage: 'last', x: 'y z' }, User: 'user', Entrypoint: ['cat'], Cmd: ['/made/link'] })
      expect(await ok('history', '--no-trunc', '--format', '{{.CreatedBy}}', 'built:1')).toContain('/bin/sh -c id -u > /tmp/as\n')
      // And in the other isolation.
      expect(await ok('run', '--rm', `--isolation=${vm ? 'process' : 'vm'}`, 'built:1')).toBe('hello me')

      // Again: all from the cache, the same image; a changed file breaks it from there on.
      const again = await build(directory, '--build-arg', 'WHO=me', '--label', 'x=y z', '-q')
      expect(again.stdout).toBe(`${image.Id}\n`)
      await writeFile(join(directory, 'a1.txt'), 'other')
      const changed = await build(directory, '--build-arg', 'WHO=me', '-t', 'built:2')
      expect(changed.stdout.split('Using cache').length - 1).toBe(6)
      expect(await ok('run', '--rm', '--isolation=process', '--entrypoint=cat', 'built:2', '/ctx/a1.txt')).toBe('other')
      // Steps are shown by -a alone, and go with what was built on them.
      expect((await ok('images', '-aq')).split('\n').length).toBeGreaterThan((await ok('images', '-q')).split('\n').length)
      await ok('rmi', 'built:2', 'built:1', 'built:also')
      await ok('image', 'prune', '-f')
      expect(await ok('images', '-aq', '--no-trunc')).toBe(await ok('images', '-q', '--no-trunc', testImage))
      await nothingLeft()
    }, 240_000)

    it('build: what is wrong, told as Docker tells it, and nothing left', async () => {
      const failing = async (dockerfile: string, ...args: string[]) => build(await context({ Dockerfile: dockerfile }), ...args)
      const from = `FROM ${testImage}\n`
      const step = await failing(`${from}RUN echo out; echo err >&2; exit 7`)
      expect(step).toMatchObject({ code: 7, stdout: expect.stringContaining('out\nerr\n') as unknown })
      expect(step.stderr).toContain("The command '/bin/sh -c echo out; echo err >&2; exit 7' returned a non-zero code: 7")
      const cases: [string, string, string[]?][] = [
        [`${from}COPY gone /x`, 'COPY failed: file not found in build context or excluded by .dockerignore: stat gone: file does not exist'],
        [`${from}COPY ../../etc/passwd /x`, 'COPY failed: file not found in build context'],
        [`${from}COPY Dockerfile Dockerfile /x`, 'When using COPY with more than one source file, the destination must be a directory and end with a /'],
        [`${from}COPY --chown=noone Dockerfile /x`, 'noone'],
        [`${from}RUN --mount=type=cache,target=/x true`, 'the --mount option requires BuildKit'],
        [`${from}WHAT x`, 'dockerfile parse error on line 2: unknown instruction: WHAT'],
        [`${from}ADD http://127.0.0.1:1/x /x`, 'ADD from a URL is not supported by Hull'],
        ['FROM scratch', 'No image was generated. Is your Dockerfile empty?'],
        ['RUN true', 'no build stage in current context'],
        [`${from}RUN true`, 'failed to reach build target nowhere in Dockerfile', ['--target', 'nowhere']],
        [from, 'invalid reference format', ['-t', 'Not:Valid:']],
        [from, 'No such file or directory', ['--build-arg', 'x=y', '-f', '/nonexistent/Dockerfile']],
        ['FROM 127.0.0.1:1/none', 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'],
      ]
      for (const [dockerfile, message, args = []] of cases) {
        const said = await failing(dockerfile, ...args)
        expect(said.code, message).not.toBe(0)
        expect(said.stderr.toLowerCase(), dockerfile).toContain(message.toLowerCase())
      }
      await nothingLeft()
    })

    it('build: a base from a registry, from scratch, ONBUILD, a failed command not found', async () => {
      await ok('tag', testImage, `${registry.host}/base:1`)
      await ok('push', '-q', `${registry.host}/base:1`)
      await ok('rmi', `${registry.host}/base:1`)
      const base = await build(await context({ Dockerfile: `FROM ${registry.host}/base:1\nONBUILD COPY late /late\nONBUILD RUN cat /late`, late: '' }), '-t', 'onbuild')
      expect(base).toMatchObject({ code: 0 })
      const said = await build(await context({ Dockerfile: 'FROM onbuild\nCMD cat /late', late: 'triggered' }), '-t', 'triggered')
      expect(said.stdout).toContain('# Executing 2 build triggers')
      expect(await run('triggered')).toBe('triggered')
      const scratched = await build(await context({ Dockerfile: `FROM scratch\nENV A=b\nCOPY file /dir/\nCOPY --from=${testImage} /bin/busybox /bin/busybox\nENTRYPOINT ["/bin/busybox"]\nCMD ["cat", "/dir/file"]`, file: 'alone' }), '-t', 'scratched')
      expect(scratched).toMatchObject({ code: 0 })
      expect(await run('scratched')).toBe('alone')
      expect((await build(await context({ Dockerfile: `FROM ${testImage}\nRUN ["/no/such/command"]` }))).stderr).toMatch(/no such file or directory/)
      await ok('rmi', 'triggered', 'onbuild', 'scratched', `${registry.host}/base:1`)
      await ok('image', 'prune', '-f')
      await nothingLeft()
    })

    it('build: a stage squashed into one layer, sources below each other\'s links, words of RUN, triggers of a stage', async () => {
      const squash = await build(await context({ Dockerfile: `FROM ${testImage} AS build\nRUN echo built > /made\nFROM scratch\nCOPY --from=build / /\nCOPY --from=build /mad* /again/\nCMD ["cat", "/made", "/again/made"]` }), '-t', 'squashed')
      expect(squash).toMatchObject({ code: 0 })
      expect(await run('squashed')).toBe('built\nbuilt')

      // The link's target on the host, and the same place in the image.
      const host = await mkdtemp(join(scratch, 'host-'))
      const links = await build(await context({ Dockerfile: `FROM ${testImage} AS evil\nRUN mkdir -p /a ${host} && ln -s ${host} /a/link && echo x > ${host}/evil\nFROM ${testImage}\nCOPY --from=evil /a /a/link/evil /dst/\nCMD ["cat", "/dst/evil"]` }), '-t', 'linked')
      expect(links).toMatchObject({ code: 0 })
      expect(await readdir(host)).toEqual([])
      expect(await run('linked')).toBe('x')

      const touch = async (words: string) => (await build(await context({ Dockerfile: `FROM ${testImage}\nWORKDIR /words\nRUN ${words}\nCMD ls -1 /words` }), '-q')).stdout.trim()
      const [one, two] = [await touch('["touch", "a b"]'), await touch('["touch", "a", "b"]')]
      expect([await run(one), await run(two)]).toEqual(['a b', 'a\nb'])

      const triggers = await build(await context({ Dockerfile: `FROM ${testImage} AS base\nONBUILD RUN echo triggered > /trigger\nFROM base\nCMD cat /trigger` }), '-t', 'staged')
      expect(triggers.stdout).toContain('# Executing 1 build trigger\n')
      expect(await run('staged')).toBe('triggered')
      expect(await ok('image', 'inspect', '-f', '{{len .Config.OnBuild}}', 'staged')).toBe('0')
      // The client sends both, since the daemon reads them.
      const ignoring = await context({ Dockerfile: `FROM ${testImage}\nCOPY . /ctx/\nCMD ls -A1 /ctx`, '.dockerignore': '.dockerignore\n**/Docker*\n', kept: '' })
      expect(await build(ignoring, '-t', 'ignoring')).toMatchObject({ code: 0 })
      expect(await run('ignoring')).toBe('kept')
      await ok('rmi', 'squashed', 'linked', 'staged', 'ignoring', one, two)
      await ok('image', 'prune', '-f')
      await nothingLeft()
    })

    it('build: a client that goes away takes the build along; so does a daemon that is killed', async () => {
      const directory = await context({ Dockerfile: `FROM ${testImage}\nRUN echo started; sleep 1000` })
      const begin = () => spawn('docker', ['build', '--no-cache', directory], { env: { ...process.env, DOCKER_HOST: daemon.host, DOCKER_BUILDKIT: '0' }, stdio: 'ignore' })
      const running = () => until('the step runs', async () => (await ok('ps', '-q')) !== '', 60_000)
      const gone = begin()
      await running()
      gone.kill('SIGKILL')
      await until('the step is gone', async () => (await ok('ps', '-aq')) === '', 60_000)
      await nothingLeft()

      const orphan = begin()
      await running()
      await daemon.down('SIGKILL')
      await daemon.up()
      await nothingLeft()
      orphan.kill('SIGKILL')
    })

    it('build over the API as docker-compose and dockerode ask for it', async () => {
      const body = gzipSync(tar([{ name: 'Dockerfile', content: `FROM ${testImage}\nRUN echo via the API` }]))
      const lines = await new Promise<Record<string, unknown>[]>((resolve, reject) => {
        const call = request({ socketPath: daemon.socket, method: 'POST', path: '/v1.41/build?t=api:1&q=False&rm=True&forcerm=False&nocache=False&pull=False', headers: { 'content-type': 'application/tar', 'content-encoding': 'gzip' } }, (answer) => {
          let text = ''
          answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk)).on('error', reject)
          answer.on('end', () => resolve(text.trim().split('\r\n').map((line) => JSON.parse(line) as Record<string, unknown>)))
        })
        call.on('error', reject)
        call.end(body)
      })
      expect(lines.map((line) => line.stream)).toContain('via the API\n')
      expect(lines.find((line) => line.aux)).toMatchObject({ aux: { ID: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) as unknown } })
      expect(lines.at(-1)).toEqual({ stream: 'Successfully tagged api:1\n' })
      await ok('rmi', 'api:1')
    })

    it('login, push, pull by digest, save and load, search, df: the docker CLI', async () => {
      const name = `${registry.host}/team/app`
      await ok('tag', testImage, `${name}:1`)
      expect(await ok('push', `${name}:1`)).toMatch(/1: digest: sha256:[0-9a-f]{64} size: \d+$/)
      const digests = await ok('images', '--digests', '--format', '{{.Repository}}@{{.Digest}}', name)
      expect(digests).toMatch(/@sha256:[0-9a-f]{64}$/)
      await ok('save', '-o', join(scratch, 'saved.tar'), `${name}:1`)
      await ok('rmi', `${name}:1`)
      await ok('pull', '-q', digests)
      expect(await run(digests, 'echo', 'by digest')).toBe('by digest')
      await ok('rmi', digests)
      expect(await ok('load', '-q', '-i', join(scratch, 'saved.tar'))).toBe(`Loaded image: ${name}:1`)
      expect(await run(`${name}:1`, 'echo', 'loaded')).toBe('loaded')
      await ok('rmi', `${name}:1`)
      // One image by two repositories' digests and no tag: image prune takes it along, as it is in nobody's use.
      const [one, two] = [`${registry.host}/prune/one`, `${registry.host}/prune/two`]
      for (const repository of [one, two]) {
        await ok('tag', testImage, `${repository}:1`)
        await ok('push', '-q', `${repository}:1`)
      }
      const built = join(scratch, 'prune')
      await mkdir(built)
      await writeFile(join(built, 'Dockerfile'), `FROM ${testImage}\nLABEL prune=${isolation}\n`)
      await ok('build', '-q', '-t', `${one}:2`, '-t', `${two}:2`, built)
      const since = String(Date.now() / 1000)
      const pruned = await ok('inspect', '-f', '{{.Id}}', `${one}:2`)
      const digests2: string[] = []
      for (const repository of [one, two]) digests2.push(`${repository}@${/sha256:[0-9a-f]{64}/.exec(await ok('push', `${repository}:2`))![0]}`)
      await ok('rmi', `${one}:2`)
      for (const digest of digests2) await ok('pull', '-q', digest)
      await ok('tag', pruned, 'prune/kept:1')
      await ok('rmi', `${two}:2`)
      for (const digest of digests2) await ok('pull', '-q', digest)
      await ok('rmi', 'prune/kept:1')
      expect(JSON.parse(await ok('inspect', '-f', '{{json .RepoDigests}} ', pruned))).toHaveLength(2)
      expect(await ok('image', 'prune', '-f')).toContain(pruned)
      expect((await daemon.docker(['inspect', pruned])).code).toBe(1)
      const told = (await ok('events', '--since', since, '--until', String(Date.now() / 1000), '--filter', 'type=image', '--filter', 'event=delete', '--format', '{{.Actor.ID}}')).split('\n')
      expect(told).toEqual([pruned]) // the image, and not its layers
      await ok('rmi', `${one}:1`, `${two}:1`)
      const login = await daemon.docker(['--config', scratch, 'login', '-u', 'any', '-p', 'thing', registry.host])
      expect(login.stdout).toContain('Login Succeeded')
      expect((await daemon.docker(['search', `${registry.host}/x`])).stderr).toContain('has no search')
      expect(await ok('system', 'df', '--format', '{{.Type}} {{.TotalCount}}')).toMatch(/^Images \d+\nContainers 0\n/)
      expect(await ok('system', 'df', '-v')).toContain('SHARED SIZE')
    })
  })
}
