import { describe, expect, it } from 'vitest'
import { mountsOf } from '../../../src/api/parse-host-config.js'
import { anonymousLabel, checkSources, type ContainerMount, resolveMounts } from '../../../src/engine/mounts.js'
import type { HostConfig, MountRequest } from '../../../src/engine/api-types.js'
import { localMount } from '../../../src/storage/local-options.js'
import { MS } from '../../../src/host/mount.js'

const requests = (binds: string[], mounts: object[] = [], tmpfs: Record<string, string> = {}): MountRequest[] =>
  mountsOf({ Binds: binds, Mounts: mounts, Tmpfs: tmpfs, VolumeDriver: '' } as unknown as HostConfig)

function resolve(options: { requested?: MountRequest[]; volumes?: string[]; from?: string[]; others?: Record<string, ContainerMount[]>; driver?: string }): ContainerMount[] {
  return resolveMounts({
    requested: options.requested ?? [], volumes: Object.fromEntries((options.volumes ?? []).map((path) => [path, {}])), volumesFrom: options.from ?? [], volumeDriver: options.driver ?? '',
    mountsOf: (name) => {
      const found = options.others?.[name]
      if (!found) throw new Error(`No such container: ${name}`)
      return found
    },
    mountpoint: (name) => `/volumes/${name}/_data`,
  })
}

describe('mounts of a container', () => {
  it('come from -v, --mount and --tmpfs', () => {
    const found = resolve({ requested: requests(['vol:/v:ro', '/host:/h:rslave', '/anon'], [{ Type: 'volume', Source: 'vol', Target: '/w', VolumeOptions: { NoCopy: true, Labels: { a: 'b' }, Subpath: 'x' } }], { '/t': 'size=1m' }) })
    const at = (target: string) => found.find((mount) => mount.target === target)!
    expect(at('/v')).toMatchObject({ type: 'volume', name: 'vol', anonymous: false, source: '/volumes/vol/_data', readOnly: true, copyUp: true })
    expect(at('/h')).toMatchObject({ type: 'bind', name: '', source: '/host', createSource: true, options: ['rslave'] })
    expect(at('/anon')).toMatchObject({ type: 'volume', anonymous: true, labels: { [anonymousLabel]: '' } })
    expect(at('/anon').name).toMatch(/^[0-9a-f]{64}$/)
    expect(at('/w')).toMatchObject({ name: 'vol', copyUp: false, labels: { a: 'b' }, subpath: 'x' })
    expect(at('/t')).toMatchObject({ type: 'tmpfs', source: '', options: ['size=1m'] })
  })

  it('of an image get a volume where nothing is mounted', () => {
    const found = resolve({ requested: requests(['/host:/a'], [], { '/b': '' }), volumes: ['/a/', '/b', '/c'] })
    expect(found.map((mount) => [mount.target, mount.type])).toEqual([['/a', 'bind'], ['/b', 'tmpfs'], ['/c', 'volume']])
    for (const bad of ['relative', '/', '/a/../b', '/..']) expect(() => resolve({ volumes: [bad] })).toThrow(/invalid volume specification/)
  })

  it('of another container yield to the own ones, and are not filled again', () => {
    const others = { lender: resolve({ requested: requests(['one:/one', '/host:/host:ro', 'two:/two'], [], { '/t': '' }) }) }
    const found = resolve({ from: ['lender:ro'], others, requested: requests(['mine:/two']), volumes: ['/one'] })
    expect(found.map(({ target, name, readOnly, copyUp }) => [target, name, readOnly, copyUp])).toEqual([['/one', 'one', true, false], ['/host', '', true, false], ['/two', 'mine', false, true]])
    expect(resolve({ from: ['lender'], others }).map((mount) => mount.readOnly)).toEqual([false, true, false])
    expect(() => resolve({ from: ['lender:nocopy'], others })).toThrow('invalid mode: nocopy')
    expect(() => resolve({ from: [':ro'], others })).toThrow(/invalid volumes-from specification/)
    expect(() => resolve({ from: ['stranger'], others })).toThrow('No such container: stranger')
  })

  it('with a driver that is not there are refused', () => {
    expect(() => resolve({ requested: requests(['x1:/x']), driver: 'nfs' })).toThrow('error looking up volume plugin nfs: plugin "nfs" not found')
    expect(resolve({ requested: requests(['x1:/x']), driver: 'local' })).toHaveLength(1)
  })

  it('from a source that is missing: --mount is refused, -v is not', async () => {
    await expect(checkSources(resolve({ requested: requests([], [{ Type: 'bind', Source: '/nonexistent', Target: '/x' }]) }))).rejects.toThrow('bind source path does not exist: /nonexistent')
    await checkSources(resolve({ requested: requests(['/nonexistent:/x'], [{ Type: 'bind', Source: '/nonexistent', Target: '/y', BindOptions: { Propagation: '', CreateMountpoint: true } }]) }))
  })
})

describe('options of the local driver', () => {
  it('are mounts', () => {
    expect(localMount({})).toBeUndefined()
    expect(localMount({ type: 'tmpfs', device: 'tmpfs', o: 'size=1m,noexec,uid=5' })).toEqual({ source: 'tmpfs', fstype: 'tmpfs', flags: MS.NOEXEC, data: 'size=1m,uid=5' })
    expect(localMount({ type: 'none', device: '/srv', o: 'bind,ro' })).toEqual({ source: '/srv', fstype: '', flags: MS.BIND | MS.RDONLY, data: '' })
  })

  it('that are wrong or not there are refused by name', () => {
    const cases: [Record<string, string>, RegExp][] = [
      [{ colour: 'red' }, /invalid option: "colour"/], [{ type: 'tmpfs' }, /missing required option: "device"/], [{ device: 'x' }, /missing required option: "type"/],
      [{ o: 'x', type: 'tmpfs' }, /missing required option: "device"/], [{ size: '10m' }, /quota size requested but no quota support/],
      [{ type: 'nfs', device: ':/x', o: 'addr=1.2.3.4' }, /type nfs are not supported/], [{ type: 'ext4', device: '/dev/sda1' }, /type ext4 are not supported/],
      [{ type: 'none', device: 'relative', o: 'bind' }, /needs an absolute path/], [{ type: 'ext4', device: '/x', o: 'bind' }, /a bind mount has type none/],
      [{ type: 'tmpfs', device: 'tmpfs', o: 'context=x' }, /tmpfs does not know context=x/], [{ type: 'tmpfs', device: 'a\0b' }, /NUL byte/],
    ]
    for (const [options, words] of cases) expect(() => localMount(options)).toThrow(words)
  })
})
