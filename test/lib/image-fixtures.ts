import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { tar, type TarEntry } from './tar.js'

export { tar, type TarEntry } from './tar.js'

export const sha256 = (data: string | Uint8Array): string => `sha256:${createHash('sha256').update(data).digest('hex')}`
const hex = (digest: string) => digest.slice(7)

/** A layer of a test image: the plain tar, and the form in which it is stored or sent. */
export interface FixtureLayer {
  tar: Buffer
  blob: Buffer
  mediaType: string
  diffId: string
  digest: string
}

export interface FixtureImage {
  config: Buffer
  /** sha256 of the config. */
  id: string
  layers: FixtureLayer[]
}

/** A layer of these entries. zstd by zstd(1), since Node 20 has none. */
export function layer(entries: readonly TarEntry[] | Buffer, compression: 'gzip' | 'zstd' | 'none' = 'gzip'): FixtureLayer {
  const plain = Buffer.isBuffer(entries) ? entries : tar(entries)
  const blob = compression === 'gzip' ? gzipSync(plain, { level: 1 }) : compression === 'zstd' ? execFileSync('zstd', ['-q', '-c', '-1'], { input: plain, maxBuffer: 1 << 30 }) : plain
  const suffix = compression === 'none' ? '' : `+${compression}`
  return { tar: plain, blob, mediaType: `application/vnd.oci.image.layer.v1.tar${suffix}`, diffId: sha256(plain), digest: sha256(blob) }
}

/** An image of these layers, lowest first. `config` are the runtime fields (Cmd, Env, …). */
export function image(layers: FixtureLayer[], config: Record<string, unknown> = {}, overrides: Record<string, unknown> = {}): FixtureImage {
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch
  const bytes = Buffer.from(JSON.stringify({
    architecture, os: 'linux', created: '2026-01-02T03:04:05Z', config: { Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], ...config },
    rootfs: { type: 'layers', diff_ids: layers.map((l) => l.diffId) }, history: layers.map((_, i) => ({ created: '2026-01-02T03:04:05Z', created_by: `layer ${i}` })),
    ...overrides,
  }))
  return { config: bytes, id: sha256(bytes), layers }
}

/** A small Linux system: Debian's busybox-static with all its applets, users, and the usual directories. */
export function busyboxEntries(): TarEntry[] {
  const busybox = readFileSync('/bin/busybox')
  const applets = execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n').filter((name) => name !== 'busybox')
  const directory = (name: string, mode = 0o755): TarEntry => ({ name: `${name}/`, type: 'dir', mode })
  return [
    directory('bin'), directory('etc'), directory('home'), directory('root', 0o700), directory('tmp', 0o1777), directory('usr'), directory('usr/bin'), directory('var'), directory('dev'), directory('proc'), directory('sys'),
    { name: 'bin/busybox', content: busybox, mode: 0o755 },
    ...applets.map((name): TarEntry => ({ name: `bin/${name}`, type: 'hardlink', link: 'bin/busybox', mode: 0o755 })),
    { name: 'usr/bin/env', type: 'hardlink', link: 'bin/busybox', mode: 0o755 },
    { name: 'etc/passwd', content: 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\nuser:x:1000:1000:user:/home/user:/bin/sh\n' },
    { name: 'etc/group', content: 'root:x:0:\nnogroup:x:65534:\nuser:x:1000:\nextra:x:2000:user\n' },
    { name: 'home/user/', type: 'dir', mode: 0o755, uid: 1000, gid: 1000 },
  ]
}

/** The busybox image, `CMD ["sh"]`. */
export function busyboxImage(config: Record<string, unknown> = {}): FixtureImage {
  return image([layer(busyboxEntries())], { Cmd: ['sh'], ...config })
}

/** What `docker save` writes. */
export function dockerArchive(images: { image: FixtureImage; tags?: string[] }[], extra: TarEntry[] = []): Buffer {
  const files = new Map<string, TarEntry>()
  const manifest = images.map(({ image: { config, id, layers }, tags }) => {
    files.set(`${hex(id)}.json`, { name: `${hex(id)}.json`, content: config })
    const names = layers.map((l) => `${hex(l.diffId)}/layer.tar`)
    for (const [i, l] of layers.entries()) files.set(names[i]!, { name: names[i]!, content: l.tar })
    return { Config: `${hex(id)}.json`, RepoTags: tags ?? null, Layers: names }
  })
  return tar([...files.values(), { name: 'manifest.json', content: JSON.stringify(manifest) }, ...extra])
}

/** The OCI manifest of an image. */
export function ociManifest({ config, id, layers }: FixtureImage): Buffer {
  return Buffer.from(JSON.stringify({
    schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: id, size: config.length },
    layers: layers.map((l) => ({ mediaType: l.mediaType, digest: l.digest, size: l.blob.length })),
  }))
}

/** An OCI layout as a tar, named by containerd's annotation. */
export function ociLayout(images: { image: FixtureImage; name?: string }[], extra: TarEntry[] = []): Buffer {
  const blobs = new Map<string, Buffer>()
  const manifests = images.map(({ image: fixture, name }) => {
    const manifest = ociManifest(fixture)
    blobs.set(sha256(manifest), manifest)
    blobs.set(fixture.id, fixture.config)
    for (const l of fixture.layers) blobs.set(l.digest, l.blob)
    return { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: sha256(manifest), size: manifest.length, ...(name ? { annotations: { 'io.containerd.image.name': name } } : {}) }
  })
  return tar([
    { name: 'oci-layout', content: '{"imageLayoutVersion":"1.0.0"}' },
    { name: 'index.json', content: JSON.stringify({ schemaVersion: 2, manifests }) },
    ...[...blobs].map(([digest, content]): TarEntry => ({ name: `blobs/sha256/${hex(digest)}`, content })),
    ...extra,
  ])
}

/** Tars that try to write, or to reach, outside of the directory that they are unpacked into. `victim`: absolute path of a file outside. */
export function climbingTars(victim: string): Record<string, TarEntry[]> {
  const file = (name: string): TarEntry => ({ name, content: 'climbed out', mode: 0o644 })
  const up = '../'.repeat(20)
  const directory = victim.slice(0, victim.lastIndexOf('/'))
  const base = victim.slice(victim.lastIndexOf('/') + 1)
  return {
    'dot-dot name': [file(`${up}${victim.slice(1)}`)],
    'dot-dot in the middle': [file(`a/b/${up}${victim.slice(1)}`)],
    'absolute name': [file(victim)],
    'absolute symbolic link, then through it': [{ name: 'link', type: 'symlink', link: directory }, file(`link/${base}`)],
    'relative symbolic link, then through it': [{ name: 'link', type: 'symlink', link: `${up}${directory.slice(1)}` }, file(`link/${base}`)],
    'symbolic link to the file, then written': [{ name: 'link', type: 'symlink', link: victim }, file('link')],
    'chain of symbolic links': [
      { name: 'a', type: 'symlink', link: '..' }, { name: 'b', type: 'symlink', link: 'a/..' }, { name: 'c', type: 'symlink', link: `b/${up}${directory.slice(1)}` }, file(`c/${base}`),
    ],
    'directory replaced by a symbolic link': [{ name: 'd', type: 'dir' }, file('d/x'), { name: 'd', type: 'symlink', link: directory }, file(`d/${base}`)],
    'hard link to an absolute name': [{ name: 'h', type: 'hardlink', link: victim }, file('h')],
    'hard link by dot-dot': [{ name: 'h', type: 'hardlink', link: `${up}${victim.slice(1)}` }, file('h')],
    'hard link through a symbolic link': [{ name: 's', type: 'symlink', link: directory }, { name: 'h', type: 'hardlink', link: `s/${base}` }, file('h')],
    'directory mode through a symbolic link': [{ name: 'd', type: 'symlink', link: directory }, { name: 'd/', type: 'dir', mode: 0o777 }],
    'whiteout of dot-dot': [{ name: 'a/.wh...', content: '' }],
    'whiteout through a symbolic link': [{ name: 's', type: 'symlink', link: directory }, { name: `s/.wh.${base}`, content: '' }],
    'pax path': [{ name: 'innocent', content: 'climbed out', pax: { path: `${up}${victim.slice(1)}` } }],
    'pax link path': [{ name: 'h', type: 'hardlink', link: 'innocent', pax: { linkpath: `${up}${victim.slice(1)}` } }, file('h')],
  }
}
