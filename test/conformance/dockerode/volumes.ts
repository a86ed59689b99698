import { expect } from 'vitest'
import { check, demuxed, refused } from './harness.js'

check('volumes', 'create, inspect, remove', async (c) => {
  const name = c.name()
  const made = await c.volume({ Name: name, Labels: { k: 'v' } })
  expect(await made.inspect()).toMatchObject({ Name: name, Driver: 'local', Scope: 'local', Labels: { k: 'v' }, Mountpoint: expect.stringContaining(name), CreatedAt: expect.stringMatching(/^20/) })
  await made.remove()
  await refused(404, /no such volume/i, made.inspect())
})

check('volumes', 'hold data between containers, and stay without v', async (c) => {
  const made = await c.volume()
  const bind = { HostConfig: { Binds: [`${made.name}:/data`] } }
  expect((await c.run('echo kept > /data/f', bind)).code).toBe(0)
  expect(await c.run('cat /data/f', bind)).toEqual({ code: 0, out: 'kept\n', err: '' })
})

check('volumes', 'are owned as the image has it', async (c) => {
  const made = await c.volume()
  expect((await c.run('stat -c %u:%g /home/user; id -u > /home/user/f && cat /home/user/f', { User: '1000:1000', HostConfig: { Binds: [`${made.name}:/home/user`] } })).out).toBe('1000:1000\n1000\n')
})

check('volumes', 'mounts in the long form: read-only, no copy, labels', async (c) => {
  const name = c.name()
  const made = await c.create({ script: 'touch /data/x || echo ro', HostConfig: { Mounts: [{ Type: 'volume', Source: name, Target: '/data', ReadOnly: true, VolumeOptions: { Labels: { made: 'here' }, NoCopy: true, DriverConfig: { Name: 'local', Options: {} } } }] } })
  c.later(() => c.docker.getVolume(name).remove())
  expect(await c.docker.getVolume(name).inspect()).toMatchObject({ Labels: { made: 'here' } })
  expect((await made.inspect()).Mounts).toMatchObject([{ Type: 'volume', Name: name, Destination: '/data', RW: false, Mode: expect.any(String) }])
  await made.start()
  await made.wait()
  expect(demuxed((await made.logs({ stdout: true, follow: false }))).out).toBe('ro\n')
})

check('volumes', 'of the image are made for a container', async (c) => {
  const made = await c.create({ Volumes: { '/data': {} } })
  const [mount] = (await made.inspect()).Mounts as { Type: string; Name: string }[]
  expect(mount).toMatchObject({ Type: 'volume', Name: expect.stringMatching(/^[0-9a-f]{64}$/), Driver: 'local', Destination: '/data', RW: true })
  await made.remove({ v: true })
  await refused(404, /no such volume/i, c.docker.getVolume(mount!.Name).inspect())
})

check('volumes', 'list filters and prune', async (c) => {
  const label = c.name()
  const made = await c.volume({ Labels: { [label]: '' } })
  const names = async (filters: object) => (await c.docker.listVolumes({ filters } as object)).Volumes.map((row) => row.Name)
  expect(await names({ label: [label] })).toEqual([made.name])
  expect(await names({ dangling: ['true'], label: [label] })).toEqual([made.name])
  // From API 1.42 named ones are kept unless `all` is said, which older daemons do not know.
  const every = Number((await c.docker.version()).ApiVersion.split('.')[1]) >= 42 ? { all: ['true'] } : {}
  expect(await c.docker.pruneVolumes({ filters: { label: [label], ...every } } as object)).toMatchObject({ VolumesDeleted: [made.name] })
  await refused(400, /invalid filter/i, c.docker.listVolumes({ filters: { nosuch: ['x'] } } as object))
})

check('volumes', 'are refused while in use', async (c) => {
  const made = await c.volume()
  const user = await c.create({ HostConfig: { Binds: [`${made.name}:/data`] } })
  await refused(409, /volume is in use/, made.remove())
  expect(await c.docker.listVolumes({ filters: { dangling: ['true'] } } as object).then(({ Volumes }) => Volumes.some((row) => row.Name === made.name))).toBe(false)
  await user.remove()
  await made.remove()
})

check('volumes', 'bad names', async (c) => {
  await refused(400, /includes invalid characters for a local volume name/, c.docker.createVolume({ Name: 'a/b' }))
  await refused(400, /includes invalid characters|invalid volume/i, c.create({ HostConfig: { Binds: ['a b:/data'] } }))
})

check('volumes', 'two containers see each other write through one volume', async (c) => {
  const made = await c.volume()
  const bind = { HostConfig: { Binds: [`${made.name}:/data`] } }
  const [first, second] = [await c.start(bind), await c.start(bind)]
  await c.exec(first, ['sh', '-c', 'echo one > /data/f; mkfifo /data/p 2> /dev/null; ln /data/f /data/g'])
  expect((await c.exec(second, ['cat', '/data/g'])).out).toBe('one\n')
  await c.exec(second, ['sh', '-c', 'echo two > /data/f; chmod 600 /data/f; chown 1000 /data/f'])
  expect((await c.exec(first, ['sh', '-c', 'cat /data/f; stat -c %a:%u /data/f'])).out).toBe('two\n600:1000\n')
})
