import type { RegistryAuth } from '../engine/api-types.js'
import { fields, text } from './schema.js'

const auth = fields({ username: text, password: text, auth: text, identitytoken: text, registrytoken: text })

/** The X-Registry-Auth header: base64url of JSON. One that cannot be read is as none, as in Docker. */
export function registryAuth(header: string | string[] | undefined): RegistryAuth | undefined {
  if (typeof header !== 'string' || header === '' || header.length > 16384) return undefined
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(header, 'base64url').toString('utf8'))
  } catch {
    return undefined
  }
  const parsed = auth.safeParse(value)
  if (!parsed.success) return undefined
  const result: RegistryAuth = {}
  for (const key of ['username', 'password', 'identitytoken', 'registrytoken'] as const) if (parsed.data[key] !== '') result[key] = parsed.data[key]
  if (parsed.data.auth !== '' && result.username === undefined) {
    const pair = Buffer.from(parsed.data.auth, 'base64').toString('utf8')
    const colon = pair.indexOf(':')
    if (colon > 0) Object.assign(result, { username: pair.slice(0, colon), password: pair.slice(colon + 1) })
  }
  return Object.keys(result).length > 0 ? result : undefined
}

/** POST /auth */
export const authBody = fields({ username: text, password: text, serveraddress: text, identitytoken: text, auth: text })
