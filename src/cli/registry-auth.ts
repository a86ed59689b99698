import { homedir } from 'node:os'
import { join } from 'node:path'
import { readIfExists } from '../base/files.js'
import { CliError } from './errors.js'

/** The key of a registry in ~/.docker/config.json. */
function registryOf(name: string): string {
  const slash = name.indexOf('/')
  const first = name.slice(0, Math.max(0, slash))
  return slash > 0 && (first.includes('.') || first.includes(':') || first === 'localhost') ? first : 'https://index.docker.io/v1/'
}

/**
 * X-Registry-Auth for the registry of `name`, from the `auths` that `docker login` wrote to $DOCKER_CONFIG or ~/.docker/config.json;
 * undefined when there are none. Credential helpers are not asked.
 */
export async function registryAuth(name: string): Promise<string | undefined> {
  const path = join(process.env.DOCKER_CONFIG ?? join(homedir(), '.docker'), 'config.json')
  const text = await readIfExists(path)
  if (text === undefined) return undefined
  let config: unknown
  try {
    config = JSON.parse(text)
  } catch {
    throw new CliError(`${path} is not valid JSON`)
  }
  const registry = registryOf(name)
  const auths = field(config, 'auths')
  const entry = field(auths, registry) ?? field(auths, `https://${registry}`)
  const identitytoken = field(entry, 'identitytoken')
  const auth = field(entry, 'auth')
  if (typeof identitytoken === 'string' && identitytoken) return encode({ identitytoken, serveraddress: registry })
  if (typeof auth !== 'string' || auth === '') return undefined
  const decoded = Buffer.from(auth, 'base64').toString('utf8')
  const colon = decoded.indexOf(':')
  return encode({ username: decoded.slice(0, colon), password: decoded.slice(colon + 1), serveraddress: registry })
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined
}

const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
