import { isIP } from 'node:net'
import { messageOf } from '../../base/errors.js'

type NetworkError = NodeJS.ErrnoException & { address?: string; port?: number; hostname?: string; host?: string; cert?: { subjectaltname?: string } }

const plain: Record<string, string> = {
  ECONNREFUSED: 'connect: connection refused', EHOSTUNREACH: 'connect: no route to host', ENETUNREACH: 'connect: network is unreachable',
  EACCES: 'connect: permission denied', EPERM: 'connect: operation not permitted', EADDRNOTAVAIL: 'connect: cannot assign requested address', ETIMEDOUT: 'i/o timeout',
}
const unknownAuthority = new Set(['DEPTH_ZERO_SELF_SIGNED_CERT', 'SELF_SIGNED_CERT_IN_CHAIN', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'UNABLE_TO_GET_ISSUER_CERT', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY'])
const expired = new Set(['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID'])

/** What went wrong below HTTP, in the words of Go's net and crypto/tls: what people search for and scripts match. */
export function networkWords(cause: unknown): string {
  // Node tries a name's addresses in turn and then has an error of errors, without a message.
  const error = (cause instanceof AggregateError ? cause.errors[0] : cause) as NetworkError
  const code = error instanceof Error ? (error.code ?? '') : ''
  const x509 = (what: string) => `tls: failed to verify certificate: x509: ${what}`
  if (unknownAuthority.has(code)) return x509('certificate signed by unknown authority')
  if (expired.has(code)) return x509('certificate has expired or is not yet valid')
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    const names = (error.cert?.subjectaltname ?? '').replace(/(DNS|IP Address):/g, '').slice(0, 300)
    return x509(names === '' ? `certificate is not valid for any names, but wanted to match ${error.host ?? ''}` : `certificate is valid for ${names}, not ${error.host ?? ''}`)
  }
  if (/wrong version number|packet length too long|http request/i.test(messageOf(error))) return 'http: server gave HTTP response to HTTPS client'
  if (/alert (bad certificate|certificate required|unknown ca|handshake failure)/i.test(messageOf(error))) return `remote error: tls: ${/alert ([a-z ]+)/i.exec(messageOf(error))![1]!.trim()}`
  if (code === 'ENOTFOUND') return `dial tcp: lookup ${error.hostname ?? ''}: no such host`
  if (code === 'EAI_AGAIN') return `dial tcp: lookup ${error.hostname ?? ''}: Temporary failure in name resolution`
  if (code === 'ECONNRESET') return /hang up/.test(messageOf(error)) ? 'EOF' : 'read: connection reset by peer'
  if (code === 'EPIPE') return 'write: broken pipe'
  if (/^HPE_/.test(code)) return 'net/http: HTTP/1.x transport connection broken: malformed HTTP response'
  const where = error.address === undefined ? '' : `dial tcp ${isIP(error.address) === 6 ? `[${error.address}]` : error.address}:${error.port ?? 0}: `
  return Object.hasOwn(plain, code) ? `${where}${plain[code]}` : messageOf(error)
}
