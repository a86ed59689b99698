import FindMyWay from 'find-my-way'
import { badRequest } from '../base/errors.js'
import type { Exchange, Handler } from './exchange.js'
import type { HijackHandler } from './hijack.js'

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE'

/** An endpoint: an ordinary one answers over HTTP, a hijacking one may take the connection over. */
export type Route = { kind: 'plain'; handler: Handler } | { kind: 'hijack'; handler: HijackHandler }

const nothing = () => {}

/** Method and path to endpoint. */
export class Router {
  // Doubled slashes: clients put names as `ps` shows them ('/web') into paths.
  readonly #router = FindMyWay({ maxParamLength: 1024, ignoreDuplicateSlashes: true })
  /** 'GET /containers/:id/json', … : every endpoint there is, for the documentation's test. */
  readonly endpoints: string[] = []
  /** By method and last path segment: '/images/a/b/json' → 'json'. */
  readonly #byName = new Map<string, Route>()

  /** `path` in find-my-way's syntax: '/containers/:id/json'. */
  on(method: Method, path: string, handler: Handler): void {
    this.endpoints.push(`${method} ${path}`)
    this.#router.on(method, path, nothing, { kind: 'plain', handler } satisfies Route)
  }

  hijack(path: string, handler: HijackHandler): void {
    this.endpoints.push(`POST ${path}`)
    this.#router.on('POST', path, nothing, { kind: 'hijack', handler } satisfies Route)
  }

  /**
   * An endpoint whose path holds a name with slashes in the middle: `prefix` + NAME + `suffix`. '' as the suffix: the name is all the rest.
   * The name may also come with its slashes as %2F. It is `params.name`.
   */
  named(method: Method, prefix: string, suffix: string, handler: Handler): void {
    this.endpoints.push(`${method} ${prefix}:name${suffix}`)
    this.#byName.set(`${method} ${prefix} ${suffix}`, { kind: 'plain', handler })
  }

  /** The endpoint of a path without its version and query. 400 for a path with broken % escapes. */
  find(method: string, path: string): { route: Route; params: Record<string, string> } | undefined {
    if (/%(?![0-9a-fA-F]{2})/.test(path)) throw badRequest(`invalid URL escape in ${JSON.stringify(path.slice(0, 200))}`)
    const found = this.#router.find(method as Method, path)
    if (found) {
      const params: Record<string, string> = {}
      for (const [key, value] of Object.entries(found.params)) params[key] = this.#checked(value ?? '')
      return { route: found.store as Route, params }
    }
    const split = /^(\/[a-z]+\/)(.+)$/s.exec(path)
    if (!split) return undefined
    const [, prefix, rest] = split as unknown as [string, string, string]
    const slash = rest.lastIndexOf('/')
    const withSuffix = slash > 0 ? this.#byName.get(`${method} ${prefix} ${rest.slice(slash)}`) : undefined
    if (withSuffix) return { route: withSuffix, params: { name: this.#decoded(rest.slice(0, slash)) } }
    const whole = this.#byName.get(`${method} ${prefix} `)
    return whole ? { route: whole, params: { name: this.#decoded(rest) } } : undefined
  }

  #decoded(text: string): string {
    try {
      return this.#checked(decodeURIComponent(text))
    } catch (error) {
      throw badRequest(`invalid URL escape in ${JSON.stringify(text.slice(0, 200))}`, error)
    }
  }

  /** No name of anything holds a NUL byte or a line break; they must not reach file names or the log. */
  #checked(text: string): string {
    if (/[\0-\x1f\x7f]/.test(text)) throw badRequest('invalid name: it holds a control character')
    return text
  }
}

export type { Exchange }
