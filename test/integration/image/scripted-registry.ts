import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { ociManifest, sha256, type FixtureImage } from '../../lib/image-fixtures.js'

/** A registry that misbehaves on demand: for what docker-registry never does. */
export interface ScriptedRegistry {
  host: string
  /** 'GET /v2/…' with the headers of each request so far. */
  requests: { line: string; headers: IncomingMessage['headers'] }[]
  blobs: Map<string, Buffer>
  manifests: Map<string, { bytes: Buffer; mediaType: string }>
  add(repository: string, tag: string, image: FixtureImage): void
  /** Sees every request first; true: it has answered. */
  intercept: (request: IncomingMessage, response: ServerResponse, url: URL) => boolean | Promise<boolean>
  blobRequests(digest: string): number
  stop(): Promise<void>
}

export async function scriptedRegistry(): Promise<ScriptedRegistry> {
  const self: ScriptedRegistry = {
    host: '', requests: [], blobs: new Map(), manifests: new Map(), intercept: () => false,
    blobRequests: (digest) => self.requests.filter((r) => r.line.endsWith(digest)).length,
    add: (repository, tag, image) => {
      const bytes = ociManifest(image)
      for (const reference of [tag, sha256(bytes)]) self.manifests.set(`${repository}/${reference}`, { bytes, mediaType: 'application/vnd.oci.image.manifest.v1+json' })
      self.blobs.set(image.id, image.config)
      for (const l of image.layers) self.blobs.set(l.digest, l.blob)
    },
    stop: () => new Promise((resolve) => {
      server.closeAllConnections()
      server.close(() => resolve())
    }),
  }
  const server = createServer((request, response) => {
    const url = new URL(request.url!, `http://${self.host}`)
    self.requests.push({ line: `${request.method} ${url.pathname}`, headers: request.headers })
    void (async () => {
      if (await self.intercept(request, response, url)) return
      const manifest = /^\/v2\/(.+)\/manifests\/(.+)$/.exec(url.pathname)
      const blob = /^\/v2\/.+\/blobs\/(.+)$/.exec(url.pathname)
      if (url.pathname === '/v2/') response.end('{}')
      else if (manifest && self.manifests.has(`${manifest[1]}/${manifest[2]}`)) {
        const { bytes, mediaType } = self.manifests.get(`${manifest[1]}/${manifest[2]}`)!
        response.setHeader('Content-Type', mediaType).end(bytes)
      } else if (blob && self.blobs.has(blob[1]!)) sendBlob(request, response, self.blobs.get(blob[1]!)!)
      else response.writeHead(404, { 'Content-Type': 'application/json' }).end(JSON.stringify({ errors: [{ code: manifest ? 'MANIFEST_UNKNOWN' : 'BLOB_UNKNOWN', message: manifest ? 'manifest unknown' : 'blob unknown to registry' }] }))
    })()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  self.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return self
}

/** A blob, or the range of it that was asked for. */
export function sendBlob(request: IncomingMessage, response: ServerResponse, bytes: Buffer): void {
  const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
  if (request.headers.range) response.writeHead(206, { 'Content-Range': `bytes ${start}-${bytes.length - 1}/${bytes.length}`, 'Content-Length': bytes.length - start })
  else response.writeHead(200, { 'Content-Length': bytes.length })
  response.end(bytes.subarray(start))
}

/** The first `count` bytes of what was asked for; then the connection breaks. */
export function sendPart(request: IncomingMessage, response: ServerResponse, bytes: Buffer, count: number): void {
  const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
  if (start > 0) response.writeHead(206, { 'Content-Range': `bytes ${start}-${bytes.length - 1}/${bytes.length}`, 'Content-Length': bytes.length - start })
  else response.writeHead(200, { 'Content-Length': bytes.length })
  response.write(bytes.subarray(start, start + count), () => setTimeout(() => response.destroy(), 20))
}
