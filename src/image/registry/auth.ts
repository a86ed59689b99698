import { z } from 'zod'
import { HullError, unauthorized } from '../../base/errors.js'
import type { RegistryAuth } from '../types.js'
import type { Challenge } from './challenge.js'
import { readBody, type Transport } from './http.js'

const secret = z.string().max(1 << 16).nullish()
const tokenAnswer = z.object({ token: secret, access_token: secret, refresh_token: secret, expires_in: z.number().nullish() })

/** Bearer tokens are asked for at least this long, seconds (distribution token spec: "no less than 60"). */
const shortestLife = 60

const basic = (auth: RegistryAuth) => `Basic ${Buffer.from(`${auth.username ?? ''}:${auth.password ?? ''}`).toString('base64')}`
const hasPassword = (auth: RegistryAuth) => (auth.username ?? '') !== ''

export interface AuthorizerOptions {
  transport: Transport
  /** 'repository:NAME:pull,push'; none for a login. */
  scopes: readonly string[]
  /** The registry itself is spoken to without TLS: its token server may be too. */
  allowPlain: () => boolean
  /** Ask for a token that outlives the password's use (token spec, offline_token). */
  login?: boolean
}

/** Turns a registry's challenge into an Authorization header and keeps it until it runs out. */
export class Authorizer {
  private header: string | undefined
  private expires = Infinity
  private challenges: Challenge[] = []
  /** Several layers ask at once: one token serves all. */
  private flight: Promise<void> | undefined
  /** What the token server gave in place of the password, when {@link AuthorizerOptions.login} asked for it. */
  identityToken = ''

  constructor(
    private readonly auth: RegistryAuth,
    private readonly options: AuthorizerOptions,
  ) {}

  /** Who we would be is not known: the registry has no reason to let us in. */
  get isAnonymous(): boolean {
    return !hasPassword(this.auth) && !this.auth.identitytoken && !this.auth.registrytoken
  }

  /** What a 401 said. The next {@link authorization} answers it. */
  challenge(challenges: Challenge[]): void {
    this.challenges = challenges
    this.header = undefined
  }

  /** The header's value; undefined when nothing was asked of us. */
  async authorization(signal?: AbortSignal): Promise<string | undefined> {
    if (this.challenges.length === 0) return undefined
    if (this.header === undefined || Date.now() > this.expires) {
      this.flight ??= this.renew(signal).finally(() => (this.flight = undefined))
      await this.flight
    }
    return this.header
  }

  private async renew(signal?: AbortSignal): Promise<void> {
    this.expires = Infinity
    const bearer = this.challenges.find((c) => c.scheme === 'bearer')
    if (bearer !== undefined) {
      this.header = `Bearer ${this.auth.registrytoken || (await this.token(bearer, signal))}`
      return
    }
    if (!this.challenges.some((c) => c.scheme === 'basic')) throw unauthorized('unauthorized: the registry asks for an authentication that Hull does not have')
    if (!hasPassword(this.auth)) throw unauthorized('no basic auth credentials')
    this.header = basic(this.auth)
  }

  /** distribution, docs/spec/auth/token.md and oauth.md. */
  private async token(challenge: Challenge, signal?: AbortSignal): Promise<string> {
    const { realm, service } = challenge.parameters
    if (realm === undefined || !URL.canParse(realm)) throw new HullError(500, 'the registry names no valid token server')
    const url = new URL(realm)
    if (url.protocol !== 'https:' && !(url.protocol === 'http:' && this.options.allowPlain())) {
      throw new HullError(500, `the registry's token server ${url.origin} is not reached by https`)
    }
    url.username = url.password = ''
    const asked = new Date()
    const { transport, scopes, login } = this.options
    const form: [string, string][] = [...(service === undefined ? [] : [['service', service] as [string, string]]), ...scopes.map((scope): [string, string] => ['scope', scope])]
    const common = { signal, headers: { Accept: 'application/json' } }
    let response
    if (this.auth.identitytoken) {
      // oauth.md: several scopes are one value.
      const fields: [string, string][] = [...form.filter(([name]) => name !== 'scope'), ...(scopes.length > 0 ? [['scope', scopes.join(' ')] as [string, string]] : [])]
      const body = new URLSearchParams([...fields, ['grant_type', 'refresh_token'], ['client_id', 'hull'], ['refresh_token', this.auth.identitytoken]]).toString()
      response = await transport.request(url, { ...common, method: 'POST', body })
    } else {
      for (const [key, value] of form) url.searchParams.append(key, value)
      if (login && hasPassword(this.auth)) {
        url.searchParams.set('offline_token', 'true')
        url.searchParams.set('client_id', 'hull')
      }
      if (hasPassword(this.auth)) url.searchParams.set('account', this.auth.username!)
      response = await transport.request(url, { ...common, headers: { ...common.headers, ...(hasPassword(this.auth) ? { Authorization: basic(this.auth) } : {}) } })
    }
    const body = await readBody(response, 1 << 20, "the token server's answer")
    if (response.statusCode === 401 || response.statusCode === 403) {
      throw unauthorized(`unauthorized: ${this.isAnonymous ? 'authentication required' : 'incorrect username or password'}`)
    }
    if (response.statusCode !== 200) throw new HullError(500, `the token server ${url.origin} answered ${response.statusCode}`)
    return this.accept(body, asked)
  }

  private accept(body: Buffer, asked: Date): string {
    let json: unknown
    try {
      json = JSON.parse(body.toString('utf8'))
    } catch {
      json = undefined
    }
    const answer = tokenAnswer.safeParse(json)
    const token = answer.success ? (answer.data.token ?? answer.data.access_token) : undefined
    // It goes into a header: nothing but what RFC 6750's b64token (and some registries' '|') may hold.
    if (!token || !/^[\x21-\x7e]+$/.test(token)) throw new HullError(500, 'the token server answered without a token')
    this.identityToken = answer.data?.refresh_token ?? ''
    this.expires = asked.getTime() + (Math.max(answer.data?.expires_in ?? 0, shortestLife) - 5) * 1000
    return token
  }
}
