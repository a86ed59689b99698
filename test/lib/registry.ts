import { spawn } from 'node:child_process'
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

/** Starts a registry with storage in a directory of its own; {@link TestRegistry.stop} removes both. `auth`: lines for the config's `auth:` section. */
export async function startRegistry(options: { auth?: string; validation?: boolean } = {}): Promise<TestRegistry> {
  const directory = await mkdtemp(join(tmpdir(), 'hull-registry-'))
  const host = `127.0.0.1:${await freePort()}`
  const config = [
    'version: 0.1', 'log: {level: error, accesslog: {disabled: true}}', `storage: {filesystem: {rootdirectory: ${join(directory, 'data')}}, delete: {enabled: true}}`,
    `http: {addr: "${host}", secret: test}`, ...(options.validation === false ? ['validation: {disabled: true}'] : []), ...(options.auth ? [options.auth] : []),
  ].join('\n')
  await writeFile(join(directory, 'config.yml'), config)
  const child = spawn('docker-registry', ['serve', join(directory, 'config.yml')], { stdio: 'ignore' })
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()))
  const stop = async () => {
    child.kill('SIGKILL')
    await ended
    await rm(directory, { recursive: true, force: true })
  }
  for (let i = 0; ; i++) {
    const answer = await fetch(`http://${host}/v2/`).catch(() => undefined)
    if (answer !== undefined) break
    if (i > 200 || child.exitCode !== null) {
      await stop()
      throw new Error('docker-registry does not start')
    }
    await sleep(25)
  }

  const ok = async (response: Response) => {
    if (!response.ok) throw new Error(`registry: ${response.status} ${await response.text()}`)
    return response
  }
  const putBlob = async (repository: string, bytes: Uint8Array) => {
    const digest = sha256(bytes)
    const session = await ok(await fetch(`http://${host}/v2/${repository}/blobs/uploads/`, { method: 'POST' }))
    const location = new URL(session.headers.get('location')!, `http://${host}`)
    location.searchParams.set('digest', digest)
    await ok(await fetch(location, { method: 'PUT', body: bytes, headers: { 'Content-Type': 'application/octet-stream' } }))
    return digest
  }
  const putManifest = async (repository: string, reference: string, bytes: Uint8Array, mediaType: string) => {
    await ok(await fetch(`http://${host}/v2/${repository}/manifests/${reference}`, { method: 'PUT', body: bytes, headers: { 'Content-Type': mediaType } }))
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
