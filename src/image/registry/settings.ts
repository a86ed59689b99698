import { lookup } from 'node:dns/promises'
import { readdir, readFile } from 'node:fs/promises'
import { BlockList, isIP } from 'node:net'
import { join } from 'node:path'
import { codeOf, internal, messageOf } from '../../base/errors.js'

/** What the daemon was told of registries. */
export interface RegistrySettings {
  /** `--insecure-registry`: 'host', 'host:port' or a CIDR block. Their certificates are not verified, and plain HTTP will do. */
  insecure: readonly string[]
  /** Directories such as /etc/docker/certs.d, with one directory for each registry ('host' or 'host:port'). */
  certsDirs: readonly string[]
}

/** dockerd's places, so that what a user has set up for Docker holds for Hull too. */
export const defaultSettings: RegistrySettings = { insecure: [], certsDirs: ['/etc/docker/certs.d'] }

const cidr = /^([0-9a-fA-F.:]+)\/(\d{1,3})$/

/** One value of `--insecure-registry`; throws what is wrong with it (moby, registry/config.go, loadInsecureRegistries). */
export function checkInsecureRegistry(text: string): string {
  if (/^https?:\/\//.test(text)) throw new Error(`insecure registry ${text} should not contain '://'`)
  const block = cidr.exec(text)
  if (block !== null) {
    const family = isIP(block[1]!)
    if (family === 0 || Number(block[2]) > (family === 4 ? 32 : 128)) throw new Error(`insecure registry ${text} is no valid block of addresses`)
  } else if (!/^[A-Za-z0-9.-]+(:\d{1,5})?$|^\[[0-9a-fA-F:]+\](:\d{1,5})?$/.test(text)) throw new Error(`insecure registry ${text} is not valid: want HOST[:PORT] or CIDR`)
  return text
}

/** 'localhost', 127.0.0.0/8 and ::1: the registries that Docker takes for insecure without being told. */
export function isLoopback(hostname: string): boolean {
  const bare = hostname.replace(/^\[|\]$/g, '').toLowerCase()
  if (bare === 'localhost') return true
  return isIP(bare) === 4 ? bare.startsWith('127.') : isIP(bare) === 6 && bare === '::1'
}

/** True when a registry needs no valid certificate: loopback, named, or with an address in a block that was named (moby isSecureIndex). */
export async function isInsecure(host: string, settings: RegistrySettings): Promise<boolean> {
  const { hostname } = new URL(`https://${host}`)
  if (isLoopback(hostname) || settings.insecure.includes(host) || settings.insecure.includes(hostname)) return true
  const blocks = new BlockList()
  for (const text of ['127.0.0.0/8', '::1/128', ...settings.insecure]) {
    const block = cidr.exec(text)
    if (block !== null) blocks.addSubnet(block[1]!, Number(block[2]), isIP(block[1]!) === 6 ? 'ipv6' : 'ipv4')
  }
  const bare = hostname.replace(/^\[|\]$/g, '')
  // A name that does not resolve is not insecure; the request itself says what is the matter.
  const addresses = isIP(bare) ? [{ address: bare, family: isIP(bare) }] : await lookup(bare, { all: true }).catch(() => [])
  return addresses.some(({ address, family }) => blocks.check(address, family === 6 ? 'ipv6' : 'ipv4'))
}

/** A registry's own authorities and our certificates for it. */
export interface Certificates {
  ca: string[]
  /** In pairs. */
  cert: string[]
  key: string[]
}

/**
 * `certs.d/<host:port>/`: *.crt are authorities, *.cert a client's certificate with its key in *.key (moby, registry.ReadCertsDir;
 * https://docs.docker.com/engine/security/certificates/).
 */
export async function readCertificates(host: string, settings: RegistrySettings): Promise<Certificates> {
  const found: Certificates = { ca: [], cert: [], key: [] }
  for (const root of settings.certsDirs) {
    const directory = join(root, host)
    let names: string[]
    try {
      names = (await readdir(directory)).sort()
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') continue
      throw internal(`cannot read ${directory}: ${messageOf(error)}`, error)
    }
    for (const name of names) {
      if (name.endsWith('.crt')) found.ca.push(await readFile(join(directory, name), 'utf8'))
      if (name.endsWith('.cert')) {
        const key = `${name.slice(0, -'.cert'.length)}.key`
        if (!names.includes(key)) throw internal(`missing key ${key} for client certificate ${name}. CA certificates must use the extension .crt`)
        found.cert.push(await readFile(join(directory, name), 'utf8'))
        found.key.push(await readFile(join(directory, key), 'utf8'))
      }
      if (name.endsWith('.key') && !names.includes(`${name.slice(0, -'.key'.length)}.cert`)) throw internal(`missing client certificate ${name.slice(0, -'.key'.length)}.cert for key ${name}`)
    }
  }
  return found
}
