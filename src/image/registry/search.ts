import { z } from 'zod'
import { badRequest, HullError, internal } from '../../base/errors.js'
import type { RegistryAuth, SearchResult } from '../types.js'
import { readBody, TransportError, type Transport } from './http.js'

const text = z.string().nullish().transform((value) => value ?? '')
const flag = z.boolean().nullish().transform((value) => value ?? false)
const answer = z.object({
  results: z.array(z.object({ name: z.string(), description: text, star_count: z.number().nullish().transform((value) => value ?? 0), is_official: flag, is_automated: flag })).nullish(),
})

/** The registry that a search term names: 'localhost:5000/redis'; else Docker Hub's index. */
function split(term: string): { host: string; rest: string } {
  const slash = term.indexOf('/')
  const first = slash < 0 ? '' : term.slice(0, slash)
  if (slash < 0 || !(/[.:]/.test(first) || first === 'localhost') || first === 'docker.io') return { host: 'index.docker.io', rest: first === 'docker.io' ? term.slice(slash + 1) : term }
  return { host: first, rest: term.slice(slash + 1) }
}

/**
 * `docker search`: the v1 index protocol, GET /v1/search?q=…&n=…, which Docker Hub and a few registries speak (moby, registry/search_session.go).
 * OCI's distribution-spec has no search: other registries answer 404, and the error says so.
 */
export async function search(transport: Transport, term: string, options: { limit: number; auth?: RegistryAuth; signal?: AbortSignal }): Promise<SearchResult[]> {
  if (/^https?:\/\//.test(term)) throw badRequest(`invalid repository name: repository name (${term.slice(0, 200)}) should not have a scheme`)
  if (options.limit < 1 || options.limit > 100) throw badRequest(`limit ${options.limit} is outside the range of [1, 100]`)
  const { host, rest } = split(term)
  if (!URL.canParse(`https://${host}`)) throw badRequest(`invalid registry address ${host.slice(0, 200)}`)
  const insecure = await transport.insecure(host)
  const { username, password } = options.auth ?? {}
  const headers = { 'X-Docker-Token': 'true', ...(username ? { Authorization: `Basic ${Buffer.from(`${username}:${password ?? ''}`).toString('base64')}` } : {}) }
  let failure: unknown
  for (const scheme of insecure ? ['https', 'http'] : ['https']) {
    const url = new URL(`${scheme}://${host}/v1/search`)
    url.searchParams.set('q', rest.replace(/^library\//, ''))
    url.searchParams.set('n', String(options.limit))
    try {
      const { response } = await transport.follow(url, { headers, signal: options.signal })
      const body = await readBody(response, 4 << 20, "the registry's answer")
      if (response.statusCode === 404) throw new HullError(404, `the registry ${host} has no search (no /v1/search)`)
      if (response.statusCode !== 200) throw internal(`Unexpected status code ${response.statusCode}`)
      let json: unknown
      try {
        json = JSON.parse(body.toString('utf8'))
      } catch (error) {
        throw internal(`the registry ${host} answered a search with something that is not JSON`, error)
      }
      const parsed = answer.safeParse(json)
      if (!parsed.success) throw internal(`the registry ${host} answered a search in a form that is not the index protocol's`)
      return (parsed.data.results ?? []).slice(0, options.limit).map((row) => ({
        name: row.name, description: row.description, starCount: row.star_count, isOfficial: row.is_official, isAutomated: row.is_automated,
      }))
    } catch (error) {
      options.signal?.throwIfAborted()
      if (!(error instanceof TransportError)) throw error
      failure = error
    }
  }
  throw failure
}
