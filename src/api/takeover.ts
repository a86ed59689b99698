import { STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { PassThrough, type Readable } from 'node:stream'
import { badRequest, HullError } from '../base/errors.js'
import { maxJson } from './exchange.js'
import { HijackedConnection, type Hijackable } from './hijack.js'

/** Headers that a hijacked answer carries. */
export type HeadHeaders = Readonly<Record<string, string>>

/** An answer's head, by hand. */
export function responseHead(upgrade: boolean, contentType: string, headers: HeadHeaders): string {
  const lines = upgrade
    ? ['HTTP/1.1 101 UPGRADED', `Content-Type: ${contentType}`, 'Connection: Upgrade', 'Upgrade: tcp']
    : [`HTTP/1.1 200 ${STATUS_CODES[200]}`, `Content-Type: ${contentType}`]
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`)
  return lines.join('\r\n') + '\r\n\r\n'
}

/**
 * A request without `Upgrade` whose connection is to be taken over: Node's parser is taken off the socket here and now, because what the
 * client sends from here on is the container's stdin and no HTTP. (Adding a 'data' listener makes node:http give the socket's bytes back to
 * JavaScript; its own listeners would feed them to the parser and are removed. 'close' stays: it frees the parser.)
 */
export function takeFromParser(socket: Socket): void {
  for (const event of ['data', 'end', 'error', 'drain', 'timeout', 'pause', 'resume']) socket.removeAllListeners(event)
  socket.on('error', () => {})
  const collector = () => {}
  socket.pause()
  socket.on('data', collector)
  socket.off('data', collector)
  socket.pause()
}

/** The connection of an ordinary request, after {@link takeFromParser}; or of an upgraded one, where `rest` is what followed the body. */
export function hijackable(socket: Socket, response: ServerResponse, upgrade: boolean, headers: HeadHeaders, rest: () => Buffer): Hijackable {
  return {
    upgrade,
    take(contentType) {
      response.detachSocket(socket)
      if (!socket.destroyed) socket.write(responseHead(upgrade, contentType, headers))
      return new HijackedConnection(socket, rest())
    },
  }
}

/**
 * The body of an upgrade request. Node's parser stops at the end of the head, so that the body lies in `head` and on the socket: it is
 * read here by Content-Length or chunks, at most {@link maxJson} bytes; what follows it stays for the stream (`rest`).
 */
export async function readUpgradeBody(request: IncomingMessage, socket: Socket, head: Buffer): Promise<{ body: Readable; rest: Buffer }> {
  const text = request.headers['content-length']
  const chunked = request.headers['transfer-encoding'] !== undefined
  if (chunked) return readChunks(socket, head)
  const length = text === undefined ? 0 : /^\d{1,15}$/.test(text) ? Number(text) : NaN
  if (Number.isNaN(length)) throw badRequest('invalid Content-Length')
  if (length > maxJson) throw new HullError(413, `request body is larger than ${maxJson} bytes`)
  const data = await readAtLeast(socket, head, (have) => have.length >= length)
  return { body: bodyOf(data.subarray(0, length)), rest: data.subarray(length) }
}

/** Chunked transfer coding (RFC 9112 section 7.1), for small JSON bodies. */
async function readChunks(socket: Socket, head: Buffer): Promise<{ body: Readable; rest: Buffer }> {
  let parsed: { body: Buffer; used: number } | undefined
  const data = await readAtLeast(socket, head, (have) => {
    parsed = parseChunks(have)
    return parsed !== undefined
  })
  return { body: bodyOf(parsed!.body), rest: data.subarray(parsed!.used) }
}

/** `undefined`: not all there yet. */
export function parseChunks(data: Buffer): { body: Buffer; used: number } | undefined {
  const parts: Buffer[] = []
  let at = 0
  for (;;) {
    const lineEnd = data.indexOf('\r\n', at)
    if (lineEnd < 0) {
      if (data.length - at > 1024) throw badRequest('invalid chunk size')
      return undefined
    }
    const size = /^([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?$/.exec(data.toString('latin1', at, lineEnd))
    if (!size) throw badRequest('invalid chunk size')
    const length = parseInt(size[1]!, 16)
    at = lineEnd + 2
    if (length > maxJson) throw new HullError(413, `request body is larger than ${maxJson} bytes`)
    if (length === 0) {
      // No trailers: nobody sends them.
      if (data.length < at + 2) return undefined
      if (data.toString('latin1', at, at + 2) !== '\r\n') throw badRequest('trailers are not supported')
      return { body: Buffer.concat(parts), used: at + 2 }
    }
    if (data.length < at + length + 2) return undefined
    if (data.toString('latin1', at + length, at + length + 2) !== '\r\n') throw badRequest('invalid chunk')
    parts.push(data.subarray(at, at + length))
    at += length + 2
  }
}

function bodyOf(data: Buffer): Readable {
  const body = new PassThrough()
  body.end(data)
  return body
}

/** Reads until `enough`. Rejects when the client goes, when there is more than a body can be, or after ten seconds. */
function readAtLeast(socket: Socket, head: Buffer, enough: (have: Buffer) => boolean): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let have = head
    const finish = (error?: Error): void => {
      clearTimeout(timer)
      socket.off('data', onData)
      socket.off('end', onEnd)
      socket.off('close', onEnd)
      socket.pause()
      if (error) reject(error)
      else resolve(have)
    }
    const check = (): void => {
      try {
        if (enough(have)) finish()
        else if (have.length > 2 * maxJson) finish(new HullError(413, `request body is larger than ${maxJson} bytes`))
      } catch (error) {
        finish(error as Error)
      }
    }
    const onData = (chunk: Buffer): void => {
      have = Buffer.concat([have, chunk])
      check()
    }
    const onEnd = () => finish(badRequest('the connection ended in the middle of the request body'))
    const timer = setTimeout(() => finish(new HullError(408, 'the request body did not come in time')), 10_000)
    if (enough(have)) return finish()
    socket.on('data', onData)
    socket.on('end', onEnd)
    socket.on('close', onEnd)
  })
}
