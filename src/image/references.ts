import { badRequest } from '../base/errors.js'
import { isDigest, type Digest } from './digest.js'

/**
 * A name of an image, normalised. The grammar is github.com/distribution/reference (reference.go, regexp.go), with
 * Docker's defaults: docker.io where no domain is written, library/ where Docker Hub's path has one part.
 */
export interface Reference {
  /** 'docker.io', 'localhost:5000' */
  domain: string
  /** 'library/busybox' */
  path: string
  tag?: string
  digest?: Digest
}

const alphanumeric = '[a-z0-9]+'
const component = `${alphanumeric}(?:(?:\\.|_|__|-+)${alphanumeric})*`
const domainComponent = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])'
const domainPattern = new RegExp(`^(?:${domainComponent}(?:\\.${domainComponent})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`)
const pathPattern = new RegExp(`^${component}(?:/${component})*$`)
const tagPattern = /^\w[\w.-]{0,127}$/
const anyDigest = /^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/
const identifier = /^[a-f0-9]{64}$/

const nameLimit = 255
const invalid = () => badRequest('invalid reference format')

/** Splits 'domain/rest' as Docker does: the first part is a domain when it looks like one (a dot, a colon, capitals, or 'localhost'). */
function splitDomain(name: string): [domain: string, rest: string] {
  const slash = name.indexOf('/')
  const first = slash < 0 ? '' : name.slice(0, slash)
  const isDomain = slash >= 0 && (/[.:]/.test(first) || first === 'localhost' || first.toLowerCase() !== first)
  let domain = isDomain ? first : 'docker.io'
  let rest = isDomain ? name.slice(slash + 1) : name
  if (domain === 'index.docker.io') domain = 'docker.io'
  if (domain === 'docker.io' && !rest.includes('/')) rest = `library/${rest}`
  return [domain, rest]
}

/** Parses what a user wrote. No tag is added: see {@link withDefaultTag}. Throws 400 'invalid reference format'. */
export function parseReference(text: string): Reference {
  if (text.length > 2048) throw invalid()
  if (identifier.test(text)) throw badRequest(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`)
  const [domain, rest] = splitDomain(text)
  let remainder = rest
  let digest: Digest | undefined
  const at = remainder.indexOf('@')
  if (at >= 0) {
    const written = remainder.slice(at + 1)
    if (!anyDigest.test(written)) throw invalid()
    if (!isDigest(written)) {
      throw badRequest(written.startsWith('sha256:') ? 'invalid checksum digest length' : 'unsupported digest algorithm')
    }
    digest = written
    remainder = remainder.slice(0, at)
  }
  let tag: string | undefined
  const colon = remainder.indexOf(':')
  if (colon >= 0) {
    tag = remainder.slice(colon + 1)
    remainder = remainder.slice(0, colon)
    if (!tagPattern.test(tag)) throw invalid()
  }
  if (remainder.toLowerCase() !== remainder) throw badRequest(`invalid reference format: repository name (${remainder}) must be lowercase`)
  if (!pathPattern.test(remainder) || !domainPattern.test(domain)) throw invalid()
  if (remainder.length > nameLimit) throw badRequest(`repository name must not be more than ${nameLimit} characters`)
  return { domain, path: remainder, ...(tag === undefined ? {} : { tag }), ...(digest === undefined ? {} : { digest }) }
}

/** ':latest' where neither a tag nor a digest is written. */
export function withDefaultTag(reference: Reference): Reference {
  return reference.tag === undefined && reference.digest === undefined ? { ...reference, tag: 'latest' } : reference
}

/** A repository and a tag given apart, as in POST /images/{name}/tag. An empty tag is 'latest'. */
export function taggedReference(repository: string, tag: string): Reference {
  const reference = parseReference(repository)
  if (reference.digest !== undefined) throw badRequest('refusing to create a tag with a digest reference')
  if (tag === '') return withDefaultTag(reference)
  if (!tagPattern.test(tag)) throw badRequest('invalid tag format')
  return { domain: reference.domain, path: reference.path, tag }
}

/** 'docker.io/library/busybox' */
export function canonicalName(reference: Pick<Reference, 'domain' | 'path'>): string {
  return `${reference.domain}/${reference.path}`
}

function suffix(reference: Reference): string {
  return (reference.tag === undefined ? '' : `:${reference.tag}`) + (reference.digest === undefined ? '' : `@${reference.digest}`)
}

/** 'docker.io/library/busybox:latest': the key under which names are stored. */
export function canonicalString(reference: Reference): string {
  return canonicalName(reference) + suffix(reference)
}

/** 'busybox': what Docker shows. */
export function familiarName(reference: Pick<Reference, 'domain' | 'path'>): string {
  if (reference.domain !== 'docker.io') return canonicalName(reference)
  return reference.path.startsWith('library/') && reference.path.split('/').length === 2 ? reference.path.slice('library/'.length) : reference.path
}

/** 'busybox:latest' */
export function familiarString(reference: Reference): string {
  return familiarName(reference) + suffix(reference)
}

/** True when what the user wrote can only mean this image ID or a prefix of it (moby isImageIDPrefix). */
export function isIdPrefix(id: string, text: string): boolean {
  return text !== '' && (id.startsWith(text) || id.slice(id.indexOf(':') + 1).startsWith(text))
}
