import type { IncomingMessage } from 'node:http'
import { z } from 'zod'
import { HullError, notFound, unauthorized } from '../../base/errors.js'
import { familiarName, familiarString, type Reference } from '../references.js'
import { parseChallenges } from './challenge.js'

/** A registry's own error (distribution-spec, "Error Codes"). */
export class RegistryError extends Error {
  constructor(
    readonly status: number,
    /** 'MANIFEST_UNKNOWN'; '' when the answer was not in the registry's form. */
    readonly code: string,
    message: string,
  ) {
    super(message)
    this.name = 'RegistryError'
  }
}

const form = z.object({ errors: z.array(z.object({ code: z.string(), message: z.string().nullish() })).min(1) })
const defaultMessages: Record<string, string> = {
  UNAUTHORIZED: 'authentication required', DENIED: 'requested access to the resource is denied', MANIFEST_UNKNOWN: 'manifest unknown',
  NAME_UNKNOWN: 'repository name not known to registry', BLOB_UNKNOWN: 'blob unknown to registry', TOOMANYREQUESTS: 'too many requests',
}

/** What people are shown of a stranger's text: one line of printable characters. */
const clean = (text: string) => text.replace(/[^\x20-\x7e]+/g, ' ').slice(0, 1000)

/** Reads an error response (distribution, registry/client/errors.go). */
export function errorFrom(response: IncomingMessage, body: Buffer): RegistryError {
  const status = response.statusCode ?? 0
  if (status === 401) {
    for (const challenge of parseChallenges(response.headers['www-authenticate'] ?? '')) {
      const error = challenge.parameters.error
      const code = error === 'insufficient_scope' ? 'DENIED' : error === 'invalid_token' ? 'UNAUTHORIZED' : undefined
      if (code !== undefined) return new RegistryError(status, code, clean(challenge.parameters.error_description || defaultMessages[code]!))
    }
  }
  let json: unknown
  try {
    json = JSON.parse(body.toString('utf8'))
  } catch {
    json = undefined
  }
  const parsed = form.safeParse(json)
  if (parsed.success) {
    const { code, message } = parsed.data.errors[0]!
    return new RegistryError(status, clean(code), clean(message || defaultMessages[code] || code))
  }
  if (status === 401) return new RegistryError(status, 'UNAUTHORIZED', defaultMessages.UNAUTHORIZED!)
  if (status === 429) return new RegistryError(status, 'TOOMANYREQUESTS', defaultMessages.TOOMANYREQUESTS!)
  return new RegistryError(status, '', `received unexpected HTTP status: ${status} ${clean(response.statusMessage ?? '')}`.trim())
}

/** Docker's words for a failed pull (moby, distribution/errors.go, TranslatePullError). */
export function translatePullError(error: unknown, reference: Reference): unknown {
  if (!(error instanceof RegistryError)) return error
  const cause = error.code === '' ? error.message : `${error.code.toLowerCase().replaceAll('_', ' ')}: ${error.message}`
  switch (error.code) {
    case 'DENIED':
      return notFound(`pull access denied for ${familiarName(reference)}, repository does not exist or may require 'docker login': ${cause}`, error)
    case 'MANIFEST_UNKNOWN':
      return notFound(`manifest for ${familiarString(reference)} not found: ${cause}`, error)
    case 'NAME_UNKNOWN':
      return notFound(`repository ${familiarName(reference)} not found: ${cause}`, error)
    case 'UNAUTHORIZED':
      return unauthorized(cause, error)
    default:
      return error.status === 404 ? notFound(cause, error) : new HullError(500, cause, { cause: error })
  }
}

/** Docker's words for a failed push (moby, distribution/push.go): the registry's own, with its code before them. */
export function translatePushError(error: unknown): unknown {
  if (!(error instanceof RegistryError)) return error
  const cause = error.code === '' ? error.message : `${error.code.toLowerCase().replaceAll('_', ' ')}: ${error.message}`
  return new HullError(error.status === 401 ? 401 : error.status === 403 ? 403 : error.status === 404 ? 404 : 500, cause, { cause: error })
}
