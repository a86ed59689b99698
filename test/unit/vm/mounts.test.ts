import { EventEmitter } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Duplex } from 'node:stream'
import { describe, expect, it, vi } from 'vitest'
import { fileServerConfig, fileServerSeccomp } from '../../../src/sandbox/vm/fileserver-jail.js'
import { fileServerArguments, type FileServerParts } from '../../../src/sandbox/vm/fileserver-parts.js'
import { configEntries } from '../../../src/sandbox/vm/guestspec.js'
import { LinkClosed } from '../../../src/sandbox/vm/link.js'
import { qemuArguments } from '../../../src/sandbox/vm/qemu.js'
import { checkShare, type Share } from '../../../src/sandbox/vm/shares.js'
import { SocketProxy } from '../../../src/sandbox/vm/sockets.js'
import type { Connection } from '../../../src/sandbox/vm/client.js'
import type { MountSpec, WorkloadSpec } from '../../../src/sandbox/types.js'

const mount = (target: string, more: Partial<MountSpec> = {}): MountSpec => ({ type: 'bind', source: '/src', target, readOnly: false, options: [], ...more })
const share = (index: number, more: Partial<Share> = {}): Share => ({ index, source: `/src${index}`, file: false, readOnly: false, options: [], ...more })
const jail = (shares: Share[]) =>
  fileServerConfig({ root: '/r', args: ['/virtiofsd'], skeleton: '/run/x/shares', shares, hostname: 'h', cgroupsPath: '/hull/x-mounts', ram: 1 << 28, limits: { memory: 0, cpu: { quota: 5, period: 10 }, pids: 1 }, rootfsPropagation: undefined })

describe('what the guest is told of its mounts', () => {
  const told = (mounts: MountSpec[], sockets: Parameters<typeof configEntries>[2] = []) =>
    configEntries({ hostname: 'h', domainname: '', files: { hosts: '', hostname: '', resolvConf: '' }, network: { mode: 'none' }, readOnlyRootfs: false, shmSize: 0, mounts, sysctls: {}, resources: { memorySwap: 0, pidsLimit: 0 }, init: false, privileged: true } as unknown as WorkloadSpec, { memory: 0, imageSlot: 0 }, sockets)
      .filter(([key]) => key === 'mount').map(([, value]) => value)

  it('parents first, by the index of the share', () => {
    expect(told([mount('/a/b/c', { readOnly: true }), mount('/a', { type: 'volume' }), mount('/a/b', { type: 'tmpfs', options: ['size=1m', ''], readOnly: true })])).toEqual(['share:1::/a', 'tmpfs:size=1m,ro:/a/b', 'share:0:ro:/a/b/c'])
  })

  it('nothing of where a socket is on the host', () => {
    expect(told([mount('/x'), mount('/var/run/s:1')], [{ index: 1, path: '/host/secret', mode: 0o660, uid: 5, gid: 6 }])).toEqual(['share:0::/x', 'socket:1:660:5:6:/var/run/s:1'])
  })

  it('cannot be what a guest cannot do', () => {
    expect(() => checkShare(mount('/x', { options: ['rshared'] }))).toThrow(/cannot be rshared/)
    expect(() => checkShare(mount('/proc/x'))).toThrow(/inside \/proc/)
    for (const good of [mount('/x', { options: ['rslave'] }), mount('/process'), mount('/proc', { type: 'tmpfs' })]) checkShare(good)
  })
})

describe('the jail of the file server', () => {
  it('has every namespace, no socket, and one call of unshare', () => {
    const config = jail([share(0)])
    expect(config.linux.namespaces.map(({ type }) => type).sort()).toEqual(['cgroup', 'ipc', 'mount', 'network', 'pid', 'user', 'uts'])
    expect(config.linux.uidMappings).toEqual([{ containerID: 0, hostID: 0, size: 4294967295 }])
    expect(config.root.readonly).toBe(true)
    expect(config.process.noNewPrivileges).toBe(true)
    const { syscalls } = fileServerSeccomp()
    const allowed = (name: string) => syscalls.filter((rule) => rule.action === 'SCMP_ACT_ALLOW' && rule.names.includes(name))
    for (const name of ['socket', 'socketpair', 'connect', 'bind', 'ptrace', 'mount', 'pivot_root', 'open_by_handle_at', 'setns', 'bpf']) expect([name, allowed(name)]).toEqual([name, []])
    expect(allowed('unshare')).toEqual([{ names: ['unshare'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 0x200, op: 'SCMP_CMP_EQ' }] }])
  })

  it('makes read-only what is, with all below it, before anything else could see it', () => {
    const options = (more: Partial<Share>) => jail([share(3, more)]).mounts.at(-1)!.options!
    expect(jail([]).mounts.find(({ destination }) => destination === '/shares')!.options).toContain('ro')
    expect(options({ readOnly: true })).toEqual(['rbind', 'rprivate', 'rnosuid', 'rnodev', 'rnoexec', 'rro'])
    expect(options({ readOnly: true, file: true })).toEqual(['rbind', 'rprivate', 'nosuid', 'nodev', 'noexec', 'ro'])
    expect(options({ readOnly: true, options: ['ro-nonrecursive'] })).toContain('ro')
    expect(options({ options: ['nonrecursive', 'slave'] })).toEqual(['bind', 'rslave', 'rnosuid', 'rnodev', 'rnoexec'])
    expect(jail([share(3)]).mounts.at(-1)).toMatchObject({ destination: '/shares/3', source: '/src3' })
  })

  it('knows both virtiofsds, and that an old kernel cannot map what it does not cache', async () => {
    const guest = await mkdtemp(join(tmpdir(), 'hull-guest-'))
    const { writeFile } = await import('node:fs/promises')
    const parts = (kind: FileServerParts['kind']): FileServerParts => ({ kind, version: '', program: '', root: '' })
    try {
      await writeFile(join(guest, 'manifest'), 'kernel=6.1.0-56-cloud-amd64\n')
      const c = await fileServerArguments(parts('c'), guest)
      for (const option of ['timeout=0', 'sandbox=chroot', 'xattr', 'announce_submounts']) expect(c[c.indexOf(option) - 1]).toBe('-o')
      expect(await fileServerArguments(parts('rust'), guest)).toEqual(expect.arrayContaining(['--cache=auto']))
      await writeFile(join(guest, 'manifest'), 'kernel=6.12.117+deb13-cloud-amd64\n')
      expect(await fileServerArguments(parts('rust'), guest)).toEqual(expect.arrayContaining(['--cache=never', '--allow-mmap', '--sandbox=chroot', '--fd=3']))
    } finally {
      await rm(guest, { recursive: true })
    }
  })

  it('changes the machine only when there is one', () => {
    const machine = { accelerator: 'tcg' as const, vcpus: 1, ram: 256 << 20, kernel: '/k', initrd: '/i', agentFd: 20 }
    expect(qemuArguments(machine).join(' ')).not.toMatch(/memfd|vhost/)
    const args = qemuArguments({ ...machine, shares: { fd: 4 } })
    expect(args).toEqual(expect.arrayContaining(['memory-backend-memfd,id=ram,size=256M,share=on', 'socket,id=shares,fd=4']))
    expect(args[args.indexOf('-machine') + 1]).toMatch(/,memory-backend=ram$/)
  })
})

describe('sockets of the host in a VM', () => {
  /** The guest's end of one connection. */
  function connection(): { side: Connection; guest: Duplex; end: () => void; closed: Promise<void> } {
    const [toHost, toGuest] = [new PassThrough(), new PassThrough()]
    const events = new EventEmitter()
    const closed = new Promise<void>((resolve) => events.once('close', () => resolve()))
    let end!: () => void
    const exited = new Promise<number>((resolve) => (end = () => resolve(0)))
    const side: Connection = { duplex: Duplex.from({ readable: toHost, writable: toGuest }), exited, close: () => { events.emit('close'); end() } }
    return { side, guest: Duplex.from({ readable: toGuest, writable: toHost }), end, closed }
  }

  /** A guest that makes these connections, then none. */
  const guestOf = (connections: Connection[]) => ({
    asked: [] as number[],
    accept(index: number): Promise<Connection> {
      this.asked.push(index)
      const next = connections.shift()
      return next ? Promise.resolve(next) : Promise.reject(new LinkClosed('the machine has ended'))
    },
  })

  it('are joined to the configured path, half-closes included', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'hull-sock-'))
    const path = join(directory, 's')
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      let text = ''
      socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
      socket.on('end', () => socket.end(`got ${text}`))
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    try {
      const one = connection()
      const guest = guestOf([one.side])
      new SocketProxy(guest, [{ index: 7, path }]).start()
      one.guest.end('hello')
      const chunks: Buffer[] = []
      for await (const chunk of one.guest) chunks.push(chunk as Buffer)
      expect(Buffer.concat(chunks).toString()).toBe('got hello')
      one.end()
      expect(guest.asked).toEqual([7, 7])
    } finally {
      server.close()
      await rm(directory, { recursive: true })
    }
  })

  it('have 48 connections at a time, and each of them goes on when there is room again', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'hull-sock-'))
    const path = join(directory, 's')
    let joined = 0
    const server = createServer((socket) => {
      joined++
      socket.resume()
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    const accepts: { index: number; resolve: (connection: Connection) => void; reject: (error: Error) => void }[] = []
    const proxy = new SocketProxy({ accept: (index) => new Promise((resolve, reject) => accepts.push({ index, resolve, reject })) }, [0, 1, 2].map((index) => ({ index, path })))
    const connections: ReturnType<typeof connection>[] = []
    const come = async (index: number) => {
      await vi.waitUntil(() => accepts.some((one) => one.index === index))
      connections.push(connection())
      accepts.splice(accepts.findIndex((one) => one.index === index), 1)[0]!.resolve(connections.at(-1)!.side)
    }
    const end = () => connections.shift()!.end()
    const settled = () => new Promise((resolve) => setTimeout(resolve, 50))
    try {
      proxy.start()
      for (let n = 0; n < 47; n++) await come(0)
      for (const index of [0, 1, 2]) await come(index) // one place for three, who wait for a connection already
      await vi.waitUntil(() => joined === 48)
      await settled()
      expect([joined, accepts]).toEqual([48, []])
      end()
      await vi.waitUntil(() => joined === 49)
      await settled()
      expect(joined).toBe(49)
      for (let n = 0; n < 2; n++) end()
      await vi.waitUntil(() => joined === 50 && accepts.length === 3) // each is served again
      expect(accepts.map(({ index }) => index).sort()).toEqual([0, 1, 2])
    } finally {
      proxy.stop()
      for (const { reject } of accepts) reject(new LinkClosed('the machine has ended'))
      for (const one of connections) one.end()
      server.close()
      await rm(directory, { recursive: true })
    }
  })

  it('whose last connection comes when the machine is not ours any more end it', async () => {
    const one = connection()
    let come!: (connection: Connection) => void
    const proxy = new SocketProxy({ accept: () => new Promise((resolve) => (come = resolve)) }, [{ index: 0, path: '/nonexistent/socket' }])
    proxy.start()
    await vi.waitUntil(() => come !== undefined)
    proxy.stop()
    come(one.side)
    await one.closed
  })

  it('that nobody listens on, and things that are no sockets, end the connection', async () => {
    for (const path of ['/nonexistent/socket', '/dev/null', '/etc']) {
      const one = connection()
      new SocketProxy(guestOf([one.side]), [{ index: 0, path }]).start()
      await one.closed
    }
  })
})
