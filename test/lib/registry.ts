import { execFileSync, spawn } from 'node:child_process'
import http from 'node:http'
import https from 'node:https'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ociManifest, sha256, type FixtureImage } from './image-fixtures.js'

/** Debian's docker-registry on a free loopback port. */
export interface TestRegistry {
  /** '127.0.0.1:45678' */
  host: string
  /** Uploads an image; resolves with the manifest's digest. */
  push(repository: string, tag: string, image: FixtureImage): Promise<string>
  /** Uploads a manifest or index as it is. */
  putManifest(repository: string, reference: string, bytes: Uint8Array, mediaType: string): Promise<string>
  putBlob(repository: string, bytes: Uint8Array): Promise<string>
  stop(): Promise<void>
}

/** A TCP port on 127.0.0.1 that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => (typeof address === 'object' && address ? resolve(address.port) : reject(new Error('no port'))))
    })
  })
}

/** A line of an htpasswd file: bcrypt, by the C library, whose rounds are few. */
export function htpasswd(user: string, password: string): string {
  const hash = execFileSync('perl', ['-e', 'print crypt($ARGV[0], q($2y$05$abcdefghijklmnopqrstuu))', password], { encoding: 'utf8' })
  return `${user}:${hash}\n`
}

/** Starts a registry with storage in a directory of its own; {@link TestRegistry.stop} removes both. `auth`: lines for the config's `auth:` section. */
export async function startRegistry(options: { auth?: string; validation?: boolean; address?: string; tls?: { certificate: string; key: string }; credentials?: { username: string; password: string } } = {}): Promise<TestRegistry> {
  const directory = await mkdtemp(join(tmpdir(), 'hull-registry-'))
  const host = `${options.address ?? '127.0.0.1'}:${await freePort()}`
  const base = `${options.tls ? 'https' : 'http'}://${host}`
  const config = [
    'version: 0.1', 'log: {level: error, accesslog: {disabled: true}}', `storage: {filesystem: {rootdirectory: ${join(directory, 'data')}}, delete: {enabled: true}}`,
    `http: {addr: "${host}", secret: test${options.tls ? `, tls: {certificate: ${options.tls.certificate}, key: ${options.tls.key}}` : ''}}`, ...(options.validation === false ? ['validation: {disabled: true}'] : []), ...(options.auth ? [options.auth] : []),
  ].join('\n')
  // A certificate of the test's own: fetch has no way to be told of it, and its worth is not what is tested here.
  const send = (url: string | URL, init: { method?: string; body?: Uint8Array; headers?: Record<string, string> } = {}) => new Promise<Response>((resolve, reject) => {
    const { username, password } = options.credentials ?? {}
    const authorization = username === undefined ? {} : { Authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}` }
    const call = (options.tls ? https : http).request(url, { method: init.method ?? 'GET', rejectUnauthorized: false, agent: false, headers: { ...init.headers, ...authorization, 'Content-Length': init.body?.length ?? 0 } }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('error', reject)
      answer.on('end', () => resolve(new Response(answer.statusCode === 204 ? null : Buffer.concat(chunks), { status: answer.statusCode!, headers: answer.headers as Record<string, string> })))
    })
    call.on('error', reject)
    call.end(init.body)
  })
  await writeFile(join(directory, 'config.yml'), config)
  const child = spawn('docker-registry', ['serve', join(directory, 'config.yml')], { stdio: 'ignore' })
  let missing: Error | undefined
  child.on('error', (error) => (missing = error))
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()))
  const stop = async () => {
    child.kill('SIGKILL')
    await ended
    await rm(directory, { recursive: true, force: true })
  }
  for (let i = 0; ; i++) {
    const answer = await send(`${base}/v2/`).catch(() => undefined)
    if (answer !== undefined) break
    if (i > 200 || child.exitCode !== null || missing !== undefined) {
      await stop()
      throw new Error('docker-registry does not start', { cause: missing })
    }
    await sleep(25)
  }

  const ok = async (response: Response) => {
    if (!response.ok) throw new Error(`registry: ${response.status} ${await response.text()}`)
    return response
  }
  const putBlob = async (repository: string, bytes: Uint8Array) => {
    const digest = sha256(bytes)
    const session = await ok(await send(`${base}/v2/${repository}/blobs/uploads/`, { method: 'POST' }))
    const location = new URL(session.headers.get('location')!, base)
    location.searchParams.set('digest', digest)
    await ok(await send(location, { method: 'PUT', body: bytes, headers: { 'Content-Type': 'application/octet-stream' } }))
    return digest
  }
  const putManifest = async (repository: string, reference: string, bytes: Uint8Array, mediaType: string) => {
    await ok(await send(`${base}/v2/${repository}/manifests/${reference}`, { method: 'PUT', body: bytes, headers: { 'Content-Type': mediaType } }))
    return sha256(bytes)
  }
  return {
    host, stop, putBlob, putManifest,
    push: async (repository, tag, image) => {
      for (const bytes of [image.config, ...image.layers.map((l) => l.blob)]) await putBlob(repository, bytes)
      return putManifest(repository, tag, ociManifest(image), 'application/vnd.oci.image.manifest.v1+json')
    },
  }
}
