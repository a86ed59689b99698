import { connect } from 'node:net'
import { expect } from 'vitest'
import { cases, check, demuxed, refused, sleep, tarOf, testImage, text, until, untar } from './harness.js'

check('containers', 'create, start, wait, remove', async (c) => {
  // Docker stamps the start when it hears of it: what ends at once has ended before, by its clock.
  const made = await c.create({ script: 'sleep 0.3; exit 3', name: c.name() })
  expect((await made.inspect()).State).toMatchObject({ Status: 'created', Running: false, Pid: 0 })
  await made.start()
  expect(await made.wait()).toMatchObject({ StatusCode: 3 })
  const state = (await made.inspect()).State
  expect(state).toMatchObject({ Status: 'exited', ExitCode: 3, Running: false })
  expect(Date.parse(state.FinishedAt)).toBeGreaterThanOrEqual(Date.parse(state.StartedAt))
  await made.remove()
  await refused(404, /^No such container: /, made.inspect())
})

check('containers', 'docker.run pipes the output', async (c) => {
  const { PassThrough } = await import('node:stream')
  const out = new PassThrough()
  const read = text(out)
  const [result] = (await c.docker.run(testImage, ['sh', '-c', 'echo from run; exit 2'], out, { HostConfig: { AutoRemove: true }, Tty: true })) as [{ StatusCode: number }]
  out.end()
  expect(result.StatusCode).toBe(2)
  expect((await read).toString()).toBe('from run\r\n')
})

check('containers', 'inspect has what clients read', async (c) => {
  const made = await c.shared()
  const said = await made.inspect()
  expect(said).toMatchObject({
    Id: made.id, Path: 'sh', Args: ['-c', expect.any(String)], RestartCount: 0, Platform: 'linux', Driver: expect.any(String), Name: expect.stringMatching(/^\//),
    Config: { Image: testImage, Tty: false, OpenStdin: false, AttachStdout: false, Labels: { shared: 'yes' }, Env: [expect.stringMatching(/^PATH=/)], Entrypoint: null, WorkingDir: '', User: '' },
    HostConfig: { AutoRemove: false, Privileged: false, NetworkMode: 'default', ReadonlyRootfs: false, Binds: null, CapAdd: null, LogConfig: { Type: 'json-file', Config: {} }, RestartPolicy: { MaximumRetryCount: 0 } },
    NetworkSettings: { Networks: { bridge: { NetworkID: expect.stringMatching(/^[0-9a-f]{64}$/), IPPrefixLen: expect.any(Number) } } },
    Mounts: [],
  })
  expect(said.Image).toMatch(/^sha256:[0-9a-f]{64}$/)
  expect(said.Created).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/)
  const { bridge } = said.NetworkSettings.Networks
  expect(bridge!.IPAddress).toMatch(/^\d+\.\d+\.\d+\.\d+$/)
  expect(bridge!.MacAddress).toMatch(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/)
  expect((said.NetworkSettings as unknown as { IPAddress: string }).IPAddress).toBe(bridge!.IPAddress)
})

check('containers', 'inspect with sizes', async (c) => {
  const made = await c.start({ script: 'dd if=/dev/zero of=/big bs=1k count=50 2> /dev/null' })
  await made.wait()
  const said = (await made.inspect({ size: true } as object)) as unknown as { SizeRw: number; SizeRootFs: number }
  expect(said.SizeRw).toBeGreaterThanOrEqual(50 * 1024)
  expect(said.SizeRootFs).toBeGreaterThan(said.SizeRw)
  expect((await made.inspect()) as object).not.toHaveProperty('SizeRw')
})

check('containers', 'one like another can be made from what inspect says', async (c) => {
  const first = await c.create({
    script: 'echo $A', Env: ['A=same'], Labels: { k: 'v' }, ExposedPorts: { '80/tcp': {} },
    HostConfig: { Memory: 64 << 20, NanoCpus: 500_000_000, PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '' }] }, RestartPolicy: { Name: 'no' }, Tmpfs: { '/t': '' } },
  })
  const said = await first.inspect()
  const second = await c.create({ ...said.Config, HostConfig: said.HostConfig })
  await second.start()
  expect(await second.wait()).toMatchObject({ StatusCode: 0 })
  expect(demuxed(await second.logs({ stdout: true })).out).toBe('same\n')
  expect((await second.inspect()).HostConfig).toMatchObject({ Memory: 64 << 20, MemorySwap: 128 << 20, NanoCpus: 500_000_000 })
})

check('containers', 'attach over one connection: input, both outputs, the end', async (c) => {
  const made = await c.create({ script: 'read x; echo "out $x"; echo "err $x" >&2; read y || echo end', OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true })
  const stream = await made.attach({ stream: true, hijack: true, stdin: true, stdout: true, stderr: true })
  const said = c.demux(stream)
  await made.start()
  stream.write('hello\n')
  await sleep(200)
  stream.end()
  expect(await said).toEqual({ out: 'out hello\nend\n', err: 'err hello\n' })
  expect(await made.wait()).toMatchObject({ StatusCode: 0 })
})

check('containers', 'attach to a terminal is not framed', async (c) => {
  const made = await c.create({ script: 'echo plain; sleep 0.2', Tty: true })
  const stream = await made.attach({ stream: true, stdout: true, stderr: true })
  const read = text(stream)
  await made.start()
  expect((await read).toString()).toBe('plain\r\n')
})

check('containers', 'attach gives one stream when one is asked', async (c) => {
  const made = await c.create({ script: 'echo out; echo err >&2' })
  const stream = await made.attach({ stream: true, stdout: false, stderr: true })
  const said = c.demux(stream)
  await made.start()
  expect(await said).toEqual({ out: '', err: 'err\n' })
})

check('containers', 'two clients attach to one container', async (c) => {
  const made = await c.create({ script: 'echo both; sleep 0.2' })
  const streams = await Promise.all([1, 2].map(() => made.attach({ stream: true, stdout: true, stderr: true })))
  const said = Promise.all(streams.map((stream) => c.demux(stream)))
  await made.start()
  expect((await said).map(({ out }) => out)).toEqual(['both\n', 'both\n'])
})

check('containers', 'detach keys end the attach, not the container', async (c) => {
  const made = await c.start({ script: 'while :; do sleep 0.2; done', Tty: true, OpenStdin: true })
  const stream = await made.attach({ stream: true, hijack: true, stdin: true, stdout: true, stderr: true, detachKeys: 'ctrl-a,x' })
  const ended = text(stream)
  stream.write('\x01x')
  await ended
  expect((await made.inspect()).State.Running).toBe(true)
})

check('containers', 'wait for removal', async (c) => {
  const made = await c.start()
  const waiting = made.wait({ condition: 'removed' })
  await sleep(200)
  await made.remove({ force: true })
  expect(await waiting).toMatchObject({ StatusCode: 137 })
})

check('containers', 'wait is given up when the client goes', async (c) => {
  const made = await c.start()
  const abort = new AbortController()
  const waiting = made.wait({ abortSignal: abort.signal } as object).then(() => 'ended', () => 'aborted')
  await sleep(200)
  abort.abort()
  expect(await waiting).toBe('aborted')
  expect((await made.inspect()).State.Running).toBe(true)
})

check('containers', 'logs as a stream end with the container', async (c) => {
  const made = await c.start({ script: 'for n in 1 2 3; do echo $n; sleep 0.1; done; echo e >&2' })
  const stream = await made.logs({ follow: true, stdout: true, stderr: true })
  expect(await c.demux(stream)).toEqual({ out: '1\n2\n3\n', err: 'e\n' })
})

check('containers', 'logs need a stream', async (c) => {
  await refused(400, /you must choose at least one stream/, (await c.shared()).logs({} as object))
})

check('containers', 'logs tail, since, until and timestamps', async (c) => {
  const made = await c.start({ script: 'for n in 1 2 3 4; do echo $n; done' })
  await made.wait()
  const logs = async (options: object) => demuxed(await made.logs({ stdout: true, stderr: true, ...options } as object)).out
  expect(await logs({ tail: 2 })).toBe('3\n4\n')
  expect(await logs({ since: Math.floor(Date.now() / 1000) + 100 })).toBe('')
  expect(await logs({ until: 1 })).toBe('')
  const lines = (await logs({ timestamps: true })).trim().split('\n')
  expect(lines).toHaveLength(4)
  for (const line of lines) expect(line).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z \d$/)
  // The stamp of a line is where the rest begins.
  const stamp = lines[2]!.split(' ')[0]!
  const since = `${Math.floor(Date.parse(stamp) / 1000)}.${stamp.slice(20, 29)}`
  expect((await logs({ since })).endsWith('3\n4\n')).toBe(true)
})

check('containers', 'logs with the labels that the driver was told to keep', async (c) => {
  const made = await c.start({ script: 'echo x', Labels: { tier: 'one', other: 'two' }, HostConfig: { LogConfig: { Type: 'json-file', Config: { labels: 'tier' } } } })
  await made.wait()
  expect(demuxed(await made.logs({ stdout: true, details: true } as object)).out).toBe('tier=one x\n')
})

check('containers', 'top', async (c) => {
  const made = await c.shared()
  const said = (await made.top()) as { Titles: string[]; Processes: string[][] }
  expect(said.Titles).toEqual(expect.arrayContaining(['UID', 'PID', 'PPID', 'CMD']))
  expect(said.Processes.some((row) => row.at(-1)!.includes('echo ready'))).toBe(true)
  expect(((await made.top({ ps_args: '-o pid,comm' })) as { Titles: string[] }).Titles).toEqual(['PID', 'COMMAND'])
})

check('containers', 'stats: one sample, a first one, and a stream', async (c) => {
  const made = await c.shared()
  const one = await made.stats({ stream: false })
  expect(one.cpu_stats.cpu_usage.total_usage).toBeGreaterThan(0)
  expect(one.memory_stats.usage).toBeGreaterThan(0)
  expect(one.precpu_stats.cpu_usage.total_usage).toBeGreaterThan(0)
  const first = await made.stats({ stream: false, 'one-shot': true })
  expect(first.precpu_stats.cpu_usage.total_usage).toBe(0)
  const stream = await made.stats({ stream: true })
  const lines: string[] = []
  for await (const chunk of stream) {
    lines.push(...String(chunk).split('\n').filter((line) => line !== ''))
    if (lines.length >= 2) break
  }
  expect(JSON.parse(lines[1]!).preread).toBe(JSON.parse(lines[0]!).read)
})

cases<[string, object, number, RegExp]>('containers', 'refused', [
  ['a name with a space', 'create', { name: 'a b', Image: testImage }, 400, /^Invalid container name \(a b\), only \[a-zA-Z0-9\]\[a-zA-Z0-9_.-\] are allowed$/],
  ['an unknown image', 'create', { Image: 'nosuch:1' }, 404, /^No such image: nosuch:1$/],
  ['no command', 'create', { Image: 'empty' }, 404, /^No such image: empty:latest$/],
  ['a wrong type', 'create', { Image: testImage, Cmd: 5 }, 400, /json|JSON|Cmd/],
  ['a port that is none', 'create', { Image: testImage, ExposedPorts: { 'x/tcp': {} } }, 400, /port/i],
  ['a host port that is none', 'create', { Image: testImage, HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '99999' }] } } }, 400, /port/i],
  ['too little memory', 'create', { Image: testImage, HostConfig: { Memory: 1000 } }, 400, /^Minimum memory limit allowed is 6MB$/],
  ['an unknown restart policy', 'create', { Image: testImage, HostConfig: { RestartPolicy: { Name: 'sometimes' } } }, 400, /invalid restart policy/],
  ['a negative retry count', 'create', { Image: testImage, HostConfig: { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: -1 } } }, 400, /maximum (restart|retry) count cannot be negative/i],
  ['a retry count for always', 'create', { Image: testImage, HostConfig: { RestartPolicy: { Name: 'always', MaximumRetryCount: 2 } } }, 400, /maximum (restart|retry) count (cannot|can only) be used/i],
  ['an unknown isolation', 'create', { Image: testImage, HostConfig: { Isolation: 'nosuch' } }, 400, /isolation/i],
  ['a mount without a target', 'create', { Image: testImage, HostConfig: { Mounts: [{ Type: 'volume', Source: 'x', Target: '' }] } }, 400, /field Target must not be empty/],
  ['a mount of an unknown type', 'create', { Image: testImage, HostConfig: { Mounts: [{ Type: 'nosuch', Source: 'x', Target: '/x' }] } }, 400, /mount type unknown/],
  ['a bind with a relative target', 'create', { Image: testImage, HostConfig: { Binds: ['/tmp:relative'] } }, 400, /mount path must be absolute|invalid mount path/],
  ['a bind over the root', 'create', { Image: testImage, HostConfig: { Binds: ['/tmp:/'] } }, 400, /destination can't be '\/'/],
  ['a bind with an unknown mode', 'create', { Image: testImage, HostConfig: { Binds: ['/tmp:/x:nosuch'] } }, 400, /invalid mode: nosuch/],
  ['a health check interval below a millisecond', 'create', { Image: testImage, Healthcheck: { Test: ['CMD', 'true'], Interval: 1000 } }, 400, /Interval in Healthcheck cannot be less than 1ms/],
  ['an environment variable without a name', 'create', { Image: testImage, Env: ['=x'] }, 400, /invalid environment variable: =x/],
  ['a device that is not there', 'start', { Image: testImage, Cmd: ['true'], HostConfig: { Devices: [{ PathOnHost: '/dev/nosuch', PathInContainer: '/dev/x', CgroupPermissions: 'rwm' }] } }, 400, /\/dev\/nosuch/],
], async (c, verb, body, status, words) => {
  const made = c.docker.createContainer(body).then(async (container) => {
    c.later(() => container.remove({ force: true }))
    if (verb === 'start') await container.start()
  })
  await refused(status, words, made)
})

check('containers', 'start, stop and restart when there is nothing to do', async (c) => {
  const made = await c.start()
  await refused(304, /./, made.start())
  await made.stop({ t: 0 })
  await refused(304, /./, made.stop())
  await made.restart({ t: 0 })
  expect((await made.inspect()).State.Running).toBe(true)
})

check('containers', 'kill, pause and unpause', async (c) => {
  const made = await c.start()
  await made.pause()
  expect((await made.inspect()).State).toMatchObject({ Status: 'paused', Paused: true, Running: true })
  await refused(409, /is already paused|already paused/, made.pause())
  await made.unpause()
  await made.kill({ signal: 'SIGKILL' })
  expect(await made.wait()).toMatchObject({ StatusCode: 137 })
  await refused(409, /is not running/, made.kill())
})

check('containers', 'rename', async (c) => {
  const name = c.name()
  const made = await c.create({ name: c.name() })
  await made.rename({ name })
  expect((await c.docker.getContainer(name).inspect()).Id).toBe(made.id)
  await refused(400, /Neither old nor new names may be empty|empty/, made.rename({ name: '' }))
})

check('containers', 'update limits while it runs', async (c) => {
  const made = await c.start({ HostConfig: { Memory: 128 << 20 } })
  await made.update({ Memory: 96 << 20, MemorySwap: 192 << 20, PidsLimit: 77 })
  expect((await made.inspect()).HostConfig).toMatchObject({ Memory: 96 << 20, PidsLimit: 77 })
  await refused(400, /Minimum memory limit allowed is 6MB/, made.update({ Memory: 1000 }))
})

check('containers', 'changes', async (c) => {
  const made = await c.start({ script: 'mkdir /dir; echo x > /dir/f; rm /etc/group; exec sleep 600' })
  await until('it wrote', async () => (await c.exec(made, ['test', '!', '-e', '/etc/group'])).code === 0)
  const found = new Map(((await made.changes()) as { Path: string; Kind: number }[]).map(({ Path, Kind }) => [Path, Kind]))
  expect(Object.fromEntries(['/dir', '/dir/f', '/etc', '/etc/group'].map((path) => [path, found.get(path)]))).toEqual({ '/dir': 1, '/dir/f': 1, '/etc': 0, '/etc/group': 2 })
})

check('containers', 'export', async (c) => {
  const made = await c.start({ script: 'echo exported > /made-here; ln -s made-here /link' })
  await made.wait()
  const files = await untar(await text(await made.export()))
  expect(files['made-here']).toBe('exported\n')
  expect(files).toHaveProperty('link')
})

check('containers', 'copy in, look, copy out', async (c) => {
  const made = await c.start()
  await made.putArchive(tarOf({ 'a/b.txt': 'nested\n' }), { path: '/tmp' })
  expect((await c.exec(made, ['cat', '/tmp/a/b.txt'])).out).toBe('nested\n')
  expect(await untar(await text(await made.getArchive({ path: '/tmp/a/b.txt' })))).toEqual({ 'b.txt': 'nested\n' })
  expect(await untar(await text(await made.getArchive({ path: '/tmp/a' })))).toEqual({ 'a/': null, 'a/b.txt': 'nested\n' })
  const info = (await made.infoArchive({ path: '/tmp/a/b.txt' })) as unknown as { headers: Record<string, string> }
  const stat = JSON.parse(Buffer.from(info.headers['x-docker-container-path-stat']!, 'base64').toString()) as { name: string; size: number; mtime: string }
  expect(stat).toMatchObject({ name: 'b.txt', size: 7 })
  expect(Date.parse(stat.mtime)).toBe(1_700_000_000_000)
})

check('containers', 'copy tells what is no directory, and what is not there', async (c) => {
  const made = await c.create()
  await refused(400, /cannot overwrite non-directory|cannot overwrite|not a directory/i, made.putArchive(tarOf({ 'passwd/x': '' }), { path: '/etc', noOverwriteDirNonDir: '1' }))
  await refused(400, /extraction point is not a directory|not a directory/, made.putArchive(tarOf({ x: '' }), { path: '/etc/passwd' }))
  await refused(404, /Could not find the file \/nosuch in container|no such file/i, made.getArchive({ path: '/nosuch' }))
})

check('containers', 'copy cannot write to a read-only root', async (c) => {
  const made = await c.create({ HostConfig: { ReadonlyRootfs: true } })
  await refused(400, /container rootfs is marked read-only/, made.putArchive(tarOf({ x: '' }), { path: '/tmp' }))
})

check('containers', 'commit', async (c) => {
  const made = await c.start({ script: 'echo kept > /kept' })
  await made.wait()
  const repo = c.name()
  const { Id } = (await made.commit({ repo, tag: 'v1', comment: 'why', changes: 'CMD ["cat", "/kept"]' })) as { Id: string }
  c.later(() => c.docker.getImage(`${repo}:v1`).remove({ force: true }))
  const image = await c.docker.getImage(`${repo}:v1`).inspect()
  expect(image).toMatchObject({ Id, Comment: 'why', Config: { Cmd: ['cat', '/kept'] } })
  expect(image.RootFS.Layers).toHaveLength(2)
  const child = await c.start({ Image: `${repo}:v1` })
  await child.wait()
  expect(demuxed(await child.logs({ stdout: true })).out).toBe('kept\n')
})

check('containers', 'list: filters, limits, rows', async (c) => {
  const label = c.name()
  const first = await c.create({ Labels: { [label]: 'x' } })
  const second = await c.start({ Labels: { [label]: 'y' }, name: c.name() })
  const ids = async (options: object, filters: object = {}) => (await c.docker.listContainers({ ...options, filters: { label: [label], ...filters } } as object)).map((row) => row.Id)
  expect(await ids({})).toEqual([second.id])
  expect(await ids({ all: true })).toEqual([second.id, first.id])
  expect(await ids({ limit: 1 })).toEqual([second.id])
  expect(await ids({ all: true }, { status: ['created'] })).toEqual([first.id])
  expect(await ids({ all: true }, { label: [`${label}=x`] })).toEqual([first.id])
  expect(await ids({ all: true }, { before: [second.id] })).toEqual([first.id])
  expect(await ids({ all: true }, { since: [first.id] })).toEqual([second.id])
  expect(await ids({ all: true }, { exited: ['7'] })).toEqual([])
  const [row] = await c.docker.listContainers({ filters: { label: [label] } } as object)
  expect(row).toMatchObject({ Id: second.id, Image: testImage, State: 'running', Labels: { [label]: 'y' }, HostConfig: { NetworkMode: 'default' }, Mounts: [], Ports: [], Status: expect.stringMatching(/^Up /) })
  await refused(400, /invalid filter/i, c.docker.listContainers({ filters: { nosuch: ['x'] } } as object))
})

check('containers', 'list by volume, network, port and health', async (c) => {
  const volume = await c.volume()
  const made = await c.start({ HostConfig: { Binds: [`${volume.name}:/data`], PortBindings: { '81/tcp': [{ HostIp: '127.0.0.1', HostPort: '' }] } }, ExposedPorts: { '81/tcp': {} } })
  const found = async (filters: object) => (await c.docker.listContainers({ filters } as object)).some((row) => row.Id === made.id)
  expect(await found({ volume: [volume.name] })).toBe(true)
  expect(await found({ volume: ['/data'] })).toBe(true)
  expect(await found({ volume: ['nosuch'] })).toBe(false)
  expect(await found({ network: ['bridge'] })).toBe(true)
  const [binding] = (await made.inspect()).NetworkSettings.Ports['81/tcp']!
  expect(await found({ publish: [`${binding!.HostPort}/tcp`] })).toBe(true)
  expect(await found({ expose: ['81/tcp'] })).toBe(true)
  expect(await found({ health: ['none'] })).toBe(true)
  expect(await found({ health: ['healthy'] })).toBe(false)
})

check('containers', 'prune with filters', async (c) => {
  const label = c.name()
  const made = await c.create({ Labels: { [label]: '' } })
  const keep = await c.create()
  expect(await c.docker.pruneContainers({ filters: { label: [label] } } as object)).toMatchObject({ ContainersDeleted: [made.id] })
  await keep.inspect()
})

check('containers', 'a published port answers', async (c) => {
  const made = await c.start({ script: 'while :; do echo served | nc -l -p 80; done', ExposedPorts: { '80/tcp': {} }, HostConfig: { PublishAllPorts: true } })
  const [binding] = (await made.inspect()).NetworkSettings.Ports['80/tcp'] as { HostPort: string }[]
  const answer = () =>
    new Promise<string>((resolve) => {
      const socket = connect(Number(binding!.HostPort), '127.0.0.1')
      let read = ''
      socket.on('data', (chunk) => (read += chunk.toString()))
      socket.on('error', () => {})
      socket.on('close', () => resolve(read))
    })
  expect(await until('the port answers', async () => (await answer()) || undefined)).toBe('served\n')
})

check('containers', 'a terminal is resized', async (c) => {
  const made = await c.start({ script: 'while [ "$(stty size)" != "41 99" ]; do sleep 0.1; done; echo sized', Tty: true })
  await until('the size arrived', async () => {
    await made.resize({ h: 41, w: 99 }).catch(() => undefined)
    return !(await made.inspect()).State.Running
  })
  expect((await made.logs({ stdout: true })).toString()).toContain('sized')
})

check('containers', 'a health check goes from starting to healthy to unhealthy', async (c) => {
  const made = await c.start({ script: 'touch /ok; exec sleep 600', Healthcheck: { Test: ['CMD', 'test', '-e', '/ok'], Interval: 3e8, Timeout: 20e9, Retries: 1, StartPeriod: 0 } })
  const health = async () => (await made.inspect()).State.Health?.Status
  await until('it is healthy', async () => (await health()) === 'healthy')
  await c.exec(made, ['rm', '/ok'])
  await until('it is unhealthy', async () => (await health()) === 'unhealthy')
  expect((await made.inspect()).State.Health!.Log.at(-1)).toMatchObject({ ExitCode: 1 })
})

check('containers', 'on-failure restarts as often as told', async (c) => {
  const made = await c.start({ script: 'exit 4', HostConfig: { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 1 } } })
  await until('it gave up', async () => {
    const { State, RestartCount } = await made.inspect()
    return State.Status === 'exited' && RestartCount === 1 && State.ExitCode === 4
  })
})

check('containers', 'auto-removal takes the anonymous volume along', async (c) => {
  const made = await c.create({ script: 'true', Volumes: { '/data': {} }, HostConfig: { AutoRemove: true } })
  const { Name } = (await made.inspect()).Mounts[0] as { Name: string }
  const gone = made.wait({ condition: 'removed' })
  await made.start()
  await gone
  await until('the volume is gone', async () => c.docker.getVolume(Name).inspect().then(() => false, (error: { statusCode: number }) => error.statusCode === 404))
})

check('containers', 'remove needs force while it runs, and takes links and volumes', async (c) => {
  const made = await c.start()
  await refused(409, /cannot remove .*(running|is running)|You cannot remove a running container/, made.remove())
  await made.remove({ force: true, v: true })
  await refused(404, /No such container/, made.remove())
})
