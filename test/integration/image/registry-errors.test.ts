import { execFileSync } from 'node:child_process'
import { createServer } from 'node:net'
import { mkdtemp, mkdir, copyFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { busyboxImage } from '../../lib/image-fixtures.js'
import { freePort, startRegistry, type TestRegistry } from '../../lib/registry.js'
import { harness, type Harness } from './harness.js'

/** An address of this machine that is none of loopback's: Docker asks a valid certificate of it. TEST-NET-1 (RFC 5737), on lo alone. */
const address = '192.0.2.77'
let h: Harness
afterEach(() => h.close())
const pull = (name: string) => h.images.pull(name, { onProgress: h.onProgress })

describe('a registry that cannot be reached: Docker\'s status and words', () => {
  it('refused', async () => {
    h = await harness()
    const port = await freePort()
    await expect(pull(`127.0.0.1:${port}/x`)).rejects.toMatchObject({ name: 'TransportError', statusCode: 500, message: `Get "http://127.0.0.1:${port}/v2/": dial tcp 127.0.0.1:${port}: connect: connection refused` })
    // A name with two addresses: Node's error has no message of its own then.
    await expect(pull(`localhost:${port}/x`)).rejects.toMatchObject({ statusCode: 500, message: expect.stringMatching(/^Get "http:\/\/localhost:\d+\/v2\/": dial tcp \S+:\d+: connect: connection refused$/) as unknown })
  })

  it('a name that nobody has', async () => {
    h = await harness()
    await expect(pull('no-such-registry.invalid/x')).rejects.toMatchObject({ statusCode: 500, message: expect.stringMatching(/^Get "https:\/\/no-such-registry.invalid\/v2\/": dial tcp: lookup no-such-registry.invalid: /) as unknown })
  })

  it('somebody who hangs up, and somebody who speaks something else', async () => {
    h = await harness()
    const server = createServer((socket) => socket.once('data', (data) => (data[0] === 0x16 ? socket.end('SSH-2.0-nothing\r\n') : socket.destroy())))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as { port: number }
    try {
      await expect(pull(`127.0.0.1:${port}/x`)).rejects.toMatchObject({ statusCode: 500, message: expect.stringMatching(/^Get "https?:\/\/127\.0\.0\.1:\d+\/v2\/": (EOF|http: server gave HTTP response to HTTPS client)$/) as unknown })
    } finally {
      await new Promise((resolve) => server.close(resolve))
    }
  })
})

describe('a registry with TLS', () => {
  let registry: TestRegistry
  let directory: string
  beforeAll(async () => {
    execFileSync('ip', ['address', 'replace', `${address}/32`, 'dev', 'lo'])
    directory = await mkdtemp(join(tmpdir(), 'hull-tls-'))
    execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=hull test', '-addext', `subjectAltName=IP:${address},IP:127.0.0.1`,
      '-keyout', join(directory, 'key.pem'), '-out', join(directory, 'cert.pem')], { stdio: 'ignore' })
    registry = await startRegistry({ address, tls: { certificate: join(directory, 'cert.pem'), key: join(directory, 'key.pem') } })
    await registry.push('box', '1', busyboxImage())
  })
  afterAll(async () => {
    await registry?.stop()
    execFileSync('ip', ['address', 'del', `${address}/32`, 'dev', 'lo'])
    await rm(directory, { recursive: true, force: true })
  })

  it('and a certificate of nobody known: refused', async () => {
    h = await harness({ registries: { insecure: [], certsDirs: [] } })
    await expect(pull(`${registry.host}/box:1`)).rejects.toMatchObject({
      statusCode: 500, message: `Get "https://${registry.host}/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority`,
    })
  })

  it('its authority in certs.d; a client certificate without a key is told', async () => {
    const certs = join(directory, 'certs.d')
    await mkdir(join(certs, registry.host), { recursive: true })
    await copyFile(join(directory, 'cert.pem'), join(certs, registry.host, 'ca.crt'))
    h = await harness({ registries: { insecure: [], certsDirs: [certs] } })
    expect((await pull(`${registry.host}/box:1`)).repoTags).toEqual([`${registry.host}/box:1`])
    await writeFile(join(certs, registry.host, 'client.cert'), '')
    await expect(pull(`${registry.host}/box:1`)).rejects.toMatchObject({ statusCode: 500, message: 'missing key client.key for client certificate client.cert. CA certificates must use the extension .crt' })
  })

  it('--insecure-registry, by name and by block; loopback needs no word', async () => {
    for (const insecure of [registry.host, '192.0.2.0/24']) {
      h = await harness({ registries: { insecure: [insecure], certsDirs: [] } })
      expect((await pull(`${registry.host}/box:1`)).repoTags).toHaveLength(1)
      await h.close()
    }
    h = await harness()
    const loopback = await startRegistry({ tls: { certificate: join(directory, 'cert.pem'), key: join(directory, 'key.pem') } })
    try {
      await loopback.push('box', '1', busyboxImage())
      expect((await pull(`${loopback.host}/box:1`)).repoTags).toHaveLength(1)
    } finally {
      await loopback.stop()
    }
  })

  it('plain HTTP where TLS is asked: said so', async () => {
    h = await harness({ registries: { insecure: [], certsDirs: [] } })
    const plain = await startRegistry({ address })
    try {
      await expect(pull(`${plain.host}/x`)).rejects.toMatchObject({ statusCode: 500, message: `Get "https://${plain.host}/v2/": http: server gave HTTP response to HTTPS client` })
    } finally {
      await plain.stop()
    }
  })
})
