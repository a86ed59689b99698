import { createHash } from 'node:crypto'

/** One entry of an archive. */
export interface Entry {
  /** Relative, without a leading './'. */
  name: string
  mode: number
  /** A file's bytes, a link's target, or neither: a directory. */
  data?: Buffer
  link?: string
}

const BLOCK = 512

function header(entry: Entry): Buffer {
  const block = Buffer.alloc(BLOCK)
  if (Buffer.byteLength(entry.name) > 100) throw new Error(`${entry.name}: longer than a ustar name`)
  const octal = (value: number, at: number, length: number) => block.write(value.toString(8).padStart(length - 1, '0') + '\0', at, 'latin1')
  block.write(entry.name, 0, 'utf8')
  octal(entry.mode, 100, 8)
  octal(0, 108, 8)
  octal(0, 116, 8)
  octal(entry.data?.length ?? 0, 124, 12)
  octal(0, 136, 12) // the epoch: the same input gives the same digest
  block.write(entry.link !== undefined ? '2' : entry.data ? '0' : '5', 156, 'latin1')
  if (entry.link !== undefined) block.write(entry.link, 157, 'utf8')
  block.write('ustar\x0000', 257, 'latin1')
  block.fill(' ', 148, 156)
  octal(block.reduce((sum, byte) => sum + byte, 0), 148, 7)
  return block
}

/** A POSIX ustar archive (pax(1)), everything owned by root. */
export function tar(entries: readonly Entry[]): Buffer {
  const parts: Buffer[] = []
  for (const entry of entries) {
    parts.push(header(entry))
    if (entry.data) parts.push(entry.data, Buffer.alloc((BLOCK - (entry.data.length % BLOCK)) % BLOCK))
  }
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK)])
}

const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex')

/** A docker-archive (what `docker save` makes) of one image with one layer. */
export function dockerArchive(name: string, files: readonly Entry[], config: object): Buffer {
  const layer = tar(files)
  const image = Buffer.from(JSON.stringify({
    architecture: 'amd64', os: 'linux', created: '1970-01-01T00:00:00Z', config,
    rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(layer)}`] },
    history: [{ created: '1970-01-01T00:00:00Z', created_by: 'hull demo: /bin/busybox of this machine' }],
  }))
  const id = sha256(image)
  const manifest = Buffer.from(JSON.stringify([{ Config: `${id}.json`, RepoTags: [name], Layers: ['layer.tar'] }]))
  return tar([
    { name: 'manifest.json', mode: 0o644, data: manifest }, { name: `${id}.json`, mode: 0o644, data: image }, { name: 'layer.tar', mode: 0o644, data: layer },
  ])
}

/** A root file system with a static busybox and links for its applets. */
export function busyboxRoot(busybox: Buffer, applets: readonly string[]): Entry[] {
  const directories = ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp'].map((name) => ({ name: `${name}/`, mode: name === 'tmp' ? 0o1777 : name === 'root' ? 0o700 : 0o755 }))
  return [
    ...directories,
    { name: 'bin/busybox', mode: 0o755, data: busybox },
    ...applets.filter((applet) => applet !== 'busybox').map((applet) => ({ name: `bin/${applet}`, mode: 0o777, link: 'busybox' })),
    { name: 'etc/passwd', mode: 0o644, data: Buffer.from('root:x:0:0:root:/root:/bin/sh\n') },
    { name: 'etc/group', mode: 0o644, data: Buffer.from('root:x:0:\n') },
  ]
}
