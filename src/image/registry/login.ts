import { HullError, messageOf, unauthorized } from '../../base/errors.js'
import type { RegistryAuth } from '../types.js'
import { Authorizer } from './auth.js'
import { parseChallenges } from './challenge.js'
import { pingRegistry, registryHost } from './client.js'
import { errorFrom, RegistryError } from './errors.js'
import { readBody, type Transport } from './http.js'

const hub = 'index.docker.io'

/** The registry that a server address of `docker login` means: 'https://index.docker.io/v1/', 'localhost:5000', 'https://registry.example/'. */
export function serverHost(address: string): string {
  const host = address.replace(/^https?:\/\//, '').split('/')[0]!
  return registryHost(host === '' || host === hub ? 'docker.io' : host)
}

/**
 * `docker login`: asks the registry whether it knows us. Resolves with the identity token, '' where the registry has none: the
 * client then keeps the password. 401 when we are refused (moby, registry/auth.go, loginV2).
 */
export async function login(transport: Transport, address: string, auth: RegistryAuth, signal?: AbortSignal): Promise<string> {
  const host = serverHost(address)
  try {
    const { base, response, body } = await pingRegistry(transport, host, signal)
    // Whoever may come in without a name may come in with any.
    if (response.statusCode === 200) return ''
    const challenges = parseChallenges(response.headers['www-authenticate'] ?? '')
    if (challenges.length === 0) throw errorFrom(response, body)
    const url = new URL('/v2/', base)
    const authorizer = new Authorizer(auth, { transport, scopes: [], allowPlain: () => base.protocol === 'http:', login: true })
    authorizer.challenge(challenges)
    let header: string | undefined
    try {
      header = await authorizer.authorization(signal)
    } catch (error) {
      if (error instanceof HullError && error.statusCode === 401) throw unauthorized(`Get "${url.href}": ${messageOf(error)}`, error)
      throw error
    }
    const answer = await transport.request(url, { signal, ...(header === undefined ? {} : { headers: { Authorization: header } }) })
    await readBody(answer, 64 << 10, "the registry's answer").catch(() => undefined)
    if (answer.statusCode === 200) return authorizer.identityToken
    const words = `login attempt to ${url.href} failed with status: ${answer.statusCode} ${answer.statusMessage ?? ''}`.trim()
    throw answer.statusCode === 401 ? unauthorized(words) : new HullError(500, words)
  } catch (error) {
    if (error instanceof RegistryError) throw new HullError(error.status === 401 ? 401 : 500, error.message, { cause: error })
    throw error
  }
}
