import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { open, unlink, type FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { codeOf, messageOf } from '../../base/errors.js'
import { shellWord } from '../../base/shell.js'
import { tarEnd, tarHeader, tarPadding } from '../../base/tar.js'
import type { Client } from '../../cli/client.js'
import { ApiError } from '../../cli/errors.js'
import type { CompareContext } from '../context.js'

/** The image with the tools that measure. Another recipe is another tag, so that figures under one name are of one set of tools. */
export const PROBE_IMAGE = 'hull-probe:1'
/** Of one release on every host, for the same reason. */
const SUITE = 'bookworm'
const PACKAGES = ['base-files', 'base-passwd', 'coreutils', 'util-linux', 'sysbench', 'fio', 'iperf3', 'qperf', 'wrk', 'nginx', 'linux-perf']
/** ms; some 20 s where the archive is near. */
const MADE_WITHIN = 600_000
/** Bytes of what mmdebstrap says that are kept, from the end. */
const LAST_WORDS = 2000

/** One worker and no logs: what is measured is the way to it. It runs as any user. */
const NGINX = `daemon off; master_process off; user root root; pid /tmp/hull-probe.pid; error_log stderr crit;
events { worker_connections 64; }
http {
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path /tmp/hull-probe-1; proxy_temp_path /tmp/hull-probe-2; fastcgi_temp_path /tmp/hull-probe-3; uwsgi_temp_path /tmp/hull-probe-4; scgi_temp_path /tmp/hull-probe-5;
  server { listen 8080; location / { return 200 "hull\\n"; } }
}
`
/**
 * Packages are extracted, not installed: no script of theirs runs. What those would have made, and what no tool reads, is seen to here; $1 is the root. Nothing but its usr and etc
 * is touched: mmdebstrap mounts directories of the host's /dev below it.
 */
const FINISH = [
  'cd "${1:?}"', 'cp usr/share/base-passwd/passwd.master etc/passwd', 'cp usr/share/base-passwd/group.master etc/group',
  'rm -rf usr/share usr/include usr/lib/python3* usr/lib/x86_64-linux-gnu/perl* usr/lib/x86_64-linux-gnu/gconv', `printf %s ${shellWord(NGINX)} > etc/hull-probe.conf`,
].join(' && ')

/** Has mmdebstrap write the root file system as a tar archive. Rejects with its last words. */
async function makeLayer(file: FileHandle, signal: AbortSignal): Promise<void> {
  const args = ['--variant=extract', '--quiet', '--format=tar', '--skip=output/dev', '--aptopt=Apt::Install-Recommends "false"', `--include=${PACKAGES.join(',')}`, `--extract-hook=${FINISH}`, SUITE, '-']
  const child = spawn('mmdebstrap', args, { stdio: ['ignore', file.fd, 'pipe'], env: { ...process.env, LC_ALL: 'C', SOURCE_DATE_EPOCH: '1767225600' } })
  // It takes away its own temporary directory on SIGTERM, and is waited for.
  const stop = () => child.kill('SIGTERM')
  signal.addEventListener('abort', stop, { once: true })
  const timer = setTimeout(stop, MADE_WITHIN)
  let said = ''
  child.stderr!.on('data', (chunk: Buffer) => (said = (said + chunk.toString('latin1')).slice(-LAST_WORDS)))
  try {
    const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
    signal.throwIfAborted()
    if (code !== 0) throw new Error(`mmdebstrap ended with ${code ?? 'a signal'}: ${/^[EW]: .*$/m.exec(said)?.[0] ?? said.trim().split('\n').at(-1) ?? ''}`)
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', stop)
  }
}

const reader = (file: FileHandle): AsyncIterable<Buffer> => file.createReadStream({ start: 0, autoClose: false })

/** The docker-archive ("Docker Image Specification v1.2.0") of one layer. */
async function* archiveOf(layer: FileHandle): AsyncGenerator<Buffer> {
  const hash = createHash('sha256')
  let size = 0
  for await (const chunk of reader(layer)) {
    hash.update(chunk)
    size += chunk.length
  }
  const config = JSON.stringify({
    architecture: 'amd64', os: 'linux', created: '2026-01-01T00:00:00Z',
    config: { Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: ['sleep', 'infinity'], Labels: { 'org.hull.probe': '1' } },
    rootfs: { type: 'layers', diff_ids: [`sha256:${hash.digest('hex')}`] }, history: [{ created: '2026-01-01T00:00:00Z', created_by: `hull compare: Debian ${SUITE}, ${PACKAGES.join(' ')}` }],
  })
  const owner = { mode: 0o644, uid: 0, gid: 0, mtime: 0 }
  const name = `${createHash('sha256').update(config).digest('hex')}.json`
  for (const [path, text] of [[name, config], ['manifest.json', JSON.stringify([{ Config: name, RepoTags: [PROBE_IMAGE], Layers: ['layer.tar'] }])]] as const) {
    const bytes = Buffer.from(text)
    yield Buffer.concat([tarHeader({ name: path, type: 'file', size: bytes.length, ...owner }), bytes, tarPadding(bytes.length)])
  }
  yield tarHeader({ name: 'layer.tar', type: 'file', size, ...owner })
  yield* reader(layer)
  yield Buffer.concat([tarPadding(size), tarEnd()])
}

/**
 * Makes the probe image of Debian packages and hands its docker-archive to `use`. The layer lies in a file without a name: nothing is left, whatever ends this process. Rejects with a
 * sentence where it cannot be made.
 */
export async function withProbeArchive<T>(signal: AbortSignal, use: (archive: Readable) => Promise<T>): Promise<T> {
  const path = join(tmpdir(), `hull-probe-${randomBytes(6).toString('hex')}`)
  const file = await open(path, 'wx+', 0o600)
  try {
    await unlink(path)
    await makeLayer(file, signal).catch((error: unknown) => {
      throw codeOf(error) === 'ENOENT' ? new Error('mmdebstrap is not installed (apt-get install mmdebstrap)', { cause: error }) : error
    })
    return await use(Readable.from(archiveOf(file), { objectMode: false }))
  } finally {
    await file.close()
  }
}

async function isThere(client: Client, image: string): Promise<boolean> {
  try {
    await client.call('GET', `/images/${image}/json`)
    return true
  } catch (error) {
    if (error instanceof ApiError && error.statusCode === 404) return false
    throw error
  }
}

/** The image with the tools: that of the user, or ours, which is made where it is not there. Rejects with a sentence. */
export async function probeImage({ client, signal, progress, probe }: CompareContext): Promise<string> {
  if (probe !== '') return probe
  if (await isThere(client, PROBE_IMAGE)) return PROBE_IMAGE
  progress(`speed: making the image ${PROBE_IMAGE} of Debian packages, once`)
  try {
    await withProbeArchive(signal, (upload) => client.text('POST', '/images/load', { upload, query: { quiet: true }, signal }))
    if (await isThere(client, PROBE_IMAGE)) return PROBE_IMAGE
    throw new Error('the daemon did not take it')
  } catch (error) {
    signal.throwIfAborted()
    throw new Error(`the image ${PROBE_IMAGE} is not there, and cannot be made: ${messageOf(error)}; --probe takes another with the same tools`, { cause: error })
  }
}
