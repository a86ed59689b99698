import { PassThrough } from 'node:stream'
import { createGzip } from 'node:zlib'
import type { CompareContext } from '../context.js'
import { measured } from '../statistics.js'
import type { Figure, IsolationName, PortabilitySection } from '../types.js'

const REQUIREMENTS: Record<IsolationName, string[]> = {
  process: ['Linux with overlayfs, nftables and cgroups', 'crun', 'a kernel that has what the image needs of one'],
  'process-userns': ['as process', 'ranges in /etc/subuid and /etc/subgid', 'Linux 5.19 for idmapped layers on overlayfs'],
  runsc: ['as process, with gVisor\'s runsc for crun'],
  'vm-cold': ['as process', 'qemu-system-x86_64 and a guest kernel', '/dev/kvm that boots a guest, for speed and for a boundary'],
  vm: ['as vm-cold', 'some 90 MB of disk for each shape\'s template, and for each image that is started again and again'],
}
const ELSEWHERE: Record<IsolationName, string[]> = {
  process: ['any OCI runtime: docker, podman, containerd'], 'process-userns': ['any OCI runtime'], runsc: ['gVisor on the other host'],
  'vm-cold': ['the image runs in any OCI runtime; as a VM in Hull, or in Kata'], vm: ['the image runs in any OCI runtime; as a VM in Hull, or in Kata; templates stay where they are made'],
}

/** Bytes of `docker save`, and of what a registry would send: about those of the archive through gzip. */
async function archiveSizes(context: CompareContext): Promise<{ archive: number; compressed: number }> {
  const response = await context.client.send('GET', '/images/get', { query: { names: context.image }, signal: context.signal })
  let archive = 0
  let compressed = 0
  const gzip = createGzip()
  const counted = new PassThrough()
  gzip.on('data', (chunk: Buffer) => (compressed += chunk.length))
  response.on('data', (chunk: Buffer) => (archive += chunk.length))
  await new Promise<void>((resolve, reject) => {
    response.on('error', reject)
    gzip.on('end', resolve).on('error', reject)
    response.pipe(counted).pipe(gzip)
  })
  return { archive, compressed }
}

export async function portabilitySection(context: CompareContext, size: number): Promise<PortabilitySection> {
  const begun = performance.now()
  context.progress('portability: the image as an archive')
  const { archive, compressed } = await archiveSizes(context)
  const figure = (id: string, title: string, bytes: number, command: string): Figure => ({
    id, title, unit: 'bytes', better: 'less', results: Object.fromEntries(context.ways.map((way) => [way.name, measured([bytes], command)])),
  })
  const only = <T>(all: Record<IsolationName, T>) => Object.fromEntries(context.ways.map(({ name }) => [name, all[name]]))
  return {
    figures: [
      figure('image-transfer', 'as it travels: the archive through gzip', compressed, `docker save ${context.image} | gzip | wc -c`),
      figure('image-archive', 'as an archive', archive, `docker save ${context.image} | wc -c`),
      figure('image-unpacked', 'unpacked', size, `docker image inspect -f '{{.Size}}' ${context.image}`),
    ],
    requirements: only(REQUIREMENTS), elsewhere: only(ELSEWHERE), notes: ['A VM has an EROFS image of the layers, too, which is about as large as the layers unpacked.'], seconds: (performance.now() - begun) / 1000,
  }
}
